/* lookup.h: the addresses of a name, for as long as one has time. */
#ifndef SMALLSERVD_PROBE_LOOKUP_H
#define SMALLSERVD_PROBE_LOOKUP_H

#include <netdb.h>
#include <stdint.h>

/* What getaddrinfo says of HOST (at most 255 bytes) and PORT (7), if it does within TIMEOUT_MS; 0: however long it takes, and then it is asked
 * here and now. Returns its code, with errno for EAI_SYSTEM, which is ETIMEDOUT where there was no answer in time. At 0 LIST is for
 * freeaddrinfo. */
int lookup_addresses(const char *host, const char *port, const struct addrinfo *hints, int64_t timeout_ms,
		     struct addrinfo **list);

#endif
