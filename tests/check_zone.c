/* check_zone.c: local time against RFC 9636 and the C library, and hostile files. */
#define _GNU_SOURCE 1 /* FTW_ACTIONRETVAL */
#include "check_run.h"

#include <ftw.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "option/option.h"
#include "service/tz.h"
#include "service/zone.h"

#define DATABASE "/usr/share/zoneinfo"

enum { STEP = 13 * 24 * 60 * 60 + 18457 }; /* about two weeks, at a different hour each time */

static const int64_t year_1900 = -2208988800, year_1971 = 31536000, year_2101 = 4133980800;

static char error[OPTION_ERROR_SIZE];

static void assert_time(const struct zone *zone, int64_t seconds, const char *expected)
{
	struct tm tm;
	char text[64];

	zone_localtime(zone, seconds, &tm);
	strftime(text, sizeof(text), "%F %T %z %Z %a %j", &tm);
	ck_assert_str_eq(text, expected);
}

static struct zone *rule(const char *text)
{
	struct zone *zone = zone_parse_rule(text, error);

	ck_assert_msg(zone != NULL, "%s: %s", text, error);
	return zone;
}

/* --- against the C library, which reads the zone from TZ --- */

static void set_library_zone(const char *name)
{
	setenv("TZ", name, 1);
	tzset();
}

static void assert_like_library(const char *name, const struct zone *zone, int64_t seconds)
{
	time_t when = seconds;
	struct tm ours, theirs;

	zone_localtime(zone, seconds, &ours);
	localtime_r(&when, &theirs);
	bool same = ours.tm_year == theirs.tm_year && ours.tm_mon == theirs.tm_mon && ours.tm_mday == theirs.tm_mday &&
		    ours.tm_hour == theirs.tm_hour && ours.tm_min == theirs.tm_min && ours.tm_sec == theirs.tm_sec &&
		    ours.tm_wday == theirs.tm_wday && ours.tm_yday == theirs.tm_yday &&
		    ours.tm_isdst == theirs.tm_isdst && ours.tm_gmtoff == theirs.tm_gmtoff &&
		    strcmp(ours.tm_zone, theirs.tm_zone) == 0;
	if (!same) /* ck_assert would log each success */
		ck_abort_msg("%s at %lld: %04d-%02d-%02d %02d:%02d:%02d %s, the library has %04d-%02d-%02d "
			     "%02d:%02d:%02d %s",
			     name, (long long)seconds, ours.tm_year + 1900, ours.tm_mon + 1, ours.tm_mday, ours.tm_hour,
			     ours.tm_min, ours.tm_sec, ours.tm_zone, theirs.tm_year + 1900, theirs.tm_mon + 1,
			     theirs.tm_mday, theirs.tm_hour, theirs.tm_min, theirs.tm_sec, theirs.tm_zone);
}

static bool library_has(const struct tm *type, int64_t seconds)
{
	time_t when = seconds;
	struct tm tm;

	localtime_r(&when, &tm);
	return tm.tm_gmtoff == type->tm_gmtoff && tm.tm_isdst == type->tm_isdst &&
	       strcmp(tm.tm_zone, type->tm_zone) == 0;
}

/* Returns the first second in (LOW, HIGH] at which the library leaves TYPE. */
static int64_t find_change(const struct tm *type, int64_t low, int64_t high)
{
	while (high - low > 1) {
		int64_t middle = low + (high - low) / 2;

		if (library_has(type, middle))
			low = middle;
		else
			high = middle;
	}
	return high;
}

/* Compares every two weeks, and around each change in between. */
static void compare_with_library(const char *name, const struct zone *zone, int64_t first)
{
	set_library_zone(name);
	for (int64_t seconds = first; seconds < year_2101; seconds += STEP) {
		struct tm tm;

		assert_like_library(name, zone, seconds);
		zone_localtime(zone, seconds, &tm);
		if (library_has(&tm, seconds + STEP))
			continue;
		int64_t change = find_change(&tm, seconds, seconds + STEP);
		for (int64_t near = change - 2; near <= change + 1; near++)
			assert_like_library(name, zone, near);
	}
}

static bool have_database(void)
{
	if (access(DATABASE "/Europe/Berlin", R_OK) == 0)
		return true;
	fprintf(stderr, "# skipped: no tz database in " DATABASE "\n");
	return false;
}

