/* log.h: one line an event, to stderr, syslog or the journal. */
#ifndef SMALLSERVD_CORE_LOG_H
#define SMALLSERVD_CORE_LOG_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <syslog.h>

enum log_target { LOG_TO_STDERR, LOG_TO_SYSLOG, LOG_TO_JOURNAL };

/* What a line is about; the journal gets these as fields. Any may be NULL. */
struct log_context {
	const char *service;
	const char *transport;
	const char *source;
	const char *config_file;
	unsigned config_line;
};

/* Starts or changes the log: LEVEL and FACILITY as in syslog(3). The thread that calls it first writes lines itself;
 * every other thread only queues them for that one. Before the first call lines go to stderr at LOG_NOTICE. */
void log_open(enum log_target target, int level, int facility);

/* Whether stderr is connected to the journal, as JOURNAL_STREAM of systemd.exec(5) tells. */
bool log_stderr_is_journal(void);

/* Whether this build can write to the journal. */
bool log_has_journal(void);

/* One line at a LEVEL of syslog(3). From a thread that queues it never blocks: a full queue loses the line, counted. */
void log_write(int level, const struct log_context *context, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

#define log_error(...)   log_write(LOG_ERR, NULL, __VA_ARGS__)
#define log_warning(...) log_write(LOG_WARNING, NULL, __VA_ARGS__)
#define log_notice(...)  log_write(LOG_NOTICE, NULL, __VA_ARGS__)
#define log_info(...)    log_write(LOG_INFO, NULL, __VA_ARGS__)
#define log_debug(...)   log_write(LOG_DEBUG, NULL, __VA_ARGS__)

/* Bounds what a client can cause: a few lines an interval, then one that counts the rest. Zeroed at the start. */
struct log_bound {
	_Atomic uint64_t interval_began_ms;
	atomic_uint written, suppressed;
};

/* Whether one more line may be written at NOW_MS (a monotonic clock). Any thread. */
bool log_allows(struct log_bound *bound, uint64_t now_ms);

/* Tells how many lines about WHAT were not written since the last time, if any were. Any thread. */
void log_tell_suppressed(struct log_bound *bound, const char *what);

/* An eventfd that is readable when lines are queued; -1 before log_open. For the thread that called log_open. */
int log_queue_fd(void);

/* Writes what is queued, at most a queue's worth. For the thread that called log_open. */
void log_flush(void);

/* How many lines a full queue has lost so far. Any thread. */
uint64_t log_lost(void);

/* Flushes and frees. Every other thread must have ended. */
void log_close(void);

#endif
