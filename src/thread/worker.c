/* worker.c: a thread, its event_base, its task_queue. */
#include "thread/worker.h"

#include <dirent.h>
#include <errno.h>
#include <event2/event.h>
#include <event2/event_struct.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include "core/log.h"
#include "thread/fd_transfer.h"

struct task_queue {
	struct event *event;
	int fd;
	pthread_mutex_t lock;
	struct task *first, **last;
};

struct worker {
	unsigned index;
	pthread_t thread;
	bool running;
	struct event_base *base;
	struct task_queue *task_queue;
	struct task stop, *at_end;
	uint64_t random;
	bool owns_descriptors;          /* wished for at first; once it runs: it has a table of its own */
	struct fd_transfer fd_transfer; /* from main, to such a one */
	struct event on_handover;
	int start_error;
	sem_t started;
};

static struct task *task_queue_take(struct task_queue *task_queue)
{
	pthread_mutex_lock(&task_queue->lock);
	struct task *task = task_queue->first;
	if (task != NULL) {
		task_queue->first = task->next;
		if (task_queue->first == NULL)
			task_queue->last = &task_queue->first;
		task->queued = false;
	}
	pthread_mutex_unlock(&task_queue->lock);
	return task;
}

static void on_mail(evutil_socket_t fd, short what, void *argument)
{
	struct task_queue *task_queue = argument;
	struct task *task;
	eventfd_t count;

	(void)what;
	eventfd_read(fd, &count);
	while ((task = task_queue_take(task_queue)) != NULL)
		task->run(task->argument);
}

struct task_queue *task_queue_new(struct event_base *base)
{
	struct task_queue *task_queue = calloc(1, sizeof *task_queue);
	if (task_queue == NULL)
		return NULL;
	pthread_mutex_init(&task_queue->lock, NULL);
	task_queue->last = &task_queue->first;
	task_queue->fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	if (task_queue->fd < 0)
		goto fail;
	task_queue->event = event_new(base, task_queue->fd, EV_READ | EV_PERSIST, on_mail, task_queue);
	if (task_queue->event == NULL || event_add(task_queue->event, NULL) < 0)
		goto fail;
	return task_queue;
fail:
	task_queue_free(task_queue);
	return NULL;
}

void task_queue_free(struct task_queue *task_queue)
{
	if (task_queue == NULL)
		return;
	if (task_queue->event != NULL)
		event_free(task_queue->event);
	if (task_queue->fd >= 0)
		close(task_queue->fd);
	pthread_mutex_destroy(&task_queue->lock);
	free(task_queue);
}

void task_queue_post(struct task_queue *task_queue, struct task *task)
{
	pthread_mutex_lock(&task_queue->lock);
	bool queue = !task->queued;
	if (queue) {
		task->queued = true;
		task->next = NULL;
		*task_queue->last = task;
		task_queue->last = &task->next;
	}
	pthread_mutex_unlock(&task_queue->lock);
	if (queue)
		eventfd_write(task_queue->fd, 1);
}

/* Libevent would write to stderr, for whose reader a worker must not wait. What a call's failure means is told by whoever made the call,
 * who may still ask for errno. */
static void on_libevent_says(int severity, const char *message)
{
	int error = errno;
	if (severity == EVENT_LOG_ERR) /* it ends the process next, and with it the queue of the log */
		fprintf(stderr, "libevent: %s\n", message);
	else
		log_debug("libevent: %s", message);
	errno = error;
}

/* Timeouts here are coarse, and an event belongs to one thread: libevent needs neither exact timers nor locks. */
static struct event_base *base_new(void)
{
	struct event_config *config = event_config_new();
	if (config == NULL)
		return NULL;
	event_set_log_callback(on_libevent_says); /* of all bases; before any thread */
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
	worker->fd_transfer = (struct fd_transfer){.giver = -1, .taker = -1};
	sem_init(&worker->started, 0, 0);
	worker->stop.run = on_stop;
	worker->stop.argument = worker;
	if (getrandom(&worker->random, sizeof worker->random, GRND_NONBLOCK) < 0)
		worker->random = (uint64_t)time(NULL) + index;
	worker->base = base_new();
	if (worker->base == NULL)
		goto fail;
	worker->task_queue = task_queue_new(worker->base);
	if (worker->task_queue == NULL)
		goto fail;
	return worker;
fail:
	worker_free(worker);
	return NULL;
}

/* --- descriptors --- */

#if defined(__SANITIZE_THREAD__)
#define BUILT_WITH_TSAN true
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define BUILT_WITH_TSAN true
#endif
#endif
#ifndef BUILT_WITH_TSAN
#define BUILT_WITH_TSAN false
#endif

static const char descriptors_folder[] = "/proc/thread-self/fd";

