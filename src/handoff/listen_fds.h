/* listen_fds.h: the sockets that this process was started with. */
#ifndef SMALLSERVD_HANDOFF_LISTEN_FDS_H
#define SMALLSERVD_HANDOFF_LISTEN_FDS_H

#include <stdbool.h>

#include "core/problems.h"
#include "net/endpoint_pool.h"

/* Adds to POOL an endpoint for each descriptor that the service manager has handed over (sd_listen_fds(3)), and forgets the
 * variables that told of them, so that no other program takes them for its own. All of them are closed by an exec from here on.
 * A LISTEN_PID that names another process means that none is ours. False: PROBLEMS has been told of what is nothing that we
 * could serve; the rest is in POOL all the same. Before threads are started. */
bool listen_fds_take(struct endpoint_pool *pool, struct problems *problems);

/* Tells PROBLEMS of each endpoint that is left in POOL: whoever handed it over expects it to be served. False: there are some. */
bool listen_fds_check_left(struct endpoint_pool *pool, struct problems *problems);

#endif
