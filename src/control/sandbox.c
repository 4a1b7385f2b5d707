/* sandbox.c: drops root, and confines the daemon once its sockets are bound. */
#include "control/sandbox.h"

#include <cap-ng.h>
#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "control/seccomp.h"
#include "core/log.h"
#include "core/user.h"

bool sandbox_find_identity(const char *user, const char *group, struct sandbox_identity *identity, char *error,
			   size_t size)
{
	const struct passwd *entry = user_find(user);
	if (entry == NULL) {
		snprintf(error, size, "no such user \"%s\"", user);
		return false;
	}
	identity->uid = entry->pw_uid;
	identity->gid = entry->pw_gid;
	snprintf(identity->user, sizeof identity->user, "%s", entry->pw_name);
	const struct group *group_entry = group != NULL ? group_find(group) : NULL;
	if (group != NULL && group_entry == NULL) {
		snprintf(error, size, "no such group \"%s\"", group);
		return false;
	}
	if (group_entry != NULL)
		identity->gid = group_entry->gr_gid;
	return true;
}

/* user = root is configured: keeps all privileges. */
static bool stay_root(const struct sandbox_identity *identity)
{
	bool shed = setgroups(0, NULL) == 0;
	if (identity->gid == getegid())
		return true; /* a container may deny setgroups(2) even to root */
	return shed && setresgid(identity->gid, identity->gid, identity->gid) == 0;
}

/* Keeps CAP_NET_BIND_SERVICE over execve(2), as an ambient capability: a reload binds ports below 1024 as the
 * configured user, and so does the new process of an upgrade. */
static void keep_over_execve(void)
{
	if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_NET_BIND_SERVICE, 0, 0) < 0)
		log_info("sandbox: after an upgrade no new port below 1024 can be bound: %s", strerror(errno));
}

/* Becomes another user, with CAP_NET_BIND_SERVICE alone, if root had it. */
static bool drop_root(const struct sandbox_identity *identity)
{
	bool binds = capng_get_caps_process() == 0 && capng_have_capability(CAPNG_PERMITTED, CAP_NET_BIND_SERVICE) > 0;

	capng_clear(CAPNG_SELECT_ALL);
	if (binds)
		capng_update(CAPNG_ADD,
			     (capng_type_t)(CAPNG_EFFECTIVE | CAPNG_PERMITTED | CAPNG_INHERITABLE | CAPNG_BOUNDING_SET),
			     CAP_NET_BIND_SERVICE);
	if (capng_apply(CAPNG_SELECT_BOUNDS) < 0) /* no_new_privs protects without it */
		log_info("sandbox: cannot lower the capability bounding set: %s", strerror(errno));
	errno = 0;
	if (capng_change_id((int)identity->uid, (int)identity->gid, CAPNG_DROP_SUPP_GRP) < 0) {
		errno = errno != 0 ? errno : EPERM;
		return false;
	}
	if (binds)
		keep_over_execve();
	return true;
}

bool sandbox_become(const struct sandbox_identity *identity, char *error, size_t size)
{
	if (geteuid() == 0 && !(identity->uid == 0 ? stay_root(identity) : drop_root(identity))) {
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

bool sandbox_confine(bool required, bool upgraded, char *error, size_t size)
{
	char reason[96];
	enum seccomp_filter_result result = seccomp_filter_load(upgraded, reason, sizeof reason);
	if (result == SECCOMP_FILTER_FAILED && required) {
		snprintf(error, size, "no seccomp filter: %s", reason);
		return false;
	}
	if (result == SECCOMP_FILTER_FAILED)
		log_notice("sandbox: continuing without a seccomp filter: %s", reason);
	if (result == SECCOMP_FILTER_OUTDATED)
		log_notice("sandbox: the seccomp filter is that of the previous version until a restart");
	return true;
}
