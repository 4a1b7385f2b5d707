/* proxy_header.h: the header of the PROXY protocol, versions 1 and 2, as bytes: who the client behind a proxy is. */
#ifndef SMALLSERVD_NET_PROXY_HEADER_H
#define SMALLSERVD_NET_PROXY_HEADER_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
	PROXY_V1_MAX = 107,      /* bytes of a line, its end included, as the specification has it */
	PROXY_HEADER_MAX = 4096, /* bytes of a header that is accepted, its TLVs included */
};

enum proxy_result {
	PROXY_DONE, /* the header is whole and good */
	PROXY_MORE, /* good so far: every byte belongs to the header */
	PROXY_BAD,  /* no bytes that follow could make it good */
};

struct proxy_header {
	size_t length;          /* bytes of the header: what follows is the client's */
	bool tells_source;      /* false: UNKNOWN, UNSPEC or LOCAL, the connection speaks for itself */
	struct in6_addr source; /* IPv4 mapped into ::ffff:0:0/96 */
	uint16_t source_port;
	const char *error; /* why it is bad */
};

/* Reads the header that the LENGTH BYTES begin with, all that have come so far. */
enum proxy_result proxy_parse(const void *bytes, size_t length, struct proxy_header *header);

#endif
