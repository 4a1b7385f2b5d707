/* seccomp.h: the system calls that the daemon may use. */
#ifndef SMALLSERVD_CONTROL_SECCOMP_H
#define SMALLSERVD_CONTROL_SECCOMP_H

#include <stdbool.h>
#include <stddef.h>

enum seccomp_filter_result {
	SECCOMP_FILTER_LOADED,
	SECCOMP_FILTER_INHERITED, /* from the parent of an upgrade */
	SECCOMP_FILTER_OUTDATED,  /* the same, from a version of the daemon with another list */
	SECCOMP_FILTER_FAILED,    /* with a reason */
};

/* Loads a seccomp filter that refuses all system calls but those on the list with EPERM, for this process, all its
 * threads and programs that it executes; so the list includes execve and the calls of a start. UPGRADED: the process
 * was started by an upgrade, and may have inherited a filter, which stays. Tests the filter. Needs no_new_privs. Main
 * thread. */
enum seccomp_filter_result seccomp_filter_load(bool upgraded, char *reason, size_t size) __attribute__((nonnull));

#endif
