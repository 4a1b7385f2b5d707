/* seccomp.h: the system calls that the daemon may use. */
#ifndef SMALLSERVD_CONTROL_SECCOMP_H
#define SMALLSERVD_CONTROL_SECCOMP_H

#include <stddef.h>

enum seccomp_filter_result {
	SECCOMP_FILTER_LOADED,   /* by this call */
	SECCOMP_FILTER_THERE,    /* inherited from the process that this one took over from */
	SECCOMP_FILTER_OUTDATED, /* the same, from a version of the daemon with another list */
	SECCOMP_FILTER_FAILED,   /* REASON says why */
};

/* Has the kernel refuse, with EPERM, every system call that is not on the list, in this process, all its threads and whatever it executes:
 * so the list admits an execve and a start. A filter that is there already stays alone. What was loaded is tried out before this
 * returns. Needs no_new_privs. */
enum seccomp_filter_result seccomp_filter_load(char *reason, size_t size) __attribute__((nonnull));

#endif
