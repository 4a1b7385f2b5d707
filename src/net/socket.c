/* socket.c: creating, binding and tuning sockets. */
#include "net/socket.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/fsuid.h>
#include <unistd.h>

enum { DSCP_SHIFT = 2, KEEPALIVE_PROBES = 5 };

static bool set_option(int fd, int level, int option, int value)
{
	return setsockopt(fd, level, option, &value, sizeof value) == 0;
}

static bool get_option(int fd, int level, int option, int *value)
{
	socklen_t length = sizeof *value;
	return getsockopt(fd, level, option, value, &length) == 0;
}

/* Sets a buffer size beyond the sysctl limit if permitted, otherwise up to it. */
static bool set_buffer(int fd, int force, int option, int bytes)
{
	return bytes == 0 || set_option(fd, SOL_SOCKET, force, bytes) || set_option(fd, SOL_SOCKET, option, bytes);
}

int socket_set_dscp(int fd, int family, int dscp)
{
	bool set = family == AF_INET ? set_option(fd, IPPROTO_IP, IP_TOS, dscp << DSCP_SHIFT)
				     : set_option(fd, IPPROTO_IPV6, IPV6_TCLASS, dscp << DSCP_SHIFT);
	return set ? 0 : -errno;
}

/* Sets option V4 of IPv4 or V6 of IPv6; both on a dual-stack socket. */
static bool set_of_family(int fd, const struct socket_request *request, int v4, int v6, int value)
{
	bool is_v4 = request->address.any.sa_family == AF_INET;
	if ((is_v4 || request->dual_stack) && !set_option(fd, IPPROTO_IP, v4, value))
		return false;
	return is_v4 || set_option(fd, IPPROTO_IPV6, v6, value);
}

/* Returns the buffer size of a new socket, as it is set; -1 on error. */
static int default_buffer(const struct socket_request *request, int option)
{
	int fd = socket(request->address.any.sa_family, request->type | SOCK_CLOEXEC, 0);
	int size = fd >= 0 ? socket_buffer_size(fd, option) : -1;
	if (fd >= 0)
		close(fd);
	return size;
}

static bool change_buffer(int fd, const struct socket_request *request, int force, int option, int was, int now)
{
	enum { LOCK_SEND = 1, LOCK_RECEIVE = 2 };
	int locks, lock = option == SO_RCVBUF ? LOCK_RECEIVE : LOCK_SEND;

	if (was == now)
		return true;
	if (now > 0)
		return set_buffer(fd, force, option, now);
	int size = default_buffer(request, option);
	if (size < 0 || !set_buffer(fd, force, option, size))
		return false;
	/* before Linux 5.14 the kernel never adapts a size again that was set */
	return !get_option(fd, SOL_SOCKET, SO_BUF_LOCK, &locks) ||
	       set_option(fd, SOL_SOCKET, SO_BUF_LOCK, locks & ~lock);
}

static bool change_keepalive(int fd, int seconds)
{
	if (seconds == 0)
		return set_option(fd, SOL_SOCKET, SO_KEEPALIVE, 0);
	return set_option(fd, SOL_SOCKET, SO_KEEPALIVE, 1) && set_option(fd, IPPROTO_TCP, TCP_KEEPIDLE, seconds) &&
	       set_option(fd, IPPROTO_TCP, TCP_KEEPINTVL, seconds) &&
	       set_option(fd, IPPROTO_TCP, TCP_KEEPCNT, KEEPALIVE_PROBES);
}

static bool retune_stream(int fd, const struct socket_request *was, const struct socket_request *now)
{
	bool tuned = true;
	if (was->wants_dscp != now->wants_dscp)
		tuned &= set_option(fd, IPPROTO_TCP, TCP_SAVE_SYN, now->wants_dscp);
	if (was->keepalive_s != now->keepalive_s)
		tuned &= change_keepalive(fd, now->keepalive_s);
	if (was->backlog > 0 && was->backlog != now->backlog)
		tuned &= listen(fd, now->backlog) == 0;
	return tuned;
}

static bool retune_datagram(int fd, const struct socket_request *was, const struct socket_request *now)
{
	bool tuned = true;
	if (was->shared != now->shared)
		tuned &= set_option(fd, SOL_SOCKET, SO_REUSEADDR, now->shared);
	if (was->wants_dscp != now->wants_dscp)
		tuned &= set_of_family(fd, now, IP_RECVTOS, IPV6_RECVTCLASS, now->wants_dscp);
	return tuned;
}

