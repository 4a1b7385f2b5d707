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
	const struct service *service = socket->listener.instance->service;
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
		if (errno != EAGAIN && errno != EINTR &&
		    log_allows(&socket->listener.instance->failed_bound, clock_ms()))
			instance_log(socket->listener.instance, LOG_WARNING, TRANSPORT_UDP, NULL,
				     "cannot receive datagrams: %s", strerror(errno));
		return 0;
	}
	struct service_context context = {
		.settings = socket->listener.instance->settings,
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
	if (log_allows(&socket->listener.instance->failed_bound, clock_ms()))
		instance_log(socket->listener.instance, LOG_WARNING, TRANSPORT_UDP, NULL, "receiving pauses: %s",
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

static struct udp_socket *udp_socket_of(struct listener *listener)
{
	return (struct udp_socket *)(void *)listener; /* its first member */
}

static void start(struct listener *base)
{
	struct udp_socket *socket = udp_socket_of(base);
	struct event_base *events = worker_base(socket->worker->thread);

	udp_receive_init(socket);
	event_assign(&socket->readable, events, socket->listener.fd, EV_READ | EV_PERSIST, on_readable, socket);
	event_assign(&socket->writable, events, socket->listener.fd, EV_WRITE | EV_PERSIST, on_writable, socket);
	evtimer_assign(&socket->retry, events, on_retry, socket);
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

static void finish_stop(struct udp_socket *socket)
{
	drain(socket);
	if (STAILQ_EMPTY(&socket->unsent) && !socket->listener.keep_open && !socket->disconnected) {
		socket->disconnected = true;
		int error = socket_stop_datagrams(socket->listener.fd);
		if (error != 0)
			instance_log(socket->listener.instance, LOG_INFO, TRANSPORT_UDP, NULL,
				     "udp: cannot stop new datagrams before the socket is closed: %s",
				     strerror(-error));
		drain(socket); /* datagrams that arrived meanwhile */
	}
	if (!STAILQ_EMPTY(&socket->unsent))
		return; /* on_writable goes on */
	event_del(&socket->readable);
	listener_stopped(&socket->listener);
}

static void use_instance(struct udp_socket *socket)
{
	const struct instance *instance = socket->listener.instance;
	unsigned index = worker_index(socket->worker->thread);
	socket->counters = &instance->udp[index];
	socket->memo = instance_memo(instance, index);
	socket->wants_control = socket_address_is_wildcard(&socket->address) || instance->config->dscp == DSCP_COPY;
}

static void change(struct listener *base)
{
	use_instance(udp_socket_of(base));
}

static void stop(struct listener *base)
{
	struct udp_socket *socket = udp_socket_of(base);
	socket->stopping = true;
	event_del(&socket->retry);
	if (STAILQ_EMPTY(&socket->unsent))
		finish_stop(socket);
}

static void set_shared(struct listener *base, bool shared)
{
	atomic_store(&udp_socket_of(base)->shared, shared);
}

static void socket_destroy(struct listener *base)
{
	struct udp_socket *socket = udp_socket_of(base);
	if (event_initialized(&socket->readable)) {
		event_del(&socket->readable);
		event_del(&socket->writable);
		event_del(&socket->retry);
	}
	while (!STAILQ_EMPTY(&socket->unsent))
		udp_forget_unsent(socket);
	free(socket);
}

static const struct listener_ops ops = {
	.start = start,
	.change = change,
	.stop = stop,
	.set_shared = set_shared,
	.free = socket_destroy,
};

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

struct listener *udp_socket_new(struct udp *udp, unsigned worker, int fd, const struct udp_socket_facts *facts,
				struct instance *instance)
{
	struct udp_socket *socket = calloc(1, sizeof *socket);
	if (socket == NULL)
		return NULL;
	listener_init(&socket->listener, &ops, udp->workers[worker].thread, fd, instance);
	socket->worker = &udp->workers[worker];
	socket->address = *facts->address;
	socket->dual_stack = facts->dual_stack;
	socket->foreign_netns = facts->foreign_netns;
	socket->shared = facts->shared;
	use_instance(socket);
	STAILQ_INIT(&socket->unsent);
	return &socket->listener;
}
