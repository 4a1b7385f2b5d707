/* udp.h: datagram sockets: each is served by one worker, in batches. */
#ifndef SMALLSERVD_NET_UDP_H
#define SMALLSERVD_NET_UDP_H

#include <stdbool.h>

#include "net/listener.h"
#include "net/socket.h"

/* UDP on all workers. */
struct udp;

/* Returns the UDP part of COUNT workers, which do not run yet; NULL when out of memory. */
struct udp *udp_new(struct worker *const *workers, unsigned count);

/* Frees UDP after the workers have stopped. NULL is fine. */
void udp_free(struct udp *udp);

/* Properties of a datagram socket. */
struct udp_socket_facts {
	const struct socket_address *address; /* as bound */
	bool dual_stack;                      /* an IPv6 socket with IPv4 clients */
	/* of another network namespace, whose local addresses are unknown: a wildcard drops all datagrams from its
	 * port */
	bool foreign_netns;
	bool shared; /* see listener_set_shared; UDP_GRO is assumed to be on meanwhile */
};

/* Creates a listener of worker number WORKER on FD, which stays the caller's. Returns NULL when out of memory. Main
 * thread. */
struct listener *udp_socket_new(struct udp *udp, unsigned worker, int fd, const struct udp_socket_facts *facts,
				struct instance *instance);

#endif
