/* check_text_file.c: files are opened without waiting for anybody. */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "check_run.h"
#include "core/text_file.h"

static char folder[64];

static void make_folder(void)
{
	strcpy(folder, "/tmp/check_text_file.XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(folder));
	ck_assert_int_eq(chdir(folder), 0);
}

static void remove_folder(void)
{
	unlink("file");
	ck_assert_int_eq(chdir("/"), 0);
	ck_assert_int_eq(rmdir(folder), 0);
}

static void assert_refused(const char *path, const char *expected)
{
	const char *reason = "";
	ck_assert_ptr_null(text_file_open(path, &reason));
	ck_assert_str_eq(reason, expected);
}

START_TEST(a_regular_file_is_read_through_links_too)
{
	char line[16];
	const char *reason;
	int fd = open("target", O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	ck_assert_int_eq(write(fd, "text\n", 5), 5);
	close(fd);
	ck_assert_int_eq(symlink("target", "file"), 0);

	FILE *file = text_file_open("file", &reason);
	ck_assert_ptr_nonnull(file);
	ck_assert_int_eq(fcntl(fileno(file), F_GETFD), FD_CLOEXEC);
	ck_assert_str_eq(fgets(line, sizeof line, file), "text\n");
	fclose(file);
	unlink("target");
}
END_TEST

START_TEST(the_null_device_is_an_empty_file)
{
	const char *reason;
	FILE *file = text_file_open("/dev/null", &reason);
	ck_assert_ptr_nonnull(file);
	ck_assert_int_eq(fgetc(file), EOF);
	fclose(file);
}
END_TEST

START_TEST(nobody_is_waited_for_at_a_fifo)
{
	ck_assert_int_eq(mkfifo("file", 0600), 0);
	assert_refused("file", "not a regular file");
	int writer = open("file", O_RDWR | O_CLOEXEC);
	assert_refused("file", "not a regular file");
	close(writer);
}
END_TEST

START_TEST(what_is_no_file_is_refused_by_what_it_is)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = "file"};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_refused("/", "Is a directory");
	assert_refused("/dev/zero", "not a regular file");
	assert_refused("nowhere", strerror(ENOENT));
	ck_assert_int_eq(bind(fd, (const struct sockaddr *)&address, sizeof address), 0);
	assert_refused("file", strerror(ENXIO));
	close(fd);
}
END_TEST

START_TEST(a_file_has_a_bound)
{
	const char *reason;
	int fd = open("file", O_WRONLY | O_CREAT | O_CLOEXEC, 0600);

	ck_assert_int_eq(ftruncate(fd, TEXT_FILE_MAX_BYTES), 0);
	FILE *file = text_file_open("file", &reason);
	ck_assert_ptr_nonnull(file);
	fclose(file);
	ck_assert_int_eq(ftruncate(fd, TEXT_FILE_MAX_BYTES + 1), 0);
	assert_refused("file", "over 64 MiB");
	close(fd);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("text_file");
	TCase *tests = tcase_create("text_file");
	tcase_add_checked_fixture(tests, make_folder, remove_folder);
	tcase_add_test(tests, a_regular_file_is_read_through_links_too);
	tcase_add_test(tests, the_null_device_is_an_empty_file);
	tcase_add_test(tests, nobody_is_waited_for_at_a_fifo);
	tcase_add_test(tests, what_is_no_file_is_refused_by_what_it_is);
	tcase_add_test(tests, a_file_has_a_bound);
	suite_add_tcase(suite, tests);
	return check_run(suite);
}
