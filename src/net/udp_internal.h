/* udp_internal.h: the structures that the files of UDP share; included by no other file. */
#ifndef SMALLSERVD_NET_UDP_INTERNAL_H
#define SMALLSERVD_NET_UDP_INTERNAL_H

#include <event2/event_struct.h>
#include <netinet/udp.h>
#include <stdatomic.h>
#include <sys/queue.h>

#include "net/admission.h"
#include "net/listener.h"
#include "net/sockaddr.h"

/* Linux 4.18 and 5.0; a C library may be older than its kernel */
#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif
#ifndef UDP_GRO
#define UDP_GRO 104
#endif

enum {
	UDP_BATCH = 32,                /* messages of a receive: bounds a socket's turn on its worker */
	UDP_DATAGRAM_SIZE = 64 * 1024, /* the longest datagram fits, so that none is truncated */
};

enum {
	UDP_CONTROL_SIZE = 128,
	UDP_REPLY_PARTS = 512, /* iovec entries shared by all replies of a batch */
};

/* The control messages of a datagram, received or sent. */
struct udp_control {
	_Alignas(struct cmsghdr) char bytes[UDP_CONTROL_SIZE];
};

/* UDP on one worker. A batch is received, answered in its buffers and sent within one event callback. */
struct udp_worker {
	struct worker *thread;
	char *buffers; /* UDP_BATCH + 1 of UDP_DATAGRAM_SIZE; the kernel maps a page on its first use */
	/* requests */
	struct mmsghdr in[UDP_BATCH];
	struct iovec parts[UDP_BATCH];
	struct sockaddr_in6 names[UDP_BATCH];
	struct udp_control control_in[UDP_BATCH];
	/* replies, each a datagram or a GSO batch */
	unsigned reply_count, part_count;
	struct mmsghdr out[UDP_BATCH];
	size_t segments[UDP_BATCH]; /* segment size of a GSO batch; 0: a single datagram */
	struct iovec reply_parts[UDP_REPLY_PARTS];
	struct udp_control control_out[UDP_BATCH];
};

/* A reply for which the socket buffer had no space. */
struct udp_unsent {
	STAILQ_ENTRY(udp_unsent) link;
	struct sockaddr_in6 name;
	socklen_t name_length;
	struct udp_control control;
	size_t control_length, segment;
	bool unsegmented; /* a GSO batch that the kernel rejected: its datagrams are sent one by one */
	size_t from, length;
	char bytes[];
};

/* State of receiving; private to udp_receive.c. */
struct udp_receive_state {
	bool batching;
	unsigned singles;       /* while batching: successive batches of one datagram */
	unsigned pause, paused; /* otherwise: single receives until a batch is tried, and their count so far */
	bool gro_requested;     /* UDP_GRO is on, or not supported */
	bool gro_on;            /* UDP_GRO may be on */
};

struct udp_socket {
	struct listener listener;
	struct udp_worker *worker;
	void *memo; /* the service's cache on this worker */
	struct metrics_block *counters;
	struct event readable, writable;
	struct event retry; /* adds READABLE again */
	struct socket_address address;
	bool wants_control; /* needs the destination address (a wildcard) or the traffic class (dscp = copy) */
	struct udp_receive_state receive;
	atomic_bool shared; /* with another process: its options are not changed */
	STAILQ_HEAD(, udp_unsent) unsent;
	bool dual_stack;    /* an IPv6 socket with IPv4 clients */
	bool foreign_netns; /* of another network namespace than this process */
	bool stopping, disconnected;
};

/* The destination of a request. */
struct udp_destination {
	struct socket_address address; /* its port is the socket's */
	struct in_addr reply_v4;       /* the local IPv4 address that the reply leaves from */
	unsigned interface;
	int traffic_class; /* -1: unknown */
};

/* One received message: a datagram or, with UDP_GRO, consecutive datagrams of one source and destination. All but the
 * last of these have SEGMENT bytes. */
struct udp_message {
	struct msghdr *request;
	char *bytes;
	size_t length, segment;
	struct socket_address from;
	struct udp_destination to;
	enum metric verdict; /* common to all its datagrams: the reason to drop them; METRIC_COUNT: none */
	bool limited;        /* by ACL or rate, for which SOURCE is filled */
	struct admission_source source;
};

static inline void udp_drop(struct udp_socket *socket, enum metric reason, size_t count)
{
	metrics_add(socket->counters, reason, count);
}

/* Returns the count of datagrams in LENGTH bytes; an empty datagram counts as one. */
static inline size_t udp_count(size_t length, size_t segment)
{
	return segment > 0 && length > segment ? (length + segment - 1) / segment : 1;
}

/* --- udp_receive.c --- */

/* Sets up receiving when the worker starts to serve the socket. */
void udp_receive_init(struct udp_socket *socket);

/* Receives up to UDP_BATCH messages into the worker's buffers. Returns their count; -1 with errno. */
int udp_receive(struct udp_socket *socket);

/* --- udp_filter.c --- */

/* Reads destination and segment size of MESSAGE from its control messages, and sets its verdict. */
void udp_examine(const struct udp_socket *socket, struct udp_message *message);

/* Returns the reason to drop a datagram of LENGTH bytes in MESSAGE; METRIC_COUNT: it is answered. Takes a token of the
 * rate limit. */
static inline enum metric udp_judge(const struct udp_socket *socket, const struct udp_message *message, size_t length)
{
	const struct instance *instance = socket->listener.instance;

	if (message->verdict != METRIC_COUNT)
		return message->verdict;
	if (length > (size_t)instance->config->max_datagram)
		return METRIC_DROPPED_TOO_LONG;
	return message->limited ? admission_of_datagram(instance, &message->source) : METRIC_COUNT;
}

/* --- udp_reply.c --- */

/* Adds the reply to a datagram of MESSAGE to the batch; BYTES stay in use until it is sent. JOIN: it may be appended to
 * the reply before, which is of the same message, as one GSO batch. */
void udp_add_reply(struct udp_socket *socket, const struct udp_message *message, char *bytes, size_t length, bool join);

/* Sends the batch. Replies that the socket buffer has no space for are copied to the unsent queue, and WRITABLE is
 * added in place of READABLE. */
void udp_send_replies(struct udp_socket *socket);

/* Sends the unsent queue in order, until it is empty or the socket buffer is full. */
void udp_send_unsent(struct udp_socket *socket);

/* Frees the first reply of the unsent queue. */
void udp_forget_unsent(struct udp_socket *socket);

#endif
