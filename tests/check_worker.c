/* check_worker.c: each task runs once, in order, on the thread that it was posted to. */
#include <errno.h>
#include <event2/event.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "check_run.h"
#include "check_stderr.h"
#include "check_threads.h"
#include "core/cpu_count.h"
#include "core/log.h"
#include "thread/worker.h"

enum { POSTERS = 4, TASKS = 2000, ROUNDS = 20000, PATIENCE_S = 20 };

/* A task that counts its runs. */
struct counted {
	struct task task;
	unsigned runs, number;
	pthread_t thread;
	sem_t ran;
};

static unsigned sequence; /* of one worker's thread */

static void count_run(void *argument)
{
	struct counted *counted = argument;
	counted->runs++;
	counted->number = sequence++;
	counted->thread = pthread_self();
	sem_post(&counted->ran);
}

static void counted_init(struct counted *counted)
{
	*counted = (struct counted){.task = {.run = count_run, .argument = counted}};
	sem_init(&counted->ran, 0, 0);
}

static void await(sem_t *semaphore)
{
	struct timespec deadline;
	clock_gettime(CLOCK_REALTIME, &deadline);
	deadline.tv_sec += PATIENCE_S;
	ck_assert_msg(sem_timedwait(semaphore, &deadline) == 0, "no task ran");
}

static struct worker *worker;

static void setup(void)
{
	worker = worker_new(3);
	ck_assert_ptr_nonnull(worker);
}

static void teardown(void)
{
	worker_stop(worker);
	worker_free(worker);
}

START_TEST(posted_task_runs_once_on_the_thread)
{
	struct counted counted;
	counted_init(&counted);
	ck_assert_int_eq(worker_start(worker), 0);
	worker_post(worker, &counted.task);
	await(&counted.ran);
	worker_stop(worker);
	ck_assert_uint_eq(counted.runs, 1);
	ck_assert(!pthread_equal(counted.thread, pthread_self()));
}
END_TEST

START_TEST(task_posted_before_the_start_runs_after_it)
{
	struct counted counted;
	counted_init(&counted);
	worker_post(worker, &counted.task);
	ck_assert_uint_eq(counted.runs, 0);
	ck_assert_int_eq(worker_start(worker), 0);
	await(&counted.ran);
	worker_stop(worker);
	ck_assert_uint_eq(counted.runs, 1);
}
END_TEST

START_TEST(queued_task_is_queued_once_and_can_be_posted_again)
{
	struct counted counted;
	counted_init(&counted);
	for (int i = 0; i < 5; i++)
		worker_post(worker, &counted.task);
	ck_assert_int_eq(worker_start(worker), 0);
	await(&counted.ran);
	worker_post(worker, &counted.task);
	await(&counted.ran);
	worker_stop(worker);
	ck_assert_uint_eq(counted.runs, 2);
}
END_TEST

START_TEST(tasks_run_in_the_order_of_posting)
{
	static struct counted list[TASKS];
	ck_assert_int_eq(worker_start(worker), 0);
	for (int i = 0; i < TASKS; i++) {
		counted_init(&list[i]);
		worker_post(worker, &list[i].task);
	}
	worker_stop(worker);
	for (unsigned i = 0; i < TASKS; i++) {
		ck_assert_uint_eq(list[i].runs, 1);
		ck_assert_uint_eq(list[i].number, i);
	}
}
END_TEST

START_TEST(queued_tasks_run_before_a_stop)
{
	struct counted first, second;
	counted_init(&first);
	counted_init(&second);
	worker_post(worker, &first.task);
	worker_post(worker, &second.task);
	ck_assert_int_eq(worker_start(worker), 0);
	worker_stop(worker);
	ck_assert_uint_eq(first.runs, 1);
	ck_assert_uint_eq(second.runs, 1);
}
END_TEST

/* --- the end --- */

START_TEST(end_task_runs_on_the_thread_after_its_loop)
{
	struct counted first, last;
	counted_init(&first);
	counted_init(&last);
	worker_at_end(worker, &last.task);
	ck_assert_int_eq(worker_start(worker), 0);
	worker_post(worker, &first.task);
	await(&first.ran);
	ck_assert_uint_eq(last.runs, 0);
	worker_stop(worker);
	ck_assert_uint_eq(last.runs, 1);
	ck_assert(pthread_equal(first.thread, last.thread));
}
END_TEST

START_TEST(unstarted_worker_can_be_stopped_and_freed)
{
	worker_stop(worker);
	worker_free(NULL);
}
END_TEST

START_TEST(stopped_worker_can_be_started_again)
{
	struct counted counted;
	counted_init(&counted);
	for (unsigned i = 1; i <= 3; i++) {
		ck_assert_int_eq(worker_start(worker), 0);
		worker_post(worker, &counted.task);
		await(&counted.ran);
		worker_stop(worker);
		ck_assert_uint_eq(counted.runs, i);
	}
}
END_TEST

