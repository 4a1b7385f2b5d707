/* check_log.c: one line an event, whole and in order, and no thread that serves ever waits for it. */
#include "config_build.h"

#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>

#ifdef HAVE_LIBSYSTEMD
#define SD_JOURNAL_SUPPRESS_LOCATION
#include <systemd/sd-journal.h>
#endif

#include "check_run.h"
#include "check_stderr.h"
#include "check_threads.h"
#include "core/log.h"

enum { QUEUE_LENGTH = 1024, WRITERS = 4, LINES = 200, PATIENCE_MS = 20000 };

static unsigned count_lines(const char *text)
{
	unsigned count = 0;
	for (; *text != '\0'; text++)
		count += *text == '\n';
	return count;
}

static void assert_flushed(unsigned lines)
{
	ck_assert_uint_eq(count_lines(stderr_so_far()), lines);
}

/* --- one thread --- */

START_TEST(before_it_is_opened_lines_go_to_stderr_from_notice_up)
{
	stderr_begin();
	log_notice("early %d", 1);
	log_info("too fine");
	ck_assert_str_eq(stderr_end(), "early 1\n");
	ck_assert_int_eq(log_queue_fd(), -1);
}
END_TEST

START_TEST(lines_below_the_level_are_not_written)
{
	stderr_begin();
	log_open(LOG_TO_STDERR, LOG_WARNING, LOG_DAEMON);
	log_error("error");
	log_warning("warning");
	log_notice("notice");
	log_info("info");
	log_debug("debug");
	log_open(LOG_TO_STDERR, LOG_DEBUG, LOG_DAEMON);
	log_debug("debug now");
	log_close();
	ck_assert_str_eq(stderr_end(), "error\nwarning\ndebug now\n");
}
END_TEST

START_TEST(a_line_stays_one_line_and_steers_no_terminal)
{
	stderr_begin();
	log_open(LOG_TO_STDERR, LOG_NOTICE, LOG_DAEMON);
	log_notice("a\nb\tc\033[31md\177e \xc3\xa9");
	log_close();
	ck_assert_str_eq(stderr_end(), "a?b?c?[31md?e \xc3\xa9\n");
}
END_TEST

START_TEST(a_line_too_long_is_cut_and_still_ends)
{
	char text[5000];
	memset(text, 'x', sizeof text - 1);
	text[sizeof text - 1] = '\0';
	stderr_begin();
	log_open(LOG_TO_STDERR, LOG_NOTICE, LOG_DAEMON);
	log_notice("%s", text);
	log_notice("next");
	log_close();
	const char *written = stderr_end();
	size_t length = strcspn(written, "\n");
	ck_assert_uint_ge(length, 500);
	ck_assert_uint_eq(strspn(written, "x"), length);
	ck_assert_str_eq(written + length, "\nnext\n");
}
END_TEST

/* A socket keeps the bounds of each write. */
START_TEST(a_line_is_one_write)
{
	char bytes[256];
	int pair[2], before = dup(STDERR_FILENO);
	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_DGRAM, 0, pair), 0);
	dup2(pair[1], STDERR_FILENO);
	log_open(LOG_TO_STDERR, LOG_NOTICE, LOG_DAEMON);
	log_notice("%s: listening on %s", "echo", "tcp");
	dup2(before, STDERR_FILENO);
	log_close();
	ssize_t length = recv(pair[0], bytes, sizeof bytes, MSG_DONTWAIT);
	ck_assert_int_eq(length, (ssize_t)strlen("echo: listening on tcp\n"));
	ck_assert_int_eq(memcmp(bytes, "echo: listening on tcp\n", (size_t)length), 0);
	ck_assert_int_lt(recv(pair[0], bytes, sizeof bytes, MSG_DONTWAIT), 0);
	close(pair[0]);
	close(pair[1]);
	close(before);
}
END_TEST

static void set_journal_stream(unsigned offset)
{
	struct stat stat;
	char text[64];
	ck_assert_int_eq(fstat(STDERR_FILENO, &stat), 0);
	snprintf(text, sizeof text, "%llu:%llu", (unsigned long long)stat.st_dev,
		 (unsigned long long)stat.st_ino + offset);
	setenv("JOURNAL_STREAM", text, 1);
}

START_TEST(lines_on_a_stderr_that_is_the_journals_carry_their_priority)
{
	stderr_begin();
	set_journal_stream(0);
	ck_assert(log_stderr_is_journal());
	log_open(LOG_TO_STDERR, LOG_INFO, LOG_DAEMON);
	log_error("bad");
	log_info("good");
	log_close();
	ck_assert_str_eq(stderr_end(), "<3>bad\n<6>good\n");
}
END_TEST

