/* bequest.h: open endpoints in writing, for the process that goes on with them. */
#ifndef SMALLSERVD_BEQUEST_H
#define SMALLSERVD_BEQUEST_H

#include <stdbool.h>
#include <stddef.h>

#include "endpoint.h"
#include "problems.h"

/* Names the descriptor of the writing in the new process's environment. (The writing itself would not always find room there.) */
#define BEQUEST_VARIABLE "SMALLSERVD_INHERITANCE"

/* Writes COUNT endpoints of LIST into memory that a descriptor stands for, closed by an exec: whoever runs another program keeps
 * it open, and the sockets. Returns it, or -1 with errno. */
int bequest_write(struct endpoint *const *list, size_t count);

/* The descriptor that the environment names, after which the variable is unset; -1: there is none, or, with a problem told, none that
 * bequest_write could have made. It is closed by an exec from here on. */
int bequest_find(struct problems *problems);

/* Adds to POOL what the writing FD names, inherited from the process that wrote it; each of the sockets is closed by an exec from here
 * on. Whatever is not as bequest_write would have written it, or no such socket, is a problem: false, and PROBLEMS has been told. */
bool bequest_read(int fd, struct endpoint_pool *pool, struct problems *problems);

/* Has the writing say that the endpoints that are left in POOL are not taken. False: errno says why. */
bool bequest_leave(int fd, struct endpoint_pool *pool);

/* Sets LEFT[i], of COUNT as at bequest_write, to whether endpoint i was left. False: the writing is not what it was. */
bool bequest_list_left(int fd, bool *left, size_t count);

#endif
