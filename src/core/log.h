/* log.h: one line an event, to stderr, syslog or the journal. */
#ifndef SMALLSERVD_CORE_LOG_H
#define SMALLSERVD_CORE_LOG_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <syslog.h>

enum log_target { LOG_TO_STDERR, LOG_TO_SYSLOG, LOG_TO_JOURNAL };

/* The subject of a line; the journal gets these as fields. Any may be NULL. */
struct log_context {
	const char *service;
	const char *transport;
	const char *source;
	const char *config_file;
	unsigned config_line;
};

/* Opens the log or changes it; LEVEL and FACILITY as in syslog(3). Before the first call lines go to stderr at once,
 * from LOG_NOTICE up; from then on they are queued. Main thread. */
void log_open(enum log_target target, int level, int facility);

/* Starts the thread that writes queued lines, with every signal blocked. To be called after the process has given up
 * its privileges, which the thread inherits. Returns 0 or -errno. Main thread, once. */
int log_start(void);

/* Writes queued lines, for a second at most, and frees. Every other thread but the log's own must have ended. */
void log_close(void);

/* Returns whether stderr is connected to the journal, by JOURNAL_STREAM of systemd.exec(5). */
bool log_stderr_is_journal(void);

/* Returns whether this build can write to the journal. */
bool log_has_journal(void);

/* Logs one line at a LEVEL of syslog(3). Never waits for the target: when 1,024 lines wait to be written, further ones
 * are lost, counted, and reported with the next line that is written. Any thread. */
void log_write(int level, const struct log_context *context, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

#define log_error(...)   log_write(LOG_ERR, NULL, __VA_ARGS__)
#define log_warning(...) log_write(LOG_WARNING, NULL, __VA_ARGS__)
#define log_notice(...)  log_write(LOG_NOTICE, NULL, __VA_ARGS__)
#define log_info(...)    log_write(LOG_INFO, NULL, __VA_ARGS__)
#define log_debug(...)   log_write(LOG_DEBUG, NULL, __VA_ARGS__)

/* Limits the lines that clients can cause: a few an interval. Zero-initialised. */
struct log_bound {
	_Atomic uint64_t interval_began_ms;
	atomic_uint written, suppressed;
};

/* Returns whether one more line may be logged at NOW_MS (of a monotonic clock). Any thread. */
bool log_allows(struct log_bound *bound, uint64_t now_ms);

/* Logs how many lines of SUBJECT were suppressed since the last call, if any were. Any thread. */
void log_report_suppressed(struct log_bound *bound, const char *subject);

#endif
