/* report.h: lines for people: with time, in colour, or not at all, as the options say. */
#ifndef SMALLSERVD_PROBE_REPORT_H
#define SMALLSERVD_PROBE_REPORT_H

#include <stddef.h>

#include "probe/options.h"

enum report_tone { REPORT_PLAIN, REPORT_GOOD, REPORT_BAD };

/* Prints one line of what goes on, unless only the summary is wanted. */
void report_line(const struct options *options, enum report_tone tone, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

/* Prints a line of the summary, unless it is wanted as JSON. */
void report_summary(const struct options *options, enum report_tone tone, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

/* Prints an answer's text; what could command a terminal is written as \x1b. */
void report_text(const struct options *options, const char *bytes, size_t length);

/* Whether stdout did not take what was printed, so that nobody sees it any more. */
bool report_is_lost(void);

/* Prints what went wrong to stderr, once. */
void report_error(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
