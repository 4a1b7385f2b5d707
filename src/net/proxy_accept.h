/* proxy_accept.h: accepted sockets of proxies, until their PROXY header is read. */
#ifndef SMALLSERVD_NET_PROXY_ACCEPT_H
#define SMALLSERVD_NET_PROXY_ACCEPT_H

#include <stdbool.h>
#include <stdint.h>

#include "net/proxy_header.h"
#include "net/socket.h"

struct event_base;

/* The waiting sockets of one worker. */
struct proxy_accept;

/* An accepted socket. FD and OWNER stay the caller's. */
struct proxy_socket {
	int fd;
	void *owner;
	struct socket_address peer; /* the proxy */
	uint64_t accepted_ms;
};

enum proxy_accept_result {
	PROXY_ACCEPT_DONE,   /* the header is read, and no byte beyond it */
	PROXY_ACCEPT_BAD,    /* with the reason in HEADER */
	PROXY_ACCEPT_ENDED,  /* FIN before the end of the header */
	PROXY_ACCEPT_FAILED, /* with errno */
	PROXY_ACCEPT_LATE,   /* the deadline has passed */
	PROXY_ACCEPT_STOPPED,
};

/* Called once for each socket, which no longer waits then. */
typedef void proxy_accept_callback(void *context, const struct proxy_socket *socket, enum proxy_accept_result result,
				   const struct proxy_header *header);

/* Returns an empty set for the thread of BASE, which calls back with CONTEXT. NULL when out of memory. */
struct proxy_accept *proxy_accept_new(struct event_base *base, proxy_accept_callback *callback, void *context);

/* Ends the wait of the sockets for which STOP returns true with PROXY_ACCEPT_STOPPED; NULL: of all. */
void proxy_accept_stop(struct proxy_accept *proxy_accept, bool (*stop)(const struct proxy_socket *socket));

/* Frees a set without waiting sockets. NULL is fine. */
void proxy_accept_free(struct proxy_accept *proxy_accept);

/* Waits for the header of SOCKET until DEADLINE_MS on clock_ms. The callback may come before the function returns.
 * Returns false when out of memory, without a callback. */
bool proxy_accept_wait(struct proxy_accept *proxy_accept, const struct proxy_socket *socket, uint64_t deadline_ms);

#endif
