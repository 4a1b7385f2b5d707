/* thread.c: one thread of a load: connections, schedule, event loop and statistics. */
#include "probe/load/thread.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include "probe/run.h"

enum {
	EVENTS_AT_ONCE = 256,
	OPENING_MAX = 64, /* pending connections, so that no listen queue overflows */
	SWEEPS_A_TIMEOUT = 4,
	NOTICES_MAX = 10,
};

/* In ns: the finest tick of the schedule. Each tick sends all requests that are due; latency counts from then. */
#define TICK_MIN  UINT64_C(50000)
#define SWEEP_MIN UINT64_C(1000000)
#define SWEEP_MAX UINT64_C(100000000)

void load_notice(struct load *load, const char *format, ...)
{
	va_list arguments;

	if (load->options->quiet)
		return;
	pthread_mutex_lock(&load->lock);
	load->notices++;
	if (load->notices <= NOTICES_MAX) {
		/* overwrites the progress conn, which is drawn again */
		fputs(load->options->progress ? "\r\033[Ksmallprobe: " : "smallprobe: ", stderr);
		va_start(arguments, format);
		vfprintf(stderr, format, arguments);
		va_end(arguments);
		fputc('\n', stderr);
	}
	if (load->notices == NOTICES_MAX)
		fputs("smallprobe: further messages of this kind are only counted\n", stderr);
	pthread_mutex_unlock(&load->lock);
}

void load_stats_add(struct load_stats *stats, const struct load_stats *other)
{
	series_counts_add(&stats->counts, &other->counts);
	rtt_merge(&stats->rtt, &other->rtt);
	stats->sent_bytes += other->sent_bytes;
	stats->received_bytes += other->received_bytes;
	stats->behind += other->behind;
	stats->stalls += other->stalls;
	stats->broken += other->broken;
	stats->refused += other->refused;
	stats->elapsed_ns = other->elapsed_ns > stats->elapsed_ns ? other->elapsed_ns : stats->elapsed_ns;
}

static struct load_conn *conn_at(const struct load_thread *thread, unsigned index)
{
	return (struct load_conn *)(void *)(thread->conns + index * thread->load->transport->conn_size);
}

static bool fail(struct load_thread *thread, const char *what)
{
	snprintf(thread->error, sizeof thread->error, "%s: %s", what, strerror(errno));
	return false;
}

/* --- connections --- */

void load_conn_busy(struct load_conn *conn, int64_t count)
{
	struct load_thread *thread = conn->owner;

	if (conn->in_flight == 0)
		conn->heard_ns = thread->now_ns;
	conn->in_flight = (unsigned)(conn->in_flight + count);
	thread->in_flight += (uint64_t)count;
}

void load_thread_replied(struct load_thread *thread, uint64_t due_ns)
{
	rtt_add(&thread->stats.rtt, thread->now_ns > due_ns ? thread->now_ns - due_ns : 0);
	thread->replied_ns = thread->now_ns;
}

bool load_conn_watch(struct load_conn *conn, bool output)
{
	struct epoll_event event = {.events = EPOLLIN | (output ? EPOLLOUT : 0), .data.ptr = conn};

	if (conn->watches_output == output)
		return true;
	conn->watches_output = output;
	return epoll_ctl(conn->owner->poller, EPOLL_CTL_MOD, conn->fd, &event) == 0 ||
	       fail(conn->owner, "cannot watch a socket");
}

void load_conn_opened(struct load_conn *conn)
{
	conn->state = LOAD_CONN_OPEN;
	conn->owner->opening--;
	conn->owner->open++;
}

static void conn_close(struct load_conn *conn)
{
	struct load_thread *thread = conn->owner;

	if (conn->state == LOAD_CONN_CLOSED)
		return;
	thread->opening -= conn->state == LOAD_CONN_OPENING;
	thread->open -= conn->state == LOAD_CONN_OPEN;
	conn->state = LOAD_CONN_CLOSED;
	thread->load->transport->close(conn);
	close(conn->fd); /* also removes it from the poller */
}

static void conn_give_up(struct load_conn *conn)
{
	conn->owner->stats.counts.lost += conn->in_flight;
	conn->owner->stats.counts.in_flight -= conn->in_flight;
	load_conn_busy(conn, -(int64_t)conn->in_flight);
}

