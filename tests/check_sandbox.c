/* check_sandbox.c: tests of user and group, of dropping root, and of the seccomp filter. */
#include <cap-ng.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pthread.h>
#include <pwd.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check_run.h"
#include "control/sandbox.h"
#include "control/seccomp.h"

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

/* Returns a user whose group id differs from the user id, if the system has one. */
static struct passwd *find_user_with_other_group(void)
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

START_TEST(user_is_found_by_name_or_number_with_its_group)
{
	struct passwd *somebody = find_user_with_other_group();
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

START_TEST(group_is_found_by_name_or_number)
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

START_TEST(unknown_user_is_named_in_the_error)
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

/* Runs ACT, which is irrevocable, in a child. */
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

static bool has_only(capng_type_t set, unsigned capability)
{
	for (unsigned i = 0; i <= CAP_LAST_CAP; i++)
		if ((capng_have_capability(set, i) > 0) != (i == capability))
			return false;
	return true;
}

/* Returns whether CAP_NET_BIND_SERVICE is the only capability, and ambient. */
static bool may_bind_low_ports_alone(void)
{
	return capng_get_caps_process() == 0 && has_only(CAPNG_EFFECTIVE, CAP_NET_BIND_SERVICE) &&
	       has_only(CAPNG_PERMITTED, CAP_NET_BIND_SERVICE) && has_only(CAPNG_INHERITABLE, CAP_NET_BIND_SERVICE) &&
	       has_only(CAPNG_BOUNDING_SET, CAP_NET_BIND_SERVICE) && has_only(CAPNG_AMBIENT, CAP_NET_BIND_SERVICE);
}

static bool become_unprivileged(void)
{
	const gid_t groups[] = {1, 2, 3};
	setgroups(3, groups);
	return find("nobody", NULL) && sandbox_become(&identity, error, sizeof error) &&
	       is_only(identity.uid, identity.gid) && has_no_way_back() && may_bind_low_ports_alone();
}

START_TEST(root_becomes_the_user_irrevocably_without_other_groups)
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

START_TEST(root_staying_root_drops_its_groups)
{
	if (geteuid() != 0)
		return; /* only root can stay root */
	in_child(stay_root);
}
END_TEST

/* Drops root first, so that the result is the same for every user. */
static bool stay_unprivileged(void)
{
	if (geteuid() == 0 && (setgroups(0, NULL) < 0 || setresgid(1, 1, 1) < 0 || setresuid(1, 1, 1) < 0))
		return false;
	uid_t uid = geteuid();
	gid_t gid = getegid();
	return find("nobody", NULL) && sandbox_become(&identity, error, sizeof error) && geteuid() == uid &&
	       getegid() == gid && prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1;
}

START_TEST(unprivileged_user_stays_and_gets_no_new_privileges)
{
	in_child(stay_unprivileged);
}
END_TEST

/* --- the seccomp filter --- */

/* Loads the filter in this child. Returns false if the build or the kernel has none. */
static bool load_filter(void)
{
	static char reason[ERROR_SIZE];
	return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
	       seccomp_filter_load(false, reason, sizeof reason) == SECCOMP_FILTER_LOADED;
}

static bool have_filter(void)
{
	int status;
	pid_t child = fork();
	if (child == 0)
		_exit(load_filter() ? 0 : 1);
	ck_assert_int_eq(waitpid(child, &status, 0), child);
	return status == 0;
}

static bool refused(long result)
{
	return result < 0 && errno == EPERM;
}

static bool refuses_what_is_not_needed(void)
{
	char byte = 0;
	if (!load_filter())
		return false;
	return refused(ptrace(PTRACE_TRACEME, 0, NULL, NULL)) && refused(unshare(0)) &&
	       refused(syscall(SYS_process_vm_readv, getpid(), NULL, 0, NULL, 0, 0)) &&
	       refused(syscall(SYS_bpf, -1, NULL, 0)) && refused(syscall(SYS_keyctl, -1, 0, 0, 0, 0)) &&
	       refused(syscall(SYS_mount, NULL, NULL, NULL, 0, NULL)) &&
	       refused(syscall(SYS_personality, 0xffffffff)) &&
	       refused(syscall(SYS_add_key, &byte, &byte, &byte, 0, 0)) && refused(chroot("/")) &&
	       refused(syscall(SYS_init_module, NULL, 0, ""));
}

static bool refuses_other_families(void)
{
	if (!load_filter())
		return false;
	static const int families[] = {AF_PACKET, AF_KEY, AF_ALG, AF_VSOCK, AF_BLUETOOTH, AF_CAN};
	for (size_t i = 0; i < sizeof families / sizeof *families; i++)
		if (!refused(socket(families[i], SOCK_RAW, 0)))
			return false;
	return socket(AF_INET, SOCK_STREAM, 0) >= 0 && socket(AF_UNIX, SOCK_DGRAM, 0) >= 0 &&
	       (socket(AF_INET6, SOCK_DGRAM, 0) >= 0 || errno == EAFNOSUPPORT);
}

static bool refuses_code_that_can_be_written(void)
{
	const int flags = MAP_PRIVATE | MAP_ANONYMOUS;
	if (!load_filter())
		return false;
	void *data = mmap(NULL, 4096, PROT_READ | PROT_WRITE, flags, -1, 0);
	void *code = mmap(NULL, 4096, PROT_READ | PROT_EXEC, flags, -1, 0);
	return data != MAP_FAILED && code != MAP_FAILED &&
	       mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, flags, -1, 0) == MAP_FAILED && errno == EPERM &&
	       refused(mprotect(data, 4096, PROT_READ | PROT_WRITE | PROT_EXEC)) &&
	       mprotect(data, 4096, PROT_READ) == 0;
}

