/* check_clock.h: a coarse monotonic clock that a test can stop, for libevent too. For one file per program. */
#ifndef SMALLSERVD_CHECK_CLOCK_H
#define SMALLSERVD_CHECK_CLOCK_H

#include <stdatomic.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* Above 0: the time at which the clock is stopped; 0: it runs. */
static _Atomic int64_t clock_stands_ms;

/* Replaces the C library's function, for shared libraries as well. The daemon's code and libevent use the coarse clock;
 * Check, the sanitizers and a base with EVENT_BASE_FLAG_PRECISE_TIMER use another. */
int clock_gettime(clockid_t id, struct timespec *now)
{
	int64_t ms = atomic_load(&clock_stands_ms);
	if (id != CLOCK_MONOTONIC_COARSE || ms <= 0)
		return (int)syscall(SYS_clock_gettime, id, now);
	now->tv_sec = (time_t)(ms / 1000);
	now->tv_nsec = (long)(ms % 1000 * 1000000);
	return 0;
}

#endif
