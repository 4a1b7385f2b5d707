/* udp.c: datagram sockets: the receive loop and the life cycle. */
#include "net/udp.h"

#include <errno.h>
#include <event2/event.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "core/clock.h"
#include "core/transport.h"
#include "net/udp_internal.h"

enum {
	SINGLES_BEFORE_SINGLE = 8, /* receives of one datagram until receiving goes one by one */
	PAUSE_FIRST = 8, /* single receives until a batch is tried again; doubled by each that finds one datagram */
	PAUSE_LONGEST = 64,
	DRAIN_BATCHES = 4096, /* bounds a stop under a flood */
	RETRY_MS = 100,       /* until an event that failed for want of memory is added again */
};

#define BUFFERS_SIZE ((UDP_BATCH + 1) * (size_t)UDP_DATAGRAM_SIZE)

struct udp {
	unsigned count;
	struct udp_worker workers[];
};

/* --- receiving --- */

static bool wants_control(const struct udp_socket *socket)
{
	return socket->wants_control || socket->gro_on;
}

static void prepare(struct udp_worker *worker, bool control, unsigned count)
{
	for (unsigned i = 0; i < count; i++) {
		struct msghdr *message = &worker->in[i].msg_hdr;
		message->msg_namelen = sizeof worker->names[i];
		message->msg_control = control ? worker->control_in[i].bytes : NULL;
		message->msg_controllen = control ? UDP_CONTROL_SIZE : 0;
		message->msg_flags = 0;
	}
}

/* Receives one message into the first buffer. Returns as recvmmsg. */
static int receive_one(struct udp_socket *socket)
{
	struct udp_worker *worker = socket->worker;
	struct msghdr *message = &worker->in[0].msg_hdr;
	ssize_t length;

	prepare(worker, wants_control(socket), 1);
	if (wants_control(socket))
		length = recvmsg(socket->fd, message, 0);
	else
		length = recvfrom(socket->fd, worker->buffers, UDP_DATAGRAM_SIZE, 0, message->msg_name,
				  &message->msg_namelen);
	worker->in[0].msg_len = (unsigned)length;
	return length < 0 ? -1 : 1;
}

/* Turns on UDP_GRO, once there is more than one datagram at a time: a single one is dearer with it. It is never turned
 * off again: the batches in the receive queue would become long datagrams. */
static void request_gro(struct udp_socket *socket)
{
	const int yes = 1;
	if (socket->gro_requested || socket->instance->service->amplifies || atomic_load(&socket->shared))
		return;
	socket->gro_requested = true;
	if (setsockopt(socket->fd, IPPROTO_UDP, UDP_GRO, &yes, sizeof yes) == 0)
		socket->gro_on = true;
}

/* Receives a batch, or a single message where recent batches had but one: recvmmsg is dearer for a single datagram.
 * Returns the count; -1 with errno. */
static int receive(struct udp_socket *socket)
{
	if (atomic_load_explicit(&socket->shared, memory_order_relaxed))
		socket->gro_on = true; /* the other process may have turned it on */
	if (!socket->batching && ++socket->paused < socket->pause)
		return receive_one(socket);
	prepare(socket->worker, wants_control(socket), UDP_BATCH);
	int count = recvmmsg(socket->fd, socket->worker->in, UDP_BATCH, 0, NULL);
	if (count > 1) {
		socket->batching = true;
		socket->singles = 0;
		socket->pause = PAUSE_FIRST;
		request_gro(socket);
	} else if (socket->batching) {
		socket->batching = ++socket->singles < SINGLES_BEFORE_SINGLE;
	} else if (socket->pause < PAUSE_LONGEST) {
		socket->pause *= 2;
	}
	socket->paused = 0;
	return count;
}

/* --- answering --- */

/* Turns a datagram of MESSAGE into its reply, in place. JOIN as for udp_add_reply. Returns whether there is a reply. */
static bool answer(struct udp_socket *socket, const struct udp_message *message, char *bytes, size_t length,
		   struct service_context *context, bool join)
{
	const struct service *service = socket->instance->service;
	struct udp_worker *worker = socket->worker;
	bool in_place = message->segment == message->length || !service->amplifies;

	enum metric reason = udp_judge(socket, message, length);
	if (reason != METRIC_COUNT) {
		udp_drop(socket, reason, 1);
		return false;
	}
	if (!in_place) /* a longer reply would overwrite the next datagram of the message */
		bytes = memcpy(worker->buffers + UDP_BATCH * (size_t)UDP_DATAGRAM_SIZE, bytes, length);
	context->random = worker_random(worker->thread);
	ssize_t reply = service->udp_reply(context, bytes, length, UDP_DATAGRAM_SIZE);
	if (reply < 0)
		return false;
	udp_add_reply(socket, message, bytes, (size_t)reply, join && in_place);
	if (!in_place)
		udp_send_replies(socket);
	return true;
}

