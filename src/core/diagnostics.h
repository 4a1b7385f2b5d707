/* diagnostics.h: errors and warnings for people: of a configuration, and of the sockets that it needs. */
#ifndef SMALLSERVD_CORE_DIAGNOSTICS_H
#define SMALLSERVD_CORE_DIAGNOSTICS_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>

#include "core/log.h"

/* The place where a value was written. Line 0: it is the default. FILE lives as long as its configuration. */
struct config_origin {
	const char *file;
	unsigned line;
};

/* Zero-initialised, but for KEEP_FIRST. Main thread. */
struct diagnostics {
	/* collected by diagnostics_add, in the order of files and lines */
	struct diagnostic {
		char *text; /* `FILE:LINE: [SECTION] KEY: MESSAGE`, warnings with `warning: ` after the place */
		bool warning;
		char *file; /* NULL: none */
		unsigned line;
		size_t order; /* of its file among those read */
	} * messages;
	size_t count;
	size_t errors;    /* also those that were logged at once */
	bool keep_first;  /* a reload reports its first error in one line of its own: `first` */
	char first[1024]; /* with KEEP_FIRST: the first logged error, with its place */
};

/* The subject of a message. */
struct diagnostic_place {
	struct config_origin origin;
	size_t order;        /* of its file among those read */
	const char *section; /* NULL: none */
	const char *key;     /* NULL: none */
};

/* Collects an error or a WARNING. After a thousand messages, and without memory, errors are only counted. */
void diagnostics_add(struct diagnostics *diagnostics, bool warning, const struct diagnostic_place *place,
		     const char *format, va_list arguments) __attribute__((format(printf, 4, 0)));

/* Returns whether further messages are only counted. */
bool diagnostics_is_full(const struct diagnostics *diagnostics);

/* Logs an error about CONTEXT (NULL: none) at once, or keeps it as the first. */
void diagnostics_log(struct diagnostics *diagnostics, const struct log_context *context, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

/* Logs the collected messages: warnings, and errors as diagnostics_log does, which counts them once. */
void diagnostics_log_collected(struct diagnostics *diagnostics);

/* Frees the collected messages, and resets the counts. */
void diagnostics_free(struct diagnostics *diagnostics);

#endif
