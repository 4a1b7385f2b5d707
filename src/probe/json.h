/* json.h: writes one JSON text (RFC 8259), without a chance to write a wrong one. */
#ifndef SMALLSERVD_PROBE_JSON_H
#define SMALLSERVD_PROBE_JSON_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

enum { JSON_DEPTH_MAX = 16 };

/* One text on one line. For one thread. Calls that cannot be, as a key in an array, are asserted against. */
struct json {
	FILE *file;
	unsigned depth;
	bool in_object[JSON_DEPTH_MAX], has_member[JSON_DEPTH_MAX];
};

/* Each value has its KEY in an object, and NULL in an array and at the top. */
void json_begin_object(struct json *json, const char *key);
void json_begin_array(struct json *json, const char *key);
void json_end(struct json *json); /* of the innermost object or array; after the outermost one comes a line feed */

/* Bytes that are not UTF-8 become U+FFFD; NULL is written as null. */
void json_string(struct json *json, const char *key, const char *value);
void json_bytes(struct json *json, const char *key, const char *value, size_t length);
void json_bool(struct json *json, const char *key, bool value);
void json_uint(struct json *json, const char *key, uint64_t value);
void json_int(struct json *json, const char *key, int64_t value);

/* With DECIMALS digits after the point (up to 9), whatever the locale; infinite and not a number become null. */
void json_number(struct json *json, const char *key, double value, unsigned decimals);
void json_null(struct json *json, const char *key);

/* Flushes. False when anything could not be written (errno). */
bool json_finish(struct json *json);

#endif