static int zones_compared;

static int compare_file(const char *path, const struct stat *status, int kind, struct FTW *where)
{
	const char *name = path + strlen(DATABASE) + 1;
	struct zone *zone;

	(void)status;
	if (kind == FTW_D && where->level == 1 && (strcmp(name, "posix") == 0 || strcmp(name, "right") == 0))
		return FTW_SKIP_SUBTREE;
	if (kind != FTW_F)
		return FTW_CONTINUE;
	zone = zone_load(name, error);
	if (!zone && strstr(error, "not a TZif file")) /* a file of the database that is no zone */
		return FTW_CONTINUE;
	ck_assert_msg(zone != NULL, "%s: %s", name, error);
	compare_with_library(name, zone, year_1900);
	zone_free(zone);
	zones_compared++;
	return FTW_CONTINUE;
}

START_TEST(every_zone_matches_the_c_library)
{
	if (!have_database())
		return;
	ck_assert_int_eq(nftw(DATABASE, compare_file, 16, FTW_ACTIONRETVAL | FTW_PHYS), 0);
	ck_assert_int_gt(zones_compared, 100);
}
END_TEST

static const char *const rules[] = {
	"UTC0",
	"<+03>-3",
	"<-0330>3:30",
	"<UTC+1>-1:00:01",
	"EST5EDT,M3.2.0,M11.1.0",
	"CET-1CEST,M3.5.0,M10.5.0/3",
	"CET-1CEST-2,M3.5.0/02:00:00,M10.5.0/03:00:00",
	"AEST-10AEDT,M10.1.0,M4.1.0/3",
	"NZST-12NZDT,M9.5.0,M4.1.0/3",
	"<+1245>-12:45<+1345>,M9.5.0/2:45,M4.1.0/3:45",
	"<+1030>-10:30<+11>-11,M10.1.0,M4.1.0",
	"IST-1GMT0,M10.5.0,M3.5.0/1",
	"<-02>2<-01>,M3.5.0/-1,M10.5.0/0",
	"EET-2EEST,M4.5.5/0,M10.5.4/24",
	"IST-2IDT,M3.4.4/26,M10.5.0",
	"<-04>4<-03>,M9.1.6/24,M4.1.6/24",
	"ONE-1TWO,J60/2,J300/3",
	"ONE-1TWO,59/2,299/3",
	"ONE-1TWO,M2.4.0,M2.5.3/145",
	"ONE-1TWO,M2.5.0/-145,M8.5.6/+145",
};

START_TEST(posix_strings_match_the_c_library)
{
	struct zone *zone = rule(rules[_i]);

	compare_with_library(rules[_i], zone, year_1971); /* before 1971 the library takes every year for 1970 */
	zone_free(zone);
}
END_TEST

/* --- POSIX TZ strings that the library reads differently, or with known results --- */

START_TEST(missing_rule_defaults_to_the_united_states)
{
	struct zone *zone = rule("EST5EDT4:30");

	assert_time(zone, 1772953200 - 1, "2026-03-08 01:59:59 -0500 EST Sun 067");
	assert_time(zone, 1772953200, "2026-03-08 02:30:00 -0430 EDT Sun 067");
	assert_time(zone, 1793514600 - 1, "2026-11-01 01:59:59 -0430 EDT Sun 305");
	assert_time(zone, 1793514600, "2026-11-01 01:30:00 -0500 EST Sun 305");
	zone_free(zone);
}
END_TEST

START_TEST(daylight_time_can_last_all_year)
{
	struct zone *zone = rule("EST5EDT,0/0,J365/25");

	assert_time(zone, 1767225600 - 1, "2025-12-31 19:59:59 -0400 EDT Wed 365");
	assert_time(zone, 1767225600 + 4 * 3600 - 1, "2025-12-31 23:59:59 -0400 EDT Wed 365");
	assert_time(zone, 1767225600 + 4 * 3600, "2026-01-01 00:00:00 -0400 EDT Thu 001");
	assert_time(zone, 1767225600 + 5 * 3600, "2026-01-01 01:00:00 -0400 EDT Thu 001");
	assert_time(zone, 1782000000, "2026-06-20 20:00:00 -0400 EDT Sat 171");
	zone_free(zone);
}
END_TEST

