/* check_pid_file.c: the file with the process id of the running daemon. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check_run.h"
#include "check_threads.h"
#include "control/pid_file.h"
#include "core/log.h"

enum { PATH_SIZE = 256, TEXT_SIZE = 64, UNPRIVILEGED = 65534 };

static char folder[PATH_SIZE / 2], path[PATH_SIZE], own_text[TEXT_SIZE];

/* An unchecked fixture: the folder is also removed after a test that fails. */
static void make_folder(void)
{
	const char *temporary = getenv("TMPDIR");
	snprintf(folder, sizeof folder, "%s/check_pid_file.XXXXXX", temporary != NULL ? temporary : "/tmp");
	ck_assert_ptr_nonnull(mkdtemp(folder));
	snprintf(path, sizeof path, "%s/daemon.pid", folder);
}

/* Removes the files in the folder. Returns their number. */
static int empty_folder(void)
{
	int count = 0;
	chmod(folder, 0700);
	DIR *entries = opendir(folder);
	for (struct dirent *entry; entries != NULL && (entry = readdir(entries)) != NULL;) {
		if (entry->d_name[0] == '.')
			continue;
		unlinkat(dirfd(entries), entry->d_name, 0);
		unlinkat(dirfd(entries), entry->d_name, AT_REMOVEDIR);
		count++;
	}
	if (entries != NULL)
		closedir(entries);
	return count;
}

static void remove_folder(void)
{
	empty_folder();
	rmdir(folder);
}

static void setup(void)
{
	empty_folder();
	snprintf(own_text, sizeof own_text, "%ld\n", (long)getpid());
	log_open(LOG_TO_STDERR, LOG_CRIT, LOG_DAEMON);
}

static void teardown(void)
{
	log_close();
}

static void put(const char *where, const char *text)
{
	FILE *file = fopen(where, "w");
	ck_assert_ptr_nonnull(file);
	fputs(text, file);
	fclose(file);
}

static void assert_text(const char *where, const char *expected)
{
	char text[TEXT_SIZE] = "";
	FILE *file = fopen(where, "r");
	ck_assert_msg(file != NULL, "%s: %s", where, strerror(errno));
	size_t length = fread(text, 1, sizeof text - 1, file);
	text[length] = '\0';
	fclose(file);
	ck_assert_str_eq(text, expected);
}

static bool exists(const char *where)
{
	struct stat stat;
	return lstat(where, &stat) == 0;
}

START_TEST(written_file_holds_this_id_until_it_is_removed)
{
	ck_assert_int_eq(pid_file_write(path, (uid_t)-1), 0);
	assert_text(path, own_text);
	pid_file_remove(path);
	ck_assert(!exists(path));
	ck_assert_int_eq(empty_folder(), 0);
}
END_TEST

START_TEST(written_file_has_mode_0644_despite_the_umask)
{
	struct stat stat;
	umask(077);
	ck_assert_int_eq(pid_file_write(path, (uid_t)-1), 0);
	ck_assert_int_eq(lstat(path, &stat), 0);
	ck_assert_uint_eq(stat.st_mode, S_IFREG | 0644);
	ck_assert_uint_eq(stat.st_uid, geteuid());
	pid_file_remove(path);
}
END_TEST

START_TEST(written_file_belongs_to_the_given_owner)
{
	struct stat stat;
	uid_t owner = geteuid() == 0 ? UNPRIVILEGED : geteuid(); /* only root can change the owner */
	ck_assert_int_eq(pid_file_write(path, owner), 0);
	ck_assert_int_eq(lstat(path, &stat), 0);
	ck_assert_uint_eq(stat.st_uid, owner);
	pid_file_remove(path);
	ck_assert(!exists(path));
}
END_TEST

START_TEST(file_of_a_dead_daemon_is_replaced)
{
	char stale[PATH_SIZE + 16];
	snprintf(stale, sizeof stale, "%s.%ld", path, (long)getpid());
	put(path, "1\n");
	put(stale, "left over half wri");
	ck_assert_int_eq(pid_file_write(path, (uid_t)-1), 0);
	assert_text(path, own_text);
	pid_file_remove(path);
	ck_assert_int_eq(empty_folder(), 0);
}
END_TEST

START_TEST(symbolic_link_is_replaced_and_not_followed)
{
	char target[PATH_SIZE];
	snprintf(target, sizeof target, "%s/precious", folder);
	put(target, "precious\n");
	ck_assert_int_eq(symlink(target, path), 0);
	ck_assert_int_eq(pid_file_write(path, (uid_t)-1), 0);
	assert_text(path, own_text);
	pid_file_remove(path);
	assert_text(target, "precious\n");
	ck_assert_int_eq(empty_folder(), 1);
}
END_TEST

