/* check_log.c: one line an event, whole and in order, and no thread waits for the log. */
#include "config_build.h"

#include <fcntl.h>
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

/* --- one thread --- */

START_TEST(unopened_log_writes_notices_to_stderr)
{
	stderr_begin();
	log_notice("early %d", 1);
	log_info("too fine");
	ck_assert_str_eq(stderr_end(), "early 1\n");
}
END_TEST

START_TEST(lines_below_the_level_are_dropped)
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

START_TEST(control_characters_are_replaced)
{
	stderr_begin();
	log_open(LOG_TO_STDERR, LOG_NOTICE, LOG_DAEMON);
	log_notice("a\nb\tc\033[31md\177e \xc3\xa9");
	log_close();
	ck_assert_str_eq(stderr_end(), "a?b?c?[31md?e \xc3\xa9\n");
}
END_TEST

START_TEST(overlong_line_is_truncated_and_terminated)
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

/* A datagram socket preserves the boundaries of writes. */
START_TEST(line_is_one_write)
{
	char bytes[256];
	int pair[2], before = dup(STDERR_FILENO);
	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_DGRAM, 0, pair), 0);
	dup2(pair[1], STDERR_FILENO);
	log_open(LOG_TO_STDERR, LOG_NOTICE, LOG_DAEMON);
	log_notice("%s: listening on %s", "echo", "tcp");
	log_close();
	dup2(before, STDERR_FILENO);
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

START_TEST(stderr_connected_to_the_journal_carries_priorities)
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

START_TEST(other_stderr_carries_no_priorities)
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

/* --- syslog and the journal, replaced by functions of this file --- */

static struct {
	int facility, level, opened, closed, lines;
	char text[256];
} sent_to_syslog;

/* Called by builds with _FORTIFY_SOURCE. */
void __syslog_chk(int level, int flag, const char *format, ...) __attribute__((format(printf, 3, 4)));

__attribute__((format(printf, 2, 0))) static void record_syslog(int level, const char *format, va_list arguments)
{
	sent_to_syslog.level = level;
	sent_to_syslog.lines++;
	vsnprintf(sent_to_syslog.text, sizeof sent_to_syslog.text, format, arguments);
}

#undef syslog /* a macro where the compiler cannot pass on variable arguments */
void syslog(int level, const char *format, ...)
{
	va_list arguments;
	va_start(arguments, format);
	record_syslog(level, format, arguments);
	va_end(arguments);
}

void __syslog_chk(int level, int flag, const char *format, ...)
{
	va_list arguments;
	(void)flag;
	va_start(arguments, format);
	record_syslog(level, format, arguments);
	va_end(arguments);
}

void openlog(const char *name, int flags, int facility)
{
	(void)flags;
	ck_assert_str_eq(name, "smallservd");
	sent_to_syslog.facility = facility;
	sent_to_syslog.opened++;
}

void closelog(void)
{
	sent_to_syslog.closed++;
}

START_TEST(syslog_line_has_level_and_facility)
{
	stderr_begin();
	log_open(LOG_TO_SYSLOG, LOG_NOTICE, LOG_LOCAL3);
	log_warning("100%% of %s", "%s");
	log_info("too fine");
	log_close();
	ck_assert_str_eq(stderr_end(), "");
	ck_assert_str_eq(sent_to_syslog.text, "100% of %s");
	ck_assert_int_eq(sent_to_syslog.level, LOG_WARNING);
	ck_assert_int_eq(sent_to_syslog.facility, LOG_LOCAL3);
	ck_assert_int_eq(sent_to_syslog.lines, 1);
	ck_assert_int_eq(sent_to_syslog.closed, sent_to_syslog.opened);
}
END_TEST

#ifdef HAVE_LIBSYSTEMD
static char sent_to_journal[4096];
static int journal_answer;

int sd_journal_sendv(const struct iovec *parts, int count)
{
	char *at = sent_to_journal;
	for (int i = 0; i < count; i++)
		at += snprintf(at, sizeof sent_to_journal / 2, "%.*s\n", (int)parts[i].iov_len,
			       (const char *)parts[i].iov_base);
	return journal_answer;
}

static void assert_field(const char *field)
{
	char line[512];
	snprintf(line, sizeof line, "%s\n", field);
	ck_assert_msg(strstr(sent_to_journal, line) != NULL, "no %s in %s", field, sent_to_journal);
}

