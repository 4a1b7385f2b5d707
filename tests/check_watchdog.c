/* check_watchdog.c: the watchdog pings while every worker responds, and only then. */
#include "config_build.h"

#include <event2/event.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "check_hold.h"
#include "check_run.h"
#include "check_stderr.h"
#include "control/notify.h"
#include "control/watchdog.h"
#include "core/log.h"
#include "thread/worker.h"

enum { WORKERS = 3, INTERVAL_US = 100000, PATIENCE_S = 30, ROUND_US = 20000, ROUNDS = 20 };

static struct event_base *base;
static struct task_queue *task_queue;
static struct worker *workers[WORKERS];
static struct watchdog *watchdog;
static int manager; /* its end of NOTIFY_SOCKET */
static char folder[] = "/tmp/check_watchdog.XXXXXX";
static struct sockaddr_un name = {.sun_family = AF_UNIX};

static void setup(void)
{
	ck_assert_ptr_nonnull(mkdtemp(folder));
	snprintf(name.sun_path, sizeof name.sun_path, "%s/notify", folder);
	manager = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	ck_assert_int_eq(bind(manager, (struct sockaddr *)&name, sizeof name), 0);
	setenv("NOTIFY_SOCKET", name.sun_path, 1);

	base = event_base_new();
	task_queue = task_queue_new(base);
	ck_assert_ptr_nonnull(task_queue);
	for (unsigned i = 0; i < WORKERS; i++) {
		workers[i] = worker_new(i);
		ck_assert_ptr_nonnull(workers[i]);
		ck_assert_int_eq(worker_start(workers[i]), 0);
	}
	stderr_begin();
	log_open(LOG_TO_STDERR, LOG_NOTICE, LOG_DAEMON);
	ck_assert_int_eq(log_start(), 0);
}

static void teardown(void)
{
	for (unsigned i = 0; i < WORKERS; i++)
		worker_stop(workers[i]);
	watchdog_free(watchdog);
	for (unsigned i = 0; i < WORKERS; i++)
		worker_free(workers[i]);
	task_queue_free(task_queue);
	event_base_free(base);
	log_close();
	stderr_end();
	close(manager);
	unlink(name.sun_path);
	rmdir(folder);
}

static void start(void)
{
	watchdog = watchdog_new(base, task_queue, workers, WORKERS, INTERVAL_US);
	ck_assert_ptr_nonnull(watchdog);
}

/* Returns the number of pings so far. */
static unsigned count_pings(void)
{
	static unsigned pings;
	char text[256];
	ssize_t length;
	while ((length = recv(manager, text, sizeof text - 1, 0)) >= 0) {
		text[length] = '\0';
		pings += strstr(text, "WATCHDOG=1") != NULL;
	}
	return pings;
}

static void on_tick(evutil_socket_t fd, short what, void *argument)
{
	(void)fd, (void)what, (void)argument;
}

/* Runs the main thread's loop for a moment. */
static void run_loop(void)
{
	struct timeval moment = {.tv_usec = ROUND_US};
	ck_assert_int_eq(event_base_once(base, -1, EV_TIMEOUT, on_tick, NULL, &moment), 0);
	event_base_loop(base, EVLOOP_ONCE);
}

static void run_until_told(unsigned count)
{
	for (int i = 0; count_pings() < count; i++) {
		ck_assert_msg(i < PATIENCE_S * 1000000 / ROUND_US, "pings %u times, not %u", count_pings(), count);
		run_loop();
	}
}

/* Runs until TEXT is logged after offset SINCE. */
static void run_until_logged(size_t since, const char *text)
{
	for (int i = 0; strstr(stderr_so_far() + since, text) == NULL; i++) {
		ck_assert_msg(i < PATIENCE_S * 1000000 / ROUND_US, "not logged: %s", text);
		run_loop();
	}
}

START_TEST(watchdog_pings_while_all_workers_respond)
{
	start();
	run_until_told(5);
}
END_TEST

START_TEST(hanging_worker_ends_the_pings_until_it_responds)
{
	struct hold hold;
	start();
	run_until_told(2);
	hold_worker(&hold, workers[1]);
	size_t since = strlen(stderr_so_far());
	run_until_logged(since, "worker 1 does not answer: the watchdog is not fed\n");
	unsigned pings = count_pings();
	for (int i = 0; i < ROUNDS; i++)
		run_loop();
	ck_assert_uint_le(count_pings(), pings + 1); /* an earlier response may have been on its way */

	since = strlen(stderr_so_far());
	sem_post(&hold.over);
	run_until_told(pings + 3);
	ck_assert_ptr_nonnull(strstr(stderr_so_far() + since, "worker 1 answers again\n"));
}
END_TEST

START_TEST(stopped_watchdog_does_not_ping)
{
	start();
	run_until_told(1);
	watchdog_stop(watchdog);
	unsigned pings = count_pings();
	for (int i = 0; i < ROUNDS; i++)
		run_loop();
	ck_assert_uint_eq(count_pings(), pings);
}
END_TEST

START_TEST(interval_is_that_of_the_environment_for_this_process)
{
	char own[24];
	snprintf(own, sizeof own, "%ld", (long)getpid());
	unsetenv("WATCHDOG_USEC");
	unsetenv("WATCHDOG_PID");
	ck_assert_uint_eq(notify_watchdog_interval_us(), 0);
	setenv("WATCHDOG_USEC", "1500000", 1);
	ck_assert_uint_eq(notify_watchdog_interval_us(), 1500000);
	setenv("WATCHDOG_PID", own, 1);
	ck_assert_uint_eq(notify_watchdog_interval_us(), 1500000);
	setenv("WATCHDOG_PID", "1", 1);
	ck_assert_uint_eq(notify_watchdog_interval_us(), 0);
	setenv("WATCHDOG_PID", own, 1);
	setenv("WATCHDOG_USEC", "soon", 1);
	ck_assert_uint_eq(notify_watchdog_interval_us(), 0);
}
END_TEST

static Suite *suite(void)
{
	Suite *suite = suite_create("watchdog");
	TCase *tcase = tcase_create("pings");
	tcase_set_timeout(tcase, 120);
	tcase_add_checked_fixture(tcase, setup, teardown);
#ifdef HAVE_LIBSYSTEMD
	tcase_add_test(tcase, watchdog_pings_while_all_workers_respond);
	tcase_add_test(tcase, hanging_worker_ends_the_pings_until_it_responds);
	tcase_add_test(tcase, stopped_watchdog_does_not_ping);
	tcase_add_test(tcase, interval_is_that_of_the_environment_for_this_process);
#endif
	suite_add_tcase(suite, tcase);
	return suite;
}

int main(void)
{
	return check_run(suite());
}
