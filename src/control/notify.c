/* notify.c: notifications to the service manager (sd_notify). */
#include "config_build.h"

#include "control/notify.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#ifdef HAVE_LIBSYSTEMD
#include <systemd/sd-daemon.h>
#else
static int sd_notify(int unset, const char *text)
{
	(void)unset, (void)text;
	return 0;
}

__attribute__((format(printf, 2, 3))) static int sd_notifyf(int unset, const char *format, ...)
{
	(void)unset, (void)format;
	return 0;
}

static int sd_watchdog_enabled(int unset, uint64_t *interval_us)
{
	(void)unset, (void)interval_us;
	return 0;
}
#endif

void notify_ready(const char *status)
{
	sd_notifyf(0, "READY=1\nSTATUS=%s", status);
}

void notify_alive(void)
{
	sd_notify(0, "WATCHDOG=1");
}

void notify_reloading(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	sd_notifyf(0, "RELOADING=1\nMONOTONIC_USEC=%" PRId64, (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000);
}

void notify_stopping(const char *status, int64_t timeout_ms)
{
	sd_notifyf(0, "STOPPING=1\nSTATUS=%s\nEXTEND_TIMEOUT_USEC=%" PRId64, status, timeout_ms * 1000);
}

void notify_main_process(pid_t pid)
{
	sd_notifyf(0, "MAINPID=%ld", (long)pid);
}

void notify_become_watched(void)
{
	char pid[24];
	snprintf(pid, sizeof pid, "%ld", (long)getpid());
	if (getenv("WATCHDOG_PID") != NULL)
		setenv("WATCHDOG_PID", pid, 1);
}

uint64_t notify_watchdog_interval_us(void)
{
	uint64_t interval = 0;
	return sd_watchdog_enabled(0, &interval) > 0 ? interval : 0;
}
