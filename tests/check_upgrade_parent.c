/* check_upgrade_parent.c: a new process takes over, or the old one learns why not, whatever the new one does. */
#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check_run.h"
#include "handoff/upgrade_child.h"
#include "handoff/upgrade_parent.h"

enum { PATIENCE_MS = 30000, SHORT_MS = 300, STATUS_FAILED = 9 };

static char *self; /* this program, which is also the new process of the tests */

/* --- the new process: what its argument says --- */

static bool take(void *argument, char *error, size_t size)
{
	const char *how = argument;
	if (strcmp(how, "dies_when_told_to_take") == 0)
		raise(SIGKILL);
	snprintf(error, size, "the cupboard is locked");
	return strcmp(how, "cannot_take") != 0;
}

static struct event_base *new_base;

static void serve(void *argument)
{
	(void)argument;
}

static void stop(void *argument)
{
	(void)argument;
	(void)!write(STDOUT_FILENO, "S", 1);
	event_base_loopbreak(new_base);
}

static void alone(void *argument, bool taken)
{
	(void)argument;
	(void)!write(STDOUT_FILENO, taken ? "A" : "O", 1); /* alone, or an orphan */
	event_base_loopbreak(new_base);
}

static int settle(const char *how)
{
	signal(SIGTERM, SIG_IGN); /* which may come first */
	static const struct upgrade_child_events events = {.take = take, .stop = stop, .serve = serve, .alone = alone};
	struct problems problems = {0};
	int fd = upgrade_child_find(&problems);
	if (fd < 0 || getenv(UPGRADE_VARIABLE) != NULL || fcntl(fd, F_GETFD) != FD_CLOEXEC)
		return STATUS_FAILED;
	new_base = event_base_new();
	struct upgrade_child *upgrade_child = upgrade_child_new(new_base, fd, &events, (void *)how);
	if (upgrade_child == NULL)
		return STATUS_FAILED;
	upgrade_child_tell_ready(upgrade_child);
	event_base_dispatch(new_base);
	upgrade_child_free(upgrade_child);
	event_base_free(new_base);
	return EXIT_SUCCESS;
}

static int be_new(const char *how)
{
	const char *given = getenv("CHECK_GIVEN");
	int channel = atoi(getenv(UPGRADE_VARIABLE));
	if (strcmp(how, "ends") == 0)
		return 3;
	if (strcmp(how, "dies") == 0)
		raise(SIGKILL);
	if (strcmp(how, "says_nonsense") == 0)
		(void)!write(channel, "hello", 5);
	if (strcmp(how, "closes_the_channel") == 0)
		close(channel);
	if (strcmp(how, "hangs") == 0 || strcmp(how, "says_nonsense") == 0 || strcmp(how, "closes_the_channel") == 0)
		pause();
	if (strcmp(how, "ends_when_ready") == 0)
		return (void)!write(channel, UPGRADE_READY, strlen(UPGRADE_READY)), EXIT_SUCCESS;
	if (strcmp(how, "reads_what_it_was_given") == 0) {
		char text[8] = "";
		if (given == NULL || pread(atoi(given), text, 5, 0) != 5 || strcmp(text, "given") != 0)
			return STATUS_FAILED;
		how = "takes";
	}
	return settle(how);
}

/* --- the old one --- */

static struct event_base *base;
static struct upgrade_program *program;
static struct upgrade *upgrade;
static bool has_ended;
static char outcome[UPGRADE_MESSAGE_SIZE];
static int output[2]; /* the new one's standard output */
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

/* Nobody may be left: neither the one in the middle, nor a new one that holds on to its standard output. */
static void teardown(void)
{
	char byte;
	upgrade_free(upgrade);
	upgrade_program_free(program);
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
	snprintf(outcome, sizeof outcome, "%s", failure != NULL ? failure : "taken");
	event_base_loopbreak(base);
}

static void begin(const char *path, const char *how, const struct upgrade_gift *bequest, int64_t deadline_ms)
{
	char error[128], *arguments[] = {self, (char *)how, NULL};
	program = upgrade_program_new(path, arguments);
	ck_assert_ptr_nonnull(program);
	upgrade = upgrade_start(base, program, bequest, deadline_ms, ended, &has_ended, error, sizeof error);
	ck_assert_msg(upgrade != NULL, "%s", error);
}

