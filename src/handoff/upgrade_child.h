/* upgrade_child.h: what a new process has to settle with the one that started it. */
#ifndef SMALLSERVD_HANDOFF_UPGRADE_CHILD_H
#define SMALLSERVD_HANDOFF_UPGRADE_CHILD_H

#include <stdbool.h>
#include <stddef.h>

#include "core/problems.h"

struct event_base;

/* The channel to the process before this one. It belongs to the main thread. */
struct upgrade_child;

struct upgrade_child_events {
	/* Time to take over: takes pid_file. False: ERROR says why. */
	bool (*take)(void *argument, char *error, size_t size);
	/* Nothing comes of it, and the old one goes on: time to stop. The last that is told. */
	void (*stop)(void *argument);
	/* The service manager knows this process now. */
	void (*serve)(void *argument);
	/* The old one has let go of the sockets, or died: TAKEN says whether after take. It is time to free. */
	void (*alone)(void *argument, bool taken);
};

/* Returns the descriptor of the channel from the environment, with FD_CLOEXEC, for upgrade_child_new; -1: this process is not started by an
 * upgrade, or, with a problem, the descriptor is invalid. Unsets the variable. */
int upgrade_child_find(struct problems *problems);

/* The channel FD, which it owns from here on. EVENTS, with ARGUMENT, come by BASE's loop. NULL: errno says why. */
struct upgrade_child *upgrade_child_new(struct event_base *base, int fd, const struct upgrade_child_events *events,
					void *argument);

/* Tells the old one that this process serves. A channel that is closed is told by `alone`. */
void upgrade_child_tell_ready(struct upgrade_child *upgrade_child);

/* NULL is fine. */
void upgrade_child_free(struct upgrade_child *upgrade_child);

#endif
