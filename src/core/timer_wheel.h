/* timer_wheel.h: deadlines of many connections, driven by one timer of the event loop. */
#ifndef SMALLSERVD_CORE_TIMER_WHEEL_H
#define SMALLSERVD_CORE_TIMER_WHEEL_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

struct event_base;

/* A member of each object with a deadline. Zero-initialised: in no wheel. */
struct timer_wheel_entry {
	LIST_ENTRY(timer_wheel_entry) link; /* le_prev NULL: in no wheel */
};
LIST_HEAD(timer_wheel_list, timer_wheel_entry);

enum {
	TIMER_WHEEL_TICK_MS = 50,
	TIMER_WHEEL_SOON_MS = 4, /* an entry of timer_wheel_set_soon fires after this time to twice this time */
};
#define TIMER_WHEEL_NEVER UINT64_MAX

/* Called for an entry, which is in no wheel then, at or after its deadline, and sometimes before: the owner of the
 * entry checks the true deadline. Returns the next deadline in ms of clock_ms(), or 0 if the entry may have been freed
 * or set again. */
typedef uint64_t timer_wheel_callback(struct timer_wheel_entry *entry, uint64_t now_ms);

/* All functions are for the thread of the event base. */
struct timer_wheel;

/* Creates a wheel driven by BASE. Returns NULL when out of memory. */
struct timer_wheel *timer_wheel_new(struct event_base *base, timer_wheel_callback *on_due);

/* Frees WHEEL, which has no entries. NULL is fine. */
void timer_wheel_free(struct timer_wheel *wheel);

/* Sets or moves the deadline of ENTRY, in ms of clock_ms(). An entry at TIMER_WHEEL_NEVER never fires, but is visited
 * by timer_wheel_each. */
void timer_wheel_set(struct timer_wheel *wheel, struct timer_wheel_entry *entry, uint64_t deadline_ms);

/* Has ENTRY fire in 4 to 8 ms. Cheaper than an event of its own for a condition that nearly always holds by then.
 * Returns false when out of memory, with ENTRY in no wheel. */
bool timer_wheel_set_soon(struct timer_wheel *wheel, struct timer_wheel_entry *entry);

/* Takes ENTRY out of its wheel, if it is in one. */
void timer_wheel_remove(struct timer_wheel_entry *entry);

/* Calls VISIT for every entry; VISIT may remove its entry, but no other. */
void timer_wheel_each(struct timer_wheel *wheel, void (*visit)(struct timer_wheel_entry *entry));

#endif
