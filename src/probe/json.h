/* json.h: writes one valid JSON text (RFC 8259). */
#ifndef SMALLSERVD_PROBE_JSON_H
#define SMALLSERVD_PROBE_JSON_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

enum { JSON_DEPTH_MAX = 16 };

/* One text on one line. For one thread. Invalid sequences of calls, as a key in an array, fail an assertion. */
struct json {
	FILE *file;
	unsigned depth;
	bool in_object[JSON_DEPTH_MAX], has_member[JSON_DEPTH_MAX];
};

/* KEY is the name of a member in an object, NULL in an array and at the top level. */
void json_begin_object(struct json *json, const char *key);
void json_begin_array(struct json *json, const char *key);
void json_end(struct json *json); /* ends the innermost object or array; the outermost one is followed by a line feed */

/* Replaces invalid UTF-8 by U+FFFD; writes NULL as null. */
void json_string(struct json *json, const char *key, const char *value);
void json_bytes(struct json *json, const char *key, const char *value, size_t length);
void json_bool(struct json *json, const char *key, bool value);
void json_uint(struct json *json, const char *key, uint64_t value);
void json_int(struct json *json, const char *key, int64_t value);

/* Writes DECIMALS digits after the point (up to 9), whatever the locale; infinity and NaN become null. */
void json_number(struct json *json, const char *key, double value, unsigned decimals);
void json_null(struct json *json, const char *key);

/* Flushes. Returns false if anything could not be written (errno). */
bool json_finish(struct json *json);

#endif
