/* socket.c: sockets to the target, bound and tuned as the options say. */
#include "probe/socket.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { DSCP_SHIFT = 2, UDP_BUFFER = 1 << 20 };

static bool fail(char *error, const char *what, const char *on)
{
	int reason = errno;

	snprintf(error, TARGET_ERROR_SIZE, "%s %s: %s", what, on, strerror(reason));
	return false;
}

static bool set(int fd, int level, int name, int value)
{
	return setsockopt(fd, level, name, &value, sizeof value) == 0;
}

static bool tune(int fd, const struct options *options, int family, char *error)
{
	bool v6 = family == AF_INET6;
	int level = v6 ? IPPROTO_IPV6 : IPPROTO_IP;

	if (options->ttl && !set(fd, level, v6 ? IPV6_UNICAST_HOPS : IP_TTL, (int)options->ttl))
		return fail(error, "cannot set", "the TTL");
	if (options->dscp != OPTIONS_DSCP_UNSET &&
	    !set(fd, level, v6 ? IPV6_TCLASS : IP_TOS, (int)options->dscp << DSCP_SHIFT))
		return fail(error, "cannot set", "the DSCP");
	if (!options->udp)
		return set(fd, IPPROTO_TCP, TCP_NODELAY, 1) || fail(error, "cannot set", "TCP_NODELAY");
	if (!set(fd, level, v6 ? IPV6_RECVERR : IP_RECVERR, 1) ||
	    !set(fd, level, v6 ? IPV6_RECVHOPLIMIT : IP_RECVTTL, 1))
		return fail(error, "cannot ask for", "errors and TTLs");
	/* room for bursts of replies; a cap of the kernel does no harm */
	if (!set(fd, SOL_SOCKET, SO_RCVBUF, UDP_BUFFER) || !set(fd, SOL_SOCKET, SO_SNDBUF, UDP_BUFFER))
		return fail(error, "cannot set", "buffers");
	return true;
}

static bool bind_near_end(int fd, const struct options *options, int family, char *error)
{
	struct target_address near;

	if (options->interface != NULL && setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, options->interface,
						     (socklen_t)strlen(options->interface) + 1) < 0)
		return fail(error, "cannot use interface", options->interface);
	if (options->bind == NULL)
		return true;
	if (!target_parse_bind(options, &near, error))
		return false;
	if (near.address.ss_family != family) {
		snprintf(error, TARGET_ERROR_SIZE, "bind to %s: not of the family of the target", options->bind);
		return false;
	}
	if (!options->udp && !set(fd, SOL_SOCKET, SO_REUSEADDR, 1))
		return fail(error, "cannot set", "SO_REUSEADDR");
	return bind(fd, (const struct sockaddr *)&near.address, near.length) == 0 ||
	       fail(error, "bind to", options->bind);
}

int socket_open(const struct options *options, const struct target_address *address, char *error)
{
	int family = address->address.ss_family;
	int fd = socket(family, (options->udp ? SOCK_DGRAM : SOCK_STREAM) | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	if (fd < 0) {
		fail(error, "cannot make", "a socket");
		return -1;
	}
	if (tune(fd, options, family, error) && bind_near_end(fd, options, family, error))
		return fd;
	close(fd);
	return -1;
}
