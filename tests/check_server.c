/* check_server.c: a server from start to end, as seen by clients, log and service manager. */
#include "config_build.h"

#include <dirent.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <sys/un.h>

#include "check_net.h"
#include "check_run.h"
#include "check_stderr.h"
#include "control/server.h"

enum { CLIENTS = 50, PATH_SIZE = 100, TEXT_SIZE = 512 };

/* --- a server on a thread of its own, which is its main thread --- */

static struct {
	const char *ini;
	pthread_t thread;
	int commands[2]; /* a pipe: `s` stops, `c` logs the counters, `r` reloads, `e` without end */
	struct server *server;
	atomic_bool over;
	bool started;
} running;

/* Requests the next reload during each reload, and an upgrade during the first one. */
static void request_more(const struct config *config, void *requested)
{
	(void)config;
	server_reload(running.server);
	if (!*(bool *)requested)
		server_upgrade(running.server);
	*(bool *)requested = true;
}

static void on_command(evutil_socket_t fd, short what, void *argument)
{
	static bool requested; /* each test has a process of its own */
	char command;
	(void)what, (void)argument;
	if (read(fd, &command, 1) != 1)
		return;
	if (command == 'e')
		server_on_config(running.server, request_more, &requested);
	if (command == 's')
		server_stop(running.server);
	else if (command == 'r' || command == 'e')
		server_reload(running.server);
	else
		server_log_counters(running.server);
}

static void run(struct config *config)
{
	running.server = server_new(config);
	if (running.server == NULL)
		return;
	struct event *command =
		event_new(server_base(running.server), running.commands[0], EV_READ | EV_PERSIST, on_command, NULL);
	event_add(command, NULL);
	running.started = server_start(running.server);
	if (running.started)
		server_run(running.server);
	event_free(command);
	server_free(running.server);
}

static void *run_thread(void *argument)
{
	log_open(LOG_TO_STDERR, LOG_NOTICE, LOG_DAEMON);
	run(argument);
	log_close();
	config_unref(argument);
	atomic_store(&running.over, true);
	return NULL;
}

/* The daemon would become another user otherwise. */
#define DAEMON "[daemon]\nuser = root\n"

static void start_config(struct config *config)
{
	atomic_store(&running.over, false);
	ck_assert_int_eq(pipe2(running.commands, O_CLOEXEC), 0);
	ck_assert_int_eq(pthread_create(&running.thread, NULL, run_thread, config), 0);
}

static void start(const char *ini)
{
	start_config(host_read(ini));
}

static void command(char letter)
{
	ck_assert_int_eq(write(running.commands[1], &letter, 1), 1);
}

/* Returns when the server has been freed. */
static void await_over(void)
{
	for (int left = NET_TIMEOUT_MS; !atomic_load(&running.over);)
		net_rest(&left);
	pthread_join(running.thread, NULL);
	close(running.commands[0]);
	close(running.commands[1]);
}

static void stop(void)
{
	command('s');
	await_over();
}

static void await_line(const char *text)
{
	for (int left = NET_TIMEOUT_MS; strstr(stderr_so_far(), text) == NULL;) {
		ck_assert_msg(left > 0 && !atomic_load(&running.over), "no \"%s\" in\n%s", text, stderr_text);
		net_rest(&left);
	}
}

static void assert_line(const char *text)
{
	ck_assert_msg(strstr(stderr_so_far(), text) != NULL, "no \"%s\" in\n%s", text, stderr_text);
}

/* Has the counters logged until TEXT is among them, as a client can see its reply before it is counted. */
static void await_counters(const char *text)
{
	for (int left = NET_TIMEOUT_MS; strstr(stderr_so_far(), text) == NULL;) {
		ck_assert_msg(left > 0, "no \"%s\" in\n%s", text, stderr_text);
		command('c');
		net_rest(&left);
	}
}

static void assert_no_line(const char *text)
{
	ck_assert_msg(strstr(stderr_so_far(), text) == NULL, "\"%s\" in\n%s", text, stderr_text);
}

