/* acl.c: which address is allowed and which is denied, by the most specific prefix. */
#include "net/acl.h"

#include <endian.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { BITS = 128 };

__extension__ typedef unsigned __int128 number;

/* Prefixes nest and never cross, so the rules cut all addresses into ranges with one answer each. */
struct range {
	number first; /* up to the next range's first */
	bool allow;
};

struct acl {
	size_t count; /* at least 1: the first range begins at :: */
	struct range ranges[];
};

/* A rule as an interval. */
struct span {
	number first, last;
	unsigned length;
	size_t order;
	bool allow;
};

static number to_number(const struct in6_addr *address)
{
	uint64_t halves[2];
	memcpy(halves, address, sizeof halves);
	return (number)be64toh(halves[0]) << 64 | be64toh(halves[1]);
}

static struct in6_addr to_address(number value)
{
	uint64_t halves[2] = {htobe64((uint64_t)(value >> 64)), htobe64((uint64_t)value)};
	struct in6_addr address;
	memcpy(&address, halves, sizeof address);
	return address;
}

/* The bits beyond the first LENGTH. */
static number rest_of(unsigned length)
{
	return length >= BITS ? 0 : ~(number)0 >> length;
}

struct in6_addr acl_mask(const struct in6_addr *address, unsigned length)
{
	return to_address(to_number(address) & ~rest_of(length));
}

/* Outer spans before the inner ones that begin with them; of equal ones the later rule last. */
static int compare_spans(const void *a, const void *b)
{
	const struct span *left = a, *right = b;
	if (left->first != right->first)
		return left->first < right->first ? -1 : 1;
	if (left->length != right->length)
		return left->length < right->length ? -1 : 1;
	return left->order < right->order ? -1 : 1;
}

static void add_range(struct acl *map, number first, bool allow)
{
	if (map->count > 0 && map->ranges[map->count - 1].first == first)
		map->count--; /* what began here too is less specific, and all covered */
	if (map->count > 0 && map->ranges[map->count - 1].allow == allow)
		return;
	map->ranges[map->count++] = (struct range){.first = first, .allow = allow};
}

/* Walks the spans from left to right; OPEN holds those around the current place, the innermost last. */
static void cut_ranges(struct acl *map, const struct span *spans, size_t count, const struct span **open,
		       bool unmatched)
{
	size_t depth = 0;
	add_range(map, 0, unmatched);
	for (size_t i = 0; i <= count; i++) {
		while (depth > 0 && (i == count || open[depth - 1]->last < spans[i].first)) {
			const struct span *ended = open[--depth];
			if (ended->last != ~(number)0)
				add_range(map, ended->last + 1, depth > 0 ? open[depth - 1]->allow : unmatched);
		}
		if (i < count) {
			add_range(map, spans[i].first, spans[i].allow);
			open[depth++] = &spans[i];
		}
	}
}

struct acl *acl_new(const struct acl_rule *rules, size_t count, bool unmatched)
{
	struct acl *map = calloc(1, sizeof *map + (2 * count + 1) * sizeof *map->ranges);
	struct span *spans = calloc(count + 1, sizeof *spans);
	const struct span **open = calloc(count + 1, sizeof *open);

	if (map == NULL || spans == NULL || open == NULL) {
		free(map);
		map = NULL;
		goto done;
	}
	for (size_t i = 0; i < count; i++) {
		number first = to_number(&rules[i].address);
		spans[i] = (struct span){
			.first = first,
			.last = first | rest_of(rules[i].length),
			.length = rules[i].length,
			.order = i,
			.allow = rules[i].allow,
		};
	}
	qsort(spans, count, sizeof *spans, compare_spans);
	cut_ranges(map, spans, count, open, unmatched);
done:
	free(spans);
	free(open);
	return map;
}

void acl_free(struct acl *map)
{
	free(map);
}

bool acl_allows(const struct acl *map, const struct in6_addr *address)
{
	number value = to_number(address);
	size_t low = 0, high = map->count; /* ranges[low].first <= value < ranges[high].first */
	while (high - low > 1) {
		size_t middle = low + (high - low) / 2;
		if (map->ranges[middle].first <= value)
			low = middle;
		else
			high = middle;
	}
	return map->ranges[low].allow;
}
