/* check_sandbox.c: who was found is who we become, and there is no way back. */
#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check_run.h"
#include "sandbox.h"

enum { ERROR_SIZE = 128, TEXT_SIZE = 32 };

static struct sandbox_identity identity;
static char error[ERROR_SIZE];

static bool find(const char *user, const char *group)
{
	memset(&identity, 0xff, sizeof identity);
	error[0] = '\0';
	return sandbox_find_identity(user, group, &identity, error, sizeof error);
}

static const char *number(unsigned long id)
{
	static char text[TEXT_SIZE];
	snprintf(text, sizeof text, "%lu", id);
	return text;
}

/* Somebody whose group's number is not the user's, where the system has such a one. */
static struct passwd *find_somebody(void)
{
	struct passwd *entry;
	setpwent();
	while ((entry = getpwent()) != NULL && entry->pw_uid == entry->pw_gid)
		;
	if (entry == NULL)
		entry = getpwuid(0);
	ck_assert_ptr_nonnull(entry);
	return entry;
}

START_TEST(a_user_is_found_by_name_and_by_number_with_its_own_group)
{
	struct passwd *somebody = find_somebody();
	uid_t uid = somebody->pw_uid;
	gid_t gid = somebody->pw_gid;
	char name[64];
	snprintf(name, sizeof name, "%s", somebody->pw_name);
	endpwent();

	ck_assert(find(name, NULL));
	ck_assert_uint_eq(identity.uid, uid);
	ck_assert_uint_eq(identity.gid, gid);
	ck_assert_str_eq(identity.user, name);
	ck_assert(find(number(uid), NULL));
	ck_assert_uint_eq(identity.uid, uid);
	ck_assert_uint_eq(identity.gid, gid);
}
END_TEST

START_TEST(a_group_is_found_by_name_and_by_number)
{
	struct group *group = getgrgid(1);
	if (group == NULL)
		group = getgrgid(0);
	gid_t gid = group->gr_gid;
	char name[64];
	snprintf(name, sizeof name, "%s", group->gr_name);
	ck_assert(find("root", name));
	ck_assert_uint_eq(identity.uid, 0);
	ck_assert_uint_eq(identity.gid, gid);
	ck_assert(find("root", number(gid)));
	ck_assert_uint_eq(identity.gid, gid);
}
END_TEST

START_TEST(who_does_not_exist_is_named_in_the_error)
{
	static const char *const names[] = {
		"no-such-user",
		"0x0",
		"-1",
		"+0",
		" 0",
		"0 ",
		"4294967295",
		"4294967296",
		"18446744073709551616",
		"18446744073709551615",
		"",
	};
	for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
		char expected[ERROR_SIZE];
		ck_assert_msg(!find(names[i], NULL), "\"%s\" is found", names[i]);
		snprintf(expected, sizeof expected, "no such user \"%s\"", names[i]);
		ck_assert_str_eq(error, expected);
		ck_assert_msg(!find("root", names[i]), "group \"%s\" is found", names[i]);
		snprintf(expected, sizeof expected, "no such group \"%s\"", names[i]);
		ck_assert_str_eq(error, expected);
	}
}
END_TEST

/* What is done to oneself cannot be undone: so a child does it. */
static void in_child(bool (*act)(void))
{
	int status;
	pid_t child = fork();
	if (child == 0)
		_exit(act() ? 0 : 1);
	ck_assert_int_eq(waitpid(child, &status, 0), child);
	ck_assert_int_eq(status, 0);
}

static bool is_only(uid_t uid, gid_t gid)
{
	uid_t uids[3];
	gid_t gids[3], groups[64];
	if (getresuid(&uids[0], &uids[1], &uids[2]) < 0 || getresgid(&gids[0], &gids[1], &gids[2]) < 0)
		return false;
	for (int i = 0; i < 3; i++)
		if (uids[i] != uid || gids[i] != gid)
			return false;
	int count = getgroups(64, groups);
	for (int i = 0; i < count; i++)
		if (groups[i] != gid)
			return false;
	return count >= 0;
}

static bool has_no_way_back(void)
{
	return setuid(0) < 0 && setresuid(0, 0, 0) < 0 && setgroups(0, NULL) < 0 &&
	       prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1;
}

static bool become_unprivileged(void)
{
	const gid_t groups[] = {1, 2, 3};
	setgroups(3, groups);
	return find("nobody", NULL) && sandbox_become(&identity, error, sizeof error) &&
	       is_only(identity.uid, identity.gid) && has_no_way_back();
}

START_TEST(root_becomes_the_user_for_good_with_no_other_group)
{
	if (geteuid() != 0)
		return; /* only root can become another */
	in_child(become_unprivileged);
}
END_TEST

static bool stay_root(void)
{
	const gid_t groups[] = {0, 1, 2, 3};
	setgroups(4, groups);
	return find("root", NULL) && sandbox_become(&identity, error, sizeof error) && is_only(0, identity.gid) &&
	       prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1;
}

START_TEST(root_that_stays_root_sheds_its_groups)
{
	if (geteuid() != 0)
		return; /* only root can stay root */
	in_child(stay_root);
}
END_TEST

/* Root is given up first, so that this is what it says under every user. */
static bool stay_unprivileged(void)
{
	if (geteuid() == 0 && (setgroups(0, NULL) < 0 || setresgid(1, 1, 1) < 0 || setresuid(1, 1, 1) < 0))
		return false;
	uid_t uid = geteuid();
	gid_t gid = getegid();
	return find("nobody", NULL) && sandbox_become(&identity, error, sizeof error) && geteuid() == uid &&
	       getegid() == gid && prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1;
}

START_TEST(another_user_than_root_stays_and_gains_nothing_new)
{
	in_child(stay_unprivileged);
}
END_TEST

static Suite *suite(void)
{
	Suite *suite = suite_create("sandbox");
	TCase *who = tcase_create("identity");
	tcase_set_timeout(who, 60);
	tcase_add_test(who, a_user_is_found_by_name_and_by_number_with_its_own_group);
	tcase_add_test(who, a_group_is_found_by_name_and_by_number);
	tcase_add_test(who, who_does_not_exist_is_named_in_the_error);
	tcase_add_test(who, root_becomes_the_user_for_good_with_no_other_group);
	tcase_add_test(who, root_that_stays_root_sheds_its_groups);
	tcase_add_test(who, another_user_than_root_stays_and_gains_nothing_new);
	suite_add_tcase(suite, who);
	return suite;
}

int main(void)
{
	return check_run(suite());
}
