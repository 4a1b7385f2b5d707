/* tcp.c: the life of a connection, from accept to close. */
#include "net/tcp.h"

#include <errno.h>
#include <event2/event.h>
#include <event2/event_struct.h>
#include <linux/sockios.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "core/clock.h"
#include "core/log.h"
#include "core/timer_wheel.h"
#include "net/proxy_accept.h"
#include "net/slab.h"
#include "net/socket.h"
#include "tls/tls.h"

/* One worker's share. */
struct side {
	struct tcp *tcp;
	struct worker *worker;
	unsigned index; /* the worker's */
	struct timer_wheel *wheel;
	struct slab connections, secure_connections;
	struct proxy_accept *proxy_accept; /* accepted from proxies: who the client is will be told */
	char *scratch;                     /* TCP_SCRATCH_SIZE bytes, used by one callback at a time */
	size_t unsent;                     /* bytes that connections hold */
	struct tcp_listener *listeners;
	struct event *retry; /* out of descriptors or memory: accept again */
	_Atomic(struct dealt *) dealt;
	struct task resume, end; /* a place is free; end everything */
	struct task end_removed, take_dealt;
	struct task at_end; /* of the thread */
};

struct tcp {
	struct limit_gate *daemon_gate;
	atomic_bool draining;
	struct task_queue *main;
	struct task *idle;
	unsigned count;
	struct side sides[];
};

struct tcp_listener {
	struct tcp_listener *next, **link; /* of its side's listeners, while it serves */
	struct side *side;
	struct instance *instance;
	struct event event;
	int fd;
	bool paused, stopping, stopped;
	bool shared;                    /* others accept from it too */
	unsigned rounds_left;           /* of a shared one that stops: its queue may never be empty */
	bool deals;                     /* to all workers in turn */
	unsigned dealt_to;              /* last */
	atomic_bool refuses;            /* what is accepted has inherited that new ones are refused */
	struct instance *next_instance; /* main's, until CHANGE has run */
	struct task start, stop, change;
	struct task_queue *main;
	struct task *done;
};

/* An accepted connection, which holds its places, on its way to another worker. */
struct dealt {
	struct dealt *next;
	struct instance *instance;
	int fd;
	struct socket_address peer;
};

/* What a short send left over, in a block of its own, since few connections ever need one. */
struct unsent {
	struct event event; /* the socket is writable */
	size_t from, to;    /* of bytes */
	char bytes[];
};

/* Copies to an odd place, as malloc's 16 bytes into a page, cost 1 % of a message of 4 KiB. */
enum { SCRATCH_ALIGNMENT = 4096 };

enum { SHARED_ROUNDS = 64 }; /* of TCP_ACCEPTS_A_WAKEUP, until a stop leaves the rest to the others */

enum {
	INPUT_ENDED = 1,  /* the client has shut down its sending side */
	OUTPUT_DONE = 2,  /* what is unsent is the rest, and the reason is known */
	LINGERING = 4,    /* all is sent and shut down: waiting for the client's end */
	UNSURE = 8,       /* watched by edges: a second look has not followed what was read last */
	IN_TLS = 16,      /* its transport is TLS: not when the session failed */
	HANDSHAKING = 32, /* the service does not know of it yet */
	TRUNCATED = 64,   /* the input ended without close_notify */
	READ_LATER = 128, /* a read waits until the socket is writable */
};

/* Without holes, as what an idle connection costs is mostly this; and what each message touches lies together, as with many
 * connections that is out of the caches each time. */
struct connection {
	struct event event; /* the socket is readable */
	struct side *side;
	struct instance *instance;
	uint64_t received, sent;
	union {
		uint64_t active_ms;   /* of the last exchange */
		uint64_t linger_left; /* LINGERING: bytes of input that are still thrown away */
	};
	uint8_t flags;
	uint8_t reason;      /* enum metric: why it is being closed, once it is */
	in_port_t peer_port; /* in network order */
	uint32_t peer_scope;
	struct in6_addr peer_ip; /* IPv4 mapped into ::ffff:0:0/96 */
	uint64_t began_ms;
	struct timer_wheel_entry deadline;
	struct limit_source *source; /* whose place it holds; NULL: sources are not counted */
	struct unsent *unsent;       /* NULL: nothing waits to be sent */
};

