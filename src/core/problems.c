/* problems.c: what stands in the way of a configuration. */
#include "core/problems.h"

#include <stdarg.h>
#include <stdio.h>

static void write_place(const struct log_context *context, char *text, size_t size)
{
	text[0] = '\0';
	if (context != NULL && context->config_file != NULL)
		snprintf(text, size, "%s:%u: ", context->config_file, context->config_line);
}

void problems_add(struct problems *problems, const struct log_context *context, const char *format, ...)
{
	char message[768], place[256];
	va_list arguments;
	va_start(arguments, format);
	vsnprintf(message, sizeof message, format, arguments);
	va_end(arguments);

	write_place(problems->reloads ? context : NULL, place, sizeof place);
	if (problems->count++ == 0 && problems->reloads)
		snprintf(problems->first, sizeof problems->first, "%s%s", place, message);
	else
		log_write(LOG_ERR, context, "%s%s", place, message);
}
