/* clock.c: reads a daytime or time server's clock. */
#include "probe/clock.h"

#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "core/array.h"

enum { LINE_MAX_SIZE = 128, MODIFIED_JULIAN_1970 = 40587, DAY_SECONDS = 86400, NO_ZONE = INT32_MAX };

/* The fields of an answer, before conversion. */
struct parts {
	struct tm tm;
	int zone_seconds; /* ahead of UTC; NO_ZONE: not stated */
	char zone[12];    /* its name, if it has one; empty: none */
	long nanoseconds;
	double resolution;
	double advance; /* how long before the stated time the answer was sent, in seconds */
};

/* --- names and numbers --- */

static bool read_month(const char *text, struct tm *tm)
{
	static const char *const months[] = {"january", "february", "march",     "april",   "may",      "june",
					     "july",    "august",   "september", "october", "november", "december"};
	size_t length = strlen(text);

	for (int i = 0; i < 12; i++)
		if ((length == 3 || length == strlen(months[i])) && strncasecmp(text, months[i], length) == 0) {
			tm->tm_mon = i;
			return true;
		}
	return false;
}

static bool is_weekday(const char *text)
{
	static const char *const days[] = {"monday", "tuesday",  "wednesday", "thursday",
					   "friday", "saturday", "sunday"};
	size_t length = strlen(text);

	for (size_t i = 0; i < COUNT_OF(days); i++)
		if ((length == 3 || length == strlen(days[i])) && strncasecmp(text, days[i], length) == 0)
			return true;
	return false;
}

/* Sets the year; one of two digits is the nearest to NEAR. */
static void set_year(struct tm *tm, int year, bool whole, time_t near)
{
	struct tm now;

	gmtime_r(&near, &now);
	if (!whole) {
		int base = now.tm_year + 1900 - 50;

		year = base + ((year - base) % 100 + 100) % 100;
	}
	tm->tm_year = year - 1900;
}

/* Reads a zone name of RFC 822, or a name of UTC. */
static bool read_zone_name(const char *text, int *seconds)
{
	static const struct {
		const char *name;
		int hours;
	} zones[] = {{"UTC", 0},  {"GMT", 0},  {"UT", 0},   {"Z", 0},    {"EST", -5}, {"EDT", -4},
		     {"CST", -6}, {"CDT", -5}, {"MST", -7}, {"MDT", -6}, {"PST", -8}, {"PDT", -7}};

	for (size_t i = 0; i < COUNT_OF(zones); i++)
		if (strcasecmp(text, zones[i].name) == 0) {
			*seconds = zones[i].hours * 3600;
			return true;
		}
	return false;
}

/* Reads `+0100` or `-05:30`. */
static bool read_zone_number(const char *text, int *seconds)
{
	unsigned hours, minutes;
	int length = 0;

	if ((text[0] != '+' && text[0] != '-') || !isdigit((unsigned char)text[1]))
		return false;
	if ((sscanf(text + 1, "%2u:%2u%n", &hours, &minutes, &length) != 2 &&
	     sscanf(text + 1, "%2u%2u%n", &hours, &minutes, &length) != 2) ||
	    text[1 + length] != '\0' || hours > 23 || minutes > 59)
		return false;
	*seconds = (int)(hours * 3600 + minutes * 60) * (text[0] == '-' ? -1 : 1);
	return true;
}

