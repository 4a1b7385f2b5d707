/* diagnostics.c: errors and warnings for people: of a configuration, and of the sockets that it needs. */
#include "core/diagnostics.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MESSAGES_MAX = 1000 };

static char *write_message(bool warning, const struct diagnostic_place *place, const char *format, va_list arguments)
	__attribute__((format(printf, 3, 0)));

static char *write_message(bool warning, const struct diagnostic_place *place, const char *format, va_list arguments)
{
	char *text = NULL;
	size_t size;
	FILE *out = open_memstream(&text, &size);

	if (!out)
		return NULL;
	fputs(place->origin.file, out);
	if (place->origin.line)
		fprintf(out, ":%u", place->origin.line);
	fputs(warning ? ": warning: " : ": ", out);
	if (place->section)
		fprintf(out, "[%s] ", place->section);
	if (place->key)
		fprintf(out, "%s: ", place->key);
	vfprintf(out, format, arguments);
	if (fclose(out) == 0)
		return text;
	free(text);
	return NULL;
}

/* Inserts MESSAGE after those of the same line and before those of later ones. */
static void insert_message(struct diagnostics *diagnostics, struct diagnostic message)
{
	struct diagnostic *messages = reallocarray(diagnostics->messages, diagnostics->count + 1, sizeof(*messages));
	size_t at = diagnostics->count;

	if (!messages) {
		free(message.text);
		free(message.file);
		return;
	}
	diagnostics->messages = messages;
	while (at > 0 && (messages[at - 1].order > message.order ||
			  (messages[at - 1].order == message.order && messages[at - 1].line > message.line)))
		at--;
	memmove(&messages[at + 1], &messages[at], (diagnostics->count - at) * sizeof(*messages));
	messages[at] = message;
	diagnostics->count++;
}

void diagnostics_add(struct diagnostics *diagnostics, bool warning, const struct diagnostic_place *place,
		     const char *format, va_list arguments)
{
	struct diagnostic message = {.warning = warning, .line = place->origin.line};

	diagnostics->errors += !warning;
	if (diagnostics_is_full(diagnostics))
		return;
	if (diagnostics->count == MESSAGES_MAX) {
		message.text = strdup("more than 1000 messages: the others are left out");
		message.order = SIZE_MAX;
	} else {
		message.text = write_message(warning, place, format, arguments);
		message.file = strdup(place->origin.file);
		message.order = place->order;
	}
	if (message.text)
		insert_message(diagnostics, message);
	else
		free(message.file);
}

bool diagnostics_is_full(const struct diagnostics *diagnostics)
{
	return diagnostics->count > MESSAGES_MAX;
}

void diagnostics_log(struct diagnostics *diagnostics, const struct log_context *context, const char *format, ...)
{
	char message[768], place[256] = "";
	va_list arguments;
	va_start(arguments, format);
	vsnprintf(message, sizeof message, format, arguments);
	va_end(arguments);

	if (diagnostics->keep_first && context != NULL && context->config_file != NULL)
		snprintf(place, sizeof place, "%s:%u: ", context->config_file, context->config_line);
	if (diagnostics->keep_first && diagnostics->first[0] == '\0')
		snprintf(diagnostics->first, sizeof diagnostics->first, "%s%s", place, message);
	else
		log_write(LOG_ERR, context, "%s%s", place, message);
	diagnostics->errors++;
}

void diagnostics_log_collected(struct diagnostics *diagnostics)
{
	size_t errors = diagnostics->errors;
	for (size_t i = 0; i < diagnostics->count; i++) {
		const struct diagnostic *message = &diagnostics->messages[i];
		struct log_context context = {.config_file = message->file, .config_line = message->line};
		if (message->warning)
			log_write(LOG_WARNING, &context, "%s", message->text);
		else
			diagnostics_log(diagnostics, NULL, "%s", message->text);
	}
	diagnostics->errors = errors;
}

void diagnostics_free(struct diagnostics *diagnostics)
{
	for (size_t i = 0; i < diagnostics->count; i++) {
		free(diagnostics->messages[i].text);
		free(diagnostics->messages[i].file);
	}
	free(diagnostics->messages);
	diagnostics->messages = NULL;
	diagnostics->count = diagnostics->errors = 0;
}
