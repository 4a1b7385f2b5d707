/* check_tcp.c: connections and listeners, as clients and counters show them. */
#include <linux/tcp.h> /* netinet/tcp.h counts no segments */
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/resource.h>

#include "check_clock.h"
#include "check_event.h"
#include "check_hold.h"
#include "check_net.h"
#include "check_run.h"
#include "check_stderr.h"
#include "core/timer_wheel.h"
#include "core/transport.h"
#include "net/tcp.h"

enum {
	WORKERS = 2,
	ENDPOINTS_MAX = 4,
	CLIENTS_MAX = 256,
	UNLIMITED = 1 << 30,
	MINUTE_MS = 60 * 1000,
	START_MS = 1000 * 1000,
	SMALL_BUFFER = 128 * 1024,     /* two packets of the loopback interface: less makes its timers wait */
	STREAM_MAX = 64 * 1024 * 1024, /* far more than all buffers on the way can hold */
};

/* --- replaced system calls: accept4 and send fail on request, epoll_ctl counts its calls --- */

static _Atomic int accept_fault, accept_faults_left, accept_calls, last_accepted;

int accept4(int fd, struct sockaddr *address, socklen_t *length, int flags)
{
	atomic_fetch_add(&accept_calls, 1);
	if (atomic_load(&accept_faults_left) > 0) {
		atomic_fetch_sub(&accept_faults_left, 1);
		errno = atomic_load(&accept_fault);
		return -1;
	}
	int accepted = (int)syscall(SYS_accept4, fd, address, length, flags);
	if (accepted >= 0)
		atomic_store(&last_accepted, accepted);
	return accepted;
}

static void fail_accepts(int error, int count)
{
	atomic_store(&accept_fault, error);
	atomic_store(&accept_faults_left, count);
}

static atomic_bool full;      /* sockets of workers accept no output */
static pthread_t test_thread; /* sockets of its clients do */

ssize_t send(int fd, const void *bytes, size_t length, int flags)
{
	if (atomic_load(&full) && !pthread_equal(pthread_self(), test_thread)) {
		errno = EAGAIN;
		return -1;
	}
	return syscall(SYS_sendto, fd, bytes, length, flags, NULL, 0);
}

static _Atomic int epoll_changes;

int epoll_ctl(int poller, int operation, int fd, struct epoll_event *event)
{
	atomic_fetch_add_explicit(&epoll_changes, 1, memory_order_relaxed);
	return (int)syscall(SYS_epoll_ctl, poller, operation, fd, event);
}

/* --- the server of one test --- */

struct endpoint {
	struct socket_address address;
	int fds[WORKERS];
	struct listener *listeners[WORKERS];
	struct task stopped[WORKERS];
};

static struct host host;
static struct tcp *tcp;
static struct endpoint endpoints[ENDPOINTS_MAX];
static unsigned endpoint_count, stopped, idle;
static struct task idle_task;
static int send_buffer, receive_buffer; /* of accepted connections; 0: default */

/* Opens WANTED with one listener per worker, if this machine has its address. */
static void open_endpoint(const struct config_endpoint *wanted)
{
	struct endpoint *endpoint = &endpoints[endpoint_count];
	char ip[INET6_ADDRSTRLEN];
	inet_ntop(wanted->address.family, &wanted->address.ip, ip, sizeof ip);
	struct socket_request request = net_request(SOCK_STREAM, ip, wanted->port);
	if (!net_has(ip))
		return;
	request.send_buffer = send_buffer;
	request.receive_buffer = receive_buffer;
	request.wants_dscp = wanted->service->dscp == DSCP_COPY;
	ck_assert_int_eq(socket_open_group(&request, endpoint->fds, host.worker_count), 0);
	endpoint->address = request.address;
	for (unsigned i = 0; i < host.worker_count; i++) {
		endpoint->listeners[i] = tcp_listener_new(tcp, i, endpoint->fds[i],
							  generation_instance(host.generation, wanted->service), false);
		endpoint->stopped[i] = (struct task){.run = host_count, .argument = &stopped};
	}
	endpoint_count++;
}

static void each_listener(void (*act)(struct endpoint *endpoint, unsigned worker))
{
	for (unsigned i = 0; i < endpoint_count; i++)
		for (unsigned j = 0; j < host.worker_count; j++)
			act(&endpoints[i], j);
}

static void start_one(struct endpoint *endpoint, unsigned worker)
{
	listener_start(endpoint->listeners[worker]);
}

static void stop_one(struct endpoint *endpoint, unsigned worker)
{
	listener_stop(endpoint->listeners[worker], host.task_queue, &endpoint->stopped[worker]);
}

static void free_one(struct endpoint *endpoint, unsigned worker)
{
	listener_free(endpoint->listeners[worker]);
	if (endpoint->fds[worker] >= 0)
		close(endpoint->fds[worker]);
}

/* Opens the endpoints of INI: clients can connect, but no worker runs yet. */
static void prepare(const char *ini, unsigned workers, int64_t maximum)
{
	test_thread = pthread_self();
	atomic_store(&clock_stands_ms, START_MS); /* stops the clock: pass() advances it */
	log_open(LOG_TO_STDERR, LOG_CRIT, LOG_DAEMON);
	host_init(&host, ini, workers, maximum);
	tcp = tcp_new(host.workers, workers, &host.gate);
	ck_assert_ptr_nonnull(tcp);
	idle_task = (struct task){.run = host_count, .argument = &idle};
	for (size_t i = 0; i < host.config->endpoint_count; i++)
		open_endpoint(&host.config->endpoints[i]);
}

static void start(void)
{
	each_listener(start_one);
	host_start(&host);
}

/* Starts and stops the listeners before a worker runs: connections are accepted from the queue by the stop. */
static void start_and_stop(void)
{
	each_listener(start_one);
	each_listener(stop_one);
	host_start(&host);
}

static void serve(const char *ini, unsigned workers)
{
	prepare(ini, workers, UNLIMITED);
	start();
}

/* Frees in the order of server_free. */
static void finish(void)
{
	host_stop(&host);
	tcp_free(tcp);
	each_listener(free_one);
	host_free(&host);
	log_close();
}

static int connect_to(unsigned endpoint)
{
	return net_connect(&endpoints[endpoint].address);
}

static void connect_many(int *clients, unsigned count)
{
	for (unsigned i = 0; i < count; i++)
		clients[i] = connect_to(0);
}

static void close_all(const int *clients, unsigned count)
{
	for (unsigned i = 0; i < count; i++)
		close(clients[i]);
}

static void assert_all_echo(const int *clients, unsigned count)
{
	for (unsigned i = 0; i < count; i++)
		net_assert_echo(clients[i]);
}

static void assert_all_end(const int *clients, unsigned count)
{
	for (unsigned i = 0; i < count; i++)
		net_assert_end(clients[i]);
}

/* Waits until the byte sent before is echoed. */
static void await_byte(int client)
{
	char byte;
	net_receive(client, &byte, 1);
}

static uint64_t sum(enum metric metric)
{
	return host_sum(&host, 0, TRANSPORT_TCP, metric);
}

static void await_sum(enum metric metric, uint64_t value)
{
	host_await_sum(&host, TRANSPORT_TCP, metric, value);
}

/* Waits until TAKEN slots are in use. A close is counted before its slot is freed; each accept4 takes one for a
 * moment. */
static void await_slots(int64_t taken)
{
	for (int left = NET_TIMEOUT_MS; atomic_load(&host.gate.taken) != taken;)
		net_rest(&left);
}

static uint64_t count_closed(void)
{
	uint64_t count = 0;
	for (int i = METRIC_CLOSED_FIRST; i <= METRIC_CLOSED_LAST; i++)
		count += sum((enum metric)i);
	return count;
}

/* Advances the clock while the workers are idle, and returns after they have run the timers that are due. */
static void pass(int64_t ms)
{
	host_settle(&host);
	atomic_fetch_add(&clock_stands_ms, ms);
	host_settle(&host);
}

static void hold_worker(struct hold *hold)
{
	hold_post(hold, host.workers[0]);
	while (sem_wait(&hold->begun) < 0)
		;
}

/* Advances the clock until every poll for FIN has run. */
static void pass_fin_poll(void)
{
	pass(TIMER_WHEEL_SOON_MS);
	pass(TIMER_WHEEL_SOON_MS); /* for connections scheduled during the first step */
}

#define ECHO    "[echo]\nprotocol = tcp\naddress = 127.0.0.1\nport = 0\nmax_connections_per_source = unlimited\n"
#define DAYTIME "[daytime]\nprotocol = tcp\naddress = 127.0.0.1\nport = 0\n"
#define CHARGEN "[chargen]\nprotocol = tcp\naddress = 127.0.0.1\nport = 0\n"
#define DISCARD "[discard]\nprotocol = tcp\naddress = 127.0.0.1\nport = 0\n"

/* --- echo --- */

/* One of several concurrent clients. */
struct talk {
	int fd;
	unsigned number;
	uint64_t length, sent, received;
	bool ended;
};

static uint64_t random_state = 88172645463325252;

static uint64_t next_random(uint64_t below)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return random_state % below;
}

/* Sends a piece of random size, and FIN after the last. */
static void talk_send(struct talk *talk)
{
	static char bytes[70000];
	uint64_t left = talk->length - talk->sent;
	size_t length = 1 + next_random(next_random(3) == 0 ? 10 : sizeof bytes);
	if (length > left)
		length = left;
	net_fill(bytes, length, talk->number, talk->sent);
	ssize_t sent = send(talk->fd, bytes, length, MSG_NOSIGNAL | MSG_DONTWAIT);
	ck_assert_msg(sent > 0 || errno == EAGAIN, "send: %s", strerror(errno));
	talk->sent += sent > 0 ? (uint64_t)sent : 0;
	if (talk->sent == talk->length)
		shutdown(talk->fd, SHUT_WR);
}