/* Returns the address of the line `NAME: listening on TRANSPORT IP:PORT`. */
static struct socket_address listened(const char *name, const char *transport, const char *ip)
{
	char line[TEXT_SIZE];
	unsigned port = 0;
	snprintf(line, sizeof line, "%s: listening on %s %s:", name, transport, ip);
	assert_line(line);
	ck_assert_int_eq(sscanf(strstr(stderr_text, line) + strlen(line), "%u", &port), 1);
	ck_assert_uint_ne(port, 0);
	return net_address(ip, (uint16_t)port);
}

static int connect_to(const char *name)
{
	struct socket_address address = listened(name, "tcp", "127.0.0.1");
	return net_connect(&address);
}

static int ask(const char *name, const char *text)
{
	struct socket_address address = listened(name, "udp", "127.0.0.1");
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	ck_assert_int_eq(connect(fd, &address.any, address.length), 0);
	net_send(fd, text, strlen(text));
	return fd;
}

static void assert_answer(int fd, const char *text)
{
	char bytes[TEXT_SIZE];
	net_wait(fd, POLLIN);
	ck_assert_int_eq(recv(fd, bytes, sizeof bytes, 0), (ssize_t)strlen(text));
	ck_assert_int_eq(memcmp(bytes, text, strlen(text)), 0);
	close(fd);
}

static int count_descriptors(void)
{
	int count = 0;
	DIR *folder = opendir("/proc/self/fd");
	while (readdir(folder) != NULL)
		count++;
	closedir(folder);
	return count;
}

static void setup(void)
{
	signal(SIGPIPE, SIG_IGN);
	unsetenv("NOTIFY_SOCKET");
	unsetenv("JOURNAL_STREAM");
	stderr_begin();
}

static void teardown(void)
{
	stderr_end();
}

#define ECHO  "[echo]\naddress = 127.0.0.1\nport = 0\n"
#define READY "ready: "

/* --- starting --- */

START_TEST(ready_server_logs_each_endpoint_and_a_summary)
{
	start(DAEMON "workers = 3\n" ECHO "[daytime]\nprotocol = tcp\naddress = 127.0.0.1\nport = 0\n"
		     "[discard]\nenabled = no\nport = 0\n");
	await_line("ready: 2 services, 3 endpoints, 3 workers\n");
	struct socket_address tcp = listened("echo", "tcp", "127.0.0.1"), udp = listened("echo", "udp", "127.0.0.1");
	listened("daytime", "tcp", "127.0.0.1");
	assert_no_line("discard");
	ck_assert_uint_ne(socket_address_port(&tcp), 0);
	ck_assert_uint_ne(socket_address_port(&udp), 0);
	stop();
	ck_assert(running.started);
}
END_TEST

START_TEST(star_opens_an_endpoint_per_available_family)
{
	start(DAEMON "workers = 1\n[echo]\nprotocol = tcp\nport = 0\n");
	await_line(READY);
	assert_line("echo: listening on tcp 0.0.0.0:");
	if (net_has("::1")) {
		assert_line("echo: listening on tcp [::]:");
		assert_line("ready: 1 services, 2 endpoints, 1 workers\n");
	}
	stop();
}
END_TEST

START_TEST(every_endpoint_is_served)
{
	start(DAEMON "workers = 2\n" ECHO "[chargen]\naddress = 127.0.0.1\nport = 0\n");
	await_line(READY);
	char bytes[4];
	int echo = connect_to("echo"), chargen = connect_to("chargen");
	net_assert_echo(echo);
	net_receive(chargen, bytes, sizeof bytes);
	ck_assert_int_eq(memcmp(bytes, " !\"#", sizeof bytes), 0);
	assert_answer(ask("echo", "hello"), "hello");
	assert_answer(ask("chargen", "123"), " !\"");
	close(echo);
	close(chargen);
	stop();
}
END_TEST

