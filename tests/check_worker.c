/* check_worker.c: task is run once, in order, by the thread it was posted to, and none is lost. */
#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "check_hold.h"
#include "check_run.h"
#include "check_stderr.h"
#include "check_threads.h"
#include "core/cpu_count.h"
#include "core/log.h"
#include "thread/fd_transfer.h"
#include "thread/worker.h"

enum { POSTERS = 4, MAILS = 2000, ROUNDS = 20000, PATIENCE_S = 20 };

/* Mail that counts its runs. */
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
	ck_assert_msg(sem_timedwait(semaphore, &deadline) == 0, "nothing came");
}

static struct worker *worker;

/* A login has 1024, which do not do for what is given here. */
static void raise_descriptor_limit(void)
{
	struct rlimit limit;
	ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &limit), 0);
	limit.rlim_cur = limit.rlim_max;
	ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
}

static void setup(void)
{
	raise_descriptor_limit();
	worker = worker_new(3);
	ck_assert_ptr_nonnull(worker);
}

static void teardown(void)
{
	worker_stop(worker);
	worker_free(worker);
}

START_TEST(a_posted_mail_runs_once_on_the_workers_thread)
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

START_TEST(mail_posted_before_the_start_is_run_after_it)
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

START_TEST(mail_that_is_still_queued_is_not_queued_twice_and_can_be_posted_again_later)
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

START_TEST(mail_runs_in_the_order_it_was_posted_in)
{
	static struct counted list[MAILS];
	ck_assert_int_eq(worker_start(worker), 0);
	for (int i = 0; i < MAILS; i++) {
		counted_init(&list[i]);
		worker_post(worker, &list[i].task);
	}
	worker_stop(worker);
	for (unsigned i = 0; i < MAILS; i++) {
		ck_assert_uint_eq(list[i].runs, 1);
		ck_assert_uint_eq(list[i].number, i);
	}
}
END_TEST

START_TEST(a_stop_comes_after_the_mail_that_is_queued)
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

/* --- descriptors --- */

enum { PIPES = 600, PATIENCE_MS = PATIENCE_S * 1000, IMPATIENCE_MS = 100 };

/* Pipes whose writing ends are given to the worker and closed by main. */
struct handed {
	int ends[PIPES], fds[PIPES], taken[PIPES];
	unsigned count, written;
	sem_t ran;
};

/* They assert nothing: Check writes down each assertion, to a file that the worker has not. */
static void write_each(void *argument)
{
	struct handed *handed = argument;
	for (unsigned i = 0; i < handed->count; i++)
		handed->written += write(handed->taken[i], &i, sizeof i) == sizeof i;
	sem_post(&handed->ran);
}

static void drop_each(void *argument)
{
	struct handed *handed = argument;
	for (unsigned i = 0; i < handed->count; i++)
		worker_drop_fd(worker, handed->taken[i]);
	sem_post(&handed->ran);
}

static void handed_init(struct handed *handed, unsigned count)
{
	handed->count = count;
	handed->written = 0;
	sem_init(&handed->ran, 0, 0);
	for (unsigned i = 0; i < count; i++) {
		int pair[2];
		ck_assert_int_eq(pipe(pair), 0);
		handed->ends[i] = pair[0];
		handed->fds[i] = pair[1];
	}
}

static void close_mains(const struct handed *handed)
{
	for (unsigned i = 0; i < handed->count; i++)
		close(handed->fds[i]);
}

static void close_ends(const struct handed *handed)
{
	for (unsigned i = 0; i < handed->count; i++)
		close(handed->ends[i]);
}

/* Whether nobody holds the other end any more. */
static bool has_ended(int fd, int patience_ms)
{
	struct pollfd ready = {.fd = fd, .events = POLLIN};
	char byte;
	return poll(&ready, 1, patience_ms) == 1 && read(fd, &byte, 1) == 0;
}

static unsigned count_ended(const struct handed *handed, int patience_ms)
{
	unsigned ended = 0;
	for (unsigned i = 0; i < handed->count; i++)
		ended += has_ended(handed->ends[i], patience_ms);
	return ended;
}

