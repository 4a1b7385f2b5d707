/* sandbox.h: giving up what the daemon does not need once its sockets are bound. */
#ifndef SMALLSERVD_SANDBOX_H
#define SMALLSERVD_SANDBOX_H

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

/* Becomes IDENTITY for good, without the supplementary groups of another and no way back (no_new_privs). As another user than root it
 * only sets no_new_privs. For the main thread, before others start. False: ERROR says why. */
bool sandbox_become(const struct sandbox_identity *identity, char *error, size_t size);

#endif