START_TEST(specific_and_wildcard_address_share_a_port_in_either_order)
{
	static const char *const orders[] = {"127.0.0.1, 0.0.0.0", "0.0.0.0, 127.0.0.1"};
	for (int tries = 0, bound = 0; bound < 2; tries++) {
		char ini[TEXT_SIZE], line[TEXT_SIZE];
		struct socket_request request = net_request(SOCK_STREAM, "0.0.0.0", 0);
		int fd;
		ck_assert_int_lt(tries, 100);
		ck_assert_int_eq(socket_open_group(&request, &fd, 1), 0);
		unsigned port = socket_address_port(&request.address);
		close(fd);
		snprintf(ini, sizeof ini, DAEMON "workers = 2\n[echo]\nprotocol = tcp, udp\naddress = %s\nport = %u\n",
			 orders[bound], port);
		start(ini);
		snprintf(line, sizeof line, "echo: listening on tcp 127.0.0.1:%u\n", port);
		for (int left = NET_TIMEOUT_MS; strstr(stderr_so_far(), line) == NULL && !atomic_load(&running.over);)
			net_rest(&left);
		if (atomic_load(&running.over)) { /* another process took the port in between */
			await_over();
			continue;
		}
		bound++;
		stop();
	}
}
END_TEST

static void count_threads_of(const char *name, int *count)
{
	char path[PATH_SIZE * 4], line[64];
	DIR *folder = opendir("/proc/self/task");
	for (struct dirent *entry; (entry = readdir(folder)) != NULL;) {
		snprintf(path, sizeof path, "/proc/self/task/%s/comm", entry->d_name);
		FILE *file = fopen(path, "re");
		if (file == NULL)
			continue;
		*count += fgets(line, sizeof line, file) != NULL && strncmp(line, name, strlen(name)) == 0;
		fclose(file);
	}
	closedir(folder);
}

START_TEST(configured_workers_run_and_end)
{
	int count = 0;
	start(DAEMON "workers = 5\n" ECHO);
	await_line(READY);
	count_threads_of("worker-", &count);
	ck_assert_int_eq(count, 5);
	stop();
	/* the kernel can show a thread for a moment after it was joined: for longer, Check's time limit ends this */
	do {
		sched_yield();
		count = 0;
		count_threads_of("worker-", &count);
	} while (count > 0);
}
END_TEST

/* Occupies PORT of 127.0.0.1 as another program does. */
static int take_port(int type, unsigned *port)
{
	struct socket_request request = net_request(type, "127.0.0.1", 0);
	int fd;
	ck_assert_int_eq(socket_open_group(&request, &fd, 1), 0);
	*port = socket_address_port(&request.address);
	return fd;
}

START_TEST(every_occupied_port_is_logged_and_the_start_fails)
{
	char ini[TEXT_SIZE], line[TEXT_SIZE];
	unsigned ports[2];
	int before = count_descriptors();
	int tcp = take_port(SOCK_STREAM, &ports[0]), udp = take_port(SOCK_DGRAM, &ports[1]);
	snprintf(ini, sizeof ini,
		 DAEMON "workers = 2\n" ECHO "[a]\ntype = echo\nprotocol = tcp\naddress = 127.0.0.1\nport = %u\n"
			"[b]\ntype = echo\nprotocol = udp\naddress = 127.0.0.1\nport = %u\n",
		 ports[0], ports[1]);
	start(ini);
	await_over();
	ck_assert(!running.started);
	snprintf(line, sizeof line, "a: cannot listen on tcp 127.0.0.1:%u: Address already in use\n", ports[0]);
	assert_line(line);
	snprintf(line, sizeof line, "b: cannot listen on udp 127.0.0.1:%u: Address already in use\n", ports[1]);
	assert_line(line);
	assert_no_line("listening on");
	assert_no_line(READY);
	close(tcp);
	close(udp);
	ck_assert_int_eq(count_descriptors(), before);
}
END_TEST

START_TEST(foreign_address_is_logged_and_the_start_fails)
{
	start(DAEMON ECHO "[far]\ntype = echo\nprotocol = udp\naddress = 192.0.2.1\nport = 0\n");
	await_over();
	ck_assert(!running.started);
	assert_line("far: cannot listen on udp 192.0.2.1:0: Cannot assign requested address\n");
}
END_TEST

START_TEST(ended_server_leaves_no_descriptor_open)
{
	int before = count_descriptors();
	start(DAEMON "workers = 2\n" ECHO);
	await_line(READY);
	int client = connect_to("echo");
	net_assert_echo(client);
	close(client);
	stop();
	ck_assert_int_eq(count_descriptors(), before);
}
END_TEST

