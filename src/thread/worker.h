/* worker.h: a thread with its event loop and task queue. */
#ifndef SMALLSERVD_THREAD_WORKER_H
#define SMALLSERVD_THREAD_WORKER_H

#include <stdint.h>

#include "thread/task_queue.h"

struct worker;

/* Creates a worker whose thread does not run yet: events can be added to its base. Returns NULL with errno. Main
 * thread. */
struct worker *worker_new(unsigned index);

/* Sets the task that the thread runs last, when its loop has ended. Before worker_start. */
void worker_at_end(struct worker *worker, struct task *task);

/* Starts the thread, with every signal blocked. Returns 0 or an errno. Main thread. */
int worker_start(struct worker *worker);

/* Ends the loop after the queued tasks, and waits for the thread. Main thread. */
void worker_stop(struct worker *worker);

/* Frees a worker that was stopped or never started; all that uses its base has been freed. NULL is fine. Main thread.
 */
void worker_free(struct worker *worker);

/* Returns a random number, not suitable for secrets. For the worker's own thread. */
uint64_t worker_random(struct worker *worker);

unsigned worker_index(const struct worker *worker);
struct event_base *worker_base(const struct worker *worker);

/* Has the worker run TASK, as task_queue_post. Any thread. */
void worker_post(struct worker *worker, struct task *task);

#endif
