/* acl.h: access control lists: the most specific prefix decides. */
#ifndef SMALLSERVD_CORE_ACL_H
#define SMALLSERVD_CORE_ACL_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>

/* All addresses are IPv6, with IPv4 mapped into ::ffff:0:0/96. */

/* Returns ADDRESS with all bits after the first LENGTH cleared. */
struct in6_addr acl_mask(const struct in6_addr *address, unsigned length);

/* Allows or denies a prefix. The bits of ADDRESS after the first LENGTH are zero. */
struct acl_rule {
	struct in6_addr address;
	unsigned length; /* 0 to 128; IPv4's /0 is 96 */
	bool allow;
};

struct acl;

/* Returns an ACL of COUNT RULES; NULL when out of memory. An address that no rule matches gets the answer UNMATCHED.
 * The last of rules with the same prefix applies. */
struct acl *acl_new(const struct acl_rule *rules, size_t count, bool unmatched);
void acl_free(struct acl *acl);

/* Returns whether the most specific rule that matches ADDRESS allows it. A binary search. Any thread. */
bool acl_allows(const struct acl *acl, const struct in6_addr *address);

#endif