void load_conn_break(struct load_conn *conn, const char *reason)
{
	struct load_thread *thread = conn->owner;

	if (thread->begin_ns == 0) {
		if (thread->error[0] == '\0')
			snprintf(thread->error, sizeof thread->error, "connect to %s: %.400s", thread->load->peer,
				 reason);
		conn_close(conn);
		return;
	}
	load_notice(thread->load, "connection %u to %s: %s, %u requests in flight", conn->number, thread->load->peer,
		    reason, conn->in_flight);
	thread->stats.broken++;
	conn_give_up(conn);
	conn_close(conn);
}

static bool conn_open(struct load_thread *thread, unsigned index)
{
	struct load_conn *conn = conn_at(thread, index);
	struct epoll_event event = {.events = EPOLLIN, .data.ptr = conn};

	conn->owner = thread;
	conn->number = thread->first_number + index;
	conn->heard_ns = thread->now_ns;
	conn->state = LOAD_CONN_OPENING;
	thread->opening++;
	if (!thread->load->transport->open(conn)) {
		conn->state = LOAD_CONN_CLOSED;
		thread->opening--;
		return false;
	}
	conn->watches_output = conn->state == LOAD_CONN_OPENING;
	event.events |= conn->watches_output ? EPOLLOUT : 0;
	return epoll_ctl(thread->poller, EPOLL_CTL_ADD, conn->fd, &event) == 0 || fail(thread, "cannot watch a socket");
}

/* --- the schedule --- */

static uint64_t due_until(const struct load_thread *thread, uint64_t ns)
{
	double due = (double)(ns - thread->begin_ns) / thread->interval_ns + 1;
	return due < (double)thread->count ? (uint64_t)due : thread->count;
}

bool load_thread_next(struct load_thread *thread, uint64_t *due_ns)
{
	if (!thread->issuing || thread->issued == thread->count)
		return false;
	*due_ns = thread->now_ns;
	if (thread->interval_ns > 0) {
		*due_ns = thread->begin_ns + (uint64_t)((double)thread->issued * thread->interval_ns);
		if (*due_ns > thread->now_ns)
			return false;
	}
	thread->issued++;
	thread->stats.counts.sent++;
	thread->stats.counts.in_flight++;
	return true;
}

/* Distributes due requests over the connections in turn. */
static void issue_due(struct load_thread *thread)
{
	const struct load *load = thread->load;
	uint64_t due = due_until(thread, thread->now_ns) - thread->issued;

	if (due == 0 || thread->open == 0)
		return;
	uint64_t share = (due + thread->open - 1) / thread->open;
	uint64_t room = (uint64_t)thread->open * load->options->depth - thread->in_flight;
	for (unsigned turn = 0; turn < thread->conn_count && due > 0 && room > 0; turn++) {
		struct load_conn *conn = conn_at(thread, thread->next_conn);
		uint64_t issued = thread->issued;

		thread->next_conn = (thread->next_conn + 1) % thread->conn_count;
		if (conn->state != LOAD_CONN_OPEN || conn->in_flight >= load->options->depth)
			continue;
		load->transport->issue(conn, (unsigned)(share < due ? share : due));
		due -= thread->issued - issued;
		room -= thread->issued - issued;
	}
}

static void issue_to_all(struct load_thread *thread)
{
	for (unsigned i = 0; i < thread->conn_count; i++) {
		struct load_conn *conn = conn_at(thread, i);
		if (conn->state == LOAD_CONN_OPEN)
			thread->load->transport->issue(conn, thread->load->options->depth);
	}
}

static bool timer_start(struct load_thread *thread)
{
	double interval_ns = thread->interval_ns;
	uint64_t tick = interval_ns < (double)TICK_MIN ? TICK_MIN : interval_ns > 1e18 ? 0 : (uint64_t)interval_ns;
	struct timespec step = {.tv_sec = (time_t)(tick / 1000000000), .tv_nsec = (long)(tick % 1000000000)};
	struct itimerspec times = {.it_interval = step, .it_value = step};
	struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};

	thread->timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
	return (thread->timer >= 0 && epoll_ctl(thread->poller, EPOLL_CTL_ADD, thread->timer, &event) == 0 &&
		timerfd_settime(thread->timer, 0, &times, NULL) == 0) ||
	       fail(thread, "timer");
}

