/* worker.h: a thread, its event_base, its task_queue. */
#ifndef SMALLSERVD_THREAD_WORKER_H
#define SMALLSERVD_THREAD_WORKER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct event_base;

/* A function and its argument, to be run by another thread. It belongs to whoever posts it and must stay until it has
 * run; no memory is allocated on the way, so posting cannot fail. */
struct task {
	void (*run)(void *argument);
	void *argument;
	struct task *next;
	bool queued; /* under the task_queue's lock */
};

/* Where an event loop gets its task. */
struct task_queue;

/* A task_queue read by BASE's loop. NULL: errno says why. */
struct task_queue *task_queue_new(struct event_base *base);
void task_queue_free(struct task_queue *task_queue);

/* Has MAIL run by MAILBOX's loop, soon and in order. Any thread. Mail that is still queued is not queued twice: what
 * it was posted for will be seen by the run to come. */
void task_queue_post(struct task_queue *task_queue, struct task *task);

struct worker;

/* A worker whose thread does not run yet, so its base may be filled. NULL: errno says why. */
struct worker *worker_new(unsigned index);

/* Before worker_start: the thread gets a table of descriptors of its own, so that no worker pays for the locks and references
 * that the kernel needs where threads share one. It starts with the standard streams and what its task needs. Without /proc, and where
 * unshare(2) is refused, it shares the table all the same. */
void worker_own_descriptors(struct worker *worker);

/* After worker_start: whether it has got one. */
bool worker_owns_descriptors(const struct worker *worker);

/* Has MAIL run by the thread as its last, when its loop has ended: what it opened must be closed there. Before worker_start. */
void worker_at_end(struct worker *worker, struct task *task);

/* TAKEN[i] is what the worker is to call FDS[i] of main, until it drops that, after which main may close FDS[i]. Waits until the worker has
 * them, for PATIENCE_MS at most. Returns 0 or an errno: then it has none of them, or will have none once it has got that far. After
 * worker_start, for the main thread. */
int worker_give_fds(struct worker *worker, const int *fds, int *taken, size_t count, int patience_ms);

/* What it was given is not needed, and nothing uses it yet: as worker_give_fds. */
void worker_take_back_fds(struct worker *worker, const int *taken, size_t count, int patience_ms);

/* The worker needs what it calls FD no more. For its own thread. */
void worker_drop_fd(const struct worker *worker, int fd);

/* Starts the thread, with every signal blocked. Returns 0 or an errno. */
int worker_start(struct worker *worker);

/* Ends the loop after the task that is queued, and waits for the thread. For the main thread. */
void worker_stop(struct worker *worker);

/* For a worker that was stopped or never started. What it serves must have been freed before. */
void worker_free(struct worker *worker);

/* A number that nothing secret may rest on. For the worker's own thread. */
uint64_t worker_random(struct worker *worker);

unsigned worker_index(const struct worker *worker);
struct event_base *worker_base(const struct worker *worker);
void worker_post(struct worker *worker, struct task *task);

#endif