/* --- several threads --- */

static void *post_list(void *argument)
{
	struct counted *list = argument;
	for (int i = 0; i < TASKS; i++)
		worker_post(worker, &list[i].task);
	return NULL;
}

START_TEST(tasks_of_many_threads_run_once_and_in_order)
{
	static struct counted list[POSTERS][TASKS];
	struct threads threads;

	ck_assert_int_eq(worker_start(worker), 0);
	for (int i = 0; i < POSTERS; i++)
		for (int j = 0; j < TASKS; j++)
			counted_init(&list[i][j]);
	threads_start(&threads, POSTERS, post_list, list, sizeof *list);
	threads_join(&threads);
	worker_stop(worker);

	for (int i = 0; i < POSTERS; i++)
		for (int j = 0; j < TASKS; j++) {
			ck_assert_uint_eq(list[i][j].runs, 1);
			ck_assert(j == 0 || list[i][j - 1].number < list[i][j].number);
		}
}
END_TEST

/* A number that one task, posted by all threads, reads: as a freed slot of a limit. */
struct update {
	struct task task;
	_Atomic uint64_t written;
	uint64_t read;
};

static void read_update(void *argument)
{
	struct update *update = argument;
	update->read = atomic_load(&update->written);
}

static void *write_update(void *argument)
{
	struct update *update = *(struct update **)argument;
	for (int i = 0; i < ROUNDS; i++) {
		atomic_fetch_add(&update->written, 1);
		worker_post(worker, &update->task);
	}
	return NULL;
}

START_TEST(pending_run_sees_what_was_written_before_posting)
{
	struct update update = {.task = {.run = read_update, .argument = &update}};
	struct update *pointers[POSTERS];
	struct threads threads;

	ck_assert_int_eq(worker_start(worker), 0);
	for (int i = 0; i < POSTERS; i++)
		pointers[i] = &update;
	threads_start(&threads, POSTERS, write_update, pointers, sizeof *pointers);
	threads_join(&threads);
	worker_stop(worker);
	ck_assert_uint_eq(update.read, (uint64_t)POSTERS * ROUNDS);
}
END_TEST

struct echoing {
	struct task task;
	unsigned left;
	sem_t done;
};

static void post_again(void *argument)
{
	struct echoing *echoing = argument;
	if (echoing->left-- > 0)
		worker_post(worker, &echoing->task);
	else
		sem_post(&echoing->done);
}

START_TEST(task_can_post_itself_again)
{
	struct echoing echoing = {.task = {.run = post_again, .argument = &echoing}, .left = 1000};
	sem_init(&echoing.done, 0, 0);
	ck_assert_int_eq(worker_start(worker), 0);
	worker_post(worker, &echoing.task);
	await(&echoing.done);
}
END_TEST

/* Two task queues that post to each other, as a worker and the main thread do. */
struct ball {
	struct task there, back;
	struct task_queue *main;
	struct event_base *base;
	unsigned returned;
};

static void hit_back(void *argument)
{
	struct ball *ball = argument;
	task_queue_post(ball->main, &ball->back);
}

static void serve_again(void *argument)
{
	struct ball *ball = argument;
	if (++ball->returned == ROUNDS / 10)
		event_base_loopbreak(ball->base);
	else
		worker_post(worker, &ball->there);
}

START_TEST(two_loops_lose_no_task)
{
	const struct timeval patience = {.tv_sec = PATIENCE_S};
	struct ball ball = {.base = event_base_new()};
	ball.there = (struct task){.run = hit_back, .argument = &ball};
	ball.back = (struct task){.run = serve_again, .argument = &ball};
	ball.main = task_queue_new(ball.base);

	ck_assert_int_eq(worker_start(worker), 0);
	worker_post(worker, &ball.there);
	event_base_loopexit(ball.base, &patience);
	event_base_dispatch(ball.base);
	ck_assert_uint_eq(ball.returned, ROUNDS / 10);
	worker_stop(worker);
	task_queue_free(ball.main);
	event_base_free(ball.base);
}
END_TEST

/* --- the thread --- */

struct thread_facts {
	struct task task;
	sigset_t blocked;
	char name[16];
	sem_t done;
};

static void draw(void *argument)
{
	struct thread_facts *facts = argument;
	pthread_sigmask(SIG_BLOCK, NULL, &facts->blocked);
	pthread_getname_np(pthread_self(), facts->name, sizeof facts->name);
	sem_post(&facts->done);
}

