/* proxy_accept.h: sockets of proxies, until their PROXY header has told who the client is. */
#ifndef SMALLSERVD_NET_PROXY_ACCEPT_H
#define SMALLSERVD_NET_PROXY_ACCEPT_H

#include <stdbool.h>
#include <stdint.h>

#include "net/proxy_header.h"
#include "net/socket.h"

struct event_base;

/* One worker's waiting sockets. */
struct proxy_accept;

/* A socket that was accepted; FD and OWNER stay the caller's. */
struct proxy_socket {
	int fd;
	void *owner;
	struct socket_address peer; /* the proxy */
	uint64_t accepted_ms;
};

enum proxy_accept_result {
	PROXY_ACCEPT_DONE,   /* the header has been read, and not one byte more */
	PROXY_ACCEPT_BAD,    /* HEADER says why */
	PROXY_ACCEPT_ENDED,  /* the proxy left before the header was whole */
	PROXY_ACCEPT_FAILED, /* errno says why */
	PROXY_ACCEPT_LATE,
	PROXY_ACCEPT_STOPPED,
};

/* Told once of each socket, which is not waited for any more. */
typedef void proxy_accept_callback(void *context, const struct proxy_socket *socket, enum proxy_accept_result result,
				   const struct proxy_header *header);

/* For BASE's thread; TELL is told with CONTEXT. NULL when out of memory. */
struct proxy_accept *proxy_accept_new(struct event_base *base, proxy_accept_callback *tell, void *context);

/* Tells as PROXY_ACCEPT_STOPPED of those that wait and are to STOP; NULL: of all. */
void proxy_accept_stop(struct proxy_accept *proxy_accept, bool (*stop)(const struct proxy_socket *socket));

/* Nothing waits any more. NULL is fine. */
void proxy_accept_free(struct proxy_accept *proxy_accept);

/* Waits until DEADLINE_MS of the wheel's clock for SOCKET's header; it may be told of before this returns. False: out of
 * memory, and it will not be told of. */
bool proxy_accept_wait(struct proxy_accept *proxy_accept, const struct proxy_socket *socket, uint64_t deadline_ms);

#endif
