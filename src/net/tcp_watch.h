/* tcp_watch.h: when the kernel reports input, and when a connection looks for it itself. */
#ifndef SMALLSERVD_NET_TCP_WATCH_H
#define SMALLSERVD_NET_TCP_WATCH_H

#include "net/tcp_connection.h"

/* All functions are for the connection's worker. */

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

/* Returns whether a LINGERING connection polls for FIN, and its timer therefore asks for a read. False: it waits for an
 * event, and its timer is the linger timeout. */
static inline bool tcp_watch_is_polling(const struct connection *connection)
{
	return tcp_watch_is_edge(connection);
}

#endif