/* --- the loop --- */

/* Reads the timer. The clock says which requests are due. */
static void on_tick(struct load_thread *thread)
{
	uint64_t ticks;

	if (read(thread->timer, &ticks, sizeof ticks) < 0 && errno != EAGAIN && errno != EINTR)
		fail(thread, "timer");
}

/* Dispatches the events of the next WAIT_MS. */
static bool turn(struct load_thread *thread, int wait_ms)
{
	struct epoll_event events[EVENTS_AT_ONCE];
	int count = epoll_wait(thread->poller, events, EVENTS_AT_ONCE, wait_ms);

	if (count < 0 && errno != EINTR)
		return fail(thread, "epoll_wait");
	thread->now_ns = run_now();
	for (int i = 0; i < count; i++) {
		struct load_conn *conn = events[i].data.ptr;
		if (conn == NULL)
			on_tick(thread);
		else if (conn->state != LOAD_CONN_CLOSED)
			thread->load->transport->on_event(conn, events[i].events);
	}
	return thread->error[0] == '\0';
}

static void publish(struct load_thread *thread)
{
	pthread_mutex_lock(&thread->load->lock);
	thread->copy = thread->stats;
	pthread_mutex_unlock(&thread->load->lock);
}

static void sweep(struct load_thread *thread)
{
	for (unsigned i = 0; i < thread->conn_count; i++) {
		struct load_conn *conn = conn_at(thread, i);
		if (conn->state == LOAD_CONN_OPEN)
			thread->load->transport->sweep(conn);
	}
	publish(thread);
}

static bool open_conns(struct load_thread *thread)
{
	const struct load *load = thread->load;

	for (unsigned next = 0; thread->open < thread->conn_count;) {
		while (next < thread->conn_count && thread->opening < OPENING_MAX)
			if (!conn_open(thread, next++))
				return false;
		if (!turn(thread, (int)(SWEEP_MAX / 1000000)) || atomic_load(&load->failed))
			return false;
		if (atomic_load(&load->stop) != LOAD_GOES_ON && thread->open < thread->conn_count) {
			snprintf(thread->error, sizeof thread->error, "connect to %s: not done at the end", load->peer);
			return false;
		}
		for (unsigned i = 0; i < next && thread->opening > 0; i++) {
			struct load_conn *conn = conn_at(thread, i);
			if (conn->state == LOAD_CONN_OPENING && thread->now_ns - conn->heard_ns > load->timeout_ns)
				load_conn_break(conn, strerror(ETIMEDOUT));
		}
		if (thread->error[0] != '\0')
			return false;
	}
	return true;
}

/* Returns whether requests are still issued, or replies awaited. */
static bool goes_on(struct load_thread *thread)
{
	struct load *load = thread->load;
	int stop = atomic_load_explicit(&load->stop, memory_order_relaxed);

	if (thread->open == 0 || stop == LOAD_BREAKS_OFF) {
		thread->issuing = false;
		return false;
	}
	if (thread->issuing &&
	    (thread->now_ns >= thread->end_ns || stop != LOAD_GOES_ON || thread->issued == thread->count)) {
		if (thread->now_ns < thread->end_ns)
			thread->end_ns = thread->now_ns;
		thread->issuing = false;
	}
	return thread->issuing || (thread->in_flight > 0 && thread->now_ns - thread->end_ns < load->timeout_ns);
}

/* Returns how many requests were due within the time and never sent. */
static uint64_t behind(const struct load_thread *thread)
{
	if (thread->interval_ns == 0 || thread->end_ns == thread->begin_ns) /* stopped before the first */
		return 0;
	uint64_t due = due_until(thread, thread->end_ns - 1);
	return due > thread->issued ? due - thread->issued : 0;
}

