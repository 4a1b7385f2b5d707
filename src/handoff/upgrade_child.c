/* upgrade_child.c: what a new process has to settle with the one that started it. */
#include "handoff/upgrade_child.h"

#include <errno.h>
#include <event2/event.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "handoff/received_fd.h"
#include "handoff/upgrade_parent.h"

struct upgrade_child {
	int fd;
	struct event *event;
	struct upgrade_child_events events;
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

int upgrade_child_find(struct problems *problems)
{
	return received_fd_from_environment(UPGRADE_VARIABLE, is_channel, problems);
}

/* The old one is gone, or ends the channel anyway: then the loop sees that. */
static void say(const struct upgrade_child *upgrade_child, const char *message)
{
	(void)!send(upgrade_child->fd, message, strlen(message), MSG_NOSIGNAL);
}

static void take(struct upgrade_child *upgrade_child)
{
	char error[UPGRADE_MESSAGE_SIZE - sizeof UPGRADE_FAILED], message[UPGRADE_MESSAGE_SIZE];
	upgrade_child->taken = upgrade_child->events.take(upgrade_child->argument, error, sizeof error);
	snprintf(message, sizeof message, UPGRADE_FAILED " %s", error);
	say(upgrade_child, upgrade_child->taken ? UPGRADE_TAKEN : message);
}

/* The end of the channel, which is to come, has nothing to say then. */
static void stop(struct upgrade_child *upgrade_child)
{
	event_del(upgrade_child->event);
	upgrade_child->events.stop(upgrade_child->argument);
}

static void on_message(struct upgrade_child *upgrade_child, const char *message)
{
	if (strcmp(message, UPGRADE_TAKE) == 0 && !upgrade_child->taken)
		take(upgrade_child);
	else if (strcmp(message, UPGRADE_STOP) == 0)
		stop(upgrade_child);
	else if (strcmp(message, UPGRADE_SERVE) == 0 && upgrade_child->taken)
		upgrade_child->events.serve(upgrade_child->argument);
}

static void on_readable(evutil_socket_t fd, short what, void *argument)
{
	struct upgrade_child *upgrade_child = argument;
	char message[UPGRADE_MESSAGE_SIZE];

	(void)what;
	ssize_t length = recv(fd, message, sizeof message - 1, 0);
	if (length > 0) {
		message[length] = '\0';
		on_message(upgrade_child, message);
	} else if (length == 0 || (errno != EAGAIN && errno != EINTR)) {
		event_del(upgrade_child->event);
		upgrade_child->events.alone(upgrade_child->argument, upgrade_child->taken);
	}
}

struct upgrade_child *upgrade_child_new(struct event_base *base, int fd, const struct upgrade_child_events *events,
					void *argument)
{
	struct upgrade_child *upgrade_child = calloc(1, sizeof *upgrade_child);
	if (upgrade_child == NULL)
		return NULL;
	*upgrade_child = (struct upgrade_child){.fd = fd, .events = *events, .argument = argument};
	upgrade_child->event = event_new(base, fd, EV_READ | EV_PERSIST, on_readable, upgrade_child);
	if (upgrade_child->event != NULL && event_add(upgrade_child->event, NULL) == 0)
		return upgrade_child;
	upgrade_child_free(upgrade_child);
	return NULL;
}

void upgrade_child_tell_ready(struct upgrade_child *upgrade_child)
{
	say(upgrade_child, UPGRADE_READY);
}

void upgrade_child_free(struct upgrade_child *upgrade_child)
{
	if (upgrade_child == NULL)
		return;
	if (upgrade_child->event != NULL)
		event_free(upgrade_child->event);
	close(upgrade_child->fd);
	free(upgrade_child);
}
