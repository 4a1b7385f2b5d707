/* notify.h: what the service manager is told (sd_notify). */
#ifndef SMALLSERVD_CONTROL_NOTIFY_H
#define SMALLSERVD_CONTROL_NOTIFY_H

#include <stdint.h>

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* Each does nothing where no service manager listens (NOTIFY_SOCKET) or the build has no libsystemd. */
void notify_ready(const char *status) __attribute__((nonnull));
void notify_reloading(void);

/* It will take at most TIMEOUT_MS. */
void notify_stopping(const char *status, int64_t timeout_ms) __attribute__((nonnull));

/* All is well: to be told within the interval, again and again, once it is above 0 (WATCHDOG_USEC, and WATCHDOG_PID is this process). */
void notify_alive(void);
uint64_t notify_watchdog_interval_us(void);

/* Process PID is the daemon from now on: the last that this process tells. */
void notify_main_process(pid_t pid);

/* Has the watchdog expect this process where it expected another, from which it was started. Before threads are. */
void notify_become_watched(void);

/* Whether this build has libsystemd. */
bool notify_is_built_in(void);

#endif