void worker_own_descriptors(struct worker *worker)
{
	/* TSan takes one number in two tables for one descriptor, and finds races on it */
	worker->owns_descriptors = !BUILT_WITH_TSAN;
}

bool worker_owns_descriptors(const struct worker *worker)
{
	return worker->owns_descriptors;
}

/* Mail and events need eventfds and an epoll, whose links say that they have no name elsewhere. */
static bool is_needed(int folder, const char *name)
{
	static const char nameless[] = "anon_inode:";
	char link[sizeof nameless] = "";
	ssize_t length = readlinkat(folder, name, link, sizeof link - 1);
	return length < 0 || strcmp(link, nameless) == 0;
}

/* What main had open stands in the copy, too: what main closes would live on in it, unseen. Returns 0 or an errno. */
static int close_copies(const struct worker *worker)
{
	DIR *folder = opendir(descriptors_folder);
	if (folder == NULL)
		return errno;
	for (const struct dirent *entry = readdir(folder); entry != NULL; entry = readdir(folder)) {
		int fd = atoi(entry->d_name); /* of "." and ".." 0, which stays */
		if (fd <= STDERR_FILENO || fd == dirfd(folder) || fd == worker->fd_transfer.taker)
			continue;
		if (!is_needed(dirfd(folder), entry->d_name))
			close(fd);
	}
	closedir(folder);
	return 0;
}

static void on_handover(evutil_socket_t fd, short what, void *argument)
{
	struct worker *worker = argument;
	(void)what;
	fd_transfer_serve(&worker->fd_transfer, fd);
}

/* Returns 0 or an errno. Where the kernel keeps the thread in main's table, or does not tell what is in it, it shares that. */
static int leave_main_table(struct worker *worker)
{
	if (!worker->owns_descriptors)
		return 0;
	if (access(descriptors_folder, R_OK) < 0 || unshare(CLONE_FILES) < 0) {
		log_info("worker %u shares one table of descriptors: %s", worker->index, strerror(errno));
		worker->owns_descriptors = false;
		return 0;
	}
	int error = close_copies(worker);
	if (error != 0)
		return error;
	event_assign(&worker->on_handover, worker->base, worker->fd_transfer.taker, EV_READ | EV_PERSIST, on_handover,
		     worker);
	return event_add(&worker->on_handover, NULL) == 0 ? 0 : ENOMEM;
}

int worker_give_fds(struct worker *worker, const int *fds, int *taken, size_t count, int patience_ms)
{
	if (worker->owns_descriptors)
		return fd_transfer_give(&worker->fd_transfer, fds, taken, count, patience_ms);
	memcpy(taken, fds, count * sizeof *fds);
	return 0;
}

void worker_take_back_fds(struct worker *worker, const int *taken, size_t count, int patience_ms)
{
	if (!worker->owns_descriptors)
		return;
	int error = fd_transfer_take_back(&worker->fd_transfer, taken, count, patience_ms);
	if (error != 0)
		log_error("worker %u does not give descriptors back: %s", worker->index, strerror(error));
}

void worker_drop_fd(const struct worker *worker, int fd)
{
	if (worker->owns_descriptors)
		close(fd);
}

void worker_at_end(struct worker *worker, struct task *task)
{
	worker->at_end = task;
}

/* --- the thread --- */

static void *worker_run(void *argument)
{
	struct worker *worker = argument;
	worker->start_error = leave_main_table(worker);
	sem_post(&worker->started);
	if (worker->start_error != 0)
		return NULL;
	event_base_dispatch(worker->base);
	if (worker->at_end != NULL)
		worker->at_end->run(worker->at_end->argument);
	if (worker->owns_descriptors)
		event_del(&worker->on_handover);
	return NULL;
}

/* Returns 0 or an errno. */
static int run_thread(struct worker *worker)
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
	while (sem_wait(&worker->started) < 0) /* what main opens from here on is main's alone */
		;
	return worker->start_error;
}

int worker_start(struct worker *worker)
{
	int error = worker->owns_descriptors ? fd_transfer_open(&worker->fd_transfer) : 0;
	if (error == 0)
		error = run_thread(worker);
	fd_transfer_close_taker(&worker->fd_transfer); /* the worker's copy is the one that counts */
	if (error != 0 || !worker->owns_descriptors)
		fd_transfer_close_giver(&worker->fd_transfer);
	return error;
}

void worker_stop(struct worker *worker)
{
	if (!worker->running)
		return;
	worker_post(worker, &worker->stop);
	pthread_join(worker->thread, NULL);
	worker->running = false;
	fd_transfer_close_giver(&worker->fd_transfer);
}

void worker_free(struct worker *worker)
{
	if (worker == NULL)
		return;
	task_queue_free(worker->task_queue);
	if (worker->base != NULL)
		event_base_free(worker->base);
	sem_destroy(&worker->started);
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
	task_queue_post(worker->task_queue, task);
}