static void talk_receive(struct talk *talk)
{
	static char bytes[70000];
	ssize_t length = recv(talk->fd, bytes, 1 + next_random(sizeof bytes), MSG_DONTWAIT);
	if (length < 0 && errno == EAGAIN)
		return;
	ck_assert_msg(length >= 0, "client %u: after %llu bytes: %s", talk->number, (unsigned long long)talk->received,
		      strerror(errno));
	net_assert_bytes(bytes, (size_t)length, talk->number, talk->received);
	talk->received += (uint64_t)length;
	talk->ended = length == 0;
}

/* Each client sends its LENGTH bytes, and receives them and FIN. */
static void talk_all(struct talk *talks, unsigned count)
{
	struct pollfd polls[CLIENTS_MAX];
	for (unsigned ended = 0; ended < count;) {
		for (unsigned i = 0; i < count; i++) {
			short wants = talks[i].sent < talks[i].length ? POLLIN | POLLOUT : POLLIN;
			polls[i] = (struct pollfd){.fd = talks[i].ended ? -1 : talks[i].fd, .events = wants};
		}
		ck_assert_msg(poll(polls, count, NET_TIMEOUT_MS) > 0, "no event within the time limit");
		ended = 0;
		for (unsigned i = 0; i < count; i++) {
			if (polls[i].revents & POLLOUT && talks[i].sent < talks[i].length)
				talk_send(&talks[i]);
			if (polls[i].revents & (POLLIN | POLLHUP | POLLERR))
				talk_receive(&talks[i]);
			ended += talks[i].ended;
		}
	}
	for (unsigned i = 0; i < count; i++)
		ck_assert_uint_eq(talks[i].received, talks[i].length);
}

static void talk_to(unsigned endpoint, unsigned count, uint64_t length)
{
	static struct talk talks[CLIENTS_MAX];
	for (unsigned i = 0; i < count; i++)
		talks[i] = (struct talk){.fd = connect_to(endpoint), .number = i, .length = length};
	talk_all(talks, count);
	for (unsigned i = 0; i < count; i++)
		close(talks[i].fd);
}

START_TEST(echo_returns_every_byte_in_order_for_any_segmentation)
{
	enum { LENGTH = 3 * 1024 * 1024 };
	serve(ECHO, 1);
	talk_to(0, 1, LENGTH);
	await_sum(METRIC_CLOSED_CLIENT, 1);
	ck_assert_uint_eq(sum(METRIC_RECEIVED_BYTES), LENGTH);
	ck_assert_uint_eq(sum(METRIC_SENT_BYTES), LENGTH);
	ck_assert_uint_eq(sum(METRIC_ACCEPTED), 1);
	finish();
}
END_TEST

START_TEST(echo_returns_each_single_byte_at_once)
{
	serve(ECHO, 1);
	int client = connect_to(0);
	for (int i = 0; i < 100; i++)
		net_assert_echo(client);
	close(client);
	finish();
}
END_TEST

START_TEST(echo_serves_ipv4_and_ipv6)
{
	serve("[echo]\nprotocol = tcp\naddress = 127.0.0.1, ::1\nport = 0\n", WORKERS);
	for (unsigned i = 0; i < endpoint_count; i++)
		talk_to(i, 4, 100000);
	finish();
}
END_TEST

START_TEST(echo_to_64_concurrent_clients_returns_to_each_its_own_bytes)
{
	enum { CLIENTS = 64, LENGTH = 100000 };
	serve(ECHO, WORKERS);
	talk_to(0, CLIENTS, LENGTH);
	await_sum(METRIC_CLOSED_CLIENT, CLIENTS);
	ck_assert_uint_eq(sum(METRIC_ACCEPTED), CLIENTS);
	ck_assert_uint_eq(sum(METRIC_SENT_BYTES), (uint64_t)CLIENTS * LENGTH);
	await_slots(0);
	finish();
}
END_TEST

START_TEST(half_closed_client_receives_remaining_echo_then_fin)
{
	static char bytes[20000];
	serve(ECHO, 1);
	int client = connect_to(0);
	net_fill(bytes, sizeof bytes, 1, 0);
	net_send(client, bytes, sizeof bytes);
	shutdown(client, SHUT_WR);
	memset(bytes, 0, sizeof bytes);
	net_receive(client, bytes, sizeof bytes);
	net_assert_bytes(bytes, sizeof bytes, 1, 0);
	net_assert_end(client);
	close(client);
	finish();
}
END_TEST

START_TEST(fin_of_silent_client_is_answered_with_fin)
{
	serve(ECHO, 1);
	int client = connect_to(0);
	shutdown(client, SHUT_WR);
	net_assert_end(client);
	await_sum(METRIC_CLOSED_CLIENT, 1);
	close(client);
	finish();
}
END_TEST

/* Connects before a worker runs: all that the client sends meanwhile is reported by the first event. */
static int connect_ahead(const char *ini)
{
	prepare(ini, 1, UNLIMITED);
	return connect_to(0);
}

static void serve_prepared(void)
{
	each_listener(start_one);
	host_start(&host);
}

static void assert_text(int client, const char *expected)
{
	char text[64] = "";
	net_receive(client, text, strlen(expected));
	ck_assert_str_eq(text, expected);
}

static void send_urgent(int client, char byte)
{
	ck_assert_int_eq(syscall(SYS_sendto, client, &byte, 1, MSG_OOB, NULL, 0), 1);
}

START_TEST(data_and_fin_in_one_event_are_both_handled)
{
	int client = connect_ahead(ECHO);
	net_send(client, "abc", 3);
	shutdown(client, SHUT_WR);
	serve_prepared();
	assert_text(client, "abc");
	net_assert_end(client);
	await_sum(METRIC_CLOSED_CLIENT, 1);
	close(client);
	finish();
}
END_TEST

START_TEST(data_behind_urgent_byte_is_echoed_before_fin)
{
	int client = connect_ahead(ECHO);
	net_send(client, "abc", 3);
	send_urgent(client, '!');
	net_send(client, "def", 3);
	shutdown(client, SHUT_WR);
	serve_prepared();
	assert_text(client, "abcdef");
	net_assert_end(client);
	await_sum(METRIC_CLOSED_CLIENT, 1);
	close(client);
	finish();
}
END_TEST

/* An urgent byte is not part of the stream, but a read ends at its mark. */
START_TEST(data_behind_urgent_byte_is_echoed_after_recheck)
{
	int client = connect_ahead(ECHO);
	net_send(client, "abc", 3);
	send_urgent(client, '!');
	net_send(client, "def", 3);
	serve_prepared();
	assert_text(client, "abc");
	pass(TCP_RECHECK_MS + TIMER_WHEEL_TICK_MS);
	assert_text(client, "def");
	for (int i = 0; i < 10; i++) { /* level-triggered from now on: no recheck is needed */
		net_send(client, "ghi", 3);
		send_urgent(client, '!');
		net_send(client, "jkl", 3);
		assert_text(client, "ghijkl");
	}
	close(client);
	finish();
}
END_TEST

START_TEST(recheck_after_read_does_not_restart_idle_timeout)
{
	serve(ECHO "idle_timeout = 2s\n", 1);
	int client = connect_to(0);
	for (int i = 0; i < 3; i++) {
		net_assert_echo(client);
		pass(TCP_RECHECK_MS + TIMER_WHEEL_TICK_MS);
		ck_assert_uint_eq(count_closed(), 0);
	}
	pass(1000);
	ck_assert_uint_eq(sum(METRIC_CLOSED_IDLE_TIMEOUT), 1);
	close(client);
	finish();
}
END_TEST

START_TEST(data_behind_urgent_byte_is_echoed_before_short_idle_timeout)
{
	int client = connect_ahead(ECHO "idle_timeout = 500ms\n");
	net_send(client, "abc", 3);
	send_urgent(client, '!');
	net_send(client, "def", 3);
	serve_prepared();
	assert_text(client, "abc");
	pass(500 + TIMER_WHEEL_TICK_MS);
	assert_text(client, "def");
	ck_assert_uint_eq(count_closed(), 0);
	pass(500 + TIMER_WHEEL_TICK_MS);
	await_sum(METRIC_CLOSED_IDLE_TIMEOUT, 1);
	close(client);
	finish();
}
END_TEST

START_TEST(reset_by_client_is_counted_as_reset)
{
	const struct linger reset = {.l_onoff = 1};
	serve(ECHO, 1);
	int client = connect_to(0);
	net_assert_echo(client);
	ck_assert_int_eq(setsockopt(client, SOL_SOCKET, SO_LINGER, &reset, sizeof reset), 0);
	close(client);
	await_sum(METRIC_CLOSED_RESET, 1);
	ck_assert_uint_eq(count_closed(), 1);
	finish();
}
END_TEST

/* --- clients that do not read --- */

static int connect_with_small_buffer(void)
{
	const struct socket_address *to = &endpoints[0].address;
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	net_set(fd, SOL_SOCKET, SO_RCVBUF, SMALL_BUFFER);
	net_set(fd, SOL_SOCKET, SO_SNDBUF, SMALL_BUFFER);
	ck_assert_int_eq(connect(fd, &to->any, to->length), 0);
	return fd;
}

static uint64_t flood_some(int fd, unsigned number, uint64_t from)
{
	static char bytes[64 * 1024];
	net_fill(bytes, sizeof bytes, number, from);
	ssize_t length = send(fd, bytes, sizeof bytes, MSG_NOSIGNAL | MSG_DONTWAIT);
	ck_assert_msg(length > 0 || errno == EAGAIN, "send: %s", strerror(errno));
	return length > 0 ? (uint64_t)length : 0;
}

