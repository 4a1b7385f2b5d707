/* watchdog.c: pings the watchdog of the service manager while all threads respond. */
#include "control/watchdog.h"

#include <event2/event.h>
#include <stdbool.h>
#include <stdlib.h>

#include "control/notify.h"
#include "core/log.h"
#include "thread/worker.h"

/* A worker and the task that visits it. */
struct watched {
	struct watchdog *watchdog;
	struct worker *worker;
	struct task question, answer;
	bool pending; /* the task has not returned */
	bool logged;  /* the lack of a response */
};

struct watchdog {
	struct task_queue *task_queue;
	struct event *timer;
	unsigned count, waiting;
	bool stopped;
	struct watched watched[];
};

/* Runs in the worker's thread. */
static void on_ping(void *argument)
{
	struct watched *watched = argument;
	task_queue_post(watched->watchdog->task_queue, &watched->answer);
}

static void on_answer(void *argument)
{
	struct watched *watched = argument;
	struct watchdog *watchdog = watched->watchdog;

	watched->pending = false;
	if (watched->logged)
		log_notice("worker %u answers again", worker_index(watched->worker));
	watched->logged = false;
	if (--watchdog->waiting == 0 && !watchdog->stopped)
		notify_alive();
}

static void tell_who_hangs(struct watchdog *watchdog)
{
	for (unsigned i = 0; i < watchdog->count; i++) {
		struct watched *watched = &watchdog->watched[i];
		if (watched->pending && !watched->logged)
			log_warning("worker %u does not answer: the watchdog is not fed",
				    worker_index(watched->worker));
		watched->logged = watched->pending;
	}
}

static void on_round(evutil_socket_t fd, short what, void *argument)
{
	struct watchdog *watchdog = argument;

	(void)fd, (void)what;
	if (watchdog->waiting > 0) {
		tell_who_hangs(watchdog);
		return;
	}
	watchdog->waiting = watchdog->count;
	for (unsigned i = 0; i < watchdog->count; i++) {
		watchdog->watched[i].pending = true;
		worker_post(watchdog->watched[i].worker, &watchdog->watched[i].question);
	}
}

struct watchdog *watchdog_new(struct event_base *base, struct task_queue *task_queue, struct worker *const *workers,
			      unsigned count, uint64_t interval_us)
{
	uint64_t half = interval_us / 2;
	struct timeval interval = {.tv_sec = (time_t)(half / 1000000), .tv_usec = (suseconds_t)(half % 1000000)};
	struct watchdog *watchdog = calloc(1, sizeof *watchdog + count * sizeof *watchdog->watched);

	if (watchdog == NULL)
		return NULL;
	watchdog->task_queue = task_queue;
	watchdog->count = count;
	for (unsigned i = 0; i < count; i++) {
		struct watched *watched = &watchdog->watched[i];
		*watched = (struct watched){
			.watchdog = watchdog,
			.worker = workers[i],
			.question = {.run = on_ping, .argument = watched},
			.answer = {.run = on_answer, .argument = watched},
		};
	}
	watchdog->timer = event_new(base, -1, EV_PERSIST, on_round, watchdog);
	if (watchdog->timer == NULL || event_add(watchdog->timer, &interval) < 0) {
		watchdog_free(watchdog);
		return NULL;
	}
	on_round(-1, EV_TIMEOUT, watchdog);
	return watchdog;
}

void watchdog_stop(struct watchdog *watchdog)
{
	watchdog->stopped = true;
	event_del(watchdog->timer);
}

void watchdog_free(struct watchdog *watchdog)
{
	if (watchdog == NULL)
		return;
	if (watchdog->timer != NULL)
		event_free(watchdog->timer);
	free(watchdog);
}