static int give(struct handed *handed, int patience_ms)
{
	return worker_give_fds(worker, handed->fds, handed->taken, handed->count, patience_ms);
}

static void run(void (*function)(void *), struct handed *handed)
{
	struct task task = {.run = function, .argument = handed};
	worker_post(worker, &task);
	await(&handed->ran);
}

/* A worker with a table of its own, where that is possible; else there is nothing to promise, since the table is shared. */
static bool start_own(void)
{
	worker_own_descriptors(worker);
	ck_assert_int_eq(worker_start(worker), 0);
	return worker_owns_descriptors(worker);
}

/* Each unsigned that was written to a pipe is the pipe's number. */
static void each_says_its_number(const struct handed *handed)
{
	for (unsigned i = 0; i < handed->count; i++) {
		unsigned said;
		ck_assert_int_eq(read(handed->ends[i], &said, sizeof said), sizeof said);
		ck_assert_uint_eq(said, i);
	}
}

START_TEST(a_worker_with_a_table_of_its_own_keeps_what_it_was_given_until_it_drops_it)
{
	static struct handed handed;
	if (!start_own())
		return;
	handed_init(&handed, PIPES); /* more than one message of the kernel can carry */
	ck_assert_int_eq(give(&handed, PATIENCE_MS), 0);
	close_mains(&handed);
	ck_assert_uint_eq(count_ended(&handed, 0), 0);
	run(write_each, &handed);
	ck_assert_uint_eq(handed.written, PIPES);
	each_says_its_number(&handed);
	run(drop_each, &handed);
	ck_assert_uint_eq(count_ended(&handed, 0), PIPES);
	close_ends(&handed);
}
END_TEST

START_TEST(a_worker_gives_back_what_is_not_needed)
{
	static struct handed handed;
	if (!start_own())
		return;
	handed_init(&handed, PIPES);
	ck_assert_int_eq(give(&handed, PATIENCE_MS), 0);
	worker_take_back_fds(worker, handed.taken, PIPES, PATIENCE_MS);
	close_mains(&handed);
	ck_assert_uint_eq(count_ended(&handed, 0), PIPES);
	close_ends(&handed);
}
END_TEST

static void limit_descriptors(rlim_t count, struct rlimit *before)
{
	ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, before), 0);
	struct rlimit limit = {.rlim_cur = count, .rlim_max = before->rlim_max};
	ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
}

START_TEST(a_worker_without_room_for_all_takes_none_and_takes_all_when_there_is)
{
	static struct handed handed;
	struct rlimit before;
	if (!start_own())
		return;
	handed_init(&handed, PIPES);
	limit_descriptors(PIPES - 20, &before); /* two batches have room, the third has not */
	ck_assert_int_eq(give(&handed, PATIENCE_MS), EMFILE);
	ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &before), 0);
	ck_assert_int_eq(give(&handed, PATIENCE_MS), 0);
	close_mains(&handed);
	ck_assert_uint_eq(count_ended(&handed, 0), 0);
	run(drop_each, &handed);
	ck_assert_uint_eq(count_ended(&handed, 0), PIPES);
	close_ends(&handed);
}
END_TEST

static void busy_begin(struct hold *busy)
{
	hold_post(busy, worker);
	await(&busy->begun);
}

START_TEST(a_worker_that_does_not_answer_is_not_waited_for_and_keeps_nothing_of_it)
{
	static struct handed late, handed;
	struct hold busy;
	if (!start_own())
		return;
	handed_init(&late, PIPES);
	busy_begin(&busy);
	ck_assert_int_eq(give(&late, IMPATIENCE_MS), ETIMEDOUT);
	ck_assert_int_eq(give(&late, IMPATIENCE_MS), ETIMEDOUT); /* it still has the first to answer */
	sem_post(&busy.over);
	close_mains(&late);
	ck_assert_uint_eq(count_ended(&late, PATIENCE_MS), PIPES); /* without being asked for anything else */
	handed_init(&handed, 1);
	ck_assert_int_eq(give(&handed, PATIENCE_MS), 0);
	close_mains(&handed);
	run(write_each, &handed);
	each_says_its_number(&handed);
	close_ends(&late);
	close_ends(&handed);
}
END_TEST

