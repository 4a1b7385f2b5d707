/* upgrade_fds.h: the list of endpoints that an upgrade passes to the new process. */
#ifndef SMALLSERVD_HANDOFF_UPGRADE_FDS_H
#define SMALLSERVD_HANDOFF_UPGRADE_FDS_H

#include <stdbool.h>
#include <stddef.h>

#include "core/problems.h"
#include "net/endpoint_pool.h"

/* Environment variable with the descriptor of the list. (The environment has no room for a long list.) */
#define UPGRADE_FDS_VARIABLE "SMALLSERVD_INHERITANCE"

/* --- in the parent --- */

/* Writes COUNT endpoints of LIST to a memfd. Returns it, with FD_CLOEXEC, for the caller to close; or -1 with errno. */
int upgrade_fds_write(struct endpoint *const *list, size_t count);

/* Sets UNUSED[i], of COUNT as at upgrade_fds_write, to whether the new process does not use endpoint i. Returns false if FD no longer holds
 * the list. */
bool upgrade_fds_find_unused(int fd, bool *unused, size_t count);

/* --- in the new process --- */

/* Returns the descriptor of the list from the environment, with FD_CLOEXEC, for the caller to close; -1: there is none, or, with a problem,
 * an invalid one. Unsets the variable. */
int upgrade_fds_find(struct problems *problems);

/* Adds the endpoints listed by FD to POOL, and sets FD_CLOEXEC on their sockets. Returns false and a problem if the list is malformed or a
 * socket is not the listed one. */
bool upgrade_fds_read(int fd, struct endpoint_pool *pool, struct problems *problems);

/* Marks the endpoints left in POOL as unused in the list of FD. Returns false with errno. */
bool upgrade_fds_mark_unused(int fd, struct endpoint_pool *pool);

#endif
