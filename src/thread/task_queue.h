/* task_queue.h: functions that one thread has another thread's event loop run. */
#ifndef SMALLSERVD_THREAD_TASK_QUEUE_H
#define SMALLSERVD_THREAD_TASK_QUEUE_H

#include <stdbool.h>
#include <sys/queue.h>

struct event_base;

/* A function and its argument. The task is a member of the object that it is about, and has to stay until it has run.
 * Posting allocates no memory, so it cannot fail. */
struct task {
	void (*run)(void *argument);
	void *argument;
	STAILQ_ENTRY(task) next;
	bool queued; /* under the lock of the queue */
};

struct task_queue;

/* Creates a queue that BASE's loop empties. Returns NULL with errno. */
struct task_queue *task_queue_new(struct event_base *base);

/* Frees QUEUE; queued tasks do not run. NULL is fine. */
void task_queue_free(struct task_queue *queue);

/* Has the loop of QUEUE run TASK, soon and in the order of posting. A task that is still queued is not queued twice:
 * its pending run serves both posts. Any thread. */
void task_queue_post(struct task_queue *queue, struct task *task);

#endif
