/* sandbox.h: drops root, and confines the daemon once its sockets are bound. */
#ifndef SMALLSERVD_CONTROL_SANDBOX_H
#define SMALLSERVD_CONTROL_SANDBOX_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

/* The user and group to become. */
struct sandbox_identity {
	uid_t uid;
	gid_t gid;
	char user[64];
};

/* Looks up USER and GROUP, by name or number; GROUP NULL: the user's primary group. Returns false with the reason in
 * ERROR. */
bool sandbox_find_identity(const char *user, const char *group, struct sandbox_identity *identity, char *error,
			   size_t size);

/* Becomes IDENTITY irrevocably (no_new_privs), without other supplementary groups. Of the capabilities of root only
 * CAP_NET_BIND_SERVICE stays, unless IDENTITY is root. Not as root, it only sets no_new_privs. Main thread, before
 * other threads start. Returns false with the reason in ERROR. */
bool sandbox_become(const struct sandbox_identity *identity, char *error, size_t size);

/* Loads the seccomp filter. Logs a failure or, if the filter is REQUIRED, returns false with the reason in ERROR.
 * UPGRADED as for seccomp_filter_load. After sandbox_become; main thread, before other threads start. */
bool sandbox_confine(bool required, bool upgraded, char *error, size_t size);

#endif
