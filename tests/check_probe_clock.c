/* check_probe_clock.c: tests of reading a server's clock. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "check_run.h"
#include "probe/clock.h"

enum { NEAR = 1795261408 }; /* 2026-11-21 11:43:28 UTC */

static void in_zone(const char *zone)
{
	ck_assert_int_eq(setenv("TZ", zone, 1), 0);
	tzset();
}

static const struct {
	const char *zone, *text, *format, *time;
	enum clock_zone from;
} understood[] = {
	/* smallservd */
	{"UTC0", "Sat Nov 21 11:43:28 2026\r\n", "ctime", "2026-11-21T11:43:28Z", CLOCK_ZONE_UTC},
	{"UTC0", "Sat Nov  7 01:02:03 2026\r\n", "ctime", "2026-11-07T01:02:03Z", CLOCK_ZONE_UTC},
	{"UTC0", "21 NOV 2026 11:43:33 UTC\r\n", "smtp", "2026-11-21T11:43:33Z", CLOCK_ZONE_STATED},
	{"UTC0", "2026-11-21T11:43:28.123456Z\r\n", "rfc3339", "2026-11-21T11:43:28.123456Z", CLOCK_ZONE_STATED},
	{"UTC0", "\n61365 26-11-21 11:43:28 00 0 0   0.0 UTC(LOCL) * \n", "nist", "2026-11-21T11:43:28Z",
	 CLOCK_ZONE_STATED},
	/* NIST, sent before the stated time */
	{"UTC0", "\n61365 26-11-21 11:43:28 00 0 0 250.0 UTC(NIST) * \n", "nist", "2026-11-21T11:43:27.750000Z",
	 CLOCK_ZONE_STATED},
	/* the two examples of RFC 867 */
	{"UTC0", "Sunday, February 22, 2026 17:37:43-PST\r\n", "rfc867", "2026-02-23T01:37:43Z", CLOCK_ZONE_STATED},
	{"UTC0", "02 FEB 27 07:59:01 PST\r\n", "smtp", "2027-02-02T15:59:01Z", CLOCK_ZONE_STATED},
	{"UTC0", "Sunday, February 22, 2026 17:37:43", "rfc867", "2026-02-22T17:37:43Z", CLOCK_ZONE_UTC},
	/* other daemons: xinetd without a zone, date(1) */
	{"UTC0", "21 NOV 2026 11:43:28\r\n", "smtp", "2026-11-21T11:43:28Z", CLOCK_ZONE_UTC},
	{"UTC0", "Sat Nov 21 11:43:28 UTC 2026", "ctime", "2026-11-21T11:43:28Z", CLOCK_ZONE_STATED},
	{"UTC0", "Sat, 21 Nov 2026 12:43:28 +0100\r\n", "rfc5322", "2026-11-21T11:43:28Z", CLOCK_ZONE_STATED},
	{"UTC0", "2026-11-21T06:13:28.5-05:30", "rfc3339", "2026-11-21T11:43:28.500000Z", CLOCK_ZONE_STATED},
	{"UTC0", "2026-11-21 11:43:28", "rfc3339", "2026-11-21T11:43:28Z", CLOCK_ZONE_UTC},
	/* zones that are missing, local, or unknown here */
	{"EET-2", "Sat Nov 21 13:43:28 2026\r\n", "ctime", "2026-11-21T11:43:28Z", CLOCK_ZONE_LOCAL},
	{"EET-2", "Sat Nov 21 11:43:28 2026\r\n", "ctime", "2026-11-21T11:43:28Z", CLOCK_ZONE_UTC},
	{"EET-2EEST,M3.5.0,M10.5.0", "21 NOV 2026 13:43:28 EET", "smtp", "2026-11-21T11:43:28Z", CLOCK_ZONE_STATED},
	{"EET-2EEST,M3.5.0,M10.5.0", "21 JUL 2026 13:43:28 EEST", "smtp", "2026-07-21T10:43:28Z", CLOCK_ZONE_STATED},
	{"UTC0", "21 NOV 2026 20:43:30 JST", "smtp", "2026-11-21T11:43:30Z", CLOCK_ZONE_STATED},
	/* a wrong clock, a leap second */
	{"UTC0", "2001-09-09T01:46:40Z", "rfc3339", "2001-09-09T01:46:40Z", CLOCK_ZONE_STATED},
	{"UTC0", "2028-02-29T00:00:00Z", "rfc3339", "2028-02-29T00:00:00Z", CLOCK_ZONE_STATED},
	{"UTC0", "2016-12-31T23:59:60Z", "rfc3339", "2017-01-01T00:00:00Z", CLOCK_ZONE_STATED},
};

START_TEST(known_formats_are_converted)
{
	struct clock_reading reading;
	char text[CLOCK_TEXT_SIZE];

	in_zone(understood[_i].zone);
	ck_assert_msg(clock_read_daytime(understood[_i].text, strlen(understood[_i].text), NEAR, &reading), "%s",
		      understood[_i].text);
	clock_print(&reading, text);
	ck_assert_str_eq(reading.format, understood[_i].format);
	ck_assert_str_eq(text, understood[_i].time);
	ck_assert_int_eq(reading.zone, understood[_i].from);
}
END_TEST

