/* check_text_file.c: text_file_open accepts regular files only and never blocks. */
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

static void assert_rejected(const char *path, const char *expected)
{
	const char *reason = "";
	ck_assert_ptr_null(text_file_open(path, &reason));
	ck_assert_str_eq(reason, expected);
}

START_TEST(regular_file_behind_a_symlink_is_opened)
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

START_TEST(null_device_reads_as_an_empty_file)
{
	const char *reason;
	FILE *file = text_file_open("/dev/null", &reason);
	ck_assert_ptr_nonnull(file);
	ck_assert_int_eq(fgetc(file), EOF);
	fclose(file);
}
END_TEST

START_TEST(fifo_is_rejected_without_blocking)
{
	ck_assert_int_eq(mkfifo("file", 0600), 0);
	assert_rejected("file", "not a regular file");
	int writer = open("file", O_RDWR | O_CLOEXEC);
	assert_rejected("file", "not a regular file");
	close(writer);
}
END_TEST

START_TEST(directory_device_socket_and_missing_file_are_rejected)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = "file"};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_rejected("/", "Is a directory");
	assert_rejected("/dev/zero", "not a regular file");
	assert_rejected("missing", strerror(ENOENT));
	ck_assert_int_eq(bind(fd, (const struct sockaddr *)&address, sizeof address), 0);
	assert_rejected("file", strerror(ENXIO));
	close(fd);
}
END_TEST

START_TEST(file_above_the_maximum_size_is_rejected)
{
	const char *reason;
	int fd = open("file", O_WRONLY | O_CREAT | O_CLOEXEC, 0600);

	ck_assert_int_eq(ftruncate(fd, TEXT_FILE_MAX_BYTES), 0);
	FILE *file = text_file_open("file", &reason);
	ck_assert_ptr_nonnull(file);
	fclose(file);
	ck_assert_int_eq(ftruncate(fd, TEXT_FILE_MAX_BYTES + 1), 0);
	assert_rejected("file", "over 64 MiB");
	close(fd);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("text_file");
	TCase *tests = tcase_create("text_file");
	tcase_add_checked_fixture(tests, make_folder, remove_folder);
	tcase_add_test(tests, regular_file_behind_a_symlink_is_opened);
	tcase_add_test(tests, null_device_reads_as_an_empty_file);
	tcase_add_test(tests, fifo_is_rejected_without_blocking);
	tcase_add_test(tests, directory_device_socket_and_missing_file_are_rejected);
	tcase_add_test(tests, file_above_the_maximum_size_is_rejected);
	suite_add_tcase(suite, tests);
	return check_run(suite);
}
