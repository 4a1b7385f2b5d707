/* check_upgrade_parent.c: the two sides of an upgrade. The new process is this program again. */
#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check_run.h"
#include "handoff/upgrade_channel.h"
#include "handoff/upgrade_child.h"
#include "handoff/upgrade_parent.h"

enum { PATIENCE_MS = 30000, SHORT_MS = 300, STATUS_FAILED = 9 };

static char *self; /* path of this program */
static const struct upgrade_fds no_fds = {.variable = "CHECK_FD="};

/* --- the new process, which behaves as its argument says --- */

static bool take_over(void *argument, char *error, size_t size)
{
	const char *how = argument;
	if (strcmp(how, "dies_in_take_over") == 0)
		raise(SIGKILL);
	snprintf(error, size, "cannot write the file");
	return strcmp(how, "cannot_take_over") != 0;
}

static struct event_base *new_base;

static void confirmed(void *argument)
{
	(void)argument;
}

static void cancelled(void *argument)
{
	(void)argument;
	(void)!write(STDOUT_FILENO, "C", 1);
	event_base_loopbreak(new_base);
}

static void released(void *argument, bool taken_over)
{
	(void)argument;
	(void)!write(STDOUT_FILENO, taken_over ? "R" : "E", 1); /* released, or the parent has exited */
	event_base_loopbreak(new_base);
}

static int run_child(const char *how)
{
	signal(SIGTERM, SIG_IGN); /* it may arrive before the message */
	static const struct upgrade_child_events events = {
		.take_over = take_over, .cancelled = cancelled, .confirmed = confirmed, .released = released};
	struct diagnostics diagnostics = {0};
	int fd = upgrade_child_find(&diagnostics);
	if (fd < 0 || getenv(UPGRADE_VARIABLE) != NULL || fcntl(fd, F_GETFD) != FD_CLOEXEC)
		return STATUS_FAILED;
	new_base = event_base_new();
	struct upgrade_child *child = upgrade_child_new(new_base, fd, &events, (void *)how);
	if (child == NULL)
		return STATUS_FAILED;
	upgrade_child_send_ready(child);
	event_base_dispatch(new_base);
	upgrade_child_free(child);
	event_base_free(new_base);
	return EXIT_SUCCESS;
}

static int new_main(const char *how)
{
	const char *fd = getenv("CHECK_FD");
	int channel = atoi(getenv(UPGRADE_VARIABLE));
	if (strcmp(how, "exits") == 0)
		return 3;
	if (strcmp(how, "dies") == 0)
		raise(SIGKILL);
	if (strcmp(how, "sends_unknown_message") == 0)
		(void)!write(channel, "hello", 5);
	if (strcmp(how, "closes_the_channel") == 0)
		close(channel);
	if (strcmp(how, "hangs") == 0 || strcmp(how, "sends_unknown_message") == 0 ||
	    strcmp(how, "closes_the_channel") == 0)
		pause();
	if (strcmp(how, "exits_when_ready") == 0)
		return (void)!write(channel, UPGRADE_READY, strlen(UPGRADE_READY)), EXIT_SUCCESS;
	if (strcmp(how, "reads_its_descriptor") == 0) {
		char text[8] = "";
		if (fd == NULL || pread(atoi(fd), text, 5, 0) != 5 || strcmp(text, "hello") != 0)
			return STATUS_FAILED;
		how = "takes";
	}
	return run_child(how);
}

/* --- the parent --- */

static struct event_base *base;
static struct upgrade_program program;
static struct upgrade *upgrade;
static bool has_ended;
static char outcome[UPGRADE_MESSAGE_SIZE];
static int output[2]; /* standard output of the new process */
static int kept_output;

static void setup(void)
{
	base = event_base_new();
	has_ended = false;
	upgrade = NULL;
	ck_assert_int_eq(pipe2(output, O_CLOEXEC), 0);
	kept_output = fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 0);
	ck_assert_int_eq(dup2(output[1], STDOUT_FILENO), STDOUT_FILENO);
	close(output[1]);
}

/* Neither the intermediate process nor a new one, which holds its standard output open, may be left. */
static void teardown(void)
{
	char byte;
	upgrade_free(upgrade);
	event_base_free(base);
	dup2(kept_output, STDOUT_FILENO);
	close(kept_output);
	while (read(output[0], &byte, 1) > 0)
		;
	close(output[0]);
	ck_assert_int_eq(waitpid(-1, NULL, WNOHANG), -1);
	ck_assert_int_eq(errno, ECHILD);
}

