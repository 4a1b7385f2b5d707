/* check_tcp.h: replaced system calls, one server per test, and clients of it, for the tests of TCP. For one file
 * per program. */
#ifndef SMALLSERVD_CHECK_TCP_H
#define SMALLSERVD_CHECK_TCP_H

#include <pthread.h>
#include <sys/epoll.h>

#include "check_clock.h"
#include "check_hold.h"
#include "check_net.h"
#include "check_run.h"
#include "core/array.h"
#include "core/timer_wheel.h"
#include "core/transport.h"
#include "net/tcp.h"
#include "net/tcp_internal.h"

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

static inline void fail_accepts(int error, int count)
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
static inline void open_endpoint(const struct config_endpoint *wanted)
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

static inline void each_listener(void (*act)(struct endpoint *endpoint, unsigned worker))
{
	for (unsigned i = 0; i < endpoint_count; i++)
		for (unsigned j = 0; j < host.worker_count; j++)
			act(&endpoints[i], j);
}

static inline void start_one(struct endpoint *endpoint, unsigned worker)
{
	listener_start(endpoint->listeners[worker]);
}

static inline void stop_one(struct endpoint *endpoint, unsigned worker)
{
	listener_stop(endpoint->listeners[worker], host.task_queue, &endpoint->stopped[worker]);
}

static inline void free_one(struct endpoint *endpoint, unsigned worker)
{
	listener_free(endpoint->listeners[worker]);
	if (endpoint->fds[worker] >= 0)
		close(endpoint->fds[worker]);
}

/* Opens the endpoints of INI: clients can connect, but no worker runs yet. */
static inline void prepare(const char *ini, unsigned workers, int64_t maximum)
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

static inline void start(void)
{
	each_listener(start_one);
	host_start(&host);
}

/* Starts and stops the listeners before a worker runs: connections are accepted from the queue by the stop. */
static inline void start_and_stop(void)
{
	each_listener(start_one);
	each_listener(stop_one);
	host_start(&host);
}

static inline void serve(const char *ini, unsigned workers)
{
	prepare(ini, workers, UNLIMITED);
	start();
}

/* Frees in the order of server_free. */
static inline void finish(void)
{
	host_stop(&host);
	tcp_free(tcp);
	each_listener(free_one);
	host_free(&host);
	log_close();
}

static inline int connect_to(unsigned endpoint)
{
	return net_connect(&endpoints[endpoint].address);
}

static inline void connect_many(int *clients, unsigned count)
{
	for (unsigned i = 0; i < count; i++)
		clients[i] = connect_to(0);
}

static inline void close_all(const int *clients, unsigned count)
{
	for (unsigned i = 0; i < count; i++)
		close(clients[i]);
}

static inline void assert_all_echo(const int *clients, unsigned count)
{
	for (unsigned i = 0; i < count; i++)
		net_assert_echo(clients[i]);
}

static inline void assert_all_end(const int *clients, unsigned count)
{
	for (unsigned i = 0; i < count; i++)
		net_assert_end(clients[i]);
}

/* Waits until the byte sent before is echoed. */
static inline void await_byte(int client)
{
	char byte;
	net_receive(client, &byte, 1);
}

static inline uint64_t sum(enum metric metric)
{
	return host_sum(&host, 0, TRANSPORT_TCP, metric);
}

static inline void await_sum(enum metric metric, uint64_t value)
{
	host_await_sum(&host, TRANSPORT_TCP, metric, value);
}

/* Waits until TAKEN slots are in use. A close is counted before its slot is freed; each accept4 takes one for a
 * moment. */
static inline void await_slots(int64_t taken)
{
	for (int left = NET_TIMEOUT_MS; atomic_load(&host.gate.taken) != taken;)
		net_rest(&left);
}

static inline uint64_t count_closed(void)
{
	uint64_t count = 0;
	for (int i = METRIC_CLOSED_FIRST; i <= METRIC_CLOSED_LAST; i++)
		count += sum((enum metric)i);
	return count;
}

