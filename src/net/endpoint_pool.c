/* endpoint_pool.c: open endpoints, sorted by transport and configured address. */
#include "net/endpoint_pool.h"

#include <stdlib.h>

#include "core/array.h"

struct entry {
	unsigned transport; /* a copy of the endpoint's, which may be freed once it is taken; so is WANTED */
	struct socket_address wanted;
	struct endpoint *endpoint;
	bool taken;
};

struct endpoint_pool {
	struct entry *entries;
	size_t count;
	bool sorted;
};

struct endpoint_pool *endpoint_pool_new(void)
{
	return calloc(1, sizeof(struct endpoint_pool));
}

void endpoint_pool_free(struct endpoint_pool *pool, bool owns)
{
	if (pool == NULL)
		return;
	for (size_t i = 0; owns && i < pool->count; i++)
		if (!pool->entries[i].taken)
			endpoint_free(pool->entries[i].endpoint);
	free(pool->entries);
	free(pool);
}

bool endpoint_pool_add(struct endpoint_pool *pool, struct endpoint *endpoint)
{
	struct entry *entries = array_grow(pool->entries, pool->count, sizeof *entries);

	if (entries == NULL)
		return false;
	pool->entries = entries;
	entries[pool->count++] =
		(struct entry){.transport = endpoint->transport, .wanted = endpoint->wanted, .endpoint = endpoint};
	pool->sorted = false;
	return true;
}

static int compare_entries(const void *left, const void *right)
{
	const struct entry *a = left, *b = right;
	if (a->transport != b->transport)
		return a->transport < b->transport ? -1 : 1;
	return socket_address_compare(&a->wanted, &b->wanted);
}

/* Returns the index of the first entry that is not less than KEY. */
static size_t lower_bound(struct endpoint_pool *pool, const struct entry *key)
{
	size_t from = 0, to = pool->count;

	if (!pool->sorted && pool->count > 0)
		qsort(pool->entries, pool->count, sizeof *pool->entries, compare_entries);
	pool->sorted = true;
	while (from < to) {
		size_t middle = from + (to - from) / 2;
		if (compare_entries(&pool->entries[middle], key) < 0)
			from = middle + 1;
		else
			to = middle;
	}
	return from;
}

static bool matches_interface(const struct endpoint *endpoint, const char *interface)
{
	if (interface != NULL)
		return strcmp(endpoint->interface, interface) == 0;
	return endpoint->interface[0] == '\0' || endpoint->from_listen_fds;
}

static bool matches_socket_name(const struct endpoint *endpoint, const char *name)
{
	return !endpoint->from_listen_fds || name == NULL ||
	       (endpoint->socket_name != NULL && strcmp(endpoint->socket_name, name) == 0);
}

/* Whether ENDPOINT matches WANTED, given that transport and address are equal. */
static bool matches(const struct endpoint *endpoint, const struct config_endpoint *wanted)
{
	const struct config_service *service = wanted->service;

	if (wanted->port == 0 && (endpoint->service == NULL || strcmp(endpoint->service, service->name) != 0))
		return false;
	if (endpoint->dual_stack && !wanted->from_star)
		return false;
	return matches_interface(endpoint, service->interface) && matches_socket_name(endpoint, service->socket_name);
}

static struct entry *find(struct endpoint_pool *pool, const struct config_endpoint *wanted)
{
	struct entry key = {.transport = wanted->transport};
	if (pool->count == 0 || !endpoint_find_address(wanted, &key.wanted))
		return NULL;
	for (size_t i = lower_bound(pool, &key); i < pool->count; i++) {
		struct entry *entry = &pool->entries[i];
		if (compare_entries(entry, &key) != 0)
			return NULL;
		if (!entry->taken && matches(entry->endpoint, wanted))
			return entry;
	}
	return NULL;
}

struct endpoint *endpoint_pool_take(struct endpoint_pool *pool, const struct config_endpoint *wanted)
{
	struct entry *entry = find(pool, wanted);
	if (entry == NULL)
		return NULL;
	entry->taken = true;
	return entry->endpoint;
}

bool endpoint_pool_is_covered(struct endpoint_pool *pool, const struct config_endpoint *wanted)
{
	struct config_endpoint v6_half = *wanted;
	if (!wanted->from_star || wanted->address.family != AF_INET || wanted->port == 0)
		return false;
	v6_half.address = (struct option_address){.family = AF_INET6, .ip.v6 = in6addr_any};
	const struct entry *entry = find(pool, &v6_half);
	return entry != NULL && entry->endpoint->dual_stack;
}

struct endpoint *endpoint_pool_next(struct endpoint_pool *pool, size_t *index)
{
	while (*index < pool->count) {
		const struct entry *entry = &pool->entries[(*index)++];
		if (!entry->taken)
			return entry->endpoint;
	}
	return NULL;
}
