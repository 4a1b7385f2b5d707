/* socket.c: addresses, creating, binding and tuning sockets. */
#include "socket.h"

#include <arpa/inet.h>
#include <errno.h>
#include <limits.h>
#include <linux/filter.h>
#include <net/if.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { DSCP_SHIFT = 2, KEEPALIVE_PROBES = 5 };

bool socket_find_interface(const char *zone, unsigned *index)
{
	char *end, name[IF_NAMESIZE];
	unsigned long number = zone[0] >= '1' && zone[0] <= '9' ? strtoul(zone, &end, 10) : 0;

	*index = if_nametoindex(zone);
	if (*index != 0 || zone[0] == '\0')
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

uint16_t socket_address_port(const struct socket_address *address)
{
	return ntohs(address->any.sa_family == AF_INET ? address->v4.sin_port : address->v6.sin6_port);
}

bool socket_address_is_wildcard(const struct socket_address *address)
{
	if (address->any.sa_family == AF_INET)
		return address->v4.sin_addr.s_addr == htonl(INADDR_ANY);
	return IN6_IS_ADDR_UNSPECIFIED(&address->v6.sin6_addr);
}

struct in6_addr socket_address_ip(const struct socket_address *address)
{
	struct in6_addr ip = {.s6_addr = {[10] = 0xff, [11] = 0xff}};
	if (address->any.sa_family == AF_INET6)
		return address->v6.sin6_addr;
	memcpy(&ip.s6_addr[12], &address->v4.sin_addr, sizeof address->v4.sin_addr);
	return ip;
}

bool socket_address_same_ip(const struct socket_address *a, const struct socket_address *b)
{
	if (a->any.sa_family != b->any.sa_family)
		return false;
	if (a->any.sa_family == AF_INET)
		return a->v4.sin_addr.s_addr == b->v4.sin_addr.s_addr;
	return IN6_ARE_ADDR_EQUAL(&a->v6.sin6_addr, &b->v6.sin6_addr);
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

static bool set_option(int fd, int level, int option, int value)
{
	return setsockopt(fd, level, option, &value, sizeof value) == 0;
}

/* Past the sysctl where we may, else as far as it allows. */
static bool set_buffer(int fd, int force, int option, int bytes)
{
	return bytes == 0 || set_option(fd, SOL_SOCKET, force, bytes) || set_option(fd, SOL_SOCKET, option, bytes);
}

int socket_set_dscp(int fd, int family, int dscp)
{
	bool set = family == AF_INET ? set_option(fd, IPPROTO_IP, IP_TOS, dscp << DSCP_SHIFT)
				     : set_option(fd, IPPROTO_IPV6, IPV6_TCLASS, dscp << DSCP_SHIFT);
	return set ? 0 : errno;
}

/* Options that accepted connections inherit from their listener, so that accepting costs no further call. */
static bool tune_stream(int fd, const struct socket_request *request)
{
	if (!set_option(fd, SOL_SOCKET, SO_REUSEADDR, 1) || !set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1))
		return false;
	if (request->wants_dscp && !set_option(fd, IPPROTO_TCP, TCP_SAVE_SYN, 1))
		return false;
	if (request->keepalive_s == 0)
		return true;
	return set_option(fd, SOL_SOCKET, SO_KEEPALIVE, 1) &&
	       set_option(fd, IPPROTO_TCP, TCP_KEEPIDLE, request->keepalive_s) &&
	       set_option(fd, IPPROTO_TCP, TCP_KEEPINTVL, request->keepalive_s) &&
	       set_option(fd, IPPROTO_TCP, TCP_KEEPCNT, KEEPALIVE_PROBES);
}

/* A reply must leave from the address that was asked, and only members hear their multicast. */
static bool tune_datagram(int fd, const struct socket_request *request)
{
	bool v4 = request->address.any.sa_family == AF_INET;
	int level = v4 ? IPPROTO_IP : IPPROTO_IPV6;

	if (request->shared && !set_option(fd, SOL_SOCKET, SO_REUSEADDR, 1))
		return false;
	if (request->wants_dscp && !set_option(fd, level, v4 ? IP_RECVTOS : IPV6_RECVTCLASS, 1))
		return false;
	/* before 4.20 there is no IPV6_MULTICAST_ALL; unlisted groups are dropped by their address in any case */
	set_option(fd, level, v4 ? IP_MULTICAST_ALL : IPV6_MULTICAST_ALL, 0);
	if (!socket_address_is_wildcard(&request->address))
		return true;
	return set_option(fd, level, v4 ? IP_PKTINFO : IPV6_RECVPKTINFO, 1);
}

static bool tune(int fd, const struct socket_request *request)
{
	if (request->address.any.sa_family == AF_INET6 && !set_option(fd, IPPROTO_IPV6, IPV6_V6ONLY, 1))
		return false;
	if (request->interface != NULL && setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, request->interface,
						     (socklen_t)strlen(request->interface) + 1) < 0)
		return false;
	if (request->free_bind && !set_option(fd, IPPROTO_IP, IP_FREEBIND, 1))
		return false;
	if (request->dscp >= 0 && (errno = socket_set_dscp(fd, request->address.any.sa_family, request->dscp)) != 0)
		return false;
	if (!set_buffer(fd, SO_RCVBUFFORCE, SO_RCVBUF, request->receive_buffer) ||
	    !set_buffer(fd, SO_SNDBUFFORCE, SO_SNDBUF, request->send_buffer))
		return false;
	if (request->owner != (uid_t)-1 && fchown(fd, request->owner, (gid_t)-1) < 0)
		return false;
	return request->type == SOCK_STREAM ? tune_stream(fd, request) : tune_datagram(fd, request);
}

