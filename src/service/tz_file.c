/* tz_file.c: TZif files (RFC 9636). */
#include "service/tz.h"
#include "service/zone.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

enum {
	OFFSET_MIN = -89999, /* seconds east of UTC, the bounds of RFC 9636 */
	OFFSET_MAX = 93599,
};

enum { HEADER_SIZE = 44, TYPE_SIZE = 6 };

struct header {
	unsigned char version;
	uint32_t ut_count, standard_count, leap_count, transition_count, type_count, abbreviations_size;
};

/* The unread part of the file. */
struct reader {
	const unsigned char *at;
	size_t left;
};

/* Decodes SIZE bytes, big-endian, two's complement. */
static int64_t decode(const unsigned char *bytes, size_t size)
{
	uint64_t value = bytes[0] & 0x80 ? UINT64_MAX : 0;

	for (size_t i = 0; i < size; i++)
		value = value << 8 | bytes[i];
	return (int64_t)value;
}

/* Returns the next SIZE bytes, or NULL. */
static const unsigned char *take(struct reader *reader, uint64_t size)
{
	const unsigned char *taken = reader->at;

	if (size > reader->left)
		return NULL;
	reader->at += size;
	reader->left -= size;
	return taken;
}

static bool take_header(struct reader *reader, struct header *header)
{
	const unsigned char *bytes = take(reader, HEADER_SIZE);

	if (bytes == NULL || memcmp(bytes, "TZif", 4) != 0)
		return false;
	*header = (struct header){
		.version = bytes[4],
		.ut_count = (uint32_t)decode(bytes + 20, 4),
		.standard_count = (uint32_t)decode(bytes + 24, 4),
		.leap_count = (uint32_t)decode(bytes + 28, 4),
		.transition_count = (uint32_t)decode(bytes + 32, 4),
		.type_count = (uint32_t)decode(bytes + 36, 4),
		.abbreviations_size = (uint32_t)decode(bytes + 40, 4),
	};
	return true;
}

static uint64_t block_size(const struct header *header, uint64_t time_size)
{
	return header->transition_count * (time_size + 1) + header->type_count * (uint64_t)TYPE_SIZE +
	       header->abbreviations_size + header->leap_count * (time_size + 4) + header->standard_count +
	       header->ut_count;
}

static bool parse_abbreviation(const unsigned char *bytes, size_t size, char *abbreviation)
{
	for (size_t i = 0; i < size && i <= TZ_ABBREVIATION_MAX; i++) {
		abbreviation[i] = (char)bytes[i];
		if (bytes[i] == '\0')
			return i > 0;
		if (!isgraph(bytes[i]))
			return false;
	}
	return false;
}

static bool parse_types(struct zone *zone, const struct header *header, const unsigned char *bytes)
{
	const unsigned char *abbreviations = bytes + header->type_count * (size_t)TYPE_SIZE;

	for (size_t i = 0; i < header->type_count; i++, bytes += TYPE_SIZE) {
		struct tz_type *type = &zone->types[i];
		int64_t offset = decode(bytes, 4);
		unsigned is_daylight = bytes[4], index = bytes[5];

		if (offset < OFFSET_MIN || offset > OFFSET_MAX || is_daylight > 1 ||
		    index >= header->abbreviations_size)
			return false;
		if (!parse_abbreviation(abbreviations + index, header->abbreviations_size - index, type->abbreviation))
			return false;
		type->offset = (int32_t)offset;
		type->daylight = is_daylight;
	}
	return true;
}

static bool parse_transitions(struct zone *zone, const struct header *header, const unsigned char *bytes,
			      size_t time_size)
{
	const unsigned char *indices = bytes + header->transition_count * time_size;

	for (size_t i = 0; i < header->transition_count; i++) {
		struct tz_transition *transition = &zone->transitions[i];

		transition->at = decode(bytes + i * time_size, time_size);
		if (indices[i] >= header->type_count || (i > 0 && transition->at <= transition[-1].at))
			return false;
		transition->type = &zone->types[indices[i]];
	}
	zone->transition_count = header->transition_count;
	return true;
}

/* Parses a data block. Returns NULL, or the reason of a failure. */
static const char *parse_block(struct zone *zone, const struct header *header, struct reader *reader, size_t time_size)
{
	const unsigned char *bytes = take(reader, block_size(header, time_size));

	if (bytes == NULL)
		return "the TZif file is truncated";
	if (header->leap_count > 0)
		return "it counts leap seconds, which the system's clock does not: take the zone outside right/";
	if (header->type_count == 0)
		return "the TZif file has no local time";
	zone->types = calloc(header->type_count, sizeof *zone->types);
	zone->transitions = calloc(header->transition_count + (size_t)1, sizeof *zone->transitions);
	if (zone->types == NULL || zone->transitions == NULL)
		return "out of memory";
	if (!parse_types(zone, header, bytes + header->transition_count * (time_size + 1)))
		return "the TZif file has an invalid local time";
	if (!parse_transitions(zone, header, bytes, time_size))
		return "the TZif file has an invalid transition";
	return NULL;
}

/* Parses the footer: a POSIX TZ string between line feeds. Empty: no rule for the time after the last transition.
 * Returns as parse_block. */
static const char *parse_footer(struct zone *zone, struct reader *reader)
{
	const unsigned char *start = take(reader, 1);
	const unsigned char *end = start != NULL && *start == '\n' ? memchr(reader->at, '\n', reader->left) : NULL;
	char text[TZ_RULE_MAX + 1];

	if (end == NULL || end - reader->at > TZ_RULE_MAX)
		return "the TZif file's footer is truncated";
	size_t length = (size_t)(end - reader->at);
	memcpy(text, reader->at, length);
	text[length] = '\0';
	if (length == 0)
		return NULL;
	if (strlen(text) != length || !tz_rule_parse(text, &zone->rule))
		return "the TZif file has an invalid footer";
	zone->has_rule = true;
	return NULL;
}

static const char *parse_blocks(struct zone *zone, struct reader *reader)
{
	struct header header;
	const char *reason;

	if (!take_header(reader, &header))
		return "not a TZif file";
	if (header.version < '2')
		return parse_block(zone, &header, reader, 4);
	if (take(reader, block_size(&header, 4)) == NULL || !take_header(reader, &header))
		return "the TZif file is truncated";
	reason = parse_block(zone, &header, reader, 8);
	return reason != NULL ? reason : parse_footer(zone, reader);
}

struct zone *tz_file_parse(const void *bytes, size_t length, const char **reason)
{
	struct reader reader = {.at = bytes, .left = length};
	struct zone *zone = calloc(1, sizeof *zone);

	*reason = zone != NULL ? parse_blocks(zone, &reader) : "out of memory";
	if (*reason == NULL)
		return zone;
	zone_free(zone);
	return NULL;
}