/* Advances the clock while the workers are idle, and returns after they have run the timers that are due. */
static inline void pass(int64_t ms)
{
	host_settle(&host);
	atomic_fetch_add(&clock_stands_ms, ms);
	host_settle(&host);
}

/* Advances the clock until every poll for FIN has run. */
static inline void pass_fin_poll(void)
{
	pass(TIMER_WHEEL_SOON_MS);
	pass(TIMER_WHEEL_SOON_MS); /* for connections scheduled during the first step */
}

#define ECHO    "[echo]\nprotocol = tcp\naddress = 127.0.0.1\nport = 0\nmax_connections_per_source = unlimited\n"
#define DAYTIME "[daytime]\nprotocol = tcp\naddress = 127.0.0.1\nport = 0\n"
#define CHARGEN "[chargen]\nprotocol = tcp\naddress = 127.0.0.1\nport = 0\n"
#define DISCARD "[discard]\nprotocol = tcp\naddress = 127.0.0.1\nport = 0\n"

/* --- random numbers, the same in each run --- */

static uint64_t random_state = 88172645463325252;

static inline uint64_t next_random(uint64_t below)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return random_state % below;
}

/* --- clients that do not read --- */

static inline int connect_with_small_buffer(void)
{
	const struct socket_address *to = &endpoints[0].address;
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	net_set(fd, SOL_SOCKET, SO_RCVBUF, SMALL_BUFFER);
	net_set(fd, SOL_SOCKET, SO_SNDBUF, SMALL_BUFFER);
	ck_assert_int_eq(connect(fd, &to->any, to->length), 0);
	return fd;
}

static inline uint64_t flood_some(int fd, unsigned number, uint64_t from)
{
	static char bytes[64 * 1024];
	net_fill(bytes, sizeof bytes, number, from);
	ssize_t length = send(fd, bytes, sizeof bytes, MSG_NOSIGNAL | MSG_DONTWAIT);
	ck_assert_msg(length > 0 || errno == EAGAIN, "send: %s", strerror(errno));
	return length > 0 ? (uint64_t)length : 0;
}

/* Returns the count of bytes that the server has received and not sent. */
static inline uint64_t count_held(void)
{
	host_settle(&host);
	uint64_t sent = sum(METRIC_SENT_BYTES); /* read first, so that the difference is never negative */
	return sum(METRIC_RECEIVED_BYTES) - sent;
}

/* Sends stream I on FDS[I] until all sockets are full for NET_QUIET_MS; SENT, zero at first, counts the bytes. */
static inline void flood_for_now(const int *fds, uint64_t *sent, unsigned count)
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
static inline void flood(const int *fds, uint64_t *sent, unsigned count)
{
	for (int left = NET_TIMEOUT_MS / NET_QUIET_MS; left > 0; left--) {
		flood_for_now(fds, sent, count);
		if (count_held() > 0)
			return;
	}
	ck_abort_msg("no unsent bytes for clients that do not read");
}

/* Returns a client that has sent until backpressure, and has read no byte. */
static inline int connect_stuck(void)
{
	uint64_t sent = 0;
	int client = connect_with_small_buffer();
	flood(&client, &sent, 1);
	return client;
}

/* --- daytime --- */

/* With few spare slots FIN is reported by an event, with many it is polled: the results of a test are the same. */
static const char *const daytimes[] = {DAYTIME "max_connections_per_source = 500\n", DAYTIME};

static inline void assert_daytime(int client)
{
	char line[256];
	size_t length = net_receive_all(client, line, sizeof line);
	ck_assert_uint_gt(length, 10);
	ck_assert_int_eq(memcmp(line + length - 2, "\r\n", 2), 0);
}

/* --- suites --- */

static inline TCase *add_tcase(Suite *suite, const char *name)
{
	TCase *tcase = tcase_create(name);
	tcase_set_timeout(tcase, 120);
	suite_add_tcase(suite, tcase);
	return tcase;
}

#endif
