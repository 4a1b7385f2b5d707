/* tcp.h: TCP on all workers: listeners and connections. */
#ifndef SMALLSERVD_NET_TCP_H
#define SMALLSERVD_NET_TCP_H

#include "net/listener.h"

struct tcp;

/* All functions are for the main thread. */

/* Prepares COUNT workers that do not run yet; DAEMON_GATE is their common limit. Returns NULL when out of memory. */
struct tcp *tcp_new(struct worker *const *workers, unsigned count, struct limit_gate *daemon_gate);

/* Frees TCP after the workers have been stopped. NULL is fine. */
void tcp_free(struct tcp *tcp);

/* Creates a listener of worker number WORKER on FD, which stays the caller's. ROUND_ROBIN: it is the only one of its
 * endpoint, and distributes accepted connections over all workers. Returns NULL when out of memory. */
struct listener *tcp_listener_new(struct tcp *tcp, unsigned worker, int fd, struct instance *instance,
				  bool round_robin);

/* Posts IDLE to MAIN each time the last connection has been closed, from now on. Once. */
void tcp_drain(struct tcp *tcp, struct task_queue *main, struct task *idle);

/* Closes the connections of removed services after drain_timeout (service_state.ends_at_ms). */
void tcp_end_removed(struct tcp *tcp);

/* Closes every connection and stops every stopping listener at once. */
void tcp_end_all(struct tcp *tcp);

#endif
