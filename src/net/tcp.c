/* tcp.c: TCP on all workers: listeners and accepting. */
#include "net/tcp.h"

#include <errno.h>
#include <event2/event.h>
#include <event2/event_struct.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <syslog.h>
#include <unistd.h>

#include "core/clock.h"
#include "core/transport.h"
#include "net/admission.h"
#include "net/listener.h"
#include "net/proxy_accept.h"
#include "net/socket.h"
#include "net/tcp_internal.h"
#include "thread/worker.h"

enum {
	SHARED_ROUNDS = 64, /* wake-ups of a stop, until a shared listener leaves its queue to the other process */
};

struct tcp {
	struct limit_gate *daemon_gate;
	atomic_bool draining;
	struct task_queue *main;
	struct task *idle;
	unsigned count;
	struct tcp_worker workers[];
};

struct tcp_listener {
	struct listener listener;
	LIST_ENTRY(tcp_listener) link; /* of its worker's listeners, while it serves */
	struct tcp_worker *worker;
	struct event event;
	bool paused, stopping, stopped;
	unsigned rounds_left;    /* of a stop with keep_open: the queue may never be empty */
	bool round_robin;        /* distributes connections over all workers */
	unsigned last_worker;    /* that got one */
	atomic_bool new_stopped; /* accepted sockets inherit the options of socket_stop_new */
};

/* An accepted connection on its way to another worker. It holds its slots. */
struct tcp_migration {
	struct tcp_migration *next;
	struct instance *instance;
	int fd;
	struct socket_address peer;
};

/* --- slots: a connection takes one of its service and one of the daemon --- */

static void leave_gate(struct tcp *tcp, struct limit_gate *gate)
{
	if (!limit_gate_leave(gate))
		return;
	for (unsigned i = 0; i < tcp->count; i++)
		worker_post(tcp->workers[i].worker, &tcp->workers[i].resume);
}

static bool enter(struct tcp *tcp, struct instance *instance)
{
	if (!limit_gate_enter(instance->gate))
		return false;
	if (limit_gate_enter(instance->daemon_gate))
		return true;
	leave_gate(tcp, instance->gate);
	return false;
}

void tcp_leave(struct tcp *tcp, struct instance *instance)
{
	leave_gate(tcp, instance->gate);
	leave_gate(tcp, instance->daemon_gate);
	if (atomic_load(&tcp->draining) && atomic_load(&tcp->daemon_gate->taken) == 0)
		task_queue_post(tcp->main, tcp->idle);
}

/* --- admission --- */

/* Closes an accepted socket that is not admitted; DETAIL may be NULL. */
static void reject(struct tcp_worker *worker, struct instance *instance, int fd, const struct socket_address *peer,
		   enum metric reason, const char *detail)
{
	close(fd);
	metrics_add(&instance->tcp[worker->index], reason, 1);
	tcp_leave(worker->tcp, instance);
	if (log_allows(&instance->refused_bound, clock_ms()))
		instance_log(instance, LOG_WARNING, TRANSPORT_TCP, peer, "refused: %s%s%s", metrics_rows[reason].reason,
			     detail != NULL ? ": " : "", detail != NULL ? detail : "");
}

/* Admits PEER and starts its connection on FD, which was accepted at ACCEPTED_MS, or rejects it. */
static void admit_client(struct tcp_worker *worker, struct instance *instance, int fd,
			 const struct socket_address *peer, uint64_t accepted_ms)
{
	struct in6_addr ip = socket_address_ip(peer);
	struct source_entry *source;
	enum metric reason = admission_of_connection(instance, &ip, &source);
	if (reason == METRIC_COUNT && connection_start(worker, instance, fd, peer, source, accepted_ms))
		return;
	admission_leave(instance, source);
	reject(worker, instance, fd, peer, reason == METRIC_COUNT ? METRIC_REFUSED_NO_MEMORY : reason, NULL);
}

/* --- the PROXY protocol --- */

/* Returns the client of HEADER, or PEER where the header has none. */
static struct socket_address client_of(const struct proxy_header *header, const struct socket_address *peer)
{
	return header->has_source ? socket_address_from_ip(&header->source, header->source_port, 0) : *peer;
}

/* The callback of proxy_accept. */
static void on_header(void *context, const struct proxy_socket *proxy, const struct proxy_header *header,
		      enum metric reason, const char *detail)
{
	struct tcp_worker *worker = context;
	struct instance *instance = proxy->owner;

	if (header != NULL) {
		struct socket_address client = client_of(header, &proxy->peer);
		admit_client(worker, instance, proxy->fd, &client, proxy->accepted_ms);
	} else {
		reject(worker, instance, proxy->fd, &proxy->peer, reason, detail);
	}
	instance_release(instance, worker->index);
}