static void start_path(const char *path, const char *how, const struct upgrade_gift *bequest, int64_t deadline_ms)
{
	begin(path, how, bequest, deadline_ms);
	event_base_dispatch(base);
	ck_assert(has_ended);
}

static void start(const char *how, int64_t deadline_ms)
{
	const struct upgrade_gift nothing = {0};
	start_path(self, how, &nothing, deadline_ms);
}

START_TEST(new_process_takes_over)
{
	char byte;
	start("takes", PATIENCE_MS);
	ck_assert_str_eq(outcome, "taken");
	ck_assert_int_gt(upgrade_pid(upgrade), 0);
	ck_assert_int_ne(upgrade_pid(upgrade), getpid());
	ck_assert(upgrade_confirm(upgrade));
	ck_assert(upgrade_signal(upgrade, 0));
	ck_assert_int_eq(waitpid(-1, NULL, WNOHANG), -1); /* it is no child of ours, nor is there another */
	ck_assert_int_eq(errno, ECHILD);
	upgrade_free(upgrade);
	upgrade = NULL;
	ck_assert_int_eq(read(output[0], &byte, 1), 1);
	ck_assert_int_eq(byte, 'A');
}
END_TEST

START_TEST(new_process_is_given_descriptors_and_a_variable)
{
	char variable[64];
	int fd = open("/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	ck_assert_int_eq(write(fd, "given", 5), 5);
	snprintf(variable, sizeof variable, "CHECK_GIVEN=%d", fd);
	const struct upgrade_gift bequest = {.fds = &fd, .fd_count = 1, .variable = variable};
	start_path(self, "reads_what_it_was_given", &bequest, PATIENCE_MS);
	ck_assert_str_eq(outcome, "taken");
	ck_assert_int_eq(fcntl(fd, F_GETFD), FD_CLOEXEC);
	close(fd);
}
END_TEST

START_TEST(descriptors_are_not_held_by_anybody_in_the_middle)
{
	int ends[2];
	char byte;
	ck_assert_int_eq(pipe2(ends, O_CLOEXEC), 0);
	const struct upgrade_gift nothing = {0};
	begin(self, "hangs", &nothing, PATIENCE_MS);
	close(ends[1]);
	ck_assert_int_eq(read(ends[0], &byte, 1), 0); /* the end of the pipe, while the two others live */
	close(ends[0]);
}
END_TEST

static const struct {
	const char *how, *outcome;
	int64_t deadline_ms;
} failures[] = {
	{"ends", "the new process ended with status 3", PATIENCE_MS},
	{"dies", "the new process was ended by signal 9 (Killed)", PATIENCE_MS},
	{"hangs", "the new process was not ready within 0 s", SHORT_MS},
	{"closes_the_channel", "the new process was not ready within 0 s", SHORT_MS},
	{"says_nonsense", "the new process says \"hello\"", PATIENCE_MS},
	{"cannot_take", "the cupboard is locked", PATIENCE_MS},
	{"dies_when_told_to_take", "the new process ended before it took over", PATIENCE_MS},
};

START_TEST(old_process_learns_why_not)
{
	start(failures[_i].how, failures[_i].deadline_ms);
	ck_assert_str_eq(outcome, failures[_i].outcome);
}
END_TEST

START_TEST(new_process_that_cannot_take_over_is_told_to_stop)
{
	char byte;
	start("cannot_take", PATIENCE_MS);
	ck_assert_int_eq(read(output[0], &byte, 1), 1);
	ck_assert_int_eq(byte, 'S');
}
END_TEST

START_TEST(new_process_that_ends_once_ready_has_failed)
{
	start("ends_when_ready", PATIENCE_MS);
	ck_assert_str_ne(outcome, "taken");
}
END_TEST

START_TEST(missing_program_is_told_with_its_path)
{
	const struct upgrade_gift nothing = {0};
	start_path("/nonexistent/program", "takes", &nothing, PATIENCE_MS);
	ck_assert_str_eq(outcome, "cannot run /nonexistent/program: No such file or directory");
}
END_TEST

/* Whatever moment it is given up at, teardown finds nobody left. */
START_TEST(given_up_it_leaves_nobody_behind)
{
	const struct upgrade_gift nothing = {0};
	begin(self, "hangs", &nothing, PATIENCE_MS);
	for (int i = 0; i < _i; i++)
		event_base_loop(base, EVLOOP_ONCE);
	upgrade_cancel(upgrade);
	event_base_loop(base, EVLOOP_NONBLOCK);
	ck_assert(!has_ended);
}
END_TEST

START_TEST(signals_stay_as_they_were)
{
	sigset_t before, after;
	sigprocmask(SIG_SETMASK, NULL, &before);
	start("ends", PATIENCE_MS);
	sigprocmask(SIG_SETMASK, NULL, &after);
	for (int number = 1; number < NSIG; number++)
		ck_assert_int_eq(sigismember(&before, number), sigismember(&after, number));
}
END_TEST

/* --- the new one's end --- */

START_TEST(without_the_variable_there_is_no_channel)
{
	struct problems problems = {.reloads = true};
	unsetenv(UPGRADE_VARIABLE);
	ck_assert_int_eq(upgrade_child_find(&problems), -1);
	ck_assert_uint_eq(problems.count, 0);
}
END_TEST

static const char *const no_channels[] = {"", "x", "-1", "0", "2", "3x", " 3", "+3", "999999", "99999999999999999999"};

START_TEST(variable_that_names_no_channel_is_an_error)
{
	struct problems problems = {.reloads = true};
	setenv(UPGRADE_VARIABLE, no_channels[_i], 1);
	ck_assert_int_eq(upgrade_child_find(&problems), -1);
	ck_assert_uint_eq(problems.count, 1);
	ck_assert_ptr_null(getenv(UPGRADE_VARIABLE));
}
END_TEST

START_TEST(another_kind_of_descriptor_is_no_channel)
{
	struct problems problems = {.reloads = true};
	char number[16];
	snprintf(number, sizeof number, "%d", open("/dev/null", O_RDWR | O_CLOEXEC));
	setenv(UPGRADE_VARIABLE, number, 1);
	ck_assert_int_eq(upgrade_child_find(&problems), -1);
	ck_assert_ptr_nonnull(strstr(problems.first, "SMALLSERVD_UPGRADE: invalid descriptor: "));
}
END_TEST

START_TEST(path_of_start_is_absolute_and_ours)
{
	ck_assert_int_eq(self[0], '/');
	ck_assert_int_eq(access(self, X_OK), 0);
}
END_TEST

int main(int argc, char **argv)
{
	if (argc > 1 && getenv(UPGRADE_VARIABLE) != NULL)
		return be_new(argv[1]);
	self = upgrade_find_path();

	Suite *suite = suite_create("upgrade");
	TCase *old = tcase_create("old");
	tcase_add_checked_fixture(old, setup, teardown);
	tcase_add_test(old, new_process_takes_over);
	tcase_add_test(old, new_process_is_given_descriptors_and_a_variable);
	tcase_add_test(old, descriptors_are_not_held_by_anybody_in_the_middle);
	tcase_add_loop_test(old, old_process_learns_why_not, 0, sizeof failures / sizeof *failures);
	tcase_add_test(old, new_process_that_cannot_take_over_is_told_to_stop);
	tcase_add_test(old, new_process_that_ends_once_ready_has_failed);
	tcase_add_test(old, missing_program_is_told_with_its_path);
	tcase_add_loop_test(old, given_up_it_leaves_nobody_behind, 0, 2);
	tcase_add_test(old, signals_stay_as_they_were);
	suite_add_tcase(suite, old);
	TCase *new = tcase_create("new");
	tcase_add_test(new, without_the_variable_there_is_no_channel);
	tcase_add_loop_test(new, variable_that_names_no_channel_is_an_error, 0,
			    sizeof no_channels / sizeof *no_channels);
	tcase_add_test(new, another_kind_of_descriptor_is_no_channel);
	tcase_add_test(new, path_of_start_is_absolute_and_ours);
	suite_add_tcase(suite, new);
	int status = check_run(suite);
	free(self);
	return status;
}
