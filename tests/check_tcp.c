/* check_tcp.c: the life of a connection, as its client and the counters see it. */
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

/* --- system calls in a test's hand: accept4 fails as often as is said, workers find their sockets full, and it is counted how often
 * what is watched changes --- */

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

static atomic_bool full;
static pthread_t test_thread; /* its clients are not concerned */

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
static struct task idle_mail;
static int send_buffer, receive_buffer; /* of accepted connections; 0: the kernel's */

/* Every endpoint of the configuration that can be had here, a listener a worker. */
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

/* Sockets listen, so clients can connect, but nothing runs yet. */
static void prepare(const char *ini, unsigned workers, int64_t maximum)
{
	test_thread = pthread_self();
	atomic_store(&clock_stands_ms, START_MS); /* time passes when we say so */
	log_open(LOG_TO_STDERR, LOG_CRIT, LOG_DAEMON);
	host_init(&host, ini, workers, maximum);
	tcp = tcp_new(host.workers, workers, &host.gate);
	ck_assert_ptr_nonnull(tcp);
	idle_mail = (struct task){.run = host_count, .argument = &idle};
	for (size_t i = 0; i < host.config->endpoint_count; i++)
		open_endpoint(&host.config->endpoints[i]);
}

static void start(void)
{
	each_listener(start_one);
	host_start(&host);
}

/* In one go: whatever is queued is left to the stop. */
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

/* In the order of server_free. */
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

/* Receives the byte that it has sent, however long that takes. */
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

/* A place is given back after the end has been counted, and taken for a moment by each look for a connection. */
static void await_places(int64_t taken)
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

/* Moves the clock on, once the workers have come to rest, and returns when they have seen it. */
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

/* Looks for the end of who was told all and is not watched come after two such steps. */
static void pass_a_moment(void)
{
	pass(TIMER_WHEEL_SOON_MS);
	pass(TIMER_WHEEL_SOON_MS); /* of those who came while the clock ran for others */
}

#define ECHO    "[echo]\nprotocol = tcp\naddress = 127.0.0.1\nport = 0\nmax_connections_per_source = unlimited\n"
#define DAYTIME "[daytime]\nprotocol = tcp\naddress = 127.0.0.1\nport = 0\n"
#define CHARGEN "[chargen]\nprotocol = tcp\naddress = 127.0.0.1\nport = 0\n"
#define DISCARD "[discard]\nprotocol = tcp\naddress = 127.0.0.1\nport = 0\n"

/* --- echo --- */

/* One client of many that talk at the same time. */
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

/* Sends a piece of any size; the last one ends the client's side. */
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