/* Sets the DSCP of the client's SYN on FD. */
static void copy_dscp(int fd, const struct socket_address *peer)
{
	int dscp = socket_saved_dscp(fd);
	if (dscp >= 0)
		socket_set_dscp(fd, peer->any.sa_family, dscp);
}

/* Handles a socket accepted from PEER, a client or a proxy. */
static void on_peer(struct tcp_worker *worker, struct instance *instance, int fd, const struct socket_address *peer)
{
	struct proxy_socket proxy = {.fd = fd, .owner = instance, .peer = *peer, .accepted_ms = clock_ms()};
	uint64_t deadline_ms = proxy.accepted_ms + (uint64_t)instance->config->handshake_timeout_ms;
	struct in6_addr ip;

	if (instance->config->dscp == DSCP_COPY)
		copy_dscp(fd, peer);
	if (instance->proxy_acl == NULL) {
		admit_client(worker, instance, fd, peer, proxy.accepted_ms);
		return;
	}
	ip = socket_address_ip(peer);
	if (!acl_allows(instance->proxy_acl, &ip)) {
		reject(worker, instance, fd, peer, METRIC_REFUSED_PROXY_REFUSED, NULL);
		return;
	}
	instance_hold(instance, worker->index); /* until on_header */
	if (proxy_accept_wait(worker->proxy_accept, &proxy, deadline_ms))
		return;
	reject(worker, instance, fd, peer, METRIC_REFUSED_NO_MEMORY, NULL);
	instance_release(instance, worker->index);
}

/* --- a listener, on its worker --- */

static void finish_stop(struct tcp_listener *listener)
{
	if (listener->stopped)
		return;
	listener->stopped = true;
	event_del(&listener->event);
	LIST_REMOVE(listener, link);
	listener_stopped(&listener->listener);
}

static void pause_full(struct tcp_listener *listener)
{
	struct instance *instance = listener->listener.instance;
	listener->paused = true;
	event_del(&listener->event);
	if (listener->stopping) {
		if (listener->listener.keep_open)
			finish_stop(listener); /* the main thread may free it from here on */
		return;
	}
	if (!log_allows(&instance->full_bound, clock_ms()))
		return;
	bool own = limit_gate_left(instance->gate) <= 0;
	int64_t maximum = own ? instance->gate->maximum : instance->daemon_gate->maximum;
	instance_log(instance, LOG_WARNING, TRANSPORT_TCP, NULL,
		     "accepting pauses: max_connections = %lld of the %s is reached", (long long)maximum,
		     own ? "service" : "daemon");
}

/* Pauses after a lack of descriptors or memory: libevent would spin on connections that cannot be accepted. */
static void pause_failed(struct tcp_listener *listener)
{
	const struct timeval rest = clock_timeval(TCP_RETRY_MS);
	int error = errno;
	listener->paused = true;
	event_del(&listener->event);
	event_add(listener->worker->retry, &rest);
	if (log_allows(&listener->listener.instance->failed_bound, clock_ms()))
		instance_log(listener->listener.instance, LOG_WARNING, TRANSPORT_TCP, NULL, "accepting pauses: %s",
			     strerror(error));
}

static void watch(struct tcp_listener *listener)
{
	if (event_add(&listener->event, NULL) < 0)
		pause_failed(listener);
}

/* Returns whether accept failed for one connection only (accept(2): network errors of the new socket are passed on). */
static bool is_connection_error(int error)
{
	return error == ECONNABORTED || error == EINTR || error == EPROTO || error == ENETDOWN ||
	       error == ENOPROTOOPT || error == EHOSTDOWN || error == ENONET || error == EHOSTUNREACH ||
	       error == EOPNOTSUPP || error == ENETUNREACH || error == EPERM;
}

/* Passes an accepted connection to another worker. Returns false when out of memory. */
static bool migrate(struct tcp_worker *to, struct instance *instance, int fd, const struct socket_address *peer)
{
	struct tcp_migration *migration = malloc(sizeof *migration);
	if (migration == NULL)
		return false;
	*migration = (struct tcp_migration){.instance = instance, .fd = fd, .peer = *peer};
	instance_send(instance);
	migration->next = atomic_load(&to->migrating);
	while (!atomic_compare_exchange_weak(&to->migrating, &migration->next, migration))
		;
	worker_post(to->worker, &to->adopt);
	return true;
}