static const char *const strange[] = {
	"",
	"\r\n",
	"half past nine",
	"Sat Nov 21 11:43:28",
	"Sat Nov 21 11:43:28 2026 and more",
	"Xyz Nov 21 11:43:28 2026",
	"Sat Nuv 21 11:43:28 2026",
	"Sat Nov 31 11:43:28 2026",
	"Sat Nov 21 24:00:00 2026",
	"Sat Nov 21 11:60:28 2026",
	"2026-02-29T00:00:00Z",
	"2026-13-01T00:00:00Z",
	"2026-00-01T00:00:00Z",
	"2026-11-21T11:43:28.Z",
	"2026-11-21T11:43:28.1234567890Z",
	"2026-11-21T11:43:28+25:00",
	"2026-11-21x11:43:28Z",
	"61364 26-11-21 11:43:28 00 0 0   0.0 UTC(NIST) *", /* the day and the date disagree */
	"61365 26-11-21 11:43:28 00 0 0   0.0 UTC(NIST)",
	"61365 26-11-21 11:43:28 00 0 0 inf UTC(NIST) *",
	"61365 26-11-21 11:43:28 00 0 0 nan UTC(NIST) *",
	"61365 26-11-21 11:43:28 00 0 0 -1.0 UTC(NIST) *",
	"61365 26-11-21 11:43:28 00 0 0 1e300 UTC(NIST) *",
	"21 NOV 026 11:43:28 UTC",
	"21 NOV 2026 11:43:28 UTC+",
	"Sat Nov 21 11:43:28 2026\nSat Nov 21 11:43:28 2026\n",
	"-9 NOV 2026 11:43:28 UTC",
	"21 NOV 2026 -1:43:28 UTC",
};

START_TEST(text_without_time_is_rejected)
{
	struct clock_reading reading;

	in_zone("UTC0");
	ck_assert_msg(!clock_read_daytime(strange[_i], strlen(strange[_i]), NEAR, &reading), "%s", strange[_i]);
}
END_TEST

START_TEST(overlong_and_binary_answers_are_rejected)
{
	static const char binary[] = "Sat Nov 21 11:43:28\0 2026";
	char text[4096];
	struct clock_reading reading;

	memset(text, '1', sizeof text);
	ck_assert(!clock_read_daytime(text, sizeof text, NEAR, &reading));
	ck_assert(!clock_read_daytime(binary, sizeof binary - 1, NEAR, &reading));
	memset(text, ' ', sizeof text);
	ck_assert(!clock_read_daytime(text, sizeof text, NEAR, &reading));
}
END_TEST

START_TEST(time_answer_wraps_to_the_nearest_era)
{
	static const unsigned char now[4] = {0xee, 0xad, 0x4f, 0xa0}, turned[4] = {0, 0, 0, 5};
	struct clock_reading reading;

	clock_read_time(now, 1795261408, &reading);
	ck_assert_int_eq(reading.time.tv_sec, (time_t)(0xeead4fa0 - 2208988800));
	/* the 32 bits wrap on 2036-02-07 06:28:16 UTC */
	clock_read_time(turned, 2085978496, &reading);
	ck_assert_int_eq(reading.time.tv_sec, 2085978496 + 5);
	ck_assert_double_eq(reading.resolution, 1);
}
END_TEST

START_TEST(offset_covers_the_possible_range)
{
	struct clock_reading reading = {.time.tv_sec = 100, .resolution = 1};
	struct timespec begun = {.tv_sec = 99, .tv_nsec = 900000000}, ended = {.tv_sec = 100, .tv_nsec = 100000000};
	/* the server read between 100 and 101, the local clock between 99.9 and 100.1: an offset of -0.1 to 1.1 */
	struct clock_offset offset = clock_offset(&reading, &begun, &ended);

	ck_assert_double_eq_tol(offset.seconds, 0.5, 1e-9);
	ck_assert_double_eq_tol(offset.uncertainty, 0.6, 1e-9);
	/* an exact answer leaves half the round trip */
	reading.resolution = 0;
	offset = clock_offset(&reading, &begun, &ended);
	ck_assert_double_eq_tol(offset.seconds, 0, 1e-9);
	ck_assert_double_eq_tol(offset.uncertainty, 0.1, 1e-9);
}
END_TEST

START_TEST(resolution_is_that_of_the_fraction)
{
	struct clock_reading reading;

	in_zone("UTC0");
	ck_assert(clock_read_daytime("2026-11-21T11:43:28.25Z", 23, NEAR, &reading));
	ck_assert_int_eq(reading.time.tv_nsec, 250000000);
	ck_assert_double_eq_tol(reading.resolution, 0.01, 1e-12);
	ck_assert(clock_read_daytime("2026-11-21T11:43:28.000000001Z", 30, NEAR, &reading));
	ck_assert_int_eq(reading.time.tv_nsec, 1);
	ck_assert_double_eq_tol(reading.resolution, 1e-9, 1e-15);
}
END_TEST

static Suite *suite(void)
{
	Suite *suite = suite_create("probe_clock");
	TCase *answer = tcase_create("answer");

	tcase_add_loop_test(answer, known_formats_are_converted, 0, sizeof understood / sizeof *understood);
	tcase_add_loop_test(answer, text_without_time_is_rejected, 0, sizeof strange / sizeof *strange);
	tcase_add_test(answer, overlong_and_binary_answers_are_rejected);
	tcase_add_test(answer, time_answer_wraps_to_the_nearest_era);
	tcase_add_test(answer, offset_covers_the_possible_range);
	tcase_add_test(answer, resolution_is_that_of_the_fraction);
	suite_add_tcase(suite, answer);
	return suite;
}

int main(void)
{
	return check_run(suite());
}
