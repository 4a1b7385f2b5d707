/* udp.h: datagram sockets: each is served by one worker, in batches. */
#ifndef SMALLSERVD_NET_UDP_H
#define SMALLSERVD_NET_UDP_H

#include <stdbool.h>

#include "net/instance.h"
#include "net/socket.h"
#include "thread/worker.h"

enum {
	UDP_BATCH = 32,                /* messages of a receive: bounds a socket's turn on its worker */
	UDP_DATAGRAM_SIZE = 64 * 1024, /* the longest datagram fits, so that none is truncated */
};

/* UDP on all workers. */
struct udp;

/* Returns the UDP part of COUNT workers, which do not run yet; NULL when out of memory. */
struct udp *udp_new(struct worker *const *workers, unsigned count);

/* Frees UDP after the workers have stopped. NULL is fine. */
void udp_free(struct udp *udp);

/* A datagram socket served by one worker. */
struct udp_socket;

/* Returns a socket served by worker number WORKER; NULL when out of memory. FD, bound to ADDRESS, stays the caller's,
 * who keeps it open until the socket has stopped. */
struct udp_socket *udp_socket_new(struct udp *udp, unsigned worker, int fd, const struct socket_address *address,
				  struct instance *instance);

/* Marks the socket as SHARED with another process, or no longer: the options of a shared socket are not changed, and
 * UDP_GRO is assumed to be on. Takes effect with the next receive. Any thread. */
void udp_socket_set_shared(struct udp_socket *socket, bool shared);

/* Leaves the socket's later datagrams to another process: a stop answers the queued ones only. Main thread, before the
 * stop. */
void udp_socket_keep_open(struct udp_socket *socket);

/* Marks an IPv6 socket as one with IPv4 clients too. Before its start. */
void udp_socket_set_dual_stack(struct udp_socket *socket);

/* Marks the socket as one of a foreign network namespace, whose local addresses are unknown: a wildcard then drops all
 * datagrams from its own port. Before its start. */
void udp_socket_set_foreign_netns(struct udp_socket *socket);

/* Serves by INSTANCE from now on. Main thread; not again before the worker has run the task. */
void udp_socket_change(struct udp_socket *socket, struct instance *instance);

/* Starts serving. Main thread. */
void udp_socket_start(struct udp_socket *socket);

/* Answers the queued datagrams, stops and posts DONE to MAIN. Main thread, once. */
void udp_socket_stop(struct udp_socket *socket, struct task_queue *main, struct task *done);

/* Frees a socket that has stopped, or whose worker has. NULL is fine. */
void udp_socket_free(struct udp_socket *socket);

#endif
