/* config_report.c: what was found wrong with a configuration, line by line. */
#include "core/config_report.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MESSAGES_MAX = 1000 };

static char *write_message(bool warning, const struct config_place *place, const char *format, va_list arguments)
	__attribute__((format(printf, 3, 0)));

static char *write_message(bool warning, const struct config_place *place, const char *format, va_list arguments)
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

/* Puts MESSAGE behind those of the same line and before those of later ones. */
static void insert_message(struct config_report *report, struct config_message message)
{
	struct config_message *messages = reallocarray(report->messages, report->count + 1, sizeof(*messages));
	size_t at = report->count;

	if (!messages) {
		free(message.text);
		free((char *)message.file);
		return;
	}
	report->messages = messages;
	while (at > 0 && (messages[at - 1].order > message.order ||
			  (messages[at - 1].order == message.order && messages[at - 1].line > message.line)))
		at--;
	memmove(&messages[at + 1], &messages[at], (report->count - at) * sizeof(*messages));
	messages[at] = message;
	report->count++;
}

void config_report_add(struct config_report *report, bool warning, const struct config_place *place, const char *format,
		       va_list arguments)
{
	struct config_message message = {.warning = warning, .line = place->origin.line};

	report->errors += !warning;
	if (config_report_is_full(report))
		return;
	if (report->count == MESSAGES_MAX) {
		message.text = strdup("more than 1000 messages: the others are left out");
		message.order = SIZE_MAX;
	} else {
		message.text = write_message(warning, place, format, arguments);
		message.file = strdup(place->origin.file);
		message.order = place->order;
	}
	if (message.text)
		insert_message(report, message);
	else
		free((char *)message.file);
}

bool config_report_is_full(const struct config_report *report)
{
	return report->count > MESSAGES_MAX;
}

void config_report_free(struct config_report *report)
{
	for (size_t i = 0; i < report->count; i++) {
		free(report->messages[i].text);
		free((char *)report->messages[i].file);
	}
	free(report->messages);
	*report = (struct config_report){0};
}
