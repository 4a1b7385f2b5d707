/* ini.c: an INI file, read with inih, as sections, keys and values with their true lines. */
#include "config/ini.h"

#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <ini.h>

#include "core/text_file.h"

enum {
	LINE_MAX_BYTES = 4096,
	FILE_MAX_BYTES = 16 * 1024 * 1024,
	NAME_MAX_BYTES = 48, /* inih would cut a longer one */
	SHOWN_BYTES = 60,
	MESSAGE_SIZE = 512,
};

static const char byte_order_mark[] = "\xef\xbb\xbf";
static const char name_bytes[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-";

/* A part of the file. */
struct span {
	const char *start, *end;
};

/* inih calls on_read for each line and on_entry for each key; between the two the value waits here, because inih
 * would cut it at 199 bytes and at a `;` within quotes. */
struct parser {
	struct ini *ini;
	struct span rest; /* not read yet */
	unsigned line;
	struct ini_section *section; /* where keys go now; NULL: nowhere */
	bool lost;                   /* nowhere because of a header that could not be understood */
	struct span value;
	bool out_of_memory;
	ini_on_error on_error;
	void *context;
};

static void complain(const struct parser *parser, const char *key, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

static void complain(const struct parser *parser, const char *key, const char *format, ...)
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

/* SPAN up to its comment, which needs white space before it. */
static struct span without_comment(struct span span)
{
	for (const char *at = span.start + 1; at < span.end; at++)
		if (is_comment_sign(*at) && is_blank(at[-1]))
			return (struct span){span.start, at};
	return span;
}

/* Is there nothing to read in SPAN, the end of a line? A comment needs white space before it here too. */
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

/* SPAN for a message: short, never cut within a character, a tab as a blank. */
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

/* The length of the UTF-8 character that SPAN starts with, as in RFC 3629; 0 when there is none. */
static size_t character_length(struct span span)
{
	static const struct {
		uint8_t first, last; /* of the first byte */
		uint8_t low, high;   /* of the second one */
		size_t length;
	} forms[] = {
		{0x00, 0x7f, 0x00, 0x00, 1}, {0xc2, 0xdf, 0x80, 0xbf, 2}, {0xe0, 0xe0, 0xa0, 0xbf, 3},
		{0xe1, 0xec, 0x80, 0xbf, 3}, {0xed, 0xed, 0x80, 0x9f, 3}, {0xee, 0xef, 0x80, 0xbf, 3},
		{0xf0, 0xf0, 0x90, 0xbf, 4}, {0xf1, 0xf3, 0x80, 0xbf, 4}, {0xf4, 0xf4, 0x80, 0x8f, 4},
	};
	const uint8_t *byte = (const uint8_t *)span.start;
	size_t form = 0;

	while (form < sizeof forms / sizeof forms[0] && (byte[0] < forms[form].first || byte[0] > forms[form].last))
		form++;
	if (form == sizeof forms / sizeof forms[0] || forms[form].length > length_of(span))
		return 0;
	if (forms[form].length > 1 && (byte[1] < forms[form].low || byte[1] > forms[form].high))
		return 0;
	for (size_t i = 2; i < forms[form].length; i++)
		if ((byte[i] & 0xc0) != 0x80)
			return 0;
	return forms[form].length;
}

static bool is_control(struct span character)
{
	uint8_t first = (uint8_t)character.start[0];
	if (length_of(character) == 1)
		return (first < 0x20 && first != '\t') || first == 0x7f;
	return first == 0xc2 && (uint8_t)character.start[1] < 0xa0;
}

/* What no line may hold, in its comments neither. */
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

/* An array that doubles at each power of two: ARRAY of COUNT elements, with room for one more; NULL: out of memory. */
static void *grow(void *array, size_t count, size_t element_size)
{
	if (count & (count - 1))
		return array;
	return reallocarray(array, count ? 2 * count : 1, element_size);
}

static bool add_section(struct parser *parser, struct span name)
{
	struct ini *ini = parser->ini;
	struct ini_section *sections = grow(ini->sections, ini->section_count, sizeof *sections);
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

/* Takes `[name]`. A header that is wrong still gets its section where the name is plain, so that the keys below it
 * are checked, and never fall into the section above. */
static bool take_header(struct parser *parser, struct span line, char *shown, size_t size)
{
	const char *bracket = find_byte(line, ']');
	struct span name = {line.start + 1, bracket != NULL ? bracket : without_comment(line).end};

	parser->section = NULL;
	parser->lost = true;
	if (bracket == NULL)
		complain(parser, NULL, "section header without \"]\": \"%s\"", show(line).text);
	else if (!is_blank_or_comment((struct span){bracket + 1, line.end}))
		complain(parser, NULL, "text after \"]\": \"%s\"", show(line).text);
	else if (!is_name(name))
		complain(parser, NULL, "bad section name \"%s\": 1 to %d letters, digits, \"_\", \".\" and \"-\"",
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

/* Says what is wrong with a line that has no `key =`. */
static void complain_of_key(const struct parser *parser, struct span line, struct span key, const char *equals)
{
	const char *colon = find_byte(key, ':');
	struct span before_colon = trim((struct span){key.start, colon != NULL ? colon : key.start});

	if (is_name(before_colon))
		complain(parser, NULL, "\":\" after a key: write \"%s = %s\"", show(before_colon).text,
			 show(trim((struct span){colon + 1, equals != NULL ? line.end : key.end})).text);
	else if (equals == NULL)
		complain(parser, NULL, "no \"=\" in \"%s\": a line is \"key = value\"", show(key).text);
	else if (key.start == key.end)
		complain(parser, NULL, "no key before \"=\"");
	else
		complain(parser, NULL, "bad key \"%s\": 1 to %d letters, digits, \"_\", \".\" and \"-\"",
			 show(key).text, NAME_MAX_BYTES);
}

/* Finds the value in AFTER, the rest of the line from its `=` on. */
static bool take_value(struct parser *parser, const char *key, struct span after)
{
	struct span text = trim((struct span){after.start + 1, after.end});

	if (text.start < text.end && *text.start == '"') {
		const char *quote = find_byte((struct span){text.start + 1, text.end}, '"');
		if (quote == NULL) {
			complain(parser, key, "unclosed quote");
			return false;
		}
		if (!is_blank_or_comment((struct span){quote + 1, text.end})) {
			complain(parser, key, "text after the closing quote");
			return false;
		}
		parser->value = (struct span){text.start, quote + 1};
		return true;
	}

	text = without_comment(after);
	parser->value = trim((struct span){text.start + 1, text.end});
	if (parser->value.start == parser->value.end)
		complain(parser, key, "empty value");
	else if (find_byte(parser->value, '"') != NULL)
		complain(parser, key, "a quote inside a value: quotes go around the whole of it");
	else
		return true;
	return false;
}

/* Takes `key = value`. */
static bool take_entry(struct parser *parser, struct span line, char *shown, size_t size)
{
	struct span key = without_comment(line);
	const char *equals = find_byte(key, '=');
	key = trim((struct span){key.start, equals != NULL ? equals : key.end});
	if (equals == NULL || !is_name(key)) {
		complain_of_key(parser, line, key, equals);
		return false;
	}

	struct shown name = show(key);
	if (!take_value(parser, name.text, (struct span){equals, line.end}))
		return false;
	if (parser->section == NULL) {
		if (!parser->lost)
			complain(parser, name.text, "a key before any section");
		return false;
	}
	snprintf(shown, size, "%s=+\n", name.text);
	return true;
}

/* Checks LINE and keeps what inih is not to see of it. True: SHOWN is the line for inih. */
static bool take_line(struct parser *parser, struct span line, char *shown, size_t size)
{
	const char *damage = find_damage(line);
	line = trim(line);
	bool header = line.start < line.end && *line.start == '[';

	if (damage != NULL) {
		if (header) {
			parser->section = NULL;
			parser->lost = true;
		}
		complain(parser, NULL, "%s", damage);
		return false;
	}
	if (line.start == line.end || is_comment_sign(*line.start))
		return false;
	return header ? take_header(parser, line, shown, size) : take_entry(parser, line, shown, size);
}

/* The next line, without its end. */
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
		if (take_line(parser, next_line(parser), shown, (size_t)size))
			return shown;
	return NULL;
}

static int on_entry(void *user, const char *section_name, const char *key, const char *shown)
{
	struct parser *parser = user;
	struct ini_section *section = parser->section;
	/* inih cuts names and values, and knows nothing of sections without keys: ours are whole */
	(void)section_name;
	(void)shown;

	struct ini_entry *entries = grow(section->entries, section->entry_count, sizeof *entries);
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
		complain(&parser, NULL, "over 16 MiB");
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

/* All of FILE, in *BYTES for the caller to free, but not much over FILE_MAX_BYTES: /dev/zero has no end. False: errno
 * tells why. */
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

/* Reads FILE, if there is one, else WRONG says why there is none. */
static struct ini *read_stream(FILE *file, const char *wrong, ini_on_error on_error, void *context)
{
	struct parser parser = {.on_error = on_error, .context = context};
	struct ini *ini = NULL;
	char *bytes = NULL;
	size_t length = 0;

	if (file != NULL && !read_all(file, &bytes, &length))
		wrong = strerror(errno);
	if (wrong != NULL)
		complain(&parser, NULL, "cannot read: %s", wrong);
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