static void adopt(void *argument)
{
	struct tcp_worker *worker = argument;
	struct tcp_migration *migration = atomic_exchange(&worker->migrating, NULL);
	while (migration != NULL) {
		struct tcp_migration *next = migration->next;
		instance_receive(migration->instance, worker->index);
		on_peer(worker, migration->instance, migration->fd, &migration->peer);
		instance_release(migration->instance, worker->index);
		free(migration);
		migration = next;
	}
}

/* Starts an accepted connection on this worker or, round-robin, on the next. */
static void dispatch(struct tcp_listener *listener, int fd, struct socket_address *peer)
{
	struct tcp_worker *worker = listener->worker;
	struct tcp *tcp = worker->tcp;

	if (atomic_load_explicit(&listener->new_stopped, memory_order_relaxed))
		socket_restore_accepted(fd);
	socket_address_unmap(peer);
	if (listener->round_robin) {
		listener->last_worker = (listener->last_worker + 1) % tcp->count;
		struct tcp_worker *other = &tcp->workers[listener->last_worker];
		if (other != worker && migrate(other, listener->listener.instance, fd, peer))
			return;
	}
	on_peer(worker, listener->listener.instance, fd, peer);
}

/* Accepts one connection. Returns false if there is none, or the listener pauses. */
static bool accept_one(struct tcp_listener *listener)
{
	struct tcp *tcp = listener->worker->tcp;
	struct socket_address peer = {.length = sizeof peer.v6};

	if (!enter(tcp, listener->listener.instance)) {
		pause_full(listener);
		return false;
	}
	int accepted = accept4(listener->listener.fd, &peer.any, &peer.length, SOCK_NONBLOCK | SOCK_CLOEXEC);
	if (accepted >= 0) {
		dispatch(listener, accepted, &peer);
		return true;
	}
	int error = errno;
	tcp_leave(tcp, listener->listener.instance);
	if (is_connection_error(error))
		return true;
	errno = error;
	if (error != EAGAIN)
		pause_failed(listener);
	else if (listener->stopping)
		finish_stop(listener);
	return false;
}

static void on_acceptable(evutil_socket_t fd, short events, void *argument)
{
	struct tcp_listener *listener = argument;

	(void)fd, (void)events;
	for (int i = 0; i < TCP_ACCEPTS_A_WAKEUP; i++)
		if (!accept_one(listener))
			return;
	if (listener->stopping && listener->listener.keep_open && --listener->rounds_left == 0)
		finish_stop(listener);
	else if (listener->stopping) /* the queue may be empty, and cause no event */
		event_active(&listener->event, EV_READ, 0);
}

static void unpause(struct tcp_listener *listener)
{
	if (!listener->paused)
		return;
	listener->paused = false;
	watch(listener);
	if (listener->stopping)
		event_active(&listener->event, EV_READ, 0);
}

static void resume(void *argument)
{
	struct tcp_worker *worker = argument;
	struct tcp_listener *listener;
	LIST_FOREACH(listener, &worker->listeners, link)
		unpause(listener);
}

static void on_retry(evutil_socket_t fd, short events, void *argument)
{
	(void)fd, (void)events;
	resume(argument);
}

/* --- the operations of a listener --- */

static struct tcp_listener *tcp_listener_of(struct listener *listener)
{
	return (struct tcp_listener *)(void *)listener; /* its first member */
}

static void start(struct listener *base)
{
	struct tcp_listener *listener = tcp_listener_of(base);
	struct tcp_worker *worker = listener->worker;
	LIST_INSERT_HEAD(&worker->listeners, listener, link);
	event_assign(&listener->event, worker_base(base->worker), base->fd, EV_READ | EV_PERSIST, on_acceptable,
		     listener);
	watch(listener);
}

static void change(struct listener *base)
{
	unpause(tcp_listener_of(base)); /* limits may have changed */
}

static void stop(struct listener *base)
{
	struct tcp_listener *listener = tcp_listener_of(base);
	listener->stopping = true;
	listener->rounds_left = SHARED_ROUNDS;
	if (listener->paused && base->keep_open)
		finish_stop(listener); /* the queue is left to the other process, as there is no slot here */
	else if (!listener->paused)
		on_acceptable(base->fd, EV_READ, listener);
}

static int stop_new(struct listener *base)
{
	atomic_store(&tcp_listener_of(base)->new_stopped, true);
	return socket_stop_new(base->fd);
}

static void listener_destroy(struct listener *base)
{
	struct tcp_listener *listener = tcp_listener_of(base);
	if (event_initialized(&listener->event))
		event_del(&listener->event);
	free(listener);
}

static const struct listener_ops ops = {
	.start = start,
	.change = change,
	.stop = stop,
	.stop_new = stop_new,
	.free = listener_destroy,
};

