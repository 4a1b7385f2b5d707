/* json.c: writes one valid JSON text (RFC 8259). */
#include "probe/json.h"

#include <assert.h>
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "core/utf8.h"

static void print_text(struct json *json, const char *value, size_t length);

/* Writes the comma after a previous value, and the key. */
static void begin_value(struct json *json, const char *key)
{
	bool keyed = json->depth > 0 && json->in_object[json->depth - 1];
	assert(keyed == (key != NULL));
	if (json->depth > 0) {
		if (json->has_member[json->depth - 1])
			fputs(", ", json->file);
		json->has_member[json->depth - 1] = true;
	}
	if (!keyed)
		return;
	print_text(json, key, strlen(key));
	fputs(": ", json->file);
}

static void begin(struct json *json, const char *key, bool object)
{
	begin_value(json, key);
	assert(json->depth < JSON_DEPTH_MAX);
	json->in_object[json->depth] = object;
	json->has_member[json->depth] = false;
	json->depth++;
	fputc(object ? '{' : '[', json->file);
}

void json_begin_object(struct json *json, const char *key)
{
	begin(json, key, true);
}

void json_begin_array(struct json *json, const char *key)
{
	begin(json, key, false);
}

void json_end(struct json *json)
{
	assert(json->depth > 0);
	json->depth--;
	fputc(json->in_object[json->depth] ? '}' : ']', json->file);
	if (json->depth == 0)
		fputc('\n', json->file);
}

static void print_character(FILE *file, const unsigned char *at, size_t length)
{
	if (length == 0)
		fputs("\\ufffd", file);
	else if (length > 1)
		fwrite(at, 1, length, file);
	else if (*at == '"' || *at == '\\')
		fprintf(file, "\\%c", *at);
	else if (*at < ' ' || *at == 0x7f)
		fprintf(file, "\\u%04x", *at);
	else
		fputc(*at, file);
}

static void print_text(struct json *json, const char *value, size_t length)
{
	const unsigned char *at = (const unsigned char *)value, *end = at + length;
	fputc('"', json->file);
	while (at < end) {
		size_t character = utf8_length(at, (size_t)(end - at));
		print_character(json->file, at, character);
		at += character > 0 ? character : 1;
	}
	fputc('"', json->file);
}

void json_bytes(struct json *json, const char *key, const char *value, size_t length)
{
	begin_value(json, key);
	print_text(json, value, length);
}

void json_string(struct json *json, const char *key, const char *value)
{
	if (value == NULL) {
		json_null(json, key);
		return;
	}
	json_bytes(json, key, value, strlen(value));
}

void json_bool(struct json *json, const char *key, bool value)
{
	begin_value(json, key);
	fputs(value ? "true" : "false", json->file);
}

void json_null(struct json *json, const char *key)
{
	begin_value(json, key);
	fputs("null", json->file);
}

void json_uint(struct json *json, const char *key, uint64_t value)
{
	begin_value(json, key);
	fprintf(json->file, "%" PRIu64, value);
}

void json_int(struct json *json, const char *key, int64_t value)
{
	begin_value(json, key);
	fprintf(json->file, "%" PRId64, value);
}

void json_number(struct json *json, const char *key, double value, unsigned decimals)
{
	char text[512]; /* the largest double has 309 digits */
	assert(decimals <= 9);
	if (!isfinite(value)) {
		json_null(json, key);
		return;
	}
	begin_value(json, key);
	size_t length = (size_t)snprintf(text, sizeof text, "%.*f", (int)decimals, value);
	size_t whole = strspn(text, "-0123456789");
	fwrite(text, 1, whole, json->file);
	/* the decimal point of a locale may be another character, of several bytes */
	if (decimals > 0)
		fprintf(json->file, ".%s", text + length - decimals);
}

bool json_finish(struct json *json)
{
	assert(json->depth == 0);
	return fflush(json->file) == 0 && ferror(json->file) == 0;
}