/* Makes the IPv4-mapped source of a dual-stack socket an IPv4 address: the reply carries control messages of IPv4. */
static void unmap_source(struct udp_message *message)
{
	socket_address_unmap(&message->from);
	memcpy(message->request->msg_name, &message->from.any, message->from.length);
	message->request->msg_namelen = message->from.length;
}

/* Answers the datagrams of message I. Returns their count. */
static size_t answer_message(struct udp_socket *socket, unsigned i, struct service_context *context)
{
	struct udp_worker *worker = socket->worker;
	struct udp_message message;
	bool join = false;

	message.request = &worker->in[i].msg_hdr;
	message.bytes = worker->parts[i].iov_base;
	message.length = worker->in[i].msg_len;
	message.from = (struct socket_address){.v6 = worker->names[i], .length = message.request->msg_namelen};
	if (socket->dual_stack)
		unmap_source(&message);
	udp_examine(socket, &message);
	if (message.segment == message.length) {
		answer(socket, &message, message.bytes, message.length, context, false);
		return 1;
	}
	for (size_t at = 0; at < message.length; at += message.segment) {
		size_t left = message.length - at, length = left < message.segment ? left : message.segment;
		join |= answer(socket, &message, message.bytes + at, length, context, join);
	}
	return udp_count(message.length, message.segment);
}

/* Receives and answers a batch. Returns the count of messages. */
static int serve(struct udp_socket *socket)
{
	int received = receive(socket);
	if (received <= 0) {
		if (errno != EAGAIN && errno != EINTR && log_allows(&socket->instance->failed_bound, clock_ms()))
			instance_log(socket->instance, LOG_WARNING, TRANSPORT_UDP, NULL, "cannot receive datagrams: %s",
				     strerror(errno));
		return 0;
	}
	struct service_context context = {
		.settings = socket->instance->settings,
		.memo = instance_memo(socket->instance, worker_index(socket->worker->thread)),
	};
	clock_gettime(CLOCK_REALTIME, &context.now);
	size_t datagrams = 0, bytes = 0;
	for (int i = 0; i < received; i++) {
		datagrams += answer_message(socket, (unsigned)i, &context);
		bytes += socket->worker->in[i].msg_len;
	}
	metrics_add(socket->counters, METRIC_DATAGRAMS_RECEIVED, datagrams);
	metrics_add(socket->counters, METRIC_RECEIVED_BYTES, bytes);
	udp_send_replies(socket);
	return received;
}

/* --- events --- */

static void on_readable(evutil_socket_t fd, short what, void *argument)
{
	(void)fd, (void)what;
	serve(argument);
}

/* Waits for datagrams; without memory for the event, tries again later. */
static void wait_readable(struct udp_socket *socket)
{
	const struct timeval rest = clock_timeval(RETRY_MS);
	if (event_add(&socket->readable, NULL) == 0)
		return;
	int error = errno;
	event_add(&socket->retry, &rest);
	if (log_allows(&socket->instance->failed_bound, clock_ms()))
		instance_log(socket->instance, LOG_WARNING, TRANSPORT_UDP, NULL, "receiving pauses: %s",
			     strerror(error));
}

static void on_retry(evutil_socket_t fd, short what, void *argument)
{
	(void)fd, (void)what;
	wait_readable(argument);
}

static void finish_stop(struct udp_socket *socket);

static void on_writable(evutil_socket_t fd, short what, void *argument)
{
	struct udp_socket *socket = argument;

	(void)fd, (void)what;
	udp_send_unsent(socket);
	if (!STAILQ_EMPTY(&socket->unsent))
		return;
	event_del(&socket->writable);
	if (socket->stopping)
		finish_stop(socket);
	else
		wait_readable(socket);
}

/* --- starting and stopping --- */

static void start(void *argument)
{
	struct udp_socket *socket = argument;
	struct event_base *base = worker_base(socket->worker->thread);
	int on = 0;
	socklen_t length = sizeof on;

	instance_hold(socket->instance, worker_index(socket->worker->thread));
	if (getsockopt(socket->fd, IPPROTO_UDP, UDP_GRO, &on, &length) == 0 && on != 0)
		socket->gro_requested = socket->gro_on = true; /* turned on by the socket's owner before */
	event_assign(&socket->readable, base, socket->fd, EV_READ | EV_PERSIST, on_readable, socket);
	event_assign(&socket->writable, base, socket->fd, EV_WRITE | EV_PERSIST, on_writable, socket);
	evtimer_assign(&socket->retry, base, on_retry, socket);
	wait_readable(socket);
}

/* Answers the queued datagrams, until the receive queue is empty, the socket buffer is full, or DRAIN_BATCHES are
 * answered. */
static void drain(struct udp_socket *socket)
{
	for (int i = 0; i < DRAIN_BATCHES && STAILQ_EMPTY(&socket->unsent); i++)
		if (serve(socket) == 0)
			break;
}

static void stopped(struct udp_socket *socket)
{
	instance_release(socket->instance, worker_index(socket->worker->thread));
	task_queue_post(socket->main, socket->done);
}

