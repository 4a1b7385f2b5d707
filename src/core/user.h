/* user.h: users and groups by name or number. */
#ifndef SMALLSERVD_CORE_USER_H
#define SMALLSERVD_CORE_USER_H

#include <grp.h>
#include <pwd.h>

/* Return the entry of a user or group, by name or by number; NULL: there is none. In memory of getpwnam(3). Main
 * thread. */
const struct passwd *user_find(const char *text);
const struct group *group_find(const char *text);

#endif