/* Returns the count of bytes that the server has received and not sent. */
static uint64_t count_held(void)
{
	host_settle(&host);
	uint64_t sent = sum(METRIC_SENT_BYTES); /* read first, so that the difference is never negative */
	return sum(METRIC_RECEIVED_BYTES) - sent;
}

/* Sends stream I on FDS[I] until all sockets are full for NET_QUIET_MS; SENT, zero at first, counts the bytes. */
static void flood_for_now(const int *fds, uint64_t *sent, unsigned count)
{
	struct pollfd polls[CLIENTS_MAX];
	for (unsigned i = 0; i < count; i++)
		polls[i] = (struct pollfd){.fd = fds[i], .events = POLLOUT};
	while (poll(polls, count, NET_QUIET_MS) > 0)
		for (unsigned i = 0; i < count; i++) {
			if (polls[i].revents & POLLOUT)
				sent[i] += flood_some(fds[i], i, sent[i]);
			ck_assert_msg(sent[i] < STREAM_MAX, "no backpressure: the server reads without limit");
		}
}

/* Repeats that until the server has unsent bytes, which takes longer on a slow machine. */
static void flood(const int *fds, uint64_t *sent, unsigned count)
{
	for (int left = NET_TIMEOUT_MS / NET_QUIET_MS; left > 0; left--) {
		flood_for_now(fds, sent, count);
		if (count_held() > 0)
			return;
	}
	ck_abort_msg("no unsent bytes for clients that do not read");
}

/* Returns a client that has sent until backpressure, and has read no byte. */
static int connect_stuck(void)
{
	uint64_t sent = 0;
	int client = connect_with_small_buffer();
	flood(&client, &sent, 1);
	return client;
}

/* Reads stream NUMBER from its start to its end. */
static void assert_stream(int fd, unsigned number, uint64_t length)
{
	static char bytes[64 * 1024];
	for (uint64_t at = 0; at < length;) {
		size_t part = length - at < sizeof bytes ? (size_t)(length - at) : sizeof bytes;
		net_receive(fd, bytes, part);
		net_assert_bytes(bytes, part, number, at);
		at += part;
	}
	net_assert_end(fd);
}

START_TEST(short_send_pauses_reading_until_client_reads)
{
	uint64_t sent = 0;
	send_buffer = SMALL_BUFFER;
	serve(ECHO, 1);
	int client = connect_with_small_buffer();
	flood(&client, &sent, 1);
	shutdown(client, SHUT_WR);
	assert_stream(client, 0, sent);
	close(client);
	await_sum(METRIC_CLOSED_CLIENT, 1);
	finish();
}
END_TEST

START_TEST(unsent_bytes_per_slow_reader_are_bounded_by_scratch_buffer)
{
	enum { SLOW = 24 };
	int clients[SLOW];
	uint64_t sent[SLOW] = {0};

	send_buffer = SMALL_BUFFER;
	receive_buffer = 2 * TCP_SCRATCH_SIZE;
	serve(ECHO, WORKERS);
	for (unsigned i = 0; i < SLOW; i++)
		clients[i] = connect_with_small_buffer();
	flood(clients, sent, SLOW);
	ck_assert_uint_le(count_held(), (uint64_t)SLOW * TCP_SCRATCH_SIZE);
	talk_to(0, 4, 10000); /* other clients are not delayed */
	for (unsigned i = 0; i < SLOW; i++) {
		shutdown(clients[i], SHUT_WR);
		assert_stream(clients[i], i, sent[i]);
	}
	close_all(clients, SLOW);
	finish();
}
END_TEST

/* Sends TCP_SCRATCH_SIZE bytes, which the worker receives and cannot send. Returns the count that it received. */
static uint64_t send_unanswered(int client)
{
	static char bytes[TCP_SCRATCH_SIZE];
	uint64_t before = sum(METRIC_RECEIVED_BYTES);
	net_send(client, bytes, sizeof bytes);
	for (int left = NET_TIMEOUT_MS; sum(METRIC_RECEIVED_BYTES) == before;)
		net_rest(&left);
	return sum(METRIC_RECEIVED_BYTES) - before;
}

START_TEST(worker_above_unsent_limit_reads_small_pieces)
{
	enum { DESCRIPTORS = 4096, MOST = DESCRIPTORS / 4 };
	static int clients[MOST];
	struct rlimit limit;
	unsigned count = 0;

	ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &limit), 0);
	limit.rlim_cur = limit.rlim_max < DESCRIPTORS ? limit.rlim_max : DESCRIPTORS;
	ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
	receive_buffer = 4 * TCP_SCRATCH_SIZE;
	serve(ECHO, 1);
	atomic_store(&full, true);
	while (sum(METRIC_RECEIVED_BYTES) <= TCP_UNSENT_HIGH) {
		ck_assert_uint_lt(count, MOST - 1);
		clients[count] = connect_to(0);
		ck_assert_uint_le(send_unanswered(clients[count++]), TCP_SCRATCH_SIZE);
	}
	for (int i = 0; i < 5; i++) {
		clients[count] = connect_to(0);
		ck_assert_uint_le(send_unanswered(clients[count++]), TCP_READ_SMALL);
	}
	ck_assert_uint_eq(sum(METRIC_SENT_BYTES), 0);
	close_all(clients, count);
	finish();
}
END_TEST

START_TEST(client_closing_with_unread_echo_frees_its_slot)
{
	send_buffer = SMALL_BUFFER;
	serve(ECHO, 1);
	int client = connect_stuck();
	close(client);
	await_sum(METRIC_CLOSED_RESET, 1);
	await_slots(0);
	finish();
}
END_TEST

/* --- workers --- */

/* The kernel selects a listener by a hash of both addresses and ports. Of 1000 connections a worker gets 500 with a
 * standard deviation of 16, so 10 % are exceeded once in 600 draws, and three times in a row practically never. */
START_TEST(kernel_distributes_1000_connections_over_two_workers_within_10_percent)
{
	enum { COUNT = 1000, DRAWS = 3, OFF = COUNT / 2 / 10 };
	uint64_t least = 0;
	serve(ECHO, WORKERS);
	for (uint64_t draw = 1; draw <= DRAWS && least < COUNT / 2 - OFF; draw++) {
		uint64_t before[WORKERS], share[WORKERS];
		for (unsigned i = 0; i < WORKERS; i++)
			before[i] = host_instance(&host, 0)->tcp[i].values[METRIC_ACCEPTED];
		for (unsigned i = 0; i < COUNT; i++)
			close(connect_to(0));
		await_sum(METRIC_ACCEPTED, draw * COUNT);
		for (unsigned i = 0; i < WORKERS; i++)
			share[i] = host_instance(&host, 0)->tcp[i].values[METRIC_ACCEPTED] - before[i];
		least = share[0] < share[1] ? share[0] : share[1];
	}
	ck_assert_uint_ge(least, COUNT / 2 - OFF);
	finish();
}
END_TEST

/* --- services that send first --- */

/* With few spare slots FIN is reported by an event, with many it is polled: the results of a test are the same. */
static const char *const daytimes[] = {DAYTIME "max_connections_per_source = 500\n", DAYTIME};

static void assert_daytime(int client)
{
	char line[256];
	size_t length = net_receive_all(client, line, sizeof line);
	ck_assert_uint_gt(length, 10);
	ck_assert_int_eq(memcmp(line + length - 2, "\r\n", 2), 0);
}

START_TEST(daytime_sends_one_line_then_fin)
{
	serve(daytimes[_i], 1);
	int client = connect_to(0);
	assert_daytime(client);
	close(client);
	pass_fin_poll();
	await_sum(METRIC_CLOSED_DONE, 1);
	ck_assert_uint_eq(count_closed(), 1);
	finish();
}
END_TEST

START_TEST(daytime_line_and_fin_leave_in_one_packet)
{
	struct tcp_info info = {0};
	socklen_t length = sizeof info;

	serve(daytimes[_i], 1);
	int client = connect_to(0);
	assert_daytime(client);
	ck_assert_int_eq(getsockopt(client, IPPROTO_TCP, TCP_INFO, &info, &length), 0);
	ck_assert_int_eq(info.tcpi_segs_in, 2); /* SYN+ACK, and the line with FIN */
	close(client);
	finish();
}
END_TEST

/* The input has arrived before the daemon accepts: close(2) without shutdown(2) would send a reset. */
START_TEST(daytime_reply_survives_unread_input)
{
	enum { CLIENTS = 20 };
	static char junk[48 * 1024];
	int clients[CLIENTS];
	prepare(daytimes[_i], 1, UNLIMITED);
	connect_many(clients, CLIENTS);
	for (int i = 0; i < CLIENTS; i++) {
		net_send(clients[i], junk, sizeof junk);
		shutdown(clients[i], SHUT_WR);
	}
	start();
	for (int i = 0; i < CLIENTS; i++)
		assert_daytime(clients[i]);
	pass_fin_poll();
	await_sum(METRIC_CLOSED_DONE, CLIENTS);
	ck_assert_uint_eq(sum(METRIC_CLOSED_RESET), 0);
	close_all(clients, CLIENTS);
	finish();
}
END_TEST

START_TEST(daytime_reply_survives_input_after_it)
{
	static char junk[16 * 1024];
	serve(daytimes[_i], 1);
	int client = connect_to(0);
	net_wait(client, POLLIN);
	net_send(client, junk, sizeof junk);
	assert_daytime(client);
	close(client);
	pass_fin_poll();
	await_sum(METRIC_CLOSED_DONE, 1);
	finish();
}
END_TEST

START_TEST(client_without_fin_after_reply_is_closed_after_linger_timeout)
{
	serve(daytimes[_i], 1);
	int client = connect_to(0);
	assert_daytime(client);
	pass_fin_poll();
	pass(TCP_LINGER_MS - 200);
	ck_assert_uint_eq(count_closed(), 0);
	pass(400);
	ck_assert_uint_eq(sum(METRIC_CLOSED_DONE), 1);
	close(client);
	finish();
}
END_TEST

