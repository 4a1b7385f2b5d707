/* tcp_internal.h: a TCP connection, as the modules tcp, tcp_connection, tcp_transport and tcp_watch share it. */
#ifndef SMALLSERVD_NET_TCP_INTERNAL_H
#define SMALLSERVD_NET_TCP_INTERNAL_H

#include <assert.h>
#include <event2/event.h>
#include <event2/event_struct.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>
#include <sys/types.h>

#include "core/timer_wheel.h"
#include "net/instance.h"
#include "net/listener.h"
#include "net/metrics.h"
#include "net/proxy_accept.h"
#include "net/sockaddr.h"
#include "tls/tls.h"

struct tcp;

/* The bounds of a connection. Each worker adds TCP_SCRATCH_SIZE once. */
enum {
	TCP_SCRATCH_SIZE = 256 * 1024,      /* the size of a read, and so the limit of unsent bytes of a connection */
	TCP_UNSENT_HIGH = 64 * 1024 * 1024, /* of a worker: above it reads shrink to TCP_READ_SMALL */
	TCP_READ_SMALL = 4 * 1024,
	TCP_LINGER_MS = 2000,         /* wait for the client's FIN */
	TCP_LINGER_BYTES = 64 * 1024, /* input discarded meanwhile */
	TCP_SPARE_SLOTS_MIN = 1000, /* with fewer free slots FIN is not polled: a slot is free as soon as FIN arrives */
	TCP_ACCEPTS_A_WAKEUP = 64,
	TCP_RECHECK_MS = 1000, /* after the last read of a burst: reads once more, for data behind urgent data */
	TCP_RETRY_MS = 100,    /* pause of accepting after a lack of descriptors or memory */
};

/* One worker's part of TCP. */
struct tcp_worker {
	struct tcp *tcp;
	struct worker *worker;
	unsigned index; /* of the worker */
	struct timer_wheel *wheel;
	struct proxy_accept *proxy_accept; /* accepted sockets that wait for a PROXY header */
	char *scratch;                     /* TCP_SCRATCH_SIZE bytes, used by one callback at a time */
	size_t unsent;                     /* bytes that connections hold */
	LIST_HEAD(, tcp_listener) listeners;
	struct event *retry; /* accepts again after a lack of descriptors or memory */
	_Atomic(struct tcp_migration *) migrating;
	struct task resume, end_all, end_removed, adopt; /* resume: a slot is free */
	struct task thread_end;
};

/* The states of a connection. Besides these, `unsent` and `read_blocked` say that the socket is not writable. */
enum connection_state {
	CONNECTION_HANDSHAKE, /* TLS handshake: the service does not know of it yet */
	CONNECTION_OPEN,      /* input and output of the service */
	CONNECTION_FLUSHING,  /* the output is complete, but for the unsent rest or close_notify; the reason is known */
	CONNECTION_LINGERING, /* the sending side is shut down: waits for the client's FIN and discards its input */
	CONNECTION_CLOSED,
	CONNECTION_STATE_COUNT,
};

/* The states that may follow each state, a bit per state. */
static const uint8_t connection_transitions[CONNECTION_STATE_COUNT] = {
	[CONNECTION_HANDSHAKE] = 1 << CONNECTION_OPEN | 1 << CONNECTION_LINGERING | 1 << CONNECTION_CLOSED,
	[CONNECTION_OPEN] = 1 << CONNECTION_FLUSHING | 1 << CONNECTION_LINGERING | 1 << CONNECTION_CLOSED,
	[CONNECTION_FLUSHING] = 1 << CONNECTION_FLUSHING | 1 << CONNECTION_LINGERING | 1 << CONNECTION_CLOSED,
	[CONNECTION_LINGERING] = 1 << CONNECTION_CLOSED,
	[CONNECTION_CLOSED] = 0,
};

/* Bytes after a short send: a block of its own, as few connections ever need one. */
struct unsent {
	struct event event; /* writability */
	size_t from, to;    /* of bytes */
	char bytes[];
};

