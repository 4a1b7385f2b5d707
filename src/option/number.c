/* number.c: integers, durations, sizes and rates. */
#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/array.h"
#include "core/token_bucket.h"
#include "option/option.h"
#include "option/option_internal.h"

struct unit {
	const char *suffix;
	int64_t factor;
};

/* The notation of a kind of number: its units from the largest to that of the field. */
struct measure {
	const char *name;
	struct unit units[6];
	size_t unit_count;
};

static const struct measure plain = {"a number", {{"", 1}}, 1};

static const struct measure duration = {
	"a duration",
	{{"d", 24 * 60 * 60 * 1000}, {"h", 60 * 60 * 1000}, {"m", 60 * 1000}, {"s", 1000}, {"ms", 1}},
	5,
};

static const struct measure size = {"a size", {{"G", 1 << 30}, {"M", 1 << 20}, {"K", 1 << 10}, {"", 1}}, 4};

struct number {
	char text[32];
};

static struct number write_number(const struct measure *measure, int64_t value)
{
	const struct unit *unit = measure->units;
	struct number number;

	while (unit->factor > 1 && (value < unit->factor || value % unit->factor != 0))
		unit++;
	snprintf(number.text, sizeof number.text, "%lld%s", (long long)(value / unit->factor), unit->suffix);
	return number;
}

static bool fail_number(const struct option *option, const struct measure *measure, const char *text, char *error)
{
	return option_fail(error, "must be %s from %s to %s%s%s, not %s", measure->name,
			   write_number(measure, option->min).text, write_number(measure, option->max).text,
			   option->word != NULL ? ", or " : "", option->word != NULL ? option->word : "",
			   option_quote(text).text);
}

static bool parse_number(const struct option *option, const struct measure *measure, const char *text, int64_t *field,
			 char *error)
{
	if (option_is_word(option, text)) {
		*field = option->word_value;
		return true;
	}
	if (!isdigit((unsigned char)*text))
		return fail_number(option, measure, text, error);

	char *suffix;
	errno = 0;
	long long number = strtoll(text, &suffix, 10);
	const struct unit *unit = measure->units, *end = measure->units + measure->unit_count;
	while (unit < end && strcmp(suffix, unit->suffix) != 0)
		unit++;
	if (unit == end && measure == &duration && *suffix == '\0')
		return option_fail(error, "a duration needs its unit: write %.*ss", OPTION_QUOTED_MAX, text);

	int64_t value;
	if (unit == end || errno != 0 || __builtin_mul_overflow(number, unit->factor, &value))
		return fail_number(option, measure, text, error);
	if (value < option->min || value > option->max)
		return fail_number(option, measure, text, error);
	if (option->step && value % option->step != 0)
		return option_fail(error, "must be a multiple of %s, not %s", write_number(measure, option->step).text,
				   option_quote(text).text);
	*field = value;
	return true;
}

static void print_number(const struct option *option, const struct measure *measure, int64_t value, FILE *out)
{
	bool word = option->word != NULL && value == option->word_value;
	fputs(word ? option->word : write_number(measure, value).text, out);
}

static bool parse_integer(const struct option *option, const char *text, void *field, char *error)
{
	return parse_number(option, &plain, text, field, error);
}

static void print_integer(const struct option *option, const void *field, FILE *out)
{
	print_number(option, &plain, *(const int64_t *)field, out);
}

static bool parse_duration(const struct option *option, const char *text, void *field, char *error)
{
	return parse_number(option, &duration, text, field, error);
}

static void print_duration(const struct option *option, const void *field, FILE *out)
{
	print_number(option, &duration, *(const int64_t *)field, out);
}

static bool parse_size(const struct option *option, const char *text, void *field, char *error)
{
	return parse_number(option, &size, text, field, error);
}

static void print_size(const struct option *option, const void *field, FILE *out)
{
	print_number(option, &size, *(const int64_t *)field, out);
}

const struct option_type option_integer = {.parse = parse_integer, .print = print_integer};
const struct option_type option_duration = {.parse = parse_duration, .print = print_duration};
const struct option_type option_size = {.parse = parse_size, .print = print_size};

/* --- rates --- */

static const struct unit rate_units[] = {{"/s", 1000}, {"/m", 60 * 1000}, {"/h", 60 * 60 * 1000}};

static bool parse_rate(const struct option *option, const char *text, void *field, char *error)
{
	enum { RATE_MAX = 1000000 };
	struct token_rate *rate = field;
	size_t digits = strspn(text, "0123456789");

	if (option_is_word(option, text))
		return true;
	for (size_t i = 0; i < COUNT_OF(rate_units) && digits > 0 && digits < 8; i++) {
		long count = strtol(text, NULL, 10);
		if (strcmp(text + digits, rate_units[i].suffix) != 0 || count < 1 || count > RATE_MAX)
			continue;
		*rate = (struct token_rate){.count = count, .unit_ms = rate_units[i].factor};
		return true;
	}
	return option_fail(error, "must be a rate of 1 to %d a second, minute or hour, as 50/s or 600/m, or %s, not %s",
			   RATE_MAX, option->word, option_quote(text).text);
}

static void print_rate(const struct option *option, const void *field, FILE *out)
{
	const struct token_rate *rate = field;
	const struct unit *unit = rate_units;

	if (rate->count == 0) {
		fputs(option->word, out);
		return;
	}
	while (unit->factor != rate->unit_ms)
		unit++;
	fprintf(out, "%lld%s", (long long)rate->count, unit->suffix);
}

const struct option_type option_rate = {.parse = parse_rate, .print = print_rate};
