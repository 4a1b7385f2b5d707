/* udp.c: datagram sockets: answering batches, and the life cycle. */
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
	DRAIN_BATCHES = 4096, /* bounds a stop under a flood */
	RETRY_MS = 100,       /* until an event that failed for want of memory is added again */
};

#define BUFFERS_SIZE ((UDP_BATCH + 1) * (size_t)UDP_DATAGRAM_SIZE)

struct udp {
	unsigned count;
	struct udp_worker workers[];
};

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
	int received = udp_receive(socket);
	if (received <= 0) {
		if (errno != EAGAIN && errno != EINTR && log_allows(&socket->instance->failed_bound, clock_ms()))
			instance_log(socket->instance, LOG_WARNING, TRANSPORT_UDP, NULL, "cannot receive datagrams: %s",
				     strerror(errno));
		return 0;
	}
	struct service_context context = {
		.settings = socket->instance->settings,
		.memo = socket->memo,
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

	instance_hold(socket->instance, worker_index(socket->worker->thread));
	udp_receive_init(socket);
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
	unsigned index = worker_index(socket->worker->thread);
	socket->instance = instance;
	socket->memo = instance_memo(instance, index);
	socket->counters = &instance->udp[index];
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