START_TEST(unstarted_server_can_be_freed)
{
	struct config *config = host_read(DAEMON ECHO);
	server_free(server_new(config));
	server_free(NULL);
	config_unref(config);
}
END_TEST

START_TEST(root_is_dropped_after_binding)
{
	if (geteuid() != 0)
		return; /* only root can become another */
	start("[daemon]\nuser = nobody\nworkers = 2\n" ECHO);
	await_line(READY);
	ck_assert_uint_ne(getuid(), 0);
	ck_assert_uint_ne(geteuid(), 0);
	ck_assert_int_lt(setuid(0), 0);
	int client = connect_to("echo");
	net_assert_echo(client);
	close(client);
	stop();
}
END_TEST

/* --- limits --- */

START_TEST(max_connections_of_the_daemon_covers_all_services)
{
	char byte;
	start(DAEMON "workers = 2\nmax_connections = 2\n[defaults]\nmax_connections_per_source = 2\n" ECHO
		     "[other]\ntype = echo\naddress = 127.0.0.1\nport = 0\n");
	await_line(READY);
	int first = connect_to("echo"), second = connect_to("other");
	net_assert_echo(first);
	net_assert_echo(second);
	int third = connect_to("echo");
	net_send(third, "x", 1);
	net_assert_quiet(third);
	close(second);
	net_receive(third, &byte, 1);
	close(first);
	close(third);
	stop();
}
END_TEST

/* As if the daytime of one address requested the echo of another: each would answer the other for ever. */
START_TEST(datagram_from_a_served_port_gets_no_reply)
{
	start(DAEMON ECHO "[daytime]\nprotocol = udp\naddress = 127.0.0.1\nport = 0\n");
	await_line(READY);
	struct socket_address echo = listened("echo", "udp", "127.0.0.1");
	struct socket_address daytime = listened("daytime", "udp", "127.0.0.1");
	struct socket_address from = net_address("127.0.0.2", socket_address_port(&daytime));
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	ck_assert_int_eq(bind(fd, &from.any, from.length), 0);
	ck_assert_int_eq(sendto(fd, "loop", 4, 0, &echo.any, echo.length), 4);
	await_counters(" dropped{refused_port}=1\n");
	net_assert_quiet(fd);
	close(fd);
	stop();
}
END_TEST

/* --- stopping --- */

#define PATIENT DAEMON "workers = 2\nstop_timeout = 1h\n"

START_TEST(stop_without_connections_ends_at_once)
{
	start(PATIENT ECHO);
	await_line(READY);
	int client = connect_to("echo");
	net_assert_echo(client);
	close(client);
	stop();
	assert_line("stopping: ");
}
END_TEST

START_TEST(stop_serves_open_connections_until_they_close)
{
	start(PATIENT ECHO);
	await_line(READY);
	int client = connect_to("echo");
	net_assert_echo(client);
	command('s');
	await_line("stopping: 1 open connections\n");
	net_assert_echo(client);
	net_assert_quiet(client);
	net_assert_echo(client);
	ck_assert(!atomic_load(&running.over));
	close(client);
	await_over();
}
END_TEST

/* A later SYN is refused or retransmitted, and never waits in a queue without a server. */
START_TEST(stop_accepts_no_new_connection_without_root)
{
	start("[daemon]\nuser = nobody\nworkers = 2\nstop_timeout = 1h\n" ECHO);
	await_line(READY);
	struct socket_address address = listened("echo", "tcp", "127.0.0.1");
	int client = net_connect(&address);
	net_assert_echo(client);
	command('s');
	await_counters("echo: tcp: open=1 "); /* commands are handled in order */
	int late = net_begin_connect(&address);
	net_assert_not_connected(late);
	net_assert_echo(client);
	close(client);
	await_over();
	close(late);
}
END_TEST