START_TEST(a_stderr_that_is_not_the_journals_has_no_priorities)
{
	stderr_begin();
	set_journal_stream(1);
	ck_assert(!log_stderr_is_journal());
	setenv("JOURNAL_STREAM", "nonsense", 1);
	ck_assert(!log_stderr_is_journal());
	unsetenv("JOURNAL_STREAM");
	ck_assert(!log_stderr_is_journal());
	log_open(LOG_TO_STDERR, LOG_INFO, LOG_DAEMON);
	log_error("bad");
	log_close();
	ck_assert_str_eq(stderr_end(), "bad\n");
}
END_TEST

/* --- other targets: functions of ours stand in for the C library's and libsystemd's --- */

static struct {
	int facility, level, opened, closed, lines;
	char text[256];
} told_to_syslog;

/* The same for builds that check formats and sizes at run time. */
void __syslog_chk(int level, int flag, const char *format, ...) __attribute__((format(printf, 3, 4)));

__attribute__((format(printf, 2, 0))) static void take_syslog(int level, const char *format, va_list arguments)
{
	told_to_syslog.level = level;
	told_to_syslog.lines++;
	vsnprintf(told_to_syslog.text, sizeof told_to_syslog.text, format, arguments);
}

#undef syslog /* a macro where the compiler cannot pass on variable arguments */
void syslog(int level, const char *format, ...)
{
	va_list arguments;
	va_start(arguments, format);
	take_syslog(level, format, arguments);
	va_end(arguments);
}

void __syslog_chk(int level, int flag, const char *format, ...)
{
	va_list arguments;
	(void)flag;
	va_start(arguments, format);
	take_syslog(level, format, arguments);
	va_end(arguments);
}

void openlog(const char *name, int flags, int facility)
{
	(void)flags;
	ck_assert_str_eq(name, "smallservd");
	told_to_syslog.facility = facility;
	told_to_syslog.opened++;
}

void closelog(void)
{
	told_to_syslog.closed++;
}

START_TEST(syslog_gets_the_line_its_level_and_the_facility)
{
	stderr_begin();
	log_open(LOG_TO_SYSLOG, LOG_NOTICE, LOG_LOCAL3);
	log_warning("100%% of %s", "%s");
	log_info("too fine");
	log_close();
	ck_assert_str_eq(stderr_end(), "");
	ck_assert_str_eq(told_to_syslog.text, "100% of %s");
	ck_assert_int_eq(told_to_syslog.level, LOG_WARNING);
	ck_assert_int_eq(told_to_syslog.facility, LOG_LOCAL3);
	ck_assert_int_eq(told_to_syslog.lines, 1);
	ck_assert_int_eq(told_to_syslog.closed, told_to_syslog.opened);
}
END_TEST

#ifdef HAVE_LIBSYSTEMD
static char told_to_journal[4096];
static int journal_answer;

int sd_journal_sendv(const struct iovec *parts, int count)
{
	char *at = told_to_journal;
	for (int i = 0; i < count; i++)
		at += snprintf(at, sizeof told_to_journal / 2, "%.*s\n", (int)parts[i].iov_len,
			       (const char *)parts[i].iov_base);
	return journal_answer;
}

static void assert_field(const char *field)
{
	char line[512];
	snprintf(line, sizeof line, "%s\n", field);
	ck_assert_msg(strstr(told_to_journal, line) != NULL, "no %s in %s", field, told_to_journal);
}

START_TEST(the_journal_gets_fields)
{
	const struct log_context context = {.service = "lab-echo",
					    .transport = "tcp",
					    .source = "[::1]:4711",
					    .config_file = "/etc/some.conf",
					    .config_line = 17};
	ck_assert(log_has_journal());
	log_open(LOG_TO_JOURNAL, LOG_NOTICE, LOG_DAEMON);
	log_write(LOG_WARNING, &context, "it is %s", "so");
	assert_field("MESSAGE=it is so");
	assert_field("PRIORITY=4");
	assert_field("SERVICE=lab-echo");
	assert_field("TRANSPORT=tcp");
	assert_field("SOURCE=[::1]:4711");
	assert_field("CONFIG_FILE=/etc/some.conf");
	assert_field("CONFIG_LINE=17");
	assert_field("SYSLOG_IDENTIFIER=smallservd");
	log_notice("bare");
	ck_assert_str_eq(told_to_journal, "MESSAGE=bare\nPRIORITY=5\nSYSLOG_IDENTIFIER=smallservd\n");
	log_close();
}
END_TEST

