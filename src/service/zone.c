/* zone.c: local time in a time zone, and the names of zones. */
#include "service/zone.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "option/option.h"
#include "service/tz.h"

#define DATABASE "/usr/share/zoneinfo"

enum { FILE_MAX = 256 * 1024 }; /* the largest file of the database has 4 KiB */

static const struct tz_type utc_type = {.abbreviation = "UTC"};

/* Returns the last transition at or before SECONDS; there is one. */
static const struct tz_transition *find_transition(const struct zone *zone, int64_t seconds)
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

static const struct tz_type *zone_type(const struct zone *zone, int64_t seconds)
{
	size_t count = zone->transition_count;

	if (zone->has_rule && (count == 0 || seconds >= zone->transitions[count - 1].at))
		return tz_rule_type(&zone->rule, seconds);
	if (count == 0 || seconds < zone->transitions[0].at)
		return &zone->types[0];
	return find_transition(zone, seconds)->type;
}

void zone_localtime(const struct zone *zone, int64_t seconds, struct tm *tm)
{
	seconds = tz_clamp(seconds);
	tz_break_down(seconds, zone != NULL ? zone_type(zone, seconds) : &utc_type, tm);
}

struct zone *zone_parse_rule(const char *text, char *error)
{
	struct zone *zone = calloc(1, sizeof *zone);

	if (zone != NULL && tz_rule_parse(text, &zone->rule)) {
		zone->has_rule = true;
		return zone;
	}
	snprintf(error, OPTION_ERROR_SIZE, zone != NULL ? "not a POSIX TZ string" : "out of memory");
	zone_free(zone);
	return NULL;
}

void zone_free(struct zone *zone)
{
	if (zone == NULL)
		return;
	free(zone->transitions);
	free(zone->types);
	free(zone);
}

/* --- files and names --- */

/* Reads up to SIZE bytes of the file at PATH. Returns their number; -1 with errno. */
static ssize_t read_file(const char *path, unsigned char *bytes, size_t size)
{
	size_t length = 0;
	ssize_t count = 1;
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* opening a FIFO must not block */

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
	ssize_t length = bytes != NULL ? read_file(path, bytes, FILE_MAX) : -1;
	const char *reason = NULL;
	struct zone *zone = NULL;

	if (length >= 0)
		zone = tz_file_parse(bytes, (size_t)length, &reason);
	if (zone == NULL)
		snprintf(error, OPTION_ERROR_SIZE, "%s: %s", path, reason != NULL ? reason : strerror(errno));
	free(bytes);
	return zone;
}

/* Loads a zone of the database; NAME is neither an absolute path nor leads out of it. */
static struct zone *load_name(const char *name, char *error)
{
	char path[PATH_MAX];
	int length = snprintf(path, sizeof path, DATABASE "/%s", name);

	if (name[0] == '/' || strstr(name, "..") != NULL || length >= (int)sizeof path) {
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

/* Loads the value of TZ as the C library does: a zone, a file, or a POSIX TZ string, with an optional colon before it.
 */
static struct zone *load_variable(const char *value, char *error)
{
	struct zone *zone;

	if (*value == ':')
		value++;
	if (*value == '\0' || strcmp(value, "UTC") == 0)
		return zone_parse_rule("UTC0", error);
	zone = *value == '/' ? load_file(value, error) : load_name(value, error);
	return zone != NULL ? zone : zone_parse_rule(value, error);
}

static struct zone *load_local(char *error)
{
	const char *variable = getenv("TZ");
	struct zone *zone = variable != NULL ? load_variable(variable, error) : NULL;

	if (zone != NULL)
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
