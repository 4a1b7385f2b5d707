/* lookup.h: resolves a name within a time limit. */
#ifndef SMALLSERVD_PROBE_LOOKUP_H
#define SMALLSERVD_PROBE_LOOKUP_H

#include <netdb.h>
#include <stdint.h>

/* Calls getaddrinfo for HOST (at most 255 bytes) and PORT (7) and waits TIMEOUT_MS for it; 0: without limit, in the
 * calling thread. Returns its code, with errno for EAI_SYSTEM; ETIMEDOUT after the time limit. After 0 LIST is to be
 * freed by freeaddrinfo. */
int lookup_addresses(const char *host, const char *port, const struct addrinfo *hints, int64_t timeout_ms,
		     struct addrinfo **list);

#endif
