/* zone.h: local time in any time zone, apart from the process's own TZ. */
#ifndef SMALLSERVD_SERVICE_ZONE_H
#define SMALLSERVD_SERVICE_ZONE_H

#include <stddef.h>
#include <stdint.h>
#include <time.h>

enum { ZONE_ABBREVIATION_MAX = 15 };

/* The rules of one time zone, immutable once loaded. */
struct zone;

/* Loads NAME: `utc`, `local` (what TZ names, else /etc/localtime, else UTC), or a zone of the tz database. The caller
 * frees it. NULL: the reason is in ERROR (OPTION_ERROR_SIZE bytes). */
struct zone *zone_load(const char *name, char *error);

/* The same from the bytes of a TZif file (RFC 9636), which may be hostile. */
struct zone *zone_parse(const void *bytes, size_t length, char *error);

/* The same from a POSIX TZ string, as `CET-1CEST,M3.5.0,M10.5.0/3`. */
struct zone *zone_parse_rule(const char *text, char *error);

void zone_free(struct zone *zone);

/* Breaks SECONDS since 1970 down to local time; a NULL zone is UTC. Years stay within 1000 and 9999. tm_zone lives as
 * long as the zone. Thread-safe, no allocation. */
void zone_localtime(const struct zone *zone, int64_t seconds, struct tm *tm);

#endif
