/* notify.h: what the service manager is told (sd_notify). */
#ifndef SMALLSERVD_NOTIFY_H
#define SMALLSERVD_NOTIFY_H

#include <stdbool.h>
#include <stdint.h>

/* Each does nothing where no service manager listens (NOTIFY_SOCKET) or the build has no libsystemd. */
void notify_ready(const char *status) __attribute__((nonnull));
void notify_stopping(const char *status) __attribute__((nonnull));

/* All is well: to be told within the interval, again and again, once it is above 0 (WATCHDOG_USEC, and WATCHDOG_PID is this process). */
void notify_alive(void);
uint64_t notify_watchdog_interval_us(void);

/* Whether this build has libsystemd. */
bool notify_is_built_in(void);

#endif