START_TEST(changes_can_fall_into_an_adjacent_year)
{
	struct zone *zone = rule("ONE0TWO,J365/167,J32/0"); /* from January 6 at 23:00, to February 1 at 0:00 TWO */

	assert_time(zone, 1767740400 - 1, "2026-01-06 22:59:59 +0000 ONE Tue 006");
	assert_time(zone, 1767740400, "2026-01-07 00:00:00 +0100 TWO Wed 007");
	assert_time(zone, 1769900400 - 1, "2026-01-31 23:59:59 +0100 TWO Sat 031");
	assert_time(zone, 1769900400, "2026-01-31 23:00:00 +0000 ONE Sat 031");
	zone_free(zone);

	zone = rule("ONE0TWO,0/-24,J60/0"); /* from December 31 */
	assert_time(zone, 1798675200 - 1, "2026-12-30 23:59:59 +0000 ONE Wed 364");
	assert_time(zone, 1798675200, "2026-12-31 01:00:00 +0100 TWO Thu 365");
	zone_free(zone);
}
END_TEST

START_TEST(empty_daylight_time_never_applies)
{
	struct zone *zone = rule("ONE0TWO,J60/2,J60/3");

	for (int64_t day = 0; day < 366; day++)
		for (int64_t hour = 0; hour < 24; hour++) {
			struct tm tm;

			zone_localtime(zone, 1767225600 + (day * 24 + hour) * 3600, &tm);
			ck_assert_str_eq(tm.tm_zone, "ONE");
		}
	zone_free(zone);
}
END_TEST

START_TEST(invalid_posix_strings_are_refused)
{
	static const char *const wrong[] = {
		"",
		"UTC",
		"UT0",
		"0",
		"<+03-3",
		"<>-3",
		"<+0>0",
		"<+0_3>-3",
		"U+1-1",
		"ABBREVIATIONTOOLONG0",
		"UTC25",
		"UTC0:60",
		"UTC0:0:60",
		"UTC0:",
		"UTC0:0:0:",
		"UTC--1",
		"UTC0 ",
		"ONE0TW",
		"ONE0TWO,",
		"ONE0TWO,M3.2.0",
		"ONE0TWO,M3.2.0,",
		"ONE0TWO,M3.2.0,M11.1.0,",
		"ONE0TWO,M0.2.0,M11.1.0",
		"ONE0TWO,M13.2.0,M11.1.0",
		"ONE0TWO,M3.0.0,M11.1.0",
		"ONE0TWO,M3.6.0,M11.1.0",
		"ONE0TWO,M3.2.7,M11.1.0",
		"ONE0TWO,M3.2,M11.1.0",
		"ONE0TWO,J0,J60",
		"ONE0TWO,J366,J60",
		"ONE0TWO,366,60",
		"ONE0TWO,-1,60",
		"ONE0TWO,0/168,60",
		"ONE0TWO,0/-168,60",
		"ONE0TWO,0/,60",
		"ONE0TWO,9999999999,60",
	};

	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		error[0] = '\0';
		ck_assert_msg(zone_parse_rule(wrong[i], error) == NULL, "%s", wrong[i]);
		ck_assert_str_ne(error, "");
	}
}
END_TEST

START_TEST(null_zone_is_utc)
{
	assert_time(NULL, 0, "1970-01-01 00:00:00 +0000 UTC Thu 001");
	assert_time(NULL, -1, "1969-12-31 23:59:59 +0000 UTC Wed 365");
	assert_time(NULL, 951782400, "2000-02-29 00:00:00 +0000 UTC Tue 060");
	assert_time(NULL, 2147483648, "2038-01-19 03:14:08 +0000 UTC Tue 019");
	assert_time(NULL, 4107542400, "2100-03-01 00:00:00 +0000 UTC Mon 060");
}
END_TEST

START_TEST(years_are_clamped_to_four_digits)
{
	struct zone *east = rule("<+15>-15"), *west = rule("<-15>15");

	assert_time(NULL, INT64_MIN, "1000-01-01 00:00:00 +0000 UTC Wed 001");
	assert_time(NULL, INT64_MAX, "9999-12-31 23:59:59 +0000 UTC Fri 365");
	assert_time(west, INT64_MIN, "1000-01-01 00:00:00 -1500 -15 Wed 001");
	assert_time(east, INT64_MAX, "9999-12-31 23:59:59 +1500 +15 Fri 365");
	zone_free(east);
	zone_free(west);
}
END_TEST

