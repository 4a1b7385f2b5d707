/* option.c: rows, error texts, lists and spelling suggestions, common to all option types. */
#include "option/option.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "option/option_internal.h"

/* --- rows --- */

const struct option *option_find(const struct option *options, size_t count, const char *key)
{
	for (size_t i = 0; i < count; i++)
		if (strcmp(options[i].key, key) == 0)
			return &options[i];
	return NULL;
}

void *option_field(const struct option *option, void *base)
{
	return (char *)base + option->offset;
}

const void *option_field_const(const struct option *option, const void *base)
{
	return (const char *)base + option->offset;
}

/* --- error texts --- */

bool option_fail(char *error, const char *format, ...)
{
	va_list arguments;
	va_start(arguments, format);
	vsnprintf(error, OPTION_ERROR_SIZE, format, arguments);
	va_end(arguments);
	return false;
}

bool option_fail_near(char *error, const char *text, const char *const *words, size_t count)
{
	const char *nearest = option_nearest(text, words, count);
	size_t length = strlen(error);

	if (nearest != NULL)
		snprintf(error + length, OPTION_ERROR_SIZE - length, "; did you mean \"%s\"?", nearest);
	return false;
}

struct option_quoted option_quote(const char *text)
{
	struct option_quoted quoted = {"\""};
	size_t length = strnlen(text, OPTION_QUOTED_MAX + 1), at = 1;
	bool cut = length > OPTION_QUOTED_MAX;

	if (cut)
		for (length = OPTION_QUOTED_MAX; length > 0 && ((unsigned char)text[length] & 0xc0) == 0x80;)
			length--;
	for (size_t i = 0; i < length; i++) {
		unsigned char byte = (unsigned char)text[i];
		if (byte < 0x20 || byte == 0x7f) {
			at += (size_t)snprintf(quoted.text + at, sizeof quoted.text - at, "\\x%02x", byte);
			continue;
		}
		if (byte == '"')
			quoted.text[at++] = '\\';
		quoted.text[at++] = text[i];
	}
	snprintf(quoted.text + at, sizeof quoted.text - at, "%s\"", cut ? "..." : "");
	return quoted;
}

bool option_is_word(const struct option *option, const char *text)
{
	return option->word != NULL && strcmp(text, option->word) == 0;
}

/* --- lists --- */

char *option_trim(char *text)
{
	while (isblank((unsigned char)*text))
		text++;
	for (size_t length = strlen(text); length > 0 && isblank((unsigned char)text[length - 1]);)
		text[--length] = '\0';
	return text;
}

bool option_parse_list(const struct option *option, const char *text, void *field, char *error, option_add_item *add)
{
	char *copy = strdup(text), *rest = copy, *item;
	bool valid = copy != NULL || option_fail(error, "out of memory");

	if (option_is_word(option, text))
		rest = NULL;
	while (valid && (item = strsep(&rest, ",")) != NULL) {
		item = option_trim(item);
		valid = (*item != '\0' || option_fail(error, "empty item in a list")) && add(item, field, error);
	}
	free(copy);
	if (!valid)
		option->type->free(field);
	return valid;
}

/* --- suggestions --- */

enum { WORD_MAX = 64 };

static size_t least(size_t a, size_t b)
{
	return a < b ? a : b;
}

static bool is_same_letter(char a, char b)
{
	return tolower((unsigned char)a) == tolower((unsigned char)b);
}

/* Returns the Damerau-Levenshtein distance of A and B, without regard to case. B has at most WORD_MAX letters. */
static size_t distance(const char *a, const char *b)
{
	size_t rows[3][WORD_MAX + 1];
	size_t *before_last = rows[0], *last = rows[1], *row = rows[2];

	for (size_t j = 0; j <= strlen(b); j++)
		row[j] = j;
	for (size_t i = 1; i <= strlen(a); i++) {
		size_t *oldest = before_last;
		before_last = last;
		last = row;
		row = oldest;
		row[0] = i;
		for (size_t j = 1; j <= strlen(b); j++) {
			row[j] = least(last[j], row[j - 1]) + 1;
			row[j] = least(row[j], last[j - 1] + !is_same_letter(a[i - 1], b[j - 1]));
			if (i > 1 && j > 1 && is_same_letter(a[i - 1], b[j - 2]) && is_same_letter(a[i - 2], b[j - 1]))
				row[j] = least(row[j], before_last[j - 2] + 1);
		}
	}
	return row[strlen(b)];
}

const char *option_nearest(const char *text, const char *const *words, size_t count)
{
	size_t length = strlen(text);
	size_t best = (length / 3 > 2 ? length / 3 : 2) + 1;
	const char *nearest = NULL;

	for (size_t i = 0; i < count; i++) {
		if (strlen(words[i]) > WORD_MAX)
			continue;
		/* a distance as long as one of the words means that they have no letter in common */
		size_t steps = distance(text, words[i]);
		if (steps < best && steps < least(length, strlen(words[i]))) {
			nearest = words[i];
			best = steps;
		}
	}
	return nearest;
}