static void ended(struct upgrade *which, const char *failure, void *argument)
{
	ck_assert_ptr_eq(which, upgrade);
	ck_assert_ptr_eq(argument, &has_ended);
	ck_assert(!has_ended);
	has_ended = true;
	snprintf(outcome, sizeof outcome, "%s", failure != NULL ? failure : "taken over");
	event_base_loopbreak(base);
}

static void begin(const char *path, const char *how, const struct upgrade_fds *fds, int64_t deadline_ms)
{
	char *const arguments[] = {self, (char *)how, NULL};
	program = (struct upgrade_program){.path = (char *)path, .arguments = arguments};
	upgrade = upgrade_start(base, &program, fds, deadline_ms, ended, &has_ended);
	ck_assert_ptr_nonnull(upgrade);
}

static void start_path(const char *path, const char *how, const struct upgrade_fds *fds, int64_t deadline_ms)
{
	begin(path, how, fds, deadline_ms);
	event_base_dispatch(base);
	ck_assert(has_ended);
}

static void start(const char *how, int64_t deadline_ms)
{
	start_path(self, how, &no_fds, deadline_ms);
}

START_TEST(new_process_takes_over)
{
	char byte;
	start("takes", PATIENCE_MS);
	ck_assert_str_eq(outcome, "taken over");
	ck_assert_int_gt(upgrade_pid(upgrade), 0);
	ck_assert_int_ne(upgrade_pid(upgrade), getpid());
	ck_assert(upgrade_confirm(upgrade));
	ck_assert(upgrade_signal(upgrade, 0));
	ck_assert_int_eq(waitpid(-1, NULL, WNOHANG), -1); /* the new process is not a child of this one */
	ck_assert_int_eq(errno, ECHILD);
	upgrade_free(upgrade);
	upgrade = NULL;
	ck_assert_int_eq(read(output[0], &byte, 1), 1);
	ck_assert_int_eq(byte, 'R');
}
END_TEST

