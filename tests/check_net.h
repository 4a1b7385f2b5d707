/* check_net.h: clients, and workers that serve a configuration, for the tests of sockets. */
#ifndef SMALLSERVD_CHECK_NET_H
#define SMALLSERVD_CHECK_NET_H

#include <arpa/inet.h>
#include <check.h>
#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <poll.h>
#include <semaphore.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "config/config.h"
#include "core/log.h"
#include "core/transport.h"
#include "net/instance.h"
#include "net/metrics.h"
#include "net/socket.h"
#include "thread/worker.h"

enum {
	NET_TIMEOUT_MS = 20000, /* the longest wait for an event that is expected */
	NET_QUIET_MS = 50,      /* the wait for an event that must not happen; a slow machine cannot fail it */
	HOST_WORKERS_MAX = 4,
};

/* --- waiting --- */

/* Returns whether FD is ready for EVENTS within MS. */
static inline bool net_is_ready(int fd, short events, int ms)
{
	struct pollfd one = {.fd = fd, .events = events};
	int count;
	do
		count = poll(&one, 1, ms);
	while (count < 0 && errno == EINTR);
	return count == 1;
}

static inline void net_wait(int fd, short events)
{
	ck_assert_msg(net_is_ready(fd, events, NET_TIMEOUT_MS), "no event within the time limit");
}

static inline void net_assert_quiet(int fd)
{
	ck_assert_msg(!net_is_ready(fd, POLLIN, NET_QUIET_MS), "an unexpected event");
}

/* Waits for 1 ms, for conditions without a descriptor to poll. Fails the test when none of LEFT waits is left. */
static inline void net_rest(int *left)
{
	ck_assert_msg((*left)-- > 0, "it did not happen");
	poll(NULL, 0, 1);
}

/* --- addresses --- */

static inline struct socket_address net_address(const char *ip, uint16_t port)
{
	struct socket_address address;
	struct in6_addr bytes;
	int family = strchr(ip, ':') != NULL ? AF_INET6 : AF_INET;
	ck_assert_int_eq(inet_pton(family, ip, &bytes), 1);
	ck_assert(socket_address_set(&address, family, &bytes, "", port));
	return address;
}

/* Returns FD's local address. */
static inline struct socket_address net_name(int fd)
{
	struct socket_address address = {.length = sizeof address.v6};
	ck_assert_int_eq(getsockname(fd, &address.any, &address.length), 0);
	return address;
}

/* Returns a request with default options. */
static inline struct socket_request net_request(int type, const char *ip, uint16_t port)
{
	return (struct socket_request){
		.address = net_address(ip, port), .type = type, .dscp = -1, .backlog = 1024, .owner = (uid_t)-1};
}