/* A taker that is slow at first. */
static void *serve_slowly(void *argument)
{
	struct fd_transfer *fd_transfer = argument;
	struct pollfd ready = {.fd = fd_transfer->taker, .events = POLLIN};
	poll(NULL, 0, IMPATIENCE_MS);
	while (poll(&ready, 1, -1) == 1 && (ready.revents & POLLHUP) == 0)
		fd_transfer_serve(fd_transfer, fd_transfer->taker);
	return NULL;
}

START_TEST(more_than_fits_between_the_two_is_given_and_given_back)
{
	enum { MANY = 1000, LEAST = 1 }; /* the kernel makes room for two messages of that */
	static int fds[MANY], taken[MANY];
	struct fd_transfer fd_transfer;
	struct rlimit before;
	pthread_t thread;
	int pair[2], room = LEAST;

	limit_descriptors(MANY + 100, &before);
	ck_assert_int_eq(fd_transfer_open(&fd_transfer), 0);
	ck_assert_int_eq(setsockopt(fd_transfer.giver, SOL_SOCKET, SO_SNDBUF, &room, sizeof room), 0);
	ck_assert_int_eq(pthread_create(&thread, NULL, serve_slowly, &fd_transfer), 0);
	ck_assert_int_eq(pipe(pair), 0);
	for (unsigned i = 0; i < MANY; i++)
		fds[i] = pair[1]; /* each time it gets another number */
	ck_assert_int_eq(fd_transfer_give(&fd_transfer, fds, taken, MANY, PATIENCE_MS), 0);
	close(pair[1]);
	ck_assert(!has_ended(pair[0], 0));
	ck_assert_int_eq(fd_transfer_take_back(&fd_transfer, taken, MANY, PATIENCE_MS), 0);
	ck_assert(has_ended(pair[0], 0));
	close(pair[0]);
	fd_transfer_close_giver(&fd_transfer);
	pthread_join(thread, NULL);
	fd_transfer_close_taker(&fd_transfer);
	ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &before), 0);
}
END_TEST

START_TEST(a_worker_that_has_ended_takes_nothing)
{
	static struct handed handed;
	if (!start_own())
		return;
	worker_stop(worker);
	handed_init(&handed, 1);
	ck_assert_int_ne(give(&handed, PATIENCE_MS), 0);
	close_mains(&handed);
	ck_assert(has_ended(handed.ends[0], PATIENCE_MS));
	close_ends(&handed);
}
END_TEST

/* In flight, for as long as PAIR is open: COUNT descriptors. */
static void send_off(const int pair[2], unsigned count)
{
	union {
		struct cmsghdr header;
		char bytes[CMSG_SPACE(100 * sizeof(int))];
	} ancillary = {.header = {.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS}};
	char byte = 0;
	struct iovec part = {.iov_base = &byte, .iov_len = 1};
	struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = ancillary.bytes};
	int *fds = (int *)CMSG_DATA(&ancillary.header);

	ancillary.header.cmsg_len = CMSG_LEN(count * sizeof *fds);
	message.msg_controllen = CMSG_SPACE(count * sizeof *fds);
	for (unsigned i = 0; i < count; i++)
		fds[i] = STDERR_FILENO;
	ck_assert_int_eq(sendmsg(pair[0], &message, 0), 1);
}