START_TEST(stop_loses_no_connected_client)
{
	int clients[CLIENTS];
	char byte;
	start(PATIENT ECHO);
	await_line(READY);
	for (int i = 0; i < CLIENTS; i++) {
		clients[i] = connect_to("echo");
		net_send(clients[i], "x", 1);
	}
	command('s');
	for (int i = 0; i < CLIENTS; i++) {
		net_receive(clients[i], &byte, 1);
		shutdown(clients[i], SHUT_WR);
		net_assert_end(clients[i]);
		close(clients[i]);
	}
	await_over();
}
END_TEST

START_TEST(stop_answers_queued_datagrams)
{
	int clients[CLIENTS];
	start(PATIENT ECHO);
	await_line(READY);
	for (int i = 0; i < CLIENTS; i++)
		clients[i] = ask("echo", "hello");
	stop();
	for (int i = 0; i < CLIENTS; i++)
		assert_answer(clients[i], "hello");
}
END_TEST

/* All slots are taken when the stop begins, and no client waits for one. */
START_TEST(stop_of_a_full_server_ends_with_its_connections)
{
	start(PATIENT "max_connections = 1\n" ECHO);
	await_line(READY);
	int client = connect_to("echo");
	net_assert_echo(client);
	command('s');
	await_line("stopping: 1 open connections\n");
	poll(NULL, 0, 3 * NET_QUIET_MS); /* until the listeners have stopped, as far as can be observed */
	net_assert_echo(client);
	close(client);
	await_over();
}
END_TEST

START_TEST(stop_timeout_closes_remaining_connections)
{
	int clients[CLIENTS];
	start(DAEMON "workers = 2\nstop_timeout = 200ms\n" ECHO);
	await_line(READY);
	for (int i = 0; i < CLIENTS; i++) {
		clients[i] = connect_to("echo");
		net_assert_echo(clients[i]);
	}
	command('s');
	for (int i = 0; i < CLIENTS; i++) {
		net_assert_end(clients[i]);
		close(clients[i]);
	}
	await_over();
	assert_line("stop_timeout: ending 50 open connections\n");
	ck_assert(running.started);
}
END_TEST

START_TEST(zero_stop_timeout_closes_at_once)
{
	start(DAEMON "stop_timeout = 0s\n" ECHO);
	await_line(READY);
	int client = connect_to("echo");
	net_assert_echo(client);
	command('s');
	net_assert_end(client);
	close(client);
	await_over();
}
END_TEST

START_TEST(second_stop_does_not_wait)
{
	start(PATIENT ECHO);
	await_line(READY);
	int client = connect_to("echo");
	net_assert_echo(client);
	command('s');
	command('s');
	await_over();
	assert_line("stopping at once\n");
	net_assert_end(client);
	close(client);
}
END_TEST

/* --- counters, service manager, pid file --- */

START_TEST(counters_are_logged_on_request)
{
	start(DAEMON "workers = 2\n" ECHO "[discard]\nenabled = no\n");
	await_line(READY);
	int client = connect_to("echo"), gone = connect_to("echo");
	net_assert_echo(client);
	net_assert_echo(gone);
	shutdown(gone, SHUT_WR);
	net_assert_end(gone);
	close(gone);
	assert_answer(ask("echo", "hello"), "hello");
	await_counters("echo: tcp: open=1 received_bytes=2 sent_bytes=2 accepted=2 closed{client}=1\n");
	await_counters("echo: udp: received_bytes=5 sent_bytes=5 datagrams_received=1 datagrams_sent=1\n");
	assert_no_line("discard");
	close(client);
	stop();
}
END_TEST

#ifdef HAVE_LIBSYSTEMD
/* Opens the socket of a service manager, with an abstract name. */
static int open_manager(void)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	socklen_t length = sizeof(sa_family_t); /* the kernel picks an abstract name */
	char name[sizeof address.sun_path + 1];
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	ck_assert_int_eq(bind(fd, (struct sockaddr *)&address, length), 0);
	length = sizeof address;
	ck_assert_int_eq(getsockname(fd, (struct sockaddr *)&address, &length), 0);
	snprintf(name, sizeof name, "@%.*s", (int)(length - offsetof(struct sockaddr_un, sun_path) - 1),
		 address.sun_path + 1);
	setenv("NOTIFY_SOCKET", name, 1);
	return fd;
}

