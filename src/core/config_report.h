/* config_report.h: what was found wrong with a configuration, line by line. */
#ifndef SMALLSERVD_CORE_CONFIG_REPORT_H
#define SMALLSERVD_CORE_CONFIG_REPORT_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>

/* Where a value was written. Line 0: nowhere, it is the default. FILE lives as long as its configuration. */
struct config_origin {
	const char *file;
	unsigned line;
};

/* What was found wrong, line by line, in the order of the files and their lines. */
struct config_report {
	struct config_message {
		char *text; /* `FILE:LINE: [SECTION] KEY: MESSAGE`, warnings with `warning: ` after the place */
		bool warning;
		const char *file; /* owned by the message, NULL where there is none */
		unsigned line;
		size_t order; /* of its file among those read */
	} * messages;
	size_t count, errors;
};

/* What a message is about. */
struct config_place {
	struct config_origin origin;
	size_t order;        /* of its file among those read */
	const char *section; /* NULL: none */
	const char *key;     /* NULL: none */
};

/* Adds an error or a WARNING; of more than a thousand messages only the errors are counted. What cannot be written, as there is no
 * memory, is counted too. */
void config_report_add(struct config_report *report, bool warning, const struct config_place *place, const char *format,
		       va_list arguments) __attribute__((format(printf, 4, 0)));

/* Whether messages are only counted by now: then nobody reads what one would say. */
bool config_report_is_full(const struct config_report *report);

/* Frees the messages, and leaves REPORT empty. */
void config_report_free(struct config_report *report);

#endif