static inline bool net_has(const char *ip)
{
	struct socket_address address = net_address(ip, 0);
	int fd = socket(address.any.sa_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	bool has = fd >= 0 && bind(fd, &address.any, address.length) == 0;
	if (fd >= 0)
		close(fd);
	return has;
}

/* --- clients --- */

static inline int net_connect(const struct socket_address *to)
{
	int fd = socket(to->any.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	ck_assert_int_ge(fd, 0);
	ck_assert_msg(connect(fd, &to->any, to->length) == 0, "cannot connect: %s", strerror(errno));
	return fd;
}

/* Starts to connect. Returns a socket that may be connecting still. */
static inline int net_begin_connect(const struct socket_address *to)
{
	int fd = socket(to->any.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	ck_assert_int_lt(connect(fd, &to->any, to->length), 0);
	ck_assert_msg(errno == EINPROGRESS || errno == ECONNREFUSED, "connect: %s", strerror(errno));
	return fd;
}

/* Asserts that the SYN was dropped or refused. */
static inline void net_assert_not_connected(int fd)
{
	struct socket_address peer = {.length = sizeof peer.v6};
	net_is_ready(fd, POLLOUT, NET_QUIET_MS);
	ck_assert_msg(getpeername(fd, &peer.any, &peer.length) < 0, "a new connection was let in");
}

static inline void net_set(int fd, int level, int option, int value)
{
	ck_assert_int_eq(setsockopt(fd, level, option, &value, sizeof value), 0);
}

static inline int net_get(int fd, int level, int option)
{
	int value = 0;
	socklen_t length = sizeof value;
	ck_assert_int_eq(getsockopt(fd, level, option, &value, &length), 0);
	return value;
}

static inline void net_send(int fd, const void *bytes, size_t length)
{
	ssize_t sent = send(fd, bytes, length, MSG_NOSIGNAL);
	ck_assert_int_eq(sent, (ssize_t)length);
}

/* Receives LENGTH bytes, in any number of pieces. */
static inline void net_receive(int fd, void *bytes, size_t length)
{
	for (size_t have = 0; have < length;) {
		net_wait(fd, POLLIN);
		ssize_t got = recv(fd, (char *)bytes + have, length - have, 0);
		ck_assert_msg(got > 0, "%zu of %zu bytes came, then %s", have, length,
			      got == 0 ? "the end" : strerror(errno));
		have += (size_t)got;
	}
}

/* Receives until FIN; a reset fails the test. Returns the count of bytes, at most SIZE. */
static inline size_t net_receive_all(int fd, void *bytes, size_t size)
{
	for (size_t have = 0;;) {
		net_wait(fd, POLLIN);
		ssize_t got = recv(fd, (char *)bytes + have, size - have, 0);
		ck_assert_msg(got >= 0, "after %zu bytes: %s", have, strerror(errno));
		if (got == 0)
			return have;
		have += (size_t)got;
		ck_assert_msg(have < size, "more than %zu bytes came", size);
	}
}

static inline void net_assert_end(int fd)
{
	char byte;
	net_wait(fd, POLLIN);
	ssize_t got = recv(fd, &byte, 1, 0);
	ck_assert_msg(got == 0, "no orderly end: %s", got > 0 ? "a byte" : strerror(errno));
}

/* Discards input. Returns the result of the last recv: 0 at a FIN, -1 with errno. */
static inline ssize_t net_receive_rest(int fd)
{
	char bytes[64 * 1024];
	ssize_t got;
	do {
		net_wait(fd, POLLIN);
		got = recv(fd, bytes, sizeof bytes, 0);
	} while (got > 0);
	return got;
}

static inline void net_assert_reset(int fd)
{
	ck_assert_msg(net_receive_rest(fd) < 0, "an orderly end instead of a reset");
	ck_assert_int_eq(errno, ECONNRESET);
}

/* Asserts that FD is served by echo: sends and receives a byte. */
static inline void net_assert_echo(int fd)
{
	char byte = 'e';
	net_send(fd, &byte, 1);
	byte = 0;
	net_receive(fd, &byte, 1);
	ck_assert_int_eq(byte, 'e');
}

/* Returns byte AT of stream NUMBER. Streams differ, and a lost or repeated byte shifts the rest. */
static inline char net_byte(unsigned number, uint64_t at)
{
	return (char)(number * 37 + at * 7 + (at >> 8) * 13 + (at >> 16));
}

static inline void net_fill(char *bytes, size_t length, unsigned number, uint64_t from)
{
	for (size_t i = 0; i < length; i++)
		bytes[i] = net_byte(number, from + i);
}

/* Compares all bytes with one assertion: each costs a system call. */
static inline void net_assert_bytes(const char *bytes, size_t length, unsigned number, uint64_t from)
{
	size_t right = 0;
	while (right < length && bytes[right] == net_byte(number, from + right))
		right++;
	ck_assert_msg(right == length, "byte %llu of stream %u is wrong", (unsigned long long)(from + right), number);
}

/* --- a configuration and the workers that serve it --- */

struct host {
	struct config *config;
	struct limit_gate gate;
	struct instance_store *store;
	struct generation *generation;
	struct worker *workers[HOST_WORKERS_MAX];
	unsigned worker_count;
	struct event_base *base; /* the main thread's */
	struct task_queue *task_queue;
};

static inline struct config *host_read(const char *ini)
{
	struct diagnostics report = {0};
	struct config *config = config_load_memory("test.conf", ini, strlen(ini), &report);
	ck_assert_msg(config != NULL, "%s", report.count > 0 ? report.messages[0].text : "out of memory");
	diagnostics_free(&report);
	return config;
}

/* Has a precise clock, which runs while a test stops the clock of the workers. */
static inline struct event_base *host_base_new(void)
{
	struct event_config *config = event_config_new();
	event_config_set_flag(config, EVENT_BASE_FLAG_PRECISE_TIMER);
	struct event_base *base = event_base_new_with_config(config);
	event_config_free(config);
	return base;
}

/* Frees a generation without references. */
static inline void host_on_over(void *generation)
{
	generation_free(generation);
}

/* Prepares WORKERS, which do not run yet, with MAXIMUM connections over all services. */
static inline void host_init(struct host *host, const char *ini, unsigned workers, int64_t maximum)
{
	*host = (struct host){.config = host_read(ini), .worker_count = workers};
	limit_gate_init(&host->gate, maximum);
	for (unsigned i = 0; i < workers; i++)
		ck_assert_ptr_nonnull(host->workers[i] = worker_new(i));
	host->base = host_base_new();
	host->task_queue = task_queue_new(host->base);
	ck_assert_ptr_nonnull(host->task_queue);
	struct diagnostics diagnostics = {0};
	host->store = instance_store_new(&host->gate, workers, host->task_queue, host_on_over);
	ck_assert_ptr_nonnull(host->store);
	host->generation = generation_new(host->config, host->store, maximum, &diagnostics);
	ck_assert_ptr_nonnull(host->generation);
}

static inline void host_start(struct host *host)
{
	for (unsigned i = 0; i < host->worker_count; i++)
		ck_assert_int_eq(worker_start(host->workers[i]), 0);
}

static inline void host_stop(struct host *host)
{
	for (unsigned i = 0; i < host->worker_count; i++)
		worker_stop(host->workers[i]);
}

static inline void host_free(struct host *host)
{
	for (unsigned i = 0; i < host->worker_count; i++)
		worker_free(host->workers[i]);
	generation_free(host->generation);
	instance_store_free(host->store);
	task_queue_free(host->task_queue);
	event_base_free(host->base);
	config_unref(host->config);
}

/* Runs the main thread's tasks for MS. */
static inline void host_run_tasks(struct host *host, int ms)
{
	const struct timeval limit = {.tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000};
	event_base_loopexit(host->base, &limit);
	event_base_loop(host->base, EVLOOP_ONCE);
}

static inline void host_count(void *argument)
{
	(*(unsigned *)argument)++;
}

/* Runs the main thread's tasks until COUNT of them have run. */
static inline void host_await(struct host *host, const unsigned *came, unsigned count)
{
	for (int left = NET_TIMEOUT_MS / 100; *came < count; left--) {
		ck_assert_msg(left > 0, "%u of %u came", *came, count);
		host_run_tasks(host, 100);
	}
}

struct host_turn {
	struct task task;
	struct worker *worker;
	sem_t over;
};

static inline void host_on_turn_over(evutil_socket_t fd, short what, void *argument)
{
	(void)fd, (void)what;
	sem_post(argument);
}

static inline void host_on_turn(void *argument)
{
	const struct timeval at_once = {0};
	struct host_turn *turn = argument;
	event_base_once(worker_base(turn->worker), -1, EV_TIMEOUT, host_on_turn_over, &turn->over, &at_once);
}

/* Waits until each worker has run its posted tasks and updated its clock. */
static inline void host_settle(struct host *host)
{
	for (unsigned i = 0; i < host->worker_count; i++) {
		struct host_turn turn = {.worker = host->workers[i]};
		turn.task = (struct task){.run = host_on_turn, .argument = &turn};
		sem_init(&turn.over, 0, 0);
		worker_post(turn.worker, &turn.task);
		while (sem_wait(&turn.over) < 0)
			;
		sem_destroy(&turn.over);
	}
}

static inline struct instance *host_instance(const struct host *host, unsigned service)
{
	return &host->generation->instances[service];
}

static inline uint64_t host_sum(const struct host *host, unsigned service, unsigned transport, enum metric metric)
{
	const struct instance *instance = host_instance(host, service);
	struct metrics_sums sums;
	metrics_sum(transport == TRANSPORT_TCP ? instance->tcp : instance->udp, host->worker_count, &sums);
	return sums.values[metric];
}

/* Waits until METRIC of the first service is VALUE. */
static inline void host_await_sum(const struct host *host, unsigned transport, enum metric metric, uint64_t value)
{
	for (int left = NET_TIMEOUT_MS; host_sum(host, 0, transport, metric) != value;)
		net_rest(&left);
}

#endif
