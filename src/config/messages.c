/* messages.c: errors and warnings of a configuration, with suggestions. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "config/loader.h"
#include "core/array.h"

enum { WORDS_MAX = 128 };

static size_t file_order(const struct loader *loader, const char *file)
{
	size_t order = 0;
	while (order < loader->config->file_count && loader->config->files[order] != file)
		order++;
	return order;
}

void report_error(struct loader *loader, struct config_origin place, const char *section, const char *key,
		  const char *format, ...)
{
	struct diagnostic_place about = {place, file_order(loader, place.file), section, key};
	va_list arguments;
	va_start(arguments, format);
	diagnostics_add(loader->diagnostics, false, &about, format, arguments);
	va_end(arguments);
}

void report_warning(struct loader *loader, struct config_origin place, const char *section, const char *key,
		    const char *format, ...)
{
	struct diagnostic_place about = {place, file_order(loader, place.file), section, key};
	va_list arguments;
	va_start(arguments, format);
	diagnostics_add(loader->diagnostics, true, &about, format, arguments);
	va_end(arguments);
}

/* --- suggestions --- */

/* Keys of other programs. */
static const struct alias {
	const char *alias, *key;
} aliases[] = {
	{"bind", "address"},        {"listen", "address"}, {"disable", "enabled"},
	{"only_from", "allow"},     {"no_access", "deny"}, {"instances", "max_connections"},
	{"cps", "connection_rate"},
};

struct words {
	const char *list[WORDS_MAX];
	size_t count;
};

static void add_word(struct words *words, const char *word)
{
	if (words->count < WORDS_MAX)
		words->list[words->count++] = word;
}

static void add_keys(struct words *words, const struct option *options, size_t count)
{
	for (size_t i = 0; i < count; i++)
		add_word(words, options[i].key);
}

/* Returns the key that was probably meant by KEY, or NULL. */
static const char *suggest_key(const struct words *words, const char *key)
{
	for (size_t i = 0; i < COUNT_OF(aliases); i++)
		for (size_t j = 0; j < words->count && strcmp(aliases[i].alias, key) == 0; j++)
			if (strcmp(words->list[j], aliases[i].key) == 0)
				return aliases[i].key;
	return option_nearest(key, words->list, words->count);
}

/* --- unknown keys and sections --- */

/* Returns the row of KEY in any type, or NULL. */
const struct option *config_find_type_option(const char *key)
{
	const struct option *option = NULL;
	for (size_t i = 0; i < service_count && option == NULL; i++)
		option = option_find(service_table[i]->options, service_table[i]->option_count, key);
	return option;
}

/* Reports that KEY is unknown to SECTION: it belongs ELSEWHERE, or a suggestion. */
static void report_key(struct loader *loader, struct config_origin place, const char *section, const char *key,
		       const char *elsewhere, const struct words *words)
{
	/* suggestions for a large file of unknown keys would take half a minute, too long for a reload */
	const char *suggestion = diagnostics_is_full(loader->diagnostics) ? NULL : suggest_key(words, key);

	if (elsewhere != NULL)
		report_error(loader, place, section, key, "belongs in %s", elsewhere);
	else if (suggestion != NULL)
		report_error(loader, place, section, key, "unknown key; did you mean \"%s\"?", suggestion);
	else
		report_error(loader, place, section, key, "unknown key");
}

void report_daemon_key(struct loader *loader, struct config_origin place, const char *key)
{
	bool of_service = option_find(config_service_options, config_service_option_count, key) != NULL ||
			  config_find_type_option(key) != NULL;
	struct words words = {.count = 0};

	add_keys(&words, config_daemon_options, config_daemon_option_count);
	report_key(loader, place, "daemon", key, of_service ? "a service or in [defaults]" : NULL, &words);
}

/* Reports KEY of SECTION; TYPE is NULL for [defaults], where a key of any type may be valid. */
void report_service_key(struct loader *loader, struct config_origin place, const char *section,
			const struct service *type, const char *key)
{
	bool of_daemon = option_find(config_daemon_options, config_daemon_option_count, key);
	struct words words = {.count = 0};

	if (config_find_type_option(key) != NULL) {
		if (type != NULL)
			report_error(loader, place, section, key, "does not fit type %s", type->name);
		return;
	}
	add_keys(&words, config_service_options, config_service_option_count);
	for (size_t i = 0; i < service_count; i++)
		if (type == NULL || type == service_table[i])
			add_keys(&words, service_table[i]->options, service_table[i]->option_count);
	report_key(loader, place, section, key, of_daemon ? "[daemon]" : NULL, &words);
}

/* Reports that a section is neither a service nor [daemon] or [defaults]. */
void report_section(struct loader *loader, const struct config_service *service)
{
	static const char *const ours[] = {"daemon", "defaults"};
	const char *nearest = option_nearest(service->name, ours, COUNT_OF(ours));
	char error[OPTION_ERROR_SIZE];

	snprintf(error, sizeof error, "missing, and \"%s\" is no type", service->name);
	if (nearest != NULL) {
		report_error(loader, service->origin, service->name, "type", "%s; did you mean [%s]?", error, nearest);
		return;
	}
	config_options_suggest_type(service->name, error);
	report_error(loader, service->origin, service->name, "type", "%s", error);
}
