/* text_file.h: opens text files without blocking. */
#ifndef SMALLSERVD_CORE_TEXT_FILE_H
#define SMALLSERVD_CORE_TEXT_FILE_H

#include <stdio.h>

/* Bounds the time and memory of reading a file, as the daemon reads files while it serves clients. */
enum { TEXT_FILE_MAX_BYTES = 64 * 1024 * 1024 };

/* Opens PATH, a regular file of at most TEXT_FILE_MAX_BYTES or /dev/null, for reading; never blocks. The caller closes
 * it. Returns NULL on failure, with the error text in REASON, valid until the next strerror. */
FILE *text_file_open(const char *path, const char **reason);

#endif
