/* upgrade_child.h: the new process's side of an upgrade. Main thread only. */
#ifndef SMALLSERVD_HANDOFF_UPGRADE_CHILD_H
#define SMALLSERVD_HANDOFF_UPGRADE_CHILD_H

#include <stdbool.h>
#include <stddef.h>

#include "core/diagnostics.h"

struct event_base;

/* The channel to the parent, the process that runs the upgrade. */
struct upgrade_child;

struct upgrade_child_events {
	/* Takes over, pid_file included. Returns false and the reason in ERROR. */
	bool (*take_over)(void *argument, char *error, size_t size);
	/* The upgrade has failed and the parent goes on: this process has to stop. No further call follows. */
	void (*cancelled)(void *argument);
	/* The service manager knows this process. */
	void (*confirmed)(void *argument);
	/* The parent has closed the sockets, or exited; TAKEN_OVER: after take_over. The upgrade_child may be freed. */
	void (*released)(void *argument, bool taken_over);
};

/* Returns the descriptor of the channel from the environment, with FD_CLOEXEC, for upgrade_child_new; -1: this
 * process is not started by an upgrade, or, with a problem, the descriptor is invalid. Unsets the variable. */
int upgrade_child_find(struct diagnostics *diagnostics);

/* Owns the channel FD from here on, and calls EVENTS with ARGUMENT from BASE's loop. Returns NULL with errno. */
struct upgrade_child *upgrade_child_new(struct event_base *base, int fd, const struct upgrade_child_events *events,
					void *argument);

/* Notifies the parent that this process serves. If it has exited, `released` follows. */
void upgrade_child_send_ready(struct upgrade_child *child);

/* CHILD may be NULL. */
void upgrade_child_free(struct upgrade_child *child);

#endif
