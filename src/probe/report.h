/* report.h: output for people: lines with time and colour as the options say. */
#ifndef SMALLSERVD_PROBE_REPORT_H
#define SMALLSERVD_PROBE_REPORT_H

#include <stddef.h>

#include "probe/options.h"

enum report_tone { REPORT_PLAIN, REPORT_GOOD, REPORT_BAD };

/* Prints a progress line, unless only the summary is wanted. */
void report_line(const struct options *options, enum report_tone tone, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

/* Prints a line of the summary, unless it is wanted as JSON. */
void report_summary(const struct options *options, enum report_tone tone, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

/* Prints the text of a reply with control characters written as \x1b. */
void report_text(const struct options *options, const char *bytes, size_t length);

/* Returns whether output to stdout was lost. */
bool report_is_lost(void);

/* Prints an error to stderr, once. */
void report_error(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