/* Sends LENGTH bytes each and expects them back, then the end. */
static void talk_all(struct talk *talks, unsigned count)
{
	struct pollfd polls[CLIENTS_MAX];
	for (unsigned ended = 0; ended < count;) {
		for (unsigned i = 0; i < count; i++) {
			short wants = talks[i].sent < talks[i].length ? POLLIN | POLLOUT : POLLIN;
			polls[i] = (struct pollfd){.fd = talks[i].ended ? -1 : talks[i].fd, .events = wants};
		}
		ck_assert_msg(poll(polls, count, NET_TIMEOUT_MS) > 0, "nothing came");
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

START_TEST(echo_returns_every_byte_in_order_however_it_was_cut)
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

START_TEST(echo_returns_single_bytes_as_they_come)
{
	serve(ECHO, 1);
	int client = connect_to(0);
	for (int i = 0; i < 100; i++)
		net_assert_echo(client);
	close(client);
	finish();
}
END_TEST

START_TEST(echo_serves_both_families)
{
	serve("[echo]\nprotocol = tcp\naddress = 127.0.0.1, ::1\nport = 0\n", WORKERS);
	for (unsigned i = 0; i < endpoint_count; i++)
		talk_to(i, 4, 100000);
	finish();
}
END_TEST

START_TEST(sixty_four_clients_each_get_their_own_bytes)
{
	enum { CLIENTS = 64, LENGTH = 100000 };
	serve(ECHO, WORKERS);
	talk_to(0, CLIENTS, LENGTH);
	await_sum(METRIC_CLOSED_CLIENT, CLIENTS);
	ck_assert_uint_eq(sum(METRIC_ACCEPTED), CLIENTS);
	ck_assert_uint_eq(sum(METRIC_SENT_BYTES), (uint64_t)CLIENTS * LENGTH);
	await_places(0);
	finish();
}
END_TEST

START_TEST(a_half_close_gets_the_rest_and_then_the_end)
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

START_TEST(a_client_that_says_nothing_and_ends_is_ended)
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

/* What the worker finds all at once, in the first event of the connection. */
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

START_TEST(data_and_the_end_that_come_together_are_both_heard)
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

START_TEST(what_lies_behind_urgent_data_is_echoed_when_the_end_has_come_too)
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

/* Urgent bytes are no part of the stream, but a read ends at their mark. */
START_TEST(what_lies_behind_urgent_data_is_echoed)
{
	int client = connect_ahead(ECHO);
	net_send(client, "abc", 3);
	send_urgent(client, '!');
	net_send(client, "def", 3);
	serve_prepared();
	assert_text(client, "abc");
	pass(TCP_RECHECK_MS + TIMER_WHEEL_TICK_MS);
	assert_text(client, "def");
	for (int i = 0; i < 10; i++) { /* from now on without a wait, as the clock stands */
		net_send(client, "ghi", 3);
		send_urgent(client, '!');
		net_send(client, "jkl", 3);
		assert_text(client, "ghijkl");
	}
	close(client);
	finish();
}
END_TEST

/* A look behind a read is no exchange. */
START_TEST(a_connection_is_looked_at_once_more_after_a_read_and_stays_idle)
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

START_TEST(what_lies_behind_urgent_data_is_echoed_before_a_short_idle_timeout)
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

START_TEST(a_client_that_resets_is_counted_as_such)
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

/* Bytes that the server has taken in and not sent back: it holds them. */
static uint64_t count_held(void)
{
	host_settle(&host);
	uint64_t sent = sum(METRIC_SENT_BYTES); /* first: bytes on their way in between count as held */
	return sum(METRIC_RECEIVED_BYTES) - sent;
}

/* Sends stream I on FDS[I] until nobody takes more for a while; SENT, zero at first, counts the bytes. */
static void flood_for_now(const int *fds, uint64_t *sent, unsigned count)
{
	struct pollfd polls[CLIENTS_MAX];
	for (unsigned i = 0; i < count; i++)
		polls[i] = (struct pollfd){.fd = fds[i], .events = POLLOUT};
	while (poll(polls, count, NET_QUIET_MS) > 0)
		for (unsigned i = 0; i < count; i++) {
			if (polls[i].revents & POLLOUT)
				sent[i] += flood_some(fds[i], i, sent[i]);
			ck_assert_msg(sent[i] < STREAM_MAX, "who does not read is read from without end");
		}
}

/* The same until the server is stuck, which on a slow machine comes later. */
static void flood(const int *fds, uint64_t *sent, unsigned count)
{
	for (int left = NET_TIMEOUT_MS / NET_QUIET_MS; left > 0; left--) {
		flood_for_now(fds, sent, count);
		if (count_held() > 0)
			return;
	}
	ck_abort_msg("nothing is held for clients that do not read");
}

/* A client that sent until nobody took more, and has read nothing. */
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

START_TEST(a_short_send_stops_reading_until_the_client_reads)
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

START_TEST(slow_readers_make_the_server_hold_a_scratch_buffer_each_at_most)
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
	talk_to(0, 4, 10000); /* others do not suffer */
	for (unsigned i = 0; i < SLOW; i++) {
		shutdown(clients[i], SHUT_WR);
		assert_stream(clients[i], i, sent[i]);
	}
	close_all(clients, SLOW);
	finish();
}
END_TEST

/* Sends a scratch buffer's worth, which the worker takes in and cannot send back. Returns what it took. */
static uint64_t burden(int client)
{
	static char bytes[TCP_SCRATCH_SIZE];
	uint64_t before = sum(METRIC_RECEIVED_BYTES);
	net_send(client, bytes, sizeof bytes);
	for (int left = NET_TIMEOUT_MS; sum(METRIC_RECEIVED_BYTES) == before;)
		net_rest(&left);
	return sum(METRIC_RECEIVED_BYTES) - before;
}

START_TEST(a_worker_that_holds_much_reads_little)
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
		ck_assert_uint_le(burden(clients[count++]), TCP_SCRATCH_SIZE);
	}
	for (int i = 0; i < 5; i++) {
		clients[count] = connect_to(0);
		ck_assert_uint_le(burden(clients[count++]), TCP_READ_SMALL);
	}
	ck_assert_uint_eq(sum(METRIC_SENT_BYTES), 0);
	close_all(clients, count);
	finish();
}
END_TEST

START_TEST(a_client_that_never_reads_and_leaves_costs_nothing_more)
{
	send_buffer = SMALL_BUFFER;
	serve(ECHO, 1);
	int client = connect_stuck();
	close(client);
	await_sum(METRIC_CLOSED_RESET, 1);
	await_places(0);
	finish();
}
END_TEST

/* --- workers --- */

/* The kernel deals connections by a hash of both addresses and ports, as fair as a coin: of 1000 a worker gets 500 with a
 * standard deviation of 16, so a share is 10 % off once in 600 draws. Three times in a row it is not. */
START_TEST(two_workers_share_1000_connections_within_10_percent)
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

/* --- services that speak first --- */

/* After the reply a client is watched where places are few, and looked at a moment later where there are many: nothing else
 * depends on it. */
static const char *const daytimes[] = {DAYTIME "max_connections_per_source = 500\n", DAYTIME};