START_TEST(input_within_linger_limit_after_reply_does_not_close)
{
	static char junk[1024];
	serve(daytimes[_i], 1);
	int client = connect_to(0);
	assert_daytime(client);
	pass_fin_poll();
	for (int i = 0; i < 20; i++) {
		net_send(client, junk, sizeof junk);
		host_settle(&host);
	}
	ck_assert_uint_eq(count_closed(), 0);
	shutdown(client, SHUT_WR);
	await_sum(METRIC_CLOSED_DONE, 1);
	close(client);
	finish();
}
END_TEST

START_TEST(data_behind_urgent_byte_after_reply_is_discarded)
{
	serve(daytimes[_i], 1);
	int client = connect_to(0);
	assert_daytime(client);
	pass_fin_poll();
	net_send(client, "abc", 3);
	send_urgent(client, '!');
	net_send(client, "def", 3);
	await_sum(METRIC_RECEIVED_BYTES, 6); /* unread input would turn close(2) into a reset */
	close(client);
	pass_fin_poll();
	await_sum(METRIC_CLOSED_DONE, 1);
	finish();
}
END_TEST

START_TEST(input_above_linger_limit_after_reply_closes)
{
	static char junk[4096];
	uint64_t sent = 0;
	serve(daytimes[_i], 1);
	int client = connect_to(0);
	assert_daytime(client);
	pass_fin_poll();
	while (sent < STREAM_MAX && send(client, junk, sizeof junk, MSG_NOSIGNAL) > 0)
		sent += sizeof junk;
	ck_assert_uint_lt(sent, STREAM_MAX);
	ck_assert_uint_ge(sent, TCP_LINGER_BYTES);
	await_sum(METRIC_CLOSED_DONE, 1);
	close(client);
	finish();
}
END_TEST

/* Closes CLIENT, the last one accepted, and waits until its FIN has arrived at the accepted socket, which is open. */
static void close_and_await_fin(int client)
{
	struct pollfd accepted = {.fd = atomic_load(&last_accepted), .events = POLLRDHUP};
	close(client);
	ck_assert_int_eq(poll(&accepted, 1, NET_TIMEOUT_MS), 1);
}

static const char *const many_slots[] = {DAYTIME, DAYTIME "max_connections = 1020\n",
					 DAYTIME "max_connections_per_source = 1020\n",
					 DAYTIME "max_connections_per_source = unlimited\n"};

START_TEST(fin_after_reply_is_polled_without_epoll_ctl)
{
	enum { CLIENTS = 20 };
	serve(many_slots[_i], 1);
	host_settle(&host);
	int before = atomic_load(&epoll_changes);
	ck_assert_int_gt(before, 0);
	for (int i = 0; i < CLIENTS; i++) {
		int client = connect_to(0);
		assert_daytime(client);
		close_and_await_fin(client);
	}
	host_settle(&host);
	ck_assert_uint_eq(count_closed(), 0);
	pass(TIMER_WHEEL_SOON_MS - 1);
	ck_assert_uint_eq(count_closed(), 0);
	pass(1);
	await_sum(METRIC_CLOSED_DONE, 1);
	pass(TIMER_WHEEL_SOON_MS); /* for connections scheduled after the first */
	await_sum(METRIC_CLOSED_DONE, CLIENTS);
	await_slots(0);
	ck_assert_int_eq(atomic_load(&epoll_changes), before);
	finish();
}
END_TEST

static const struct {
	const char *limits;
	int64_t daemon_maximum;
} few_slots[] = {
	{"max_connections = 1000\n", UNLIMITED}, /* 999 are spare */
	{"max_connections_per_source = 1000\n", UNLIMITED},
	{"max_connections_per_source = unlimited\n", 1000},
	{"max_connections_per_source = auto\n", 2000},
	{"log_connections = yes\n", UNLIMITED},
};

START_TEST(fin_with_few_spare_slots_frees_slot_without_poll)
{
	char ini[256];
	snprintf(ini, sizeof ini, "%s%s", DAYTIME, few_slots[_i].limits);
	prepare(ini, 1, few_slots[_i].daemon_maximum);
	start();
	int client = connect_to(0);
	assert_daytime(client);
	close(client);
	await_sum(METRIC_CLOSED_DONE, 1); /* while the clock stands */
	await_slots(0);
	finish();
}
END_TEST

