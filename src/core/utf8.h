/* utf8.h: UTF-8 characters (RFC 3629). */
#ifndef SMALLSERVD_CORE_UTF8_H
#define SMALLSERVD_CORE_UTF8_H

#include <stddef.h>

/* Returns the length of the UTF-8 character at the start of LENGTH bytes, at least 1: shortest form, no surrogates; 0:
 * none. */
static inline size_t utf8_length(const unsigned char *at, size_t length)
{
	if (at[0] < 0x80)
		return 1;
	size_t wanted = at[0] >= 0xc2 && at[0] <= 0xdf   ? 2
			: (at[0] & 0xf0) == 0xe0         ? 3
			: at[0] >= 0xf0 && at[0] <= 0xf4 ? 4
							 : 0;
	if (wanted == 0 || wanted > length)
		return 0;
	for (size_t i = 1; i < wanted; i++)
		if ((at[i] & 0xc0) != 0x80)
			return 0;
	int overlong = (at[0] == 0xe0 && at[1] < 0xa0) || (at[0] == 0xf0 && at[1] < 0x90);
	int surrogate = at[0] == 0xed && at[1] >= 0xa0;
	int too_large = at[0] == 0xf4 && at[1] >= 0x90;
	return overlong || surrogate || too_large ? 0 : wanted;
}

#endif