/* --- generated TZif files --- */

struct file {
	unsigned char bytes[1024];
	size_t length;
};

static void put(struct file *file, const void *bytes, size_t length)
{
	ck_assert_uint_le(file->length + length, sizeof(file->bytes));
	memcpy(file->bytes + file->length, bytes, length);
	file->length += length;
}

static void put_number(struct file *file, int64_t number, size_t size)
{
	while (size-- > 0) {
		unsigned char byte = (unsigned char)((uint64_t)number >> (8 * size));

		put(file, &byte, 1);
	}
}

static void put_header(struct file *file, char version, unsigned leaps, unsigned transitions, unsigned types,
		       unsigned characters)
{
	static const char reserved[15];

	put(file, "TZif", 4);
	put(file, &version, 1);
	put(file, reserved, sizeof(reserved));
	put_number(file, 0, 4);
	put_number(file, 0, 4);
	put_number(file, leaps, 4);
	put_number(file, transitions, 4);
	put_number(file, types, 4);
	put_number(file, characters, 4);
}

static void put_type(struct file *file, int32_t offset, unsigned char is_daylight, unsigned char abbreviation)
{
	put_number(file, offset, 4);
	put(file, &is_daylight, 1);
	put(file, &abbreviation, 1);
}

/* Appends a block with three types and three changes: to 1 at second 1000, to 2 at 2000, back to 1 at 3000. */
static void put_block(struct file *file, size_t time_size)
{
	put_number(file, 1000, time_size);
	put_number(file, 2000, time_size);
	put_number(file, 3000, time_size);
	put(file, "\1\2\1", 3);
	put_type(file, -75, 0, 0);
	put_type(file, 3600, 0, 4);
	put_type(file, 7200, 1, 8);
	put(file, "LMT\0ONE\0TWO", 12);
}

static struct file make_file(char version, const char *footer)
{
	struct file file = {.length = 0};

	if (version >= '2') {
		put_header(&file, version, 0, 0, 1, 4); /* a first block, skipped by readers of version 2 */
		put_type(&file, 0, 0, 0);
		put(&file, "OLD", 4);
	}
	put_header(&file, version, 0, 3, 3, 12);
	put_block(&file, version >= '2' ? 8 : 4);
	if (version >= '2')
		put(&file, footer, strlen(footer));
	return file;
}

static struct zone *parse(const struct file *file)
{
	const char *reason;
	struct zone *zone = tz_file_parse(file->bytes, file->length, &reason);

	ck_assert_msg(zone != NULL, "%s", reason);
	return zone;
}

static void assert_transitions(const struct zone *zone)
{
	assert_time(zone, INT32_MIN, "1901-12-13 20:44:37 -0001 LMT Fri 347");
	assert_time(zone, 999, "1970-01-01 00:15:24 -0001 LMT Thu 001");
	assert_time(zone, 1000, "1970-01-01 01:16:40 +0100 ONE Thu 001");
	assert_time(zone, 1999, "1970-01-01 01:33:19 +0100 ONE Thu 001");
	assert_time(zone, 2000, "1970-01-01 02:33:20 +0200 TWO Thu 001");
	assert_time(zone, 2999, "1970-01-01 02:49:59 +0200 TWO Thu 001");
	assert_time(zone, 3000, "1970-01-01 01:50:00 +0100 ONE Thu 001");
}

START_TEST(every_tzif_version_is_read)
{
	static const char versions[] = {'\0', '2', '3', '4', '5'};
	struct file file = make_file(versions[_i], "\n\n");
	struct zone *zone = parse(&file);

	assert_transitions(zone);
	assert_time(zone, 4107542400, "2100-03-01 01:00:00 +0100 ONE Mon 060");
	zone_free(zone);
}
END_TEST

START_TEST(footer_applies_after_the_last_transition)
{
	struct file file = make_file('3', "\nONE-1TWO,M3.5.0,M10.5.0/3\n");
	struct zone *zone = parse(&file);

	assert_transitions(zone);
	assert_time(zone, 1774745999, "2026-03-29 01:59:59 +0100 ONE Sun 088");
	assert_time(zone, 1774746000, "2026-03-29 03:00:00 +0200 TWO Sun 088");
	assert_time(zone, 1792889999, "2026-10-25 02:59:59 +0200 TWO Sun 298");
	assert_time(zone, 1792890000, "2026-10-25 02:00:00 +0100 ONE Sun 298");
	zone_free(zone);
}
END_TEST

