/* task_queue.c: functions that one thread has another thread's event loop run. */
#include "thread/task_queue.h"

#include <event2/event.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

struct task_queue {
	struct event *event;
	int fd; /* an eventfd, readable while tasks are queued */
	pthread_mutex_t lock;
	STAILQ_HEAD(, task) tasks;
};

static struct task *take(struct task_queue *queue)
{
	pthread_mutex_lock(&queue->lock);
	struct task *task = STAILQ_FIRST(&queue->tasks);
	if (task != NULL) {
		STAILQ_REMOVE_HEAD(&queue->tasks, next);
		task->queued = false;
	}
	pthread_mutex_unlock(&queue->lock);
	return task;
}

static void on_posted(evutil_socket_t fd, short what, void *argument)
{
	struct task_queue *queue = argument;
	struct task *task;
	eventfd_t count;

	(void)what;
	eventfd_read(fd, &count);
	while ((task = take(queue)) != NULL)
		task->run(task->argument);
}

struct task_queue *task_queue_new(struct event_base *base)
{
	struct task_queue *queue = calloc(1, sizeof *queue);
	if (queue == NULL)
		return NULL;
	pthread_mutex_init(&queue->lock, NULL);
	STAILQ_INIT(&queue->tasks);
	queue->fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	if (queue->fd < 0)
		goto fail;
	queue->event = event_new(base, queue->fd, EV_READ | EV_PERSIST, on_posted, queue);
	if (queue->event == NULL || event_add(queue->event, NULL) < 0)
		goto fail;
	return queue;
fail:
	task_queue_free(queue);
	return NULL;
}

void task_queue_free(struct task_queue *queue)
{
	if (queue == NULL)
		return;
	if (queue->event != NULL)
		event_free(queue->event);
	if (queue->fd >= 0)
		close(queue->fd);
	pthread_mutex_destroy(&queue->lock);
	free(queue);
}

void task_queue_post(struct task_queue *queue, struct task *task)
{
	pthread_mutex_lock(&queue->lock);
	bool posted = !task->queued;
	if (posted) {
		task->queued = true;
		STAILQ_INSERT_TAIL(&queue->tasks, task, next);
	}
	pthread_mutex_unlock(&queue->lock);
	if (posted)
		eventfd_write(queue->fd, 1);
}
