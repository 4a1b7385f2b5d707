/* target.h: who is probed: a host and a port, and the addresses they stand for. */
#ifndef SMALLSERVD_PROBE_TARGET_H
#define SMALLSERVD_PROBE_TARGET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#include "probe/options.h"

enum { TARGET_HOST_SIZE = 256, TARGET_ADDRESSES_MAX = 16, TARGET_TEXT_SIZE = 80, TARGET_ERROR_SIZE = 512 };

struct target_address {
	struct sockaddr_storage address;
	socklen_t length;
};

struct target {
	char host[TARGET_HOST_SIZE]; /* a name or an address, without brackets */
	uint16_t port;
	bool is_address;
	size_t count;
	struct target_address addresses[TARGET_ADDRESSES_MAX]; /* in the order to try them, the families in turns */
};

/* Reads HOST[:PORT], `[::1]:7` and the like, with the port of the options, else of their type. False: the reason is in
 * ERROR (TARGET_ERROR_SIZE bytes). */
bool target_parse(const struct options *options, struct target *target, char *error);

/* Finds the addresses with getaddrinfo, as the C library is configured, so names in /etc/hosts count (libevent's resolver asks DNS
 * alone). It blocks, up to the deadline of the options. False: the reason is in ERROR. */
bool target_resolve(const struct options *options, struct target *target, char *error);

/* Reads ADDRESS[:PORT] for the near end; without a port it is 0. False: the reason is in ERROR. */
bool target_parse_bind(const struct options *options, struct target_address *address, char *error);

/* Writes ADDRESS to TEXT (TARGET_TEXT_SIZE bytes) as 127.0.0.1:7 or [::1]:7. */
void target_print(const struct sockaddr *address, char *text);

#endif
