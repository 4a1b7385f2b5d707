/* acl.c: access control lists: the most specific prefix decides. */
#include "core/acl.h"

#include <endian.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { BITS = 128 };

__extension__ typedef unsigned __int128 number;

/* Prefixes nest or are disjoint, so rules divide the address space into ranges with one answer each. */
struct range {
	number first; /* the range ends before the next one's first */
	bool allow;
};

struct acl {
	size_t count; /* at least 1; the first range begins at :: */
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

/* Returns a mask of the bits after the first LENGTH. */
static number rest_of(unsigned length)
{
	return length >= BITS ? 0 : ~(number)0 >> length;
}

struct in6_addr acl_mask(const struct in6_addr *address, unsigned length)
{
	return to_address(to_number(address) & ~rest_of(length));
}

/* Orders spans by their first address. An outer span comes before an inner one, an earlier rule before a later one. */
static int compare_spans(const void *a, const void *b)
{
	const struct span *left = a, *right = b;
	if (left->first != right->first)
		return left->first < right->first ? -1 : 1;
	if (left->length != right->length)
		return left->length < right->length ? -1 : 1;
	return left->order < right->order ? -1 : 1;
}

static void add_range(struct acl *acl, number first, bool allow)
{
	if (acl->count > 0 && acl->ranges[acl->count - 1].first == first)
		acl->count--; /* the range that began here is less specific, and empty */
	if (acl->count > 0 && acl->ranges[acl->count - 1].allow == allow)
		return;
	acl->ranges[acl->count++] = (struct range){.first = first, .allow = allow};
}

/* Walks the spans in order of address. OPEN is the stack of the spans around the current address, the innermost on
 * top. */
static void cut_ranges(struct acl *acl, const struct span *spans, size_t count, const struct span **open,
		       bool unmatched)
{
	size_t depth = 0;
	add_range(acl, 0, unmatched);
	for (size_t i = 0; i <= count; i++) {
		while (depth > 0 && (i == count || open[depth - 1]->last < spans[i].first)) {
			const struct span *ended = open[--depth];
			if (ended->last != ~(number)0)
				add_range(acl, ended->last + 1, depth > 0 ? open[depth - 1]->allow : unmatched);
		}
		if (i < count) {
			add_range(acl, spans[i].first, spans[i].allow);
			open[depth++] = &spans[i];
		}
	}
}

struct acl *acl_new(const struct acl_rule *rules, size_t count, bool unmatched)
{
	struct acl *acl = calloc(1, sizeof *acl + (2 * count + 1) * sizeof *acl->ranges);
	struct span *spans = calloc(count + 1, sizeof *spans);
	const struct span **open = calloc(count + 1, sizeof *open);

	if (acl == NULL || spans == NULL || open == NULL) {
		free(acl);
		acl = NULL;
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
	cut_ranges(acl, spans, count, open, unmatched);
done:
	free(spans);
	free(open);
	return acl;
}

void acl_free(struct acl *acl)
{
	free(acl);
}

bool acl_allows(const struct acl *acl, const struct in6_addr *address)
{
	number value = to_number(address);
	size_t low = 0, high = acl->count; /* ranges[low].first <= value < ranges[high].first */
	while (high - low > 1) {
		size_t middle = low + (high - low) / 2;
		if (acl->ranges[middle].first <= value)
			low = middle;
		else
			high = middle;
	}
	return acl->ranges[low].allow;
}