START_TEST(zone_without_transitions_is_read)
{
	struct file file = {.length = 0};

	for (int block = 0; block < 2; block++) {
		put_header(&file, '2', 0, 0, 1, 4);
		put_type(&file, 3600, 0, 0);
		put(&file, "ONE", 4);
	}
	put(&file, "\nONE-1\n", 7);
	struct zone *zone = parse(&file);
	assert_time(zone, 0, "1970-01-01 01:00:00 +0100 ONE Thu 001");
	zone_free(zone);
}
END_TEST

static void assert_refused(const struct file *file, const char *expected)
{
	const char *reason;
	struct zone *zone = tz_file_parse(file->bytes, file->length, &reason);

	ck_assert_ptr_null(zone);
	ck_assert_msg(strstr(reason, expected) != NULL, "%s", reason);
}

START_TEST(file_with_leap_seconds_is_refused)
{
	struct file file = {.length = 0};

	put_header(&file, '\0', 1, 0, 1, 4);
	put_type(&file, 0, 0, 0);
	put(&file, "UTC", 4);
	put_number(&file, 78796800, 4);
	put_number(&file, 1, 4);
	assert_refused(&file, "leap seconds");
}
END_TEST

/* Offsets of the parts of a file of version 1. */
enum { TIMES = 44, INDICES = TIMES + 12, TYPES = INDICES + 3, ABBREVIATIONS = TYPES + 18, END = ABBREVIATIONS + 12 };

static const struct {
	size_t at;
	unsigned char byte;
	const char *reason;
} wrong_bytes[] = {
	{0, 't', "not a TZif file"},                 /* magic */
	{36, 1, "truncated"},                        /* 16 million more types */
	{TIMES + 6, 0, "invalid transition"},        /* second transition before the first */
	{TIMES + 8, 0x80, "invalid transition"},     /* third transition long before 1970 */
	{INDICES, 3, "invalid transition"},          /* to a fourth type */
	{INDICES + 2, 255, "invalid transition"},    /* to a type far outside */
	{TYPES, 0x80, "invalid local time"},         /* an offset of decades */
	{TYPES + 4, 2, "invalid local time"},        /* daylight time is 0 or 1 */
	{TYPES + 5, 12, "invalid local time"},       /* an abbreviation outside */
	{TYPES + 5, 3, "invalid local time"},        /* an empty one */
	{ABBREVIATIONS, '\n', "invalid local time"}, /* one with a line feed */
	{ABBREVIATIONS, 0xff, "invalid local time"},
	{END - 1, 'S', "invalid local time"}, /* one without terminator */
};

START_TEST(invalid_bytes_are_refused)
{
	struct file file = make_file('\0', "");

	ck_assert_uint_eq(file.length, END);
	file.bytes[wrong_bytes[_i].at] = wrong_bytes[_i].byte;
	assert_refused(&file, wrong_bytes[_i].reason);
}
END_TEST

START_TEST(invalid_footers_are_refused)
{
	static const char *const footers[] = {
		"", "\n", "\nONE-1", "ONE-1\n", "\nONE\n", "\nONE-1 \n", "\nONE-1TWO,M3.5.0\n",
	};
	struct file file = make_file('2', "\nONE-12\n");

	for (size_t i = 0; i < sizeof(footers) / sizeof(footers[0]); i++) {
		struct file wrong = make_file('2', footers[i]);

		assert_refused(&wrong, "footer");
	}
	file.bytes[file.length - 2] = '\0'; /* the part before the NUL is valid */
	assert_refused(&file, "footer");
}
END_TEST

START_TEST(overlong_abbreviations_are_refused)
{
	struct file file = {.length = 0};

	put_header(&file, '\0', 0, 0, 1, 17);
	put_type(&file, 0, 0, 0);
	put(&file, "SIXTEEN-LETTERS-", 17);
	assert_refused(&file, "invalid local time");
}
END_TEST

START_TEST(file_without_types_is_refused)
{
	struct file file = {.length = 0};

	put_header(&file, '\0', 0, 0, 0, 0);
	assert_refused(&file, "no local time");
}
END_TEST

