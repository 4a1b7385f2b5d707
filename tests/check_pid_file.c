/* check_pid_file.c: the file names this process, whole and at once, and is removed by nobody else. */
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

/* Outside of the tests, so that it is removed after one that fails too. */
static void make_folder(void)
{
	const char *temporary = getenv("TMPDIR");
	snprintf(folder, sizeof folder, "%s/check_pid_file.XXXXXX", temporary != NULL ? temporary : "/tmp");
	ck_assert_ptr_nonnull(mkdtemp(folder));
	snprintf(path, sizeof path, "%s/daemon.pid", folder);
}

/* Removes what is in the folder. Returns how many files there were. */
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

START_TEST(the_file_names_this_process_and_goes_with_it)
{
	struct pid_file *file = pid_file_write(path, (uid_t)-1);
	ck_assert_ptr_nonnull(file);
	assert_text(path, own_text);
	pid_file_remove(file);
	ck_assert(!exists(path));
	ck_assert_int_eq(empty_folder(), 0);
}
END_TEST

START_TEST(everybody_may_read_the_file_whatever_the_umask_and_only_its_owner_write_it)
{
	struct stat stat;
	umask(077);
	struct pid_file *file = pid_file_write(path, (uid_t)-1);
	ck_assert_int_eq(lstat(path, &stat), 0);
	ck_assert_uint_eq(stat.st_mode, S_IFREG | 0644);
	ck_assert_uint_eq(stat.st_uid, geteuid());
	pid_file_remove(file);
}
END_TEST

START_TEST(the_file_belongs_to_the_owner_it_was_written_for)
{
	struct stat stat;
	uid_t owner = geteuid() == 0 ? UNPRIVILEGED : geteuid(); /* only root can give away */
	struct pid_file *file = pid_file_write(path, owner);
	ck_assert_int_eq(lstat(path, &stat), 0);
	ck_assert_uint_eq(stat.st_uid, owner);
	pid_file_remove(file);
	ck_assert(!exists(path));
}
END_TEST

START_TEST(a_file_of_a_daemon_that_died_is_replaced)
{
	char stale[PATH_SIZE + 16];
	snprintf(stale, sizeof stale, "%s.%ld", path, (long)getpid());
	put(path, "1\n");
	put(stale, "left over half wri");
	struct pid_file *file = pid_file_write(path, (uid_t)-1);
	ck_assert_ptr_nonnull(file);
	assert_text(path, own_text);
	pid_file_remove(file);
	ck_assert_int_eq(empty_folder(), 0);
}
END_TEST

START_TEST(a_link_in_its_place_is_replaced_and_not_followed)
{
	char target[PATH_SIZE];
	snprintf(target, sizeof target, "%s/precious", folder);
	put(target, "precious\n");
	ck_assert_int_eq(symlink(target, path), 0);
	struct pid_file *file = pid_file_write(path, (uid_t)-1);
	ck_assert_ptr_nonnull(file);
	assert_text(path, own_text);
	pid_file_remove(file);
	assert_text(target, "precious\n");
	ck_assert_int_eq(empty_folder(), 1);
}
END_TEST

static atomic_bool written;

enum { STRANGE_SIZE = TEXT_SIZE + 32 }; /* of what a reader tells of such a text */

/* A service manager that reads at any moment. Returns the first text that is neither the old nor the new one. */
static void *read_on_and_on(void *argument)
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

START_TEST(a_reader_never_sees_half_a_file_or_none)
{
	char strange[STRANGE_SIZE] = "";
	struct threads threads;
	struct pid_file *files[200];
	enum { COUNT = sizeof files / sizeof *files };

	put(path, "1\n");
	threads_start(&threads, 1, read_on_and_on, strange, sizeof strange);
	for (int i = 0; i < COUNT; i++)
		ck_assert_ptr_nonnull(files[i] = pid_file_write(path, (uid_t)-1));
	atomic_store(&written, true);
	threads_join(&threads);
	ck_assert_str_eq(strange, "");
	for (int i = 0; i < COUNT; i++)
		pid_file_remove(files[i]);
	ck_assert(!exists(path));
}
END_TEST

/* --- the files of others --- */

START_TEST(a_file_that_another_daemon_put_in_its_place_stays)
{
	char other[PATH_SIZE];
	struct pid_file *file = pid_file_write(path, (uid_t)-1);
	snprintf(other, sizeof other, "%s/other", folder);
	put(other, "1\n");
	ck_assert_int_eq(rename(other, path), 0);
	pid_file_remove(file);
	assert_text(path, "1\n");
}
END_TEST

START_TEST(a_file_that_another_daemon_wrote_over_stays)
{
	struct pid_file *file = pid_file_write(path, (uid_t)-1);
	put(path, "1\n");
	pid_file_remove(file);
	ck_assert_msg(exists(path), "the file named another process and was removed");
	assert_text(path, "1\n");
}
END_TEST

START_TEST(a_file_that_is_gone_already_is_no_trouble)
{
	struct pid_file *file = pid_file_write(path, (uid_t)-1);
	ck_assert_int_eq(unlink(path), 0);
	pid_file_remove(file);
	pid_file_remove(NULL);
	ck_assert_int_eq(empty_folder(), 0);
}
END_TEST

/* --- what cannot be done --- */