static atomic_bool written;

enum { STRANGE_SIZE = TEXT_SIZE + 32 }; /* of the report on such a text */

/* Reads the file in a loop, as a service manager may. Stores the first text that is neither the old nor the new one. */
static void *read_in_a_loop(void *argument)
{
	char *strange = argument;
	while (!atomic_load(&written) && strange[0] == '\0') {
		char text[TEXT_SIZE] = "";
		int fd = open(path, O_RDONLY | O_CLOEXEC);
		ssize_t length = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
		if (fd >= 0)
			close(fd);
		if (length < 0 || (strcmp(text, "1\n") != 0 && strcmp(text, own_text) != 0))
			snprintf(strange, STRANGE_SIZE, "%zd bytes: %s", length, text);
	}
	return NULL;
}

START_TEST(reader_never_sees_a_partial_or_missing_file)
{
	char strange[STRANGE_SIZE] = "";
	struct threads threads;
	enum { COUNT = 200 };

	put(path, "1\n");
	threads_start(&threads, 1, read_in_a_loop, strange, sizeof strange);
	for (int i = 0; i < COUNT; i++)
		ck_assert_int_eq(pid_file_write(path, (uid_t)-1), 0);
	atomic_store(&written, true);
	threads_join(&threads);
	ck_assert_str_eq(strange, "");
	pid_file_remove(path);
	ck_assert(!exists(path));
}
END_TEST

/* --- files of other daemons --- */

START_TEST(file_replaced_by_another_daemon_is_not_removed)
{
	char other[PATH_SIZE];
	ck_assert_int_eq(pid_file_write(path, (uid_t)-1), 0);
	snprintf(other, sizeof other, "%s/other", folder);
	put(other, "1\n");
	ck_assert_int_eq(rename(other, path), 0);
	pid_file_remove(path);
	assert_text(path, "1\n");
}
END_TEST

START_TEST(file_overwritten_by_another_daemon_is_not_removed)
{
	ck_assert_int_eq(pid_file_write(path, (uid_t)-1), 0);
	put(path, "1\n");
	pid_file_remove(path);
	ck_assert_msg(exists(path), "the file named another process and was removed");
	assert_text(path, "1\n");
}
END_TEST

START_TEST(restored_file_holds_this_id_again)
{
	put(path, "4711\n");
	pid_file_restore(path, 4711);
	assert_text(path, own_text);
	pid_file_remove(path);
}
END_TEST

START_TEST(file_of_a_third_process_is_not_restored)
{
	put(path, "1\n");
	pid_file_restore(path, 4711);
	pid_file_restore(path, 0);
	pid_file_restore(NULL, 1);
	assert_text(path, "1\n");
}
END_TEST

START_TEST(missing_file_can_be_removed)
{
	ck_assert_int_eq(pid_file_write(path, (uid_t)-1), 0);
	ck_assert_int_eq(unlink(path), 0);
	pid_file_remove(path);
	pid_file_remove(NULL);
	ck_assert_int_eq(empty_folder(), 0);
}
END_TEST

/* --- errors --- */

START_TEST(missing_folder_is_an_error)
{
	char missing[PATH_SIZE + 16];
	snprintf(missing, sizeof missing, "%s/missing/daemon.pid", folder);
	ck_assert_int_eq(pid_file_write(missing, (uid_t)-1), -ENOENT);
}
END_TEST

START_TEST(folder_at_the_path_is_an_error_and_leaves_no_temporary_file)
{
	ck_assert_int_eq(mkdir(path, 0700), 0);
	ck_assert_int_eq(pid_file_write(path, (uid_t)-1), -EISDIR);
	ck_assert_int_eq(empty_folder(), 1);
}
END_TEST

START_TEST(owner_that_cannot_be_set_is_an_error_and_leaves_no_temporary_file)
{
	if (geteuid() == 0)
		return; /* root can set any owner */
	ck_assert_int_eq(pid_file_write(path, 0), -EPERM);
	ck_assert_int_eq(empty_folder(), 0);
}
END_TEST

/* A daemon that has dropped root owns its file but not the folder. */
static void remove_in_read_only_folder(void)
{
	int error = pid_file_write(path, geteuid() == 0 ? UNPRIVILEGED : geteuid());
	bool locked = chmod(folder, 0555) == 0;
	if (geteuid() == 0)
		locked &= setresuid(UNPRIVILEGED, UNPRIVILEGED, UNPRIVILEGED) == 0;
	pid_file_remove(path);
	log_close();
	_exit(error == 0 && locked ? 0 : 1);
}

