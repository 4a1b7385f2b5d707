/* proxy_header.h: the PROXY protocol header that a connection can begin with. */
#ifndef SMALLSERVD_PROBE_PROXY_HEADER_H
#define SMALLSERVD_PROBE_PROXY_HEADER_H

#include <stddef.h>
#include <sys/socket.h>

enum { PROXY_HEADER_MAX = 107 }; /* bytes of the longest header, of version 1 over IPv6 */

/* Writes the header of VERSION (1: text, 2: binary) for a TCP connection from NEAR to FAR, which are of one family, to
 * BYTES (PROXY_HEADER_MAX + 1). Returns its length. */
size_t proxy_header_write(unsigned version, const struct sockaddr *near, const struct sockaddr *far, char *bytes);

#endif
