/* listen_fds.h: socket activation, see sd_listen_fds(3). */
#ifndef SMALLSERVD_HANDOFF_LISTEN_FDS_H
#define SMALLSERVD_HANDOFF_LISTEN_FDS_H

#include <stdbool.h>

#include "core/diagnostics.h"
#include "net/endpoint_pool.h"

/* Adds to POOL an endpoint for each socket from the service manager, unless LISTEN_PID is another process, and
 * unsets the variables of the protocol. Sets FD_CLOEXEC on the sockets. Returns false and a problem for each
 * descriptor that is not a socket to serve; the others are in POOL. Call it before threads are started. */
bool listen_fds_take(struct endpoint_pool *pool, struct diagnostics *diagnostics);

/* Adds a problem for each endpoint left in POOL: the service manager expects it to be served. Returns whether there
 * was none. */
bool listen_fds_check_unused(struct endpoint_pool *pool, struct diagnostics *diagnostics);

#endif