/* A connection inside TLS, from a slab of its own: the others pay nothing for it. */
struct secure_connection {
	struct connection connection;
	struct tls *tls;
	struct event again; /* at once: input is decrypted already, and no event of the socket would tell */
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

static void set_peer(struct connection *connection, const struct socket_address *address)
{
	connection->peer_ip = socket_address_ip(address);
	connection->peer_port = htons(socket_address_port(address));
	connection->peer_scope = address->any.sa_family == AF_INET6 ? address->v6.sin6_scope_id : 0;
}

static struct socket_address peer_address(const struct connection *connection)
{
	const struct in6_addr *ip = &connection->peer_ip;
	uint16_t port = ntohs(connection->peer_port);
	struct socket_address address = {0};
	if (IN6_IS_ADDR_V4MAPPED(ip)) {
		socket_address_set(&address, AF_INET, &ip->s6_addr[12], "", port);
		return address;
	}
	socket_address_set(&address, AF_INET6, ip, "", port);
	address.v6.sin6_scope_id = connection->peer_scope;
	return address;
}

static int connection_fd(const struct connection *connection)
{
	return connection->event.ev_fd; /* event_get_fd would be a call of its own, twice a message */
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

/* Whether it is the first member of a struct secure_connection. */
static bool is_secured(const struct connection *connection)
{
	return connection->instance->config->tls_context != NULL;
}

static struct secure_connection *secured(const struct connection *connection)
{
	return (struct secure_connection *)(uintptr_t)connection; /* its first member */
}

static int secure_handshake(struct connection *connection)
{
	return tls_handshake(secured(connection)->tls);
}

static ssize_t secure_read(struct connection *connection, char *bytes, size_t size)
{
	return tls_read(secured(connection)->tls, bytes, size);
}

static ssize_t secure_write(struct connection *connection, const char *bytes, size_t length, bool last)
{
	(void)last;
	return tls_write(secured(connection)->tls, bytes, length);
}

static int secure_shutdown(struct connection *connection)
{
	int result = tls_shutdown(secured(connection)->tls);
	return result == 0 ? plain_shutdown(connection) : result;
}

static const struct transport secure = {
	.handshake = secure_handshake,
	.read = secure_read,
	.write = secure_write,
	.shutdown = secure_shutdown,
};

static const struct transport *transport_of(const struct connection *connection)
{
	return connection->flags & IN_TLS ? &secure : &plain;
}

static struct metrics_block *counters(const struct connection *connection)
{
	return &connection->instance->tcp[connection->side->index];
}

/* --- places: a connection holds one of its service and one of the daemon --- */

static void leave_gate(struct tcp *tcp, struct limit_gate *gate)
{
	if (!limit_gate_leave(gate))
		return;
	for (unsigned i = 0; i < tcp->count; i++)
		worker_post(tcp->sides[i].worker, &tcp->sides[i].resume);
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

static void leave(struct tcp *tcp, struct instance *instance)
{
	leave_gate(tcp, instance->gate);
	leave_gate(tcp, instance->daemon_gate);
	if (atomic_load(&tcp->draining) && atomic_load(&tcp->daemon_gate->taken) == 0)
		task_queue_post(tcp->main, tcp->idle);
}

/* --- the end of a connection --- */

static void log_connection(const struct connection *connection)
{
	const struct config_service *service = connection->instance->config;
	struct socket_address peer = peer_address(connection);
	char source[SOCKET_TEXT_SIZE];
	socket_address_print(&peer, source);
	struct log_context context = {.service = service->name, .transport = "tcp", .source = source};
	const char *subject = is_secured(connection) ? tls_client_subject(secured(connection)->tls) : NULL;
	log_write(LOG_NOTICE, &context, "%s: tcp %s closed: %s, %.3f s, %llu bytes received, %llu sent%s%s",
		  service->name, source, metrics_rows[connection->reason].reason,
		  (double)(clock_ms() - connection->began_ms) / 1000, (unsigned long long)connection->received,
		  (unsigned long long)connection->sent, subject != NULL ? ", certificate " : "",
		  subject != NULL ? subject : "");
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

static void release(struct connection *connection)
{
	struct side *side = connection->side;
	if (!is_secured(connection)) {
		slab_give(&side->connections, connection);
		return;
	}
	event_del(&secured(connection)->again);
	tls_free(secured(connection)->tls);
	slab_give(&side->secure_connections, secured(connection));
}

/* Frees CONNECTION: whoever calls it touches it no more. */
static void end(struct connection *connection, enum metric reason)
{
	struct side *side = connection->side;
	struct instance *instance = connection->instance;
	struct limit_source *source = connection->source;
	int fd = connection_fd(connection);

	connection->reason = (uint8_t)reason;
	metrics_add(counters(connection), reason, 1);
	if (instance->config->log_connections)
		log_connection(connection);
	unsent_free(connection);
	event_del(&connection->event);
	timer_wheel_remove(&connection->deadline);
	release(connection);
	close(fd);
	if (source != NULL)
		limit_source_leave(instance->sources, source);
	leave(side->tcp, instance);
	instance_release(instance, side->index);
}

/* Whether what was begun has not been sent whole: bytes that are kept, or a record of TLS. */
static bool holds_unsent(const struct connection *connection)
{
	if ((connection->flags & IN_TLS) && tls_owes_write(secured(connection)->tls))
		return true;
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

/* Ends with a word to whom TLS would take the end for an attack, if there is room for it. */
static void end_in_order(struct connection *connection, enum metric reason)
{
	if ((connection->flags & (IN_TLS | HANDSHAKING)) == IN_TLS)
		(void)tls_shutdown(secured(connection)->tls);
	end(connection, reason);
}

/* Ends a connection whose time is over: in order only if the client has it all. */
static void end_overdue(struct connection *connection, enum metric reason)
{
	if (holds_unacknowledged(connection))
		end_resetting(connection, reason);
	else
		end_in_order(connection, reason);
}

static void fail_tls(struct connection *connection);

static void end_failed(struct connection *connection)
{
	bool reset = errno == ECONNRESET || errno == EPIPE || errno == ENOTCONN;
	if (connection->flags & LINGERING) /* it had all we had to say */
		end(connection, connection->reason);
	else if ((connection->flags & HANDSHAKING) || ((connection->flags & IN_TLS) && errno == EPROTO))
		fail_tls(connection);
	else
		end(connection, reset ? METRIC_CLOSED_RESET : METRIC_CLOSED_ERROR);
}

/* --- reading, or not --- */

static void on_readable(evutil_socket_t fd, short what, void *argument);

/* A connection that is answered begins watched by edges: the kernel tells of input as it comes, and need not look at each wait whether
 * any is left, which is some 2 % of a message. So it goes on only while all that was told of has been read. Whoever is known to leave
 * something is watched by level from then on; of the rest, see look_again. An error that comes with data is told of as data alone:
 * where it does not show when the answer is sent, as there is none, all are watched by level. */
static short first_kind(const struct connection *connection)
{
	const struct service *service = connection->instance->service;
	bool answers = service->tcp_input != NULL || service->tcp_output != NULL;
	return answers && !(connection->flags & IN_TLS) ? EV_ET | EV_CLOSED : 0;
}

static void watch_input(struct connection *connection, int fd, short kind)
{
	event_assign(&connection->event, worker_base(connection->side->worker), fd,
		     (short)(EV_READ | EV_PERSIST | kind), on_readable, connection);
}

static bool is_watched_by_edge(const struct connection *connection)
{
	return connection->event.ev_events & EV_ET;
}

/* From now on; the event is added, or not, as it was. False: out of memory. */
static bool watch_by_level(struct connection *connection)
{
	if (!is_watched_by_edge(connection))
		return true;
	bool added = event_pending(&connection->event, EV_READ, NULL);
	event_del(&connection->event);
	watch_input(connection, connection_fd(connection), 0);
	return !added || event_add(&connection->event, NULL) == 0;
}

static void stop_reading(struct connection *connection)
{
	event_del(&connection->event);
	if (is_secured(connection))
		event_del(&secured(connection)->again);
}

/* Has what TLS holds already read soon, after the sockets that are ready have had their turn. False: out of memory. */
static bool read_again(struct connection *connection)
{
	const struct timeval at_once = {0};
	return event_add(&secured(connection)->again, &at_once) == 0;
}

static bool read_pending(struct connection *connection)
{
	return !(connection->flags & IN_TLS) || !tls_has_pending(secured(connection)->tls) || read_again(connection);
}

/* False: out of memory. */
static bool resume_reading(struct connection *connection)
{
	return event_add(&connection->event, NULL) == 0 && read_pending(connection);
}

/* --- the socket is full --- */

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
	if (!watch_by_level(connection) || event_add(&unsent->event, NULL) < 0) {
		free(unsent);
		return false;
	}
	connection->unsent = unsent;
	connection->side->unsent += length;
	return true;
}

/* --- the end in order --- */

/* There is no room for TLS to say that nothing follows: it is said when there is. */
static void linger_later(struct connection *connection)
{
	connection->flags |= OUTPUT_DONE;
	stop_reading(connection);
	if (!wait_writable(connection, NULL, 0))
		end_resetting(connection, METRIC_CLOSED_NO_MEMORY);
}

/* Is told of the client's end, and reads away what it says before: all of that, so it is watched by level. */
static void watch_for_end(struct connection *connection)
{
	if (!watch_by_level(connection) || !resume_reading(connection)) {
		end(connection, connection->reason);
		return;
	}
	timer_wheel_set(connection->side->wheel, &connection->deadline, clock_ms() + TCP_LINGER_MS);
}

/* Whether nobody is likely to wait for a place, or to be turned away for want of one, while CONNECTION has its own for some ms more
 * than its client needs them. */
static bool may_end_late(const struct connection *connection)
{
	const struct instance *instance = connection->instance;
	return limit_gate_left(instance->gate) >= TCP_PLENTY && limit_gate_left(instance->daemon_gate) >= TCP_PLENTY &&
	       (connection->source == NULL ||
		instance->source_maximum - limit_source_taken(connection->source) >= TCP_PLENTY) &&
	       !instance->config->log_connections; /* it would tell of a longer time than was */
}

/* Nothing follows, for a reason that is known: waits until the client has nothing to say either. Most end at once. So whoever is not
 * watched yet is looked at a moment later (look_for_end), and is watched only when it has not ended by then: that spares two system
 * calls, an event, and what waking somebody costs the kernel, together an eighth of a connection that is told one line. Until then
 * it stays one of those that are to be watched by edges, as nobody else who lingers. */
static void await_end(struct connection *connection)
{
	bool is_new = is_watched_by_edge(connection) && !event_pending(&connection->event, EV_READ, NULL);

	connection->flags |= LINGERING;
	connection->linger_left = TCP_LINGER_BYTES;
	if (!is_new || !may_end_late(connection) ||
	    !timer_wheel_set_soon(connection->side->wheel, &connection->deadline))
		watch_for_end(connection);
}

/* Says that nothing follows, and closes only when the client has said so too: closing with unread input would send a
 * reset, which destroys what the client has not read yet. */
static void linger(struct connection *connection, enum metric reason)
{
	if (connection->flags & HANDSHAKING) /* there is no session that could end in order */
		connection->flags &= (uint8_t) ~(IN_TLS | HANDSHAKING);
	if ((connection->flags & INPUT_ENDED) && !(connection->flags & IN_TLS)) {
		end(connection, reason);
		return;
	}
	connection->reason = (uint8_t)reason;
	if (transport_of(connection)->shutdown(connection) < 0) {
		if (errno == EAGAIN)
			linger_later(connection);
		else if (connection->flags & INPUT_ENDED) /* it had all, and need not hear that */
			end(connection, reason);
		else
			end_failed(connection);
		return;
	}
	if (connection->flags & INPUT_ENDED)
		end(connection, reason);
	else
		await_end(connection);
}

/* --- sending --- */

/* Sends as much of BYTES as the socket takes; LAST: nothing follows them. Returns the count, or -1 when the connection has failed. */
static ssize_t send_some(struct connection *connection, const char *bytes, size_t length, bool last)
{
	ssize_t sent = transport_of(connection)->write(connection, bytes, length, last);
	if (sent < 0)
		return errno == EAGAIN || errno == EINTR ? 0 : -1;
	connection->sent += (size_t)sent;
	metrics_add(counters(connection), METRIC_SENT_BYTES, (uint64_t)sent);
	return sent;
}

/* What is unsent is the last. */
static void say_done(struct connection *connection)
{
	connection->flags |= OUTPUT_DONE;
	connection->reason = METRIC_CLOSED_DONE;
}

static bool speaks_first(const struct connection *connection)
{
	return connection->instance->service->tcp_output != NULL;
}

/* The service speaks: once, as one wake-up belongs to all connections. False: that was all, and the connection lingers or has
 * ended. */
static bool speak(struct connection *connection)
{
	struct side *side = connection->side;
	struct service_context context = {
		.settings = connection->instance->settings,
		.random = worker_random(side->worker),
		.memo = instance_memo(connection->instance, side->index),
	};
	clock_gettime(CLOCK_REALTIME, &context.now);

	struct service_output output =
		connection->instance->service->tcp_output(&context, connection->sent, side->scratch, TCP_SCRATCH_SIZE);
	bool done = output.done || output.length == 0;
	ssize_t sent = send_some(connection, output.bytes, output.length, done);
	if (sent < 0) {
		end_failed(connection);
		return false;
	}
	if (sent > 0)
		connection->active_ms = clock_ms();
	const char *rest = output.bytes + sent;
	size_t left = output.length - (size_t)sent;
	if (left == 0 && done) {
		unsent_free(connection);
		linger(connection, METRIC_CLOSED_DONE);
		return false;
	}
	/* what lies outside of the scratch buffer stays where it is, and is asked for again */
	if (rest < side->scratch || rest >= side->scratch + TCP_SCRATCH_SIZE)
		left = 0;
	else if (done)
		say_done(connection);
	if (left == 0 && connection->unsent != NULL)
		return true;
	unsent_free(connection);
	if (wait_writable(connection, rest, left))
		return true;
	end_resetting(connection, METRIC_CLOSED_NO_MEMORY);
	return false;
}

static void shake_hands(struct connection *connection);

/* All that was kept has been sent. May end the connection. Reading resumes while the socket is still watched for room, as only that
 * needs no memory. */
static void drained(struct connection *connection)
{
	if (connection->flags & HANDSHAKING) {
		(void)resume_reading(connection);
		unsent_free(connection);
		shake_hands(connection);
		return;
	}
	if (connection->flags & READ_LATER) {
		connection->flags &= (uint8_t)~READ_LATER;
		if (event_add(&connection->event, NULL) < 0 || !read_again(connection)) {
			end_resetting(connection, METRIC_CLOSED_NO_MEMORY);
			return;
		}
	}
	if (connection->flags & OUTPUT_DONE) {
		unsent_free(connection);
		linger(connection, connection->reason);
	} else if (speaks_first(connection)) {
		speak(connection);
	} else {
		bool resumed = resume_reading(connection); /* the client reads again, so it is read from again */
		unsent_free(connection);
		if (!resumed)
			end_resetting(connection, METRIC_CLOSED_NO_MEMORY);
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
		if (sent > 0)
			connection->active_ms = clock_ms();
		unsent->from += (size_t)sent;
		connection->side->unsent -= (size_t)sent;
		if (unsent->from < unsent->to)
			return;
	}
	drained(connection);
}

/* --- receiving --- */

static uint64_t next_deadline(const struct connection *connection)
{
	const struct config_service *config = connection->instance->config;
	uint64_t deadline = TIMER_WHEEL_NEVER;
	if (connection->flags & HANDSHAKING)
		return connection->began_ms + (uint64_t)config->handshake_timeout_ms;
	if (config->idle_timeout_ms > 0)
		deadline = connection->active_ms + (uint64_t)config->idle_timeout_ms;
	if (config->lifetime_ms > 0 && connection->began_ms + (uint64_t)config->lifetime_ms < deadline)
		deadline = connection->began_ms + (uint64_t)config->lifetime_ms;
	/* whoever is let in after the end of the others of a removed service, or close to it, is found by nobody else */
	uint64_t ends_at_ms = atomic_load(&connection->instance->state->ends_at_ms);
	return ends_at_ms != 0 && ends_at_ms < deadline ? ends_at_ms : deadline;
}

/* Hands LENGTH bytes of input to the service. May end the connection. */
static void take_input(struct connection *connection, char *bytes, size_t length)
{
	const struct service *service = connection->instance->service;

	if (service->tcp_input == NULL)
		return;
	length = service->tcp_input(connection->instance->settings, bytes, length);
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
	stop_reading(connection);
	if (!wait_writable(connection, bytes + sent, length - (size_t)sent))
		end_resetting(connection, METRIC_CLOSED_NO_MEMORY);
}

/* The client has shut down its sending side. May end the connection. */
static void input_ended(struct connection *connection)
{
	connection->flags |= INPUT_ENDED;
	if ((connection->flags & IN_TLS) && tls_was_truncated(secured(connection)->tls))
		connection->flags |= TRUNCATED;
	if (connection->flags & LINGERING)
		end(connection, connection->reason);
	else if (connection->unsent == NULL)
		linger(connection, connection->flags & TRUNCATED ? METRIC_CLOSED_TLS_TRUNCATED : METRIC_CLOSED_CLIENT);
	else
		stop_reading(connection); /* it may read still: the rest is for it */
}

/* Nothing could be read. May end the connection. */
static void read_failed(struct connection *connection)
{
	if (errno != EAGAIN && errno != EINTR) {
		end_failed(connection);
		return;
	}
	if (!(connection->flags & IN_TLS) || !tls_wants_write(secured(connection)->tls))
		return;
	connection->flags |= READ_LATER;
	stop_reading(connection);
	if (connection->unsent == NULL && !wait_writable(connection, NULL, 0))
		end_resetting(connection, METRIC_CLOSED_NO_MEMORY);
}

/* When to look at a connection that is UNSURE. */
static uint64_t next_look(const struct connection *connection)
{
	uint64_t look_ms = connection->active_ms + TCP_LOOK_AGAIN_MS, deadline = next_deadline(connection);
	return look_ms < deadline ? look_ms : deadline;
}

/* After a read for WHAT from a connection that is watched by edges; FULL: it filled the buffer. No edge tells of what is left. False: out
 * of memory. */
static bool expect_rest(struct connection *connection, short what, bool full)
{
	if (full || (what & EV_TIMEOUT))
		return watch_by_level(connection);
	if (what & EV_CLOSED) { /* the end has come, and little before it: read on, after the others that are ready */
		event_active(&connection->event, EV_READ | EV_CLOSED, 0);
		return true;
	}
	if (connection->flags & UNSURE)
		return true;
	connection->flags |= UNSURE;
	timer_wheel_set(connection->side->wheel, &connection->deadline, next_look(connection));
	return true;
}

static void count_received(struct connection *connection, size_t length)
{
	connection->received += length;
	metrics_add(counters(connection), METRIC_RECEIVED_BYTES, length);
}

/* Of who lingers: LENGTH bytes that nobody hears. False: they were too many, and the connection has ended. */
static bool throw_away(struct connection *connection, size_t length)
{
	if (connection->linger_left > length) {
		connection->linger_left -= length;
		return true;
	}
	end(connection, connection->reason);
	return false;
}

/* Reads once, for WHAT: EV_CLOSED when the client's end has come, EV_TIMEOUT for a second look. May end the connection. */
static void receive(struct connection *connection, short what)
{
	struct side *side = connection->side;
	size_t size = side->unsent > TCP_UNSENT_HIGH ? TCP_READ_SMALL : TCP_SCRATCH_SIZE;

	ssize_t length = transport_of(connection)->read(connection, side->scratch, size);
	if (length == 0) {
		input_ended(connection);
		return;
	}
	if (length < 0) {
		read_failed(connection);
		return;
	}
	bool lingers = connection->flags & LINGERING;
	if (!lingers)
		connection->active_ms = clock_ms();
	if ((is_watched_by_edge(connection) && !expect_rest(connection, what, (size_t)length == size)) ||
	    !read_pending(connection)) {
		end_resetting(connection, METRIC_CLOSED_NO_MEMORY);
		return;
	}
	count_received(connection, (size_t)length);
	if (lingers)
		throw_away(connection, (size_t)length);
	else
		take_input(connection, side->scratch, (size_t)length);
}

static void on_readable(evutil_socket_t fd, short what, void *argument)
{
	struct connection *connection = argument;

	(void)fd;
	if (connection->flags & HANDSHAKING)
		shake_hands(connection);
	else
		receive(connection, what);
}

/* --- deadlines --- */

static struct connection *connection_of(struct timer_wheel_entry *entry)
{
	return (struct connection *)(void *)((char *)entry - offsetof(struct connection, deadline));
}

/* Whether the service was removed, and the time that was left to its connections is over. */
static bool is_over(const struct instance *instance)
{
	uint64_t ends_at_ms = atomic_load(&instance->state->ends_at_ms);
	return ends_at_ms != 0 && clock_ms() >= ends_at_ms;
}

/* Ends a connection that may be in the midst of an exchange: says so to a client that has been sent all, and waits for its end. */
static void end_in_its_course(struct connection *connection, enum metric reason)
{
	if (holds_unsent(connection)) {
		end_resetting(connection, reason);
		return;
	}
	unsent_free(connection);
	/* bounds the wait for room, too: TLS may not be able to say at once that nothing follows */
	timer_wheel_set(connection->side->wheel, &connection->deadline, clock_ms() + TCP_LINGER_MS);
	linger(connection, reason);
}

/* Whether end_in_its_course has set the last deadline. */
static bool ends_in_its_course(const struct connection *connection)
{
	return connection->reason == METRIC_CLOSED_LIFETIME || connection->reason == METRIC_CLOSED_STOP;
}

/* A read ends at the mark of urgent data, short of what lies behind it, and nothing says so. Therefore, when a connection that
 * is watched by edges has been silent for a while after a read, it is read from once more, which costs one call a pause.
 * Returns as on_deadline. */
static uint64_t look_again(struct connection *connection, uint64_t now_ms, uint64_t deadline)
{
	if (now_ms < next_look(connection))
		return next_look(connection);
	connection->flags &= (uint8_t)~UNSURE;
	if (deadline <= now_ms)
		deadline = now_ms + TIMER_WHEEL_TICK_MS;
	if (!is_watched_by_edge(connection) || !event_pending(&connection->event, EV_READ, NULL))
		return deadline;
	timer_wheel_set(connection->side->wheel, &connection->deadline, deadline);
	receive(connection, EV_TIMEOUT);
	return 0;
}

/* Who lingers, and is not watched for its end, may have come to it by now. */
static void look_for_end(struct connection *connection)
{
	ssize_t length = plain_read(connection, connection->side->scratch, TCP_SCRATCH_SIZE);
	if (length == 0 || (length < 0 && errno != EAGAIN && errno != EINTR)) {
		end(connection, connection->reason);
		return;
	}
	if (length > 0) {
		count_received(connection, (size_t)length);
		if (!throw_away(connection, (size_t)length))
			return;
	}
	watch_for_end(connection);
}

static uint64_t on_deadline(struct timer_wheel_entry *entry, uint64_t now_ms)
{
	struct connection *connection = connection_of(entry);
	uint64_t lifetime_ms = (uint64_t)connection->instance->config->lifetime_ms;
	uint64_t deadline = next_deadline(connection);

	if (connection->flags & LINGERING) {
		if (is_watched_by_edge(connection))
			look_for_end(connection);
		else if (connection->reason == METRIC_CLOSED_DONE)
			end(connection, METRIC_CLOSED_DONE); /* a reply on its way may still arrive */
		else
			end_overdue(connection, connection->reason);
		return 0;
	}
	if (ends_in_its_course(connection)) {
		end_overdue(connection, connection->reason);
		return 0;
	}
	if (now_ms < deadline)
		return connection->flags & UNSURE ? look_again(connection, now_ms, deadline) : deadline;
	if (connection->flags & HANDSHAKING) {
		end(connection, METRIC_CLOSED_HANDSHAKE_TIMEOUT);
		return 0;
	}
	if (is_over(connection->instance)) {
		end_in_its_course(connection, METRIC_CLOSED_STOP);
	} else if (lifetime_ms == 0 || now_ms - connection->began_ms < lifetime_ms) {
		if (connection->flags & UNSURE) /* what it has sent may not have been read yet */
			return look_again(connection, now_ms, deadline);
		end_overdue(connection, METRIC_CLOSED_IDLE_TIMEOUT);
	} else {
		end_in_its_course(connection, METRIC_CLOSED_LIFETIME);
	}
	return 0;
}

/* Ends as orderly as can be done at once: what the client sent is read away, lest it turn the end into a reset. */
static void end_now(struct timer_wheel_entry *entry)
{
	struct connection *connection = connection_of(entry);
	char *scratch = connection->side->scratch;
	enum metric reason = connection->flags & LINGERING ? connection->reason : METRIC_CLOSED_STOP;

	if (holds_unsent(connection)) {
		end_resetting(connection, reason);
		return;
	}
	if (connection->flags & HANDSHAKING)
		connection->flags &= (uint8_t)~IN_TLS;
	for (int i = 0; i < 2 && transport_of(connection)->read(connection, scratch, TCP_SCRATCH_SIZE) > 0; i++)
		;
	end_in_order(connection, reason);
}

/* --- TLS --- */

static const enum metric tls_reasons[TLS_FAILURE_COUNT] = {
	[TLS_NO_FAILURE] = METRIC_CLOSED_TLS_PROTOCOL,
	[TLS_HANDSHAKE_FAILED] = METRIC_CLOSED_TLS_HANDSHAKE,
	[TLS_CERTIFICATE_MISSING] = METRIC_CLOSED_TLS_CERTIFICATE_MISSING,
	[TLS_CERTIFICATE_EXPIRED] = METRIC_CLOSED_TLS_CERTIFICATE_EXPIRED,
	[TLS_CERTIFICATE_NOT_YET_VALID] = METRIC_CLOSED_TLS_CERTIFICATE_NOT_YET_VALID,
	[TLS_CERTIFICATE_REVOKED] = METRIC_CLOSED_TLS_CERTIFICATE_REVOKED,
	[TLS_CERTIFICATE_UNKNOWN_AUTHORITY] = METRIC_CLOSED_TLS_CERTIFICATE_UNKNOWN_AUTHORITY,
	[TLS_CERTIFICATE_SELF_SIGNED] = METRIC_CLOSED_TLS_CERTIFICATE_SELF_SIGNED,
	[TLS_CERTIFICATE_WRONG_PURPOSE] = METRIC_CLOSED_TLS_CERTIFICATE_WRONG_PURPOSE,
	[TLS_CERTIFICATE_NO_CRL] = METRIC_CLOSED_TLS_CERTIFICATE_NO_CRL,
	[TLS_CERTIFICATE_INVALID] = METRIC_CLOSED_TLS_CERTIFICATE_INVALID,
	[TLS_PROTOCOL_FAILED] = METRIC_CLOSED_TLS_PROTOCOL,
};

static void log_tls_failure(const struct connection *connection, enum metric reason)
{
	struct instance *instance = connection->instance;
	const struct tls *tls = secured(connection)->tls;
	const char *subject = tls_client_subject(tls);
	struct socket_address peer = peer_address(connection);
	char source[SOCKET_TEXT_SIZE], why[200];

	if (!log_allows(&instance->refused_bound, clock_ms()))
		return;
	socket_address_print(&peer, source);
	tls_failure_print(tls, why, sizeof why);
	struct log_context context = {.service = instance->config->name, .transport = "tcp", .source = source};
	log_write(LOG_WARNING, &context, "%s: tcp %s refused: %s: %s%s%s", context.service, source,
		  metrics_rows[reason].reason, why, subject != NULL ? ", certificate " : "",
		  subject != NULL ? subject : "");
}

/* The session is over. OpenSSL has told the client why: it is given the time to read that, outside of TLS. */
static void fail_tls(struct connection *connection)
{
	enum metric reason = tls_reasons[tls_failure(secured(connection)->tls)];
	bool told = errno == EPROTO;

	log_tls_failure(connection, reason);
	unsent_free(connection);
	stop_reading(connection);
	connection->flags &= (uint8_t) ~(IN_TLS | HANDSHAKING);
	connection->reason = (uint8_t)reason;
	if (told && plain_shutdown(connection) == 0)
		await_end(connection);
	else
		end(connection, reason);
}

static void handshake_done(struct connection *connection)
{
	const int yes = 1;
	connection->flags &= (uint8_t)~HANDSHAKING;
	connection->active_ms = clock_ms();
	timer_wheel_set(connection->side->wheel, &connection->deadline, next_deadline(connection));
	/* there is nothing that the acknowledgement of the last flight could wait for: the client's first data does */
	setsockopt(connection_fd(connection), IPPROTO_TCP, TCP_QUICKACK, &yes, sizeof yes);
	if (!read_pending(connection))
		end_resetting(connection, METRIC_CLOSED_NO_MEMORY);
	else if (speaks_first(connection))
		speak(connection);
}

/* Goes on with the handshake. May end the connection. */
static void shake_hands(struct connection *connection)
{
	if (transport_of(connection)->handshake(connection) == 0) {
		handshake_done(connection);
		return;
	}
	if (errno != EAGAIN) {
		end_failed(connection);
		return;
	}
	if (!tls_wants_write(secured(connection)->tls))
		return;
	stop_reading(connection);
	if (!wait_writable(connection, NULL, 0))
		end_resetting(connection, METRIC_CLOSED_NO_MEMORY);
}

/* A connection whose struct is to be filled in; NULL: out of memory. */
static struct connection *connection_new(struct side *side, const struct instance *instance, int fd)
{
	const struct tls_context *context = instance->config->tls_context;
	if (context == NULL)
		return slab_take(&side->connections);
	struct secure_connection *connection = slab_take(&side->secure_connections);
	if (connection == NULL)
		return NULL;
	connection->tls = tls_new(context, fd);
	if (connection->tls == NULL) {
		slab_give(&side->secure_connections, connection);
		return NULL;
	}
	event_assign(&connection->again, worker_base(side->worker), -1, 0, on_readable, connection);
	return &connection->connection;
}

/* --- accepting --- */

/* Closes at once what is not let in; DETAIL says more about why, where there is more to say. */
static void turn_away(struct side *side, struct instance *instance, int fd, const struct socket_address *peer,
		      enum metric reason, const char *detail)
{
	char source[SOCKET_TEXT_SIZE];

	close(fd);
	metrics_add(&instance->tcp[side->index], reason, 1);
	leave(side->tcp, instance);
	if (!log_allows(&instance->refused_bound, clock_ms()))
		return;
	socket_address_print(peer, source);
	struct log_context context = {.service = instance->config->name, .transport = "tcp", .source = source};
	log_write(LOG_WARNING, &context, "%s: tcp %s turned away: %s%s%s", context.service, source,
		  metrics_rows[reason].reason, detail != NULL ? ": " : "", detail != NULL ? detail : "");
}

/* Why PEER is not let in; METRIC_COUNT: it is, and if sources are counted SOURCE holds its place. */
static enum metric judge(struct instance *instance, const struct socket_address *peer, struct limit_source **source)
{
	static const enum metric reasons[] = {
		[LIMIT_ADMIT] = METRIC_COUNT,
		[LIMIT_TURN_AWAY] = METRIC_REFUSED_SOURCE_LIMIT,
		[LIMIT_NO_MEMORY] = METRIC_REFUSED_NO_MEMORY,
	};
	struct in6_addr ip = socket_address_ip(peer), prefix = instance_source(instance, &ip);

	*source = NULL;
	if (instance->prefixes != NULL && !acl_allows(instance->prefixes, &ip))
		return METRIC_REFUSED_DENIED;
	if (instance->connection_buckets != NULL &&
	    !limit_bucket_take(instance->connection_buckets, &prefix, clock_ms()))
		return METRIC_REFUSED_RATE;
	if (instance->sources == NULL)
		return METRIC_COUNT;
	return reasons[limit_source_enter(instance->sources, &prefix, instance->source_maximum, source)];
}

/* Takes over a connection from PEER that was accepted at ACCEPTED_MS and holds its places. */
static void begin(struct side *side, struct instance *instance, int fd, const struct socket_address *peer,
		  uint64_t accepted_ms)
{
	struct limit_source *source;
	enum metric reason = judge(instance, peer, &source);
	if (reason != METRIC_COUNT) {
		turn_away(side, instance, fd, peer, reason, NULL);
		return;
	}
	struct connection *connection = connection_new(side, instance, fd);
	if (connection == NULL) {
		if (source != NULL)
			limit_source_leave(instance->sources, source);
		turn_away(side, instance, fd, peer, METRIC_REFUSED_NO_MEMORY, NULL);
		return;
	}
	metrics_add(&instance->tcp[side->index], METRIC_ACCEPTED, 1);
	instance_hold(instance, side->index);
	*connection = (struct connection){
		.side = side,
		.instance = instance,
		.source = source,
		.began_ms = accepted_ms,
		.active_ms = clock_ms(), /* a PROXY header has moved bytes, too */
		.flags = instance->config->tls_context != NULL ? IN_TLS | HANDSHAKING : 0,
	};
	set_peer(connection, peer);
	watch_input(connection, fd, first_kind(connection));
	if (speaks_first(connection) && !(connection->flags & HANDSHAKING) && !speak(connection))
		return;
	timer_wheel_set(side->wheel, &connection->deadline, next_deadline(connection));
	if (event_add(&connection->event, NULL) < 0)
		end_resetting(connection, METRIC_CLOSED_NO_MEMORY);
}

/* --- proxies --- */

/* The client that HEADER tells of; PEER where it tells of none. */
static struct socket_address source_of(const struct proxy_header *header, const struct socket_address *peer)
{
	const struct in6_addr *ip = &header->source;
	struct socket_address source = *peer;

	if (!header->tells_source)
		return source;
	if (IN6_IS_ADDR_V4MAPPED(ip))
		socket_address_set(&source, AF_INET, &ip->s6_addr[12], "", header->source_port);
	else
		socket_address_set(&source, AF_INET6, ip, "", header->source_port);
	return source;
}

/* A proxy has told who the client is, or not. */
static void on_header(void *context, const struct proxy_socket *proxy, enum proxy_accept_result result,
		      const struct proxy_header *header)
{
	struct side *side = context;
	struct instance *instance = proxy->owner;
	const struct socket_address *peer = &proxy->peer;
	struct socket_address source;

	switch (result) {
	case PROXY_ACCEPT_DONE:
		source = source_of(header, peer);
		begin(side, instance, proxy->fd, &source, proxy->accepted_ms);
		break;
	case PROXY_ACCEPT_BAD:
		turn_away(side, instance, proxy->fd, peer, METRIC_REFUSED_PROXY_HEADER, header->error);
		break;
	case PROXY_ACCEPT_ENDED:
		turn_away(side, instance, proxy->fd, peer, METRIC_REFUSED_PROXY_HEADER, "the proxy left");
		break;
	case PROXY_ACCEPT_FAILED:
		turn_away(side, instance, proxy->fd, peer, METRIC_REFUSED_PROXY_HEADER, strerror(errno));
		break;
	case PROXY_ACCEPT_LATE:
		turn_away(side, instance, proxy->fd, peer, METRIC_REFUSED_HANDSHAKE_TIMEOUT, NULL);
		break;
	case PROXY_ACCEPT_STOPPED:
		turn_away(side, instance, proxy->fd, peer, METRIC_REFUSED_STOP, NULL);
		break;
	}
	instance_release(instance, side->index);
}

/* Marks what PEER, the other end of FD, is sent as its first packet was. */
static void copy_dscp(int fd, const struct socket_address *peer)
{
	int dscp = socket_saved_dscp(fd);
	if (dscp >= 0)
		socket_set_dscp(fd, peer->any.sa_family, dscp);
}

/* Welcomes who was accepted, or the proxy that stands before them. */
static void welcome(struct side *side, struct instance *instance, int fd, const struct socket_address *peer)
{
	struct proxy_socket proxy = {.fd = fd, .owner = instance, .peer = *peer, .accepted_ms = clock_ms()};
	uint64_t deadline_ms = proxy.accepted_ms + (uint64_t)instance->config->handshake_timeout_ms;
	struct in6_addr ip;

	if (instance->config->dscp == DSCP_COPY)
		copy_dscp(fd, peer);
	if (instance->proxies == NULL) {
		begin(side, instance, fd, peer, proxy.accepted_ms);
		return;
	}
	ip = socket_address_ip(peer);
	if (!acl_allows(instance->proxies, &ip)) {
		turn_away(side, instance, fd, peer, METRIC_REFUSED_PROXY_REFUSED, NULL);
		return;
	}
	instance_hold(instance, side->index); /* until on_header */
	if (proxy_accept_wait(side->proxy_accept, &proxy, deadline_ms))
		return;
	turn_away(side, instance, fd, peer, METRIC_REFUSED_NO_MEMORY, NULL);
	instance_release(instance, side->index);
}

static void stopped(struct tcp_listener *listener)
{
	if (listener->stopped)
		return;
	listener->stopped = true;
	event_del(&listener->event);
	*listener->link = listener->next;
	if (listener->next != NULL)
		listener->next->link = listener->link;
	instance_release(listener->instance, listener->side->index);
	task_queue_post(listener->main, listener->done);
}

static void pause_full(struct tcp_listener *listener)
{
	const struct config_service *service = listener->instance->config;
	listener->paused = true;
	event_del(&listener->event);
	if (listener->stopping) {
		if (listener->shared)
			stopped(listener); /* main may have freed it by now */
		return;
	}
	if (!log_allows(&listener->instance->full_bound, clock_ms()))
		return;
	struct log_context context = {.service = service->name, .transport = "tcp"};
	bool own = limit_gate_left(listener->instance->gate) <= 0;
	int64_t maximum = own ? listener->instance->gate->maximum : listener->instance->daemon_gate->maximum;
	log_write(LOG_WARNING, &context, "%s: accepting pauses: max_connections = %lld of the %s is reached",
		  service->name, (long long)maximum, own ? "service" : "daemon");
}

/* Out of descriptors or memory: rest, or libevent spins on what cannot be accepted. */
static void pause_failed(struct tcp_listener *listener)
{
	const struct timeval rest = clock_timeval(TCP_RETRY_MS);
	struct side *side = listener->side;
	int error = errno;
	listener->paused = true;
	event_del(&listener->event);
	event_add(side->retry, &rest);
	if (!log_allows(&listener->instance->failed_bound, clock_ms()))
		return;
	struct log_context context = {.service = listener->instance->config->name, .transport = "tcp"};
	log_write(LOG_WARNING, &context, "%s: accepting pauses: %s", context.service, strerror(error));
}

static void watch(struct tcp_listener *listener)
{
	if (event_add(&listener->event, NULL) < 0)
		pause_failed(listener);
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
		welcome(side, listener->instance, fd, peer);
		return;
	}
	*dealt = (struct dealt){.instance = listener->instance, .fd = fd, .peer = *peer};
	instance_send(dealt->instance);
	dealt->next = atomic_load(&other->dealt);
	while (!atomic_compare_exchange_weak(&other->dealt, &dealt->next, dealt))
		;
	worker_post(other->worker, &other->take_dealt);
}

static void take_dealt(void *argument)
{
	struct side *side = argument;
	unsigned index = side->index;
	struct dealt *dealt = atomic_exchange(&side->dealt, NULL);
	while (dealt != NULL) {
		struct dealt *next = dealt->next;
		instance_receive(dealt->instance, index);
		welcome(side, dealt->instance, dealt->fd, &dealt->peer);
		instance_release(dealt->instance, index);
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
		if (!enter(side->tcp, listener->instance)) {
			pause_full(listener);
			return;
		}
		int accepted = accept4(fd, &peer.any, &peer.length, SOCK_NONBLOCK | SOCK_CLOEXEC);
		if (accepted >= 0) {
			take_in(listener, accepted, &peer);
			continue;
		}
		int error = errno;
		leave(side->tcp, listener->instance);
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
		watch(listener);
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
	instance_hold(listener->instance, side->index);
	event_assign(&listener->event, worker_base(side->worker), listener->fd, EV_READ | EV_PERSIST, on_acceptable,
		     listener);
	watch(listener);
}

/* Who paused at a limit looks again: it may be another one now. */
static void change(void *argument)
{
	struct tcp_listener *listener = argument;
	unsigned index = listener->side->index;
	instance_hold(listener->next_instance, index);
	instance_release(listener->instance, index);
	listener->instance = listener->next_instance;
	if (!listener->paused)
		return;
	listener->paused = false;
	watch(listener);
}

static void stop(void *argument)
{
	struct tcp_listener *listener = argument;
	listener->stopping = true;
	listener->rounds_left = SHARED_ROUNDS;
	if (listener->paused && listener->shared)
		stopped(listener); /* the queue of a shared one is for the others, where there is no place for it here */
	else if (!listener->paused)
		on_acceptable(listener->fd, EV_READ, listener);
}

static void end_if_removed(struct timer_wheel_entry *entry)
{
	struct connection *connection = connection_of(entry);
	if (is_over(connection->instance) && !(connection->flags & LINGERING))
		end_in_its_course(connection, METRIC_CLOSED_STOP);
}

static bool is_of_removed(const struct proxy_socket *proxy)
{
	return is_over(proxy->owner);
}

static void end_removed(void *argument)
{
	struct side *side = argument;
	proxy_accept_stop(side->proxy_accept, is_of_removed);
	timer_wheel_each(side->wheel, end_if_removed);
}

static void end_all(void *argument)
{
	struct side *side = argument;
	for (struct tcp_listener *listener = side->listeners, *next; listener != NULL; listener = next) {
		next = listener->next;
		if (listener->stopping)
			stopped(listener);
	}
	proxy_accept_stop(side->proxy_accept, NULL);
	timer_wheel_each(side->wheel, end_now);
}

static void on_thread_end(void *argument)
{
	struct side *side = argument;
	proxy_accept_stop(side->proxy_accept, NULL);
	timer_wheel_each(side->wheel, end_now);
}

/* --- what the main thread does --- */

static bool side_init(struct side *side, struct tcp *tcp, struct worker *worker)
{
	side->tcp = tcp;
	side->worker = worker;
	side->index = worker_index(worker);
	slab_init(&side->connections, sizeof(struct connection));
	slab_init(&side->secure_connections, sizeof(struct secure_connection));
	side->resume = (struct task){.run = resume, .argument = side};
	side->end = (struct task){.run = end_all, .argument = side};
	side->end_removed = (struct task){.run = end_removed, .argument = side};
	side->take_dealt = (struct task){.run = take_dealt, .argument = side};
	side->at_end = (struct task){.run = on_thread_end, .argument = side};
	worker_at_end(worker, &side->at_end);
	side->wheel = timer_wheel_new(worker_base(worker), on_deadline);
	side->proxy_accept = proxy_accept_new(worker_base(worker), on_header, side);
	side->scratch = aligned_alloc(SCRATCH_ALIGNMENT, TCP_SCRATCH_SIZE);
	side->retry = evtimer_new(worker_base(worker), on_retry, side);
	return side->wheel != NULL && side->proxy_accept != NULL && side->scratch != NULL && side->retry != NULL;
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
		leave(side->tcp, dealt->instance);
		instance_give_up(dealt->instance);
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
		proxy_accept_free(side->proxy_accept);
		timer_wheel_free(side->wheel);
		slab_clear(&side->connections);
		slab_clear(&side->secure_connections);
		free(side->scratch);
		if (side->retry != NULL)
			event_free(side->retry);
	}
	free(tcp);
}

struct tcp_listener *tcp_listener_new(struct tcp *tcp, unsigned worker, int fd, struct instance *instance)
{
	struct tcp_listener *listener = calloc(1, sizeof *listener);
	if (listener == NULL)
		return NULL;
	listener->side = &tcp->sides[worker];
	listener->instance = instance;
	listener->fd = fd;
	listener->start = (struct task){.run = start, .argument = listener};
	listener->stop = (struct task){.run = stop, .argument = listener};
	listener->change = (struct task){.run = change, .argument = listener};
	return listener;
}

void tcp_listener_share(struct tcp_listener *listener)
{
	listener->shared = true;
}

void tcp_listener_deal(struct tcp_listener *listener)
{
	listener->shared = listener->deals = true;
	listener->dealt_to = listener->side->index;
}

void tcp_listener_change(struct tcp_listener *listener, struct instance *instance)
{
	listener->next_instance = instance;
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

void tcp_listener_stop(struct tcp_listener *listener, struct task_queue *main, struct task *done)
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
		worker_post(tcp->sides[i].worker, &tcp->sides[i].end_removed);
}

void tcp_end_all(struct tcp *tcp)
{
	for (unsigned i = 0; i < tcp->count; i++)
		worker_post(tcp->sides[i].worker, &tcp->sides[i].end);
}