struct listener *tcp_listener_new(struct tcp *tcp, unsigned worker, int fd, struct instance *instance, bool round_robin)
{
	struct tcp_listener *listener = calloc(1, sizeof *listener);
	if (listener == NULL)
		return NULL;
	listener_init(&listener->listener, &ops, tcp->workers[worker].worker, fd, instance);
	listener->worker = &tcp->workers[worker];
	listener->round_robin = round_robin;
	listener->last_worker = worker;
	return &listener->listener;
}

/* --- a worker --- */

static bool is_of_removed(const struct proxy_socket *proxy)
{
	return connection_instance_expired(proxy->owner);
}

static void end_removed(void *argument)
{
	struct tcp_worker *worker = argument;
	proxy_accept_stop(worker->proxy_accept, is_of_removed);
	timer_wheel_each(worker->wheel, connection_close_if_removed);
}

static void on_thread_end(void *argument)
{
	struct tcp_worker *worker = argument;
	proxy_accept_stop(worker->proxy_accept, NULL);
	timer_wheel_each(worker->wheel, connection_close_now);
}

static void end_all(void *argument)
{
	struct tcp_worker *worker = argument;
	for (struct tcp_listener *listener = LIST_FIRST(&worker->listeners), *next; listener != NULL; listener = next) {
		next = LIST_NEXT(listener, link);
		if (listener->stopping)
			finish_stop(listener);
	}
	on_thread_end(worker);
}

static bool worker_init(struct tcp_worker *worker, struct tcp *tcp, struct worker *thread)
{
	worker->tcp = tcp;
	worker->worker = thread;
	worker->index = worker_index(thread);
	LIST_INIT(&worker->listeners);
	worker->resume = (struct task){.run = resume, .argument = worker};
	worker->end_all = (struct task){.run = end_all, .argument = worker};
	worker->end_removed = (struct task){.run = end_removed, .argument = worker};
	worker->adopt = (struct task){.run = adopt, .argument = worker};
	worker->thread_end = (struct task){.run = on_thread_end, .argument = worker};
	worker_at_end(thread, &worker->thread_end);
	worker->wheel = timer_wheel_new(worker_base(thread), connection_on_deadline);
	worker->proxy_accept = proxy_accept_new(worker_base(thread), on_header, worker);
	worker->scratch = malloc(TCP_SCRATCH_SIZE);
	worker->retry = evtimer_new(worker_base(thread), on_retry, worker);
	return worker->wheel != NULL && worker->proxy_accept != NULL && worker->scratch != NULL &&
	       worker->retry != NULL;
}

/* --- the main thread --- */

struct tcp *tcp_new(struct worker *const *workers, unsigned count, struct limit_gate *daemon_gate)
{
	struct tcp *tcp = calloc(1, sizeof *tcp + count * sizeof *tcp->workers);
	if (tcp == NULL)
		return NULL;
	tcp->daemon_gate = daemon_gate;
	tcp->count = count;
	for (unsigned i = 0; i < count; i++)
		if (!worker_init(&tcp->workers[i], tcp, workers[i])) {
			tcp_free(tcp);
			return NULL;
		}
	return tcp;
}

/* Closes connections that did not reach their worker. */
static void drop_migrating(struct tcp_worker *worker)
{
	struct tcp_migration *migration = atomic_exchange(&worker->migrating, NULL);
	while (migration != NULL) {
		struct tcp_migration *next = migration->next;
		close(migration->fd);
		tcp_leave(worker->tcp, migration->instance);
		instance_give_up(migration->instance);
		free(migration);
		migration = next;
	}
}

void tcp_free(struct tcp *tcp)
{
	if (tcp == NULL)
		return;
	for (unsigned i = 0; i < tcp->count; i++) {
		struct tcp_worker *worker = &tcp->workers[i];
		drop_migrating(worker);
		proxy_accept_free(worker->proxy_accept);
		timer_wheel_free(worker->wheel);
		free(worker->scratch);
		if (worker->retry != NULL)
			event_free(worker->retry);
	}
	free(tcp);
}

void tcp_drain(struct tcp *tcp, struct task_queue *main, struct task *idle)
{
	tcp->main = main;
	tcp->idle = idle;
	atomic_store(&tcp->draining, true);
	if (atomic_load(&tcp->daemon_gate->taken) == 0)
		task_queue_post(main, idle);
}

void tcp_end_removed(struct tcp *tcp)
{
	for (unsigned i = 0; i < tcp->count; i++)
		worker_post(tcp->workers[i].worker, &tcp->workers[i].end_removed);
}

void tcp_end_all(struct tcp *tcp)
{
	for (unsigned i = 0; i < tcp->count; i++)
		worker_post(tcp->workers[i].worker, &tcp->workers[i].end_all);
}
