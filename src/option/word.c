/* word.c: booleans, choices, DSCP classes, strings and transports. */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "core/array.h"
#include "core/transport.h"
#include "option/option.h"
#include "option/option_internal.h"

/* --- booleans, choices and DSCP classes --- */

static const char *const boolean_words[] = {"no", "yes", "off", "on", "false", "true"};

static bool parse_boolean(const struct option *option, const char *text, void *field, char *error)
{
	(void)option;
	for (size_t i = 0; i < COUNT_OF(boolean_words); i++)
		if (strcmp(text, boolean_words[i]) == 0) {
			*(bool *)field = i % 2 == 1;
			return true;
		}
	option_fail(error, "must be yes or no, not %s", option_quote(text).text);
	return option_fail_near(error, text, boolean_words, COUNT_OF(boolean_words));
}

static void print_boolean(const struct option *option, const void *field, FILE *out)
{
	(void)option;
	fputs(boolean_words[*(const bool *)field], out);
}

static bool parse_choice(const struct option *option, const char *text, void *field, char *error)
{
	char list[OPTION_ERROR_SIZE / 2] = "";
	size_t count = 0;

	for (; option->words[count] != NULL; count++) {
		if (strcmp(text, option->words[count]) == 0) {
			*(int *)field = (int)count;
			return true;
		}
		size_t length = strlen(list);
		snprintf(list + length, sizeof list - length, "%s%s", count ? ", " : "", option->words[count]);
	}
	option_fail(error, "must be one of %s, not %s", list, option_quote(text).text);
	return option_fail_near(error, text, option->words, count);
}

static void print_choice(const struct option *option, const void *field, FILE *out)
{
	fputs(option->words[*(const int *)field], out);
}

static const struct dscp_class {
	const char *name;
	int64_t value;
} dscp_classes[] = {
	{"none", DSCP_NONE}, {"copy", DSCP_COPY}, {"cs0", 0},   {"cs1", 8},   {"cs2", 16},  {"cs3", 24},  {"cs4", 32},
	{"cs5", 40},         {"cs6", 48},         {"cs7", 56},  {"le", 1},    {"af11", 10}, {"af12", 12}, {"af13", 14},
	{"af21", 18},        {"af22", 20},        {"af23", 22}, {"af31", 26}, {"af32", 28}, {"af33", 30}, {"af41", 34},
	{"af42", 36},        {"af43", 38},        {"va", 44},   {"ef", 46},
};

static bool parse_dscp(const struct option *option, const char *text, void *field, char *error)
{
	static const struct option number = {.min = 0, .max = 63};

	(void)option;
	for (size_t i = 0; i < COUNT_OF(dscp_classes); i++)
		if (strcmp(text, dscp_classes[i].name) == 0) {
			*(int64_t *)field = dscp_classes[i].value;
			return true;
		}
	if (option_integer.parse(&number, text, field, error))
		return true;
	return option_fail(error, "must be 0 to 63, a class as ef, af21 or cs6, copy or none, not %s",
			   option_quote(text).text);
}

static void print_dscp(const struct option *option, const void *field, FILE *out)
{
	int64_t value = *(const int64_t *)field;

	(void)option;
	for (size_t i = 0; i < COUNT_OF(dscp_classes); i++)
		if (dscp_classes[i].value == value) {
			fputs(dscp_classes[i].name, out);
			return;
		}
	fprintf(out, "%lld", (long long)value);
}

const struct option_type option_boolean = {.parse = parse_boolean, .print = print_boolean};
const struct option_type option_choice = {.parse = parse_choice, .print = print_choice};
const struct option_type option_dscp = {.parse = parse_dscp, .print = print_dscp};

/* --- strings --- */

static bool parse_string(const struct option *option, const char *text, void *field, char *error)
{
	size_t length = strlen(text), max = option->max != 0 ? (size_t)option->max : OPTION_STRING_MAX;

	if (option_is_word(option, text)) {
		*(char **)field = NULL;
		return true;
	}
	if (*text == '"') {
		if (length < 2 || text[length - 1] != '"')
			return option_fail(error, "unclosed quote");
		text++;
		length -= 2;
	}
	if (length == 0)
		return option_fail(error, "must not be empty");
	if (length > max)
		return option_fail(error, "longer than %zu bytes", max);
	*(char **)field = strndup(text, length);
	return *(char **)field != NULL || option_fail(error, "out of memory");
}

/* Returns whether TEXT needs quotes to read back to the same string. */
static bool needs_quotes(const struct option *option, const char *text)
{
	return option_is_word(option, text) || strpbrk(text, "#;,") != NULL || isblank((unsigned char)text[0]) ||
	       isblank((unsigned char)text[strlen(text) - 1]);
}

static void print_string(const struct option *option, const void *field, FILE *out)
{
	const char *text = *(char *const *)field;

	if (text == NULL)
		fputs(option->word != NULL ? option->word : "", out);
	else
		fprintf(out, needs_quotes(option, text) ? "\"%s\"" : "%s", text);
}

static void free_string(void *field)
{
	free(*(char **)field);
	*(char **)field = NULL;
}

const struct option_type option_string = {.parse = parse_string, .print = print_string, .free = free_string};

/* --- transports --- */

static bool add_transport(const char *item, void *field, char *error)
{
	const char *const names[] = {transport_name(TRANSPORT_TCP), transport_name(TRANSPORT_UDP)};
	unsigned *transports = field;

	for (unsigned bit = TRANSPORT_TCP; bit <= TRANSPORT_UDP; bit <<= 1)
		if (strcmp(item, transport_name(bit)) == 0) {
			if (*transports & bit)
				return option_fail(error, "%s is listed twice", item);
			*transports |= bit;
			return true;
		}
	option_fail(error, "must be tcp, udp or both, not %s", option_quote(item).text);
	return option_fail_near(error, item, names, COUNT_OF(names));
}

static bool parse_transports(const struct option *option, const char *text, void *field, char *error)
{
	return option_parse_list(option, text, field, error, add_transport);
}

static void print_transports(const struct option *option, const void *field, FILE *out)
{
	unsigned transports = *(const unsigned *)field;

	(void)option;
	for (unsigned bit = TRANSPORT_TCP; bit <= TRANSPORT_UDP; bit <<= 1)
		if (transports & bit)
			fprintf(out, "%s%s", transports & (bit - 1) ? ", " : "", transport_name(bit));
}

static void free_transports(void *field)
{
	*(unsigned *)field = 0;
}

const struct option_type option_transports = {
	.parse = parse_transports, .print = print_transports, .free = free_transports};
