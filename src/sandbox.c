/* sandbox.c: giving up what the daemon does not need once its sockets are bound. */
#include "sandbox.h"

#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

/* A numeric id, or false. */
static bool parse_id(const char *text, unsigned long *id)
{
	char *end;
	errno = 0;
	*id = strtoul(text, &end, 10);
	return errno == 0 && text[0] >= '0' && text[0] <= '9' && *end == '\0' && *id < (uid_t)-1;
}

static bool find_group(const char *name, gid_t *gid)
{
	unsigned long id;
	const struct group *group = getgrnam(name);
	if (group == NULL && parse_id(name, &id))
		group = getgrgid((gid_t)id);
	if (group != NULL)
		*gid = group->gr_gid;
	return group != NULL;
}

bool sandbox_find_identity(const char *user, const char *group, struct sandbox_identity *identity, char *error,
			   size_t size)
{
	unsigned long id;
	const struct passwd *entry = getpwnam(user);
	if (entry == NULL && parse_id(user, &id))
		entry = getpwuid((uid_t)id);
	if (entry == NULL) {
		snprintf(error, size, "no such user \"%s\"", user);
		return false;
	}
	identity->uid = entry->pw_uid;
	identity->gid = entry->pw_gid;
	snprintf(identity->user, sizeof identity->user, "%s", entry->pw_name);
	if (group != NULL && !find_group(group, &identity->gid)) {
		snprintf(error, size, "no such group \"%s\"", group);
		return false;
	}
	return true;
}

static bool drop_root(const struct sandbox_identity *identity)
{
	bool shed = setgroups(0, NULL) == 0;
	if (identity->uid == geteuid() && identity->gid == getegid())
		return true; /* a container may not even let root shed its groups */
	return shed && setresgid(identity->gid, identity->gid, identity->gid) == 0 &&
	       setresuid(identity->uid, identity->uid, identity->uid) == 0;
}

bool sandbox_become(const struct sandbox_identity *identity, char *error, size_t size)
{
	if (geteuid() == 0 && !drop_root(identity)) {
		snprintf(error, size, "cannot become user %s: %s", identity->user, strerror(errno));
		return false;
	}
	if (identity->uid != 0 && geteuid() == 0) {
		snprintf(error, size, "cannot become user %s: still root", identity->user);
		return false;
	}
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0) {
		snprintf(error, size, "cannot set no_new_privs: %s", strerror(errno));
		return false;
	}
	return true;
}
