/* worker.h: a thread, its event_base, its mailbox. */
#ifndef SMALLSERVD_WORKER_H
#define SMALLSERVD_WORKER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct event_base;

/* A function and its argument, to be run by another thread. It belongs to whoever posts it and must stay until it has
 * run; no memory is allocated on the way, so posting cannot fail. */
struct mail {
	void (*run)(void *argument);
	void *argument;
	struct mail *next;
	bool queued; /* under the mailbox's lock */
};

/* Where an event loop gets its mail. */
struct mailbox;

/* A mailbox read by BASE's loop. NULL: errno says why. */
struct mailbox *mailbox_new(struct event_base *base);
void mailbox_free(struct mailbox *mailbox);

/* Has MAIL run by MAILBOX's loop, soon and in order. Any thread. Mail that is still queued is not queued twice: what
 * it was posted for will be seen by the run to come. */
void mailbox_post(struct mailbox *mailbox, struct mail *mail);

struct worker;

/* A worker whose thread does not run yet, so its base may be filled. NULL: errno says why. */
struct worker *worker_new(unsigned index);

/* Whether the kernel, and whatever filters system calls, let a thread have a table of descriptors of its own and take
 * from that of main: Linux 5.6 or later, with /proc. */
bool worker_can_own_descriptors(void);

/* Before worker_start: the thread gets a table of descriptors of its own, so that no worker pays for the locks and references
 * that the kernel needs where threads share one. It starts with the standard streams and
 * what its mail needs. */
void worker_own_descriptors(struct worker *worker);

/* Has MAIL run by the thread as its last, when its loop has ended: what it opened must be closed there. Before worker_start. */
void worker_at_end(struct worker *worker, struct mail *mail);

/* What the worker is to call FD of main, until worker_drop_fd, after which main may close FD. -1: errno says why. For the
 * worker's own thread. */
int worker_take_fd(const struct worker *worker, int fd);
void worker_drop_fd(const struct worker *worker, int fd);

/* Starts the thread, with every signal blocked. Returns 0 or an errno. */
int worker_start(struct worker *worker);

/* Ends the loop after the mail that is queued, and waits for the thread. For the main thread. */
void worker_stop(struct worker *worker);

/* For a worker that was stopped or never started. What it serves must have been freed before. */
void worker_free(struct worker *worker);

/* A number that nothing secret may rest on. For the worker's own thread. */
uint64_t worker_random(struct worker *worker);

unsigned worker_index(const struct worker *worker);
struct event_base *worker_base(const struct worker *worker);
void worker_post(struct worker *worker, struct mail *mail);

#endif