/* Members are ordered by use: each message touches the first ones. */
struct connection {
	struct event event; /* readability */
	struct tcp_worker *worker;
	struct instance *instance;
	uint64_t received, sent;
	union {
		uint64_t active_ms;   /* of the last input or output */
		uint64_t linger_left; /* LINGERING: bytes of input that are still discarded */
	};
	uint8_t state : 3;        /* enum connection_state */
	bool tls_active : 1;      /* input and output pass through the TLS session, until it has failed */
	bool input_ended : 1;     /* FIN received */
	bool read_blocked : 1;    /* TLS has to send before it can receive */
	bool recheck_pending : 1; /* of tcp_watch.c */
	uint8_t reason;           /* enum metric: why it is being closed, once that is known */
	in_port_t peer_port;      /* in network order */
	uint32_t peer_scope;
	struct in6_addr peer_ip; /* IPv4 mapped into ::ffff:0:0/96 */
	uint64_t began_ms;
	struct timer_wheel_entry deadline;
	struct source_entry *source; /* the source's slot; NULL: sources are not limited */
	struct unsent *unsent;       /* NULL: the socket is writable */
};

/* An idle connection costs little else than this object. With malloc's header of 8 bytes it fits a block of 240 bytes;
 * the next larger block has 256. */
_Static_assert(sizeof(struct connection) <= 232, "struct connection needs a larger block of malloc");
_Static_assert(CONNECTION_STATE_COUNT <= 1 << 3, "a state does not fit its bit field");

/* A connection over TLS: a plain one has no memory for its members. */
struct tls_connection {
	struct connection connection;
	struct tls *tls;
	struct event pending; /* due at once: TLS holds decrypted input, for which the socket causes no event */
};

/* Changes the state; the transition has to be one of connection_transitions. */
static inline void connection_set_state(struct connection *connection, enum connection_state state)
{
	assert(connection_transitions[connection->state] & (1u << state));
	connection->state = (uint8_t)state & 7;
}

static inline int connection_fd(const struct connection *connection)
{
	return connection->event.ev_fd; /* event_get_fd would be a function call, twice per message */
}

static inline struct metrics_block *connection_counters(const struct connection *connection)
{
	return &connection->instance->tcp[connection->worker->index];
}

/* Returns whether CONNECTION is the first member of a struct tls_connection: true even after its session has failed. */
static inline bool connection_has_tls(const struct connection *connection)
{
	return connection->instance->config->tls_context != NULL;
}

static inline struct tls_connection *tls_connection_of(const struct connection *connection)
{
	return (struct tls_connection *)(uintptr_t)connection; /* its first member */
}

/* Returns the TLS session of CONNECTION, which has one. */
static inline struct tls *connection_tls(const struct connection *connection)
{
	return tls_connection_of(connection)->tls;
}

/* --- tcp_connection.c: all functions are for the connection's worker --- */

/* Starts a connection on FD, accepted from PEER at ACCEPTED_MS. The caller has taken its slots and has admitted SOURCE.
 * Returns false when out of memory: FD, slots and SOURCE are still the caller's. */
bool connection_start(struct tcp_worker *worker, struct instance *instance, int fd, const struct socket_address *peer,
		      struct source_entry *source, uint64_t accepted_ms);

/* The callback of the read event: EV_CLOSED when FIN was received. */
void connection_on_readable(evutil_socket_t fd, short events, void *connection);

/* Returns the client's address and port. */
struct socket_address connection_peer(const struct connection *connection);

/* Reads once, for EVENTS: EV_READ, EV_CLOSED when FIN was received, EV_TIMEOUT for a recheck. May close the
 * connection. */
void connection_receive(struct connection *connection, short events);

/* Returns the deadline of CONNECTION, not LINGERING, in ms of clock_ms(). */
uint64_t connection_deadline(const struct connection *connection);

/* The callback of the timer wheel. */
uint64_t connection_on_deadline(struct timer_wheel_entry *entry, uint64_t now_ms);

