/* tcp.c: the life of a connection, from accept to close. */
#include "tcp.h"

#include <errno.h>
#include <event2/event.h>
#include <event2/event_struct.h>
#include <linux/sockios.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "log.h"
#include "slab.h"
#include "socket.h"
#include "wheel.h"

/* One worker's share. */
struct side {
	struct tcp *tcp;
	struct worker *worker;
	struct wheel *wheel;
	struct slab connections;
	char *scratch; /* TCP_SCRATCH_SIZE bytes, used by one callback at a time */
	size_t unsent; /* bytes that connections hold */
	struct tcp_listener *listeners;
	struct event *retry; /* out of descriptors or memory: accept again */
	_Atomic(struct dealt *) dealt;
	struct mail resume, end; /* a place is free; end everything */
	struct mail end_removed, take_dealt;
	struct mail at_end; /* of the thread */
};

struct tcp {
	struct limit_gate *daemon_gate;
	atomic_bool draining;
	struct mailbox *main;
	struct mail *idle;
	unsigned count;
	struct side sides[];
};

struct tcp_listener {
	struct tcp_listener *next, **link; /* of its side's listeners, while it serves */
	struct side *side;
	struct runtime *runtime;
	struct event event;
	int fd; /* main's; the event has the worker's */
	bool paused, stopping, stopped;
	bool shared;                  /* others accept from it too */
	unsigned rounds_left;         /* of a shared one that stops: its queue may never be empty */
	bool deals;                   /* to all workers in turn */
	unsigned dealt_to;            /* last */
	atomic_bool refuses;          /* what is accepted has inherited that new ones are refused */
	struct runtime *next_runtime; /* main's, until CHANGE has run */
	struct mail start, stop, change;
	struct mailbox *main;
	struct mail *done;
};

/* An accepted connection, which holds its places, on its way to another worker. */
struct dealt {
	struct dealt *next;
	struct runtime *runtime;
	int fd;
	struct socket_address peer;
};

/* What a short send left over, in a block of its own, since few connections ever need one. */
struct unsent {
	struct event event; /* the socket is writable */
	size_t from, to;    /* of bytes */
	char bytes[];
};

enum { SHARED_ROUNDS = 64 }; /* of TCP_ACCEPTS_A_WAKEUP, until a stop leaves the rest to the others */

enum {
	INPUT_ENDED = 1, /* the client has shut down its sending side */
	OUTPUT_DONE = 2, /* the service has said all: what is unsent is the rest */
	LINGERING = 4,   /* all is sent and shut down: waiting for the client's end */
};

/* The client's address in 22 bytes instead of a sockaddr's 28. */
struct peer {
	struct in6_addr ip; /* IPv4 mapped into ::ffff:0:0/96 */
	uint32_t scope;
	in_port_t port; /* in network order */
};

/* Ordered so that it has no holes: what an idle connection costs is mostly this. */
struct connection {
	struct event event; /* the socket is readable */
	struct wheel_entry deadline;
	struct side *side;
	struct runtime *runtime;
	struct limit_source *source; /* whose place it holds; NULL: sources are not counted */
	struct unsent *unsent;       /* NULL: nothing waits to be sent */
	uint64_t received, sent;
	uint64_t began_ms;
	union {
		uint64_t active_ms;   /* of the last exchange */
		uint64_t linger_left; /* LINGERING: bytes of input that are still thrown away */
	};
	struct peer peer;
	uint8_t flags;
	uint8_t reason; /* enum metric: why it is being closed, once it is */
};

/* The operations of a transport, as recv and send: bytes moved, 0 at the end of the stream, -1 with errno; EAGAIN asks
 * to be called again when the socket is ready. */
struct transport {
	int (*handshake)(struct connection *connection); /* 0: done, the service may speak; -1 with errno */
	ssize_t (*read)(struct connection *connection, char *bytes, size_t size);
	/* LAST: shutdown follows at once, so what is short enough may leave together with the end */
	ssize_t (*write)(struct connection *connection, const char *bytes, size_t length, bool last);
	int (*shutdown)(struct connection *connection); /* of the sending side; 0, or -1 with errno */
};

static struct peer peer_of(const struct socket_address *address)
{
	struct peer peer = {.ip = socket_address_ip(address), .port = htons(socket_address_port(address))};
	if (address->any.sa_family == AF_INET6)
		peer.scope = address->v6.sin6_scope_id;
	return peer;
}