START_TEST(journal_entry_has_fields)
{
	const struct log_context context = {.service = "lab-echo",
					    .transport = "tcp",
					    .source = "[::1]:4711",
					    .config_file = "/etc/some.conf",
					    .config_line = 17};
	ck_assert(log_has_journal());
	log_open(LOG_TO_JOURNAL, LOG_NOTICE, LOG_DAEMON);
	log_write(LOG_WARNING, &context, "it is %s", "so");
	log_close();
	assert_field("MESSAGE=it is so");
	assert_field("PRIORITY=4");
	assert_field("SERVICE=lab-echo");
	assert_field("TRANSPORT=tcp");
	assert_field("SOURCE=[::1]:4711");
	assert_field("CONFIG_FILE=/etc/some.conf");
	assert_field("CONFIG_LINE=17");
	assert_field("SYSLOG_IDENTIFIER=smallservd");
	log_open(LOG_TO_JOURNAL, LOG_NOTICE, LOG_DAEMON);
	log_notice("bare");
	log_close();
	ck_assert_str_eq(sent_to_journal, "MESSAGE=bare\nPRIORITY=5\nSYSLOG_IDENTIFIER=smallservd\n");
}
END_TEST

START_TEST(line_refused_by_the_journal_goes_to_stderr)
{
	stderr_begin();
	journal_answer = -28;
	log_open(LOG_TO_JOURNAL, LOG_NOTICE, LOG_DAEMON);
	log_notice("still here");
	log_close();
	ck_assert_str_eq(stderr_end(), "still here\n");
}
END_TEST

/* sd_journal_sendv(3) drops a line and returns 0 where no journal runs. */
START_TEST(line_without_a_running_journal_goes_to_stderr)
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

/* --- the queue and its writer --- */

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

static bool has_lines(unsigned count)
{
	return count_lines(stderr_so_far()) >= count;
}

/* Waits until COUNT lines have been written to standard error. */
static void await_lines(unsigned count)
{
	const struct timespec pause = {.tv_nsec = 1000000};
	for (int waited_ms = 0; !has_lines(count) && waited_ms < PATIENCE_MS; waited_ms++)
		nanosleep(&pause, NULL);
	ck_assert_uint_eq(count_lines(stderr_so_far()), count);
}

START_TEST(lines_are_queued_until_the_writer_starts)
{
	stderr_begin();
	log_open(LOG_TO_STDERR, LOG_NOTICE, LOG_DAEMON);
	log_notice("from main");
	write_from_thread(1);
	ck_assert_str_eq(stderr_so_far(), "");
	ck_assert_int_eq(log_start(), 0);
	await_lines(2);
	log_close();
	ck_assert_str_eq(stderr_end(), "from main\nwriter 0 line 0\n");
}
END_TEST

START_TEST(closing_the_log_writes_queued_lines)
{
	stderr_begin();
	log_open(LOG_TO_STDERR, LOG_NOTICE, LOG_DAEMON);
	write_from_thread(3);
	log_close();
	log_close();
	ck_assert_str_eq(stderr_end(), "writer 0 line 0\nwriter 0 line 1\nwriter 0 line 2\n");
}
END_TEST

START_TEST(the_log_can_be_opened_again_after_closing)
{
	stderr_begin();
	for (int i = 0; i < 2; i++) {
		log_open(LOG_TO_STDERR, LOG_NOTICE, LOG_DAEMON);
		ck_assert_int_eq(log_start(), 0);
		log_notice("round %d", i);
		log_close();
	}
	ck_assert_str_eq(stderr_end(), "round 0\nround 1\n");
}
END_TEST

START_TEST(a_full_queue_loses_lines_and_reports_their_number_once)
{
	enum { MORE = 76 };
	stderr_begin();
	log_open(LOG_TO_STDERR, LOG_NOTICE, LOG_DAEMON);
	write_from_thread(QUEUE_LENGTH + MORE);
	ck_assert_int_eq(log_start(), 0);
	await_lines(QUEUE_LENGTH + 1);
	ck_assert_ptr_nonnull(
		strstr(stderr_so_far(), "writer 0 line 0\nlog: 76 lines lost, more than could be written\n"));
	write_from_thread(2);
	await_lines(QUEUE_LENGTH + 3);
	log_close();
	ck_assert_uint_eq(count_lines(stderr_end()), QUEUE_LENGTH + 3);
}
END_TEST

/* Standard error as a pipe that is full. */
struct full_pipe {
	int ends[2], before;
};

