/* watchdog.h: tells the service manager that all is well, while all is. */
#ifndef SMALLSERVD_CONTROL_WATCHDOG_H
#define SMALLSERVD_CONTROL_WATCHDOG_H

#include <stdint.h>

struct event_base;
struct task_queue;
struct worker;
struct watchdog;

/* Asks each of COUNT workers by task, twice within INTERVAL_US, and tells the service manager (notify_alive) each time all have answered: a
 * thread that hangs, the main one included, ends that. BASE and MAILBOX are the main thread's, whose calls these are; WORKERS stay the
 * caller's. NULL: out of memory. */
struct watchdog *watchdog_new(struct event_base *base, struct task_queue *task_queue, struct worker *const *workers,
			      unsigned count, uint64_t interval_us);

/* Asks and tells no more. The workers may still run. */
void watchdog_stop(struct watchdog *watchdog);

/* Once the workers have stopped. NULL is fine. */
void watchdog_free(struct watchdog *watchdog);

#endif
