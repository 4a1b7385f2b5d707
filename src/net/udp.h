/* udp.h: the life of a batch of datagrams. */
#ifndef SMALLSERVD_NET_UDP_H
#define SMALLSERVD_NET_UDP_H

#include <stdbool.h>

#include "net/instance.h"
#include "net/socket.h"
#include "thread/worker.h"

/* What bounds a worker's turn at one socket, and the memory of its datagrams. */
enum {
	UDP_BATCH = 32,
	UDP_DATAGRAM_SIZE = 64 * 1024, /* room for the longest, so that none is ever cut */
};

/* UDP on all workers. */
struct udp;

/* Prepares COUNT workers that do not run yet. NULL when out of memory. */
struct udp *udp_new(struct worker *const *workers, unsigned count);

/* The workers have been stopped. NULL is fine. */
void udp_free(struct udp *udp);

/* A datagram socket served by one worker. */
struct udp_socket;

/* FD, bound to ADDRESS, stays the caller's, and open until the socket has stopped. NULL when out of memory. */
struct udp_socket *udp_socket_new(struct udp *udp, unsigned worker, int fd, const struct socket_address *address,
				  struct instance *instance);

/* SHARED with another process: from the next receive on its options are left as they are, since both would have to know
 * of a change (UDP_GRO), and it is read as if the other one had made it. Not shared, as at first: they are ours again.
 * Any thread. */
void udp_socket_set_shared(struct udp_socket *socket, bool shared);

/* Others have it too, and may go on with it: so a stop answers what is queued, but leaves it open to what comes. Main thread, before the
 * stop. */
void udp_socket_leave_open(struct udp_socket *socket);

/* IPv4 clients reach it too, though it is an IPv6 socket. Before its start. */
void udp_socket_serve_both_families(struct udp_socket *socket);

/* It is of another network than this process: so which addresses are its own nobody here can tell, and on a wildcard its own port as source is
 * enough to be dropped. Before its start. */
void udp_socket_hear_elsewhere(struct udp_socket *socket);

/* From now on serves by RUNTIME. Not again before the worker has got the task. Main thread. */
void udp_socket_change(struct udp_socket *socket, struct instance *instance);

/* FD is what its worker calls its socket (worker_give_fds), where that is not what main calls it. Before its start. */
void udp_socket_name(struct udp_socket *socket, int fd);

/* Starts serving. Main thread. */
void udp_socket_start(struct udp_socket *socket);

/* Answers what the kernel has queued, then stops and posts DONE to MAIN. Main thread, once. */
void udp_socket_stop(struct udp_socket *socket, struct task_queue *main, struct task *done);

/* It has stopped, or its worker has. NULL is fine. */
void udp_socket_free(struct udp_socket *socket);

#endif
