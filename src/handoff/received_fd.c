/* received_fd.c: descriptors that this process was started with. */
#include "handoff/received_fd.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

long received_fd_number(const char *text, long maximum)
{
	char *end;
	if (text == NULL || text[0] < '0' || text[0] > '9')
		return -1;
	errno = 0;
	long number = strtol(text, &end, 10);
	return errno == 0 && *end == '\0' && number <= maximum ? number : -1;
}

int received_fd_from_environment(const char *variable, bool (*is_valid)(int fd), struct diagnostics *diagnostics)
{
	const char *value = getenv(variable);
	int fd = (int)received_fd_number(value, INT_MAX);

	if (value == NULL)
		return -1;
	if (fd <= STDERR_FILENO || !is_valid(fd) || fcntl(fd, F_SETFD, FD_CLOEXEC) < 0) {
		diagnostics_log(diagnostics, NULL, "%s: invalid descriptor: %.32s", variable, value);
		fd = -1;
	}
	unsetenv(variable);
	return fd;
}

const char *received_fd_examine(int fd, struct socket_kind *kind)
{
	int flags = fcntl(fd, F_GETFD);
	if (flags < 0)
		return "is not open";
	if (flags & FD_CLOEXEC)
		return "was not passed through exec, or is listed twice";
	const char *reason = socket_examine(fd, kind);
	if (reason != NULL)
		return reason;
	return fcntl(fd, F_SETFD, FD_CLOEXEC) < 0 ? strerror(errno) : NULL;
}
