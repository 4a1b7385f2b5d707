/* sandbox.h: giving up what the daemon does not need once its sockets are bound. */
#ifndef SMALLSERVD_CONTROL_SANDBOX_H
#define SMALLSERVD_CONTROL_SANDBOX_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

/* Whom to become. */
struct sandbox_identity {
	uid_t uid;
	gid_t gid;
	char user[64];
};

/* Looks USER and GROUP up, by name or number; GROUP NULL: the user's own. False: ERROR says why. */
bool sandbox_find_identity(const char *user, const char *group, struct sandbox_identity *identity, char *error,
			   size_t size);

/* Becomes IDENTITY for good, without the supplementary groups of another and no way back (no_new_privs). Of root's capabilities only
 * CAP_NET_BIND_SERVICE stays, unless IDENTITY is root. As another user than root it only sets no_new_privs. For the main thread, before
 * others start. False: ERROR says why. */
bool sandbox_become(const struct sandbox_identity *identity, char *error, size_t size);

/* Has the kernel refuse the system calls that the daemon does not use. Where that cannot be had it is logged, or, when
 * it is REQUIRED, false, and ERROR says why. After sandbox_become, in the main thread, before others start. */
bool sandbox_confine(bool required, char *error, size_t size);

#endif
