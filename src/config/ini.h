/* ini.h: an INI file as sections, keys and values with their true lines. */
#ifndef SMALLSERVD_CONFIG_INI_H
#define SMALLSERVD_CONFIG_INI_H

#include <stddef.h>

/* `key = value`: the value trimmed and without its comment, the double quotes around it still on. */
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

/* A file, in its order; sections and keys may repeat. */
struct ini {
	struct ini_section *sections;
	size_t section_count;
};

/* Told of each thing wrong, in the order of the lines. LINE 0: the whole file. SECTION and KEY: where it is, or NULL.
 * All text lives only as long as the call. */
typedef void (*ini_on_error)(void *context, unsigned line, const char *section, const char *key, const char *message);

/* Reads the file PATH, as text_file_open opens it. Returns whatever could be understood, for ini_free, errors or not; NULL
 * when nothing can be read at all, or memory ran out. */
struct ini *ini_read_file(const char *path, ini_on_error on_error, void *context);

/* The same from whatever PATH is, a pipe or a device too, and waits for what it has to say; `-` is standard input. */
struct ini *ini_read_input(const char *path, ini_on_error on_error, void *context);

/* The same from LENGTH bytes of memory. */
struct ini *ini_read_memory(const char *bytes, size_t length, ini_on_error on_error, void *context);

void ini_free(struct ini *ini);

#endif