static void full_pipe_begin(struct full_pipe *full, int flags)
{
	char byte = 0;
	full->before = dup(STDERR_FILENO);
	ck_assert_int_eq(pipe2(full->ends, O_NONBLOCK | O_CLOEXEC), 0);
	while (write(full->ends[1], &byte, 1) == 1)
		;
	fcntl(full->ends[1], F_SETFL, flags);
	dup2(full->ends[1], STDERR_FILENO);
}

static void full_pipe_end(struct full_pipe *full)
{
	dup2(full->before, STDERR_FILENO);
	close(full->ends[0]);
	close(full->ends[1]);
	close(full->before);
}

START_TEST(burst_of_the_main_thread_before_the_start_loses_no_line)
{
	stderr_begin();
	log_open(LOG_TO_STDERR, LOG_NOTICE, LOG_DAEMON);
	for (int i = 0; i < 3 * QUEUE_LENGTH; i++)
		log_notice("endpoint %d", i);
	log_close();
	const char *text = stderr_end();
	ck_assert_uint_eq(count_lines(text), 3 * QUEUE_LENGTH);
	ck_assert_ptr_null(strstr(text, "lost"));
}
END_TEST

START_TEST(burst_of_the_main_thread_loses_no_line_while_lines_are_written)
{
	stderr_begin();
	log_open(LOG_TO_STDERR, LOG_NOTICE, LOG_DAEMON);
	ck_assert_int_eq(log_start(), 0);
	for (int i = 0; i < 8 * QUEUE_LENGTH; i++)
		log_notice("endpoint %d", i);
	log_close();
	const char *text = stderr_end();
	ck_assert_uint_eq(count_lines(text), 8 * QUEUE_LENGTH);
	ck_assert_ptr_null(strstr(text, "lost"));
}
END_TEST

START_TEST(no_thread_waits_for_a_target_that_takes_no_lines)
{
	struct full_pipe full;
	full_pipe_begin(&full, 0);
	log_open(LOG_TO_STDERR, LOG_NOTICE, LOG_DAEMON);
	ck_assert_int_eq(log_start(), 0);
	write_from_thread(3 * QUEUE_LENGTH);
	for (int i = 0; i < QUEUE_LENGTH; i++)
		log_notice("from main");
	log_close(); /* gives up after a second */
	full_pipe_end(&full);
}
END_TEST

static void assert_written_after_pause(int flags)
{
	enum { SIZE = 256 * 1024, LINES_QUEUED = 3 };
	struct full_pipe full;
	char *text = calloc(1, SIZE);
	size_t length = 0;

	full_pipe_begin(&full, flags);
	log_open(LOG_TO_STDERR, LOG_NOTICE, LOG_DAEMON);
	ck_assert_int_eq(log_start(), 0);
	write_from_thread(LINES_QUEUED);
	fcntl(full.ends[0], F_SETFL, 0);
	while (length < SIZE - 1 && strstr(text, "writer 0 line 2\n") == NULL) {
		char bytes[4096];
		ssize_t count = read(full.ends[0], bytes, sizeof bytes);
		ck_assert_int_gt(count, 0);
		for (ssize_t i = 0; i < count; i++)
			if (bytes[i] != 0)
				text[length++] = bytes[i];
	}
	ck_assert_str_eq(text, "writer 0 line 0\nwriter 0 line 1\nwriter 0 line 2\n");
	free(text);
	full_pipe_end(&full);
	log_close();
}

START_TEST(lines_are_written_once_a_full_pipe_is_read_again)
{
	assert_written_after_pause(0);
}
END_TEST

START_TEST(lines_are_written_once_a_full_nonblocking_pipe_is_read_again)
{
	assert_written_after_pause(O_NONBLOCK);
}
END_TEST

