/* port_set.h: a set of ports as a bitmap. */
#ifndef SMALLSERVD_CORE_PORT_SET_H
#define SMALLSERVD_CORE_PORT_SET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Zero-initialised: the empty set. */
struct port_set {
	uint64_t bits[65536 / 64];
};

static inline void port_set_add(struct port_set *set, uint16_t port)
{
	set->bits[port / 64] |= UINT64_C(1) << (port % 64);
}

static inline bool port_set_has(const struct port_set *set, uint16_t port)
{
	return (set->bits[port / 64] >> (port % 64)) & 1;
}

/* Adds all ports of OTHER. */
static inline void port_set_unite(struct port_set *set, const struct port_set *other)
{
	for (size_t word = 0; word < sizeof set->bits / sizeof *set->bits; word++)
		set->bits[word] |= other->bits[word];
}

#endif