/* Reads a zone by name or number; an unknown name is kept. */
static bool read_zone(const char *text, struct parts *parts)
{
	if (read_zone_number(text, &parts->zone_seconds) || read_zone_name(text, &parts->zone_seconds))
		return true;
	if (strlen(text) >= sizeof parts->zone ||
	    strspn(text, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz") < strlen(text))
		return false;
	strcpy(parts->zone, text);
	return true;
}

/* --- formats: each reads the whole of LINE, or returns false --- */

/* Reads `Fri Nov 20 11:43:28 2026`, and the form of date(1) with a zone before the year. */
static bool read_ctime(const char *line, time_t near, struct parts *parts)
{
	char day[12], month[12], zone[12] = "";
	struct tm *tm = &parts->tm;
	int year, end = 0;

	if (sscanf(line, "%11[A-Za-z] %11[A-Za-z] %2d %2d:%2d:%2d %4d%n", day, month, &tm->tm_mday, &tm->tm_hour,
		   &tm->tm_min, &tm->tm_sec, &year, &end) != 7 &&
	    sscanf(line, "%11[A-Za-z] %11[A-Za-z] %2d %2d:%2d:%2d %11s %4d%n", day, month, &tm->tm_mday, &tm->tm_hour,
		   &tm->tm_min, &tm->tm_sec, zone, &year, &end) != 8)
		return false;
	if (end == 0 || line[end] != '\0' || !is_weekday(day) || !read_month(month, tm))
		return false;
	set_year(tm, year, true, near);
	return zone[0] == '\0' || read_zone(zone, parts);
}

/* Reads the example of RFC 867: `Tuesday, February 22, 1982 17:37:43-PST`. */
static bool read_rfc867(const char *line, time_t near, struct parts *parts)
{
	char day[12], month[12], zone[12] = "";
	struct tm *tm = &parts->tm;
	int year, end = 0;

	if (sscanf(line, "%11[A-Za-z], %11[A-Za-z] %2d, %4d %2d:%2d:%2d%n", day, month, &tm->tm_mday, &year,
		   &tm->tm_hour, &tm->tm_min, &tm->tm_sec, &end) != 7 ||
	    end == 0 || !is_weekday(day) || !read_month(month, tm))
		return false;
	set_year(tm, year, true, near);
	line += end;
	if (*line == '\0')
		return true;
	return sscanf(line, "-%11[A-Za-z]%n", zone, &end) == 1 && line[end] == '\0' && read_zone(zone, parts);
}

/* Reads `20 NOV 2026 11:43:33 UTC`; RFC 867 writes two digits of the year, other servers omit the zone. */
static bool read_smtp(const char *line, time_t near, struct parts *parts)
{
	char month[12], zone[12] = "", digits[5];
	struct tm *tm = &parts->tm;
	int end = 0, zone_end = 0;

	if (sscanf(line, "%2d %11[A-Za-z] %4[0-9] %2d:%2d:%2d%n %11s%n", &tm->tm_mday, month, digits, &tm->tm_hour,
		   &tm->tm_min, &tm->tm_sec, &end, zone, &zone_end) < 6 ||
	    end == 0 || !read_month(month, tm) || strlen(digits) % 2 != 0)
		return false;
	set_year(tm, atoi(digits), strlen(digits) == 4, near);
	if (line[end] == '\0')
		return true;
	return zone_end != 0 && line[zone_end] == '\0' && read_zone(zone, parts);
}

/* Reads the same after a weekday: `Fri, 20 Nov 2026 11:43:33 +0100`. */
static bool read_rfc5322(const char *line, time_t near, struct parts *parts)
{
	char day[12];
	int end = 0;

	return sscanf(line, "%11[A-Za-z], %n", day, &end) == 1 && end != 0 && is_weekday(day) &&
	       read_smtp(line + end, near, parts);
}

/* Reads `2026-11-20T11:43:28.123456Z`, also with a blank in place of the T, an offset, or no zone. */
static bool read_rfc3339(const char *line, time_t near, struct parts *parts)
{
	struct tm *tm = &parts->tm;
	char separator;
	int year, end = 0;

	if (sscanf(line, "%4d-%2d-%2d%c%2d:%2d:%2d%n", &year, &tm->tm_mon, &tm->tm_mday, &separator, &tm->tm_hour,
		   &tm->tm_min, &tm->tm_sec, &end) != 7 ||
	    end == 0 || strchr("Tt ", separator) == NULL)
		return false;
	tm->tm_mon--;
	set_year(tm, year, true, near);
	line += end;
	if (*line == '.' || *line == ',') {
		size_t digits = strspn(line + 1, "0123456789");
		long unit = 1000000000;

		if (digits < 1 || digits > 9)
			return false;
		for (size_t i = 1; i <= digits; i++) {
			unit /= 10;
			parts->nanoseconds += (line[i] - '0') * unit;
		}
		parts->resolution = (double)unit / 1e9;
		line += digits + 1;
	}
	if (*line == ' ')
		line++;
	return *line == '\0' || read_zone(line, parts);
}

/* Reads `JJJJJ YR-MO-DA HH:MM:SS TT L H msADV UTC(NIST) OTM`, sent msADV before the stated time. */
static bool read_nist(const char *line, time_t near, struct parts *parts)
{
	struct tm *tm = &parts->tm;
	int julian, year, summer, leap, health, end = 0;
	enum { ADVANCE_MAX_MS = 1000 };
	double advance_ms;
	char label[12], mark;

	if (sscanf(line, "%5d %2d-%2d-%2d %2d:%2d:%2d %2d %1d %1d %lf UTC(%11[^)]) %c%n", &julian, &year, &tm->tm_mon,
		   &tm->tm_mday, &tm->tm_hour, &tm->tm_min, &tm->tm_sec, &summer, &leap, &health, &advance_ms, label,
		   &mark, &end) != 13 ||
	    end == 0 || line[end] != '\0' || (mark != '*' && mark != '#') ||
	    !(advance_ms >= 0 && advance_ms < ADVANCE_MAX_MS))
		return false;
	tm->tm_mon--;
	set_year(tm, year, false, near);
	parts->zone_seconds = 0;
	parts->advance = advance_ms / 1000;

	struct tm copy = *tm;

	return (timegm(&copy) / DAY_SECONDS + MODIFIED_JULIAN_1970) % 100000 == julian;
}

static const struct {
	const char *name;
	bool (*read)(const char *line, time_t near, struct parts *parts);
} formats[] = {
	{"nist", read_nist}, {"ctime", read_ctime},     {"rfc3339", read_rfc3339},
	{"smtp", read_smtp}, {"rfc5322", read_rfc5322}, {"rfc867", read_rfc867},
};

/* --- conversion --- */

static bool is_date(const struct tm *tm)
{
	struct tm copy = *tm;

	if (tm->tm_hour > 23 || tm->tm_min > 59 || tm->tm_sec > 60 || tm->tm_hour < 0 || tm->tm_min < 0 ||
	    tm->tm_sec < 0 || tm->tm_mon < 0)
		return false;
	copy.tm_hour = copy.tm_min = copy.tm_sec = 0;
	timegm(&copy); /* normalises days beyond the end of the month */
	return copy.tm_mday == tm->tm_mday && copy.tm_mon == tm->tm_mon && copy.tm_year == tm->tm_year;
}

/* Converts the fields in the local zone; IS_DST by the zone name, if it is one of the two local ones. Returns false for
 * an unknown name. */
static bool local_time(const struct parts *parts, time_t *time)
{
	struct tm tm = parts->tm;

	tm.tm_isdst = -1;
	if (parts->zone[0] != '\0') {
		tzset();
		if (strcmp(parts->zone, tzname[0]) != 0 && strcmp(parts->zone, tzname[1]) != 0)
			return false;
		if (strcmp(tzname[0], tzname[1]) != 0)
			tm.tm_isdst = strcmp(parts->zone, tzname[1]) == 0;
	}
	*time = mktime(&tm);
	return true;
}

static void settle(const struct parts *parts, time_t near, struct clock_reading *reading)
{
	struct tm tm = parts->tm;
	time_t utc = timegm(&tm), local;

	if (parts->zone_seconds != NO_ZONE) {
		reading->zone = CLOCK_ZONE_STATED;
		reading->time.tv_sec = utc - parts->zone_seconds;
		return;
	}
	if (local_time(parts, &local)) {
		bool utc_is_nearer = llabs((long long)(utc - near)) <= llabs((long long)(local - near));

		if (parts->zone[0] != '\0') {
			reading->zone = CLOCK_ZONE_STATED;
			utc_is_nearer = false;
		} else {
			reading->zone = utc_is_nearer ? CLOCK_ZONE_UTC : CLOCK_ZONE_LOCAL;
		}
		reading->time.tv_sec = utc_is_nearer ? utc : local;
		return;
	}
	/* an unknown zone is a multiple of a quarter of an hour away */
	enum { QUARTER = 900 };
	time_t away = utc - near;

	reading->zone = CLOCK_ZONE_UTC;
	if (llabs((long long)away) < 15 * 3600) {
		reading->zone = CLOCK_ZONE_STATED;
		utc -= (time_t)(lround((double)away / QUARTER) * QUARTER);
	}
	reading->time.tv_sec = utc;
}

/* Copies the only line of BYTES without surrounding white space. Returns false if it is too long, or there are several.
 */
static bool take_line(const char *bytes, size_t length, char *line)
{
	while (length > 0 && isspace((unsigned char)bytes[0])) {
		bytes++;
		length--;
	}
	while (length > 0 && (isspace((unsigned char)bytes[length - 1]) || bytes[length - 1] == '\0'))
		length--;
	if (length == 0 || length >= LINE_MAX_SIZE || memchr(bytes, '\n', length) != NULL ||
	    memchr(bytes, '\0', length) != NULL)
		return false;
	memcpy(line, bytes, length);
	line[length] = '\0';
	return true;
}

bool clock_read_daytime(const char *bytes, size_t length, time_t near, struct clock_reading *reading)
{
	char line[LINE_MAX_SIZE];

	if (!take_line(bytes, length, line))
		return false;
	for (size_t i = 0; i < COUNT_OF(formats); i++) {
		struct parts parts = {.zone_seconds = NO_ZONE, .resolution = 1};

		if (!formats[i].read(line, near, &parts) || !is_date(&parts.tm))
			continue;
		*reading = (struct clock_reading){.format = formats[i].name, .resolution = parts.resolution};
		settle(&parts, near, reading);
		double told = (double)parts.nanoseconds - parts.advance * 1e9, whole = floor(told / 1e9);

		reading->time.tv_sec += (time_t)whole;
		reading->time.tv_nsec = (long)(told - whole * 1e9);
		return true;
	}
	return false;
}

void clock_read_time(const unsigned char *bytes, time_t near, struct clock_reading *reading)
{
	const int64_t until_1970 = 2208988800, era = INT64_C(1) << 32;
	int64_t seconds =
		(int64_t)((uint32_t)bytes[0] << 24 | (uint32_t)bytes[1] << 16 | (uint32_t)bytes[2] << 8 | bytes[3]) -
		until_1970;

	while (seconds < near - era / 2)
		seconds += era;
	*reading = (struct clock_reading){.format = "time", .time.tv_sec = (time_t)seconds, .resolution = 1};
}

static double seconds_between(const struct timespec *from, const struct timespec *to)
{
	return (double)(to->tv_sec - from->tv_sec) + (double)(to->tv_nsec - from->tv_nsec) / 1e9;
}

struct clock_offset clock_offset(const struct clock_reading *reading, const struct timespec *begun,
				 const struct timespec *ended)
{
	double least = seconds_between(ended, &reading->time);
	double most = seconds_between(begun, &reading->time) + reading->resolution;

	return (struct clock_offset){.seconds = (least + most) / 2, .uncertainty = (most - least) / 2};
}

const char *clock_zone_name(enum clock_zone zone)
{
	static const char *const names[] = {
		[CLOCK_ZONE_STATED] = "stated", [CLOCK_ZONE_UTC] = "utc", [CLOCK_ZONE_LOCAL] = "local"};

	return names[zone];
}

void clock_print(const struct clock_reading *reading, char *text)
{
	char seconds[24] = "?", fraction[24] = "";
	struct tm tm;

	if (gmtime_r(&reading->time.tv_sec, &tm) != NULL)
		strftime(seconds, sizeof seconds, "%Y-%m-%dT%H:%M:%S", &tm);
	if (reading->time.tv_nsec != 0 || reading->resolution < 1)
		snprintf(fraction, sizeof fraction, ".%06ld", reading->time.tv_nsec / 1000);
	snprintf(text, CLOCK_TEXT_SIZE, "%s%sZ", seconds, fraction);
}