/* The read that polls fails with ECONNRESET. */
START_TEST(reset_after_reply_is_polled_without_epoll_ctl)
{
	const struct linger reset = {.l_onoff = 1};
	serve(DAYTIME, 1);
	host_settle(&host);
	int before = atomic_load(&epoll_changes), client = connect_to(0);
	assert_daytime(client);
	setsockopt(client, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
	close_and_await_fin(client);
	pass_fin_poll();
	await_sum(METRIC_CLOSED_DONE, 1);
	ck_assert_int_eq(atomic_load(&epoll_changes), before);
	finish();
}
END_TEST

START_TEST(fin_without_memory_for_poll_timer_is_reported_by_event)
{
	serve(DAYTIME, 1);
	host_settle(&host);
	atomic_store(&events_without_memory, EV_TIMEOUT);
	int client = connect_to(0);
	assert_daytime(client);
	close(client);
	await_sum(METRIC_CLOSED_DONE, 1); /* while the clock stands */
	await_slots(0);
	atomic_store(&events_without_memory, 0);
	finish();
}
END_TEST

START_TEST(lingering_connection_without_memory_for_event_is_closed)
{
	serve(DAYTIME, 1);
	host_settle(&host);
	int client = connect_to(0);
	assert_daytime(client);
	atomic_store(&events_without_memory, EV_READ);
	pass_fin_poll();
	await_sum(METRIC_CLOSED_DONE, 1);
	await_slots(0);
	atomic_store(&events_without_memory, 0);
	close(client);
	finish();
}
END_TEST

START_TEST(input_before_fin_poll_is_counted_and_limited)
{
	static char junk[TCP_LINGER_BYTES];
	serve(DAYTIME, 1);
	int client = connect_to(0), other = connect_to(0);
	assert_daytime(client);
	net_send(client, junk, 1000);
	assert_daytime(other);
	net_send(other, junk, sizeof junk);
	pass_fin_poll();
	await_sum(METRIC_CLOSED_DONE, 1);
	ck_assert_uint_eq(sum(METRIC_RECEIVED_BYTES), 1000 + sizeof junk);
	net_send(client, junk, 1000);
	close(client);
	await_sum(METRIC_CLOSED_DONE, 2);
	ck_assert_uint_eq(sum(METRIC_RECEIVED_BYTES), 2000 + sizeof junk);
	close(other);
	finish();
}
END_TEST

START_TEST(end_all_closes_connections_that_poll_for_fin)
{
	static char junk[1024];
	serve(DAYTIME, 1);
	int client = connect_to(0), other = connect_to(0);
	assert_daytime(client);
	assert_daytime(other);
	net_send(other, junk, sizeof junk);
	pass(TIMER_WHEEL_SOON_MS);
	int late = connect_to(0);
	assert_daytime(late);
	tcp_drain(tcp, host.task_queue, &idle_task);
	tcp_end_all(tcp);
	host_await(&host, &idle, 1);
	ck_assert_uint_eq(sum(METRIC_CLOSED_DONE), 3);
	ck_assert_uint_eq(count_closed(), 3);
	close(client);
	close(other);
	close(late);
	finish();
}
END_TEST

START_TEST(tcp_free_closes_connections_that_poll_for_fin)
{
	serve(DAYTIME, 1);
	int client = connect_to(0);
	assert_daytime(client);
	finish();
	ck_assert_int_eq(atomic_load(&host.gate.taken), 0);
	close(client);
}
END_TEST

/* discard never sends, so that no send(2) can fail with ECONNRESET. */
START_TEST(discard_with_reset_behind_data_closes_at_once)
{
	const struct linger reset = {.l_onoff = 1};
	static char junk[1000];
	struct hold hold;
	serve(DISCARD, 1);
	int client = connect_to(0);
	setsockopt(client, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
	await_sum(METRIC_ACCEPTED, 1);
	hold_worker(&hold);
	net_send(client, junk, sizeof junk);
	close(client);
	sem_post(&hold.over);
	await_sum(METRIC_CLOSED_RESET, 1); /* while the clock stands */
	finish();
}
END_TEST

START_TEST(discard_reads_all_input_and_sends_nothing)
{
	enum { LENGTH = 1024 * 1024 };
	static char junk[LENGTH];
	serve(DISCARD, 1);
	int client = connect_to(0);
	net_send(client, junk, LENGTH);
	await_sum(METRIC_RECEIVED_BYTES, LENGTH);
	net_assert_quiet(client);
	shutdown(client, SHUT_WR);
	net_assert_end(client);
	ck_assert_uint_eq(sum(METRIC_SENT_BYTES), 0);
	close(client);
	finish();
}
END_TEST

/* Returns byte AT by RFC 864: line L has 72 characters of the ring, from character L on. */
static char chargen_byte(uint64_t at)
{
	uint64_t line = at / 74 % 95, column = at % 74;
	if (column >= 72)
		return column == 72 ? '\r' : '\n';
	return (char)(' ' + (line + column) % 95);
}

static void assert_chargen(int client, uint64_t from, uint64_t length)
{
	static char bytes[64 * 1024];
	for (uint64_t at = from; at < from + length;) {
		uint64_t left = from + length - at;
		size_t part = 1 + next_random(left < sizeof bytes ? left : sizeof bytes);
		net_receive(client, bytes, part);
		size_t right = 0;
		while (right < part && bytes[right] == chargen_byte(at + right))
			right++;
		ck_assert_msg(right == part, "byte %llu is wrong", (unsigned long long)(at + right));
		at += part;
	}
}

START_TEST(chargen_output_is_continuous_and_independent_of_input)
{
	static char junk[30000];
	serve(CHARGEN, 1);
	int client = connect_to(0);
	net_send(client, junk, sizeof junk);
	assert_chargen(client, 0, 8 * 1024 * 1024);
	close(client);
	await_sum(METRIC_CLOSED_RESET, 1);
	finish();
}
END_TEST

START_TEST(chargen_continues_after_half_close)
{
	serve(CHARGEN, 1);
	int client = connect_to(0);
	shutdown(client, SHUT_WR);
	assert_chargen(client, 0, 4 * 1024 * 1024);
	close(client);
	await_sum(METRIC_CLOSED_RESET, 1);
	finish();
}
END_TEST

START_TEST(chargen_to_slow_reader_does_not_delay_other_clients)
{
	send_buffer = SMALL_BUFFER;
	serve(CHARGEN, 1);
	int slow = connect_with_small_buffer();
	net_wait(slow, POLLIN);
	int other = connect_to(0);
	assert_chargen(other, 0, 1024 * 1024);
	assert_chargen(slow, 0, 1024 * 1024);
	close(slow);
	close(other);
	await_sum(METRIC_CLOSED_RESET, 2);
	finish();
}
END_TEST

/* --- deadlines, with a stopped clock --- */

#define IDLE ECHO "idle_timeout = 10m\n"

START_TEST(silent_connection_is_closed_at_idle_timeout)
{
	serve(IDLE, 1);
	int client = connect_to(0);
	net_assert_echo(client);
	pass(10 * MINUTE_MS - 1000);
	ck_assert_uint_eq(count_closed(), 0);
	pass(2000);
	ck_assert_uint_eq(sum(METRIC_CLOSED_IDLE_TIMEOUT), 1);
	net_assert_end(client);
	close(client);
	finish();
}
END_TEST

START_TEST(input_restarts_idle_timeout)
{
	serve(IDLE, 1);
	int client = connect_to(0);
	for (int i = 0; i < 5; i++) {
		net_assert_echo(client);
		pass(10 * MINUTE_MS - 1000);
		ck_assert_uint_eq(count_closed(), 0);
	}
	pass(2000);
	ck_assert_uint_eq(sum(METRIC_CLOSED_IDLE_TIMEOUT), 1);
	close(client);
	finish();
}
END_TEST

START_TEST(late_proxy_header_does_not_shorten_idle_timeout)
{
	static const char header[] = "PROXY TCP4 192.0.2.1 192.0.2.2 1 7\r\n";
	serve(ECHO "idle_timeout = 2s\nproxy_protocol = on\nproxy_from = 127.0.0.1\n", 1);
	int client = connect_to(0);
	await_slots(1);
	pass(5000);
	net_send(client, header, sizeof header - 1);
	await_sum(METRIC_ACCEPTED, 1);
	pass(1000);
	ck_assert_uint_eq(count_closed(), 0);
	net_assert_echo(client);
	close(client);
	finish();
}
END_TEST

START_TEST(output_restarts_idle_timeout)
{
	enum { PART = 1000000 };
	serve(CHARGEN "idle_timeout = 10m\n", 1);
	int client = connect_to(0);
	for (int i = 0; i < 5; i++) {
		assert_chargen(client, (uint64_t)i * PART, PART);
		pass(10 * MINUTE_MS - 1000);
		ck_assert_uint_eq(count_closed(), 0);
	}
	pass(2000);
	ck_assert_uint_eq(sum(METRIC_CLOSED_IDLE_TIMEOUT), 1);
	close(client);
	finish();
}
END_TEST

START_TEST(silent_connection_without_idle_timeout_stays_open)
{
	serve(ECHO "idle_timeout = off\n", 1);
	int client = connect_to(0);
	net_assert_echo(client);
	for (int day = 0; day < 3; day++)
		pass(24 * 60 * MINUTE_MS);
	ck_assert_uint_eq(count_closed(), 0);
	net_assert_echo(client);
	close(client);
	finish();
}
END_TEST

/* FIN would make a truncated stream look complete. */
START_TEST(idle_timeout_with_unsent_output_resets)
{
	send_buffer = SMALL_BUFFER;
	serve(IDLE, 1);
	int client = connect_stuck();
	pass(11 * MINUTE_MS);
	ck_assert_uint_eq(sum(METRIC_CLOSED_IDLE_TIMEOUT), 1);
	net_assert_reset(client);
	close(client);
	finish();
}
END_TEST

/* No input is unread, which would cause a reset as well. */
START_TEST(idle_timeout_with_unacknowledged_output_resets)
{
	serve(CHARGEN "idle_timeout = 10m\n", 1);
	int client = connect_with_small_buffer();
	net_wait(client, POLLIN);
	for (int left = NET_TIMEOUT_MS; sum(METRIC_CLOSED_IDLE_TIMEOUT) == 0; pass(11 * MINUTE_MS))
		net_rest(&left); /* until the send buffer is full */
	net_assert_reset(client);
	close(client);
	finish();
}
END_TEST

START_TEST(busy_connection_is_closed_with_fin_at_its_lifetime)
{
	serve(ECHO "lifetime = 10m\n", 1);
	int client = connect_to(0);
	for (int i = 0; i < 9; i++) {
		net_assert_echo(client);
		pass(MINUTE_MS);
	}
	pass(MINUTE_MS - 1000);
	net_assert_echo(client);
	ck_assert_uint_eq(count_closed(), 0);
	pass(2000);
	net_send(client, "too late", 8);
	net_assert_end(client);
	close(client);
	await_sum(METRIC_CLOSED_LIFETIME, 1);
	ck_assert_uint_eq(count_closed(), 1);
	finish();
}
END_TEST

START_TEST(endless_output_is_closed_at_lifetime)
{
	serve(CHARGEN "lifetime = 10m\n", 1);
	int client = connect_to(0);
	assert_chargen(client, 0, 100000);
	pass(10 * MINUTE_MS + 1000);
	net_receive_rest(client);
	close(client);
	await_sum(METRIC_CLOSED_LIFETIME, 1);
	finish();
}
END_TEST

START_TEST(each_connection_is_closed_at_its_own_idle_timeout)
{
	enum { CLIENTS = 60 };
	int clients[CLIENTS];
	serve(IDLE, WORKERS);
	for (unsigned i = 0; i < CLIENTS; i++) {
		clients[i] = connect_to(0);
		net_assert_echo(clients[i]);
		ck_assert_uint_eq(count_closed(), 0);
		pass(10000);
	}
	/* the first has been silent for 10 minutes, each next one for 10 seconds less */
	for (unsigned i = 0; i < CLIENTS; i++) {
		pass(5000);
		ck_assert_uint_eq(sum(METRIC_CLOSED_IDLE_TIMEOUT), i + 1);
		pass(5000);
	}
	close_all(clients, CLIENTS);
	finish();
}
END_TEST

/* --- limits --- */

/* Sets SERVED for each client that has received its echo. Returns their count. */
static unsigned count_served(const int *clients, unsigned count, bool *served)
{
	char byte;
	unsigned sum_served = 0;
	for (unsigned i = 0; i < count; i++) {
		served[i] |= clients[i] >= 0 && recv(clients[i], &byte, 1, MSG_DONTWAIT) == 1;
		sum_served += served[i];
	}
	return sum_served;
}

static void await_served(const int *clients, unsigned count, bool *served, unsigned expected)
{
	for (int left = NET_TIMEOUT_MS; count_served(clients, count, served) < expected;)
		net_rest(&left);
}

/* Asserts that at most MAXIMUM of COUNT clients are served at a time, and that each close admits the next. */
static void take_turns(const int *clients, unsigned count, unsigned maximum)
{
	bool served[CLIENTS_MAX] = {false};
	int open[CLIENTS_MAX];
	memcpy(open, clients, count * sizeof *open);
	for (unsigned i = 0; i < count; i++)
		net_send(open[i], "b", 1);
	for (unsigned left = 0; left < count; left++) {
		unsigned expected = left + maximum < count ? left + maximum : count;
		await_served(open, count, served, expected);
		host_settle(&host);
		ck_assert_uint_eq(count_served(open, count, served), expected);
		ck_assert_int_le(host_instance(&host, 0)->gate->taken, maximum);
		ck_assert_uint_eq(sum(METRIC_ACCEPTED), expected);
		unsigned leaver = 0;
		while (open[leaver] < 0 || !served[leaver])
			leaver++;
		close(open[leaver]);
		open[leaver] = -1;
	}
	await_sum(METRIC_CLOSED_CLIENT, count);
}

START_TEST(max_connections_is_exact_across_workers_and_others_wait_in_queue)
{
	enum { CLIENTS = 60, MAXIMUM = 7 };
	int clients[CLIENTS];
	serve(ECHO "max_connections = 7\n", WORKERS);
	connect_many(clients, CLIENTS);
	take_turns(clients, CLIENTS, MAXIMUM);
	finish();
}
END_TEST

START_TEST(daemon_limit_is_exact_across_workers)
{
	enum { CLIENTS = 40, MAXIMUM = 3 };
	int clients[CLIENTS];
	prepare(ECHO, WORKERS, MAXIMUM);
	start();
	connect_many(clients, CLIENTS);
	take_turns(clients, CLIENTS, MAXIMUM);
	await_slots(0);
	finish();
}
END_TEST

START_TEST(slot_freed_by_one_service_admits_client_of_another)
{
	prepare("[a]\ntype = echo\nprotocol = tcp\naddress = 127.0.0.1\nport = 0\n"
		"[b]\ntype = echo\nprotocol = tcp\naddress = 127.0.0.1\nport = 0\n",
		WORKERS, 1);
	start();
	int first = connect_to(0);
	net_assert_echo(first);
	int second = connect_to(1);
	net_send(second, "b", 1);
	net_assert_quiet(second);
	close(first);
	await_byte(second);
	close(second);
	finish();
}
END_TEST

START_TEST(full_service_does_not_delay_another)
{
	prepare("[a]\ntype = echo\nprotocol = tcp\naddress = 127.0.0.1\nport = 0\nmax_connections = 1\n"
		"[b]\ntype = echo\nprotocol = tcp\naddress = 127.0.0.1\nport = 0\n",
		1, UNLIMITED);
	start();
	int first = connect_to(0), second = connect_to(0), other = connect_to(1);
	net_assert_echo(first);
	net_send(second, "b", 1);
	net_assert_echo(other);
	net_assert_quiet(second);
	close(first);
	await_byte(second);
	close(second);
	close(other);
	finish();
}
END_TEST

/* --- limits of a source --- */

static int connect_from(const char *ip)
{
	struct socket_address from = net_address(ip, 0);
	const struct socket_address *to = &endpoints[0].address;
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	ck_assert_int_eq(bind(fd, &from.any, from.length), 0);
	ck_assert_int_eq(connect(fd, &to->any, to->length), 0);
	return fd;
}

static void assert_refused(int fd)
{
	char byte;
	net_wait(fd, POLLIN);
	ck_assert_int_le(recv(fd, &byte, 1, 0), 0);
	close(fd);
}

#define LAB "[lab]\ntype = echo\nprotocol = tcp\naddress = 127.0.0.1\nport = 0\n"

START_TEST(max_connections_per_source_is_exact_across_workers)
{
	enum { MAXIMUM = 5, MORE = 30 };
	int clients[MAXIMUM];
	serve(LAB "max_connections_per_source = 5\n", WORKERS);
	for (int i = 0; i < MAXIMUM; i++) {
		clients[i] = connect_from("127.0.0.2");
		net_assert_echo(clients[i]);
	}
	for (int i = 0; i < MORE; i++)
		assert_refused(connect_from("127.0.0.2"));
	int other = connect_from("127.0.0.3");
	net_assert_echo(other);
	await_sum(METRIC_REFUSED_SOURCE_LIMIT, MORE);
	ck_assert_uint_eq(sum(METRIC_ACCEPTED), MAXIMUM + 1);
	await_slots(MAXIMUM + 1);

	close(clients[0]);
	await_sum(METRIC_CLOSED_CLIENT, 1);
	host_settle(&host);
	clients[0] = connect_from("127.0.0.2");
	net_assert_echo(clients[0]);
	close_all(clients, MAXIMUM);
	close(other);
	finish();
}
END_TEST

START_TEST(source_limit_counts_addresses_of_one_source_prefix_together)
{
	serve(LAB "max_connections_per_source = 1\nsource_prefix = /24, /64\n", WORKERS);
	int first = connect_from("127.0.5.1");
	net_assert_echo(first);
	assert_refused(connect_from("127.0.5.200"));
	int other = connect_from("127.0.6.1");
	net_assert_echo(other);
	close(first);
	close(other);
	finish();
}
END_TEST

START_TEST(source_limit_by_default_is_half_of_daemon_limit)
{
	int clients[4];
	prepare(LAB, WORKERS, 8);
	start();
	for (int i = 0; i < 4; i++) {
		clients[i] = connect_from("127.0.0.2");
		net_assert_echo(clients[i]);
	}
	assert_refused(connect_from("127.0.0.2"));
	int other = connect_from("127.0.0.3");
	net_assert_echo(other);
	close_all(clients, 4);
	close(other);
	finish();
}
END_TEST

START_TEST(connection_rate_refuses_source_until_bucket_refills)
{
	serve(LAB "connection_rate = 3/m\n", WORKERS);
	for (int minute = 0; minute < 3; minute++) {
		for (int i = 0; i < 3; i++) {
			int client = connect_from("127.0.0.2");
			net_assert_echo(client);
			close(client);
		}
		assert_refused(connect_from("127.0.0.2"));
		pass(MINUTE_MS);
	}
	await_sum(METRIC_REFUSED_RATE, 3);
	ck_assert_uint_eq(sum(METRIC_ACCEPTED), 9);
	finish();
}
END_TEST

START_TEST(denied_client_is_refused_and_takes_no_slot)
{
	serve(LAB "deny = 127.0.0.0/24\nallow = 127.0.0.7, 127.0.1.0/24\n", WORKERS);
	assert_refused(connect_from("127.0.0.2"));
	assert_refused(connect_from("127.0.2.1"));
	int named = connect_from("127.0.0.7"), inside = connect_from("127.0.1.9");
	net_assert_echo(named);
	net_assert_echo(inside);
	await_sum(METRIC_REFUSED_DENIED, 2);
	await_slots(2);
	ck_assert_uint_eq(sum(METRIC_ACCEPTED), 2);
	close(named);
	close(inside);
	finish();
}
END_TEST

/* --- accept that fails --- */

START_TEST(accepting_without_descriptors_pauses_then_resumes)
{
	enum { FAULTS = 5 };
	serve(ECHO, 1);
	host_settle(&host);
	fail_accepts(EMFILE, FAULTS);
	int client = connect_to(0);
	net_send(client, "b", 1);
	for (int i = 0; i < FAULTS; i++) {
		for (int left = NET_TIMEOUT_MS; atomic_load(&accept_faults_left) > FAULTS - 1 - i;)
			net_rest(&left);
		host_settle(&host);
		ck_assert_int_eq(atomic_load(&accept_faults_left), FAULTS - 1 - i); /* no call while paused */
		pass(TCP_RETRY_MS);
	}
	await_byte(client);
	await_slots(1);
	close(client);
	finish();
}
END_TEST

/* accept(2) also returns pending network errors of the new socket. */
START_TEST(accept_error_of_one_connection_does_not_delay_others)
{
	static const int errors[] = {ECONNABORTED, EPROTO, ENETDOWN, EHOSTUNREACH, ENETUNREACH, EINTR, EPERM};
	serve(ECHO, 1);
	for (size_t i = 0; i < sizeof errors / sizeof *errors; i++) {
		host_settle(&host);
		fail_accepts(errors[i], 3);
		int client = connect_to(0);
		net_assert_echo(client);
		ck_assert_int_eq(atomic_load(&accept_faults_left), 0);
		close(client);
	}
	await_sum(METRIC_CLOSED_CLIENT, sizeof errors / sizeof *errors);
	await_slots(0);
	finish();
}
END_TEST

START_TEST(idle_listener_makes_no_accept_call)
{
	serve(ECHO, WORKERS);
	int client = connect_to(0);
	net_assert_echo(client);
	host_settle(&host);
	int before = atomic_load(&accept_calls);
	for (int i = 0; i < 100; i++)
		net_assert_echo(client);
	pass(MINUTE_MS);
	ck_assert_int_eq(atomic_load(&accept_calls), before);
	close(client);
	finish();
}
END_TEST

/* --- stopping --- */

static const unsigned queue_lengths[] = {
	0,  1, 10, TCP_ACCEPTS_A_WAKEUP - 1, TCP_ACCEPTS_A_WAKEUP, TCP_ACCEPTS_A_WAKEUP + 1, 2 * TCP_ACCEPTS_A_WAKEUP,
	200};

START_TEST(stop_accepts_queued_connections_then_posts_stopped)
{
	int clients[CLIENTS_MAX];
	unsigned count = queue_lengths[_i];
	prepare(ECHO, 1, UNLIMITED);
	connect_many(clients, count);
	start_and_stop();
	assert_all_echo(clients, count);
	host_await(&host, &stopped, 1);
	ck_assert_uint_eq(sum(METRIC_ACCEPTED), count);
	assert_all_echo(clients, count); /* open connections go on */
	close_all(clients, count);
	host_run_tasks(&host, NET_QUIET_MS);
	ck_assert_uint_eq(stopped, 1);
	finish();
}
END_TEST

START_TEST(stopped_listener_accepts_no_connection)
{
	serve(ECHO, WORKERS);
	int client = connect_to(0);
	net_assert_echo(client);
	each_listener(stop_one);
	host_await(&host, &stopped, WORKERS);
	int late = connect_to(0); /* the kernel completes the handshake, as the socket is open */
	net_send(late, "b", 1);
	net_assert_quiet(late);
	ck_assert_uint_eq(sum(METRIC_ACCEPTED), 1);
	net_assert_echo(client);
	close(client);
	close(late);
	finish();
}
END_TEST

START_TEST(stop_of_full_service_accepts_queue_as_slots_are_freed)
{
	enum { CLIENTS = 20, MAXIMUM = 3 };
	int clients[CLIENTS];
	prepare(ECHO "max_connections = 3\n", 1, UNLIMITED);
	connect_many(clients, CLIENTS);
	start_and_stop();
	await_sum(METRIC_ACCEPTED, MAXIMUM);
	host_run_tasks(&host, NET_QUIET_MS);
	ck_assert_uint_eq(stopped, 0);
	take_turns(clients, CLIENTS, MAXIMUM);
	host_await(&host, &stopped, 1);
	finish();
}
END_TEST

START_TEST(stop_of_full_service_with_empty_queue_ends_when_slot_is_freed)
{
	serve(ECHO "max_connections = 1\n", 1);
	int client = connect_to(0);
	net_assert_echo(client);
	host_settle(&host);
	each_listener(stop_one);
	host_settle(&host);
	close(client);
	host_await(&host, &stopped, 1);
	finish();
}
END_TEST

START_TEST(stop_during_accept_pause_accepts_queue_after_it)
{
	prepare(ECHO, 1, UNLIMITED);
	int client = connect_to(0);
	fail_accepts(ENFILE, 2);
	start_and_stop();
	for (int left = NET_TIMEOUT_MS; atomic_load(&accept_faults_left) > 0; pass(TCP_RETRY_MS))
		net_rest(&left);
	pass(TCP_RETRY_MS);
	net_assert_echo(client);
	host_await(&host, &stopped, 1);
	close(client);
	finish();
}
END_TEST

START_TEST(drain_without_connections_posts_idle_at_once)
{
	serve(ECHO, WORKERS);
	tcp_drain(tcp, host.task_queue, &idle_task);
	host_await(&host, &idle, 1);
	finish();
}
END_TEST

START_TEST(drain_posts_idle_after_last_connection_is_closed)
{
	enum { CLIENTS = 10 };
	int clients[CLIENTS];
	serve(ECHO, WORKERS);
	connect_many(clients, CLIENTS);
	assert_all_echo(clients, CLIENTS);
	tcp_drain(tcp, host.task_queue, &idle_task);
	for (int i = 0; i < CLIENTS; i++) {
		host_run_tasks(&host, 5);
		ck_assert_uint_eq(idle, 0);
		net_assert_echo(clients[i]);
		close(clients[i]);
	}
	host_await(&host, &idle, 1);
	finish();
}
END_TEST

START_TEST(end_all_closes_every_connection_with_fin)
{
	enum { CLIENTS = 30 };
	int clients[CLIENTS];
	serve(ECHO, WORKERS);
	connect_many(clients, CLIENTS);
	assert_all_echo(clients, CLIENTS);
	tcp_drain(tcp, host.task_queue, &idle_task);
	tcp_end_all(tcp);
	assert_all_end(clients, CLIENTS);
	host_await(&host, &idle, 1);
	ck_assert_uint_eq(sum(METRIC_CLOSED_STOP), CLIENTS);
	await_slots(0);
	close_all(clients, CLIENTS);
	finish();
}
END_TEST

/* Unread input would turn close(2) into a reset, which destroys output that the client has not read. */
START_TEST(end_all_with_unread_input_preserves_sent_output)
{
	static char bytes[10000 + 1];
	enum { LENGTH = sizeof bytes - 1 };
	struct hold hold;
	serve(ECHO, 1);
	int client = connect_to(0);
	net_fill(bytes, LENGTH, 1, 0);
	net_send(client, bytes, LENGTH);
	await_sum(METRIC_SENT_BYTES, LENGTH);
	hold_worker(&hold);
	net_send(client, bytes, LENGTH);
	tcp_end_all(tcp);
	sem_post(&hold.over);
	await_sum(METRIC_CLOSED_STOP, 1);
	ck_assert_uint_eq(net_receive_all(client, bytes, sizeof bytes), LENGTH);
	net_assert_bytes(bytes, LENGTH, 1, 0);
	close(client);
	finish();
}
END_TEST

START_TEST(end_all_stops_listener_that_waits_for_slot)
{
	int clients[2];
	prepare(ECHO "max_connections = 1\n", 1, UNLIMITED);
	connect_many(clients, 2);
	start_and_stop();
	net_assert_echo(clients[0]);
	tcp_end_all(tcp);
	host_await(&host, &stopped, 1);
	net_assert_end(clients[0]);
	ck_assert_uint_eq(sum(METRIC_ACCEPTED), 1);
	close_all(clients, 2);
	finish();
}
END_TEST

START_TEST(tcp_free_closes_open_connections)
{
	enum { CLIENTS = 10 };
	int clients[CLIENTS];
	send_buffer = SMALL_BUFFER;
	serve(ECHO, WORKERS);
	connect_many(clients, CLIENTS);
	assert_all_echo(clients, CLIENTS);
	int stuck = connect_stuck();
	finish();
	assert_all_end(clients, CLIENTS);
	net_assert_reset(stuck);
	close_all(clients, CLIENTS);
	close(stuck);
}
END_TEST

START_TEST(listeners_of_workers_never_started_are_freed)
{
	prepare(ECHO, WORKERS, UNLIMITED);
	listener_free(NULL);
	tcp_free(NULL);
	each_listener(start_one);
	finish();
}
END_TEST

/* --- log and DSCP --- */

START_TEST(log_connections_logs_each_closed_connection)
{
	char expected[128];
	serve(ECHO "log_connections = yes\n", 1);
	log_open(LOG_TO_STDERR, LOG_NOTICE, LOG_DAEMON);
	int client = connect_to(0);
	struct socket_address name = net_name(client);
	net_assert_echo(client);
	net_assert_echo(client);
	close(client);
	await_sum(METRIC_CLOSED_CLIENT, 1);
	host_settle(&host);
	stderr_begin();
	log_close();
	const char *line = stderr_end();
	snprintf(expected, sizeof expected, "echo: tcp 127.0.0.1:%u closed: client, ", socket_address_port(&name));
	ck_assert_msg(strncmp(line, expected, strlen(expected)) == 0, "%s", line);
	ck_assert_ptr_nonnull(strstr(line, " s, 2 bytes received, 2 sent\n"));
	finish();
}
END_TEST

START_TEST(dscp_copy_marks_replies_as_client_syn)
{
	serve(ECHO "dscp = copy\n", 1);
	int client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	ck_assert_int_eq(socket_set_dscp(client, AF_INET, 34), 0);
	ck_assert_int_eq(connect(client, &endpoints[0].address.any, endpoints[0].address.length), 0);
	net_assert_echo(client);
	ck_assert_int_eq(net_get(atomic_load(&last_accepted), IPPROTO_IP, IP_TOS), 34 << 2);
	close(client);
	finish();
}
END_TEST

/* --- generations, round-robin and shared listeners --- */

START_TEST(listener_change_applies_to_new_connections_only)
{
	serve(ECHO DAYTIME, WORKERS);
	int open = connect_to(0);
	net_assert_echo(open);
	for (unsigned i = 0; i < WORKERS; i++)
		listener_change(endpoints[0].listeners[i], host_instance(&host, 1));
	host_settle(&host);
	for (int i = 0; i < 8; i++) {
		int client = connect_to(0);
		assert_daytime(client);
		close(client);
	}
	net_assert_echo(open);
	close(open);
	finish();
}
END_TEST

static unsigned over;

static void on_over(void *generation)
{
	over++;
	generation_free(generation);
}

START_TEST(generation_is_freed_after_its_last_connection_is_closed)
{
	struct diagnostics diagnostics = {0};
	int clients[8];
	over = 0;
	prepare(ECHO, WORKERS, UNLIMITED);
	struct instance_store *store = instance_store_new(&host.gate, WORKERS, host.task_queue, on_over);
	struct generation *old = generation_new(host.config, store, UNLIMITED, &diagnostics);
	ck_assert_ptr_nonnull(old);
	each_listener(free_one);
	endpoint_count = 0;
	struct generation *first = host.generation;
	host.generation = old;
	open_endpoint(&host.config->endpoints[0]);
	host.generation = first;
	start();
	connect_many(clients, 8);
	assert_all_echo(clients, 8);

	for (unsigned i = 0; i < WORKERS; i++) {
		listener_change(endpoints[0].listeners[i], host_instance(&host, 0));
		worker_post(host.workers[i], &old->shares[i].leave);
	}
	host_settle(&host);
	for (int i = 0; i < 8; i++) {
		host_run_tasks(&host, 0);
		ck_assert_uint_eq(over, 0);
		net_assert_echo(clients[i]);
		close(clients[i]);
	}
	host_await(&host, &over, 1);
	instance_store_free(store);
	finish();
}
END_TEST

/* Replaces the listeners by a single one that distributes round-robin. */
static void prepare_round_robin(void)
{
	prepare(ECHO, WORKERS, UNLIMITED);
	listener_free(endpoints[0].listeners[1]);
	close(endpoints[0].fds[1]);
	endpoints[0].listeners[1] = NULL;
	endpoints[0].fds[1] = -1;
	listener_free(endpoints[0].listeners[0]);
	endpoints[0].listeners[0] = tcp_listener_new(tcp, 0, endpoints[0].fds[0], host_instance(&host, 0), true);
	listener_start(endpoints[0].listeners[0]);
}

START_TEST(single_listener_distributes_connections_round_robin)
{
	int clients[10];
	prepare_round_robin();
	host_start(&host);
	connect_many(clients, 10);
	assert_all_echo(clients, 10);
	for (unsigned i = 0; i < WORKERS; i++) {
		const struct metrics_block *block = &host_instance(&host, 0)->tcp[i];
		ck_assert_uint_eq(atomic_load(&block->values[METRIC_ACCEPTED]), 5);
	}
	close_all(clients, 10);
	finish();
}
END_TEST

START_TEST(migrating_connections_are_closed_by_tcp_free)
{
	int clients[50];
	prepare_round_robin();
	ck_assert_int_eq(worker_start(host.workers[0]), 0); /* worker 1 never adopts its connections */
	connect_many(clients, 50);
	for (int i = 0; i < 50; i += 2) /* odd ones stay on worker 0 */
		net_assert_echo(clients[i + 1]);
	finish();
	for (int i = 0; i < 50; i++) {
		net_wait(clients[i], POLLIN);
		close(clients[i]);
	}
	ck_assert_int_eq(atomic_load(&host.gate.taken), 0);
}
END_TEST

START_TEST(connections_of_removed_service_are_closed_after_drain_timeout)
{
	serve(ECHO DISCARD, WORKERS);
	int clients[4], other = connect_to(1);
	connect_many(clients, 4);
	assert_all_echo(clients, 4);
	net_send(other, "x", 1);
	atomic_store(&host_instance(&host, 0)->state->ends_at_ms, START_MS + MINUTE_MS);
	tcp_end_removed(tcp);
	host_settle(&host);
	assert_all_echo(clients, 4);
	pass(MINUTE_MS);
	tcp_end_removed(tcp);
	assert_all_end(clients, 4);
	close_all(clients, 4);
	await_sum(METRIC_CLOSED_STOP, 4);
	net_assert_quiet(other);
	close(other);
	finish();
}
END_TEST

START_TEST(shared_listener_stops_while_new_clients_connect)
{
	prepare(ECHO, 1, UNLIMITED);
	int clients[CLIENTS_MAX];
	connect_many(clients, CLIENTS_MAX);
	listener_keep_open(endpoints[0].listeners[0]);
	start();
	each_listener(stop_one);
	host_await(&host, &stopped, 1);
	assert_all_echo(clients, CLIENTS_MAX); /* queued connections are served */
	close_all(clients, CLIENTS_MAX);
	int late = net_begin_connect(&endpoints[0].address); /* left to the other process */
	net_wait(late, POLLOUT);
	close(late);
	finish();
}
END_TEST

/* The other process serves the queue. */
START_TEST(shared_listener_waiting_for_slot_stops_at_once)
{
	prepare(ECHO "max_connections = 1\n", 1, UNLIMITED);
	listener_keep_open(endpoints[0].listeners[0]);
	start();
	int client = connect_to(0), queued = connect_to(0);
	net_assert_echo(client);
	net_send(queued, "b", 1);
	net_assert_quiet(queued);
	host_settle(&host);
	each_listener(stop_one);
	host_await(&host, &stopped, 1);
	net_assert_echo(client);
	ck_assert_uint_eq(sum(METRIC_ACCEPTED), 1);
	close(client);
	close(queued);
	finish();
}
END_TEST

static TCase *add_tcase(Suite *suite, const char *name)
{
	TCase *tcase = tcase_create(name);
	tcase_set_timeout(tcase, 120);
	suite_add_tcase(suite, tcase);
	return tcase;
}

static Suite *suite(void)
{
	Suite *suite = suite_create("tcp");
	TCase *echo = add_tcase(suite, "echo");
	tcase_add_test(echo, echo_returns_every_byte_in_order_for_any_segmentation);
	tcase_add_test(echo, echo_returns_each_single_byte_at_once);
	tcase_add_test(echo, echo_serves_ipv4_and_ipv6);
	tcase_add_test(echo, echo_to_64_concurrent_clients_returns_to_each_its_own_bytes);
	tcase_add_test(echo, half_closed_client_receives_remaining_echo_then_fin);
	tcase_add_test(echo, fin_of_silent_client_is_answered_with_fin);
	tcase_add_test(echo, data_behind_urgent_byte_is_echoed_before_short_idle_timeout);
	tcase_add_test(echo, reset_by_client_is_counted_as_reset);
	tcase_add_test(echo, data_and_fin_in_one_event_are_both_handled);
	tcase_add_test(echo, data_behind_urgent_byte_is_echoed_after_recheck);
	tcase_add_test(echo, data_behind_urgent_byte_is_echoed_before_fin);
	tcase_add_test(echo, recheck_after_read_does_not_restart_idle_timeout);
	tcase_add_test(echo, short_send_pauses_reading_until_client_reads);
	tcase_add_test(echo, unsent_bytes_per_slow_reader_are_bounded_by_scratch_buffer);
	tcase_add_test(echo, worker_above_unsent_limit_reads_small_pieces);
	tcase_add_test(echo, client_closing_with_unread_echo_frees_its_slot);

	TCase *workers = add_tcase(suite, "workers");
	tcase_add_test(workers, kernel_distributes_1000_connections_over_two_workers_within_10_percent);

	TCase *speakers = add_tcase(suite, "speakers");
	tcase_add_loop_test(speakers, daytime_sends_one_line_then_fin, 0, 2);
	tcase_add_loop_test(speakers, daytime_line_and_fin_leave_in_one_packet, 0, 2);
	tcase_add_loop_test(speakers, daytime_reply_survives_unread_input, 0, 2);
	tcase_add_loop_test(speakers, daytime_reply_survives_input_after_it, 0, 2);
	tcase_add_loop_test(speakers, client_without_fin_after_reply_is_closed_after_linger_timeout, 0, 2);
	tcase_add_loop_test(speakers, input_within_linger_limit_after_reply_does_not_close, 0, 2);
	tcase_add_loop_test(speakers, data_behind_urgent_byte_after_reply_is_discarded, 0, 2);
	tcase_add_loop_test(speakers, input_above_linger_limit_after_reply_closes, 0, 2);
	tcase_add_loop_test(speakers, fin_after_reply_is_polled_without_epoll_ctl, 0,
			    sizeof many_slots / sizeof *many_slots);
	tcase_add_loop_test(speakers, fin_with_few_spare_slots_frees_slot_without_poll, 0,
			    sizeof few_slots / sizeof *few_slots);
	tcase_add_test(speakers, reset_after_reply_is_polled_without_epoll_ctl);
	tcase_add_test(speakers, fin_without_memory_for_poll_timer_is_reported_by_event);
	tcase_add_test(speakers, lingering_connection_without_memory_for_event_is_closed);
	tcase_add_test(speakers, input_before_fin_poll_is_counted_and_limited);
	tcase_add_test(speakers, end_all_closes_connections_that_poll_for_fin);
	tcase_add_test(speakers, tcp_free_closes_connections_that_poll_for_fin);
	tcase_add_test(speakers, discard_with_reset_behind_data_closes_at_once);
	tcase_add_test(speakers, discard_reads_all_input_and_sends_nothing);
	tcase_add_test(speakers, chargen_output_is_continuous_and_independent_of_input);
	tcase_add_test(speakers, chargen_continues_after_half_close);
	tcase_add_test(speakers, chargen_to_slow_reader_does_not_delay_other_clients);

	TCase *deadlines = add_tcase(suite, "deadlines");
	tcase_add_test(deadlines, silent_connection_is_closed_at_idle_timeout);
	tcase_add_test(deadlines, input_restarts_idle_timeout);
	tcase_add_test(deadlines, late_proxy_header_does_not_shorten_idle_timeout);
	tcase_add_test(deadlines, output_restarts_idle_timeout);
	tcase_add_test(deadlines, silent_connection_without_idle_timeout_stays_open);
	tcase_add_test(deadlines, idle_timeout_with_unsent_output_resets);
	tcase_add_test(deadlines, idle_timeout_with_unacknowledged_output_resets);
	tcase_add_test(deadlines, busy_connection_is_closed_with_fin_at_its_lifetime);
	tcase_add_test(deadlines, endless_output_is_closed_at_lifetime);
	tcase_add_test(deadlines, each_connection_is_closed_at_its_own_idle_timeout);

	TCase *limits = add_tcase(suite, "limits");
	tcase_add_test(limits, max_connections_is_exact_across_workers_and_others_wait_in_queue);
	tcase_add_test(limits, daemon_limit_is_exact_across_workers);
	tcase_add_test(limits, slot_freed_by_one_service_admits_client_of_another);
	tcase_add_test(limits, full_service_does_not_delay_another);
	tcase_add_test(limits, max_connections_per_source_is_exact_across_workers);
	tcase_add_test(limits, source_limit_counts_addresses_of_one_source_prefix_together);
	tcase_add_test(limits, source_limit_by_default_is_half_of_daemon_limit);
	tcase_add_test(limits, connection_rate_refuses_source_until_bucket_refills);
	tcase_add_test(limits, denied_client_is_refused_and_takes_no_slot);
	tcase_add_test(limits, accepting_without_descriptors_pauses_then_resumes);
	tcase_add_test(limits, accept_error_of_one_connection_does_not_delay_others);
	tcase_add_test(limits, idle_listener_makes_no_accept_call);

	TCase *stopping = add_tcase(suite, "stopping");
	tcase_add_loop_test(stopping, stop_accepts_queued_connections_then_posts_stopped, 0,
			    sizeof queue_lengths / sizeof *queue_lengths);
	tcase_add_test(stopping, stopped_listener_accepts_no_connection);
	tcase_add_test(stopping, stop_of_full_service_accepts_queue_as_slots_are_freed);
	tcase_add_test(stopping, stop_of_full_service_with_empty_queue_ends_when_slot_is_freed);
	tcase_add_test(stopping, stop_during_accept_pause_accepts_queue_after_it);
	tcase_add_test(stopping, drain_without_connections_posts_idle_at_once);
	tcase_add_test(stopping, drain_posts_idle_after_last_connection_is_closed);
	tcase_add_test(stopping, end_all_closes_every_connection_with_fin);
	tcase_add_test(stopping, end_all_with_unread_input_preserves_sent_output);
	tcase_add_test(stopping, end_all_stops_listener_that_waits_for_slot);
	tcase_add_test(stopping, tcp_free_closes_open_connections);
	tcase_add_test(stopping, listeners_of_workers_never_started_are_freed);

	TCase *observed = add_tcase(suite, "observed");
	tcase_add_test(observed, log_connections_logs_each_closed_connection);
	tcase_add_test(observed, dscp_copy_marks_replies_as_client_syn);

	TCase *generations = add_tcase(suite, "generations");
	tcase_add_test(generations, listener_change_applies_to_new_connections_only);
	tcase_add_test(generations, generation_is_freed_after_its_last_connection_is_closed);
	tcase_add_test(generations, single_listener_distributes_connections_round_robin);
	tcase_add_test(generations, migrating_connections_are_closed_by_tcp_free);
	tcase_add_test(generations, connections_of_removed_service_are_closed_after_drain_timeout);
	tcase_add_test(generations, shared_listener_stops_while_new_clients_connect);
	tcase_add_test(generations, shared_listener_waiting_for_slot_stops_at_once);
	return suite;
}

int main(void)
{
	return check_run(suite());
}
