/* tz_rule.c: POSIX TZ strings, and the calendar that they need. */
#include "service/tz.h"

#include <ctype.h>
#include <string.h>

enum {
	OFFSET_HOURS_MAX = 24,
	RULE_HOURS_MAX = 167,
};

static const int64_t first_second = -30610224000; /* 1000-01-01 00:00:00 UTC */
static const int64_t last_second = 253402300799;  /* 9999-12-31 23:59:59 UTC */

/* --- calendar: years are 998 and later, so that divisions need no care for negative numbers --- */

static const int16_t days_before_month[2][13] = {
	{0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334, 365},
	{0, 31, 60, 91, 121, 152, 182, 213, 244, 274, 305, 335, 366},
};

static bool is_leap(int64_t year)
{
	return year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
}

/* Returns the days from 1970-01-01 to January 1 of YEAR. */
static int64_t days_before_year(int64_t year)
{
	int64_t past = year - 1;

	return past * 365 + past / 4 - past / 100 + past / 400 - 719162;
}

static int64_t day_of(int64_t seconds)
{
	return (seconds - (seconds < 0 ? TZ_DAY_S - 1 : 0)) / TZ_DAY_S;
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

void tz_break_down(int64_t seconds, const struct tz_type *type, struct tm *tm)
{
	int64_t local = clamp(seconds + type->offset, first_second, last_second);
	int64_t day = day_of(local), year = year_of(day);
	int second_of_day = (int)(local - day * TZ_DAY_S), day_of_year = (int)(day - days_before_year(year)), month = 0;
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

int64_t tz_clamp(int64_t seconds)
{
	return clamp(seconds, first_second, last_second);
}

/* --- the type in effect --- */

static int64_t weekday_date(const struct tz_date *date, int64_t year)
{
	const int16_t *before = days_before_month[is_leap(year)];
	int64_t first = days_before_year(year) + before[date->month - 1];
	int day = (date->day - weekday_of(first) + 7) % 7 + (date->week - 1) * 7;

	if (day >= before[date->month] - before[date->month - 1]) /* week 5 is the last one, which may be the fourth */
		day -= 7;
	return first + day;
}

static int64_t date_second(const struct tz_date *date, int64_t year)
{
	int64_t day;

	if (date->kind == TZ_WEEKDAY)
		day = weekday_date(date, year);
	else if (date->kind == TZ_DAY_WITH_LEAP)
		day = days_before_year(year) + date->day;
	else /* February 29 has no number */
		day = days_before_year(year) + date->day - 1 + (is_leap(year) && date->day >= 60);
	return day * TZ_DAY_S + date->seconds;
}

/* Returns the type set by the latest change before SECONDS. The change can belong to an adjacent year, as times of day
 * reach up to a week either way. Of two changes at once the later year wins: so `0/0,J365/25` is permanent daylight
 * time. */
const struct tz_type *tz_rule_type(const struct tz_rule *rule, int64_t seconds)
{
	int64_t year = year_of(day_of(seconds)), latest = INT64_MIN;
	const struct tz_type *type = &rule->standard;

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

/* --- parsing: each reader advances *AT beyond its text --- */

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

/* Reads [+-]hh[:mm[:ss]]. */
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

/* Reads letters, or letters, digits and signs in angle brackets. */
static bool read_abbreviation(const char **at, char *abbreviation)
{
	bool quoted = read_character(at, '<');
	const char *start = *at;

	while (isalpha((unsigned char)**at) || (quoted && (isdigit((unsigned char)**at) || **at == '+' || **at == '-')))
		++*at;
	size_t length = (size_t)(*at - start);
	if (length < 3 || length > TZ_ABBREVIATION_MAX || (quoted && !read_character(at, '>')))
		return false;
	memcpy(abbreviation, start, length);
	abbreviation[length] = '\0';
	return true;
}

static bool read_offset(const char **at, struct tz_type *type)
{
	if (!read_time(at, OFFSET_HOURS_MAX, &type->offset))
		return false;
	type->offset = -type->offset; /* POSIX counts westwards */
	return true;
}

/* Reads Jn, n or Mm.w.d, optionally followed by /time. */
static bool read_date(const char **at, struct tz_date *date)
{
	bool good;

	if (read_character(at, 'M')) {
		date->kind = TZ_WEEKDAY;
		good = read_number(at, 1, 12, &date->month) && read_character(at, '.') &&
		       read_number(at, 1, 5, &date->week) && read_character(at, '.') &&
		       read_number(at, 0, 6, &date->day);
	} else if (read_character(at, 'J')) {
		date->kind = TZ_DAY_WITHOUT_LEAP;
		good = read_number(at, 1, 365, &date->day);
	} else {
		date->kind = TZ_DAY_WITH_LEAP;
		good = read_number(at, 0, 365, &date->day);
	}
	date->seconds = 2 * 60 * 60;
	return good && (!read_character(at, '/') || read_time(at, RULE_HOURS_MAX, &date->seconds));
}

static bool read_daylight(const char **at, struct tz_rule *rule)
{
	if (!read_abbreviation(at, rule->daylight.abbreviation))
		return false;
	rule->has_daylight = true;
	rule->daylight.daylight = true;
	rule->daylight.offset = rule->standard.offset + 60 * 60;
	if (**at != ',' && **at != '\0' && !read_offset(at, &rule->daylight))
		return false;
	if (**at == '\0')
		*at = ",M3.2.0,M11.1.0"; /* the default: the rules of the United States */
	return read_character(at, ',') && read_date(at, &rule->start) && read_character(at, ',') &&
	       read_date(at, &rule->end);
}

bool tz_rule_parse(const char *text, struct tz_rule *rule)
{
	if (!read_abbreviation(&text, rule->standard.abbreviation) || !read_offset(&text, &rule->standard))
		return false;
	if (*text != '\0' && !read_daylight(&text, rule))
		return false;
	return *text == '\0';
}