/* Closes the connection of ENTRY at once: RST if output is unsent, else FIN. For timer_wheel_each. */
void connection_close_now(struct timer_wheel_entry *entry);

/* Closes the connection of ENTRY if its service was removed and drain_timeout is over. For timer_wheel_each. */
void connection_close_if_removed(struct timer_wheel_entry *entry);

/* Returns whether the service of INSTANCE was removed and drain_timeout is over. */
bool connection_instance_expired(const struct instance *instance);

/* --- tcp.c --- */

/* Gives back a slot of the service and one of the daemon, and wakes listeners that wait for one. Any worker. */
void tcp_leave(struct tcp *tcp, struct instance *instance);

/* --- tcp_transport.c: plain TCP and TLS as the same operations --- */

/* The operations go through the TLS session while it is in use (tls_active), else to the socket. They return as recv(2)
 * and send(2) do: the number of bytes, 0 at the end of the stream, -1 with errno; EAGAIN: to be repeated when the
 * socket is ready. */
ssize_t tcp_transport_read(struct connection *connection, char *bytes, size_t size);

/* LAST: tcp_transport_shutdown follows at once, so the kernel may send short data together with the FIN. */
ssize_t tcp_transport_write(struct connection *connection, const char *bytes, size_t length, bool last);

/* Ends the sending side. Returns 0, or -1 with errno. */
int tcp_transport_shutdown(struct connection *connection);

/* Allocates a connection of INSTANCE and its TLS session, if any. The struct connection is uninitialised. Returns NULL
 * when out of memory. */
struct connection *tcp_transport_alloc(struct tcp_worker *worker, const struct instance *instance, int fd);

/* Frees the connection and its TLS session. */
void tcp_transport_free(struct connection *connection);

/* Logs why the TLS session failed, and returns the reason for the counter. */
enum metric tcp_transport_failure(const struct connection *connection);

/* --- tcp_watch.c, edge-triggered reading and polling for FIN: all functions are for the connection's worker --- */

/* Assigns the read event of a new CONNECTION on FD, without adding it. */
void tcp_watch_init(struct connection *connection, int fd);

/* Makes the read event level-triggered from now on; it stays added or not. Returns false when out of memory. */
bool tcp_watch_level(struct connection *connection);

static inline bool tcp_watch_is_edge(const struct connection *connection)
{
	return connection->event.ev_events & EV_ET;
}

/* The out-of-line part of tcp_watch_after_read: a message in a series does not need it. */
bool tcp_watch_expect_rest(struct connection *connection, short events, bool full);

/* Prepares for input that a read for EVENTS may have left: FULL if it filled the buffer. Returns false when out of
 * memory. */
static inline bool tcp_watch_after_read(struct connection *connection, short events, bool full)
{
	if (!tcp_watch_is_edge(connection) ||
	    (connection->recheck_pending && !full && !(events & (EV_TIMEOUT | EV_CLOSED))))
		return true;
	return tcp_watch_expect_rest(connection, events, full);
}

/* Rechecks the input of CONNECTION at NOW_MS, if that is due. Must run before DEADLINE closes the connection. Returns
 * the next deadline, or 0 if the deadline is set already or the connection was closed. */
uint64_t tcp_watch_recheck(struct connection *connection, uint64_t now_ms, uint64_t deadline);

/* Returns whether a recheck has to come before CONNECTION may be closed as idle. */
static inline bool tcp_watch_is_unchecked(const struct connection *connection)
{
	return connection->recheck_pending;
}

/* Schedules a poll for the FIN of a LINGERING connection in 4 to 8 ms, in place of an event. Returns false if an event
 * is needed. */
bool tcp_watch_poll_fin(struct connection *connection);

/* Returns whether a LINGERING connection polls for FIN, so that its timer is due for a read. Otherwise it waits for an
 * event, and its timer is the linger timeout. */
static inline bool tcp_watch_is_polling(const struct connection *connection)
{
	return tcp_watch_is_edge(connection);
}

#endif
