/* notify.h: notifications to the service manager (sd_notify). */
#ifndef SMALLSERVD_CONTROL_NOTIFY_H
#define SMALLSERVD_CONTROL_NOTIFY_H

#include <stdint.h>
#include <sys/types.h>

/* All functions do nothing without a service manager (NOTIFY_SOCKET) or libsystemd. Main thread. */
void notify_ready(const char *status) __attribute__((nonnull));
void notify_reloading(void);

/* Notifies of a stop that takes TIMEOUT_MS at most. */
void notify_stopping(const char *status, int64_t timeout_ms) __attribute__((nonnull));

/* Pings the watchdog. To be called within the interval, which is above 0 if the service manager requests it
 * (WATCHDOG_USEC, and WATCHDOG_PID is this process). */
void notify_alive(void);
uint64_t notify_watchdog_interval_us(void);

/* Names PID as the main process, as the last notification of this process. */
void notify_main_process(pid_t pid);

/* Takes over the watchdog of the parent of an upgrade. Before threads start. */
void notify_become_watched(void);

#endif
