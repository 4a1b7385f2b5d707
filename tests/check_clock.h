/* check_clock.h: the coarse monotonic clock in a test's hand, below libevent too. For one file of a program. */
#ifndef SMALLSERVD_CHECK_CLOCK_H
#define SMALLSERVD_CHECK_CLOCK_H

#include <stdatomic.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* Above 0: where the clock stands still. Else it runs as ever. */
static _Atomic int64_t clock_stands_ms;

/* Takes the place of the C library's, for shared libraries as well. The coarse clock is the one that we and libevent
 * tell the time by; Check, the sanitizers and a base with EVENT_BASE_FLAG_PRECISE_TIMER keep the other. */
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
