/* listen_fds.c: socket activation, see sd_listen_fds(3). */
#include "handoff/listen_fds.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/array.h"
#include "core/transport.h"
#include "handoff/received_fd.h"

enum { FIRST_FD = 3, DESCRIPTORS_MAX = 1 << 20 };

/* Returns the name of descriptor INDEX in NAMES, separated by colons, for the caller to free; NULL: it has none. */
static char *copy_name(const char *names, unsigned index)
{
	for (; names != NULL && index > 0; index--) {
		names = strchr(names, ':');
		names = names != NULL ? names + 1 : NULL;
	}
	size_t length = names != NULL ? strcspn(names, ":") : 0;
	return length > 0 ? strndup(names, length) : NULL;
}

static void report(struct diagnostics *diagnostics, int fd, const char *name, const char *reason)
{
	diagnostics_log(diagnostics, NULL, "LISTEN_FDS: descriptor %d%s%s%s: %s", fd, name != NULL ? " (" : "",
			name != NULL ? name : "", name != NULL ? ")" : "", reason);
}

static void add_descriptor(struct endpoint_pool *pool, int fd, const char *names, struct diagnostics *diagnostics)
{
	struct socket_kind kind;
	char *name = copy_name(names, (unsigned)(fd - FIRST_FD));
	const char *reason = received_fd_examine(fd, &kind);
	struct endpoint *endpoint = reason == NULL ? endpoint_from_listen_fds(fd, &kind, name) : NULL;

	if (reason != NULL) {
		report(diagnostics, fd, name, reason);
	} else if (endpoint == NULL || !endpoint_pool_add(pool, endpoint)) {
		endpoint_free(endpoint);
		report(diagnostics, fd, name, "out of memory");
	}
	free(name);
}

/* Returns the number of descriptors; 0 if LISTEN_PID is another process, -1 and a problem if the number is invalid. */
static long count_descriptors(struct diagnostics *diagnostics)
{
	const char *pid = getenv("LISTEN_PID"), *text = getenv("LISTEN_FDS");
	if (text == NULL || received_fd_number(pid, INT32_MAX) != (long)getpid())
		return 0;
	long count = received_fd_number(text, DESCRIPTORS_MAX);
	if (count < 0)
		diagnostics_log(diagnostics, NULL, "LISTEN_FDS: invalid number: %s", text);
	return count;
}

bool listen_fds_take(struct endpoint_pool *pool, struct diagnostics *diagnostics)
{
	static const char *const variables[] = {"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PIDFDID"};
	unsigned before = diagnostics->errors;
	long count = count_descriptors(diagnostics);

	for (int fd = FIRST_FD; fd < FIRST_FD + count; fd++)
		add_descriptor(pool, fd, getenv("LISTEN_FDNAMES"), diagnostics);
	for (size_t i = 0; i < COUNT_OF(variables); i++)
		unsetenv(variables[i]);
	return diagnostics->errors == before;
}

bool listen_fds_check_unused(struct endpoint_pool *pool, struct diagnostics *diagnostics)
{
	const struct endpoint *endpoint;
	unsigned before = diagnostics->errors;
	char address[SOCKET_TEXT_SIZE], reason[SOCKET_TEXT_SIZE + 64];

	for (size_t i = 0; (endpoint = endpoint_pool_next(pool, &i)) != NULL;) {
		socket_address_print(&endpoint->address, address);
		snprintf(reason, sizeof reason, "matches no endpoint: %s %s%s", transport_name(endpoint->transport),
			 address, endpoint->dual_stack ? " (dual-stack)" : "");
		report(diagnostics, endpoint->fds[0], endpoint->socket_name, reason);
	}
	return diagnostics->errors == before;
}
