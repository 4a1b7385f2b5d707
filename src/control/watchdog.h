/* watchdog.h: pings the watchdog of the service manager while all threads respond. */
#ifndef SMALLSERVD_CONTROL_WATCHDOG_H
#define SMALLSERVD_CONTROL_WATCHDOG_H

#include <stdint.h>

struct event_base;
struct task_queue;
struct worker;
struct watchdog;

/* Posts a task to each of COUNT workers twice within INTERVAL_US, and pings the watchdog (notify_alive) each time all
 * tasks have returned: a hanging thread, the main one included, ends the pings. BASE and TASK_QUEUE are the main
 * thread's; WORKERS stay the caller's. Returns NULL when out of memory. Main thread. */
struct watchdog *watchdog_new(struct event_base *base, struct task_queue *task_queue, struct worker *const *workers,
			      unsigned count, uint64_t interval_us);

/* Stops the pings. The workers may still run. */
void watchdog_stop(struct watchdog *watchdog);

/* Frees WATCHDOG after the workers have stopped. NULL is fine. */
void watchdog_free(struct watchdog *watchdog);

#endif