START_TEST(what_the_kernel_does_not_pass_on_is_told)
{
	static struct handed handed;
	struct rlimit before;
	int pair[2];
	if (geteuid() == 0) /* it may do more */
		ck_assert_int_eq(setresuid(64999, 64999, 64999), 0);
	if (!start_own())
		return;
	handed_init(&handed, 10);
	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	send_off(pair, 100);
	limit_descriptors(99, &before);
	ck_assert_int_eq(give(&handed, PATIENCE_MS), ETOOMANYREFS);
	close(pair[0]);
	close(pair[1]);
	ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &before), 0);
	ck_assert_int_eq(give(&handed, PATIENCE_MS), 0);
	close_mains(&handed);
	ck_assert_uint_eq(count_ended(&handed, 0), 0);
	close_ends(&handed);
}
END_TEST

START_TEST(a_worker_with_a_table_of_its_own_does_not_keep_mains_sockets_open)
{
	static struct handed handed;
	handed_init(&handed, 1);
	start_own(); /* closed is closed where it is shared, too */
	close_mains(&handed);
	ck_assert_uint_eq(count_ended(&handed, 0), 1);
	close_ends(&handed);
}
END_TEST

/* False: the kernel has no filters. */
static bool refuse_unshare(void)
{
	struct sock_filter lines[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_unshare, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	const struct sock_fprog program = {.len = sizeof lines / sizeof *lines, .filter = lines};
	return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

START_TEST(a_worker_that_is_refused_a_table_of_its_own_shares_mains)
{
	static struct handed handed;
	if (!refuse_unshare())
		return;
	ck_assert(!start_own());
	handed_init(&handed, 2);
	ck_assert_int_eq(give(&handed, PATIENCE_MS), 0);
	ck_assert_mem_eq(handed.taken, handed.fds, 2 * sizeof(int));
	run(write_each, &handed);
	each_says_its_number(&handed);
	close_mains(&handed);
	ck_assert_uint_eq(count_ended(&handed, 0), 2);
	close_ends(&handed);
}
END_TEST

START_TEST(a_worker_that_shares_the_table_calls_a_descriptor_what_main_calls_it)
{
	static struct handed handed;
	ck_assert_int_eq(worker_start(worker), 0);
	handed_init(&handed, 2);
	ck_assert_int_eq(give(&handed, PATIENCE_MS), 0);
	ck_assert_mem_eq(handed.taken, handed.fds, 2 * sizeof(int));
	worker_take_back_fds(worker, handed.taken, 2, PATIENCE_MS);
	run(drop_each, &handed);
	ck_assert_int_eq(fcntl(handed.fds[0], F_GETFD), 0);
	close_mains(&handed);
	close_ends(&handed);
}
END_TEST

START_TEST(a_worker_with_a_table_of_its_own_can_be_started_again)
{
	static struct handed handed;
	for (int i = 0; i < 3; i++) {
		if (!start_own())
			return;
		handed_init(&handed, 2);
		ck_assert_int_eq(give(&handed, PATIENCE_MS), 0);
		close_mains(&handed);
		run(write_each, &handed);
		each_says_its_number(&handed);
		worker_stop(worker);
		ck_assert_uint_eq(count_ended(&handed, PATIENCE_MS), 2);
		close_ends(&handed);
	}
}
END_TEST

/* --- the end --- */

START_TEST(the_last_mail_runs_on_the_thread_when_its_loop_has_ended)
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

START_TEST(a_worker_that_never_ran_can_be_stopped_and_freed)
{
	worker_stop(worker);
	worker_free(NULL);
}
END_TEST

START_TEST(a_stopped_worker_can_be_started_again)
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

struct poster {
	struct counted *list;
};

static void *post_own(void *argument)
{
	struct poster *poster = argument;
	for (int i = 0; i < MAILS; i++)
		worker_post(worker, &poster->list[i].task);
	return NULL;
}

START_TEST(mail_of_many_threads_runs_once_and_in_each_ones_order)
{
	static struct counted list[POSTERS][MAILS];
	struct poster posters[POSTERS];
	struct threads threads;

	ck_assert_int_eq(worker_start(worker), 0);
	for (int i = 0; i < POSTERS; i++) {
		posters[i].list = list[i];
		for (int j = 0; j < MAILS; j++)
			counted_init(&list[i][j]);
	}
	threads_start(&threads, POSTERS, post_own, posters, sizeof *posters);
	threads_join(&threads);
	worker_stop(worker);

	for (int i = 0; i < POSTERS; i++)
		for (int j = 0; j < MAILS; j++) {
			ck_assert_uint_eq(list[i][j].runs, 1);
			ck_assert(j == 0 || list[i][j - 1].number < list[i][j].number);
		}
}
END_TEST

/* News that one task, posted by all, is to carry: as tcp.c does when a place is free. */
struct news {
	struct task task;
	_Atomic uint64_t written;
	uint64_t read;
};

static void read_news(void *argument)
{
	struct news *news = argument;
	news->read = atomic_load(&news->written);
}

static void *write_news(void *argument)
{
	struct news *news = *(struct news **)argument;
	for (int i = 0; i < ROUNDS; i++) {
		atomic_fetch_add(&news->written, 1);
		worker_post(worker, &news->task);
	}
	return NULL;
}

START_TEST(what_mail_was_posted_for_is_seen_by_the_run_to_come)
{
	struct news news = {.task = {.run = read_news, .argument = &news}};
	struct news *pointers[POSTERS];
	struct threads threads;

	ck_assert_int_eq(worker_start(worker), 0);
	for (int i = 0; i < POSTERS; i++)
		pointers[i] = &news;
	threads_start(&threads, POSTERS, write_news, pointers, sizeof *pointers);
	threads_join(&threads);
	worker_stop(worker);
	ck_assert_uint_eq(news.read, (uint64_t)POSTERS * ROUNDS);
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

START_TEST(mail_can_be_posted_again_by_its_own_run)
{
	struct echoing echoing = {.task = {.run = post_again, .argument = &echoing}, .left = 1000};
	sem_init(&echoing.done, 0, 0);
	ck_assert_int_eq(worker_start(worker), 0);
	worker_post(worker, &echoing.task);
	await(&echoing.done);
}
END_TEST

/* Two task queues that answer each other, as a worker and the main thread do. */
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

START_TEST(two_loops_answer_each_other_without_a_loss)
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

struct portrait {
	struct task task;
	sigset_t blocked;
	char name[16];
	sem_t done;
};

static void draw(void *argument)
{
	struct portrait *portrait = argument;
	pthread_sigmask(SIG_BLOCK, NULL, &portrait->blocked);
	pthread_getname_np(pthread_self(), portrait->name, sizeof portrait->name);
	sem_post(&portrait->done);
}

START_TEST(a_worker_leaves_signals_to_the_main_thread)
{
	static const int numbers[] = {SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGUSR2, SIGPIPE};
	struct portrait portrait = {.task = {.run = draw, .argument = &portrait}};
	sigset_t own_before, own_after;

	sem_init(&portrait.done, 0, 0);
	pthread_sigmask(SIG_BLOCK, NULL, &own_before);
	ck_assert_int_eq(worker_start(worker), 0);
	pthread_sigmask(SIG_BLOCK, NULL, &own_after);
	worker_post(worker, &portrait.task);
	await(&portrait.done);
	for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
		ck_assert_int_eq(sigismember(&portrait.blocked, numbers[i]), 1);
		ck_assert_int_eq(sigismember(&own_after, numbers[i]), sigismember(&own_before, numbers[i]));
	}
}
END_TEST

START_TEST(a_worker_is_known_by_its_number)
{
	struct portrait portrait = {.task = {.run = draw, .argument = &portrait}};
	sem_init(&portrait.done, 0, 0);
	ck_assert_uint_eq(worker_index(worker), 3);
	ck_assert_int_eq(worker_start(worker), 0);
	worker_post(worker, &portrait.task);
	await(&portrait.done);
	ck_assert_str_eq(portrait.name, "worker-3");
}
END_TEST

START_TEST(workers_draw_different_numbers)
{
	struct worker *other = worker_new(4);
	for (int i = 0; i < 1000; i++)
		ck_assert_uint_ne(worker_random(worker), worker_random(other));
	worker_free(other);
}
END_TEST

START_TEST(as_many_processors_as_this_process_may_use)
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

/* A regular file cannot be watched, of which libevent tells stderr, unless it is told where to. */
START_TEST(what_libevent_says_is_logged_for_debugging)
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
		const char *said = stderr_end();
		if (levels[i] == LOG_DEBUG)
			ck_assert_ptr_nonnull(strstr(said, "libevent: Epoll ADD"));
		else
			ck_assert_str_eq(said, "");
	}
	event_free(event);
	close(file);
}
END_TEST

