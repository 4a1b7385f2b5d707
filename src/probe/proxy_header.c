/* proxy_header.c: the PROXY protocol header that a connection can begin with. */
#include "probe/proxy_header.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

struct end {
	char ip[16];
	size_t length;
	uint16_t port; /* in network order */
};

static struct end end_of(const struct sockaddr *address)
{
	struct end end = {0};

	if (address->sa_family == AF_INET6) {
		const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)(const void *)address;

		end.length = sizeof v6->sin6_addr;
		end.port = v6->sin6_port;
		memcpy(end.ip, &v6->sin6_addr, end.length);
	} else {
		const struct sockaddr_in *v4 = (const struct sockaddr_in *)(const void *)address;

		end.length = sizeof v4->sin_addr;
		end.port = v4->sin_port;
		memcpy(end.ip, &v4->sin_addr, end.length);
	}
	return end;
}

static size_t write_text(int family, const struct end *near, const struct end *far, char *bytes)
{
	char near_ip[INET6_ADDRSTRLEN], far_ip[INET6_ADDRSTRLEN];

	inet_ntop(family, near->ip, near_ip, sizeof near_ip);
	inet_ntop(family, far->ip, far_ip, sizeof far_ip);
	return (size_t)snprintf(bytes, PROXY_HEADER_MAX + 1, "PROXY TCP%c %s %s %u %u\r\n",
				family == AF_INET6 ? '6' : '4', near_ip, far_ip, (unsigned)ntohs(near->port),
				(unsigned)ntohs(far->port));
}

static size_t write_binary(int family, const struct end *near, const struct end *far, char *bytes)
{
	static const char signature[12] = "\r\n\r\n\0\r\nQUIT\n";
	enum { COMMAND_PROXY = 0x21, TCP_OVER_IPV4 = 0x11, TCP_OVER_IPV6 = 0x21 };
	uint16_t length = htons((uint16_t)(2 * near->length + 2 * sizeof near->port));
	char *at = bytes;

	at = mempcpy(at, signature, sizeof signature);
	*at++ = COMMAND_PROXY;
	*at++ = family == AF_INET6 ? TCP_OVER_IPV6 : TCP_OVER_IPV4;
	at = mempcpy(at, &length, sizeof length);
	at = mempcpy(at, near->ip, near->length);
	at = mempcpy(at, far->ip, far->length);
	at = mempcpy(at, &near->port, sizeof near->port);
	at = mempcpy(at, &far->port, sizeof far->port);
	return (size_t)(at - bytes);
}

size_t proxy_header_write(unsigned version, const struct sockaddr *near, const struct sockaddr *far, char *bytes)
{
	struct end near_end = end_of(near), far_end = end_of(far);

	return version == 1 ? write_text(near->sa_family, &near_end, &far_end, bytes)
			    : write_binary(near->sa_family, &near_end, &far_end, bytes);
}
