/* tz.h: a time zone in memory: local time types, transitions, and a rule for the time after them (RFC 9636). */
#ifndef SMALLSERVD_SERVICE_TZ_H
#define SMALLSERVD_SERVICE_TZ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

enum {
	TZ_ABBREVIATION_MAX = 15,
	TZ_RULE_MAX = 255, /* characters of a POSIX TZ string */
	TZ_DAY_S = 24 * 60 * 60,
};

/* A local time type: an offset with its abbreviation. */
struct tz_type {
	int32_t offset; /* seconds east of UTC */
	bool daylight;
	char abbreviation[TZ_ABBREVIATION_MAX + 1];
};

/* A change to TYPE at second AT. */
struct tz_transition {
	int64_t at;
	const struct tz_type *type;
};

/* A second of every year, in local time. */
struct tz_date {
	enum { TZ_DAY_WITHOUT_LEAP, TZ_DAY_WITH_LEAP, TZ_WEEKDAY } kind;
	int month, week; /* TZ_WEEKDAY: 1 to 12, 1 to 5 (the last) */
	int day;         /* 1 to 365, 0 to 365, or the weekday, 0 for Sunday */
	int32_t seconds; /* from that day's midnight; may reach into other days */
};

/* A POSIX TZ string. */
struct tz_rule {
	struct tz_type standard, daylight;
	bool has_daylight;
	struct tz_date start, end; /* of daylight time */
};

struct zone {
	struct tz_type *types; /* the first one applies before all transitions */
	struct tz_transition *transitions;
	size_t transition_count;
	struct tz_rule rule; /* applies from the last transition on */
	bool has_rule;
};

/* Parses a POSIX TZ string into RULE, which is zeroed. Returns false if TEXT is not one. */
bool tz_rule_parse(const char *text, struct tz_rule *rule);

/* Returns the type that RULE has in effect at SECONDS since 1970. */
const struct tz_type *tz_rule_type(const struct tz_rule *rule, int64_t seconds);

/* Converts SECONDS since 1970 to the local time of TYPE. Years are clamped to 1000 to 9999. */
void tz_break_down(int64_t seconds, const struct tz_type *type, struct tm *tm);

/* Clamps SECONDS to the years 1000 to 9999 of UTC. */
int64_t tz_clamp(int64_t seconds);

/* Parses a TZif file of LENGTH bytes, which may be hostile. The caller frees the zone by zone_free. Returns NULL with
 * the reason in *REASON, a string constant. */
struct zone *tz_file_parse(const void *bytes, size_t length, const char **reason);

#endif
