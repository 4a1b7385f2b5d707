/* zone.h: local time in any time zone, independent of the TZ of the process. */
#ifndef SMALLSERVD_SERVICE_ZONE_H
#define SMALLSERVD_SERVICE_ZONE_H

#include <stdint.h>
#include <time.h>

/* A time zone, immutable once loaded. */
struct zone;

/* Loads NAME: `utc`, `local` (the zone of TZ, else /etc/localtime, else UTC), or a zone of the tz database. The caller
 * frees it. Returns NULL with the reason in ERROR (OPTION_ERROR_SIZE bytes). */
struct zone *zone_load(const char *name, char *error);

/* Loads a zone from a POSIX TZ string, as `CET-1CEST,M3.5.0,M10.5.0/3`. Otherwise as zone_load. */
struct zone *zone_parse_rule(const char *text, char *error);

void zone_free(struct zone *zone);

/* Converts SECONDS since 1970 to local time; a NULL zone is UTC. Years are clamped to 1000 to 9999. tm_zone is valid as
 * long as the zone. Any thread, no allocation. */
void zone_localtime(const struct zone *zone, int64_t seconds, struct tm *tm);

#endif
