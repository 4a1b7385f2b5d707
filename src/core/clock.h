/* clock.h: the monotonic clock of deadlines, in milliseconds. */
#ifndef SMALLSERVD_CORE_CLOCK_H
#define SMALLSERVD_CORE_CLOCK_H

#include <stdint.h>
#include <sys/time.h>

/* Reads CLOCK_MONOTONIC_COARSE in ms: no system call, accurate to one timer interrupt (1 to 10 ms). Any thread. */
uint64_t clock_ms(void);

/* Converts MS, which is not negative, to the form of libevent's timers. Any thread. */
struct timeval clock_timeval(int64_t ms);

#endif
