/* ip.h: classes and order of IP addresses, given by their family and bytes. */
#ifndef SMALLSERVD_CORE_IP_H
#define SMALLSERVD_CORE_IP_H

#include <netinet/in.h>
#include <stdbool.h>
#include <string.h>

/* IP is a struct in_addr of AF_INET or a struct in6_addr of AF_INET6. */

static inline bool ip_is_multicast(int family, const void *ip)
{
	if (family == AF_INET)
		return IN_MULTICAST(ntohl(((const struct in_addr *)ip)->s_addr));
	return IN6_IS_ADDR_MULTICAST((const struct in6_addr *)ip);
}

static inline bool ip_is_wildcard(int family, const void *ip)
{
	if (family == AF_INET)
		return ((const struct in_addr *)ip)->s_addr == htonl(INADDR_ANY);
	return IN6_IS_ADDR_UNSPECIFIED((const struct in6_addr *)ip);
}

/* Returns an integer below, equal to or above 0, as memcmp. */
static inline int ip_compare(int family, const void *a, const void *b)
{
	return memcmp(a, b, family == AF_INET ? sizeof(struct in_addr) : sizeof(struct in6_addr));
}

#endif