START_TEST(file_in_a_read_only_folder_is_emptied_instead_of_removed)
{
	int status;
	pid_t child = fork();
	if (child == 0)
		remove_in_read_only_folder();
	ck_assert_int_eq(waitpid(child, &status, 0), child);
	ck_assert_int_eq(status, 0);
	assert_text(path, "");
}
END_TEST

/* An upgrade of a daemon that has dropped root: the new process overwrites the file, and the old one does not remove
 * it. */
static void take_over_in_read_only_folder(void)
{
	int error = pid_file_write(path, geteuid() == 0 ? UNPRIVILEGED : geteuid());
	bool locked = chmod(folder, 0555) == 0;
	if (geteuid() == 0)
		locked &= setresuid(UNPRIVILEGED, UNPRIVILEGED, UNPRIVILEGED) == 0;
	if (error != 0 || !locked)
		_exit(1);
	int status;
	pid_t child = fork();
	if (child == 0)
		_exit(-pid_file_write(path, (uid_t)-1));
	if (waitpid(child, &status, 0) != child || status != 0)
		_exit(2);
	pid_file_remove(path);
	char text[TEXT_SIZE] = "";
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	_exit(read(fd, text, sizeof text - 1) > 0 && strtol(text, NULL, 10) == (long)child ? 0 : 3);
}

START_TEST(file_in_a_read_only_folder_is_overwritten)
{
	int status;
	put(path, "4000000000000\n"); /* longer than the new text */
	pid_t child = fork();
	if (child == 0)
		take_over_in_read_only_folder();
	ck_assert_int_eq(waitpid(child, &status, 0), child);
	ck_assert_int_eq(status, 0);
}
END_TEST

static void overwrite_link(void)
{
	bool locked = chmod(folder, 0555) == 0;
	if (geteuid() == 0)
		locked &= setresuid(UNPRIVILEGED, UNPRIVILEGED, UNPRIVILEGED) == 0;
	_exit(locked && pid_file_write(path, (uid_t)-1) != 0 ? 0 : 1);
}

START_TEST(symbolic_link_is_not_overwritten)
{
	char target[PATH_SIZE];
	int status;
	snprintf(target, sizeof target, "%s/precious", folder);
	put(target, "precious\n");
	if (geteuid() == 0)
		ck_assert_int_eq(chown(target, UNPRIVILEGED, (gid_t)-1), 0);
	ck_assert_int_eq(symlink(target, path), 0);
	pid_t child = fork();
	if (child == 0)
		overwrite_link();
	ck_assert_int_eq(waitpid(child, &status, 0), child);
	ck_assert_int_eq(status, 0);
	assert_text(target, "precious\n");
}
END_TEST

static Suite *suite(void)
{
	Suite *suite = suite_create("pid_file");
	TCase *file = tcase_create("file");
	tcase_add_unchecked_fixture(file, make_folder, remove_folder);
	tcase_add_checked_fixture(file, setup, teardown);
	tcase_set_timeout(file, 60);
	tcase_add_test(file, written_file_holds_this_id_until_it_is_removed);
	tcase_add_test(file, written_file_has_mode_0644_despite_the_umask);
	tcase_add_test(file, written_file_belongs_to_the_given_owner);
	tcase_add_test(file, file_of_a_dead_daemon_is_replaced);
	tcase_add_test(file, symbolic_link_is_replaced_and_not_followed);
	tcase_add_test(file, reader_never_sees_a_partial_or_missing_file);
	tcase_add_test(file, file_replaced_by_another_daemon_is_not_removed);
	tcase_add_test(file, file_overwritten_by_another_daemon_is_not_removed);
	tcase_add_test(file, restored_file_holds_this_id_again);
	tcase_add_test(file, file_of_a_third_process_is_not_restored);
	tcase_add_test(file, missing_file_can_be_removed);
	tcase_add_test(file, missing_folder_is_an_error);
	tcase_add_test(file, folder_at_the_path_is_an_error_and_leaves_no_temporary_file);
	tcase_add_test(file, owner_that_cannot_be_set_is_an_error_and_leaves_no_temporary_file);
	tcase_add_test(file, file_in_a_read_only_folder_is_emptied_instead_of_removed);
	tcase_add_test(file, file_in_a_read_only_folder_is_overwritten);
	tcase_add_test(file, symbolic_link_is_not_overwritten);
	suite_add_tcase(suite, file);
	return suite;
}

int main(void)
{
	return check_run(suite());
}