static void assert_told(int manager, const char *expected)
{
	char text[TEXT_SIZE];
	net_wait(manager, POLLIN);
	ssize_t length = recv(manager, text, sizeof text - 1, 0);
	ck_assert_int_gt(length, 0);
	text[length] = '\0';
	ck_assert_str_eq(text, expected);
}

START_TEST(service_manager_is_notified_of_ready_and_stopping)
{
	int manager = open_manager();
	start(DAEMON "workers = 2\n" ECHO);
	assert_told(manager, "READY=1\nSTATUS=1 services, 2 endpoints, 2 workers");
	command('s');
	assert_told(manager, "STOPPING=1\nSTATUS=draining\nEXTEND_TIMEOUT_USEC=11000000");
	await_over();
	net_assert_quiet(manager);
	close(manager);
}
END_TEST

START_TEST(service_manager_is_not_notified_of_a_failed_start)
{
	int manager = open_manager();
	start(DAEMON "[echo]\naddress = 192.0.2.1\nport = 0\n");
	await_over();
	net_assert_quiet(manager);
	close(manager);
}
END_TEST
#endif

static char folder[PATH_SIZE], pid_path[PATH_SIZE + 16], file_path[PATH_SIZE + 16];

/* A fixture, so that the folder is removed after a failed test, too. */
static void make_folder(void)
{
	const char *temporary = getenv("TMPDIR");
	snprintf(folder, sizeof folder, "%s/check_server.XXXXXX", temporary != NULL ? temporary : "/tmp");
	ck_assert_ptr_nonnull(mkdtemp(folder));
	snprintf(pid_path, sizeof pid_path, "%s/pid", folder);
	snprintf(file_path, sizeof file_path, "%s/conf", folder);
}

static void remove_folder(void)
{
	unlink(pid_path);
	unlink(file_path);
	rmdir(folder);
}

START_TEST(pid_file_exists_while_serving)
{
	char ini[TEXT_SIZE], line[32];
	snprintf(ini, sizeof ini, DAEMON "pid_file = %s\n" ECHO, pid_path);
	start(ini);
	await_line(READY);
	FILE *file = fopen(pid_path, "re");
	ck_assert_ptr_nonnull(file);
	ck_assert_ptr_nonnull(fgets(line, sizeof line, file));
	ck_assert_int_eq(atol(line), getpid());
	fclose(file);
	stop();
	ck_assert_int_lt(access(pid_path, F_OK), 0);
}
END_TEST

START_TEST(unwritable_pid_file_is_logged)
{
	start(DAEMON "pid_file = /nonexistent/folder/pid\n" ECHO);
	await_over();
	ck_assert(!running.started);
	assert_line("pid_file: cannot write /nonexistent/folder/pid: No such file or directory\n");
}
END_TEST

static void write_file(const char *ini)
{
	FILE *file = fopen(file_path, "we");
	ck_assert_ptr_nonnull(file);
	ck_assert_int_ge(fputs(ini, file), 0);
	ck_assert_int_eq(fclose(file), 0);
}

static void start_file(const char *ini)
{
	struct diagnostics report = {0};
	write_file(ini);
	struct config *config = config_load(file_path, &report);
	ck_assert_ptr_nonnull(config);
	diagnostics_free(&report);
	start_config(config);
	await_line(READY);
}

START_TEST(reloaded_server_leaves_no_descriptor_open)
{
	int before = count_descriptors();
	start_file(DAEMON "workers = 2\n" ECHO);
	int client = connect_to("echo");
	net_assert_echo(client);
	for (int i = 0; i < 10; i++) {
		char line[TEXT_SIZE];
		snprintf(line, sizeof line, "service%d: listening on udp", i);
		char ini[TEXT_SIZE];
		snprintf(ini, sizeof ini,
			 DAEMON "workers = 2\n%s[service%d]\ntype = echo\naddress = 127.0.0.1\nport = 0\n",
			 i % 2 ? ECHO : "", i);
		write_file(ini);
		command('r');
		await_line(line);
	}
	net_assert_echo(client); /* accepted ten configurations ago */
	close(client);
	stop();
	ck_assert_int_eq(count_descriptors(), before);
}
END_TEST

