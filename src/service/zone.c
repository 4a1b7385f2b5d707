/* zone.c: local time by TZif files and POSIX TZ strings (RFC 9636). */
#include "service/zone.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "option/option.h"

#define DATABASE "/usr/share/zoneinfo"

enum {
	FILE_MAX = 256 * 1024, /* the largest of the database has 4 KiB */
	RULE_MAX = 255,
	OFFSET_MIN = -89999, /* seconds east of UTC, as RFC 9636 bounds them */
	OFFSET_MAX = 93599,
	OFFSET_HOURS_MAX = 24,
	RULE_HOURS_MAX = 167,
	DAY = 24 * 60 * 60,
};

static const int64_t first_second = -30610224000; /* 1000-01-01 00:00:00 UTC */
static const int64_t last_second = 253402300799;  /* 9999-12-31 23:59:59 UTC */

/* One of the ways in which a zone counts its time. */
struct local_type {
	int32_t offset; /* seconds east of UTC */
	bool daylight;
	char abbreviation[ZONE_ABBREVIATION_MAX + 1];
};

/* From second AT on, TYPE is in effect. */
struct transition {
	int64_t at;
	const struct local_type *type;
};

/* A second of every year, in local time. */
struct rule_date {
	enum { DAY_WITHOUT_LEAP, DAY_WITH_LEAP, WEEKDAY } kind;
	int month, week; /* WEEKDAY: 1 to 12, 1 to 5 (the last) */
	int day;         /* 1 to 365, 0 to 365, or the weekday, 0 for Sunday */
	int32_t seconds; /* from that day's midnight; may reach into other days */
};

/* A POSIX TZ string. */
struct rule {
	struct local_type standard, daylight;
	bool has_daylight;
	struct rule_date start, end; /* of daylight time */
};

struct zone {
	struct local_type *types; /* the first holds before all transitions */
	struct transition *transitions;
	size_t transition_count;
	struct rule rule; /* holds from the last transition on */
	bool has_rule;
};

static const struct local_type utc_type = {.abbreviation = "UTC"};

/* The calendar. Years are 998 and later, so that divisions need no care for negative numbers. */

static const int16_t days_before_month[2][13] = {
	{0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334, 365},
	{0, 31, 60, 91, 121, 152, 182, 213, 244, 274, 305, 335, 366},
};

static bool is_leap(int64_t year)
{
	return year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
}

/* Days from 1970-01-01 to January 1 of YEAR. */
static int64_t days_before_year(int64_t year)
{
	int64_t past = year - 1;

	return past * 365 + past / 4 - past / 100 + past / 400 - 719162;
}

static int64_t day_of(int64_t seconds)
{
	return (seconds - (seconds < 0 ? DAY - 1 : 0)) / DAY;
}

static int64_t year_of(int64_t day)
{
	int64_t year = 1970 + (day - (day < 0 ? 365 : 0)) / 366;

	while (days_before_year(year + 1) <= day)
		year++;
	while (days_before_year(year) > day)
		year--;
	return year;
}

static int weekday_of(int64_t day)
{
	return (int)(((day + 4) % 7 + 7) % 7); /* 1970-01-01 was a Thursday */
}

static int64_t clamp(int64_t value, int64_t least, int64_t most)
{
	return value < least ? least : value > most ? most : value;
}

static void break_down(int64_t seconds, const struct local_type *type, struct tm *tm)
{
	int64_t local = clamp(seconds + type->offset, first_second, last_second);
	int64_t day = day_of(local), year = year_of(day);
	int second_of_day = (int)(local - day * DAY), day_of_year = (int)(day - days_before_year(year)), month = 0;
	const int16_t *before = days_before_month[is_leap(year)];

	while (before[month + 1] <= day_of_year)
		month++;
	*tm = (struct tm){
		.tm_year = (int)(year - 1900),
		.tm_mon = month,
		.tm_mday = day_of_year - before[month] + 1,
		.tm_hour = second_of_day / 3600,
		.tm_min = second_of_day / 60 % 60,
		.tm_sec = second_of_day % 60,
		.tm_wday = weekday_of(day),
		.tm_yday = day_of_year,
		.tm_isdst = type->daylight,
		.tm_gmtoff = type->offset,
		.tm_zone = type->abbreviation,
	};
}

