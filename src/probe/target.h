/* target.h: the probed host and port, and their addresses. */
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
	struct target_address addresses[TARGET_ADDRESSES_MAX]; /* in the order of attempts, the families interleaved */
};

/* Parses HOST[:PORT], `[::1]:7` and the like; the default port is that of the options, else of their type. Returns
 * false with the reason in ERROR (TARGET_ERROR_SIZE bytes). */
bool target_parse(const struct options *options, struct target *target, char *error);

/* Resolves the target with getaddrinfo, which includes /etc/hosts (libevent's resolver asks DNS alone). Blocks up to
 * the deadline of the options. Returns false with the reason in ERROR. */
bool target_resolve(const struct options *options, struct target *target, char *error);

/* Parses ADDRESS[:PORT] of the local end; the default port is 0. Returns false with the reason in ERROR. */
bool target_parse_bind(const struct options *options, struct target_address *address, char *error);

/* Writes ADDRESS to TEXT (TARGET_TEXT_SIZE bytes) as 127.0.0.1:7 or [::1]:7. */
void target_print(const struct sockaddr *address, char *text);

#endif