static struct socket_address peer_address(const struct peer *peer)
{
	struct socket_address address = {0};
	if (IN6_IS_ADDR_V4MAPPED(&peer->ip)) {
		socket_address_set(&address, AF_INET, &peer->ip.s6_addr[12], "", ntohs(peer->port));
		return address;
	}
	socket_address_set(&address, AF_INET6, &peer->ip, "", ntohs(peer->port));
	address.v6.sin6_scope_id = peer->scope;
	return address;
}

static int connection_fd(const struct connection *connection)
{
	return event_get_fd(&connection->event);
}

static int plain_handshake(struct connection *connection)
{
	(void)connection;
	return 0;
}

static ssize_t plain_read(struct connection *connection, char *bytes, size_t size)
{
	return recv(connection_fd(connection), bytes, size, 0);
}

static ssize_t plain_write(struct connection *connection, const char *bytes, size_t length, bool last)
{
	return send(connection_fd(connection), bytes, length, MSG_NOSIGNAL | (last ? MSG_MORE : 0));
}

static int plain_shutdown(struct connection *connection)
{
	return shutdown(connection_fd(connection), SHUT_WR);
}

static const struct transport plain = {
	.handshake = plain_handshake,
	.read = plain_read,
	.write = plain_write,
	.shutdown = plain_shutdown,
};

/* TLS will be another; what asks here need not know. */
static const struct transport *transport_of(const struct connection *connection)
{
	(void)connection;
	return &plain;
}

static struct metrics_block *counters(const struct connection *connection)
{
	return &connection->runtime->tcp[worker_index(connection->side->worker)];
}

/* --- places: a connection holds one of its service and one of the daemon --- */

static void leave_gate(struct tcp *tcp, struct limit_gate *gate)
{
	if (!limit_gate_leave(gate))
		return;
	for (unsigned i = 0; i < tcp->count; i++)
		worker_post(tcp->sides[i].worker, &tcp->sides[i].resume);
}

static bool enter(struct tcp *tcp, struct runtime *runtime)
{
	if (!limit_gate_enter(runtime->gate))
		return false;
	if (limit_gate_enter(runtime->daemon_gate))
		return true;
	leave_gate(tcp, runtime->gate);
	return false;
}

static void leave(struct tcp *tcp, struct runtime *runtime)
{
	leave_gate(tcp, runtime->gate);
	leave_gate(tcp, runtime->daemon_gate);
	if (atomic_load(&tcp->draining) && atomic_load(&tcp->daemon_gate->taken) == 0)
		mailbox_post(tcp->main, tcp->idle);
}

/* --- the end of a connection --- */

static void log_connection(const struct connection *connection)
{
	const struct config_service *service = connection->runtime->config;
	struct socket_address peer = peer_address(&connection->peer);
	char source[SOCKET_TEXT_SIZE];
	socket_address_print(&peer, source);
	struct log_context context = {.service = service->name, .transport = "tcp", .source = source};
	log_write(LOG_NOTICE, &context, "%s: tcp %s closed: %s, %.3f s, %llu bytes received, %llu sent", service->name,
		  source, metrics_rows[connection->reason].reason,
		  (double)(wheel_now_ms() - connection->began_ms) / 1000, (unsigned long long)connection->received,
		  (unsigned long long)connection->sent);
}

static void unsent_free(struct connection *connection)
{
	struct unsent *unsent = connection->unsent;
	if (unsent == NULL)
		return;
	event_del(&unsent->event);
	connection->side->unsent -= unsent->to - unsent->from;
	free(unsent);
	connection->unsent = NULL;
}

/* Frees CONNECTION: whoever calls it touches it no more. */
static void end(struct connection *connection, enum metric reason)
{
	struct side *side = connection->side;
	struct runtime *runtime = connection->runtime;
	struct limit_source *source = connection->source;
	int fd = connection_fd(connection);

	connection->reason = (uint8_t)reason;
	metrics_add(counters(connection), reason, 1);
	if (runtime->config->log_connections)
		log_connection(connection);
	unsent_free(connection);
	event_del(&connection->event);
	wheel_remove(&connection->deadline);
	slab_give(&side->connections, connection);
	close(fd);
	if (source != NULL)
		limit_source_leave(runtime->sources, source);
	leave(side->tcp, runtime);
	runtime_release(runtime, worker_index(side->worker));
}

static bool holds_unsent(const struct connection *connection)
{
	return connection->unsent != NULL && connection->unsent->to > connection->unsent->from;
}

