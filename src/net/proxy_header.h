/* proxy_header.h: parser of PROXY protocol headers, versions 1 and 2. */
#ifndef SMALLSERVD_NET_PROXY_HEADER_H
#define SMALLSERVD_NET_PROXY_HEADER_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
	PROXY_V1_MAX = 107,      /* bytes of a line with its end, by the specification */
	PROXY_HEADER_MAX = 4096, /* bytes of an accepted header with its TLVs */
};

enum proxy_result {
	PROXY_DONE, /* the header is complete and valid */
	PROXY_MORE, /* valid but incomplete: all bytes belong to the header */
	PROXY_BAD,  /* invalid */
};

struct proxy_header {
	size_t length;          /* bytes of the header; the client's bytes follow */
	bool has_source;        /* false: UNKNOWN, UNSPEC or LOCAL: the peer of the connection is the client */
	struct in6_addr source; /* IPv4 mapped into ::ffff:0:0/96 */
	uint16_t source_port;
	const char *error; /* the reason of PROXY_BAD */
};

/* Parses the header at the beginning of BYTES, the LENGTH bytes received so far. */
enum proxy_result proxy_parse(const void *bytes, size_t length, struct proxy_header *header);

#endif