int socket_retune(int fd, const struct socket_request *was, const struct socket_request *now)
{
	bool tuned = true;
	errno = 0;
	if (was->dscp != now->dscp)
		tuned &= set_of_family(fd, now, IP_TOS, IPV6_TCLASS, now->dscp >= 0 ? now->dscp << DSCP_SHIFT : 0);
	tuned &= change_buffer(fd, now, SO_RCVBUFFORCE, SO_RCVBUF, was->receive_buffer, now->receive_buffer);
	tuned &= change_buffer(fd, now, SO_SNDBUFFORCE, SO_SNDBUF, was->send_buffer, now->send_buffer);
	tuned &= now->type == SOCK_STREAM ? retune_stream(fd, was, now) : retune_datagram(fd, was, now);
	return tuned ? 0 : -errno;
}

/* Sets the options that each served socket has. Accepted connections inherit them from the listener. A datagram
 * wildcard reports the destination, from which the reply leaves. */
static bool set_base_options(int fd, const struct socket_request *request)
{
	if (request->type == SOCK_STREAM)
		return set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1);
	/* IPV6_MULTICAST_ALL needs Linux 4.20; the filter drops datagrams to unlisted groups in any case */
	set_of_family(fd, request, IP_MULTICAST_ALL, IPV6_MULTICAST_ALL, 0);
	return !socket_address_is_wildcard(&request->address) ||
	       set_of_family(fd, request, IP_PKTINFO, IPV6_RECVPKTINFO, 1);
}

static const struct socket_request untuned = {.dscp = -1};

static bool tune(int fd, const struct socket_request *request)
{
	if (request->address.any.sa_family == AF_INET6 && !set_option(fd, IPPROTO_IPV6, IPV6_V6ONLY, 1))
		return false;
	if (request->interface != NULL && setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, request->interface,
						     (socklen_t)strlen(request->interface) + 1) < 0)
		return false;
	if (request->free_bind && !set_option(fd, IPPROTO_IP, IP_FREEBIND, 1))
		return false;
	if (request->type == SOCK_STREAM && !set_option(fd, SOL_SOCKET, SO_REUSEADDR, 1))
		return false;
	return set_base_options(fd, request) && (errno = -socket_retune(fd, &untuned, request)) == 0;
}

int socket_adopt(int fd, const struct socket_request *request)
{
	int flags = fcntl(fd, F_GETFL);
	if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0 || fcntl(fd, F_SETFD, FD_CLOEXEC) < 0)
		return -errno;
	return set_base_options(fd, request) ? socket_retune(fd, &untuned, request) : -errno;
}

const char *socket_examine(int fd, struct socket_kind *kind)
{
	int listens = 0, only_v6 = 1, protocol;
	socklen_t length = sizeof kind->interface;

	*kind = (struct socket_kind){.address.length = sizeof kind->address.v6};
	if (!get_option(fd, SOL_SOCKET, SO_TYPE, &kind->type))
		return errno == EBADF ? "is not open" : "is not a socket";
	if (getsockname(fd, &kind->address.any, &kind->address.length) < 0)
		return "has no address";
	sa_family_t family = kind->address.any.sa_family;
	if (family != AF_INET && family != AF_INET6)
		return "is neither an IPv4 nor an IPv6 socket";
	if (!get_option(fd, SOL_SOCKET, SO_PROTOCOL, &protocol) || (protocol != IPPROTO_TCP && protocol != IPPROTO_UDP))
		return "is neither a TCP nor a UDP socket";
	if (protocol == IPPROTO_TCP && (!get_option(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens) || !listens))
		return "is a TCP socket that does not listen";
	if (socket_address_port(&kind->address) == 0)
		return "is not bound to a port";
	if (getsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, kind->interface, &length) < 0)
		kind->interface[0] = '\0';
	if (family == AF_INET6 && socket_address_is_wildcard(&kind->address))
		kind->dual_stack = get_option(fd, IPPROTO_IPV6, IPV6_V6ONLY, &only_v6) && !only_v6;
	return NULL;
}

/* Binds FD and listens. A TCP port is exclusive from listen(2) on: before it, another socket may bind it too. */
static bool bind_listen(int fd, struct socket_request *request)
{
	if (bind(fd, &request->address.any, request->address.length) < 0)
		return false;
	if (request->type == SOCK_STREAM && !request->defer_listen && listen(fd, request->backlog) < 0)
		return false;
	return getsockname(fd, &request->address.any, &request->address.length) == 0;
}

/* Returns a socket owned by the request's owner, or -1 with errno. Root creates it with that user's file system UID:
 * fchown(2) would need CAP_CHOWN, which containers often lack. Ports are bound as root nevertheless. */