static void finish_stop(struct udp_socket *socket)
{
	drain(socket);
	if (STAILQ_EMPTY(&socket->unsent) && !socket->keep_open && !socket->disconnected) {
		socket->disconnected = true;
		int error = socket_stop_datagrams(socket->fd);
		if (error != 0)
			instance_log(socket->instance, LOG_INFO, TRANSPORT_UDP, NULL,
				     "udp: cannot stop new datagrams before the socket is closed: %s",
				     strerror(-error));
		drain(socket); /* datagrams that arrived meanwhile */
	}
	if (!STAILQ_EMPTY(&socket->unsent))
		return; /* on_writable goes on */
	event_del(&socket->readable);
	stopped(socket);
}

static void use_instance(struct udp_socket *socket, struct instance *instance)
{
	socket->instance = instance;
	socket->counters = &instance->udp[worker_index(socket->worker->thread)];
	socket->wants_control = socket_address_is_wildcard(&socket->address) || instance->config->dscp == DSCP_COPY;
}

static void change(void *argument)
{
	struct udp_socket *socket = argument;
	unsigned index = worker_index(socket->worker->thread);
	instance_hold(socket->next_instance, index);
	instance_release(socket->instance, index);
	use_instance(socket, socket->next_instance);
}

static void stop(void *argument)
{
	struct udp_socket *socket = argument;
	socket->stopping = true;
	event_del(&socket->retry);
	if (STAILQ_EMPTY(&socket->unsent))
		finish_stop(socket);
}

/* Maps the datagram buffers and points the message headers there. Returns false when out of memory. */
static bool worker_init(struct udp_worker *worker, struct worker *thread)
{
	worker->thread = thread;
	worker->buffers =
		mmap(NULL, BUFFERS_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (worker->buffers == MAP_FAILED) {
		worker->buffers = NULL;
		return false;
	}
	for (unsigned i = 0; i < UDP_BATCH; i++) {
		worker->parts[i].iov_base = worker->buffers + i * (size_t)UDP_DATAGRAM_SIZE;
		worker->parts[i].iov_len = UDP_DATAGRAM_SIZE;
		worker->in[i].msg_hdr.msg_name = &worker->names[i];
		worker->in[i].msg_hdr.msg_iov = &worker->parts[i];
		worker->in[i].msg_hdr.msg_iovlen = 1;
	}
	return true;
}

struct udp *udp_new(struct worker *const *workers, unsigned count)
{
	struct udp *udp = calloc(1, sizeof *udp + count * sizeof *udp->workers);
	if (udp == NULL)
		return NULL;
	udp->count = count;
	for (unsigned i = 0; i < count; i++)
		if (!worker_init(&udp->workers[i], workers[i])) {
			udp_free(udp);
			return NULL;
		}
	return udp;
}

void udp_free(struct udp *udp)
{
	if (udp == NULL)
		return;
	for (unsigned i = 0; i < udp->count; i++)
		if (udp->workers[i].buffers != NULL)
			munmap(udp->workers[i].buffers, BUFFERS_SIZE);
	free(udp);
}

struct udp_socket *udp_socket_new(struct udp *udp, unsigned worker, int fd, const struct socket_address *address,
				  struct instance *instance)
{
	struct udp_socket *socket = calloc(1, sizeof *socket);
	if (socket == NULL)
		return NULL;
	socket->worker = &udp->workers[worker];
	socket->fd = fd;
	socket->address = *address;
	use_instance(socket, instance);
	STAILQ_INIT(&socket->unsent);
	socket->pause = PAUSE_FIRST;
	socket->start = (struct task){.run = start, .argument = socket};
	socket->stop = (struct task){.run = stop, .argument = socket};
	socket->change = (struct task){.run = change, .argument = socket};
	return socket;
}

void udp_socket_set_shared(struct udp_socket *socket, bool shared)
{
	atomic_store(&socket->shared, shared);
}

void udp_socket_keep_open(struct udp_socket *socket)
{
	socket->keep_open = true;
}

void udp_socket_set_dual_stack(struct udp_socket *socket)
{
	socket->dual_stack = true;
}

void udp_socket_set_foreign_netns(struct udp_socket *socket)
{
	socket->foreign_netns = true;
}

void udp_socket_change(struct udp_socket *socket, struct instance *instance)
{
	socket->next_instance = instance;
	worker_post(socket->worker->thread, &socket->change);
}

void udp_socket_start(struct udp_socket *socket)
{
	worker_post(socket->worker->thread, &socket->start);
}

void udp_socket_stop(struct udp_socket *socket, struct task_queue *main, struct task *done)
{
	socket->main = main;
	socket->done = done;
	worker_post(socket->worker->thread, &socket->stop);
}

void udp_socket_free(struct udp_socket *socket)
{
	if (socket == NULL)
		return;
	if (event_initialized(&socket->readable)) {
		event_del(&socket->readable);
		event_del(&socket->writable);
		event_del(&socket->retry);
	}
	while (!STAILQ_EMPTY(&socket->unsent))
		udp_forget_unsent(socket);
	free(socket);
}