START_TEST(a_missing_folder_is_an_error)
{
	char missing[PATH_SIZE + 16];
	snprintf(missing, sizeof missing, "%s/missing/daemon.pid", folder);
	ck_assert_ptr_null(pid_file_write(missing, (uid_t)-1));
	ck_assert_int_eq(errno, ENOENT);
}
END_TEST

START_TEST(a_folder_in_its_place_is_an_error_that_leaves_nothing_behind)
{
	ck_assert_int_eq(mkdir(path, 0700), 0);
	ck_assert_ptr_null(pid_file_write(path, (uid_t)-1));
	ck_assert_int_eq(errno, EISDIR);
	ck_assert_int_eq(empty_folder(), 1);
}
END_TEST

START_TEST(an_owner_that_cannot_be_set_is_an_error_that_leaves_nothing_behind)
{
	if (geteuid() == 0)
		return; /* root can give a file to anybody */
	ck_assert_ptr_null(pid_file_write(path, 0));
	ck_assert_int_eq(errno, EPERM);
	ck_assert_int_eq(empty_folder(), 0);
}
END_TEST

/* What becomes of the daemon's file once it has given up root: it may write it, but not its folder. */
static void remove_without_leave(void)
{
	struct pid_file *file = pid_file_write(path, geteuid() == 0 ? UNPRIVILEGED : geteuid());
	bool locked = chmod(folder, 0555) == 0;
	if (geteuid() == 0)
		locked &= setresuid(UNPRIVILEGED, UNPRIVILEGED, UNPRIVILEGED) == 0;
	pid_file_remove(file);
	log_close();
	_exit(file != NULL && locked ? 0 : 1);
}

START_TEST(a_file_that_its_folder_does_not_let_us_remove_is_left_empty)
{
	int status;
	pid_t child = fork();
	if (child == 0)
		remove_without_leave();
	ck_assert_int_eq(waitpid(child, &status, 0), child);
	ck_assert_int_eq(status, 0);
	assert_text(path, "");
}
END_TEST

/* A file that a daemon wrote as root for the user it became, in a folder of root's. A new process of that user takes it over,
 * and the one before leaves it alone then. */
static void take_over_without_leave(void)
{
	struct pid_file *before = pid_file_write(path, geteuid() == 0 ? UNPRIVILEGED : geteuid());
	bool locked = chmod(folder, 0555) == 0;
	if (geteuid() == 0)
		locked &= setresuid(UNPRIVILEGED, UNPRIVILEGED, UNPRIVILEGED) == 0;
	if (before == NULL || !locked)
		_exit(1);
	int status;
	pid_t child = fork();
	if (child == 0)
		_exit(pid_file_write(path, (uid_t)-1) != NULL ? 0 : 1);
	if (waitpid(child, &status, 0) != child || status != 0)
		_exit(2);
	pid_file_remove(before);
	char text[TEXT_SIZE] = "";
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	_exit(read(fd, text, sizeof text - 1) > 0 && strtol(text, NULL, 10) == (long)child ? 0 : 3);
}

START_TEST(a_file_whose_folder_does_not_let_us_replace_it_is_written_over)
{
	int status;
	put(path, "4000000000000\n"); /* longer than what is to come */
	pid_t child = fork();
	if (child == 0)
		take_over_without_leave();
	ck_assert_int_eq(waitpid(child, &status, 0), child);
	ck_assert_int_eq(status, 0);
}
END_TEST

/* A link there would have us write over whatever it points to. */
static void write_over_link(void)
{
	bool locked = chmod(folder, 0555) == 0;
	if (geteuid() == 0)
		locked &= setresuid(UNPRIVILEGED, UNPRIVILEGED, UNPRIVILEGED) == 0;
	_exit(locked && pid_file_write(path, (uid_t)-1) == NULL ? 0 : 1);
}

START_TEST(a_link_is_not_written_over_either)
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
		write_over_link();
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
	tcase_add_test(file, the_file_names_this_process_and_goes_with_it);
	tcase_add_test(file, everybody_may_read_the_file_whatever_the_umask_and_only_its_owner_write_it);
	tcase_add_test(file, the_file_belongs_to_the_owner_it_was_written_for);
	tcase_add_test(file, a_file_of_a_daemon_that_died_is_replaced);
	tcase_add_test(file, a_link_in_its_place_is_replaced_and_not_followed);
	tcase_add_test(file, a_reader_never_sees_half_a_file_or_none);
	tcase_add_test(file, a_file_that_another_daemon_put_in_its_place_stays);
	tcase_add_test(file, a_file_that_another_daemon_wrote_over_stays);
	tcase_add_test(file, a_file_that_is_gone_already_is_no_trouble);
	tcase_add_test(file, a_missing_folder_is_an_error);
	tcase_add_test(file, a_folder_in_its_place_is_an_error_that_leaves_nothing_behind);
	tcase_add_test(file, an_owner_that_cannot_be_set_is_an_error_that_leaves_nothing_behind);
	tcase_add_test(file, a_file_that_its_folder_does_not_let_us_remove_is_left_empty);
	tcase_add_test(file, a_file_whose_folder_does_not_let_us_replace_it_is_written_over);
	tcase_add_test(file, a_link_is_not_written_over_either);
	suite_add_tcase(suite, file);
	return suite;
}

int main(void)
{
	return check_run(suite());
}