/* Rules: which type holds when. */

static int64_t weekday_date(const struct rule_date *date, int64_t year)
{
	const int16_t *before = days_before_month[is_leap(year)];
	int64_t first = days_before_year(year) + before[date->month - 1];
	int day = (date->day - weekday_of(first) + 7) % 7 + (date->week - 1) * 7;

	if (day >= before[date->month] - before[date->month - 1]) /* week 5 is the last, which may be the fourth */
		day -= 7;
	return first + day;
}

static int64_t date_second(const struct rule_date *date, int64_t year)
{
	int64_t day;

	if (date->kind == WEEKDAY)
		day = weekday_date(date, year);
	else if (date->kind == DAY_WITH_LEAP)
		day = days_before_year(year) + date->day;
	else /* February 29 has no number */
		day = days_before_year(year) + date->day - 1 + (is_leap(year) && date->day >= 60);
	return day * DAY + date->seconds;
}

/* The change before SECONDS decides. It may be one of another year, as times of day go up to a week either way, and of
 * two at once the later year's: so `0/0,J365/25` is daylight time for ever. */
static const struct local_type *rule_type(const struct rule *rule, int64_t seconds)
{
	int64_t year = year_of(day_of(seconds)), latest = INT64_MIN;
	const struct local_type *type = &rule->standard;

	if (!rule->has_daylight)
		return type;
	for (int64_t near = year - 2; near <= year + 1; near++) {
		int64_t start = date_second(&rule->start, near) - rule->standard.offset;
		int64_t end = date_second(&rule->end, near) - rule->daylight.offset;

		if (start <= seconds && start >= latest) {
			latest = start;
			type = &rule->daylight;
		}
		if (end <= seconds && end >= latest) {
			latest = end;
			type = &rule->standard;
		}
	}
	return type;
}

/* The last transition at or before SECONDS; there is one. */
static const struct transition *find_transition(const struct zone *zone, int64_t seconds)
{
	size_t low = 0, high = zone->transition_count;

	while (high - low > 1) {
		size_t middle = low + (high - low) / 2;

		if (zone->transitions[middle].at <= seconds)
			low = middle;
		else
			high = middle;
	}
	return &zone->transitions[low];
}

static const struct local_type *zone_type(const struct zone *zone, int64_t seconds)
{
	size_t count = zone->transition_count;

	if (zone->has_rule && (count == 0 || seconds >= zone->transitions[count - 1].at))
		return rule_type(&zone->rule, seconds);
	if (count == 0 || seconds < zone->transitions[0].at)
		return &zone->types[0];
	return find_transition(zone, seconds)->type;
}

void zone_localtime(const struct zone *zone, int64_t seconds, struct tm *tm)
{
	seconds = clamp(seconds, first_second, last_second);
	break_down(seconds, zone ? zone_type(zone, seconds) : &utc_type, tm);
}

/* POSIX TZ strings. Each reader moves *AT behind what it read. */

static bool read_character(const char **at, char character)
{
	if (**at != character)
		return false;
	++*at;
	return true;
}

static bool read_number(const char **at, int least, int most, int *number)
{
	const char *start = *at;

	for (*number = 0; isdigit((unsigned char)**at) && *at - start < 3; ++*at)
		*number = *number * 10 + (**at - '0');
	return *at > start && *number >= least && *number <= most;
}

/* [+-]hh[:mm[:ss]] */
static bool read_time(const char **at, int hours_max, int32_t *seconds)
{
	bool negative = read_character(at, '-');
	int total = 0, most = hours_max, number;

	if (!negative)
		read_character(at, '+');
	for (int unit = 3600; unit > 0; unit /= 60) {
		if (!read_number(at, 0, most, &number))
			return false;
		total += number * unit;
		most = 59;
		if (unit == 1 || !read_character(at, ':'))
			break;
	}
	*seconds = negative ? -total : total;
	return true;
}

