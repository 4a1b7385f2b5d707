/* upgrade_fds.h: open endpoints in writing, for the process that goes on with them. */
#ifndef SMALLSERVD_HANDOFF_UPGRADE_FDS_H
#define SMALLSERVD_HANDOFF_UPGRADE_FDS_H

#include <stdbool.h>
#include <stddef.h>

#include "core/problems.h"
#include "net/endpoint_pool.h"

/* Names the descriptor of the writing in the new process's environment. (The writing itself would not always find room there.) */
#define UPGRADE_FDS_VARIABLE "SMALLSERVD_INHERITANCE"

/* Writes COUNT endpoints of LIST into memory that a descriptor stands for, closed by an exec: whoever runs another program keeps
 * it open, and the sockets. Returns it, or -1 with errno. */
int upgrade_fds_write(struct endpoint *const *list, size_t count);

/* The descriptor that the environment names, after which the variable is unset; -1: there is none, or, with a problem told, none that
 * upgrade_fds_write could have made. It is closed by an exec from here on. */
int upgrade_fds_find(struct problems *problems);

/* Adds to POOL what the writing FD names, inherited from the process that wrote it; each of the sockets is closed by an exec from here
 * on. Whatever is not as upgrade_fds_write would have written it, or no such socket, is a problem: false, and PROBLEMS has been told. */
bool upgrade_fds_read(int fd, struct endpoint_pool *pool, struct problems *problems);

/* Has the writing say that the endpoints that are left in POOL are not taken. False: errno says why. */
bool upgrade_fds_leave(int fd, struct endpoint_pool *pool);

/* Sets LEFT[i], of COUNT as at upgrade_fds_write, to whether endpoint i was left. False: the writing is not what it was. */
bool upgrade_fds_list_left(int fd, bool *left, size_t count);

#endif