/* Parses a block of the exact size, so that a sanitizer detects an overread. */
static struct zone *parse_exactly(const unsigned char *bytes, size_t length)
{
	unsigned char *copy = malloc(length + (length == 0));
	const char *reason;
	struct zone *zone;

	memcpy(copy, bytes, length);
	zone = tz_file_parse(copy, length, &reason);
	free(copy);
	return zone;
}

START_TEST(file_truncated_anywhere_is_refused)
{
	struct file file = make_file('3', "\nONE-1TWO,M3.5.0,M10.5.0/3\n");

	for (size_t length = 0; length < file.length; length++)
		ck_assert_msg(parse_exactly(file.bytes, length) == NULL, "%zu bytes", length);
}
END_TEST

static void assert_sane(const struct zone *zone)
{
	static const int64_t instants[] = {INT64_MIN, -2208988800, 0, 1500, 1774746000, 4107542400, INT64_MAX};

	for (size_t i = 0; i < sizeof(instants) / sizeof(instants[0]); i++) {
		struct tm tm;

		zone_localtime(zone, instants[i], &tm);
		bool sane = tm.tm_year >= 1000 - 1900 && tm.tm_year <= 9999 - 1900 && tm.tm_mon >= 0 &&
			    tm.tm_mon < 12 && tm.tm_mday >= 1 && tm.tm_mday <= 31 && tm.tm_hour >= 0 &&
			    tm.tm_hour < 24 && tm.tm_min >= 0 && tm.tm_min < 60 && tm.tm_sec >= 0 && tm.tm_sec < 60 &&
			    tm.tm_yday >= 0 && tm.tm_yday < 366 && tm.tm_zone[0] != '\0' &&
			    strlen(tm.tm_zone) <= TZ_ABBREVIATION_MAX;
		if (!sane)
			ck_abort_msg("at %lld", (long long)instants[i]);
	}
}

START_TEST(corrupted_files_are_read_safely)
{
	const struct file whole = make_file(_i ? '3' : '\0', "\nONE-1TWO,M3.5.0,M10.5.0/3\n");
	uint64_t state = 88172645463325252; /* xorshift with a fixed seed */

	for (int round = 0; round < 50000; round++) {
		struct file file = whole;
		int damages = 1 + round % 3;

		while (damages-- > 0) {
			state ^= state << 13;
			state ^= state >> 7;
			state ^= state << 17;
			file.bytes[(state >> 16) % file.length] = (unsigned char)state;
		}
		struct zone *zone = parse_exactly(file.bytes, file.length);
		if (zone)
			assert_sane(zone);
		zone_free(zone);
	}
}
END_TEST

/* --- names --- */

START_TEST(names_outside_the_database_are_refused)
{
	static const char *const names[] = {
		"/etc/localtime", "../zoneinfo/UTC", "Europe/../UTC", "Nowhere/City", "Europe", "tzdata.zi", "",
		"Local",
	};
	char long_name[8192];

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		error[0] = '\0';
		ck_assert_msg(zone_load(names[i], error) == NULL, "%s", names[i]);
		ck_assert_str_ne(error, "");
	}
	memset(long_name, 'x', sizeof(long_name) - 1);
	long_name[sizeof(long_name) - 1] = '\0';
	ck_assert_ptr_null(zone_load(long_name, error));
}
END_TEST

START_TEST(zones_with_leap_seconds_are_refused)
{
	if (access(DATABASE "/right/Europe/Berlin", R_OK) != 0)
		return;
	ck_assert_ptr_null(zone_load("right/Europe/Berlin", error));
	ck_assert_msg(strstr(error, "leap seconds") != NULL, "%s", error);
}
END_TEST

static void assert_loads(const char *name, int64_t seconds, const char *expected)
{
	struct zone *zone = zone_load(name, error);

	ck_assert_msg(zone != NULL, "%s: %s", name, error);
	assert_time(zone, seconds, expected);
	zone_free(zone);
}

START_TEST(utc_needs_no_database)
{
	assert_loads("utc", 1774746000, "2026-03-29 01:00:00 +0000 UTC Sun 088");
}
END_TEST

