/* text_file.h: a file of text that nobody has to be waited for. */
#ifndef SMALLSERVD_TEXT_FILE_H
#define SMALLSERVD_TEXT_FILE_H

#include <stdio.h>

/* Opens the file at PATH for reading, and never waits: it has to be a regular file, or /dev/null, which is an empty one.
 * The caller closes it. NULL: REASON says why, and lasts until the next call of strerror. */
FILE *text_file_open(const char *path, const char **reason);

#endif