START_TEST(what_the_journal_does_not_take_goes_to_stderr)
{
	stderr_begin();
	journal_answer = -28;
	log_open(LOG_TO_JOURNAL, LOG_NOTICE, LOG_DAEMON);
	log_notice("still here");
	log_close();
	ck_assert_str_eq(stderr_end(), "still here\n");
}
END_TEST

/* sd_journal_sendv(3): where no journal runs it does nothing and returns 0. */
START_TEST(lines_for_a_journal_that_does_not_run_go_to_stderr)
{
	if (access("/run/systemd/journal/socket", F_OK) == 0)
		return; /* one runs here */
	stderr_begin();
	log_open(LOG_TO_JOURNAL, LOG_NOTICE, LOG_DAEMON);
	log_error("cannot listen");
	log_close();
	ck_assert_str_eq(stderr_end(), "cannot listen\n");
}
END_TEST
#endif

/* --- the queue of other threads --- */

struct writer {
	int number, lines;
	_Atomic int written;
};

static void *write_lines(void *argument)
{
	struct writer *writer = argument;
	for (int i = 0; i < writer->lines; i++) {
		log_notice("writer %d line %d", writer->number, i);
		atomic_store(&writer->written, i + 1);
	}
	return NULL;
}

static void write_from_thread(int lines)
{
	struct writer writer = {.lines = lines};
	struct threads threads;
	threads_start(&threads, 1, write_lines, &writer, sizeof writer);
	threads_join(&threads);
}

static bool queue_is_readable(void)
{
	struct pollfd queue = {.fd = log_queue_fd(), .events = POLLIN};
	return poll(&queue, 1, 0) == 1;
}

START_TEST(another_threads_line_is_written_by_the_thread_that_opened_the_log)
{
	stderr_begin();
	log_open(LOG_TO_STDERR, LOG_NOTICE, LOG_DAEMON);
	ck_assert(!queue_is_readable());
	write_from_thread(1);
	ck_assert_str_eq(stderr_so_far(), "");
	ck_assert(queue_is_readable());
	log_flush();
	ck_assert(!queue_is_readable());
	log_close();
	ck_assert_str_eq(stderr_end(), "writer 0 line 0\n");
}
END_TEST

START_TEST(closing_writes_what_is_queued)
{
	stderr_begin();
	log_open(LOG_TO_STDERR, LOG_NOTICE, LOG_DAEMON);
	write_from_thread(3);
	log_close();
	log_close();
	ck_assert_str_eq(stderr_end(), "writer 0 line 0\nwriter 0 line 1\nwriter 0 line 2\n");
}
END_TEST

START_TEST(a_full_log_queue_loses_lines_and_counts_them)
{
	enum { MORE = 76 };
	stderr_begin();
	log_open(LOG_TO_STDERR, LOG_NOTICE, LOG_DAEMON);
	ck_assert_uint_eq(log_lost(), 0);
	write_from_thread(QUEUE_LENGTH + MORE);
	ck_assert_uint_eq(log_lost(), MORE);
	log_flush();
	assert_flushed(QUEUE_LENGTH + 1);
	ck_assert_ptr_nonnull(strstr(stderr_so_far(), "\nwriter 0 line 1023\nlog: 76 lines lost"));
	log_flush();
	assert_flushed(QUEUE_LENGTH + 1); /* told once */
	write_from_thread(2);
	log_flush();
	assert_flushed(QUEUE_LENGTH + 3);
	ck_assert_uint_eq(log_lost(), MORE);
	log_close();
	stderr_end();
}
END_TEST

/* Standard error is a pipe that nobody reads and that is full. */
START_TEST(a_thread_that_queues_does_not_wait_for_a_reader)
{
	char byte = 0;
	int ends[2], before = dup(STDERR_FILENO);
	ck_assert_int_eq(pipe2(ends, O_NONBLOCK | O_CLOEXEC), 0);
	while (write(ends[1], &byte, 1) == 1)
		;
	fcntl(ends[1], F_SETFL, 0);
	dup2(ends[1], STDERR_FILENO);
	log_open(LOG_TO_STDERR, LOG_NOTICE, LOG_DAEMON);
	write_from_thread(3 * QUEUE_LENGTH);
	dup2(before, STDERR_FILENO);
	ck_assert_uint_eq(log_lost(), 2 * QUEUE_LENGTH);
	close(ends[0]);
	close(ends[1]);
	close(before);
	stderr_begin();
	log_close();
	stderr_end();
}
END_TEST

