/* problems.h: what stands in the way of a configuration. */
#ifndef SMALLSERVD_CORE_PROBLEMS_H
#define SMALLSERVD_CORE_PROBLEMS_H

#include <stdbool.h>

#include "core/log.h"

/* At a start each problem is logged as it comes. A reload says in one line that it failed and why: so its first problem is
 * kept for that line, and the others are logged. Zeroed before, but for RELOADS. */
struct problems {
	bool reloads;
	unsigned count;
	char first[1024]; /* of a reload: `FILE:LINE: MESSAGE`, or the message where CONTEXT has no place */
};

/* Adds one, about CONTEXT (NULL: about nothing in particular). */
void problems_add(struct problems *problems, const struct log_context *context, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

#endif
