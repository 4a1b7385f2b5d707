/* log.c: one line an event, to stderr, syslog or the journal, written by a thread of its own. */
#include "config_build.h"

#include "core/log.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#ifdef HAVE_LIBSYSTEMD
#define SD_JOURNAL_SUPPRESS_LOCATION
#include <systemd/sd-journal.h>
#endif

enum {
	TEXT_SIZE = 2048,
	QUEUE_LENGTH = 1024, /* records */
	SPACE_WAIT_MS = 100, /* of the main thread, for space in the queue */
	CLOSE_WAIT_S = 1,    /* for the lines that are still queued when the log is closed */
	BOUND_LINES = 5,
	BOUND_INTERVAL_MS = 10000,
};

/* A line in the queue. Strings are copies: their originals may be freed before the line is written. */
struct record {
	enum log_target target;
	int facility;
	int level;
	char service[64];
	char transport[8];
	char source[72];
	char config_file[256];
	unsigned config_line;
	char text[TEXT_SIZE];
};

static struct {
	atomic_int level;
	atomic_bool opened;
	bool prefix;          /* lines on stderr carry <N>, which the journal takes for their priority */
	pthread_mutex_t lock; /* of the fields below, but for the writer's; never held during a write */
	pthread_cond_t changed, space;
	pthread_t main; /* the thread that called log_open */
	bool stalled;   /* the last wait for space was in vain */
	enum log_target target;
	int facility;
	struct record *queue;
	unsigned head, tail; /* the writer owns the record at tail until it moves on */
	uint64_t lost;       /* lines, so far */
	bool started, stop_requested;
	pthread_t writer;
	/* the writer's */
	uint64_t lost_reported;
	int open_facility; /* as openlog(3) knows it; -1: not yet */
} logger = {
	.level = LOG_NOTICE,
	.lock = PTHREAD_MUTEX_INITIALIZER,
	.changed = PTHREAD_COND_INITIALIZER,
	.space = PTHREAD_COND_INITIALIZER,
	.open_facility = -1,
};

/* --- targets --- */

bool log_has_journal(void)
{
#ifdef HAVE_LIBSYSTEMD
	return true;
#else
	return false;
#endif
}

bool log_stderr_is_journal(void)
{
	const char *stream = getenv("JOURNAL_STREAM");
	struct stat stat;
	unsigned long long device, inode;
	if (stream == NULL || sscanf(stream, "%llu:%llu", &device, &inode) != 2)
		return false;
	return fstat(STDERR_FILENO, &stat) == 0 && stat.st_dev == device && stat.st_ino == inode;
}

/* Writes LINE whole, also to a terminal or a non-blocking pipe. Returns 0 or -errno. */
static int write_whole(const char *line, size_t length)
{
	struct pollfd writable = {.fd = STDERR_FILENO, .events = POLLOUT};
	while (length > 0) {
		ssize_t written = write(STDERR_FILENO, line, length);
		if (written > 0) {
			line += written;
			length -= (size_t)written;
		} else if (errno == EAGAIN) {
			poll(&writable, 1, -1);
		} else if (errno != EINTR) {
			return -errno;
		}
	}
	return 0;
}

static int write_stderr(const struct record *record)
{
	char line[TEXT_SIZE + 8];
	int length = logger.prefix ? snprintf(line, sizeof line, "<%d>%s\n", record->level, record->text)
				   : snprintf(line, sizeof line, "%s\n", record->text);
	return write_whole(line, (size_t)length);
}

static int write_syslog(const struct record *record)
{
	if (logger.open_facility != record->facility) {
		openlog("smallservd", LOG_PID | LOG_NDELAY, record->facility);
		logger.open_facility = record->facility;
	}
	syslog(record->level, "%s", record->text);
	return 0;
}

#ifdef HAVE_LIBSYSTEMD
static const char journal_path[] = "/run/systemd/journal/socket";

enum { FIELDS_MAX = 8 };

/* The fields of one entry, as sd_journal_sendv(3) takes them. */
struct fields {
	int count;
	struct iovec parts[FIELDS_MAX];
	char text[FIELDS_MAX][TEXT_SIZE + 16];
};

static void add_field(struct fields *fields, const char *name, const char *value)
{
	char *text = fields->text[fields->count];
	if (value[0] == '\0')
		return;
	int length = snprintf(text, sizeof fields->text[0], "%s=%s", name, value);
	fields->parts[fields->count++] = (struct iovec){.iov_base = text, .iov_len = (size_t)length};
}