static bool refuses_namespaces(void)
{
	return load_filter() && refused(syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, NULL, NULL, NULL, NULL)) &&
	       syscall(SYS_clone3, NULL, 0) < 0 && errno == ENOSYS;
}

static void *run_thread(void *argument)
{
	return argument;
}

static bool admits_threads_and_a_new_binary(void)
{
	char *const arguments[] = {(char[]){"true"}, NULL};
	pthread_t thread;
	void *result = NULL;
	int status;

	if (!load_filter() || pthread_create(&thread, NULL, run_thread, &status) != 0 ||
	    pthread_join(thread, &result) != 0 || result != &status)
		return false;
	pid_t child = fork();
	if (child == 0) {
		execv("/bin/true", arguments);
		_exit(2);
	}
	return child > 0 && waitpid(child, &status, 0) == child && status == 0;
}

/* A new process of an upgrade must not load a second filter. */
static bool is_inherited_by_an_upgrade(void)
{
	char reason[ERROR_SIZE];
	return load_filter() && seccomp_filter_load(true, reason, sizeof reason) == SECCOMP_FILTER_INHERITED &&
	       prctl(PR_GET_SECCOMP, 0, 0, 0, 0) == 2;
}

static bool (*const filter_promises[])(void) = {
	refuses_what_is_not_needed, refuses_other_families,          refuses_code_that_can_be_written,
	refuses_namespaces,         admits_threads_and_a_new_binary, is_inherited_by_an_upgrade,
};

START_TEST(seccomp_filter_refuses_unused_calls_only)
{
	if (have_filter())
		in_child(filter_promises[_i]);
}
END_TEST

static bool confines_where_it_can(void)
{
	return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && sandbox_confine(false, false, error, sizeof error);
}

static bool tells_that_it_cannot(void)
{
	error[0] = '\0';
	return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && !sandbox_confine(true, false, error, sizeof error) &&
	       strncmp(error, "no seccomp filter: ", 19) == 0 && error[19] != '\0';
}

START_TEST(missing_filter_fails_only_if_required)
{
	in_child(confines_where_it_can);
	if (!have_filter())
		in_child(tells_that_it_cannot);
}
END_TEST

static Suite *suite(void)
{
	Suite *suite = suite_create("sandbox");
	TCase *who = tcase_create("identity");
	tcase_set_timeout(who, 60);
	tcase_add_test(who, user_is_found_by_name_or_number_with_its_group);
	tcase_add_test(who, group_is_found_by_name_or_number);
	tcase_add_test(who, unknown_user_is_named_in_the_error);
	tcase_add_test(who, root_becomes_the_user_irrevocably_without_other_groups);
	tcase_add_test(who, root_staying_root_drops_its_groups);
	tcase_add_test(who, unprivileged_user_stays_and_gets_no_new_privileges);
	suite_add_tcase(suite, who);

	TCase *filter = tcase_create("filter");
	tcase_set_timeout(filter, 60);
	tcase_add_loop_test(filter, seccomp_filter_refuses_unused_calls_only, 0,
			    sizeof filter_promises / sizeof *filter_promises);
	tcase_add_test(filter, missing_filter_fails_only_if_required);
	suite_add_tcase(suite, filter);
	return suite;
}

int main(void)
{
	return check_run(suite());
}
