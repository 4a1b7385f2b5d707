/* worker.c: a thread with its event loop and task queue. */
#include "thread/worker.h"

#include <errno.h>
#include <event2/event.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>
#include <time.h>

#include "core/log.h"

struct worker {
	unsigned index;
	pthread_t thread;
	bool running;
	struct event_base *base;
	struct task_queue *tasks;
	struct task stop, *at_end;
	uint64_t random;
};

/* Logs a message of libevent, which would go to stderr and could block the thread. The caller of libevent reports the
 * failure itself, and may still read errno. */
static void on_libevent_message(int severity, const char *message)
{
	int error = errno;
	if (severity == EVENT_LOG_ERR) /* libevent exits next, before the log is written */
		fprintf(stderr, "libevent: %s\n", message);
	else
		log_debug("libevent: %s", message);
	errno = error;
}

/* Creates a base without precise timers and locks: timeouts are coarse, and an event belongs to one thread. */
static struct event_base *base_new(void)
{
	struct event_config *config = event_config_new();
	if (config == NULL)
		return NULL;
	event_set_log_callback(on_libevent_message); /* global, set before any thread runs */
	event_config_set_flag(config, EVENT_BASE_FLAG_NOLOCK);
	struct event_base *base = event_base_new_with_config(config);
	event_config_free(config);
	return base;
}

static void on_stop(void *argument)
{
	struct worker *worker = argument;
	event_base_loopbreak(worker->base);
}

struct worker *worker_new(unsigned index)
{
	struct worker *worker = calloc(1, sizeof *worker);
	if (worker == NULL)
		return NULL;
	worker->index = index;
	worker->stop = (struct task){.run = on_stop, .argument = worker};
	if (getrandom(&worker->random, sizeof worker->random, GRND_NONBLOCK) < 0)
		worker->random = (uint64_t)time(NULL) + index;
	worker->base = base_new();
	if (worker->base == NULL)
		goto fail;
	worker->tasks = task_queue_new(worker->base);
	if (worker->tasks == NULL)
		goto fail;
	return worker;
fail:
	worker_free(worker);
	return NULL;
}

void worker_at_end(struct worker *worker, struct task *task)
{
	worker->at_end = task;
}

static void *worker_run(void *argument)
{
	struct worker *worker = argument;
	event_base_dispatch(worker->base);
	if (worker->at_end != NULL)
		worker->at_end->run(worker->at_end->argument);
	return NULL;
}

int worker_start(struct worker *worker)
{
	sigset_t all, before;
	char name[16];
	sigfillset(&all);
	pthread_sigmask(SIG_BLOCK, &all, &before);
	int error = pthread_create(&worker->thread, NULL, worker_run, worker);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	worker->running = error == 0;
	if (error != 0)
		return error;
	snprintf(name, sizeof name, "worker-%u", worker->index);
	pthread_setname_np(worker->thread, name);
	return 0;
}

void worker_stop(struct worker *worker)
{
	if (!worker->running)
		return;
	worker_post(worker, &worker->stop);
	pthread_join(worker->thread, NULL);
	worker->running = false;
}

void worker_free(struct worker *worker)
{
	if (worker == NULL)
		return;
	task_queue_free(worker->tasks);
	if (worker->base != NULL)
		event_base_free(worker->base);
	free(worker);
}

uint64_t worker_random(struct worker *worker)
{
	/* SplitMix64 */
	uint64_t value = worker->random += UINT64_C(0x9e3779b97f4a7c15);
	value = (value ^ (value >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	value = (value ^ (value >> 27)) * UINT64_C(0x94d049bb133111eb);
	return value ^ (value >> 31);
}

unsigned worker_index(const struct worker *worker)
{
	return worker->index;
}

struct event_base *worker_base(const struct worker *worker)
{
	return worker->base;
}

void worker_post(struct worker *worker, struct task *task)
{
	task_queue_post(worker->tasks, task);
}
