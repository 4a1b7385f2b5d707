/* endpoint_pool.h: open endpoints, from which a new configuration picks. Main thread only. */
#ifndef SMALLSERVD_NET_ENDPOINT_POOL_H
#define SMALLSERVD_NET_ENDPOINT_POOL_H

#include <stdbool.h>
#include <stddef.h>

#include "net/endpoint.h"

struct endpoint_pool;

/* Returns NULL when out of memory. */
struct endpoint_pool *endpoint_pool_new(void);

/* Frees POOL, which may be NULL; with OWNS also the endpoints that were not taken. */
void endpoint_pool_free(struct endpoint_pool *pool, bool owns);

/* Returns false when out of memory; ENDPOINT is still the caller's then. */
bool endpoint_pool_add(struct endpoint_pool *pool, struct endpoint *endpoint);

/* Takes out the endpoint that matches WANTED, or returns NULL. The result depends on the content of POOL alone, not
 * on its order. */
struct endpoint *endpoint_pool_take(struct endpoint_pool *pool, const struct config_endpoint *wanted);

/* Whether WANTED is the IPv4 half of a `*` whose IPv6 half matches a dual-stack socket, so that it needs no socket
 * of its own. */
bool endpoint_pool_is_covered(struct endpoint_pool *pool, const struct config_endpoint *wanted);

/* Returns the next endpoint that was not taken, from *INDEX on (0 at first), and moves *INDEX behind it; NULL at the
 * end. */
struct endpoint *endpoint_pool_next(struct endpoint_pool *pool, size_t *index);

#endif
