/* timer_wheel.h: deadlines of many connections behind one lazy timer. */
#ifndef SMALLSERVD_CORE_TIMER_WHEEL_H
#define SMALLSERVD_CORE_TIMER_WHEEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct event_base;

/* Part of whatever has a deadline. */
struct timer_wheel_entry {
	struct timer_wheel_entry *next, **link; /* link: what points here; NULL: in no wheel */
};

enum {
	TIMER_WHEEL_TICK_MS = 50,
	TIMER_WHEEL_SOON_MS =
		4, /* what is to be told of soon waits so long, or up to twice as long, as exact as the clock is */
};
#define TIMER_WHEEL_NEVER UINT64_MAX

/* Told of an entry at or after the deadline it was set to, and sometimes before: the entry's owner knows the true one.
 * It is in no wheel by then. Returns the next deadline, or 0 when the entry may be gone. */
typedef uint64_t timer_wheel_callback(struct timer_wheel_entry *entry, uint64_t now_ms);

struct timer_wheel;

/* A wheel driven by BASE, for BASE's thread alone. NULL when out of memory. */
struct timer_wheel *timer_wheel_new(struct event_base *base, timer_wheel_callback *on_due);

/* Entries must have been removed. */
void timer_wheel_free(struct timer_wheel *wheel);

/* Sets or moves ENTRY's deadline, TIMER_WHEEL_NEVER included: every entry stays enumerable. */
void timer_wheel_set(struct timer_wheel *wheel, struct timer_wheel_entry *entry, uint64_t deadline_ms);

/* Has ENTRY told of soon, instead of at a deadline: what hardly ever has to wait longer costs less so than by watching for it. False: out
 * of memory, and it is in no wheel. */
bool timer_wheel_set_soon(struct timer_wheel *wheel, struct timer_wheel_entry *entry);

void timer_wheel_remove(struct timer_wheel_entry *entry);

/* Hands every entry to VISIT, which may remove it, but no other. */
void timer_wheel_each(struct timer_wheel *wheel, void (*visit)(struct timer_wheel_entry *entry));

#endif
