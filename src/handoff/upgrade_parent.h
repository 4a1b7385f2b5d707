/* upgrade_parent.h: a new process beside this one, from its birth until it has taken over or failed. */
#ifndef SMALLSERVD_HANDOFF_UPGRADE_PARENT_H
#define SMALLSERVD_HANDOFF_UPGRADE_PARENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct event_base;

/* Names the new process's end of the channel to the old one, a descriptor's number. */
#define UPGRADE_VARIABLE "SMALLSERVD_UPGRADE"

/* What the two say to each other, a message each. The new one's UPGRADE_FAILED is followed by a blank and its reason. */
#define UPGRADE_READY  "ready"  /* new: I serve too */
#define UPGRADE_TAKE   "take"   /* old: then take over, pid_file included */
#define UPGRADE_TAKEN  "taken"  /* new: I have */
#define UPGRADE_FAILED "failed" /* new: I cannot */
#define UPGRADE_STOP   "stop"   /* old: nothing comes of it; stop, and I go on */
#define UPGRADE_SERVE  "serve" /* old: the service manager knows you now; my end of the channel: the sockets are yours */
enum { UPGRADE_MESSAGE_SIZE = 512 };

/* The path that this process was started from, made absolute, for the caller to free. NULL: errno says why. */
char *upgrade_find_path(void);

/* What to run: whatever lies at a path when the time comes. */
struct upgrade_program;

/* Copies PATH and ARGV. NULL: out of memory. */
struct upgrade_program *upgrade_program_new(const char *path, char *const *argv);
const char *upgrade_program_path(const struct upgrade_program *program);
/* NULL is fine. */
void upgrade_program_free(struct upgrade_program *program);

/* What the new process is given besides its arguments. */
struct upgrade_gift {
	const int *fds; /* stay open in it, under the same numbers; the caller's */
	size_t fd_count;
	const char *variable; /* a further line of its environment, NAME=VALUE; NULL: none */
};

/* A new process on its way. It belongs to the main thread. */
struct upgrade;

/* Is told once how it went: FAILURE is NULL when the new process has taken over, else says why not; then no process of
 * it is left that does not end by itself. UPGRADE stays its owner's to free, which may be done here. */
typedef void upgrade_ended(struct upgrade *upgrade, const char *failure, void *argument);

/* Runs PROGRAM, which stays until UPGRADE is freed, with BEQUEST; it must take over within DEADLINE_MS. Its parent is a process in the middle, gone before
 * ENDED is told, so that a service manager finds the new one among its own children. NULL: ERROR says why. */
struct upgrade *upgrade_start(struct event_base *base, const struct upgrade_program *program,
			      const struct upgrade_gift *bequest, int64_t deadline_ms, upgrade_ended *ended,
			      void *argument, char *error, size_t size);

/* The new process's id; 0 before it is born. */
pid_t upgrade_pid(const struct upgrade *upgrade);

/* Gives up: a new process that serves nobody yet is killed, one that does is told to stop in order. ENDED is not told
 * any more. */
void upgrade_cancel(struct upgrade *upgrade);

/* After success: sends the new process SIGNAL. False: errno says why. */
bool upgrade_signal(const struct upgrade *upgrade, int signal);

/* After success: tells the new one that the service manager knows it. */
bool upgrade_confirm(const struct upgrade *upgrade);

/* After success: ends the channel, which tells the new process that the sockets are its own. */
void upgrade_release(struct upgrade *upgrade);

/* Under way, it cancels. NULL is fine. */
void upgrade_free(struct upgrade *upgrade);

#endif
