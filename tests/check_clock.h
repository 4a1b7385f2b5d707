/* check_clock.h: the coarse monotonic clock in a test's hand, below libevent too. For one file of a program. */
#ifndef SMALLSERVD_CHECK_CLOCK_H
#define SMALLSERVD_CHECK_CLOCK_H

#include <stdatomic.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* Above 0: where the clock stands still. Else it runs, so many milliseconds ahead. */
static _Atomic int64_t clock_stands_ms, clock_ahead_ms;

static inline void clock_set(struct timespec *time, int64_t ms)
{
	time->tv_sec = (time_t)(ms / 1000);
	time->tv_nsec = (long)(ms % 1000 * 1000000);
}

/* Takes the place of the C library's, for shared libraries as well. The coarse clock is the one that we and libevent
 * tell the time by; Check and the sanitizers keep the other. */
int clock_gettime(clockid_t id, struct timespec *now)
{
	if (syscall(SYS_clock_gettime, id, now) < 0)
		return -1;
	if (id != CLOCK_MONOTONIC_COARSE)
		return 0;
	int64_t stands_ms = atomic_load(&clock_stands_ms);
	int64_t real_ms = (int64_t)now->tv_sec * 1000 + now->tv_nsec / 1000000;
	clock_set(now, stands_ms > 0 ? stands_ms : real_ms + atomic_load(&clock_ahead_ms));
	return 0;
}

#endif
