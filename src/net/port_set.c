/* port_set.c: a set of ports as a bitmap. */
#include "net/port_set.h"

#include <stddef.h>

void port_set_add(struct port_set *set, uint16_t port)
{
	set->bits[port / 64] |= UINT64_C(1) << (port % 64);
}

void port_set_unite(struct port_set *set, const struct port_set *other)
{
	for (size_t word = 0; word < sizeof set->bits / sizeof *set->bits; word++)
		set->bits[word] |= other->bits[word];
}
