/* ini.h: an INI file as sections, keys and values with their line numbers. */
#ifndef SMALLSERVD_CONFIG_INI_H
#define SMALLSERVD_CONFIG_INI_H

#include <stddef.h>

/* `key = value`: the value trimmed, without its comment, with its double quotes. */
struct ini_entry {
	char *key;
	char *value;
	unsigned line;
};

struct ini_section {
	char *name; /* of [A-Za-z0-9_.-]{1,48} */
	unsigned line;
	struct ini_entry *entries;
	size_t entry_count;
};

/* A file in its order; sections and keys may repeat. */
struct ini {
	struct ini_section *sections;
	size_t section_count;
};

/* Called for each error, in the order of the lines. LINE 0: the whole file. SECTION and KEY of the error, or NULL.
 * Texts are valid during the call. */
typedef void (*ini_on_error)(void *context, unsigned line, const char *section, const char *key, const char *message);

/* Reads the file PATH, as text_file_open opens it. Returns all that could be parsed, for ini_free, also after errors;
 * NULL if the file cannot be read, or when out of memory. */
struct ini *ini_read_file(const char *path, ini_on_error on_error, void *context);

/* Reads any kind of file, also a pipe or a device, and waits for its end; `-` is standard input. Otherwise as
 * ini_read_file. */
struct ini *ini_read_input(const char *path, ini_on_error on_error, void *context);

/* Reads LENGTH bytes of memory. Otherwise as ini_read_file. */
struct ini *ini_read_memory(const char *bytes, size_t length, ini_on_error on_error, void *context);

void ini_free(struct ini *ini);

#endif
