/* sockaddr.c: an IP address and port as the kernel takes them. */
#include "net/sockaddr.h"

#include <arpa/inet.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

bool socket_find_interface(const char *zone, unsigned *index)
{
	char *end, name[IF_NAMESIZE];
	unsigned long number = zone[0] >= '1' && zone[0] <= '9' ? strtoul(zone, &end, 10) : 0;

	*index = 0;
	if (zone[0] == '\0')
		return true;
	*index = if_nametoindex(zone);
	if (*index != 0)
		return true;
	if (number == 0 || number > INT32_MAX || *end != '\0' || if_indextoname((unsigned)number, name) == NULL)
		return false;
	*index = (unsigned)number;
	return true;
}

bool socket_address_set(struct socket_address *address, int family, const void *ip, const char *zone, uint16_t port)
{
	*address = (struct socket_address){0};
	if (family == AF_INET) {
		address->v4.sin_family = AF_INET;
		address->v4.sin_port = htons(port);
		memcpy(&address->v4.sin_addr, ip, sizeof address->v4.sin_addr);
		address->length = sizeof address->v4;
		return true;
	}
	address->v6.sin6_family = AF_INET6;
	address->v6.sin6_port = htons(port);
	memcpy(&address->v6.sin6_addr, ip, sizeof address->v6.sin6_addr);
	address->length = sizeof address->v6;
	return socket_find_interface(zone, &address->v6.sin6_scope_id);
}

struct in6_addr socket_address_ip(const struct socket_address *address)
{
	struct in6_addr ip = {.s6_addr = {[10] = 0xff, [11] = 0xff}};
	if (address->any.sa_family == AF_INET6)
		return address->v6.sin6_addr;
	memcpy(&ip.s6_addr[12], &address->v4.sin_addr, sizeof address->v4.sin_addr);
	return ip;
}

struct socket_address socket_address_from_ip(const struct in6_addr *ip, uint16_t port, uint32_t scope)
{
	struct socket_address address;
	if (IN6_IS_ADDR_V4MAPPED(ip)) {
		socket_address_set(&address, AF_INET, &ip->s6_addr[12], "", port);
		return address;
	}
	socket_address_set(&address, AF_INET6, ip, "", port);
	address.v6.sin6_scope_id = scope;
	return address;
}

void socket_address_unmap(struct socket_address *address)
{
	if (address->any.sa_family != AF_INET6 || !IN6_IS_ADDR_V4MAPPED(&address->v6.sin6_addr))
		return;
	struct sockaddr_in6 mapped = address->v6;
	address->v4 = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = mapped.sin6_port};
	memcpy(&address->v4.sin_addr, &mapped.sin6_addr.s6_addr[12], sizeof address->v4.sin_addr);
	address->length = sizeof address->v4;
}

static unsigned scope_of(const struct socket_address *address)
{
	return address->any.sa_family == AF_INET6 ? address->v6.sin6_scope_id : 0;
}

int socket_address_compare(const struct socket_address *a, const struct socket_address *b)
{
	int order = a->any.sa_family - b->any.sa_family;
	if (order == 0)
		order = socket_address_port(a) - socket_address_port(b);
	if (order == 0)
		order = ip_compare(a->any.sa_family, socket_address_bytes(a), socket_address_bytes(b));
	if (order != 0 || scope_of(a) == scope_of(b))
		return order;
	return scope_of(a) < scope_of(b) ? -1 : 1;
}

bool socket_address_is_local(const struct socket_address *address)
{
	struct socket_address any_port = *address;
	int fd = socket(address->any.sa_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (address->any.sa_family == AF_INET)
		any_port.v4.sin_port = 0;
	else
		any_port.v6.sin6_port = 0;
	bool local = fd >= 0 && bind(fd, &any_port.any, any_port.length) == 0;
	if (fd >= 0)
		close(fd);
	return local;
}

void socket_address_print(const struct socket_address *address, char text[SOCKET_TEXT_SIZE])
{
	char ip[INET6_ADDRSTRLEN], zone[IF_NAMESIZE];
	unsigned port = socket_address_port(address);

	if (address->any.sa_family == AF_INET) {
		inet_ntop(AF_INET, &address->v4.sin_addr, ip, sizeof ip);
		snprintf(text, SOCKET_TEXT_SIZE, "%s:%u", ip, port);
		return;
	}
	inet_ntop(AF_INET6, &address->v6.sin6_addr, ip, sizeof ip);
	if (address->v6.sin6_scope_id == 0)
		snprintf(text, SOCKET_TEXT_SIZE, "[%s]:%u", ip, port);
	else if (if_indextoname(address->v6.sin6_scope_id, zone) != NULL)
		snprintf(text, SOCKET_TEXT_SIZE, "[%s%%%s]:%u", ip, zone, port);
	else
		snprintf(text, SOCKET_TEXT_SIZE, "[%s%%%u]:%u", ip, address->v6.sin6_scope_id, port);
}
