/* daytime.c: RFC 867: the date and the time as one line of text. */
#include "service/service.h"

#include <stdlib.h>
#include <string.h>

#include "core/array.h"
#include "core/transport.h"
#include "service/zone.h"

enum {
	PATTERN_MAX = 255,
	TEXT_MAX = 500,  /* the longest output of a pattern; callers have at least 1,024 bytes */
	NUMBER_MAX = 20, /* characters of an int64_t */
};

struct settings;

/* A format: a pattern of strftime, or a function that returns the length of the whole LINE. */
struct style {
	const char *word;
	const char *pattern;
	size_t (*write)(const struct settings *settings, const struct timespec *now, char *line, size_t size);
};

struct format {
	const struct style *style; /* NULL: a pattern from the configuration */
	char *pattern;
};

struct zone_choice {
	char *name;
	struct zone *zone;
};

struct settings {
	struct format format;
	struct zone_choice timezone;
};

/* Copies PATTERN to EXPANDED with SECONDS in place of each %s, which strftime would compute in the zone of the process.
 * Returns false if it does not fit. */
static bool expand_seconds(const char *pattern, int64_t seconds, char *expanded, size_t size)
{
	size_t length = 0;

	for (const char *at = pattern; *at != '\0'; at++) {
		if (size - length <= NUMBER_MAX)
			return false;
		if (*at != '%') {
			expanded[length++] = *at;
		} else if (*++at == 's') {
			length += (size_t)snprintf(expanded + length, size - length, "%lld", (long long)seconds);
		} else {
			expanded[length++] = '%';
			expanded[length++] = *at;
		}
	}
	expanded[length] = '\0';
	return true;
}

/* Returns the length; 0: longer than TEXT_MAX, or empty. */
static size_t write_pattern(const char *pattern, int64_t seconds, const struct tm *tm, char *line)
{
	char expanded[TEXT_MAX + NUMBER_MAX];

	if (!expand_seconds(pattern, seconds, expanded, sizeof expanded))
		return 0;
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral" /* checked by check_pattern */
	return strftime(line, TEXT_MAX + 1, expanded, tm);
#pragma GCC diagnostic pop
}

static size_t write_rfc3339(const struct settings *settings, const struct timespec *now, char *line, size_t size)
{
	struct tm tm;

	zone_localtime(settings->timezone.zone, now->tv_sec, &tm);
	size_t length = strftime(line, size, "%Y-%m-%dT%H:%M:%S", &tm);
	length += (size_t)snprintf(line + length, size - length, ".%06ld", now->tv_nsec / 1000);
	if (tm.tm_gmtoff == 0 && strcmp(tm.tm_zone, "UTC") == 0)
		return length + (size_t)snprintf(line + length, size - length, "Z\r\n");

	long minutes = labs(tm.tm_gmtoff) / 60;
	return length + (size_t)snprintf(line + length, size - length, "%c%02ld:%02ld\r\n",
					 tm.tm_gmtoff < 0 ? '-' : '+', minutes / 60, minutes % 60);
}

/* Returns NIST's daylight saving code of a day in UTC: 00 in standard time and 50 in daylight time of the United
 * States. In the month of a change it counts the days, down to 51 and 01 on the day itself. By the rules since 2007,
 * from the second Sunday of March to the first Sunday of November. */
static int daylight_code(const struct tm *utc)
{
	enum { MARCH = 2, NOVEMBER = 10 };
	int first_sunday = (utc->tm_mday - utc->tm_wday + 34) % 7 + 1, second_sunday = first_sunday + 7;

	if (utc->tm_mon < MARCH || utc->tm_mon > NOVEMBER)
		return 0;
	if (utc->tm_mon == MARCH && utc->tm_mday <= second_sunday)
		return 51 + second_sunday - utc->tm_mday;
	if (utc->tm_mon == NOVEMBER)
		return utc->tm_mday <= first_sunday ? 1 + first_sunday - utc->tm_mday : 0;
	return 50;
}

/* Writes `JJJJJ YR-MO-DA HH:MM:SS TT L H msADV UTC(NIST) OTM` in UTC between line feeds. Leap seconds are not
 * announced, as the clock does not report them; the health is good, the advance 0. The label is that of an
 * unsynchronised NTP clock. */