static Suite *suite(void)
{
	Suite *suite = suite_create("worker");
	TCase *task = tcase_create("mail");
	tcase_add_checked_fixture(task, setup, teardown);
	tcase_set_timeout(task, 60);
	tcase_add_test(task, a_posted_mail_runs_once_on_the_workers_thread);
	tcase_add_test(task, mail_posted_before_the_start_is_run_after_it);
	tcase_add_test(task, mail_that_is_still_queued_is_not_queued_twice_and_can_be_posted_again_later);
	tcase_add_test(task, mail_runs_in_the_order_it_was_posted_in);
	tcase_add_test(task, a_stop_comes_after_the_mail_that_is_queued);
	tcase_add_test(task, mail_of_many_threads_runs_once_and_in_each_ones_order);
	tcase_add_test(task, what_mail_was_posted_for_is_seen_by_the_run_to_come);
	tcase_add_test(task, mail_can_be_posted_again_by_its_own_run);
	tcase_add_test(task, two_loops_answer_each_other_without_a_loss);
	suite_add_tcase(suite, task);

	TCase *descriptors = tcase_create("descriptors");
	tcase_add_checked_fixture(descriptors, setup, teardown);
	tcase_set_timeout(descriptors, 120);
	tcase_add_test(descriptors, a_worker_with_a_table_of_its_own_keeps_what_it_was_given_until_it_drops_it);
	tcase_add_test(descriptors, a_worker_with_a_table_of_its_own_does_not_keep_mains_sockets_open);
	tcase_add_test(descriptors, a_worker_with_a_table_of_its_own_can_be_started_again);
	tcase_add_test(descriptors, a_worker_gives_back_what_is_not_needed);
	tcase_add_test(descriptors, a_worker_without_room_for_all_takes_none_and_takes_all_when_there_is);
	tcase_add_test(descriptors, a_worker_that_does_not_answer_is_not_waited_for_and_keeps_nothing_of_it);
	tcase_add_test(descriptors, more_than_fits_between_the_two_is_given_and_given_back);
	tcase_add_test(descriptors, a_worker_that_has_ended_takes_nothing);
	tcase_add_test(descriptors, what_the_kernel_does_not_pass_on_is_told);
	tcase_add_test(descriptors, a_worker_that_is_refused_a_table_of_its_own_shares_mains);
	tcase_add_test(descriptors, a_worker_that_shares_the_table_calls_a_descriptor_what_main_calls_it);
	suite_add_tcase(suite, descriptors);

	TCase *thread = tcase_create("thread");
	tcase_add_checked_fixture(thread, setup, teardown);
	tcase_set_timeout(thread, 60);
	tcase_add_test(thread, the_last_mail_runs_on_the_thread_when_its_loop_has_ended);
	tcase_add_test(thread, a_worker_that_never_ran_can_be_stopped_and_freed);
	tcase_add_test(thread, a_stopped_worker_can_be_started_again);
	tcase_add_test(thread, a_worker_leaves_signals_to_the_main_thread);
	tcase_add_test(thread, a_worker_is_known_by_its_number);
	tcase_add_test(thread, workers_draw_different_numbers);
	tcase_add_test(thread, what_libevent_says_is_logged_for_debugging);
	tcase_add_test(thread, as_many_processors_as_this_process_may_use);
	suite_add_tcase(suite, thread);
	return suite;
}

int main(void)
{
	return check_run(suite());
}
