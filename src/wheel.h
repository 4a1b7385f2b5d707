/* wheel.h: deadlines of many connections behind one lazy timer. */
#ifndef SMALLSERVD_WHEEL_H
#define SMALLSERVD_WHEEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/time.h>

struct event_base;

/* Part of whatever has a deadline. */
struct wheel_entry {
	struct wheel_entry *next, **link; /* link: what points here; NULL: in no wheel */
};

enum {
	WHEEL_TICK_MS = 50,
	WHEEL_SOON_MS =
		4, /* what is to be told of soon waits so long, or up to twice as long, as exact as the clock is */
};
#define WHEEL_NEVER UINT64_MAX

/* Told of an entry at or after the deadline it was set to, and sometimes before: the entry's owner knows the true one.
 * It is in no wheel by then. Returns the next deadline, or 0 when the entry may be gone. */
typedef uint64_t wheel_callback(struct wheel_entry *entry, uint64_t now_ms);

struct wheel;

/* A wheel driven by BASE, for BASE's thread alone. NULL when out of memory. */
struct wheel *wheel_new(struct event_base *base, wheel_callback *on_due);

/* Entries must have been removed. */
void wheel_free(struct wheel *wheel);

/* The wheel's clock: CLOCK_MONOTONIC_COARSE in ms, which costs no system call. */
uint64_t wheel_now_ms(void);

/* MS, which are not negative, as timers of libevent take them. Any thread. */
struct timeval wheel_timeval(int64_t ms);

/* Sets or moves ENTRY's deadline, WHEEL_NEVER included: every entry stays enumerable. */
void wheel_set(struct wheel *wheel, struct wheel_entry *entry, uint64_t deadline_ms);

/* Has ENTRY told of soon, instead of at a deadline: what hardly ever has to wait longer costs less so than by watching for it. False: out
 * of memory, and it is in no wheel. */
bool wheel_set_soon(struct wheel *wheel, struct wheel_entry *entry);

void wheel_remove(struct wheel_entry *entry);

/* Hands every entry to VISIT, which may remove it, but no other. */
void wheel_each(struct wheel *wheel, void (*visit)(struct wheel_entry *entry));

#endif
