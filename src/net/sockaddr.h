/* sockaddr.h: an IP address and port as the kernel takes them. */
#ifndef SMALLSERVD_NET_SOCKADDR_H
#define SMALLSERVD_NET_SOCKADDR_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#include "core/ip.h"

struct socket_address {
	union {
		struct sockaddr any;
		struct sockaddr_in v4;
		struct sockaddr_in6 v6;
	};
	socklen_t length;
};

/* Stores the INDEX of the interface ZONE, a name or a number; 0 if ZONE is empty. Returns false if there is no such
 * interface. */
bool socket_find_interface(const char *zone, unsigned *index);

/* Fills ADDRESS from FAMILY, the bytes of the IP, the interface ZONE (empty: none) and PORT in host order. Returns
 * false if there is no such interface. */
bool socket_address_set(struct socket_address *address, int family, const void *ip, const char *zone, uint16_t port);

/* Returns the bytes of the IP, of the address's family. */
static inline const void *socket_address_bytes(const struct socket_address *address)
{
	return address->any.sa_family == AF_INET ? (const void *)&address->v4.sin_addr : &address->v6.sin6_addr;
}

/* Returns the port in host order. */
static inline uint16_t socket_address_port(const struct socket_address *address)
{
	return ntohs(address->any.sa_family == AF_INET ? address->v4.sin_port : address->v6.sin6_port);
}

static inline bool socket_address_is_wildcard(const struct socket_address *address)
{
	return ip_is_wildcard(address->any.sa_family, socket_address_bytes(address));
}

static inline bool socket_address_is_multicast(const struct socket_address *address)
{
	return ip_is_multicast(address->any.sa_family, socket_address_bytes(address));
}

static inline bool socket_address_is_broadcast(const struct socket_address *address)
{
	return address->any.sa_family == AF_INET && address->v4.sin_addr.s_addr == htonl(INADDR_BROADCAST);
}

/* Returns whether both have the same IP, whatever their ports. */
static inline bool socket_address_same_ip(const struct socket_address *a, const struct socket_address *b)
{
	return a->any.sa_family == b->any.sa_family &&
	       ip_compare(a->any.sa_family, socket_address_bytes(a), socket_address_bytes(b)) == 0;
}

/* Orders addresses by family, port, IP and interface. Returns as memcmp. */
int socket_address_compare(const struct socket_address *a, const struct socket_address *b);

/* Returns the IP as IPv6, with IPv4 mapped into ::ffff:0:0/96. */
struct in6_addr socket_address_ip(const struct socket_address *address);

/* Returns the address of IP, with IPv4 mapped into ::ffff:0:0/96, and PORT in host order; SCOPE applies to IPv6. */
struct socket_address socket_address_from_ip(const struct in6_addr *ip, uint16_t port, uint32_t scope);

/* Makes an IPv4-mapped address, which a dual-stack socket reports for an IPv4 client, an IPv4 address. */
void socket_address_unmap(struct socket_address *address);

/* Returns whether the IP is one of this host, that is, whether a socket can be bound to it. */
bool socket_address_is_local(const struct socket_address *address);

/* Writes `127.0.0.1:7` or `[::1]:7` to TEXT. */
enum { SOCKET_TEXT_SIZE = INET6_ADDRSTRLEN + 32 };
void socket_address_print(const struct socket_address *address, char text[SOCKET_TEXT_SIZE]);

#endif