START_TEST(new_process_has_the_descriptors_and_the_variable)
{
	int fd = open("/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	ck_assert_int_eq(write(fd, "hello", 5), 5);
	struct upgrade_fds fds = {.list = &fd, .count = 1};
	snprintf(fds.variable, sizeof fds.variable, "CHECK_FD=%d", fd);
	start_path(self, "reads_its_descriptor", &fds, PATIENCE_MS);
	ck_assert_str_eq(outcome, "taken over");
	ck_assert_int_eq(fcntl(fd, F_GETFD), FD_CLOEXEC);
	close(fd);
}
END_TEST

START_TEST(intermediate_process_holds_no_descriptors)
{
	int ends[2];
	char byte;
	ck_assert_int_eq(pipe2(ends, O_CLOEXEC), 0);
	begin(self, "hangs", &no_fds, PATIENCE_MS);
	close(ends[1]);
	ck_assert_int_eq(read(ends[0], &byte, 1), 0); /* end of file, although both children run */
	close(ends[0]);
}
END_TEST

static const struct {
	const char *how, *outcome;
	int64_t deadline_ms;
} failures[] = {
	{"exits", "the new process exited with status 3", PATIENCE_MS},
	{"dies", "the new process was killed by signal 9 (Killed)", PATIENCE_MS},
	{"hangs", "the new process was not ready within 0 s", SHORT_MS},
	{"closes_the_channel", "the new process was not ready within 0 s", SHORT_MS},
	{"sends_unknown_message", "unexpected message of the new process: \"hello\"", PATIENCE_MS},
	{"cannot_take_over", "cannot write the file", PATIENCE_MS},
	{"dies_in_take_over", "the new process exited before it took over", PATIENCE_MS},
};

START_TEST(failed_upgrade_ends_with_the_reason)
{
	start(failures[_i].how, failures[_i].deadline_ms);
	ck_assert_str_eq(outcome, failures[_i].outcome);
}
END_TEST

START_TEST(new_process_that_cannot_take_over_is_cancelled)
{
	char byte;
	start("cannot_take_over", PATIENCE_MS);
	ck_assert_int_eq(read(output[0], &byte, 1), 1);
	ck_assert_int_eq(byte, 'C');
}
END_TEST

START_TEST(new_process_that_exits_when_ready_fails_the_upgrade)
{
	start("exits_when_ready", PATIENCE_MS);
	ck_assert_str_ne(outcome, "taken over");
}
END_TEST

START_TEST(missing_program_fails_the_upgrade_with_its_path)
{
	start_path("/nonexistent/program", "takes", &no_fds, PATIENCE_MS);
	ck_assert_str_eq(outcome, "cannot run /nonexistent/program: No such file or directory");
}
END_TEST

/* Before and after the report of the fork. */
START_TEST(cancelled_upgrade_leaves_no_process)
{
	begin(self, "hangs", &no_fds, PATIENCE_MS);
	for (int i = 0; i < _i; i++)
		event_base_loop(base, EVLOOP_ONCE);
	upgrade_cancel(upgrade);
	event_base_loop(base, EVLOOP_NONBLOCK);
	ck_assert(!has_ended);
}
END_TEST

START_TEST(signal_mask_of_the_parent_is_unchanged_after_an_upgrade)
{
	sigset_t before, after;
	sigprocmask(SIG_SETMASK, NULL, &before);
	start("exits", PATIENCE_MS);
	sigprocmask(SIG_SETMASK, NULL, &after);
	for (int number = 1; number < NSIG; number++)
		ck_assert_int_eq(sigismember(&before, number), sigismember(&after, number));
}
END_TEST

/* --- the descriptor of the channel --- */

START_TEST(unset_variable_is_no_upgrade)
{
	struct diagnostics diagnostics = {.keep_first = true};
	unsetenv(UPGRADE_VARIABLE);
	ck_assert_int_eq(upgrade_child_find(&diagnostics), -1);
	ck_assert_uint_eq(diagnostics.errors, 0);
}
END_TEST

static const char *const invalid_values[] = {"",   "x",  "-1", "0",      "2",
					     "3x", " 3", "+3", "999999", "99999999999999999999"};

START_TEST(variable_without_a_valid_descriptor_is_a_problem)
{
	struct diagnostics diagnostics = {.keep_first = true};
	setenv(UPGRADE_VARIABLE, invalid_values[_i], 1);
	ck_assert_int_eq(upgrade_child_find(&diagnostics), -1);
	ck_assert_uint_eq(diagnostics.errors, 1);
	ck_assert_ptr_null(getenv(UPGRADE_VARIABLE));
}
END_TEST

START_TEST(descriptor_that_is_not_a_channel_is_a_problem)
{
	struct diagnostics diagnostics = {.keep_first = true};
	char number[16];
	snprintf(number, sizeof number, "%d", open("/dev/null", O_RDWR | O_CLOEXEC));
	setenv(UPGRADE_VARIABLE, number, 1);
	ck_assert_int_eq(upgrade_child_find(&diagnostics), -1);
	ck_assert_ptr_nonnull(strstr(diagnostics.first, "SMALLSERVD_UPGRADE: invalid descriptor: "));
}
END_TEST

START_TEST(path_of_the_program_is_absolute_and_executable)
{
	ck_assert_int_eq(self[0], '/');
	ck_assert_int_eq(access(self, X_OK), 0);
}
END_TEST

int main(int argc, char **argv)
{
	if (argc > 1 && getenv(UPGRADE_VARIABLE) != NULL)
		return new_main(argv[1]);
	self = upgrade_find_path();

	Suite *suite = suite_create("upgrade");
	TCase *parent = tcase_create("parent");
	tcase_add_checked_fixture(parent, setup, teardown);
	tcase_add_test(parent, new_process_takes_over);
	tcase_add_test(parent, new_process_has_the_descriptors_and_the_variable);
	tcase_add_test(parent, intermediate_process_holds_no_descriptors);
	tcase_add_loop_test(parent, failed_upgrade_ends_with_the_reason, 0, sizeof failures / sizeof *failures);
	tcase_add_test(parent, new_process_that_cannot_take_over_is_cancelled);
	tcase_add_test(parent, new_process_that_exits_when_ready_fails_the_upgrade);
	tcase_add_test(parent, missing_program_fails_the_upgrade_with_its_path);
	tcase_add_loop_test(parent, cancelled_upgrade_leaves_no_process, 0, 2);
	tcase_add_test(parent, signal_mask_of_the_parent_is_unchanged_after_an_upgrade);
	suite_add_tcase(suite, parent);
	TCase *child = tcase_create("child");
	tcase_add_test(child, unset_variable_is_no_upgrade);
	tcase_add_loop_test(child, variable_without_a_valid_descriptor_is_a_problem, 0,
			    sizeof invalid_values / sizeof *invalid_values);
	tcase_add_test(child, descriptor_that_is_not_a_channel_is_a_problem);
	tcase_add_test(child, path_of_the_program_is_absolute_and_executable);
	suite_add_tcase(suite, child);
	int status = check_run(suite);
	free(self);
	return status;
}