START_TEST(local_follows_tz)
{
	setenv("TZ", "<+0545>-5:45", 1);
	assert_loads("local", 0, "1970-01-01 05:45:00 +0545 +0545 Thu 001");
	setenv("TZ", ":<+0545>-5:45", 1);
	assert_loads("local", 0, "1970-01-01 05:45:00 +0545 +0545 Thu 001");
	setenv("TZ", "", 1);
	assert_loads("local", 0, "1970-01-01 00:00:00 +0000 UTC Thu 001");
	setenv("TZ", "UTC", 1);
	assert_loads("local", 0, "1970-01-01 00:00:00 +0000 UTC Thu 001");
	if (!have_database())
		return;
	setenv("TZ", "Europe/Berlin", 1);
	assert_loads("local", 1774746000, "2026-03-29 03:00:00 +0200 CEST Sun 088");
	setenv("TZ", ":America/New_York", 1);
	assert_loads("local", 1774746000, "2026-03-28 21:00:00 -0400 EDT Sat 087");
	setenv("TZ", DATABASE "/Asia/Kolkata", 1);
	assert_loads("local", 1774746000, "2026-03-29 06:30:00 +0530 IST Sun 088");
}
END_TEST

START_TEST(local_without_tz_is_the_system_zone)
{
	unsetenv("TZ");
	struct zone *zone = zone_load("local", error);
	ck_assert_msg(zone != NULL, "%s", error);
	zone_free(zone);

	setenv("TZ", "Nowhere/City", 1); /* an unusable TZ is ignored */
	zone = zone_load("local", error);
	ck_assert_msg(zone != NULL, "%s", error);
	zone_free(zone);
}
END_TEST

START_TEST(loading_does_not_change_the_process_zone)
{
	if (!have_database())
		return;
	set_library_zone("UTC0");
	zone_free(zone_load("Europe/Berlin", error));
	ck_assert_str_eq(getenv("TZ"), "UTC0");
	ck_assert_int_eq(timezone, 0);
	ck_assert_str_eq(tzname[0], "UTC");
}
END_TEST

static Suite *suite(void)
{
	Suite *zones = suite_create("zone");
	TCase *library = tcase_create("library");
	TCase *rule_strings = tcase_create("rules");
	TCase *files = tcase_create("files");
	TCase *names = tcase_create("names");

	tcase_add_test(library, every_zone_matches_the_c_library);
	tcase_add_loop_test(library, posix_strings_match_the_c_library, 0, sizeof(rules) / sizeof(rules[0]));
	tcase_set_timeout(library, 300);
	suite_add_tcase(zones, library);

	tcase_add_test(rule_strings, missing_rule_defaults_to_the_united_states);
	tcase_add_test(rule_strings, daylight_time_can_last_all_year);
	tcase_add_test(rule_strings, changes_can_fall_into_an_adjacent_year);
	tcase_add_test(rule_strings, empty_daylight_time_never_applies);
	tcase_add_test(rule_strings, invalid_posix_strings_are_refused);
	tcase_add_test(rule_strings, null_zone_is_utc);
	tcase_add_test(rule_strings, years_are_clamped_to_four_digits);
	suite_add_tcase(zones, rule_strings);

	tcase_add_loop_test(files, every_tzif_version_is_read, 0, 5);
	tcase_add_test(files, footer_applies_after_the_last_transition);
	tcase_add_test(files, zone_without_transitions_is_read);
	tcase_add_test(files, file_with_leap_seconds_is_refused);
	tcase_add_loop_test(files, invalid_bytes_are_refused, 0, sizeof(wrong_bytes) / sizeof(wrong_bytes[0]));
	tcase_add_test(files, invalid_footers_are_refused);
	tcase_add_test(files, overlong_abbreviations_are_refused);
	tcase_add_test(files, file_without_types_is_refused);
	tcase_add_test(files, file_truncated_anywhere_is_refused);
	tcase_add_loop_test(files, corrupted_files_are_read_safely, 0, 2);
	suite_add_tcase(zones, files);

	tcase_add_test(names, names_outside_the_database_are_refused);
	tcase_add_test(names, zones_with_leap_seconds_are_refused);
	tcase_add_test(names, utc_needs_no_database);
	tcase_add_test(names, local_follows_tz);
	tcase_add_test(names, local_without_tz_is_the_system_zone);
	tcase_add_test(names, loading_does_not_change_the_process_zone);
	suite_add_tcase(zones, names);
	return zones;
}

int main(void)
{
	return check_run(suite());
}