static int create(const struct socket_request *request)
{
	bool other = request->owner != (uid_t)-1 && request->owner != geteuid();
	int before = other ? setfsuid(request->owner) : 0;
	int fd = socket(request->address.any.sa_family, request->type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	int error = errno;
	if (other)
		setfsuid((uid_t)before);
	errno = error;
	return fd;
}

/* Returns an open socket, or -1 with errno. JOIN: it shares the port with the daemon's sockets that have
 * SO_REUSEPORT. */
static int open_one(struct socket_request *request, bool join)
{
	int fd = create(request);
	if (fd < 0)
		return -1;
	if (!tune(fd, request) || (join && !set_option(fd, SOL_SOCKET, SO_REUSEPORT, 1)))
		goto fail;
	if (!bind_listen(fd, request))
		goto fail;
	if (!join && !set_option(fd, SOL_SOCKET, SO_REUSEPORT, 1)) /* the others can join from here on */
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
		int error = -errno;
		while (i-- > 0)
			close(fds[i]);
		return error;
	}
	return 0;
}

int socket_listen(const int *fds, unsigned count, int backlog)
{
	for (unsigned i = 0; i < count; i++)
		if (listen(fds[i], backlog) < 0)
			return -errno;
	return 0;
}

/* Returns the cookie of FD's network namespace; 0 if the kernel does not report it. */
static uint64_t netns_of(int fd)
{
	uint64_t cookie = 0;
	socklen_t size = sizeof cookie;
	return getsockopt(fd, SOL_SOCKET, SO_NETNS_COOKIE, &cookie, &size) == 0 ? cookie : 0;
}

bool socket_in_own_netns(int fd)
{
	int own = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0); /* each namespace and sandbox has this family */
	bool same = own >= 0 && netns_of(own) != 0 && netns_of(own) == netns_of(fd);
	if (own >= 0)
		close(own);
	return same;
}

static int change_membership(int fd, const struct socket_group *group, int option)
{
	struct group_req request = {.gr_interface = group->interface};
	int level = group->address.any.sa_family == AF_INET ? IPPROTO_IP : IPPROTO_IPV6;
	memcpy(&request.gr_group, &group->address.any, group->address.length);
	return setsockopt(fd, level, option, &request, sizeof request) == 0 ? 0 : -errno;
}

int socket_join(int fd, const struct socket_group *group)
{
	return change_membership(fd, group, MCAST_JOIN_GROUP);
}

int socket_try_join(const struct socket_group *group)
{
	int fd = socket(group->address.any.sa_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	int error = socket_join(fd, group);
	close(fd);
	return error;
}

int socket_leave(int fd, const struct socket_group *group)
{
	return change_membership(fd, group, MCAST_LEAVE_GROUP);
}

bool socket_group_equals(const struct socket_group *a, const struct socket_group *b)
{
	return a->interface == b->interface && socket_address_same_ip(&a->address, &b->address);
}

int socket_buffer_size(int fd, int option)
{
	int size;
	return get_option(fd, SOL_SOCKET, option, &size) ? size / 2 : -1;
}

/* Binds a listener to an interface index that does not exist, so that it matches no new SYN. Handshakes in progress
 * keep their listener. A socket that is bound to an interface needs root for it. */
static bool bind_dead_ifindex(int fd)
{
	return set_option(fd, SOL_SOCKET, SO_BINDTOIFINDEX, INT_MAX);
}

enum { NEIGHBOUR_TTL = 255 };

/* Drops SYNs with a lower TTL. A TTL of 255 excludes all but neighbours that send with 255; a handshake in progress is
 * not checked. */
static bool set_min_ttl(int fd, int ttl)
{
	int family;
	if (!get_option(fd, SOL_SOCKET, SO_DOMAIN, &family))
		return false;
	if (family == AF_INET)
		return set_option(fd, IPPROTO_IP, IP_MINTTL, ttl);
	set_option(fd, IPPROTO_IP, IP_MINTTL, ttl); /* IPv4 clients of a dual-stack socket */
	return set_option(fd, IPPROTO_IPV6, IPV6_MINHOPCOUNT, ttl);
}

int socket_stop_new(int fd)
{
	return bind_dead_ifindex(fd) || set_min_ttl(fd, NEIGHBOUR_TTL) ? 0 : -errno;
}

void socket_restore_accepted(int fd)
{
	set_min_ttl(fd, 0);
}

/* Connects the socket to its own address, so that it matches no datagram but its own. Otherwise it would go before a
 * wildcard of the same port until close(2), and lose the datagrams that arrive after the last receive. */
int socket_stop_datagrams(int fd)
{
	struct socket_address address = {.length = sizeof address.v6};
	if (getsockname(fd, &address.any, &address.length) < 0)
		return -errno;
	return connect(fd, &address.any, address.length) == 0 ? 0 : -errno;
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
