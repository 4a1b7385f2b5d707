/* listen_fds.c: the sockets that this process was started with. */
#include "handoff/listen_fds.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/transport.h"

enum { FIRST_FD = 3, DESCRIPTORS_MAX = 1 << 20 };

/* A number without sign or anything behind it; -1: it is none. */
static long parse_number(const char *text, long maximum)
{
	char *end;
	if (text == NULL || text[0] < '0' || text[0] > '9')
		return -1;
	errno = 0;
	long number = strtol(text, &end, 10);
	return errno == 0 && *end == '\0' && number <= maximum ? number : -1;
}

/* The name of descriptor INDEX in LISTEN_FDNAMES, which has a colon between names; NULL: it has none. The caller frees it. */
static char *copy_name(const char *names, unsigned index)
{
	for (; names != NULL && index > 0; index--) {
		names = strchr(names, ':');
		names = names != NULL ? names + 1 : NULL;
	}
	size_t length = names != NULL ? strcspn(names, ":") : 0;
	return length > 0 ? strndup(names, length) : NULL;
}

static void add_descriptor(struct endpoint_pool *pool, int fd, const char *names, struct problems *problems)
{
	struct socket_kind kind;
	const char *wrong = socket_examine(fd, &kind);

	char *name = copy_name(names, (unsigned)(fd - FIRST_FD));
	if (wrong == NULL && fcntl(fd, F_SETFD, FD_CLOEXEC) < 0)
		wrong = strerror(errno);
	struct endpoint *endpoint = wrong == NULL ? endpoint_from_listen_fds(fd, &kind, name) : NULL;
	if (wrong != NULL) {
		problems_add(problems, NULL, "descriptor %d%s%s%s, which the service manager handed over, %s", fd,
			     name != NULL ? " (" : "", name != NULL ? name : "", name != NULL ? ")" : "", wrong);
	} else if (endpoint == NULL || !endpoint_pool_add(pool, endpoint)) {
		endpoint_free(endpoint);
		problems_add(problems, NULL, "descriptor %d: out of memory", fd);
	}
	free(name);
}

/* How many were handed over to us, and not to a process that we come from. */
static long count_handed(struct problems *problems)
{
	const char *pid = getenv("LISTEN_PID"), *count = getenv("LISTEN_FDS");
	if (pid == NULL || count == NULL || parse_number(pid, INT32_MAX) != (long)getpid())
		return 0;
	long handed = parse_number(count, DESCRIPTORS_MAX);
	if (handed < 0)
		problems_add(problems, NULL, "LISTEN_FDS is no count of descriptors: %s", count);
	return handed;
}

bool listen_fds_take(struct endpoint_pool *pool, struct problems *problems)
{
	static const char *const variables[] = {"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PIDFDID"};
	unsigned before = problems->count;
	long handed = count_handed(problems);

	for (int fd = FIRST_FD; fd < FIRST_FD + handed; fd++)
		add_descriptor(pool, fd, getenv("LISTEN_FDNAMES"), problems);
	for (size_t i = 0; i < sizeof variables / sizeof *variables; i++)
		unsetenv(variables[i]);
	return problems->count == before;
}

bool listen_fds_check_left(struct endpoint_pool *pool, struct problems *problems)
{
	const struct endpoint *endpoint;
	bool all_taken = true;
	char text[SOCKET_TEXT_SIZE];

	for (size_t i = 0; (endpoint = endpoint_pool_next(pool, &i)) != NULL; all_taken = false) {
		const char *name = endpoint->socket_name;
		socket_address_print(&endpoint->address, text);
		problems_add(problems, NULL,
			     "descriptor %d%s%s%s, which the service manager handed over, matches no endpoint: %s %s%s",
			     endpoint->fds[0], name != NULL ? " (" : "", name != NULL ? name : "",
			     name != NULL ? ")" : "", transport_name(endpoint->transport), text,
			     endpoint->dual_stack ? " of both families" : "");
	}
	return all_taken;
}
