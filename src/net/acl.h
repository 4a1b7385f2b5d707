/* acl.h: which address is allowed and which is denied, by the most specific prefix. */
#ifndef SMALLSERVD_NET_ACL_H
#define SMALLSERVD_NET_ACL_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>

/* Addresses are IPv6 throughout, with IPv4 mapped into ::ffff:0:0/96. */

/* The first LENGTH bits of ADDRESS, with the rest zero. */
struct in6_addr acl_mask(const struct in6_addr *address, unsigned length);

/* A rule: LENGTH bits of ADDRESS decide, and the rest of ADDRESS is zero. */
struct acl_rule {
	struct in6_addr address;
	unsigned length; /* 0 to 128; IPv4's /0 is 96 */
	bool allow;
};

struct acl;

/* A map of COUNT RULES; where no rule matches, UNMATCHED is the answer. Of rules with the same prefix the last one
 * holds. NULL when out of memory. */
struct acl *acl_new(const struct acl_rule *rules, size_t count, bool unmatched);
void acl_free(struct acl *map);

/* Whether the most specific rule that ADDRESS matches allows it. Any thread; a binary search. */
bool acl_allows(const struct acl *map, const struct in6_addr *address);

#endif
