/* upgrade_child.c: the new process's side of an upgrade. */
#include "handoff/upgrade_child.h"

#include <event2/event.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "handoff/received_fd.h"
#include "handoff/upgrade_channel.h"

struct upgrade_child {
	int fd;
	struct event *event;
	struct upgrade_child_events events;
	void *argument;
	bool taken_over;
};

static bool is_channel(int fd)
{
	int domain, type;
	socklen_t size = sizeof domain;
	return getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &size) == 0 && domain == AF_UNIX &&
	       getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) == 0 && type == SOCK_SEQPACKET;
}

int upgrade_child_find(struct diagnostics *diagnostics)
{
	return received_fd_from_environment(UPGRADE_VARIABLE, is_channel, diagnostics);
}

/* Takes over and sends the result. If the parent has exited, the event loop sees the end of the channel. */
static void take_over(struct upgrade_child *child)
{
	char error[UPGRADE_MESSAGE_SIZE - sizeof UPGRADE_FAILED], message[UPGRADE_MESSAGE_SIZE];
	child->taken_over = child->events.take_over(child->argument, error, sizeof error);
	if (child->taken_over) {
		upgrade_channel_send(child->fd, UPGRADE_TAKEN);
		return;
	}
	snprintf(message, sizeof message, UPGRADE_FAILED " %s", error);
	upgrade_channel_send(child->fd, message);
}

static void on_message(struct upgrade_child *child, const char *message)
{
	if (strcmp(message, UPGRADE_TAKE) == 0 && !child->taken_over) {
		take_over(child);
	} else if (strcmp(message, UPGRADE_STOP) == 0) {
		event_del(child->event); /* the end of the channel, which follows, does not count */
		child->events.cancelled(child->argument);
	} else if (strcmp(message, UPGRADE_SERVE) == 0 && child->taken_over) {
		child->events.confirmed(child->argument);
	}
}

static void on_readable(evutil_socket_t fd, short what, void *argument)
{
	struct upgrade_child *child = argument;
	char message[UPGRADE_MESSAGE_SIZE];

	(void)what;
	ssize_t length = upgrade_channel_receive(fd, message);
	if (length > 0) {
		on_message(child, message);
	} else if (length == 0) {
		event_del(child->event);
		child->events.released(child->argument, child->taken_over);
	}
}

struct upgrade_child *upgrade_child_new(struct event_base *base, int fd, const struct upgrade_child_events *events,
					void *argument)
{
	struct upgrade_child *child = calloc(1, sizeof *child);
	if (child == NULL)
		return NULL;
	*child = (struct upgrade_child){.fd = fd, .events = *events, .argument = argument};
	child->event = event_new(base, fd, EV_READ | EV_PERSIST, on_readable, child);
	if (child->event != NULL && event_add(child->event, NULL) == 0)
		return child;
	upgrade_child_free(child);
	return NULL;
}

void upgrade_child_send_ready(struct upgrade_child *child)
{
	upgrade_channel_send(child->fd, UPGRADE_READY);
}

void upgrade_child_free(struct upgrade_child *child)
{
	if (child == NULL)
		return;
	if (child->event != NULL)
		event_free(child->event);
	close(child->fd);
	free(child);
}
