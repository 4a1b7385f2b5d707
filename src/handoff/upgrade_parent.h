/* upgrade_parent.h: the parent's side of an upgrade, until the new process has taken over or failed. Main thread
 * only. */
#ifndef SMALLSERVD_HANDOFF_UPGRADE_PARENT_H
#define SMALLSERVD_HANDOFF_UPGRADE_PARENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "handoff/upgrade_fds.h"

struct event_base;

/* Returns the absolute path from which this process was started, for the caller to free; NULL with errno. */
char *upgrade_find_path(void);

/* The program of the new process: the file at PATH at the time of the upgrade. */
struct upgrade_program {
	char *path;
	char *const *arguments;
};

struct upgrade;

/* Is called once: FAILURE is NULL when the new process has taken over; else it is the reason, and the new process
 * has exited or is about to. The callback may free UPGRADE. */
typedef void upgrade_ended(struct upgrade *upgrade, const char *failure, void *argument);

/* Runs PROGRAM, which has to stay until UPGRADE is freed, with FDS. It has to be ready within DEADLINE_MS. The
 * parent of the new process has exited before ENDED is called, so that the service manager adopts the new process.
 * Returns NULL with errno. */
struct upgrade *upgrade_start(struct event_base *base, const struct upgrade_program *program,
			      const struct upgrade_fds *fds, int64_t deadline_ms, upgrade_ended *ended, void *argument);

/* Returns the id of the new process; 0 before it is forked. */
pid_t upgrade_pid(const struct upgrade *upgrade);

/* Cancels an upgrade that has not ended, without calling ENDED: a new process that is not ready is killed, else it
 * stops gracefully. */
void upgrade_cancel(struct upgrade *upgrade);

/* --- after the new process has taken over --- */

/* Sends SIGNAL to the new process. Returns false with errno. */
bool upgrade_signal(const struct upgrade *upgrade, int signal);

/* Notifies the new process that the service manager knows it. Returns false with errno. */
bool upgrade_confirm(const struct upgrade *upgrade);

/* Closes the channel, by which the sockets become the new process's alone. */
void upgrade_release(struct upgrade *upgrade);

/* Cancels an upgrade that has not ended, and frees UPGRADE, which may be NULL. */
void upgrade_free(struct upgrade *upgrade);

#endif