START_TEST(lines_that_cannot_be_written_are_counted_as_lost)
{
	int before = dup(STDERR_FILENO);
	log_open(LOG_TO_STDERR, LOG_NOTICE, LOG_DAEMON);
	for (int i = 0; i < 7; i++)
		log_notice("lost");
	log_open(LOG_TO_SYSLOG, LOG_NOTICE, LOG_DAEMON);
	log_notice("written");
	close(STDERR_FILENO);
	log_close();
	dup2(before, STDERR_FILENO);
	close(before);
	ck_assert_int_eq(sent_to_syslog.lines, 2);
	ck_assert_str_eq(sent_to_syslog.text, "log: 7 lines lost, more than could be written");
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

START_TEST(lines_of_many_threads_are_whole_and_in_order)
{
	struct writer writers[WRITERS];
	struct threads threads;

	stderr_begin();
	log_open(LOG_TO_STDERR, LOG_NOTICE, LOG_DAEMON);
	ck_assert_int_eq(log_start(), 0);
	for (int i = 0; i < WRITERS; i++)
		writers[i] = (struct writer){.number = i, .lines = LINES};
	threads_start(&threads, WRITERS, write_lines, writers, sizeof *writers);
	threads_join(&threads);
	await_lines(WRITERS * LINES);
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

START_TEST(queued_line_holds_copies_of_its_context)
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

/* --- rate limits --- */

enum { BOUND_LINES = 5, BOUND_INTERVAL_MS = 10000 };

START_TEST(rate_limit_allows_few_lines_and_counts_the_rest)
{
	struct log_bound bound = {0};
	uint64_t now_ms = 1000000;
	unsigned allowed = 0;

	stderr_begin();
	for (int i = 0; i < 100; i++)
		allowed += log_allows(&bound, now_ms + (unsigned)i);
	ck_assert_uint_eq(allowed, BOUND_LINES);
	ck_assert_str_eq(stderr_so_far(), "");
	log_report_suppressed(&bound, "accept");
	log_report_suppressed(&bound, "accept");
	ck_assert_str_eq(stderr_end(), "accept: 95 more like this were not logged\n");
	ck_assert(log_allows(&bound, now_ms + BOUND_INTERVAL_MS));
}
END_TEST

START_TEST(rate_limit_allows_every_rare_line)
{
	struct log_bound bound = {0};
	stderr_begin();
	for (uint64_t now_ms = 1; now_ms < 1000 * BOUND_INTERVAL_MS; now_ms += BOUND_INTERVAL_MS / 4)
		ck_assert(log_allows(&bound, now_ms));
	ck_assert_str_eq(stderr_end(), "");
}
END_TEST

START_TEST(rate_limited_lines_are_logged_or_counted)
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
			log_report_suppressed(&bound, "accept");
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
	tcase_add_test(lines, unopened_log_writes_notices_to_stderr);
	tcase_add_test(lines, lines_below_the_level_are_dropped);
	tcase_add_test(lines, control_characters_are_replaced);
	tcase_add_test(lines, overlong_line_is_truncated_and_terminated);
	tcase_add_test(lines, line_is_one_write);
	tcase_add_test(lines, stderr_connected_to_the_journal_carries_priorities);
	tcase_add_test(lines, other_stderr_carries_no_priorities);
	tcase_add_test(lines, syslog_line_has_level_and_facility);
#ifdef HAVE_LIBSYSTEMD
	tcase_add_test(lines, journal_entry_has_fields);
	tcase_add_test(lines, line_refused_by_the_journal_goes_to_stderr);
	tcase_add_test(lines, line_without_a_running_journal_goes_to_stderr);
#endif

	TCase *queue = add_tcase(suite, "queue");
	tcase_add_test(queue, lines_are_queued_until_the_writer_starts);
	tcase_add_test(queue, closing_the_log_writes_queued_lines);
	tcase_add_test(queue, a_full_queue_loses_lines_and_reports_their_number_once);
	tcase_add_test(queue, burst_of_the_main_thread_before_the_start_loses_no_line);
	tcase_add_test(queue, burst_of_the_main_thread_loses_no_line_while_lines_are_written);
	tcase_add_test(queue, no_thread_waits_for_a_target_that_takes_no_lines);
	tcase_add_test(queue, lines_are_written_once_a_full_pipe_is_read_again);
	tcase_add_test(queue, lines_are_written_once_a_full_nonblocking_pipe_is_read_again);
	tcase_add_test(queue, lines_that_cannot_be_written_are_counted_as_lost);
	tcase_add_test(queue, the_log_can_be_opened_again_after_closing);
	tcase_add_test(queue, lines_of_many_threads_are_whole_and_in_order);
	tcase_add_test(queue, queued_line_holds_copies_of_its_context);

	TCase *bound = add_tcase(suite, "bound");
	tcase_add_test(bound, rate_limit_allows_few_lines_and_counts_the_rest);
	tcase_add_test(bound, rate_limit_allows_every_rare_line);
	tcase_add_test(bound, rate_limited_lines_are_logged_or_counted);
	return suite;
}

int main(void)
{
	return check_run(suite());
}
