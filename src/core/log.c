/* log.c: one line an event, to stderr, syslog or the journal. */
#include "config_build.h"

#include "core/log.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

#ifdef HAVE_LIBSYSTEMD
#define SD_JOURNAL_SUPPRESS_LOCATION
#include <systemd/sd-journal.h>
#endif

enum {
	TEXT_SIZE = 2048,
	QUEUE_LENGTH = 1024, /* a power of two */
	BOUND_LINES = 5,
	BOUND_INTERVAL_MS = 10000,
};

/* A line on its way. Strings are copied: what they named may be gone when the line is written. */
struct record {
	int level;
	char service[64];
	char transport[8];
	char source[72];
	char config_file[256];
	unsigned config_line;
	char text[TEXT_SIZE];
};

static struct {
	enum log_target target;
	atomic_int level;
	bool prefix; /* lines on stderr carry <N>, which the journal takes for their priority */
	bool opened;
	pthread_t writer;
	int queue_fd;
	pthread_mutex_t lock; /* of the queue; held for a copy, never for a write */
	struct record *queue;
	unsigned head, tail;
	atomic_ulong lost;
	unsigned long lost_told, unwritten; /* the writer's own */
} logger = {.level = LOG_NOTICE, .queue_fd = -1, .lock = PTHREAD_MUTEX_INITIALIZER};

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

void log_open(enum log_target target, int level, int facility)
{
	if (!logger.opened) {
		logger.opened = true;
		logger.writer = pthread_self();
		logger.queue = calloc(QUEUE_LENGTH, sizeof *logger.queue);
		logger.queue_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	}
	if (target == LOG_TO_SYSLOG)
		openlog("smallservd", LOG_PID | LOG_NDELAY, facility);
	logger.target = target;
	logger.prefix = log_stderr_is_journal();
	atomic_store_explicit(&logger.level, level, memory_order_relaxed);
}

/* A reader that has stopped reading must not stop the daemon: a line that would have to wait for it is lost, counted. */
static void lose_line(void)
{
	logger.unwritten++;
	atomic_fetch_add_explicit(&logger.lost, 1, memory_order_relaxed);
}

/* A pipe that is writable takes a line of PIPE_BUF bytes without waiting. */
static bool takes_a_line(int fd)
{
	struct pollfd waits = {.fd = fd, .events = POLLOUT};
	return poll(&waits, 1, 0) != 0;
}

/* The libraries send on sockets of their own, and wait there for a log daemon whose queue is full. A socket that is connected to
 * the same one can be asked before. What else is wrong with it is theirs to find out. */
static bool log_daemon_takes_a_line(const char *path)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return true;
	snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
	bool takes = connect(fd, (const struct sockaddr *)&address, sizeof address) < 0 || takes_a_line(fd);
	close(fd);
	return takes;
}

static void write_stderr(const struct record *record)
{
	char line[TEXT_SIZE + 8];
	int length = logger.prefix ? snprintf(line, sizeof line, "<%d>%s\n", record->level, record->text)
				   : snprintf(line, sizeof line, "%s\n", record->text);
	ssize_t written = -1;
	/* one write a line, so that lines of several programs do not mix */
	if (takes_a_line(STDERR_FILENO))
		while ((written = write(STDERR_FILENO, line, (size_t)length)) < 0 && errno == EINTR)
			;
	if (written < 0)
		lose_line();
}

static void write_syslog(const struct record *record)
{
	if (log_daemon_takes_a_line(_PATH_LOG))
		syslog(record->level, "%s", record->text);
	else
		lose_line();
}

#ifdef HAVE_LIBSYSTEMD
static const char journal_path[] = "/run/systemd/journal/socket";

