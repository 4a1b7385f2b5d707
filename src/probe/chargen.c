/* chargen.c: the pattern of a character generator (RFC 864). */
#include "probe/chargen.h"

#include <stdint.h>

enum { RING_FIRST = ' ', RING_SIZE = 95, LINE_LENGTH = 72, LINE_SIZE = LINE_LENGTH + 2 };

size_t chargen_difference(const char *bytes, size_t length)
{
	unsigned first = length > 0 ? (unsigned char)bytes[0] - RING_FIRST : 0;

	if (first >= RING_SIZE)
		return 0;
	for (size_t i = 0; i < length; i++) {
		size_t line = i / LINE_SIZE, column = i % LINE_SIZE;
		char expected = (char)(RING_FIRST + (first + line + column) % RING_SIZE);

		if (column == LINE_LENGTH)
			expected = '\r';
		else if (column == LINE_LENGTH + 1)
			expected = '\n';
		if (bytes[i] != expected)
			return i;
	}
	return CHARGEN_RIGHT;
}