static int write_journal(const struct record *record)
{
	struct fields fields;
	char priority[16], line[16] = "";

	fields.count = 0;
	snprintf(priority, sizeof priority, "%d", record->level);
	if (record->config_line != 0)
		snprintf(line, sizeof line, "%u", record->config_line);
	add_field(&fields, "MESSAGE", record->text);
	add_field(&fields, "SERVICE", record->service);
	add_field(&fields, "TRANSPORT", record->transport);
	add_field(&fields, "SOURCE", record->source);
	add_field(&fields, "CONFIG_FILE", record->config_file);
	add_field(&fields, "CONFIG_LINE", line);
	add_field(&fields, "PRIORITY", priority);
	add_field(&fields, "SYSLOG_IDENTIFIER", "smallservd");
	/* without a journal sd_journal_sendv(3) drops the line and returns 0 */
	bool sent = sd_journal_sendv(fields.parts, fields.count) >= 0 && access(journal_path, F_OK) == 0;
	return sent ? 0 : write_stderr(record);
}
#else
#define write_journal write_stderr
#endif

/* Returns 0, or -errno for a line that is lost. */
static int write_record(const struct record *record)
{
	static int (*const writers[])(const struct record *) = {
		[LOG_TO_STDERR] = write_stderr,
		[LOG_TO_SYSLOG] = write_syslog,
		[LOG_TO_JOURNAL] = write_journal,
	};
	return writers[record->target](record);
}

/* --- the writer --- */

/* Reports lines lost since the last report, to the target of the line that was written last. */
static void report_lost(enum log_target target, int facility, uint64_t lost)
{
	struct record report = {.target = target, .facility = facility, .level = LOG_WARNING};
	if (lost == logger.lost_reported)
		return;
	snprintf(report.text, sizeof report.text, "log: %llu lines lost, more than could be written",
		 (unsigned long long)(lost - logger.lost_reported));
	if (write_record(&report) == 0)
		logger.lost_reported = lost;
}

/* Writes the queued lines in order until the queue is empty. With the lock held, which it releases during each write.
 */
static void write_queue(void)
{
	while (logger.head != logger.tail) {
		const struct record *record = &logger.queue[logger.tail % QUEUE_LENGTH];
		uint64_t lost = logger.lost;
		pthread_mutex_unlock(&logger.lock);
		bool written = write_record(record) == 0;
		if (written)
			report_lost(record->target, record->facility, lost);
		pthread_mutex_lock(&logger.lock);
		logger.lost += !written;
		logger.tail++;
		pthread_cond_signal(&logger.space);
	}
}

static void *run_writer(void *unused)
{
	(void)unused;
	pthread_mutex_lock(&logger.lock);
	for (;;) {
		write_queue();
		if (logger.stop_requested)
			break;
		pthread_cond_wait(&logger.changed, &logger.lock);
	}
	pthread_mutex_unlock(&logger.lock);
	return NULL;
}

void log_open(enum log_target target, int level, int facility)
{
	pthread_mutex_lock(&logger.lock);
	if (logger.queue == NULL) {
		logger.queue = calloc(QUEUE_LENGTH, sizeof *logger.queue);
		logger.prefix = log_stderr_is_journal();
		logger.main = pthread_self();
	}
	logger.target = target;
	logger.facility = facility;
	pthread_mutex_unlock(&logger.lock);
	atomic_store_explicit(&logger.level, level, memory_order_relaxed);
	atomic_store(&logger.opened, true);
}

int log_start(void)
{
	sigset_t all, before;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	int error = pthread_create(&logger.writer, NULL, run_writer, NULL);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	logger.started = error == 0;
	return -error;
}

static struct timespec time_after_ms(int64_t ms)
{
	struct timespec time;
	clock_gettime(CLOCK_REALTIME, &time);
	int64_t ns = time.tv_nsec + ms * 1000000;
	return (struct timespec){.tv_sec = time.tv_sec + ns / 1000000000, .tv_nsec = ns % 1000000000};
}

