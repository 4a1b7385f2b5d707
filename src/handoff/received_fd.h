/* received_fd.h: descriptors that this process was started with. Main thread only, before other threads are started. */
#ifndef SMALLSERVD_HANDOFF_RECEIVED_FD_H
#define SMALLSERVD_HANDOFF_RECEIVED_FD_H

#include <stdbool.h>

#include "core/diagnostics.h"
#include "net/socket.h"

/* Parses TEXT, a decimal number of at most MAXIMUM without a sign. Returns -1 if it is not one, or NULL. */
long received_fd_number(const char *text, long maximum);

/* Returns the descriptor that environment VARIABLE names and unsets VARIABLE; -1: it is not set, or, with a problem,
 * not the number of a descriptor that IS_VALID accepts. Sets FD_CLOEXEC. */
int received_fd_from_environment(const char *variable, bool (*is_valid)(int fd), struct diagnostics *diagnostics);

/* Fills KIND for socket FD and sets FD_CLOEXEC, by which a second call for FD fails. Returns NULL, or why it cannot
 * be served, as `is not a socket`. */
const char *received_fd_examine(int fd, struct socket_kind *kind);

#endif