/* Binds FD and has it listen. A TCP port is one's own only from listen(2) on: two that are bound may still share it. */
static bool take_port(int fd, struct socket_request *request)
{
	if (bind(fd, &request->address.any, request->address.length) < 0)
		return false;
	if (request->type == SOCK_STREAM && listen(fd, request->backlog) < 0)
		return false;
	return getsockname(fd, &request->address.any, &request->address.length) == 0;
}

/* One open socket; JOINS: it shares the port with those of ours that have SO_REUSEPORT. Returns -1 with errno. */
static int open_one(struct socket_request *request, bool joins)
{
	int fd = socket(request->address.any.sa_family, request->type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -1;
	if (!tune(fd, request) || (joins && !set_option(fd, SOL_SOCKET, SO_REUSEPORT, 1)))
		goto fail;
	if (!take_port(fd, request))
		goto fail;
	if (!joins && !set_option(fd, SOL_SOCKET, SO_REUSEPORT, 1)) /* from here on the others can join */
		goto fail;
	return fd;
fail:;
	int error = errno;
	close(fd);
	errno = error;
	return -1;
}

int socket_open_group(struct socket_request *request, int *fds, unsigned count)
{
	for (unsigned i = 0; i < count; i++) {
		fds[i] = open_one(request, i > 0 || request->overlaps);
		if (fds[i] >= 0)
			continue;
		int error = errno;
		while (i-- > 0)
			close(fds[i]);
		return error;
	}
	return 0;
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

int socket_join(int fd, const struct socket_group *group)
{
	struct group_req request = {.gr_interface = group->interface};
	int level = group->address.any.sa_family == AF_INET ? IPPROTO_IP : IPPROTO_IPV6;
	memcpy(&request.gr_group, &group->address.any, group->address.length);
	return setsockopt(fd, level, MCAST_JOIN_GROUP, &request, sizeof request) == 0 ? 0 : errno;
}

int socket_buffer_size(int fd, int option)
{
	int size;
	socklen_t length = sizeof size;
	return getsockopt(fd, SOL_SOCKET, option, &size, &length) == 0 ? size / 2 : -1;
}

int socket_refuse_new(int fd)
{
	/* a filter on a TCP socket sees the packet from its TCP header on; it returns how much to keep of it */
	enum { FLAGS_OFFSET = 13, FLAG_SYN = 0x02, FLAG_ACK = 0x10, KEEP = 0x7fffffff };
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_B | BPF_ABS, FLAGS_OFFSET),
		BPF_STMT(BPF_ALU | BPF_AND | BPF_K, FLAG_SYN | FLAG_ACK),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, FLAG_SYN, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, 0),
		BPF_STMT(BPF_RET | BPF_K, KEEP),
	};
	struct sock_fprog program = {.len = sizeof code / sizeof *code, .filter = code};
	if (setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program) == 0)
		return 0;
	/* some kernels keep filters for root: on an interface that is nowhere a new SYN finds nobody, while handshakes
	 * under way already know their listener */
	return set_option(fd, SOL_SOCKET, SO_BINDTOIFINDEX, INT_MAX) ? 0 : errno;
}

int socket_saved_dscp(int fd)
{
	unsigned char header[128];
	socklen_t length = sizeof header;
	if (getsockopt(fd, IPPROTO_TCP, TCP_SAVED_SYN, header, &length) < 0 || length < 2)
		return -1;
	if (header[0] >> 4 == 4)
		return header[1] >> DSCP_SHIFT;
	return ((header[0] & 0x0f) << 4 | header[1] >> 4) >> DSCP_SHIFT;
}
