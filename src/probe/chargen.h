/* chargen.h: the pattern of a character generator (RFC 864). */
#ifndef SMALLSERVD_PROBE_CHARGEN_H
#define SMALLSERVD_PROBE_CHARGEN_H

#include <stddef.h>

#define CHARGEN_RIGHT SIZE_MAX

/* Returns the offset of the first of LENGTH bytes that breaks the pattern, or CHARGEN_RIGHT. Lines have 72 characters
 * and CR LF; each begins one character further in the ring of the 95 printable ones. The first line may begin anywhere,
 * as servers do over UDP, and the last may be cut. */
size_t chargen_difference(const char *bytes, size_t length);

#endif