static size_t write_nist(const struct settings *settings, const struct timespec *now, char *line, size_t size)
{
	enum { MODIFIED_JULIAN_1970 = 40587 };
	struct tm utc;

	(void)settings;
	zone_localtime(NULL, now->tv_sec, &utc);
	return (size_t)snprintf(line, size, "\n%05lld %02d-%02d-%02d %02d:%02d:%02d %02d 0 0 %5.1f UTC(LOCL) * \n",
				((long long)now->tv_sec / 86400 + MODIFIED_JULIAN_1970) % 100000, utc.tm_year % 100,
				utc.tm_mon + 1, utc.tm_mday, utc.tm_hour, utc.tm_min, utc.tm_sec, daylight_code(&utc),
				0.0);
}

static const struct style styles[] = {
	{.word = "ctime", .pattern = "%a %b %e %H:%M:%S %Y"},
	{.word = "rfc3339", .write = write_rfc3339},
	{.word = "smtp",
	 .pattern = "%d %^b %Y %H:%M:%S %Z"}, /* RFC 867: 02 FEB 82 07:59:01 PST, with four digits of the year */
	{.word = "nist", .write = write_nist},
};

/* The line of the last second, if it is short enough. */
struct memo {
	time_t second;
	size_t length; /* 0: none yet */
	char line[112];
};

static void remember(struct memo *memo, time_t second, const char *line, size_t length)
{
	if (memo == NULL || length > sizeof memo->line)
		return;
	memo->second = second;
	memo->length = length;
	memcpy(memo->line, line, length);
}

static size_t recall(const struct memo *memo, time_t second, char *line)
{
	if (memo == NULL || memo->second != second)
		return 0;
	memcpy(line, memo->line, memo->length);
	return memo->length;
}

static size_t write_line(const struct service_context *context, char *line, size_t size)
{
	const struct settings *settings = context->settings;
	const struct style *style = settings->format.style;
	time_t second = context->now.tv_sec;
	struct tm tm;

	if (style != NULL && style->write != NULL)
		return style->write(settings, &context->now, line, size);
	size_t length = recall(context->memo, second, line);
	if (length > 0)
		return length;
	zone_localtime(settings->timezone.zone, second, &tm);
	length = write_pattern(style != NULL ? style->pattern : settings->format.pattern, second, &tm, line);
	line[length++] = '\r';
	line[length++] = '\n';
	remember(context->memo, second, line, length);
	return length;
}

static struct service_output daytime_output(const struct service_context *context, uint64_t position, char *buffer,
					    size_t size)
{
	(void)position;
	return (struct service_output){.bytes = buffer, .length = write_line(context, buffer, size), .done = true};
}

static ssize_t daytime_reply(const struct service_context *context, char *bytes, size_t length, size_t size)
{
	(void)length;
	return (ssize_t)write_line(context, bytes, size);
}

/* Advances *AT from the percent sign to the letter. Returns false, with the error, for a conversion that strftime does
 * not have. */
static bool check_conversion(const char **at, char *error)
{
	const char *start = *at, *letter = start + 1 + strspn(start + 1, "_-0^#0123456789");
	const char *letters = "%aAbBcCdDeFgGhHIjklmMnpPrRStTuUVwWxXyYzZ";

	if (letter == start + 1)
		letters = "%aAbBcCdDeFgGhHIjklmMnpPrRsStTuUVwWxXyYzZ";
	if (*letter == 'E' || *letter == 'O')
		letters = *letter++ == 'E' ? "cCxXyY" : "deHImMSuUVwWy";
	if (*letter != '\0' && strchr(letters, *letter) != NULL) {
		*at = letter;
		return true;
	}
	snprintf(error, OPTION_ERROR_SIZE, "strftime has no conversion %.*s", (int)(letter - start + 1), start);
	return false;
}

