/* notify.h: what the service manager is told (sd_notify). */
#ifndef SMALLSERVD_NOTIFY_H
#define SMALLSERVD_NOTIFY_H

/* Each does nothing where no service manager listens (NOTIFY_SOCKET) or the build has no libsystemd. */
void notify_ready(const char *status) __attribute__((nonnull));
void notify_stopping(const char *status) __attribute__((nonnull));

#endif