START_TEST(stop_during_a_reload_completes)
{
	start_file(DAEMON ECHO);
	write_file(DAEMON ECHO "[discard]\naddress = 127.0.0.1\nport = 0\n");
	command('r');
	command('s');
	await_over();
	assert_line("stopping: 0 open connections\n");
}
END_TEST

START_TEST(reload_during_a_stop_is_ignored)
{
	start_file(PATIENT ECHO);
	int client = connect_to("echo");
	net_assert_echo(client);
	command('s');
	command('r');
	await_line("reload ignored: this process is stopping\n");
	net_assert_echo(client);
	close(client);
	await_over();
	assert_no_line("reloaded");
}
END_TEST

START_TEST(endless_reloads_do_not_delay_an_upgrade)
{
	start_file(DAEMON ECHO);
	command('e');
	await_line("upgrade failed, this process goes on: the path of the program is not known");
	await_line("reloaded: ");
	stop();
}
END_TEST

static TCase *add_tcase(Suite *suite, const char *name)
{
	TCase *tcase = tcase_create(name);
	tcase_add_checked_fixture(tcase, setup, teardown);
	tcase_set_timeout(tcase, 60);
	suite_add_tcase(suite, tcase);
	return tcase;
}

static Suite *suite(void)
{
	Suite *suite = suite_create("server");
	TCase *starting = add_tcase(suite, "starting");
	tcase_add_test(starting, ready_server_logs_each_endpoint_and_a_summary);
	tcase_add_test(starting, star_opens_an_endpoint_per_available_family);
	tcase_add_test(starting, every_endpoint_is_served);
	tcase_add_test(starting, specific_and_wildcard_address_share_a_port_in_either_order);
	tcase_add_test(starting, configured_workers_run_and_end);
	tcase_add_test(starting, every_occupied_port_is_logged_and_the_start_fails);
	tcase_add_test(starting, foreign_address_is_logged_and_the_start_fails);
	tcase_add_test(starting, ended_server_leaves_no_descriptor_open);
	tcase_add_test(starting, unstarted_server_can_be_freed);
	tcase_add_test(starting, root_is_dropped_after_binding);
	tcase_add_test(starting, max_connections_of_the_daemon_covers_all_services);
	tcase_add_test(starting, datagram_from_a_served_port_gets_no_reply);

	TCase *stopping = add_tcase(suite, "stopping");
	tcase_add_test(stopping, stop_without_connections_ends_at_once);
	tcase_add_test(stopping, stop_serves_open_connections_until_they_close);
	tcase_add_test(stopping, stop_accepts_no_new_connection_without_root);
	tcase_add_test(stopping, stop_loses_no_connected_client);
	tcase_add_test(stopping, stop_answers_queued_datagrams);
	tcase_add_test(stopping, stop_of_a_full_server_ends_with_its_connections);
	tcase_add_test(stopping, stop_timeout_closes_remaining_connections);
	tcase_add_test(stopping, zero_stop_timeout_closes_at_once);
	tcase_add_test(stopping, second_stop_does_not_wait);

	TCase *telling = add_tcase(suite, "telling");
	tcase_add_test(telling, counters_are_logged_on_request);
#ifdef HAVE_LIBSYSTEMD
	tcase_add_test(telling, service_manager_is_notified_of_ready_and_stopping);
	tcase_add_test(telling, service_manager_is_not_notified_of_a_failed_start);
#endif

	TCase *pid_file = add_tcase(suite, "pid_file");
	tcase_add_unchecked_fixture(pid_file, make_folder, remove_folder);
	tcase_add_test(pid_file, pid_file_exists_while_serving);
	tcase_add_test(pid_file, unwritable_pid_file_is_logged);

	TCase *reloading = add_tcase(suite, "reloading");
	tcase_add_unchecked_fixture(reloading, make_folder, remove_folder);
	tcase_add_test(reloading, reloaded_server_leaves_no_descriptor_open);
	tcase_add_test(reloading, stop_during_a_reload_completes);
	tcase_add_test(reloading, reload_during_a_stop_is_ignored);
	tcase_add_test(reloading, endless_reloads_do_not_delay_an_upgrade);
	return suite;
}

int main(void)
{
	return check_run(suite());
}
