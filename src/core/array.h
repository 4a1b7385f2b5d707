/* array.h: the number of elements of an array, and growing arrays. */
#ifndef SMALLSERVD_CORE_ARRAY_H
#define SMALLSERVD_CORE_ARRAY_H

#include <stddef.h>
#include <stdlib.h>

#define COUNT_OF(array) (sizeof(array) / sizeof((array)[0]))

/* Makes room for one more element in ARRAY of COUNT elements (NULL: none), all appended with this function: it doubles
 * the array at each power of two. Returns the array, which may have moved; NULL when out of memory, with ARRAY still
 * valid. Any thread. */
static inline void *array_grow(void *array, size_t count, size_t element_size)
{
	if (count & (count - 1))
		return array;
	return reallocarray(array, count ? 2 * count : 1, element_size);
}

#endif