START_TEST(worker_blocks_all_signals)
{
	static const int numbers[] = {SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGUSR2, SIGPIPE};
	struct thread_facts facts = {.task = {.run = draw, .argument = &facts}};
	sigset_t own_before, own_after;

	sem_init(&facts.done, 0, 0);
	pthread_sigmask(SIG_BLOCK, NULL, &own_before);
	ck_assert_int_eq(worker_start(worker), 0);
	pthread_sigmask(SIG_BLOCK, NULL, &own_after);
	worker_post(worker, &facts.task);
	await(&facts.done);
	for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
		ck_assert_int_eq(sigismember(&facts.blocked, numbers[i]), 1);
		ck_assert_int_eq(sigismember(&own_after, numbers[i]), sigismember(&own_before, numbers[i]));
	}
}
END_TEST

START_TEST(worker_thread_has_its_index_in_its_name)
{
	struct thread_facts facts = {.task = {.run = draw, .argument = &facts}};
	sem_init(&facts.done, 0, 0);
	ck_assert_uint_eq(worker_index(worker), 3);
	ck_assert_int_eq(worker_start(worker), 0);
	worker_post(worker, &facts.task);
	await(&facts.done);
	ck_assert_str_eq(facts.name, "worker-3");
}
END_TEST

START_TEST(workers_have_different_random_numbers)
{
	struct worker *other = worker_new(4);
	for (int i = 0; i < 1000; i++)
		ck_assert_uint_ne(worker_random(worker), worker_random(other));
	worker_free(other);
}
END_TEST

START_TEST(cpu_count_follows_the_affinity)
{
	cpu_set_t all, one;
	ck_assert_int_eq(sched_getaffinity(0, sizeof all, &all), 0);
	unsigned count = cpu_count();
	ck_assert_uint_ge(count, 1);
	ck_assert_uint_le(count, (unsigned)CPU_COUNT(&all));

	int first = 0;
	while (!CPU_ISSET(first, &all))
		first++;
	CPU_ZERO(&one);
	CPU_SET(first, &one);
	ck_assert_int_eq(sched_setaffinity(0, sizeof one, &one), 0);
	ck_assert_uint_eq(cpu_count(), 1);
	sched_setaffinity(0, sizeof all, &all);
}
END_TEST

/* --- libevent --- */

/* Adds an event for a regular file, which fails with a message of libevent. */
START_TEST(libevent_messages_are_logged_at_debug)
{
	static const int levels[] = {LOG_NOTICE, LOG_DEBUG};
	int file = memfd_create("regular", MFD_CLOEXEC);
	struct event *event = event_new(worker_base(worker), file, EV_READ, NULL, NULL);
	ck_assert_ptr_nonnull(event);
	for (int i = 0; i < 2; i++) {
		stderr_begin();
		log_open(LOG_TO_STDERR, levels[i], LOG_DAEMON);
		ck_assert_int_eq(event_add(event, NULL), -1);
		ck_assert_int_eq(errno, EPERM);
		log_close();
		const char *output = stderr_end();
		if (levels[i] == LOG_DEBUG)
			ck_assert_ptr_nonnull(strstr(output, "libevent: Epoll ADD"));
		else
			ck_assert_str_eq(output, "");
	}
	event_free(event);
	close(file);
}
END_TEST

static Suite *suite(void)
{
	Suite *suite = suite_create("worker");
	TCase *task = tcase_create("tasks");
	tcase_add_checked_fixture(task, setup, teardown);
	tcase_set_timeout(task, 60);
	tcase_add_test(task, posted_task_runs_once_on_the_thread);
	tcase_add_test(task, task_posted_before_the_start_runs_after_it);
	tcase_add_test(task, queued_task_is_queued_once_and_can_be_posted_again);
	tcase_add_test(task, tasks_run_in_the_order_of_posting);
	tcase_add_test(task, queued_tasks_run_before_a_stop);
	tcase_add_test(task, tasks_of_many_threads_run_once_and_in_order);
	tcase_add_test(task, pending_run_sees_what_was_written_before_posting);
	tcase_add_test(task, task_can_post_itself_again);
	tcase_add_test(task, two_loops_lose_no_task);
	suite_add_tcase(suite, task);

	TCase *thread = tcase_create("thread");
	tcase_add_checked_fixture(thread, setup, teardown);
	tcase_set_timeout(thread, 60);
	tcase_add_test(thread, end_task_runs_on_the_thread_after_its_loop);
	tcase_add_test(thread, unstarted_worker_can_be_stopped_and_freed);
	tcase_add_test(thread, stopped_worker_can_be_started_again);
	tcase_add_test(thread, worker_blocks_all_signals);
	tcase_add_test(thread, worker_thread_has_its_index_in_its_name);
	tcase_add_test(thread, workers_have_different_random_numbers);
	tcase_add_test(thread, libevent_messages_are_logged_at_debug);
	tcase_add_test(thread, cpu_count_follows_the_affinity);
	suite_add_tcase(suite, thread);
	return suite;
}

int main(void)
{
	return check_run(suite());
}
