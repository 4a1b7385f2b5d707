/* socket.h: creating, binding and tuning sockets. */
#ifndef SMALLSERVD_NET_SOCKET_H
#define SMALLSERVD_NET_SOCKET_H

#include <net/if.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "net/sockaddr.h"

/* A multicast group. INTERFACE is an index; 0: chosen by the kernel's routes. */
struct socket_group {
	struct socket_address address;
	unsigned interface;
};

/* The address and options of a listening or datagram socket. A buffer size or time of 0 is the kernel's default. */
struct socket_request {
	struct socket_address address;
	int type;              /* SOCK_STREAM or SOCK_DGRAM */
	const char *interface; /* NULL: any */
	bool free_bind;        /* IP_FREEBIND */
	bool defer_listen;     /* SOCK_STREAM: bind only; socket_listen follows */
	bool overlaps;         /* this daemon has the port on a wildcard or specific address already */
	bool shared;           /* SO_REUSEADDR on UDP: other members of multicast groups may bind the port too */
	int dscp;              /* 0 to 63; -1: the kernel's */
	bool wants_dscp;       /* report the peer's DSCP: IP_RECVTOS, TCP_SAVE_SYN */
	bool dual_stack;       /* an IPv6 wildcard passed by the service manager that has IPv4 clients too */
	int receive_buffer;    /* bytes */
	int send_buffer;       /* bytes */
	int keepalive_s;
	int backlog; /* of SOCK_STREAM */
	uid_t owner; /* the same for all sockets of a port; (uid_t)-1: the process's */
};

/* Opens COUNT sockets that share one address and port, and stores them in FDS. Streams listen. The first socket is
 * bound, and listens, without SO_REUSEPORT: a port in use is an error, also if another copy of this daemon has it. The
 * others join with SO_REUSEPORT. If the port is 0, REQUEST's address gets the kernel's choice. Returns 0 or -errno,
 * with no socket left open. */
int socket_open_group(struct socket_request *request, int *fds, unsigned count);

/* Makes COUNT streams listen that were opened with defer_listen. Returns 0 or -errno. */
int socket_listen(const int *fds, unsigned count, int backlog);

/* The kind of a socket that another process has opened. */
struct socket_kind {
	struct socket_address address;
	int type;                    /* SOCK_STREAM or SOCK_DGRAM */
	char interface[IF_NAMESIZE]; /* empty: any */
	bool dual_stack;             /* an IPv6 wildcard that has IPv4 clients too */
};

/* Fills KIND from FD. Returns NULL, or the reason why it cannot be served, such as `is not a socket`. */
const char *socket_examine(int fd, struct socket_kind *kind);

/* Sets the options of REQUEST that can be set on an open socket of another process. Returns 0 or -errno. */
int socket_adopt(int fd, const struct socket_request *request);

/* Sets the options in which NOW differs from WAS on FD, a socket in use: traffic class, buffers, times, backlog.
 * Returns 0 or the last -errno. */
int socket_retune(int fd, const struct socket_request *was, const struct socket_request *now);

/* Returns whether FD is of this process's network namespace. A socket passed to a service with PrivateNetwork= is not.
 * Returns false if the kernel does not report it (before Linux 5.14). */
bool socket_in_own_netns(int fd);

/* Joins or leaves GROUP. Returns 0 or -errno. */
int socket_join(int fd, const struct socket_group *group);
int socket_leave(int fd, const struct socket_group *group);

/* Joins GROUP with a temporary socket, to see whether that is possible. Returns 0 or -errno. */
int socket_try_join(const struct socket_group *group);

bool socket_group_equals(const struct socket_group *a, const struct socket_group *b);

/* Returns the size in bytes of SO_RCVBUF or SO_SNDBUF as it was set (the kernel doubles it); -1 on error. */
int socket_buffer_size(int fd, int option);

/* Makes a listening socket ignore new SYNs, while handshakes in progress are completed: a close(2) a moment later
 * resets no client. If the kernel permits it without privileges, another socket of the port accepts the new clients,
 * else their SYNs are dropped. Connections accepted after this need socket_restore_accepted. Not for a socket shared
 * with another process. Returns 0 or -errno. */
int socket_stop_new(int fd);

/* Resets the options that an accepted connection has inherited from socket_stop_new. */
void socket_restore_accepted(int fd);

/* Makes a datagram socket that is about to be closed receive no new datagrams, while its queue stays. Not for a socket
 * shared with another process. Returns 0 or -errno. */
int socket_stop_datagrams(int fd);

/* Returns the DSCP of the SYN of a connection accepted with wants_dscp; -1 if the kernel does not report it. */
int socket_saved_dscp(int fd);

/* Sets the DSCP of FD's packets. Returns 0 or -errno. */
int socket_set_dscp(int fd, int family, int dscp);

#endif