/* Whether bytes are on their way that the client has not acknowledged. */
static bool holds_unacknowledged(const struct connection *connection)
{
	int bytes;
	return holds_unsent(connection) || (ioctl(connection_fd(connection), SIOCOUTQ, &bytes) == 0 && bytes > 0);
}

/* Ends with a reset: a cut stream must not look like a whole one, nor its rest stay with the kernel for minutes. */
static void end_resetting(struct connection *connection, enum metric reason)
{
	struct linger reset = {.l_onoff = 1};
	setsockopt(connection_fd(connection), SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
	end(connection, reason);
}

/* Ends a connection whose time is over: in order only if the client has it all. */
static void end_overdue(struct connection *connection, enum metric reason)
{
	if (holds_unacknowledged(connection))
		end_resetting(connection, reason);
	else
		end(connection, reason);
}

static void end_failed(struct connection *connection)
{
	bool reset = errno == ECONNRESET || errno == EPIPE || errno == ENOTCONN;
	if (connection->flags & LINGERING) /* it had all we had to say */
		end(connection, connection->reason);
	else
		end(connection, reset ? METRIC_CLOSED_RESET : METRIC_CLOSED_ERROR);
}

/* Says that nothing follows, and closes only when the client has said so too: closing with unread input would send a
 * reset, which destroys what the client has not read yet. */
static void linger(struct connection *connection, enum metric reason)
{
	if (connection->flags & INPUT_ENDED) {
		end(connection, reason);
		return;
	}
	if (transport_of(connection)->shutdown(connection) < 0) {
		end_failed(connection);
		return;
	}
	connection->flags |= LINGERING;
	connection->reason = (uint8_t)reason;
	connection->linger_left = TCP_LINGER_BYTES;
	wheel_set(connection->side->wheel, &connection->deadline, wheel_now_ms() + TCP_LINGER_MS);
	event_add(&connection->event, NULL);
}

/* --- sending --- */

static void on_writable(evutil_socket_t fd, short what, void *argument);

/* Waits until the socket takes more; LENGTH BYTES go first. False: out of memory. */
static bool wait_writable(struct connection *connection, const char *bytes, size_t length)
{
	struct unsent *unsent = malloc(sizeof *unsent + length);
	if (unsent == NULL)
		return false;
	unsent->from = 0;
	unsent->to = length;
	if (length > 0)
		memcpy(unsent->bytes, bytes, length);
	event_assign(&unsent->event, worker_base(connection->side->worker), connection_fd(connection),
		     EV_WRITE | EV_PERSIST, on_writable, connection);
	if (event_add(&unsent->event, NULL) < 0) {
		free(unsent);
		return false;
	}
	connection->unsent = unsent;
	connection->side->unsent += length;
	return true;
}

/* Sends as much of BYTES as the socket takes; LAST: nothing follows them. Returns the count, or -1 when the connection has failed. */
static ssize_t send_some(struct connection *connection, const char *bytes, size_t length, bool last)
{
	ssize_t sent = transport_of(connection)->write(connection, bytes, length, last);
	if (sent < 0)
		return errno == EAGAIN || errno == EINTR ? 0 : -1;
	connection->sent += (size_t)sent;
	connection->active_ms = wheel_now_ms();
	metrics_add(counters(connection), METRIC_SENT_BYTES, (uint64_t)sent);
	return sent;
}

/* The service speaks: once, as one wake-up belongs to all connections. May end the connection. */
static void speak(struct connection *connection)
{
	struct side *side = connection->side;
	struct service_context context = {.settings = connection->runtime->settings,
					  .random = worker_random(side->worker)};
	clock_gettime(CLOCK_REALTIME, &context.now);

	struct service_output output =
		connection->runtime->service->tcp_output(&context, connection->sent, side->scratch, TCP_SCRATCH_SIZE);
	bool done = output.done || output.length == 0;
	ssize_t sent = send_some(connection, output.bytes, output.length, done);
	if (sent < 0) {
		end_failed(connection);
		return;
	}
	const char *rest = output.bytes + sent;
	size_t left = output.length - (size_t)sent;
	if (left == 0 && done) {
		unsent_free(connection);
		linger(connection, METRIC_CLOSED_DONE);
		return;
	}
	/* what lies outside of the scratch buffer stays where it is, and is asked for again */
	if (rest < side->scratch || rest >= side->scratch + TCP_SCRATCH_SIZE)
		left = 0;
	else if (done)
		connection->flags |= OUTPUT_DONE;
	if (left == 0 && connection->unsent != NULL)
		return;
	unsent_free(connection);
	if (!wait_writable(connection, rest, left))
		end_resetting(connection, METRIC_CLOSED_NO_MEMORY);
}

/* All that was kept has been sent. May end the connection. */
static void drained(struct connection *connection)
{
	if (connection->flags & OUTPUT_DONE) {
		unsent_free(connection);
		linger(connection, METRIC_CLOSED_DONE);
	} else if (connection->runtime->service->tcp_output != NULL) {
		speak(connection);
	} else {
		unsent_free(connection);
		event_add(&connection->event, NULL); /* the client reads again, so it is read from again */
	}
}

static void on_writable(evutil_socket_t fd, short what, void *argument)
{
	struct connection *connection = argument;
	struct unsent *unsent = connection->unsent;

	(void)fd, (void)what;
	if (unsent->to > unsent->from) {
		ssize_t sent = send_some(connection, unsent->bytes + unsent->from, unsent->to - unsent->from,
					 connection->flags & OUTPUT_DONE);
		if (sent < 0) {
			end_failed(connection);
			return;
		}
		unsent->from += (size_t)sent;
		connection->side->unsent -= (size_t)sent;
		if (unsent->from < unsent->to)
			return;
	}
	drained(connection);
}

/* --- receiving --- */

/* Hands LENGTH bytes of input to the service. May end the connection. */
static void take_input(struct connection *connection, char *bytes, size_t length)
{
	const struct service *service = connection->runtime->service;

	if (service->tcp_input == NULL)
		return;
	length = service->tcp_input(connection->runtime->settings, bytes, length);
	if (length == 0)
		return;

	ssize_t sent = send_some(connection, bytes, length, false);
	if (sent < 0) {
		end_failed(connection);
		return;
	}
	if ((size_t)sent == length)
		return;
	/* the client does not read: it is not read from until it does, so what it makes us hold is bounded */
	if (wait_writable(connection, bytes + sent, length - (size_t)sent))
		event_del(&connection->event);
	else
		end_resetting(connection, METRIC_CLOSED_NO_MEMORY);
}

/* The client has shut down its sending side. May end the connection. */
static void input_ended(struct connection *connection)
{
	connection->flags |= INPUT_ENDED;
	if (connection->flags & LINGERING)
		end(connection, connection->reason);
	else if (connection->unsent == NULL)
		end(connection, METRIC_CLOSED_CLIENT);
	else
		event_del(&connection->event); /* it may read still: the rest is for it */
}

static void on_readable(evutil_socket_t fd, short what, void *argument)
{
	struct connection *connection = argument;
	struct side *side = connection->side;
	size_t size = side->unsent > TCP_UNSENT_HIGH ? TCP_READ_SMALL : TCP_SCRATCH_SIZE;

	(void)fd, (void)what;
	ssize_t length = transport_of(connection)->read(connection, side->scratch, size);
	if (length == 0) {
		input_ended(connection);
		return;
	}
	if (length < 0) {
		if (errno != EAGAIN && errno != EINTR)
			end_failed(connection);
		return;
	}
	connection->received += (size_t)length;
	metrics_add(counters(connection), METRIC_RECEIVED_BYTES, (uint64_t)length);
	if (!(connection->flags & LINGERING)) {
		connection->active_ms = wheel_now_ms();
		take_input(connection, side->scratch, (size_t)length);
	} else if (connection->linger_left > (size_t)length) {
		connection->linger_left -= (size_t)length;
	} else {
		end(connection, connection->reason);
	}
}

/* --- deadlines --- */

static struct connection *connection_of(struct wheel_entry *entry)
{
	return (struct connection *)(void *)((char *)entry - offsetof(struct connection, deadline));
}

static uint64_t next_deadline(const struct connection *connection)
{
	const struct config_service *config = connection->runtime->config;
	uint64_t deadline = WHEEL_NEVER;
	if (config->idle_timeout_ms > 0)
		deadline = connection->active_ms + (uint64_t)config->idle_timeout_ms;
	if (config->lifetime_ms > 0 && connection->began_ms + (uint64_t)config->lifetime_ms < deadline)
		deadline = connection->began_ms + (uint64_t)config->lifetime_ms;
	return deadline;
}

/* Ends a connection that may be in the midst of an exchange: says so to a client that has been sent all, and waits for its end. */
static void end_in_its_course(struct connection *connection, enum metric reason)
{
	if (holds_unsent(connection)) {
		end_resetting(connection, reason);
		return;
	}
	unsent_free(connection);
	linger(connection, reason);
}

static uint64_t on_deadline(struct wheel_entry *entry, uint64_t now_ms)
{
	struct connection *connection = connection_of(entry);
	uint64_t lifetime_ms = (uint64_t)connection->runtime->config->lifetime_ms;
	uint64_t deadline = next_deadline(connection);

	if (connection->flags & LINGERING) {
		if (connection->reason == METRIC_CLOSED_DONE)
			end(connection, METRIC_CLOSED_DONE); /* a reply on its way may still arrive */
		else
			end_overdue(connection, connection->reason);
		return 0;
	}
	if (now_ms < deadline)
		return deadline;
	if (lifetime_ms == 0 || now_ms - connection->began_ms < lifetime_ms) {
		end_overdue(connection, METRIC_CLOSED_IDLE_TIMEOUT);
	} else {
		end_in_its_course(connection, METRIC_CLOSED_LIFETIME);
	}
	return 0;
}

/* Ends as orderly as can be done at once: what the client sent is read away, lest it turn the end into a reset. */
static void end_now(struct wheel_entry *entry)
{
	struct connection *connection = connection_of(entry);
	char *scratch = connection->side->scratch;
	enum metric reason = connection->flags & LINGERING ? connection->reason : METRIC_CLOSED_STOP;

	if (holds_unsent(connection)) {
		end_resetting(connection, reason);
		return;
	}
	for (int i = 0; i < 2 && transport_of(connection)->read(connection, scratch, TCP_SCRATCH_SIZE) > 0; i++)
		;
	end(connection, reason);
}

/* --- accepting --- */

/* Closes at once what is not let in. */
static void turn_away(struct side *side, struct runtime *runtime, int fd, const struct socket_address *peer,
		      enum metric reason)
{
	char source[SOCKET_TEXT_SIZE];

	close(fd);
	metrics_add(&runtime->tcp[worker_index(side->worker)], reason, 1);
	leave(side->tcp, runtime);
	if (!log_allows(&runtime->refused_bound, wheel_now_ms()))
		return;
	socket_address_print(peer, source);
	struct log_context context = {.service = runtime->config->name, .transport = "tcp", .source = source};
	log_write(LOG_WARNING, &context, "%s: tcp %s turned away: %s", context.service, source,
		  metrics_rows[reason].reason);
}

/* Why PEER is not let in; METRIC_COUNT: it is, and if sources are counted SOURCE holds its place. */
static enum metric judge(struct runtime *runtime, const struct socket_address *peer, struct limit_source **source)
{
	static const enum metric reasons[] = {
		[LIMIT_ADMIT] = METRIC_COUNT,
		[LIMIT_TURN_AWAY] = METRIC_REFUSED_SOURCE_LIMIT,
		[LIMIT_NO_MEMORY] = METRIC_REFUSED_NO_MEMORY,
	};
	struct in6_addr ip = socket_address_ip(peer), prefix = runtime_source(runtime, &ip);

	*source = NULL;
	if (runtime->prefixes != NULL && !prefix_map_allows(runtime->prefixes, &ip))
		return METRIC_REFUSED_DENIED;
	if (runtime->connection_buckets != NULL &&
	    !limit_bucket_take(runtime->connection_buckets, &prefix, wheel_now_ms()))
		return METRIC_REFUSED_RATE;
	if (runtime->sources == NULL)
		return METRIC_COUNT;
	return reasons[limit_source_enter(runtime->sources, &prefix, runtime->source_maximum, source)];
}

/* Takes over an accepted connection, which holds its places. */
static void begin(struct side *side, struct runtime *runtime, int fd, const struct socket_address *peer)
{
	struct limit_source *source;
	enum metric reason = judge(runtime, peer, &source);
	if (reason != METRIC_COUNT) {
		turn_away(side, runtime, fd, peer, reason);
		return;
	}
	struct connection *connection = slab_take(&side->connections);
	if (connection == NULL) {
		if (source != NULL)
			limit_source_leave(runtime->sources, source);
		turn_away(side, runtime, fd, peer, METRIC_REFUSED_NO_MEMORY);
		return;
	}
	metrics_add(&runtime->tcp[worker_index(side->worker)], METRIC_ACCEPTED, 1);
	runtime_hold(runtime, worker_index(side->worker));
	uint64_t now_ms = wheel_now_ms();
	*connection = (struct connection){
		.side = side,
		.runtime = runtime,
		.source = source,
		.began_ms = now_ms,
		.active_ms = now_ms,
		.peer = peer_of(peer),
	};
	event_assign(&connection->event, worker_base(side->worker), fd, EV_READ | EV_PERSIST, on_readable, connection);
	wheel_set(side->wheel, &connection->deadline, next_deadline(connection));
	if (runtime->config->dscp == DSCP_COPY) {
		int dscp = socket_saved_dscp(fd);
		if (dscp >= 0)
			socket_set_dscp(fd, peer->any.sa_family, dscp);
	}
	if (event_add(&connection->event, NULL) < 0)
		end(connection, METRIC_CLOSED_NO_MEMORY);
	else if (transport_of(connection)->handshake(connection) == 0 && runtime->service->tcp_output != NULL)
		speak(connection);
}

static void stopped(struct tcp_listener *listener)
{
	if (listener->stopped)
		return;
	listener->stopped = true;
	if (event_initialized(&listener->event)) {
		event_del(&listener->event);
		worker_drop_fd(listener->side->worker, event_get_fd(&listener->event));
	}
	*listener->link = listener->next;
	if (listener->next != NULL)
		listener->next->link = listener->link;
	runtime_release(listener->runtime, worker_index(listener->side->worker));
	mailbox_post(listener->main, listener->done);
}

static void pause_full(struct tcp_listener *listener)
{
	const struct config_service *service = listener->runtime->config;
	listener->paused = true;
	event_del(&listener->event);
	if (listener->stopping && listener->shared)
		stopped(listener);
	if (listener->stopping || !log_allows(&listener->runtime->full_bound, wheel_now_ms()))
		return;
	struct log_context context = {.service = service->name, .transport = "tcp"};
	bool own = atomic_load(&listener->runtime->gate->taken) >= atomic_load(&listener->runtime->gate->maximum);
	int64_t maximum = own ? listener->runtime->gate->maximum : listener->runtime->daemon_gate->maximum;
	log_write(LOG_WARNING, &context, "%s: accepting pauses: max_connections = %lld of the %s is reached",
		  service->name, (long long)maximum, own ? "service" : "daemon");
}

/* Out of descriptors or memory: rest, or libevent spins on what cannot be accepted. */
static void pause_failed(struct tcp_listener *listener)
{
	const struct timeval rest = {.tv_usec = TCP_RETRY_MS * 1000};
	struct side *side = listener->side;
	int error = errno;
	listener->paused = true;
	event_del(&listener->event);
	event_add(side->retry, &rest);
	if (!log_allows(&listener->runtime->failed_bound, wheel_now_ms()))
		return;
	struct log_context context = {.service = listener->runtime->config->name, .transport = "tcp"};
	log_write(LOG_WARNING, &context, "%s: accepting pauses: %s", context.service, strerror(error));
}

/* Whether accept failed for the one connection alone (accept(2): network errors of the new socket are passed on). */
static bool failed_alone(int error)
{
	return error == ECONNABORTED || error == EINTR || error == EPROTO || error == ENETDOWN ||
	       error == ENOPROTOOPT || error == EHOSTDOWN || error == ENONET || error == EHOSTUNREACH ||
	       error == EOPNOTSUPP || error == ENETUNREACH || error == EPERM;
}

/* Begins what the listener accepted: on its own worker, or on the next in turn where one listener is there for all. */
static void take_in(struct tcp_listener *listener, int fd, struct socket_address *peer)
{
	struct side *side = listener->side;
	struct tcp *tcp = side->tcp;

	if (atomic_load_explicit(&listener->refuses, memory_order_relaxed))
		socket_release_accepted(fd);
	socket_address_unmap(peer);
	if (listener->deals)
		listener->dealt_to = (listener->dealt_to + 1) % tcp->count;
	struct side *other = listener->deals ? &tcp->sides[listener->dealt_to] : side;
	struct dealt *dealt = other != side ? malloc(sizeof *dealt) : NULL;
	if (dealt == NULL) {
		begin(side, listener->runtime, fd, peer);
		return;
	}
	*dealt = (struct dealt){.runtime = listener->runtime, .fd = fd, .peer = *peer};
	runtime_send(dealt->runtime);
	dealt->next = atomic_load(&other->dealt);
	while (!atomic_compare_exchange_weak(&other->dealt, &dealt->next, dealt))
		;
	worker_post(other->worker, &other->take_dealt);
}

static void take_dealt(void *argument)
{
	struct side *side = argument;
	unsigned index = worker_index(side->worker);
	struct dealt *dealt = atomic_exchange(&side->dealt, NULL);
	while (dealt != NULL) {
		struct dealt *next = dealt->next;
		runtime_receive(dealt->runtime, index);
		begin(side, dealt->runtime, dealt->fd, &dealt->peer);
		runtime_release(dealt->runtime, index);
		free(dealt);
		dealt = next;
	}
}

static void on_acceptable(evutil_socket_t fd, short what, void *argument)
{
	struct tcp_listener *listener = argument;
	struct side *side = listener->side;

	(void)what;
	for (int i = 0; i < TCP_ACCEPTS_A_WAKEUP; i++) {
		struct socket_address peer = {.length = sizeof peer.v6};
		if (!enter(side->tcp, listener->runtime)) {
			pause_full(listener);
			return;
		}
		int accepted = accept4(fd, &peer.any, &peer.length, SOCK_NONBLOCK | SOCK_CLOEXEC);
		if (accepted >= 0) {
			take_in(listener, accepted, &peer);
			continue;
		}
		int error = errno;
		leave(side->tcp, listener->runtime);
		errno = error;
		if (failed_alone(error))
			continue;
		if (error != EAGAIN)
			pause_failed(listener);
		else if (listener->stopping)
			stopped(listener);
		return;
	}
	if (listener->stopping && listener->shared && --listener->rounds_left == 0)
		stopped(listener);
	else if (listener->stopping) /* the queue may be empty by now, and then no event would say so */
		event_active(&listener->event, EV_READ, 0);
}

static void resume(void *argument)
{
	struct side *side = argument;
	for (struct tcp_listener *listener = side->listeners; listener != NULL; listener = listener->next) {
		if (!listener->paused)
			continue;
		listener->paused = false;
		event_add(&listener->event, NULL);
		if (listener->stopping)
			event_active(&listener->event, EV_READ, 0);
	}
}

static void on_retry(evutil_socket_t fd, short what, void *argument)
{
	(void)fd, (void)what;
	resume(argument);
}

static void start(void *argument)
{
	struct tcp_listener *listener = argument;
	struct side *side = listener->side;
	listener->next = side->listeners;
	listener->link = &side->listeners;
	if (listener->next != NULL)
		listener->next->link = &listener->next;
	side->listeners = listener;
	runtime_hold(listener->runtime, worker_index(side->worker));
	int fd = worker_take_fd(side->worker, listener->fd);
	if (fd < 0) {
		log_error("%s: cannot take a listener over: %s", listener->runtime->config->name, strerror(errno));
		return;
	}
	event_assign(&listener->event, worker_base(side->worker), fd, EV_READ | EV_PERSIST, on_acceptable, listener);
	if (event_add(&listener->event, NULL) < 0)
		log_error("%s: cannot watch a listener: out of memory", listener->runtime->config->name);
}

/* Who paused at a limit looks again: it may be another one now. */
static void change(void *argument)
{
	struct tcp_listener *listener = argument;
	unsigned index = worker_index(listener->side->worker);
	runtime_hold(listener->next_runtime, index);
	runtime_release(listener->runtime, index);
	listener->runtime = listener->next_runtime;
	if (!listener->paused)
		return;
	listener->paused = false;
	event_add(&listener->event, NULL);
}

static void stop(void *argument)
{
	struct tcp_listener *listener = argument;
	listener->stopping = true;
	listener->rounds_left = SHARED_ROUNDS;
	if (!event_initialized(&listener->event))
		stopped(listener);
	else if (!listener->paused)
		on_acceptable(event_get_fd(&listener->event), EV_READ, listener);
}

/* Ends a connection of a service that was removed, once its time is over. */
static void end_if_removed(struct wheel_entry *entry)
{
	struct connection *connection = connection_of(entry);
	uint64_t ends_at_ms = atomic_load(&connection->runtime->standing->ends_at_ms);
	if (ends_at_ms == 0 || wheel_now_ms() < ends_at_ms || connection->flags & LINGERING)
		return;
	end_in_its_course(connection, METRIC_CLOSED_STOP);
}

static void end_removed(void *argument)
{
	struct side *side = argument;
	wheel_each(side->wheel, end_if_removed);
}

static void end_all(void *argument)
{
	struct side *side = argument;
	for (struct tcp_listener *listener = side->listeners, *next; listener != NULL; listener = next) {
		next = listener->next;
		if (listener->stopping)
			stopped(listener);
	}
	wheel_each(side->wheel, end_now);
}

static void on_thread_end(void *argument)
{
	struct side *side = argument;
	wheel_each(side->wheel, end_now);
}

/* --- what the main thread does --- */

static bool side_init(struct side *side, struct tcp *tcp, struct worker *worker)
{
	side->tcp = tcp;
	side->worker = worker;
	slab_init(&side->connections, sizeof(struct connection));
	side->resume = (struct mail){.run = resume, .argument = side};
	side->end = (struct mail){.run = end_all, .argument = side};
	side->end_removed = (struct mail){.run = end_removed, .argument = side};
	side->take_dealt = (struct mail){.run = take_dealt, .argument = side};
	side->at_end = (struct mail){.run = on_thread_end, .argument = side};
	worker_at_end(worker, &side->at_end);
	side->wheel = wheel_new(worker_base(worker), on_deadline);
	side->scratch = malloc(TCP_SCRATCH_SIZE);
	side->retry = evtimer_new(worker_base(worker), on_retry, side);
	return side->wheel != NULL && side->scratch != NULL && side->retry != NULL;
}

struct tcp *tcp_new(struct worker *const *workers, unsigned count, struct limit_gate *daemon_gate)
{
	struct tcp *tcp = calloc(1, sizeof *tcp + count * sizeof *tcp->sides);
	if (tcp == NULL)
		return NULL;
	tcp->daemon_gate = daemon_gate;
	tcp->count = count;
	for (unsigned i = 0; i < count; i++)
		if (!side_init(&tcp->sides[i], tcp, workers[i])) {
			tcp_free(tcp);
			return NULL;
		}
	return tcp;
}

/* What never arrived. */
static void take_back_dealt(struct side *side)
{
	struct dealt *dealt = atomic_exchange(&side->dealt, NULL);
	while (dealt != NULL) {
		struct dealt *next = dealt->next;
		close(dealt->fd);
		leave(side->tcp, dealt->runtime);
		runtime_give_up(dealt->runtime);
		free(dealt);
		dealt = next;
	}
}

void tcp_free(struct tcp *tcp)
{
	if (tcp == NULL)
		return;
	for (unsigned i = 0; i < tcp->count; i++) {
		struct side *side = &tcp->sides[i];
		take_back_dealt(side);
		wheel_free(side->wheel);
		slab_clear(&side->connections);
		free(side->scratch);
		if (side->retry != NULL)
			event_free(side->retry);
	}
	free(tcp);
}

struct tcp_listener *tcp_listener_new(struct tcp *tcp, unsigned worker, int fd, struct runtime *runtime)
{
	struct tcp_listener *listener = calloc(1, sizeof *listener);
	if (listener == NULL)
		return NULL;
	listener->side = &tcp->sides[worker];
	listener->runtime = runtime;
	listener->fd = fd;
	listener->start = (struct mail){.run = start, .argument = listener};
	listener->stop = (struct mail){.run = stop, .argument = listener};
	listener->change = (struct mail){.run = change, .argument = listener};
	return listener;
}

void tcp_listener_share(struct tcp_listener *listener)
{
	listener->shared = true;
}

void tcp_listener_deal(struct tcp_listener *listener)
{
	listener->shared = listener->deals = true;
	listener->dealt_to = worker_index(listener->side->worker);
}

void tcp_listener_change(struct tcp_listener *listener, struct runtime *runtime)
{
	listener->next_runtime = runtime;
	worker_post(listener->side->worker, &listener->change);
}

int tcp_listener_refuse_new(struct tcp_listener *listener)
{
	atomic_store(&listener->refuses, true);
	return socket_refuse_new(listener->fd);
}

void tcp_listener_start(struct tcp_listener *listener)
{
	worker_post(listener->side->worker, &listener->start);
}

void tcp_listener_stop(struct tcp_listener *listener, struct mailbox *main, struct mail *done)
{
	listener->main = main;
	listener->done = done;
	worker_post(listener->side->worker, &listener->stop);
}

void tcp_listener_free(struct tcp_listener *listener)
{
	if (listener != NULL && event_initialized(&listener->event))
		event_del(&listener->event);
	free(listener);
}

void tcp_drain(struct tcp *tcp, struct mailbox *main, struct mail *idle)
{
	tcp->main = main;
	tcp->idle = idle;
	atomic_store(&tcp->draining, true);
	if (atomic_load(&tcp->daemon_gate->taken) == 0)
		mailbox_post(main, idle);
}

void tcp_end_removed(struct tcp *tcp)
{
	for (unsigned i = 0; i < tcp->count; i++)
		worker_post(tcp->sides[i].worker, &tcp->sides[i].end_removed);
}

void tcp_end_all(struct tcp *tcp)
{
	for (unsigned i = 0; i < tcp->count; i++)
		worker_post(tcp->sides[i].worker, &tcp->sides[i].end);
}