/* Letters, or letters, digits and signs in angle brackets. */
static bool read_abbreviation(const char **at, char *abbreviation)
{
	bool quoted = read_character(at, '<');
	const char *start = *at;

	while (isalpha((unsigned char)**at) || (quoted && (isdigit((unsigned char)**at) || **at == '+' || **at == '-')))
		++*at;
	size_t length = (size_t)(*at - start);
	if (length < 3 || length > ZONE_ABBREVIATION_MAX || (quoted && !read_character(at, '>')))
		return false;
	memcpy(abbreviation, start, length);
	abbreviation[length] = '\0';
	return true;
}

static bool read_offset(const char **at, struct local_type *type)
{
	if (!read_time(at, OFFSET_HOURS_MAX, &type->offset))
		return false;
	type->offset = -type->offset; /* POSIX counts westwards */
	return true;
}

/* Jn, n or Mm.w.d, with /time behind it. */
static bool read_date(const char **at, struct rule_date *date)
{
	bool good;

	if (read_character(at, 'M')) {
		date->kind = WEEKDAY;
		good = read_number(at, 1, 12, &date->month) && read_character(at, '.') &&
		       read_number(at, 1, 5, &date->week) && read_character(at, '.') &&
		       read_number(at, 0, 6, &date->day);
	} else if (read_character(at, 'J')) {
		date->kind = DAY_WITHOUT_LEAP;
		good = read_number(at, 1, 365, &date->day);
	} else {
		date->kind = DAY_WITH_LEAP;
		good = read_number(at, 0, 365, &date->day);
	}
	date->seconds = 2 * 60 * 60;
	return good && (!read_character(at, '/') || read_time(at, RULE_HOURS_MAX, &date->seconds));
}

static bool read_daylight(const char **at, struct rule *rule)
{
	if (!read_abbreviation(at, rule->daylight.abbreviation))
		return false;
	rule->has_daylight = true;
	rule->daylight.daylight = true;
	rule->daylight.offset = rule->standard.offset + 60 * 60;
	if (**at != ',' && **at != '\0' && !read_offset(at, &rule->daylight))
		return false;
	if (**at == '\0')
		*at = ",M3.2.0,M11.1.0"; /* what is meant when nothing is said: the United States */
	return read_character(at, ',') && read_date(at, &rule->start) && read_character(at, ',') &&
	       read_date(at, &rule->end);
}

static bool read_rule(const char *text, struct rule *rule)
{
	if (!read_abbreviation(&text, rule->standard.abbreviation) || !read_offset(&text, &rule->standard))
		return false;
	if (*text != '\0' && !read_daylight(&text, rule))
		return false;
	return *text == '\0';
}

struct zone *zone_parse_rule(const char *text, char *error)
{
	struct zone *zone = calloc(1, sizeof(*zone));

	if (zone && read_rule(text, &zone->rule)) {
		zone->has_rule = true;
		return zone;
	}
	snprintf(error, OPTION_ERROR_SIZE, zone ? "not a POSIX TZ string" : "out of memory");
	zone_free(zone);
	return NULL;
}

/* TZif files. */

enum { HEADER_SIZE = 44, TYPE_SIZE = 6 };

struct header {
	unsigned char version;
	uint32_t ut_count, standard_count, leap_count, transition_count, type_count, abbreviations_size;
};

/* What is left of the file. */
struct reader {
	const unsigned char *at;
	size_t left;
};

/* SIZE bytes, big-endian, two's complement. */
static int64_t decode(const unsigned char *bytes, size_t size)
{
	uint64_t value = bytes[0] & 0x80 ? UINT64_MAX : 0;

	for (size_t i = 0; i < size; i++)
		value = value << 8 | bytes[i];
	return (int64_t)value;
}

/* The next SIZE bytes, or NULL. */
static const unsigned char *take(struct reader *reader, uint64_t size)
{
	const unsigned char *taken = reader->at;

	if (size > reader->left)
		return NULL;
	reader->at += size;
	reader->left -= size;
	return taken;
}

static bool take_header(struct reader *reader, struct header *header)
{
	const unsigned char *bytes = take(reader, HEADER_SIZE);

	if (!bytes || memcmp(bytes, "TZif", 4) != 0)
		return false;
	*header = (struct header){
		.version = bytes[4],
		.ut_count = (uint32_t)decode(bytes + 20, 4),
		.standard_count = (uint32_t)decode(bytes + 24, 4),
		.leap_count = (uint32_t)decode(bytes + 28, 4),
		.transition_count = (uint32_t)decode(bytes + 32, 4),
		.type_count = (uint32_t)decode(bytes + 36, 4),
		.abbreviations_size = (uint32_t)decode(bytes + 40, 4),
	};
	return true;
}

