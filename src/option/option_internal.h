/* option_internal.h: helpers of the option types. */
#ifndef SMALLSERVD_OPTION_OPTION_INTERNAL_H
#define SMALLSERVD_OPTION_OPTION_INTERNAL_H

#include <stdbool.h>
#include <stddef.h>

struct option;

/* Writes the reason to ERROR (OPTION_ERROR_SIZE bytes). Returns false, so that a parser can return it. */
bool option_fail(char *error, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Appends the nearest of COUNT words, if any, to the reason in ERROR. Returns false. */
bool option_fail_near(char *error, const char *text, const char *const *words, size_t count);

/* Returns whether TEXT is the word of OPTION. */
bool option_is_word(const struct option *option, const char *text);

/* Returns TEXT without the blanks at both ends; overwrites those behind it. */
char *option_trim(char *text);

/* Adds one item of a list to FIELD. On failure returns false with the reason in ERROR. */
typedef bool option_add_item(const char *item, void *field, char *error);

/* Parses TEXT, items separated by commas, into FIELD; the word of OPTION is the empty list. On failure returns false
 * with the reason in ERROR and frees FIELD. */
bool option_parse_list(const struct option *option, const char *text, void *field, char *error, option_add_item *add);

#endif