static bool check_pattern(const char *pattern, char *error)
{
	/* the longest text for each conversion; none is empty */
	static const struct tm longest = {
		.tm_year = 9999 - 1900,
		.tm_mon = 8,
		.tm_mday = 30,
		.tm_hour = 23,
		.tm_min = 59,
		.tm_sec = 59,
		.tm_wday = 3,
		.tm_yday = 272,
		.tm_gmtoff = -12 * 60 * 60,
		.tm_zone = "ABBREVIATION-15",
	};
	char line[TEXT_MAX + 1];

	for (const char *at = pattern; *at != '\0'; at++)
		if (*at == '%' && !check_conversion(&at, error))
			return false;
	if (write_pattern(pattern, INT64_MIN, &longest, line) > 0)
		return true;
	snprintf(error, OPTION_ERROR_SIZE, "can make more than %d bytes", TEXT_MAX);
	return false;
}

static bool parse_pattern(const char *text, struct format *format, char *error)
{
	size_t length = strlen(text) - 2;

	if (length == 0 || length > PATTERN_MAX) {
		snprintf(error, OPTION_ERROR_SIZE, "a strftime string has 1 to %d bytes", PATTERN_MAX);
		return false;
	}
	format->pattern = strndup(text + 1, length);
	if (format->pattern == NULL) {
		snprintf(error, OPTION_ERROR_SIZE, "out of memory");
		return false;
	}
	if (check_pattern(format->pattern, error))
		return true;
	free(format->pattern);
	format->pattern = NULL;
	return false;
}

static bool format_parse(const struct option *option, const char *text, void *field, char *error)
{
	struct format *format = field;
	size_t length = strlen(text);

	(void)option;
	for (size_t i = 0; i < COUNT_OF(styles); i++)
		if (strcmp(text, styles[i].word) == 0) {
			format->style = &styles[i];
			return true;
		}
	if (length >= 2 && strchr(text + 1, '"') == text + length - 1 && text[0] == '"')
		return parse_pattern(text, format, error);
	snprintf(error, OPTION_ERROR_SIZE,
		 "must be ctime, rfc3339, smtp, nist or a strftime string in double quotes, not %s",
		 option_quote(text).text);
	return false;
}

static void format_print(const struct option *option, const void *field, FILE *out)
{
	const struct format *format = field;

	(void)option;
	if (format->style != NULL)
		fputs(format->style->word, out);
	else
		fprintf(out, "\"%s\"", format->pattern);
}

static void format_free(void *field)
{
	struct format *format = field;

	free(format->pattern);
}

static const struct option_type format_type = {
	.parse = format_parse,
	.print = format_print,
	.free = format_free,
};

static bool timezone_parse(const struct option *option, const char *text, void *field, char *error)
{
	struct zone_choice *choice = field;

	if (!option_string.parse(option, text, &choice->name, error))
		return false;
	choice->zone = zone_load(choice->name, error);
	if (choice->zone != NULL)
		return true;
	option_string.free(&choice->name);
	return false;
}

static void timezone_print(const struct option *option, const void *field, FILE *out)
{
	const struct zone_choice *choice = field;

	option_string.print(option, &choice->name, out);
}

static void timezone_free(void *field)
{
	struct zone_choice *choice = field;

	option_string.free(&choice->name);
	zone_free(choice->zone);
}

static const struct option_type timezone_type = {
	.parse = timezone_parse,
	.print = timezone_print,
	.free = timezone_free,
};

static const struct option options[] = {
	{
		.key = "format",
		.type = &format_type,
		.offset = offsetof(struct settings, format),
		.initial = "ctime",
		.help = "how the time is written: ctime, rfc3339, smtp, nist, or a strftime string in double quotes",
	},
	{
		.key = "timezone",
		.type = &timezone_type,
		.offset = offsetof(struct settings, timezone),
		.initial = "local",
		.help = "local, utc, or a zone of the tz database, as Europe/Berlin",
	},
};

const struct service daytime_service = {
	.name = "daytime",
	.port = 13,
	.rfc = 867,
	.transports = TRANSPORT_BOTH,
	.amplifies = true,
	.options = options,
	.option_count = COUNT_OF(options),
	.settings_size = sizeof(struct settings),
	.memo_size = sizeof(struct memo),
	.tcp_output = daytime_output,
	.udp_reply = daytime_reply,
};