static void assert_daytime(int client)
{
	char line[256];
	size_t length = net_receive_all(client, line, sizeof line);
	ck_assert_uint_gt(length, 10);
	ck_assert_int_eq(memcmp(line + length - 2, "\r\n", 2), 0);
}

START_TEST(daytime_says_one_line_and_ends)
{
	serve(daytimes[_i], 1);
	int client = connect_to(0);
	assert_daytime(client);
	close(client);
	pass_a_moment();
	await_sum(METRIC_CLOSED_DONE, 1);
	ck_assert_uint_eq(count_closed(), 1);
	finish();
}
END_TEST

/* All of it lies in the socket before the daemon even accepts: a plain close would send a reset. */
START_TEST(daytime_line_and_end_leave_in_one_packet)
{
	struct tcp_info info = {0};
	socklen_t length = sizeof info;

	serve(daytimes[_i], 1);
	int client = connect_to(0);
	assert_daytime(client);
	ck_assert_int_eq(getsockopt(client, IPPROTO_TCP, TCP_INFO, &info, &length), 0);
	ck_assert_int_eq(info.tcpi_segs_in, 2); /* the one that answered the SYN, and this */
	close(client);
	finish();
}
END_TEST

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
	pass_a_moment();
	await_sum(METRIC_CLOSED_DONE, CLIENTS);
	ck_assert_uint_eq(sum(METRIC_CLOSED_RESET), 0);
	close_all(clients, CLIENTS);
	finish();
}
END_TEST

START_TEST(daytime_reply_survives_input_that_comes_after_it)
{
	static char junk[16 * 1024];
	serve(daytimes[_i], 1);
	int client = connect_to(0);
	net_wait(client, POLLIN);
	net_send(client, junk, sizeof junk);
	assert_daytime(client);
	close(client);
	pass_a_moment();
	await_sum(METRIC_CLOSED_DONE, 1);
	finish();
}
END_TEST

START_TEST(who_does_not_end_after_the_reply_is_ended_after_the_linger_time)
{
	serve(daytimes[_i], 1);
	int client = connect_to(0);
	assert_daytime(client);
	pass_a_moment();
	pass(TCP_LINGER_MS - 200);
	ck_assert_uint_eq(count_closed(), 0);
	pass(400);
	ck_assert_uint_eq(sum(METRIC_CLOSED_DONE), 1);
	close(client);
	finish();
}
END_TEST

