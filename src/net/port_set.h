/* port_set.h: a set of ports as a bitmap. */
#ifndef SMALLSERVD_NET_PORT_SET_H
#define SMALLSERVD_NET_PORT_SET_H

#include <stdbool.h>
#include <stdint.h>

/* Zero-initialised: the empty set. */
struct port_set {
	uint64_t bits[65536 / 64];
};

void port_set_add(struct port_set *set, uint16_t port);

/* Adds all ports of OTHER. */
void port_set_unite(struct port_set *set, const struct port_set *other);

static inline bool port_set_has(const struct port_set *set, uint16_t port)
{
	return (set->bits[port / 64] >> (port % 64)) & 1;
}

#endif
