/* clock.h: what a daytime or time server's answer says of its clock. */
#ifndef SMALLSERVD_PROBE_CLOCK_H
#define SMALLSERVD_PROBE_CLOCK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

/* How it was found out in which zone the time is told. */
enum clock_zone {
	CLOCK_ZONE_STATED, /* the answer says so, or its format does */
	CLOCK_ZONE_UTC,    /* not stated: UTC is nearer to our clock than our own zone */
	CLOCK_ZONE_LOCAL,  /* not stated: our own zone is */
};

struct clock_reading {
	const char *format; /* ctime, rfc867, smtp, rfc5322, rfc3339, nist or time: a string constant */
	enum clock_zone zone;
	struct timespec time; /* the beginning of the interval that is told */
	double resolution;    /* its length in seconds */
};

/* Reads the LENGTH bytes of a daytime answer. NEAR is our own time, which settles what the answer leaves open: the century and
 * the zone. False: it is in no format that we know (RFC 867 prescribes none). Uses the local time zone of the process. */
bool clock_read_daytime(const char *bytes, size_t length, time_t near, struct clock_reading *reading);

/* Reads the four bytes of a time answer (RFC 868): they turn over every 136 years, so that nearest to NEAR is meant. */
void clock_read_time(const unsigned char *bytes, time_t near, struct clock_reading *reading);

/* How far the server's clock is ahead of ours, given that it was read at some moment between BEGUN and ENDED: the middle of
 * what is possible, and how far to either side it could be, all in seconds. */
struct clock_offset {
	double seconds, uncertainty;
};
struct clock_offset clock_offset(const struct clock_reading *reading, const struct timespec *begun,
				 const struct timespec *ended);

/* The word for ZONE. */
const char *clock_zone_name(enum clock_zone zone);

enum { CLOCK_TEXT_SIZE = 48 };

/* Writes the time as RFC 3339 in UTC, with microseconds where they are known, to TEXT (CLOCK_TEXT_SIZE bytes). */
void clock_print(const struct clock_reading *reading, char *text);

#endif