/* Waits for the writer, for CLOSE_WAIT_S at most: a target that takes no more lines must not keep the process. */
static bool stop_writer(void)
{
	const struct timespec end = time_after_ms(CLOSE_WAIT_S * 1000);

	pthread_mutex_lock(&logger.lock);
	logger.stop_requested = true;
	pthread_cond_signal(&logger.changed);
	pthread_mutex_unlock(&logger.lock);
	return pthread_timedjoin_np(logger.writer, NULL, &end) == 0;
}

void log_close(void)
{
	if (!atomic_load(&logger.opened))
		return;
	atomic_store(&logger.opened, false);
	if ((logger.started || log_start() == 0) && !stop_writer()) {
		pthread_detach(logger.writer); /* it still uses the queue */
		return;
	}
	pthread_mutex_lock(&logger.lock);
	write_queue(); /* left only where no writer could be started */
	pthread_mutex_unlock(&logger.lock);
	if (logger.open_facility >= 0)
		closelog();
	free(logger.queue);
	logger.queue = NULL;
	logger.head = logger.tail = 0;
	logger.lost = logger.lost_reported = 0;
	logger.open_facility = -1;
	logger.started = logger.stop_requested = false;
}

/* --- a line --- */

static void copy(char *to, size_t size, const char *from)
{
	snprintf(to, size, "%s", from != NULL ? from : "");
}

/* Replaces control characters: a line stays one line, and names from files and clients cannot steer a terminal. */
static void neutralise_controls(char *text)
{
	for (; *text != '\0'; text++)
		if ((unsigned char)*text < 0x20 || *text == 0x7f)
			*text = '?';
}

static bool is_full(void)
{
	return logger.queue == NULL || logger.head - logger.tail == QUEUE_LENGTH;
}

/* Makes space in a full queue, for bursts of the main thread: writes the lines itself before the writer is started,
 * else waits a moment, unless that was in vain before. With the lock held. */
static void await_space(void)
{
	if (!is_full()) {
		logger.stalled = false;
		return;
	}
	if (logger.queue == NULL || logger.stalled || !pthread_equal(pthread_self(), logger.main))
		return;
	if (!logger.started)
		write_queue();
	const struct timespec end = time_after_ms(SPACE_WAIT_MS);
	while (is_full() && pthread_cond_timedwait(&logger.space, &logger.lock, &end) == 0)
		;
	logger.stalled = is_full();
}

/* Copies RECORD to the queue; a full queue loses it, counted. */
static void enqueue(struct record *record)
{
	pthread_mutex_lock(&logger.lock);
	await_space();
	record->target = logger.target;
	record->facility = logger.facility;
	if (is_full())
		logger.lost++;
	else
		logger.queue[logger.head++ % QUEUE_LENGTH] = *record;
	pthread_cond_signal(&logger.changed);
	pthread_mutex_unlock(&logger.lock);
}

void log_write(int level, const struct log_context *context, const char *format, ...)
{
	static const struct log_context no_context;
	struct record record;
	va_list arguments;

	if (level > atomic_load_explicit(&logger.level, memory_order_relaxed))
		return;
	if (context == NULL)
		context = &no_context;
	va_start(arguments, format);
	vsnprintf(record.text, sizeof record.text, format, arguments);
	va_end(arguments);
	neutralise_controls(record.text);
	record.level = level;
	copy(record.service, sizeof record.service, context->service);
	copy(record.transport, sizeof record.transport, context->transport);
	copy(record.source, sizeof record.source, context->source);
	copy(record.config_file, sizeof record.config_file, context->config_file);
	record.config_line = context->config_line;

	if (atomic_load(&logger.opened))
		enqueue(&record);
	else
		(void)write_stderr(&record);
}

/* --- rate limits --- */

bool log_allows(struct log_bound *bound, uint64_t now_ms)
{
	uint64_t began = atomic_load(&bound->interval_began_ms);
	if (now_ms - began >= BOUND_INTERVAL_MS &&
	    atomic_compare_exchange_strong(&bound->interval_began_ms, &began, now_ms))
		atomic_store(&bound->written, 0);
	if (atomic_fetch_add(&bound->written, 1) < BOUND_LINES)
		return true;
	atomic_fetch_add(&bound->suppressed, 1);
	return false;
}

void log_report_suppressed(struct log_bound *bound, const char *subject)
{
	unsigned suppressed = atomic_exchange(&bound->suppressed, 0);
	if (suppressed > 0)
		log_notice("%s: %u more like this were not logged", subject, suppressed);
}
