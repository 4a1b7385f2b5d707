/* array.h: the number of elements of an array. */
#ifndef SMALLSERVD_CORE_ARRAY_H
#define SMALLSERVD_CORE_ARRAY_H

#define COUNT_OF(array) (sizeof(array) / sizeof((array)[0]))

#endif
