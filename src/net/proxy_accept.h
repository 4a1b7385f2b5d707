/* proxy_accept.h: accepted sockets of proxies, until their PROXY header is read. */
#ifndef SMALLSERVD_NET_PROXY_ACCEPT_H
#define SMALLSERVD_NET_PROXY_ACCEPT_H

#include <stdbool.h>
#include <stdint.h>

#include "net/metrics.h"
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

/* Called once for each socket, which no longer waits then. HEADER was read, and no byte beyond it; NULL: the socket is
 * refused for REASON, with DETAIL or NULL. */
typedef void proxy_accept_callback(void *context, const struct proxy_socket *socket, const struct proxy_header *header,
				   enum metric reason, const char *detail);

/* Returns an empty set for the thread of BASE, which calls back with CONTEXT. NULL when out of memory. */
struct proxy_accept *proxy_accept_new(struct event_base *base, proxy_accept_callback *callback, void *context);

/* Ends the wait of the sockets for which STOP returns true with METRIC_REFUSED_STOP; NULL: of all. */
void proxy_accept_stop(struct proxy_accept *proxy_accept, bool (*stop)(const struct proxy_socket *socket));

/* Frees a set without waiting sockets. NULL is fine. */
void proxy_accept_free(struct proxy_accept *proxy_accept);

/* Waits for the header of SOCKET until DEADLINE_MS on clock_ms. The callback may come before the function returns.
 * Returns false when out of memory, without a callback. */
bool proxy_accept_wait(struct proxy_accept *proxy_accept, const struct proxy_socket *socket, uint64_t deadline_ms);

#endif