/* Whoever reads again learns of all that was lost meanwhile, also where telling it failed at first. */
START_TEST(what_a_reader_missed_is_told_once_it_reads_again)
{
	enum { LINES_LOST = 7, TRIES = 2 };
	char byte = 0;
	int ends[2], before = dup(STDERR_FILENO);
	ck_assert_int_eq(pipe2(ends, O_NONBLOCK | O_CLOEXEC), 0);
	while (write(ends[1], &byte, 1) == 1)
		;
	dup2(ends[1], STDERR_FILENO);
	log_open(LOG_TO_STDERR, LOG_NOTICE, LOG_DAEMON);
	for (int i = 0; i < LINES_LOST; i++)
		log_notice("lost");
	for (int i = 0; i < TRIES; i++)
		log_flush();
	dup2(before, STDERR_FILENO);
	close(ends[0]);
	close(ends[1]);
	close(before);
	stderr_begin();
	log_flush();
	log_flush();
	log_close();
	ck_assert_str_eq(stderr_end(), "log: 9 lines lost, more than could be written\n");
}
END_TEST

/* Checks that TEXT has the lines of every writer, each in its order, and nothing else. */
static void assert_all_lines(const char *text)
{
	int next[WRITERS] = {0}, number, line, used;
	while (*text != '\0') {
		used = 0;
		ck_assert_int_eq(sscanf(text, "writer %d line %d\n%n", &number, &line, &used), 2);
		ck_assert(number >= 0 && number < WRITERS);
		ck_assert_int_eq(line, next[number]++);
		text += used;
	}
	for (int i = 0; i < WRITERS; i++)
		ck_assert_int_eq(next[i], LINES);
}

START_TEST(lines_of_many_threads_are_whole_and_in_each_ones_order)
{
	struct writer writers[WRITERS];
	struct pollfd queue;
	struct threads threads;

	stderr_begin();
	log_open(LOG_TO_STDERR, LOG_NOTICE, LOG_DAEMON);
	queue = (struct pollfd){.fd = log_queue_fd(), .events = POLLIN};
	for (int i = 0; i < WRITERS; i++)
		writers[i] = (struct writer){.number = i, .lines = LINES};
	threads_start(&threads, WRITERS, write_lines, writers, sizeof *writers);
	/* each wake-up has news until every line is there: a lost one would end this in a timeout */
	while (count_lines(stderr_so_far()) < WRITERS * LINES) {
		ck_assert_int_eq(poll(&queue, 1, PATIENCE_MS), 1);
		log_flush();
	}
	threads_join(&threads);
	ck_assert_uint_eq(log_lost(), 0);
	log_close();
	assert_all_lines(stderr_end());
}
END_TEST

static void *name_source(void *argument)
{
	char source[] = "[::1]:4711", text[] = "soon gone";
	const struct log_context context = {.service = argument, .source = source};
	log_write(LOG_NOTICE, &context, "%s", text);
	memset(source, 'x', sizeof source - 1);
	memset(text, 'x', sizeof text - 1);
	return NULL;
}

START_TEST(a_queued_line_has_copies_of_what_it_names)
{
	char service[] = "echo";
	struct threads threads;
#ifdef HAVE_LIBSYSTEMD
	log_open(LOG_TO_JOURNAL, LOG_NOTICE, LOG_DAEMON);
	threads_start(&threads, 1, name_source, service, sizeof service);
	threads_join(&threads);
	memset(service, 'x', sizeof service - 1);
	log_close();
	assert_field("MESSAGE=soon gone");
	assert_field("SERVICE=echo");
	assert_field("SOURCE=[::1]:4711");
#else
	stderr_begin();
	log_open(LOG_TO_STDERR, LOG_NOTICE, LOG_DAEMON);
	threads_start(&threads, 1, name_source, service, sizeof service);
	threads_join(&threads);
	log_close();
	ck_assert_str_eq(stderr_end(), "soon gone\n");
#endif
}
END_TEST

/* --- what a client can cause --- */

enum { BOUND_LINES = 5, BOUND_INTERVAL_MS = 10000 };