static uint64_t block_size(const struct header *header, uint64_t time_size)
{
	return header->transition_count * (time_size + 1) + header->type_count * (uint64_t)TYPE_SIZE +
	       header->abbreviations_size + header->leap_count * (time_size + 4) + header->standard_count +
	       header->ut_count;
}

static bool parse_abbreviation(const unsigned char *bytes, size_t size, char *abbreviation)
{
	for (size_t i = 0; i < size && i <= ZONE_ABBREVIATION_MAX; i++) {
		abbreviation[i] = (char)bytes[i];
		if (bytes[i] == '\0')
			return i > 0;
		if (!isgraph(bytes[i]))
			return false;
	}
	return false;
}

static bool parse_types(struct zone *zone, const struct header *header, const unsigned char *bytes)
{
	const unsigned char *abbreviations = bytes + header->type_count * (size_t)TYPE_SIZE;

	for (size_t i = 0; i < header->type_count; i++, bytes += TYPE_SIZE) {
		struct local_type *type = &zone->types[i];
		int64_t offset = decode(bytes, 4);
		unsigned is_daylight = bytes[4], index = bytes[5];

		if (offset < OFFSET_MIN || offset > OFFSET_MAX || is_daylight > 1 ||
		    index >= header->abbreviations_size)
			return false;
		if (!parse_abbreviation(abbreviations + index, header->abbreviations_size - index, type->abbreviation))
			return false;
		type->offset = (int32_t)offset;
		type->daylight = is_daylight;
	}
	return true;
}

static bool parse_transitions(struct zone *zone, const struct header *header, const unsigned char *bytes,
			      size_t time_size)
{
	const unsigned char *indices = bytes + header->transition_count * time_size;

	for (size_t i = 0; i < header->transition_count; i++) {
		struct transition *transition = &zone->transitions[i];

		transition->at = decode(bytes + i * time_size, time_size);
		if (indices[i] >= header->type_count || (i > 0 && transition->at <= transition[-1].at))
			return false;
		transition->type = &zone->types[indices[i]];
	}
	zone->transition_count = header->transition_count;
	return true;
}

/* NULL, or what is wrong. */
static const char *parse_block(struct zone *zone, const struct header *header, struct reader *reader, size_t time_size)
{
	const unsigned char *bytes = take(reader, block_size(header, time_size));

	if (!bytes)
		return "the TZif file is cut";
	if (header->leap_count > 0)
		return "it counts leap seconds, which the system's clock does not: take the zone outside right/";
	if (header->type_count == 0)
		return "the TZif file has no local time";
	zone->types = calloc(header->type_count, sizeof(*zone->types));
	zone->transitions = calloc(header->transition_count + (size_t)1, sizeof(*zone->transitions));
	if (!zone->types || !zone->transitions)
		return "out of memory";
	if (!parse_types(zone, header, bytes + header->transition_count * (time_size + 1)))
		return "the TZif file has a wrong local time";
	if (!parse_transitions(zone, header, bytes, time_size))
		return "the TZif file has a wrong transition";
	return NULL;
}

/* A POSIX TZ string between line ends; empty: nothing is known of the time after the last transition. */
static const char *parse_footer(struct zone *zone, struct reader *reader)
{
	const unsigned char *start = take(reader, 1);
	const unsigned char *end = start && *start == '\n' ? memchr(reader->at, '\n', reader->left) : NULL;
	char text[RULE_MAX + 1];

	if (!end || end - reader->at > RULE_MAX)
		return "the TZif file's footer is cut";
	size_t length = (size_t)(end - reader->at);
	memcpy(text, reader->at, length);
	text[length] = '\0';
	if (length == 0)
		return NULL;
	if (strlen(text) != length || !read_rule(text, &zone->rule))
		return "the TZif file has a wrong footer";
	zone->has_rule = true;
	return NULL;
}

