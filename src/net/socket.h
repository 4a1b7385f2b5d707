/* socket.h: creating, binding and tuning sockets. */
#ifndef SMALLSERVD_NET_SOCKET_H
#define SMALLSERVD_NET_SOCKET_H

#include <net/if.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "net/sockaddr.h"

/* A multicast group to join, on an interface by its index (0: as the kernel routes). */
struct socket_group {
	struct socket_address address;
	unsigned interface;
};

/* What a listening or datagram socket is to be. Buffers and times: 0 leaves the kernel's. */
struct socket_request {
	struct socket_address address;
	int type;              /* SOCK_STREAM or SOCK_DGRAM */
	const char *interface; /* NULL: any */
	bool free_bind;        /* IP_FREEBIND */
	bool listens_later;    /* SOCK_STREAM: is bound, and nobody reaches it before socket_listen */
	bool overlaps;         /* a socket of ours has a wildcard or specific address on the same port */
	bool shared;           /* SO_REUSEADDR on UDP: other members of multicast groups may have the port too */
	int dscp;              /* 0 to 63; -1: the kernel's */
	bool wants_dscp;       /* tell the peer's DSCP: IP_RECVTOS, TCP_SAVE_SYN */
	bool both_families;    /* an IPv6 wildcard that was handed over, and that IPv4 clients reach too */
	int receive_buffer;    /* bytes */
	int send_buffer;       /* bytes */
	int keepalive_s;
	int backlog; /* of SOCK_STREAM */
	uid_t owner; /* sockets of a group must have one owner; (uid_t)-1: leave it */
};

/* Opens COUNT sockets that share one address and port, and stores them in FDS; streams listen. The first is bound, and
 * listens, alone, so that a port that somebody has, another copy of this daemon included, is an error and not a share;
 * the rest join it by SO_REUSEPORT. Port 0: the kernel picks, and REQUEST's address has the port after. Returns 0, or
 * an errno with no socket left open. */
int socket_open_group(struct socket_request *request, int *fds, unsigned count);

/* Has COUNT streams listen that were opened to do so later. Returns 0 or an errno. */
int socket_listen(const int *fds, unsigned count, int backlog);

/* What a descriptor that somebody else has opened turns out to be. */
struct socket_kind {
	struct socket_address address;
	int type;                    /* SOCK_STREAM or SOCK_DGRAM */
	char interface[IF_NAMESIZE]; /* empty: any */
	bool both_families;          /* an IPv6 wildcard that IPv4 clients reach too */
};

/* Looks at FD. NULL: KIND says what it is; else why it is nothing that we could serve, as `is not a socket`. */
const char *socket_examine(int fd, struct socket_kind *kind);

/* Makes a socket that was handed over what socket_open_group would have made it, as far as that can be done after the
 * fact. Returns 0 or an errno. */
int socket_adopt(int fd, const struct socket_request *request);

/* Sets on FD, which is in use, what NOW asks for and WAS did not: classes, buffers, times, backlog. Returns 0 or an
 * errno, of the last that failed. */
int socket_retune(int fd, const struct socket_request *was, const struct socket_request *now);

/* Whether FD is of the network that this process is in, as the handed one of a service with PrivateNetwork= is not.
 * False where the kernel does not tell (before Linux 5.14). */
bool socket_is_of_our_network(int fd);

/* Joins GROUP. Returns 0 or an errno. */
int socket_join(int fd, const struct socket_group *group);
/* Whether GROUP could be joined, by a socket that nobody has: 0 or an errno. */
int socket_try_to_join(const struct socket_group *group);
int socket_leave(int fd, const struct socket_group *group);
bool socket_group_equals(const struct socket_group *a, const struct socket_group *b);

/* The size in bytes of SO_RCVBUF or SO_SNDBUF in the caller's count (the kernel doubles it); -1 on error. */
int socket_buffer_size(int fd, int option);

/* Has a listening socket accept what it is shaking hands with, but no new SYN: so that nothing is reset when it is
 * closed a moment later. Where the kernel can be told so without privileges new clients find nobody there, or another
 * socket of the port; else their SYNs are dropped. What is accepted after has to be let go by socket_release_accepted.
 * Never for a socket that others use. Returns 0 or an errno. */
int socket_refuse_new(int fd);

/* Takes off an accepted connection what it has inherited from a listener that refuses new ones. */
void socket_release_accepted(int fd);

/* Has a datagram socket that is about to be closed be found by nobody any more, while it keeps what it has queued.
 * Never for a socket that others use. Returns 0 or an errno. */
int socket_stop_datagrams(int fd);

/* The DSCP of the SYN that began a connection accepted with wants_dscp; -1 where the kernel does not tell. */
int socket_saved_dscp(int fd);
/* Sets what FD sends. Returns 0 or an errno. */
int socket_set_dscp(int fd, int family, int dscp);

#endif
