/* tcp.h: the life of a connection, from accept to close. */
#ifndef SMALLSERVD_NET_TCP_H
#define SMALLSERVD_NET_TCP_H

#include <stdbool.h>
#include <stdint.h>

#include "net/instance.h"
#include "thread/worker.h"

/* What bounds a connection. A worker adds TCP_SCRATCH_SIZE once. */
enum {
	TCP_SCRATCH_SIZE = 256 * 1024,      /* one receive, and so the most that a connection has unsent */
	TCP_UNSENT_HIGH = 64 * 1024 * 1024, /* of a worker: above it receives shrink to TCP_READ_SMALL */
	TCP_READ_SMALL = 4 * 1024,
	TCP_LINGER_MS = 2000,         /* a service that spoke last waits so long for the client's end */
	TCP_LINGER_BYTES = 64 * 1024, /* and throws away so much of its input */
	TCP_PLENTY = 1000, /* free places: where there are fewer, each is given back as soon as the client has ended */
	TCP_ACCEPTS_A_WAKEUP = 64,
	TCP_LOOK_AGAIN_MS =
		1000, /* after the last read of a burst: whether it has left anything, as at the mark of urgent data */
	TCP_RETRY_MS = 100, /* how long accepting rests when descriptors or memory ran out */
};

/* TCP on all workers. */
struct tcp;

/* Prepares COUNT workers that do not run yet; they share DAEMON_GATE. NULL when out of memory. */
struct tcp *tcp_new(struct worker *const *workers, unsigned count, struct limit_gate *daemon_gate);

/* The workers have been stopped: closes what is open still. NULL is fine. */
void tcp_free(struct tcp *tcp);

/* A listening socket served by one worker. */
struct tcp_listener;

/* FD stays the caller's, and open until the listener has stopped. NULL when out of memory. */
struct tcp_listener *tcp_listener_new(struct tcp *tcp, unsigned worker, int fd, struct instance *instance);

/* Other processes accept from its socket too: so a stop takes what is queued, but leaves them what comes meanwhile. Main thread, before the
 * stop. */
void tcp_listener_share(struct tcp_listener *listener);

/* It is the only listener of its endpoint: deals what it accepts to all workers in turn; and it is shared. Before its start. */
void tcp_listener_deal(struct tcp_listener *listener);

/* From now on serves new connections by RUNTIME; open ones go on as they began. Not again before the worker has got the task. Main
 * thread. */
void tcp_listener_change(struct tcp_listener *listener, struct instance *instance);

/* As socket_refuse_new, ahead of a stop. Never for a shared one. Main thread. */
int tcp_listener_refuse_new(struct tcp_listener *listener);

/* Starts accepting. Main thread. */
void tcp_listener_start(struct tcp_listener *listener);

/* Accepts what the kernel has queued, as far as limits let it, then stops and posts DONE to MAIN. Main thread, once. */
void tcp_listener_stop(struct tcp_listener *listener, struct task_queue *main, struct task *done);

/* It has stopped, or its worker has. */
void tcp_listener_free(struct tcp_listener *listener);

/* From now on posts IDLE to MAIN each time the last open connection has ended. Main thread, once. */
void tcp_drain(struct tcp *tcp, struct task_queue *main, struct task *idle);

/* Ends the connections of services that were removed and whose time is over (state->ends_at_ms). Main thread. */
void tcp_end_removed(struct tcp *tcp);

/* Ends every connection and stops every stopping listener now. Main thread. */
void tcp_end_all(struct tcp *tcp);

#endif