START_TEST(who_says_a_bit_after_the_reply_is_heard_out)
{
	static char junk[1024];
	serve(daytimes[_i], 1);
	int client = connect_to(0);
	assert_daytime(client);
	pass_a_moment();
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

START_TEST(what_lies_behind_urgent_data_is_thrown_away_after_the_reply)
{
	serve(daytimes[_i], 1);
	int client = connect_to(0);
	assert_daytime(client);
	pass_a_moment();
	net_send(client, "abc", 3);
	send_urgent(client, '!');
	net_send(client, "def", 3);
	await_sum(METRIC_RECEIVED_BYTES, 6); /* or closing would reset the connection */
	close(client);
	pass_a_moment();
	await_sum(METRIC_CLOSED_DONE, 1);
	finish();
}
END_TEST

START_TEST(who_sends_on_and_on_after_the_reply_is_ended)
{
	static char junk[4096];
	uint64_t sent = 0;
	serve(daytimes[_i], 1);
	int client = connect_to(0);
	assert_daytime(client);
	pass_a_moment();
	while (sent < STREAM_MAX && send(client, junk, sizeof junk, MSG_NOSIGNAL) > 0)
		sent += sizeof junk;
	ck_assert_uint_lt(sent, STREAM_MAX);
	ck_assert_uint_ge(sent, TCP_LINGER_BYTES);
	await_sum(METRIC_CLOSED_DONE, 1);
	close(client);
	finish();
}
END_TEST

/* Closes CLIENT, the last that was accepted; returns when that has come to the other end, which is still open. */
static void close_heard(int client)
{
	struct pollfd accepted = {.fd = atomic_load(&last_accepted), .events = POLLRDHUP};
	close(client);
	ck_assert_int_eq(poll(&accepted, 1, NET_TIMEOUT_MS), 1);
}

static const char *const plenty[] = {DAYTIME, DAYTIME "max_connections = 1020\n",
				     DAYTIME "max_connections_per_source = 1020\n",
				     DAYTIME "max_connections_per_source = unlimited\n"};

/* Counts what they cost, too: no change of what is watched. */
START_TEST(who_ends_at_once_after_the_reply_need_not_be_watched)
{
	enum { CLIENTS = 20 };
	serve(plenty[_i], 1);
	host_settle(&host);
	int before = atomic_load(&epoll_changes);
	ck_assert_int_gt(before, 0);
	for (int i = 0; i < CLIENTS; i++) {
		int client = connect_to(0);
		assert_daytime(client);
		close_heard(client);
	}
	host_settle(&host);
	ck_assert_uint_eq(count_closed(), 0);
	pass(TIMER_WHEEL_SOON_MS - 1);
	ck_assert_uint_eq(count_closed(), 0);
	pass(1);
	await_sum(METRIC_CLOSED_DONE, 1);
	pass(TIMER_WHEEL_SOON_MS); /* who came while the clock ran for the first */
	await_sum(METRIC_CLOSED_DONE, CLIENTS);
	await_places(0);
	ck_assert_int_eq(atomic_load(&epoll_changes), before);
	finish();
}
END_TEST

static const struct {
	const char *limits;
	int64_t daemon_maximum;
} few_places[] = {
	{"max_connections = 1000\n", UNLIMITED}, /* it has one of them itself */
	{"max_connections_per_source = 1000\n", UNLIMITED},
	{"max_connections_per_source = unlimited\n", 1000},
	{"max_connections_per_source = auto\n", 2000},
	{"log_connections = yes\n", UNLIMITED},
};

START_TEST(where_places_are_few_each_is_given_back_as_soon_as_the_client_has_ended)
{
	char ini[256];
	snprintf(ini, sizeof ini, "%s%s", DAYTIME, few_places[_i].limits);
	prepare(ini, 1, few_places[_i].daemon_maximum);
	start();
	int client = connect_to(0);
	assert_daytime(client);
	close(client);
	await_sum(METRIC_CLOSED_DONE, 1); /* while the clock stands */
	await_places(0);
	finish();
}
END_TEST

/* A reset is all that they say: it must not make them look as if they were there still. */
START_TEST(who_resets_after_the_reply_need_not_be_watched)
{
	const struct linger reset = {.l_onoff = 1};
	serve(DAYTIME, 1);
	host_settle(&host);
	int before = atomic_load(&epoll_changes), client = connect_to(0);
	assert_daytime(client);
	setsockopt(client, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
	close_heard(client);
	pass_a_moment();
	await_sum(METRIC_CLOSED_DONE, 1);
	ck_assert_int_eq(atomic_load(&epoll_changes), before);
	finish();
}
END_TEST

START_TEST(without_memory_for_a_timer_who_was_told_all_is_watched)
{
	serve(DAYTIME, 1);
	host_settle(&host);
	atomic_store(&events_without_memory, EV_TIMEOUT);
	int client = connect_to(0);
	assert_daytime(client);
	close(client);
	await_sum(METRIC_CLOSED_DONE, 1); /* while the clock stands */
	await_places(0);
	atomic_store(&events_without_memory, 0);
	finish();
}
END_TEST

START_TEST(without_memory_to_be_watched_who_was_told_all_is_ended)
{
	serve(DAYTIME, 1);
	host_settle(&host);
	int client = connect_to(0);
	assert_daytime(client);
	atomic_store(&events_without_memory, EV_READ);
	pass_a_moment();
	await_sum(METRIC_CLOSED_DONE, 1);
	await_places(0);
	atomic_store(&events_without_memory, 0);
	close(client);
	finish();
}
END_TEST

START_TEST(what_was_said_before_the_look_is_counted_and_bounded_too)
{
	static char junk[TCP_LINGER_BYTES];
	serve(DAYTIME, 1);
	int client = connect_to(0), other = connect_to(0);
	assert_daytime(client);
	net_send(client, junk, 1000);
	assert_daytime(other);
	net_send(other, junk, sizeof junk);
	pass_a_moment();
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

START_TEST(a_stop_ends_who_is_not_watched_either)
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
	tcp_drain(tcp, host.task_queue, &idle_mail);
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

START_TEST(freeing_closes_who_is_not_watched_either)
{
	serve(DAYTIME, 1);
	int client = connect_to(0);
	assert_daytime(client);
	finish();
	ck_assert_int_eq(atomic_load(&host.gate.taken), 0);
	close(client);
}
END_TEST

/* Nothing is ever sent to it that could fail. */
START_TEST(discard_ends_at_once_with_a_client_that_resets_behind_its_data)
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

START_TEST(discard_takes_all_and_answers_nothing)
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

/* RFC 864 as it says it: line L has 72 characters of the ring, from its character L on. */
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

START_TEST(chargen_goes_on_without_a_seam_whatever_the_client_sends)
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

START_TEST(chargen_goes_on_after_a_half_close)
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

START_TEST(chargen_waits_for_a_slow_reader)
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

/* --- deadlines, by a clock in our hand --- */

#define IDLE ECHO "idle_timeout = 10m\n"

START_TEST(a_silent_connection_ends_after_the_idle_timeout_and_not_before)
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

START_TEST(every_byte_starts_the_idle_timeout_again)
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

START_TEST(a_proxy_that_took_its_time_leaves_the_client_the_idle_timeout)
{
	static const char header[] = "PROXY TCP4 192.0.2.1 192.0.2.2 1 7\r\n";
	serve(ECHO "idle_timeout = 2s\nproxy_protocol = on\nproxy_from = 127.0.0.1\n", 1);
	int client = connect_to(0);
	await_places(1);
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

START_TEST(a_client_that_only_reads_is_not_idle)
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

START_TEST(without_an_idle_timeout_a_silent_connection_stays)
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

/* A client that reads no more has not got all: an orderly end would hide that. */
START_TEST(a_stream_that_is_cut_ends_in_a_reset)
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

/* All of its input has been read, so that nothing but our own will makes the end a reset. */
START_TEST(a_stream_that_its_client_has_not_got_ends_in_a_reset)
{
	serve(CHARGEN "idle_timeout = 10m\n", 1);
	int client = connect_with_small_buffer();
	net_wait(client, POLLIN);
	for (int left = NET_TIMEOUT_MS; sum(METRIC_CLOSED_IDLE_TIMEOUT) == 0; pass(11 * MINUTE_MS))
		net_rest(&left); /* until the kernel takes no more either */
	net_assert_reset(client);
	close(client);
	finish();
}
END_TEST

START_TEST(a_busy_connection_ends_in_order_at_its_lifetime)
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

START_TEST(a_lifetime_ends_a_stream_without_end)
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

START_TEST(many_connections_end_each_at_its_own_time)
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

/* Which of CLIENTS have had their byte back, which they have all sent. */
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

/* Opens COUNT clients at a service that has MAXIMUM places, and watches them take turns. */
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

START_TEST(max_connections_is_exact_across_workers_and_the_rest_wait_their_turn)
{
	enum { CLIENTS = 60, MAXIMUM = 7 };
	int clients[CLIENTS];
	serve(ECHO "max_connections = 7\n", WORKERS);
	connect_many(clients, CLIENTS);
	take_turns(clients, CLIENTS, MAXIMUM);
	finish();
}
END_TEST

START_TEST(the_daemons_limit_is_exact_across_workers)
{
	enum { CLIENTS = 40, MAXIMUM = 3 };
	int clients[CLIENTS];
	prepare(ECHO, WORKERS, MAXIMUM);
	start();
	connect_many(clients, CLIENTS);
	take_turns(clients, CLIENTS, MAXIMUM);
	await_places(0);
	finish();
}
END_TEST

START_TEST(a_place_of_one_service_is_waited_for_by_another)
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

START_TEST(a_full_service_does_not_stop_another)
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

/* --- limits of one source: it alone is refused --- */

static int connect_from(const char *ip)
{
	struct socket_address from = net_address(ip, 0);
	const struct socket_address *to = &endpoints[0].address;
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	ck_assert_int_eq(bind(fd, &from.any, from.length), 0);
	ck_assert_int_eq(connect(fd, &to->any, to->length), 0);
	return fd;
}

/* Closed at once, whatever it sends. */
static void assert_turned_away(int fd)
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
		assert_turned_away(connect_from("127.0.0.2"));
	int other = connect_from("127.0.0.3");
	net_assert_echo(other);
	await_sum(METRIC_REFUSED_SOURCE_LIMIT, MORE);
	ck_assert_uint_eq(sum(METRIC_ACCEPTED), MAXIMUM + 1);
	await_places(MAXIMUM + 1);

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

START_TEST(a_source_is_as_wide_as_its_prefix)
{
	serve(LAB "max_connections_per_source = 1\nsource_prefix = /24, /64\n", WORKERS);
	int first = connect_from("127.0.5.1");
	net_assert_echo(first);
	assert_turned_away(connect_from("127.0.5.200"));
	int other = connect_from("127.0.6.1");
	net_assert_echo(other);
	close(first);
	close(other);
	finish();
}
END_TEST

START_TEST(no_source_gets_more_than_half_of_the_daemons_places_unasked)
{
	int clients[4];
	prepare(LAB, WORKERS, 8);
	start();
	for (int i = 0; i < 4; i++) {
		clients[i] = connect_from("127.0.0.2");
		net_assert_echo(clients[i]);
	}
	assert_turned_away(connect_from("127.0.0.2"));
	int other = connect_from("127.0.0.3");
	net_assert_echo(other);
	close_all(clients, 4);
	close(other);
	finish();
}
END_TEST

START_TEST(connection_rate_turns_a_source_away_until_its_bucket_fills_again)
{
	serve(LAB "connection_rate = 3/m\n", WORKERS);
	for (int minute = 0; minute < 3; minute++) {
		for (int i = 0; i < 3; i++) {
			int client = connect_from("127.0.0.2");
			net_assert_echo(client);
			close(client);
		}
		assert_turned_away(connect_from("127.0.0.2"));
		pass(MINUTE_MS);
	}
	await_sum(METRIC_REFUSED_RATE, 3);
	ck_assert_uint_eq(sum(METRIC_ACCEPTED), 9);
	finish();
}
END_TEST

START_TEST(who_is_denied_is_closed_and_holds_no_place)
{
	serve(LAB "deny = 127.0.0.0/24\nallow = 127.0.0.7, 127.0.1.0/24\n", WORKERS);
	assert_turned_away(connect_from("127.0.0.2"));
	assert_turned_away(connect_from("127.0.2.1"));
	int named = connect_from("127.0.0.7"), inside = connect_from("127.0.1.9");
	net_assert_echo(named);
	net_assert_echo(inside);
	await_sum(METRIC_REFUSED_DENIED, 2);
	await_places(2);
	ck_assert_uint_eq(sum(METRIC_ACCEPTED), 2);
	close(named);
	close(inside);
	finish();
}
END_TEST

/* --- accept that fails --- */

START_TEST(out_of_descriptors_accepting_rests_and_then_goes_on)
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
		ck_assert_int_eq(atomic_load(&accept_faults_left), FAULTS - 1 - i); /* it does not spin */
		pass(TCP_RETRY_MS);
	}
	await_byte(client);
	await_places(1);
	close(client);
	finish();
}
END_TEST

/* accept(2): errors of the new connection alone come out of accept too. */
START_TEST(a_connection_that_fails_before_it_is_accepted_holds_up_no_other)
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
	await_places(0);
	finish();
}
END_TEST

START_TEST(a_quiet_listener_costs_no_call)
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

/* Start and stop are taken in one go, so that all of the queue is left to the stop. */
START_TEST(a_stop_serves_the_queue_and_tells_when_it_is_empty)
{
	int clients[CLIENTS_MAX];
	unsigned count = queue_lengths[_i];
	prepare(ECHO, 1, UNLIMITED);
	connect_many(clients, count);
	start_and_stop();
	assert_all_echo(clients, count);
	host_await(&host, &stopped, 1);
	ck_assert_uint_eq(sum(METRIC_ACCEPTED), count);
	assert_all_echo(clients, count); /* they are served on */
	close_all(clients, count);
	host_run_tasks(&host, NET_QUIET_MS);
	ck_assert_uint_eq(stopped, 1);
	finish();
}
END_TEST

START_TEST(a_stopped_listener_accepts_no_more)
{
	serve(ECHO, WORKERS);
	int client = connect_to(0);
	net_assert_echo(client);
	each_listener(stop_one);
	host_await(&host, &stopped, WORKERS);
	int late = connect_to(0); /* the socket is open still, so the kernel shakes hands */
	net_send(late, "b", 1);
	net_assert_quiet(late);
	ck_assert_uint_eq(sum(METRIC_ACCEPTED), 1);
	net_assert_echo(client);
	close(client);
	close(late);
	finish();
}
END_TEST

/* The stop comes while all places are taken: the queue is served as they get free. */
START_TEST(a_stop_waits_for_places_and_serves_the_queue)
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

/* Nobody is queued: what wakes the listener is the free place alone. */
START_TEST(a_stop_of_a_full_service_is_over_when_a_place_gets_free)
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

START_TEST(a_stop_while_accepting_rests_serves_the_queue_after_it)
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

START_TEST(drain_tells_at_once_where_nobody_is_connected)
{
	serve(ECHO, WORKERS);
	tcp_drain(tcp, host.task_queue, &idle_mail);
	host_await(&host, &idle, 1);
	finish();
}
END_TEST

START_TEST(drain_tells_when_the_last_connection_has_ended)
{
	enum { CLIENTS = 10 };
	int clients[CLIENTS];
	serve(ECHO, WORKERS);
	connect_many(clients, CLIENTS);
	assert_all_echo(clients, CLIENTS);
	tcp_drain(tcp, host.task_queue, &idle_mail);
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

START_TEST(end_all_ends_every_connection_in_order)
{
	enum { CLIENTS = 30 };
	int clients[CLIENTS];
	serve(ECHO, WORKERS);
	connect_many(clients, CLIENTS);
	assert_all_echo(clients, CLIENTS);
	tcp_drain(tcp, host.task_queue, &idle_mail);
	tcp_end_all(tcp);
	assert_all_end(clients, CLIENTS);
	host_await(&host, &idle, 1);
	ck_assert_uint_eq(sum(METRIC_CLOSED_STOP), CLIENTS);
	await_places(0);
	close_all(clients, CLIENTS);
	finish();
}
END_TEST

/* The input that nobody reads any more must not turn the end into a reset that destroys what was sent. */
START_TEST(end_all_does_not_destroy_what_was_sent)
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

START_TEST(end_all_stops_a_listener_that_waits_for_places)
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

START_TEST(freeing_closes_what_is_open_still)
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

START_TEST(what_never_ran_can_be_freed)
{
	prepare(ECHO, WORKERS, UNLIMITED);
	listener_free(NULL);
	tcp_free(NULL);
	each_listener(start_one);
	finish();
}
END_TEST

/* --- what is told --- */

START_TEST(log_connections_tells_of_a_connection_at_its_end)
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

START_TEST(replies_have_the_dscp_of_the_clients_syn)
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

/* --- generations, and a listener that is there for all --- */

START_TEST(a_change_is_for_new_connections_and_open_ones_go_on)
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

START_TEST(a_generation_is_over_when_the_last_who_serves_by_it_has_ended)
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

/* One listener for all workers: the group's second socket, which would get its share from the kernel, is closed. */
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

START_TEST(what_is_dealt_while_everything_ends_is_closed)
{
	int clients[50];
	prepare_round_robin();
	ck_assert_int_eq(worker_start(host.workers[0]), 0); /* the other one never takes what it is dealt */
	connect_many(clients, 50);
	for (int i = 0; i < 50; i += 2) /* the first goes to the other one */
		net_assert_echo(clients[i + 1]);
	finish();
	for (int i = 0; i < 50; i++) {
		net_wait(clients[i], POLLIN);
		close(clients[i]);
	}
	ck_assert_int_eq(atomic_load(&host.gate.taken), 0);
}
END_TEST

START_TEST(connections_of_a_removed_service_end_when_their_time_is_over)
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

START_TEST(a_shared_listener_stops_while_clients_keep_coming)
{
	prepare(ECHO, 1, UNLIMITED);
	int clients[CLIENTS_MAX];
	connect_many(clients, CLIENTS_MAX);
	listener_keep_open(endpoints[0].listeners[0]);
	start();
	each_listener(stop_one);
	host_await(&host, &stopped, 1);
	assert_all_echo(clients, CLIENTS_MAX); /* those that were queued are served */
	close_all(clients, CLIENTS_MAX);
	int late = net_begin_connect(&endpoints[0].address); /* and this is for others to accept */
	net_wait(late, POLLOUT);
	close(late);
	finish();
}
END_TEST

/* The others serve its queue: it does not wait for a place. */
START_TEST(a_shared_listener_that_waits_for_places_stops_at_once)
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
	tcase_add_test(echo, echo_returns_every_byte_in_order_however_it_was_cut);
	tcase_add_test(echo, echo_returns_single_bytes_as_they_come);
	tcase_add_test(echo, echo_serves_both_families);
	tcase_add_test(echo, sixty_four_clients_each_get_their_own_bytes);
	tcase_add_test(echo, a_half_close_gets_the_rest_and_then_the_end);
	tcase_add_test(echo, a_client_that_says_nothing_and_ends_is_ended);
	tcase_add_test(echo, what_lies_behind_urgent_data_is_echoed_before_a_short_idle_timeout);
	tcase_add_test(echo, a_client_that_resets_is_counted_as_such);
	tcase_add_test(echo, data_and_the_end_that_come_together_are_both_heard);
	tcase_add_test(echo, what_lies_behind_urgent_data_is_echoed);
	tcase_add_test(echo, what_lies_behind_urgent_data_is_echoed_when_the_end_has_come_too);
	tcase_add_test(echo, a_connection_is_looked_at_once_more_after_a_read_and_stays_idle);
	tcase_add_test(echo, a_short_send_stops_reading_until_the_client_reads);
	tcase_add_test(echo, slow_readers_make_the_server_hold_a_scratch_buffer_each_at_most);
	tcase_add_test(echo, a_worker_that_holds_much_reads_little);
	tcase_add_test(echo, a_client_that_never_reads_and_leaves_costs_nothing_more);

	TCase *workers = add_tcase(suite, "workers");
	tcase_add_test(workers, two_workers_share_1000_connections_within_10_percent);

	TCase *speakers = add_tcase(suite, "speakers");
	tcase_add_loop_test(speakers, daytime_says_one_line_and_ends, 0, 2);
	tcase_add_loop_test(speakers, daytime_line_and_end_leave_in_one_packet, 0, 2);
	tcase_add_loop_test(speakers, daytime_reply_survives_unread_input, 0, 2);
	tcase_add_loop_test(speakers, daytime_reply_survives_input_that_comes_after_it, 0, 2);
	tcase_add_loop_test(speakers, who_does_not_end_after_the_reply_is_ended_after_the_linger_time, 0, 2);
	tcase_add_loop_test(speakers, who_says_a_bit_after_the_reply_is_heard_out, 0, 2);
	tcase_add_loop_test(speakers, what_lies_behind_urgent_data_is_thrown_away_after_the_reply, 0, 2);
	tcase_add_loop_test(speakers, who_sends_on_and_on_after_the_reply_is_ended, 0, 2);
	tcase_add_loop_test(speakers, who_ends_at_once_after_the_reply_need_not_be_watched, 0,
			    sizeof plenty / sizeof *plenty);
	tcase_add_loop_test(speakers, where_places_are_few_each_is_given_back_as_soon_as_the_client_has_ended, 0,
			    sizeof few_places / sizeof *few_places);
	tcase_add_test(speakers, who_resets_after_the_reply_need_not_be_watched);
	tcase_add_test(speakers, without_memory_for_a_timer_who_was_told_all_is_watched);
	tcase_add_test(speakers, without_memory_to_be_watched_who_was_told_all_is_ended);
	tcase_add_test(speakers, what_was_said_before_the_look_is_counted_and_bounded_too);
	tcase_add_test(speakers, a_stop_ends_who_is_not_watched_either);
	tcase_add_test(speakers, freeing_closes_who_is_not_watched_either);
	tcase_add_test(speakers, discard_ends_at_once_with_a_client_that_resets_behind_its_data);
	tcase_add_test(speakers, discard_takes_all_and_answers_nothing);
	tcase_add_test(speakers, chargen_goes_on_without_a_seam_whatever_the_client_sends);
	tcase_add_test(speakers, chargen_goes_on_after_a_half_close);
	tcase_add_test(speakers, chargen_waits_for_a_slow_reader);

	TCase *deadlines = add_tcase(suite, "deadlines");
	tcase_add_test(deadlines, a_silent_connection_ends_after_the_idle_timeout_and_not_before);
	tcase_add_test(deadlines, every_byte_starts_the_idle_timeout_again);
	tcase_add_test(deadlines, a_proxy_that_took_its_time_leaves_the_client_the_idle_timeout);
	tcase_add_test(deadlines, a_client_that_only_reads_is_not_idle);
	tcase_add_test(deadlines, without_an_idle_timeout_a_silent_connection_stays);
	tcase_add_test(deadlines, a_stream_that_is_cut_ends_in_a_reset);
	tcase_add_test(deadlines, a_stream_that_its_client_has_not_got_ends_in_a_reset);
	tcase_add_test(deadlines, a_busy_connection_ends_in_order_at_its_lifetime);
	tcase_add_test(deadlines, a_lifetime_ends_a_stream_without_end);
	tcase_add_test(deadlines, many_connections_end_each_at_its_own_time);

	TCase *limits = add_tcase(suite, "limits");
	tcase_add_test(limits, max_connections_is_exact_across_workers_and_the_rest_wait_their_turn);
	tcase_add_test(limits, the_daemons_limit_is_exact_across_workers);
	tcase_add_test(limits, a_place_of_one_service_is_waited_for_by_another);
	tcase_add_test(limits, a_full_service_does_not_stop_another);
	tcase_add_test(limits, max_connections_per_source_is_exact_across_workers);
	tcase_add_test(limits, a_source_is_as_wide_as_its_prefix);
	tcase_add_test(limits, no_source_gets_more_than_half_of_the_daemons_places_unasked);
	tcase_add_test(limits, connection_rate_turns_a_source_away_until_its_bucket_fills_again);
	tcase_add_test(limits, who_is_denied_is_closed_and_holds_no_place);
	tcase_add_test(limits, out_of_descriptors_accepting_rests_and_then_goes_on);
	tcase_add_test(limits, a_connection_that_fails_before_it_is_accepted_holds_up_no_other);
	tcase_add_test(limits, a_quiet_listener_costs_no_call);

	TCase *stopping = add_tcase(suite, "stopping");
	tcase_add_loop_test(stopping, a_stop_serves_the_queue_and_tells_when_it_is_empty, 0,
			    sizeof queue_lengths / sizeof *queue_lengths);
	tcase_add_test(stopping, a_stopped_listener_accepts_no_more);
	tcase_add_test(stopping, a_stop_waits_for_places_and_serves_the_queue);
	tcase_add_test(stopping, a_stop_of_a_full_service_is_over_when_a_place_gets_free);
	tcase_add_test(stopping, a_stop_while_accepting_rests_serves_the_queue_after_it);
	tcase_add_test(stopping, drain_tells_at_once_where_nobody_is_connected);
	tcase_add_test(stopping, drain_tells_when_the_last_connection_has_ended);
	tcase_add_test(stopping, end_all_ends_every_connection_in_order);
	tcase_add_test(stopping, end_all_does_not_destroy_what_was_sent);
	tcase_add_test(stopping, end_all_stops_a_listener_that_waits_for_places);
	tcase_add_test(stopping, freeing_closes_what_is_open_still);
	tcase_add_test(stopping, what_never_ran_can_be_freed);

	TCase *telling = add_tcase(suite, "telling");
	tcase_add_test(telling, log_connections_tells_of_a_connection_at_its_end);
	tcase_add_test(telling, replies_have_the_dscp_of_the_clients_syn);

	TCase *generations = add_tcase(suite, "generations");
	tcase_add_test(generations, a_change_is_for_new_connections_and_open_ones_go_on);
	tcase_add_test(generations, a_generation_is_over_when_the_last_who_serves_by_it_has_ended);
	tcase_add_test(generations, single_listener_distributes_connections_round_robin);
	tcase_add_test(generations, what_is_dealt_while_everything_ends_is_closed);
	tcase_add_test(generations, connections_of_a_removed_service_end_when_their_time_is_over);
	tcase_add_test(generations, a_shared_listener_stops_while_clients_keep_coming);
	tcase_add_test(generations, a_shared_listener_that_waits_for_places_stops_at_once);
	return suite;
}

int main(void)
{
	return check_run(suite());
}