START_TEST(a_noisy_cause_gets_a_few_lines_an_interval_and_a_count_of_the_rest)
{
	struct log_bound bound = {0};
	uint64_t now_ms = 1000000;
	unsigned allowed = 0;

	stderr_begin();
	for (int i = 0; i < 100; i++)
		allowed += log_allows(&bound, now_ms + (unsigned)i);
	ck_assert_uint_eq(allowed, BOUND_LINES);
	ck_assert_str_eq(stderr_so_far(), "");
	log_tell_suppressed(&bound, "accept");
	log_tell_suppressed(&bound, "accept");
	ck_assert_str_eq(stderr_end(), "accept: 95 more like this were not logged\n");
	ck_assert(log_allows(&bound, now_ms + BOUND_INTERVAL_MS));
}
END_TEST

START_TEST(a_rare_cause_is_always_logged)
{
	struct log_bound bound = {0};
	stderr_begin();
	for (uint64_t now_ms = 1; now_ms < 1000 * BOUND_INTERVAL_MS; now_ms += BOUND_INTERVAL_MS / 4)
		ck_assert(log_allows(&bound, now_ms));
	ck_assert_str_eq(stderr_end(), "");
}
END_TEST

/* Nothing is both not written and not counted. */
START_TEST(every_event_is_written_or_counted)
{
	struct log_bound bound = {0};
	uint64_t state = 88172645463325252, now_ms = 1, events = 0, written = 0, counted = 0;
	unsigned number;

	stderr_begin();
	for (; events < 20000; events++) {
		state ^= state << 13;
		state ^= state >> 7;
		state ^= state << 17;
		now_ms += state % 2000;
		written += log_allows(&bound, now_ms);
		if (state % 100 == 0)
			log_tell_suppressed(&bound, "accept");
	}
	for (const char *text = stderr_end(); sscanf(text, "accept: %u", &number) == 1; text = strchr(text, '\n') + 1)
		counted += number;
	ck_assert_uint_gt(counted, 0);
	ck_assert_uint_eq(written + counted + bound.suppressed, events);
	ck_assert_uint_le(written, (now_ms / BOUND_INTERVAL_MS + 1) * BOUND_LINES);
}
END_TEST

static void unset_journal_stream(void)
{
	unsetenv("JOURNAL_STREAM");
}

static TCase *add_tcase(Suite *suite, const char *name)
{
	TCase *tcase = tcase_create(name);
	tcase_add_checked_fixture(tcase, unset_journal_stream, NULL);
	tcase_set_timeout(tcase, 60);
	suite_add_tcase(suite, tcase);
	return tcase;
}

static Suite *suite(void)
{
	Suite *suite = suite_create("log");
	TCase *lines = add_tcase(suite, "lines");
	tcase_add_test(lines, before_it_is_opened_lines_go_to_stderr_from_notice_up);
	tcase_add_test(lines, lines_below_the_level_are_not_written);
	tcase_add_test(lines, a_line_stays_one_line_and_steers_no_terminal);
	tcase_add_test(lines, a_line_too_long_is_cut_and_still_ends);
	tcase_add_test(lines, a_line_is_one_write);
	tcase_add_test(lines, lines_on_a_stderr_that_is_the_journals_carry_their_priority);
	tcase_add_test(lines, a_stderr_that_is_not_the_journals_has_no_priorities);
	tcase_add_test(lines, syslog_gets_the_line_its_level_and_the_facility);
#ifdef HAVE_LIBSYSTEMD
	tcase_add_test(lines, the_journal_gets_fields);
	tcase_add_test(lines, what_the_journal_does_not_take_goes_to_stderr);
	tcase_add_test(lines, lines_for_a_journal_that_does_not_run_go_to_stderr);
#endif

	TCase *queue = add_tcase(suite, "queue");
	tcase_add_test(queue, another_threads_line_is_written_by_the_thread_that_opened_the_log);
	tcase_add_test(queue, closing_writes_what_is_queued);
	tcase_add_test(queue, a_full_log_queue_loses_lines_and_counts_them);
	tcase_add_test(queue, a_thread_that_queues_does_not_wait_for_a_reader);
	tcase_add_test(queue, what_a_reader_missed_is_told_once_it_reads_again);
	tcase_add_test(queue, lines_of_many_threads_are_whole_and_in_each_ones_order);
	tcase_add_test(queue, a_queued_line_has_copies_of_what_it_names);

	TCase *bound = add_tcase(suite, "bound");
	tcase_add_test(bound, a_noisy_cause_gets_a_few_lines_an_interval_and_a_count_of_the_rest);
	tcase_add_test(bound, a_rare_cause_is_always_logged);
	tcase_add_test(bound, every_event_is_written_or_counted);
	return suite;
}

int main(void)
{
	return check_run(suite());
}
