/* text_file.h: a file of text that nobody has to be waited for. */
#ifndef SMALLSERVD_CORE_TEXT_FILE_H
#define SMALLSERVD_CORE_TEXT_FILE_H

#include <stdio.h>

/* The daemon reads files while it serves: one without a bound would be waited for, and could take all memory. */
enum { TEXT_FILE_MAX_BYTES = 64 * 1024 * 1024 };

/* Opens the file at PATH for reading, and never waits: it has to be a regular file, or /dev/null, which is an empty one, and
 * not over TEXT_FILE_MAX_BYTES.
 * The caller closes it. NULL: REASON says why, and lasts until the next call of strerror. */
FILE *text_file_open(const char *path, const char **reason);

#endif