static const char *parse_blocks(struct zone *zone, struct reader *reader)
{
	struct header header;
	const char *wrong;

	if (!take_header(reader, &header))
		return "not a TZif file";
	if (header.version < '2')
		return parse_block(zone, &header, reader, 4);
	if (!take(reader, block_size(&header, 4)) || !take_header(reader, &header))
		return "the TZif file is cut";
	wrong = parse_block(zone, &header, reader, 8);
	return wrong ? wrong : parse_footer(zone, reader);
}

static struct zone *parse_file(const void *bytes, size_t length, const char **wrong)
{
	struct reader reader = {.at = bytes, .left = length};
	struct zone *zone = calloc(1, sizeof(*zone));

	*wrong = zone ? parse_blocks(zone, &reader) : "out of memory";
	if (!*wrong)
		return zone;
	zone_free(zone);
	return NULL;
}

struct zone *zone_parse(const void *bytes, size_t length, char *error)
{
	const char *wrong;
	struct zone *zone = parse_file(bytes, length, &wrong);

	if (!zone)
		snprintf(error, OPTION_ERROR_SIZE, "%s", wrong);
	return zone;
}

void zone_free(struct zone *zone)
{
	if (!zone)
		return;
	free(zone->transitions);
	free(zone->types);
	free(zone);
}

/* Files and names. */

/* Reads up to SIZE bytes of the file at PATH. Returns their count; -1 with errno. */
static ssize_t read_file(const char *path, unsigned char *bytes, size_t size)
{
	size_t length = 0;
	ssize_t count = 1;
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a FIFO must not hold up the daemon */

	if (fd < 0)
		return -1;
	while (count > 0 && length < size) {
		count = read(fd, bytes + length, size - length);
		length += count > 0 ? (size_t)count : 0;
	}
	int reason = errno;
	close(fd);
	errno = reason;
	return count < 0 ? -1 : (ssize_t)length;
}

static struct zone *load_file(const char *path, char *error)
{
	unsigned char *bytes = malloc(FILE_MAX);
	ssize_t length = bytes ? read_file(path, bytes, FILE_MAX) : -1;
	const char *wrong = NULL;
	struct zone *zone = NULL;

	if (length >= 0)
		zone = parse_file(bytes, (size_t)length, &wrong);
	if (!zone)
		snprintf(error, OPTION_ERROR_SIZE, "%s: %s", path, wrong ? wrong : strerror(errno));
	free(bytes);
	return zone;
}

/* Only what lies in the database: neither an absolute path nor a way out of it. */
static struct zone *load_name(const char *name, char *error)
{
	char path[PATH_MAX];
	int length = snprintf(path, sizeof(path), DATABASE "/%s", name);

	if (name[0] == '/' || strstr(name, "..") || length >= (int)sizeof(path)) {
		snprintf(error, OPTION_ERROR_SIZE, "must be a zone of the tz database, as Europe/Berlin, not %s",
			 option_quote(name).text);
		return NULL;
	}
	if (access(path, F_OK) != 0) {
		snprintf(error, OPTION_ERROR_SIZE, "no zone %s in " DATABASE, option_quote(name).text);
		return NULL;
	}
	return load_file(path, error);
}

/* What the variable TZ means to the C library: a zone, a file, or a POSIX TZ string; a colon before it says nothing. */
static struct zone *load_variable(const char *value, char *error)
{
	struct zone *zone;

	if (*value == ':')
		value++;
	if (*value == '\0' || strcmp(value, "UTC") == 0)
		return zone_parse_rule("UTC0", error);
	zone = *value == '/' ? load_file(value, error) : load_name(value, error);
	return zone ? zone : zone_parse_rule(value, error);
}

static struct zone *load_local(char *error)
{
	const char *variable = getenv("TZ");
	struct zone *zone = variable ? load_variable(variable, error) : NULL;

	if (zone)
		return zone;
	if (access("/etc/localtime", F_OK) != 0)
		return zone_parse_rule("UTC0", error);
	return load_file("/etc/localtime", error);
}

struct zone *zone_load(const char *name, char *error)
{
	if (strcmp(name, "utc") == 0)
		return zone_parse_rule("UTC0", error);
	if (strcmp(name, "local") == 0)
		return load_local(error);
	return load_name(name, error);
}
