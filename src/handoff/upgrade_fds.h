/* upgrade_fds.h: the list of endpoints that an upgrade passes to the new process. */
#ifndef SMALLSERVD_HANDOFF_UPGRADE_FDS_H
#define SMALLSERVD_HANDOFF_UPGRADE_FDS_H

#include <stdbool.h>
#include <stddef.h>

#include "core/diagnostics.h"
#include "net/endpoint_pool.h"

/* Environment variable with the descriptor of the list. (The environment has no room for a long list.) */
#define UPGRADE_FDS_VARIABLE "SMALLSERVD_INHERITANCE"

/* --- in the parent --- */

/* Descriptors that the new process has under the same numbers. */
struct upgrade_fds {
	int *list; /* the sockets of the endpoints, then the memfd with the list of them */
	size_t count;
	char variable[64]; /* a line NAME=VALUE for the environment of the new process */
	int memfd;
	struct endpoint **endpoints;
	size_t endpoint_count;
};

/* Lists COUNT ENDPOINTS, which stay the caller's. Owns the array, which was allocated by malloc. Returns NULL with
 * errno. */
struct upgrade_fds *upgrade_fds_new(struct endpoint **endpoints, size_t count);

/* Marks the endpoints that the new process uses as shared. */
void upgrade_fds_mark_shared(const struct upgrade_fds *fds);

/* Closes the memfd and frees FDS, which may be NULL. The sockets are the endpoints'. */
void upgrade_fds_free(struct upgrade_fds *fds);

/* --- in the new process --- */

/* Returns the descriptor of the list from the environment, with FD_CLOEXEC, for the caller to close; -1: there is
 * none, or, with a problem, an invalid one. Unsets the variable. */
int upgrade_fds_find(struct diagnostics *diagnostics);

/* Adds the endpoints listed by FD to POOL, and sets FD_CLOEXEC on their sockets. Returns false and a problem if the
 * list is malformed or a socket cannot be served. */
bool upgrade_fds_read(int fd, struct endpoint_pool *pool, struct diagnostics *diagnostics);

/* Marks the endpoints left in POOL as unused in the list of FD. Returns false with errno. */
bool upgrade_fds_mark_unused(int fd, struct endpoint_pool *pool);

#endif
