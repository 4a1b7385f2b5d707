/* preface.h: the PROXY protocol header of our own addresses, which a connection can begin with. */
#ifndef SMALLSERVD_PROBE_PREFACE_H
#define SMALLSERVD_PROBE_PREFACE_H

#include <stddef.h>
#include <sys/socket.h>

enum { PREFACE_MAX = 107 }; /* bytes of the longest one, of version 1 over IPv6 */

/* Writes the header of VERSION (1: text, 2: binary) for a TCP connection from NEAR to FAR, which are of one family, to
 * BYTES (PREFACE_MAX + 1). Returns its length. */
size_t preface_write(unsigned version, const struct sockaddr *near, const struct sockaddr *far, char *bytes);

#endif
