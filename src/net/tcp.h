/* tcp.h: TCP on all workers: listeners and connections. */
#ifndef SMALLSERVD_NET_TCP_H
#define SMALLSERVD_NET_TCP_H

#include "net/instance.h"
#include "thread/worker.h"

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

struct tcp;

/* Prepares COUNT workers that do not run yet, with DAEMON_GATE as their common limit. Returns NULL when out of memory. Main thread, as all
 * functions here. */
struct tcp *tcp_new(struct worker *const *workers, unsigned count, struct limit_gate *daemon_gate);

/* Frees TCP after the workers have been stopped. NULL is fine. */
void tcp_free(struct tcp *tcp);

/* A listening socket of one worker. */
struct tcp_listener;

/* Creates a listener on FD, which stays the caller's, open until the listener has stopped. Returns NULL when out of memory. */
struct tcp_listener *tcp_listener_new(struct tcp *tcp, unsigned worker, int fd, struct instance *instance);

/* The socket is shared with another process: a stop drains the accept queue once and leaves later connections to it. Before the stop. */
void tcp_listener_keep_open(struct tcp_listener *listener);

/* The only listener of its endpoint, shared with other processes: distributes accepted connections round-robin over the workers. Before the start. */
void tcp_listener_set_round_robin(struct tcp_listener *listener);

/* Serves new connections by INSTANCE from now on; open ones continue unchanged. Not again before the worker has run the task. */
void tcp_listener_change(struct tcp_listener *listener, struct instance *instance);

/* Calls socket_stop_new, ahead of a stop. Not for a shared socket. Returns 0 or -errno. */
int tcp_listener_stop_new(struct tcp_listener *listener);

/* Starts accepting. */
void tcp_listener_start(struct tcp_listener *listener);

/* Accepts all queued connections, as far as limits allow, then stops and posts DONE to MAIN. Once. */
void tcp_listener_stop(struct tcp_listener *listener, struct task_queue *main, struct task *done);

/* Frees a listener that has stopped, or whose worker has. NULL is fine. */
void tcp_listener_free(struct tcp_listener *listener);

/* Posts IDLE to MAIN each time the last connection has been closed, from now on. Once. */
void tcp_drain(struct tcp *tcp, struct task_queue *main, struct task *idle);

/* Closes the connections of removed services whose time is over (service_state.ends_at_ms). */
void tcp_end_removed(struct tcp *tcp);

/* Closes every connection and stops every stopping listener at once. */
void tcp_end_all(struct tcp *tcp);

#endif
