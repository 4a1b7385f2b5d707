/* clock.h: reads a daytime or time server's clock. */
#ifndef SMALLSERVD_PROBE_CLOCK_H
#define SMALLSERVD_PROBE_CLOCK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

/* How the time zone of an answer was determined. */
enum clock_zone {
	CLOCK_ZONE_STATED, /* by the answer or its format */
	CLOCK_ZONE_UTC,    /* not stated: UTC is nearer to the local clock than the local zone */
	CLOCK_ZONE_LOCAL,  /* not stated: the local zone is nearer */
};

struct clock_reading {
	const char *format; /* ctime, rfc867, smtp, rfc5322, rfc3339, nist or time: a string constant */
	enum clock_zone zone;
	struct timespec time; /* start of the interval that the answer stands for */
	double resolution;    /* its length in seconds */
};

/* Reads the LENGTH bytes of a daytime answer. NEAR, the local time, resolves the century and a missing zone. Returns
 * false for a format that is not known (RFC 867 prescribes none). Uses the local time zone of the process. */
bool clock_read_daytime(const char *bytes, size_t length, time_t near, struct clock_reading *reading);

/* Reads the four bytes of a time answer (RFC 868), which wrap around every 136 years: the time nearest to NEAR is
 * taken. */
void clock_read_time(const unsigned char *bytes, time_t near, struct clock_reading *reading);

/* The offset of the server's clock from the local one, given that it was read between BEGUN and ENDED: the middle of
 * the possible range, and half its width, in seconds. */
struct clock_offset {
	double seconds, uncertainty;
};
struct clock_offset clock_offset(const struct clock_reading *reading, const struct timespec *begun,
				 const struct timespec *ended);

/* Returns the name of ZONE. */
const char *clock_zone_name(enum clock_zone zone);

enum { CLOCK_TEXT_SIZE = 48 };

/* Writes the time as RFC 3339 in UTC, with microseconds if the answer has them, to TEXT (CLOCK_TEXT_SIZE bytes). */
void clock_print(const struct clock_reading *reading, char *text);

#endif
