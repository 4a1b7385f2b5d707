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

/* The rest of tcp_watch_after_read, for what a message in a series of messages does not need. */
bool tcp_watch_expect_rest(struct connection *connection, short what, bool full);

/* Prepares for input that a read for WHAT may have left: FULL if it filled the buffer. Returns false when out of memory. */
static inline bool tcp_watch_after_read(struct connection *connection, short what, bool full)
{
	if (!tcp_watch_is_edge(connection) ||
	    (connection->recheck_pending && !full && !(what & (EV_TIMEOUT | EV_CLOSED))))
		return true;
	return tcp_watch_expect_rest(connection, what, full);
}

/* To be called at NOW_MS, before DEADLINE closes CONNECTION or while that is later: rechecks its input if that is due. Returns the next deadline, or
 * 0 if the deadline is set already or the connection was closed. */
uint64_t tcp_watch_recheck(struct connection *connection, uint64_t now_ms, uint64_t deadline);

/* Returns whether a recheck has to come before CONNECTION may be closed as idle. */
static inline bool tcp_watch_is_unchecked(const struct connection *connection)
{
	return connection->recheck_pending;
}

/* Polls the FIN of a LINGERING connection in 4 to 8 ms instead of watching for it. Returns false if an event is needed. */
bool tcp_watch_poll_fin(struct connection *connection);

/* Handles the timer of a LINGERING connection. Returns false if it was not polling: then its time is over. */
bool tcp_watch_on_poll(struct connection *connection);

#endif
