/* ini.c: an INI file, read with inih, as sections, keys and values with their line numbers. */
#include "config/ini.h"

#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <ini.h>

#include "core/array.h"
#include "core/text_file.h"
#include "core/utf8.h"

enum {
	LINE_MAX_BYTES = 4096,
	FILE_MAX_BYTES = 16 * 1024 * 1024,
	NAME_MAX_BYTES = 48, /* inih truncates longer ones */
	SHOWN_BYTES = 60,
	MESSAGE_SIZE = 512,
};

static const char byte_order_mark[] = "\xef\xbb\xbf";
static const char name_bytes[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-";

/* A part of the file. */
struct span {
	const char *start, *end;
};

/* State between the callbacks of inih, on_read for each line and on_entry for each key. The value waits here, as inih
 * would truncate it at 199 bytes and at a `;` within quotes. */
struct parser {
	struct ini *ini;
	struct span rest; /* unread */
	unsigned line;
	struct ini_section *section; /* the section of further keys; NULL: none */
	bool lost;                   /* after an invalid header */
	struct span value;
	bool out_of_memory;
	ini_on_error on_error;
	void *context;
};

static void report_error(const struct parser *parser, const char *key, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

static void report_error(const struct parser *parser, const char *key, const char *format, ...)
{
	char message[MESSAGE_SIZE];
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(message, sizeof message, format, arguments);
	va_end(arguments);
	parser->on_error(parser->context, parser->line, parser->section != NULL ? parser->section->name : NULL, key,
			 message);
}

static size_t length_of(struct span span)
{
	return (size_t)(span.end - span.start);
}

static bool is_blank(char byte)
{
	return byte == ' ' || byte == '\t';
}

static bool is_comment_sign(char byte)
{
	return byte == '#' || byte == ';';
}

static const char *find_byte(struct span span, char byte)
{
	return memchr(span.start, byte, length_of(span));
}

static struct span trim(struct span span)
{
	while (span.start < span.end && is_blank(*span.start))
		span.start++;
	while (span.start < span.end && is_blank(span.end[-1]))
		span.end--;
	return span;
}

/* Returns SPAN up to its comment, which needs white space before it. */
static struct span without_comment(struct span span)
{
	for (const char *at = span.start + 1; at < span.end; at++)
		if (is_comment_sign(*at) && is_blank(at[-1]))
			return (struct span){span.start, at};
	return span;
}

/* Returns whether SPAN, the end of a line, is blank or a comment, which needs white space before it. */
static bool is_blank_or_comment(struct span span)
{
	struct span text = trim(span);
	return text.start == text.end || (is_comment_sign(*text.start) && is_blank(*span.start));
}

static bool is_name(struct span span)
{
	if (span.start == span.end || length_of(span) > NAME_MAX_BYTES)
		return false;
	for (const char *at = span.start; at < span.end; at++)
		if (find_byte((struct span){name_bytes, name_bytes + sizeof name_bytes - 1}, *at) == NULL)
			return false;
	return true;
}

struct shown {
	char text[SHOWN_BYTES + sizeof("...")];
};

/* Shortens SPAN for a message, at a character boundary, with blanks for tabs. */
static struct shown show(struct span span)
{
	struct shown shown;
	size_t length = length_of(span) < SHOWN_BYTES ? length_of(span) : SHOWN_BYTES;

	while (length > 0 && length < length_of(span) && (span.start[length] & 0xc0) == 0x80)
		length--;
	snprintf(shown.text, sizeof shown.text, "%.*s%s", (int)length, span.start,
		 length < length_of(span) ? "..." : "");
	for (char *tab = shown.text; (tab = strchr(tab, '\t'));)
		*tab = ' ';
	return shown;
}

static size_t character_length(struct span span)
{
	return utf8_length((const unsigned char *)span.start, length_of(span));
}

static bool is_control(struct span character)
{
	uint8_t first = (uint8_t)character.start[0];
	if (length_of(character) == 1)
		return (first < 0x20 && first != '\t') || first == 0x7f;
	return first == 0xc2 && (uint8_t)character.start[1] < 0xa0;
}

/* Returns the reason why LINE is invalid, also in a comment, or NULL. */
static const char *find_damage(struct span line)
{
	if (length_of(line) > LINE_MAX_BYTES)
		return "line over 4096 bytes";
	while (line.start < line.end) {
		size_t length = character_length(line);
		if (length == 0)
			return "invalid UTF-8";
		if (*line.start == '\0')
			return "NUL byte";
		if (is_control((struct span){line.start, line.start + length}))
			return "control character";
		line.start += length;
	}
	return NULL;
}

static bool add_section(struct parser *parser, struct span name)
{
	struct ini *ini = parser->ini;
	struct ini_section *sections = array_grow(ini->sections, ini->section_count, sizeof *sections);
	if (sections == NULL)
		return false;
	ini->sections = sections;

	char *copy = strndup(name.start, length_of(name));
	if (copy == NULL)
		return false;
	parser->section = &sections[ini->section_count++];
	*parser->section = (struct ini_section){.name = copy, .line = parser->line};
	return true;
}

/* Reads `[name]`. An invalid header with a plain name still starts its section, so that the keys below are checked and
 * do not fall into the section above. */
static bool read_header(struct parser *parser, struct span line, char *shown, size_t size)
{
	const char *bracket = find_byte(line, ']');
	struct span name = {line.start + 1, bracket != NULL ? bracket : without_comment(line).end};

	parser->section = NULL;
	parser->lost = true;
	if (bracket == NULL)
		report_error(parser, NULL, "section header without \"]\": \"%s\"", show(line).text);
	else if (!is_blank_or_comment((struct span){bracket + 1, line.end}))
		report_error(parser, NULL, "text after \"]\": \"%s\"", show(line).text);
	else if (!is_name(name))
		report_error(parser, NULL, "bad section name \"%s\": 1 to %d letters, digits, \"_\", \".\" and \"-\"",
			     show(name).text, NAME_MAX_BYTES);

	name = trim(name);
	if (!is_name(name))
		return false;
	if (!add_section(parser, name)) {
		parser->out_of_memory = true;
		return false;
	}
	snprintf(shown, size, "[%s]\n", parser->section->name);
	return true;
}

/* Reports a line without `key =`. */
static void report_key(const struct parser *parser, struct span line, struct span key, const char *equals)
{
	const char *colon = find_byte(key, ':');
	struct span before_colon = trim((struct span){key.start, colon != NULL ? colon : key.start});

	if (is_name(before_colon))
		report_error(parser, NULL, "\":\" after a key: write \"%s = %s\"", show(before_colon).text,
			     show(trim((struct span){colon + 1, equals != NULL ? line.end : key.end})).text);
	else if (equals == NULL)
		report_error(parser, NULL, "no \"=\" in \"%s\": a line is \"key = value\"", show(key).text);
	else if (key.start == key.end)
		report_error(parser, NULL, "no key before \"=\"");
	else
		report_error(parser, NULL, "bad key \"%s\": 1 to %d letters, digits, \"_\", \".\" and \"-\"",
			     show(key).text, NAME_MAX_BYTES);
}

/* Reads the value in AFTER, the rest of the line from its `=` on. */
static bool read_value(struct parser *parser, const char *key, struct span after)
{
	struct span text = trim((struct span){after.start + 1, after.end});

	if (text.start < text.end && *text.start == '"') {
		const char *quote = find_byte((struct span){text.start + 1, text.end}, '"');
		if (quote == NULL) {
			report_error(parser, key, "unclosed quote");
			return false;
		}
		if (!is_blank_or_comment((struct span){quote + 1, text.end})) {
			report_error(parser, key, "text after the closing quote");
			return false;
		}
		parser->value = (struct span){text.start, quote + 1};
		return true;
	}

	text = without_comment(after);
	parser->value = trim((struct span){text.start + 1, text.end});
	if (parser->value.start == parser->value.end)
		report_error(parser, key, "empty value");
	else if (find_byte(parser->value, '"') != NULL)
		report_error(parser, key, "a quote inside a value: quotes go around the whole of it");
	else
		return true;
	return false;
}

/* Reads `key = value`. */
static bool read_entry(struct parser *parser, struct span line, char *shown, size_t size)
{
	struct span key = without_comment(line);
	const char *equals = find_byte(key, '=');
	key = trim((struct span){key.start, equals != NULL ? equals : key.end});
	if (equals == NULL || !is_name(key)) {
		report_key(parser, line, key, equals);
		return false;
	}

	struct shown name = show(key);
	if (!read_value(parser, name.text, (struct span){equals, line.end}))
		return false;
	if (parser->section == NULL) {
		if (!parser->lost)
			report_error(parser, name.text, "a key before any section");
		return false;
	}
	snprintf(shown, size, "%s=+\n", name.text);
	return true;
}

/* Checks LINE and keeps the parts that inih must not see. Returns whether SHOWN is a line for inih. */
static bool read_line(struct parser *parser, struct span line, char *shown, size_t size)
{
	const char *damage = find_damage(line);
	line = trim(line);
	bool header = line.start < line.end && *line.start == '[';

	if (damage != NULL) {
		if (header) {
			parser->section = NULL;
			parser->lost = true;
		}
		report_error(parser, NULL, "%s", damage);
		return false;
	}
	if (line.start == line.end || is_comment_sign(*line.start))
		return false;
	return header ? read_header(parser, line, shown, size) : read_entry(parser, line, shown, size);
}

/* Returns the next line, without its end. */
static struct span next_line(struct parser *parser)
{
	const char *newline = find_byte(parser->rest, '\n');
	struct span line = {parser->rest.start, newline != NULL ? newline : parser->rest.end};

	parser->rest.start = newline != NULL ? newline + 1 : parser->rest.end;
	parser->line++;
	if (line.start < line.end && line.end[-1] == '\r')
		line.end--;
	return line;
}

static char *on_read(char *shown, int size, void *stream)
{
	struct parser *parser = stream;
	while (parser->rest.start < parser->rest.end && !parser->out_of_memory)
		if (read_line(parser, next_line(parser), shown, (size_t)size))
			return shown;
	return NULL;
}

static int on_entry(void *user, const char *section_name, const char *key, const char *shown)
{
	struct parser *parser = user;
	struct ini_section *section = parser->section;
	/* inih truncates names and values, and drops sections without keys: the parser has its own */
	(void)section_name;
	(void)shown;

	struct ini_entry *entries = array_grow(section->entries, section->entry_count, sizeof *entries);
	if (entries != NULL)
		section->entries = entries;
	struct ini_entry entry = {strdup(key), strndup(parser->value.start, length_of(parser->value)), parser->line};
	if (entries == NULL || entry.key == NULL || entry.value == NULL) {
		free(entry.key);
		free(entry.value);
		parser->out_of_memory = true;
		return 0;
	}
	entries[section->entry_count++] = entry;
	return 1;
}

struct ini *ini_read_memory(const char *bytes, size_t length, ini_on_error on_error, void *context)
{
	struct parser parser = {.rest = {bytes, bytes + length}, .on_error = on_error, .context = context};

	if (length > FILE_MAX_BYTES) {
		report_error(&parser, NULL, "over 16 MiB");
		return NULL;
	}
	parser.ini = calloc(1, sizeof *parser.ini);
	if (parser.ini == NULL)
		goto fail;
	if (length >= 3 && memcmp(bytes, byte_order_mark, 3) == 0)
		parser.rest.start += 3;
	if (ini_parse_stream(on_read, &parser, on_entry, &parser) != 0 || parser.out_of_memory)
		goto fail;
	return parser.ini;

fail:
	ini_free(parser.ini);
	on_error(context, 0, NULL, NULL, "out of memory");
	return NULL;
}

/* Reads FILE into *BYTES, for the caller to free, up to slightly over FILE_MAX_BYTES, as /dev/zero has no end. Returns
 * false with errno. */
static bool read_all(FILE *file, char **bytes, size_t *length)
{
	size_t size = 0;

	*bytes = NULL;
	*length = 0;
	do {
		size = size ? 2 * size : 64 * 1024;
		char *larger = realloc(*bytes, size);
		if (larger == NULL)
			return false;
		*bytes = larger;
		*length += fread(*bytes + *length, 1, size - *length, file);
	} while (*length == size && *length <= FILE_MAX_BYTES);
	return !ferror(file);
}

/* Reads FILE; NULL: it was not opened, for the reason WRONG. */
static struct ini *read_stream(FILE *file, const char *wrong, ini_on_error on_error, void *context)
{
	struct parser parser = {.on_error = on_error, .context = context};
	struct ini *ini = NULL;
	char *bytes = NULL;
	size_t length = 0;

	if (file != NULL && !read_all(file, &bytes, &length))
		wrong = strerror(errno);
	if (wrong != NULL)
		report_error(&parser, NULL, "cannot read: %s", wrong);
	else
		ini = ini_read_memory(bytes, length, on_error, context);
	free(bytes);
	return ini;
}

struct ini *ini_read_file(const char *path, ini_on_error on_error, void *context)
{
	const char *wrong = NULL;
	FILE *file = text_file_open(path, &wrong);
	struct ini *ini = read_stream(file, wrong, on_error, context);

	if (file != NULL)
		fclose(file);
	return ini;
}

struct ini *ini_read_input(const char *path, ini_on_error on_error, void *context)
{
	bool standard_input = strcmp(path, "-") == 0;
	FILE *file = standard_input ? stdin : fopen(path, "re");
	struct ini *ini = read_stream(file, file != NULL ? NULL : strerror(errno), on_error, context);

	if (file != NULL && !standard_input)
		fclose(file);
	return ini;
}

void ini_free(struct ini *ini)
{
	if (ini == NULL)
		return;
	for (size_t i = 0; i < ini->section_count; i++) {
		struct ini_section *section = &ini->sections[i];
		for (size_t j = 0; j < section->entry_count; j++) {
			free(section->entries[j].key);
			free(section->entries[j].value);
		}
		free(section->entries);
		free(section->name);
	}
	free(ini->sections);
	free(ini);
}
