/* takeover.c: what a new process has to settle with the one that started it. */
#include "takeover.h"

#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "upgrade.h"

struct takeover {
	int fd;
	struct event *event;
	struct takeover_events events;
	void *argument;
	bool taken;
};

static bool is_channel(int fd)
{
	int domain, type;
	socklen_t size = sizeof domain;
	return getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &size) == 0 && domain == AF_UNIX &&
	       getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) == 0 && type == SOCK_SEQPACKET;
}

int takeover_find(char *error, size_t size)
{
	const char *value = getenv(UPGRADE_VARIABLE);
	char *end;

	error[0] = '\0';
	if (value == NULL)
		return -1;
	errno = 0;
	long fd = strtol(value, &end, 10);
	bool valid = errno == 0 && value[0] >= '0' && value[0] <= '9' && *end == '\0' && fd > STDERR_FILENO &&
		     fd <= INT32_MAX && is_channel((int)fd) && fcntl((int)fd, F_SETFD, FD_CLOEXEC) == 0;
	if (!valid)
		snprintf(error, size, UPGRADE_VARIABLE "=%.32s names no channel to a process before this one", value);
	unsetenv(UPGRADE_VARIABLE);
	return valid ? (int)fd : -1;
}

/* The old one is gone, or ends the channel anyway: then the loop sees that. */
static void say(const struct takeover *takeover, const char *message)
{
	(void)!send(takeover->fd, message, strlen(message), MSG_NOSIGNAL);
}

static void take(struct takeover *takeover)
{
	char error[UPGRADE_MESSAGE_SIZE - sizeof UPGRADE_FAILED], message[UPGRADE_MESSAGE_SIZE];
	takeover->taken = takeover->events.take(takeover->argument, error, sizeof error);
	snprintf(message, sizeof message, UPGRADE_FAILED " %s", error);
	say(takeover, takeover->taken ? UPGRADE_TAKEN : message);
}

/* The end of the channel, which is to come, has nothing to say then. */
static void stop(struct takeover *takeover)
{
	event_del(takeover->event);
	takeover->events.stop(takeover->argument);
}

static void on_message(struct takeover *takeover, const char *message)
{
	if (strcmp(message, UPGRADE_TAKE) == 0 && !takeover->taken)
		take(takeover);
	else if (strcmp(message, UPGRADE_STOP) == 0)
		stop(takeover);
	else if (strcmp(message, UPGRADE_SERVE) == 0 && takeover->taken)
		takeover->events.serve(takeover->argument);
}

static void on_readable(evutil_socket_t fd, short what, void *argument)
{
	struct takeover *takeover = argument;
	char message[UPGRADE_MESSAGE_SIZE];

	(void)what;
	ssize_t length = recv(fd, message, sizeof message - 1, 0);
	if (length > 0) {
		message[length] = '\0';
		on_message(takeover, message);
	} else if (length == 0 || (errno != EAGAIN && errno != EINTR)) {
		event_del(takeover->event);
		takeover->events.alone(takeover->argument, takeover->taken);
	}
}

struct takeover *takeover_new(struct event_base *base, int fd, const struct takeover_events *events, void *argument)
{
	struct takeover *takeover = calloc(1, sizeof *takeover);
	if (takeover == NULL)
		return NULL;
	*takeover = (struct takeover){.fd = fd, .events = *events, .argument = argument};
	takeover->event = event_new(base, fd, EV_READ | EV_PERSIST, on_readable, takeover);
	if (takeover->event != NULL && event_add(takeover->event, NULL) == 0)
		return takeover;
	takeover_free(takeover);
	return NULL;
}

void takeover_tell_ready(struct takeover *takeover)
{
	say(takeover, UPGRADE_READY);
}

void takeover_free(struct takeover *takeover)
{
	if (takeover == NULL)
		return;
	if (takeover->event != NULL)
		event_free(takeover->event);
	close(takeover->fd);
	free(takeover);
}
