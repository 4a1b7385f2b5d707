/* proxied.h: sockets of proxies, until their PROXY header has told who the client is. */
#ifndef SMALLSERVD_PROXIED_H
#define SMALLSERVD_PROXIED_H

#include <stdbool.h>
#include <stdint.h>

#include "proxy.h"
#include "socket.h"

struct event_base;

/* One worker's waiting sockets. */
struct proxied;

/* A socket that was accepted; FD and OWNER stay the caller's. */
struct proxied_socket {
	int fd;
	void *owner;
	struct socket_address peer; /* the proxy */
	uint64_t accepted_ms;
};

enum proxied_result {
	PROXIED_DONE,   /* the header has been read, and not one byte more */
	PROXIED_BAD,    /* HEADER says why */
	PROXIED_ENDED,  /* the proxy left before the header was whole */
	PROXIED_FAILED, /* errno says why */
	PROXIED_LATE,
	PROXIED_STOPPED,
};

/* Told once of each socket, which is not waited for any more. */
typedef void proxied_callback(void *context, const struct proxied_socket *socket, enum proxied_result result,
			      const struct proxy_header *header);

/* For BASE's thread; TELL is told with CONTEXT. NULL when out of memory. */
struct proxied *proxied_new(struct event_base *base, proxied_callback *tell, void *context);

/* Tells as PROXIED_STOPPED of those that wait and are to STOP; NULL: of all. */
void proxied_stop(struct proxied *proxied, bool (*stop)(const struct proxied_socket *socket));

/* Nothing waits any more. NULL is fine. */
void proxied_free(struct proxied *proxied);

/* Waits until DEADLINE_MS of the wheel's clock for SOCKET's header; it may be told of before this returns. False: out of
 * memory, and it will not be told of. */
bool proxied_wait(struct proxied *proxied, const struct proxied_socket *socket, uint64_t deadline_ms);

#endif