static void write_journal(const struct record *record)
{
	const struct {
		const char *name, *value;
	} fields[] = {
		{"MESSAGE", record->text},  {"SERVICE", record->service},         {"TRANSPORT", record->transport},
		{"SOURCE", record->source}, {"CONFIG_FILE", record->config_file},
	};
	enum { COUNT = sizeof fields / sizeof *fields };
	char text[COUNT + 2][TEXT_SIZE + 16];
	struct iovec parts[COUNT + 3];
	int count = 0;

	if (!log_daemon_takes_a_line(journal_path)) {
		lose_line();
		return;
	}
	for (int i = 0; i < COUNT; i++) {
		if (fields[i].value[0] == '\0')
			continue;
		int length = snprintf(text[count], sizeof text[count], "%s=%s", fields[i].name, fields[i].value);
		parts[count] = (struct iovec){.iov_base = text[count], .iov_len = (size_t)length};
		count++;
	}
	int length = snprintf(text[count], sizeof text[count], "PRIORITY=%d", record->level);
	parts[count] = (struct iovec){.iov_base = text[count], .iov_len = (size_t)length};
	count++;
	if (record->config_line != 0) {
		length = snprintf(text[count], sizeof text[count], "CONFIG_LINE=%u", record->config_line);
		parts[count] = (struct iovec){.iov_base = text[count], .iov_len = (size_t)length};
		count++;
	}
	static char identifier[] = "SYSLOG_IDENTIFIER=smallservd";
	parts[count++] = (struct iovec){.iov_base = identifier, .iov_len = sizeof identifier - 1};
	/* where no journal runs the library says nothing of it, and drops the line */
	if (sd_journal_sendv(parts, count) < 0 || access(journal_path, F_OK) < 0)
		write_stderr(record);
}
#else
#define write_journal write_stderr
#endif

static void write_record(const struct record *record)
{
	static void (*const writers[])(const struct record *) = {
		[LOG_TO_STDERR] = write_stderr,
		[LOG_TO_SYSLOG] = write_syslog,
		[LOG_TO_JOURNAL] = write_journal,
	};
	writers[logger.target](record);
}

static void copy(char *to, size_t size, const char *from)
{
	snprintf(to, size, "%s", from != NULL ? from : "");
}

/* A line is one line, and a terminal is not steered by what a file or a client is called. */
static void neutralise_controls(char *text)
{
	for (; *text != '\0'; text++)
		if ((unsigned char)*text < 0x20 || *text == 0x7f)
			*text = '?';
}

static void enqueue(const struct record *record)
{
	pthread_mutex_lock(&logger.lock);
	bool full = logger.queue == NULL || logger.head - logger.tail == QUEUE_LENGTH;
	if (!full)
		logger.queue[logger.head++ % QUEUE_LENGTH] = *record;
	pthread_mutex_unlock(&logger.lock);

	if (full)
		atomic_fetch_add_explicit(&logger.lost, 1, memory_order_relaxed);
	else
		eventfd_write(logger.queue_fd, 1);
}

void log_write(int level, const struct log_context *context, const char *format, ...)
{
	static const struct log_context nothing;
	struct record record;
	va_list arguments;

	if (level > atomic_load_explicit(&logger.level, memory_order_relaxed))
		return;
	if (context == NULL)
		context = &nothing;
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

	if (!logger.opened || pthread_equal(pthread_self(), logger.writer))
		write_record(&record);
	else
		enqueue(&record);
}

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

void log_tell_suppressed(struct log_bound *bound, const char *what)
{
	unsigned suppressed = atomic_exchange(&bound->suppressed, 0);
	if (suppressed > 0)
		log_notice("%s: %u more like this were not logged", what, suppressed);
}

int log_queue_fd(void)
{
	return logger.queue_fd;
}

static bool dequeue(struct record *record)
{
	pthread_mutex_lock(&logger.lock);
	bool found = logger.head != logger.tail;
	if (found)
		*record = logger.queue[logger.tail++ % QUEUE_LENGTH];
	pthread_mutex_unlock(&logger.lock);
	return found;
}

/* That line can be lost as well: then the next one counts it, too. */
static void tell_lost(void)
{
	unsigned long lost = atomic_load_explicit(&logger.lost, memory_order_relaxed), unwritten = logger.unwritten;
	if (lost == logger.lost_told)
		return;
	log_warning("log: %lu lines lost, more than could be written", lost - logger.lost_told);
	if (logger.unwritten == unwritten)
		logger.lost_told = lost;
}

void log_flush(void)
{
	struct record record;
	eventfd_t count;

	eventfd_read(logger.queue_fd, &count);
	for (int i = 0; i < QUEUE_LENGTH && dequeue(&record); i++)
		write_record(&record);

	tell_lost();
}

uint64_t log_lost(void)
{
	return atomic_load_explicit(&logger.lost, memory_order_relaxed);
}

void log_close(void)
{
	if (!logger.opened)
		return;
	log_flush();
	if (logger.target == LOG_TO_SYSLOG)
		closelog();
	close(logger.queue_fd);
	free(logger.queue);
	logger.queue = NULL;
	logger.queue_fd = -1;
	logger.opened = false;
}