static void measure(struct load_thread *thread)
{
	const struct load *load = thread->load;
	uint64_t sweep_ns = load->timeout_ns / SWEEPS_A_TIMEOUT, swept_ns;

	sweep_ns = sweep_ns < SWEEP_MIN ? SWEEP_MIN : sweep_ns > SWEEP_MAX ? SWEEP_MAX : sweep_ns;
	thread->now_ns = thread->begin_ns = thread->replied_ns = swept_ns = run_now();
	thread->end_ns = thread->begin_ns + load->duration_ns;
	thread->issuing = true;
	if (thread->interval_ns > 0 && !timer_start(thread))
		return;
	if (thread->interval_ns == 0)
		issue_to_all(thread);
	while (goes_on(thread)) {
		if (thread->interval_ns > 0)
			issue_due(thread);
		if (!turn(thread, (int)(sweep_ns / 1000000)))
			break;
		if (thread->now_ns - swept_ns < sweep_ns)
			continue;
		swept_ns = thread->now_ns;
		sweep(thread);
	}
	sweep(thread);
	if (thread->now_ns < thread->end_ns)
		thread->end_ns = thread->now_ns;
	thread->stats.behind = behind(thread);
	uint64_t over_ns = thread->replied_ns > thread->end_ns ? thread->replied_ns : thread->end_ns;
	thread->stats.elapsed_ns = over_ns - thread->begin_ns;
}

/* Waits until all connections of all threads are open, which starts the measurement. */
static void wait_for_all(struct load *load)
{
	pthread_mutex_lock(&load->lock);
	if (++load->opened >= load->expected)
		pthread_cond_broadcast(&load->all_opened);
	while (load->opened < load->expected)
		pthread_cond_wait(&load->all_opened, &load->lock);
	pthread_mutex_unlock(&load->lock);
}

void load_expect(struct load *load, unsigned count)
{
	pthread_mutex_lock(&load->lock);
	load->expected = count;
	pthread_cond_broadcast(&load->all_opened);
	pthread_mutex_unlock(&load->lock);
}

static void close_conns(struct load_thread *thread)
{
	for (unsigned i = 0; i < thread->conn_count; i++) {
		struct load_conn *conn = conn_at(thread, i);
		if (conn->state == LOAD_CONN_OPEN)
			conn_give_up(conn);
		conn_close(conn);
	}
}

void *load_thread_run(void *argument)
{
	struct load_thread *thread = argument;
	struct load *load = thread->load;
	const uint64_t one = 1;

	thread->now_ns = run_now();
	if (!open_conns(thread))
		atomic_store(&load->failed, true);
	wait_for_all(load);
	if (!atomic_load(&load->failed))
		measure(thread);
	close_conns(thread);
	publish(thread);
	while (write(load->done, &one, sizeof one) < 0 && errno == EINTR)
		;
	return NULL;
}

/* Returns the part of WHOLE of thread INDEX of COUNT. */
static uint64_t share_of(uint64_t whole, unsigned index, unsigned count)
{
	return whole / count + (index < whole % count);
}

bool load_thread_init(struct load_thread *thread, struct load *load, unsigned index)
{
	const struct options *options = load->options;

	*thread = (struct load_thread){.load = load, .timer = -1};
	thread->poller = epoll_create1(EPOLL_CLOEXEC);
	if (thread->poller < 0)
		return fail(thread, "epoll_create1");
	thread->conn_count = (unsigned)share_of(options->connections, index, options->threads);
	for (unsigned before = 0; before < index; before++)
		thread->first_number += (unsigned)share_of(options->connections, before, options->threads);
	thread->first_number++;
	thread->count = options->count_given ? share_of(options->count, index, options->threads) : UINT64_MAX;
	/* each thread has its share of the rate; the first requests are spread over one interval */
	thread->interval_ns = options->rate > 0 ? 1e9 * options->threads / options->rate : 0;
	thread->batch = options->batch < options->depth ? options->batch : options->depth;
	thread->conns = calloc(thread->conn_count, load->transport->conn_size);
	if (thread->conns == NULL)
		return fail(thread, "lines");
	return load->transport->prepare(thread);
}

void load_thread_destroy(struct load_thread *thread)
{
	if (thread->conns != NULL)
		thread->load->transport->release(thread);
	free(thread->conns);
	if (thread->timer >= 0)
		close(thread->timer);
	if (thread->poller >= 0)
		close(thread->poller);
}
