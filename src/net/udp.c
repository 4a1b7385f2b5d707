/* udp.c: the life of a batch of datagrams. */
#include "net/udp.h"

#include <errno.h>
#include <event2/event.h>
#include <event2/event_struct.h>
#include <netinet/udp.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <time.h>

#include "core/clock.h"
#include "core/log.h"

/* Linux 4.18 and 5.0; a C library may be older than its kernel */
#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif
#ifndef UDP_GRO
#define UDP_GRO 104
#endif

enum {
	CONTROL_SIZE = 128,
	SEGMENT_SPACE = CMSG_SPACE(sizeof(uint16_t)), /* of CONTROL_SIZE, what says how a train is cut */
	SINGLES_BEFORE_SINGLE = 8,                    /* wake-ups with one datagram until receiving goes one by one */
	PAUSE_FIRST = 8, /* and then until a batch is tried again: twice as long each time there is none */
	PAUSE_LONGEST = 64,
	TRAIN_LONGEST = 64,   /* datagrams of a reply; the kernel's UDP_MAX_SEGMENTS, which was never less */
	REPLY_PARTS = 512,    /* pieces of memory of all replies of a batch */
	DRAIN_BATCHES = 4096, /* a stop does not wait for the end of a flood */
	RETRY_MS = 100,       /* how long receiving rests when the kernel cannot watch the socket */
};

#define BUFFERS_SIZE ((UDP_BATCH + 1) * (size_t)UDP_DATAGRAM_SIZE)

/* The control messages that go with a datagram. */
struct control {
	_Alignas(struct cmsghdr) char bytes[CONTROL_SIZE];
};

/* One worker's share: a batch is received, answered in place and sent within one callback. */
struct side {
	struct worker *worker;
	char *buffers; /* UDP_BATCH and one more of UDP_DATAGRAM_SIZE; the kernel gives pages only as they are touched */
	struct mmsghdr in[UDP_BATCH];
	struct iovec parts[UDP_BATCH];
	struct sockaddr_in6 names[UDP_BATCH];
	struct control control_in[UDP_BATCH];
	/* replies, each a datagram or a train of them */
	unsigned reply_count, part_count;
	struct mmsghdr out[UDP_BATCH];
	size_t segments[UDP_BATCH]; /* the size of the datagrams in a train, but for its last; 0: a lone one */
	struct iovec reply_parts[REPLY_PARTS];
	struct control control_out[UDP_BATCH];
};

struct udp {
	unsigned count;
	struct side sides[];
};

/* A reply that the socket did not take. */
struct unsent {
	struct unsent *next;
	struct sockaddr_in6 name;
	socklen_t name_length;
	struct control control;
	size_t control_length, segment;
	bool singly; /* a train that has failed: its datagrams go one by one */
	size_t from, length;
	char bytes[];
};

struct udp_socket {
	struct side *side;
	struct instance *instance;
	struct metrics_block *counters;
	struct event readable, writable;
	struct event retry; /* to watch it again */
	int fd;             /* as its worker calls it */
	struct socket_address address;
	bool wants_control; /* a wildcard hears which address was asked; dscp = copy hears the class */
	bool batching;
	unsigned singles;       /* receives in a row that found one datagram, while batching */
	unsigned pause, paused; /* receives of one until a batch is tried, and how many there were */
	atomic_bool shared;     /* with another process: its options are left as they are */
	bool asked_trains;      /* UDP_GRO is on, or cannot be had */
	bool hears_trains;      /* UDP_GRO may be on */
	struct unsent *unsent, **unsent_last;
	bool both_families;   /* an IPv6 socket that IPv4 clients reach too */
	bool hears_elsewhere; /* another network than this process's */
	bool stays_open;      /* with others, once it has stopped */
	bool stopping, refuses;
	struct instance *next_instance; /* main's, until CHANGE has run */
	struct task start, stop, change;
	struct task_queue *main;
	struct task *done;
};

/* To whom a datagram was sent. */
struct destination {
	struct socket_address address; /* its port is the socket's */
	struct in_addr reply_v4;       /* the address of ours to answer from */
	unsigned interface;
	int traffic_class; /* -1: not told */
};

/* What was received at once: a datagram, or several of one length, but for the last, that came from one source to one
 * destination right behind each other. */
struct train {
	struct msghdr *request;
	char *bytes;
	size_t length, segment;
	struct socket_address from;
	struct destination to;
	enum metric verdict;    /* for each of its datagrams; METRIC_COUNT: none by where they come from and go to */
	bool denied;            /* by its prefix */
	struct in6_addr prefix; /* where rates are limited: the source they are counted for */
};

static void drop(struct udp_socket *socket, enum metric reason, size_t count)
{
	metrics_add(socket->counters, reason, count);
}

/* How many datagrams there are in LENGTH bytes; an empty datagram is one, too. */
static size_t count_datagrams(size_t length, size_t segment)
{
	return segment > 0 && length > segment ? (length + segment - 1) / segment : 1;
}

/* --- judging --- */

/* Reads where TRAIN was sent to, and how it is cut, from its control messages. */
static void read_control(const struct udp_socket *socket, struct train *train)
{
	struct destination *to = &train->to;
	*to = (struct destination){.address = socket->address, .traffic_class = -1};
	to->reply_v4 = socket->address.v4.sin_addr;
	train->segment = train->length;
	if (train->request->msg_controllen == 0)
		return;
	for (struct cmsghdr *part = CMSG_FIRSTHDR(train->request); part != NULL;
	     part = CMSG_NXTHDR(train->request, part)) {
		const void *data = CMSG_DATA(part);
		if (part->cmsg_level == IPPROTO_IP && part->cmsg_type == IP_PKTINFO) {
			const struct in_pktinfo *info = data;
			if (to->address.any.sa_family == AF_INET6) /* a client of a socket of both families */
				socket_address_set(&to->address, AF_INET, &info->ipi_addr, "",
						   socket_address_port(&to->address));
			to->address.v4.sin_addr = info->ipi_addr;
			to->reply_v4 = info->ipi_spec_dst;
			to->interface = (unsigned)info->ipi_ifindex;
		} else if (part->cmsg_level == IPPROTO_IPV6 && part->cmsg_type == IPV6_PKTINFO) {
			const struct in6_pktinfo *info = data;
			if (IN6_IS_ADDR_V4MAPPED(&info->ipi6_addr))
				continue; /* IP_PKTINFO tells more */
			to->address.v6.sin6_addr = info->ipi6_addr;
			to->interface = info->ipi6_ifindex;
		} else if (part->cmsg_level == IPPROTO_IP && part->cmsg_type == IP_TOS) {
			to->traffic_class = *(const uint8_t *)data;
		} else if (part->cmsg_level == IPPROTO_IPV6 && part->cmsg_type == IPV6_TCLASS) {
			memcpy(&to->traffic_class, data, sizeof to->traffic_class);
		} else if (part->cmsg_level == IPPROTO_UDP && part->cmsg_type == UDP_GRO) {
			int size;
			memcpy(&size, data, sizeof size);
			if (size > 0 && (size_t)size < train->length)
				train->segment = (size_t)size;
		}
	}
}

static bool is_multicast(const struct socket_address *address)
{
	if (address->any.sa_family == AF_INET)
		return IN_MULTICAST(ntohl(address->v4.sin_addr.s_addr));
	return IN6_IS_ADDR_MULTICAST(&address->v6.sin6_addr);
}

static bool is_broadcast(const struct socket_address *address)
{
	return address->any.sa_family == AF_INET && address->v4.sin_addr.s_addr == htonl(INADDR_BROADCAST);
}

static bool is_listed_group(const struct config_service *service, const struct socket_address *group)
{
	for (size_t i = 0; i < service->multicast_groups.count; i++) {
		const struct option_address *listed = &service->multicast_groups.list[i];
		struct socket_address address;
		socket_address_set(&address, listed->family, &listed->ip, "", 0);
		if (socket_address_same_ip(&address, group))
			return true;
	}
	return false;
}

/* Is the endpoint itself the sender? A wildcard's own are all addresses of this host; which these are the kernel is asked,
 * as only a loop, or somebody who forges one, sends from our own port. Of another network it can tell nothing: there the port is enough. */
static bool is_own_endpoint(const struct udp_socket *socket, const struct socket_address *from,
			    const struct destination *to)
{
	if (socket_address_port(from) != socket_address_port(&socket->address))
		return false;
	return socket_address_same_ip(from, &to->address) ||
	       (socket_address_is_wildcard(&socket->address) &&
		(socket->hears_elsewhere || socket_address_is_local(from)));
}

/* Why what comes FROM there gets no answer; METRIC_COUNT: it may. An answer to an endpoint of ours, or to a port that
 * answers by itself, could go round for ever; one to where no single host can be would reach many. */
static enum metric judge_source(const struct udp_socket *socket, const struct socket_address *from,
				const struct destination *to)
{
	if (socket_address_port(from) == 0)
		return METRIC_DROPPED_PORT_ZERO;
	if (socket_address_is_wildcard(from))
		return METRIC_DROPPED_SOURCE_UNSPECIFIED;
	if (is_multicast(from))
		return METRIC_DROPPED_SOURCE_MULTICAST;
	if (is_broadcast(from))
		return METRIC_DROPPED_SOURCE_BROADCAST;
	if (is_own_endpoint(socket, from, to))
		return METRIC_DROPPED_OWN_ENDPOINT;
	if (instance_refuses_port(socket->instance, socket_address_port(from)))
		return METRIC_DROPPED_REFUSED_PORT;
	return METRIC_COUNT;
}

/* The same for where it was sent TO: a broadcast reaches every socket of the port, and each would answer it. */
static enum metric judge_destination(const struct udp_socket *socket, const struct destination *to)
{
	bool v4 = to->address.any.sa_family == AF_INET;
	if (is_multicast(&to->address))
		return is_listed_group(socket->instance->config, &to->address) ? METRIC_COUNT
									       : METRIC_DROPPED_TO_MULTICAST;
	return v4 && to->reply_v4.s_addr != to->address.v4.sin_addr.s_addr ? METRIC_DROPPED_TO_BROADCAST : METRIC_COUNT;
}

/* Judges what all datagrams of TRAIN have in common. */
static void judge_train(const struct udp_socket *socket, struct train *train)
{
	const struct instance *instance = socket->instance;

	train->denied = false;
	train->verdict = judge_source(socket, &train->from, &train->to);
	if (train->verdict == METRIC_COUNT)
		train->verdict = judge_destination(socket, &train->to);
	if (train->verdict != METRIC_COUNT || (instance->prefixes == NULL && instance->datagram_buckets == NULL))
		return;
	struct in6_addr ip = socket_address_ip(&train->from);
	train->prefix = instance_source(instance, &ip);
	train->denied = instance->prefixes != NULL && !acl_allows(instance->prefixes, &ip);
}

/* Why a datagram of LENGTH bytes in TRAIN gets no answer; METRIC_COUNT: it is served. */
static enum metric judge(const struct udp_socket *socket, const struct train *train, size_t length)
{
	const struct instance *instance = socket->instance;

	if (train->verdict != METRIC_COUNT)
		return train->verdict;
	if (length > (size_t)instance->config->max_datagram)
		return METRIC_DROPPED_TOO_LONG;
	if (train->denied)
		return METRIC_DROPPED_DENIED;
	if (instance->datagram_buckets != NULL &&
	    !limit_bucket_take(instance->datagram_buckets, &train->prefix, clock_ms()))
		return METRIC_DROPPED_RATE;
	return METRIC_COUNT;
}

/* --- answering --- */

static void *put_control(struct msghdr *message, int level, int type, size_t length)
{
	struct cmsghdr *part = (void *)((char *)message->msg_control + message->msg_controllen);
	part->cmsg_level = level;
	part->cmsg_type = type;
	part->cmsg_len = CMSG_LEN(length);
	message->msg_controllen += CMSG_SPACE(length);
	memset(CMSG_DATA(part), 0, length);
	return CMSG_DATA(part);
}

/* Has the reply leave from the address that was asked, in the class it was asked in. */
static void address_reply(const struct udp_socket *socket, const struct destination *to, struct msghdr *message)
{
	if (!socket->wants_control)
		return;
	if (to->address.any.sa_family == AF_INET) {
		struct in_pktinfo *info = put_control(message, IPPROTO_IP, IP_PKTINFO, sizeof *info);
		info->ipi_spec_dst = to->reply_v4;
	} else {
		bool group = is_multicast(&to->address);
		struct in6_pktinfo *info = put_control(message, IPPROTO_IPV6, IPV6_PKTINFO, sizeof *info);
		if (!group)
			info->ipi6_addr = to->address.v6.sin6_addr;
		if (group || IN6_IS_ADDR_LINKLOCAL(&to->address.v6.sin6_addr))
			info->ipi6_ifindex = to->interface;
	}
	if (socket->instance->config->dscp != DSCP_COPY || to->traffic_class < 0)
		return;
	bool v4 = to->address.any.sa_family == AF_INET;
	int traffic_class = to->traffic_class & 0xfc; /* the two low bits belong to ECN */
	memcpy(put_control(message, v4 ? IPPROTO_IP : IPPROTO_IPV6, v4 ? IP_TOS : IPV6_TCLASS, sizeof traffic_class),
	       &traffic_class, sizeof traffic_class);
}

static void send_replies(struct udp_socket *socket);

/* Whether a reply of LENGTH can go with the one before as one train: all are of one length, but the last may be shorter. */
static bool can_join(const struct side *side, size_t length)
{
	size_t first = side->segments[side->reply_count - 1];
	const struct mmsghdr *reply = &side->out[side->reply_count - 1];
	size_t total = reply->msg_len, count = first > 0 ? total / first : 1;

	first = first > 0 ? first : total;
	return length > 0 && length <= first && total == count * first && count < TRAIN_LONGEST;
}

/* Puts LENGTH more BYTES into the last reply. */
static void append_part(struct side *side, char *bytes, size_t length)
{
	struct mmsghdr *reply = &side->out[side->reply_count - 1];
	struct iovec *next = &side->reply_parts[side->part_count];

	reply->msg_len += (unsigned)length;
	if (reply->msg_hdr.msg_iovlen > 0 && (char *)next[-1].iov_base + next[-1].iov_len == bytes) {
		next[-1].iov_len += length;
		return;
	}
	*next = (struct iovec){.iov_base = bytes, .iov_len = length};
	side->part_count++;
	reply->msg_hdr.msg_iovlen++;
}

static void join_reply(struct side *side, char *bytes, size_t length)
{
	unsigned last = side->reply_count - 1;
	if (side->segments[last] == 0) {
		uint16_t segment = (uint16_t)side->out[last].msg_len;
		memcpy(put_control(&side->out[last].msg_hdr, IPPROTO_UDP, UDP_SEGMENT, sizeof segment), &segment,
		       sizeof segment);
		side->segments[last] = segment;
	}
	append_part(side, bytes, length);
}

/* Adds the reply to a datagram of TRAIN; JOINS: behind another one of it. */
static void add_reply(struct udp_socket *socket, const struct train *train, char *bytes, size_t length, bool joins)
{
	struct side *side = socket->side;

	if (side->reply_count == UDP_BATCH || side->part_count == REPLY_PARTS) {
		send_replies(socket);
		joins = false;
	}
	if (joins && can_join(side, length)) {
		join_reply(side, bytes, length);
		return;
	}
	unsigned i = side->reply_count++;
	side->segments[i] = 0;
	side->out[i] = (struct mmsghdr){.msg_hdr = {
						.msg_name = train->request->msg_name,
						.msg_namelen = train->request->msg_namelen,
						.msg_iov = &side->reply_parts[side->part_count],
						.msg_control = side->control_out[i].bytes,
					}};
	append_part(side, bytes, length);
	address_reply(socket, &train->to, &side->out[i].msg_hdr);
}

/* Turns a datagram of TRAIN into its reply. JOINS as for add_reply. True: there is one. */
static bool answer(struct udp_socket *socket, const struct train *train, char *bytes, size_t length,
		   struct service_context *context, bool joins)
{
	const struct service *service = socket->instance->service;
	struct side *side = socket->side;
	bool in_train = train->segment < train->length, own_room = !in_train || !service->amplifies;

	enum metric reason = judge(socket, train, length);
	if (reason != METRIC_COUNT) {
		drop(socket, reason, 1);
		return false;
	}
	if (!own_room) /* what may grow would grow into the next one */
		bytes = memcpy(side->buffers + UDP_BATCH * (size_t)UDP_DATAGRAM_SIZE, bytes, length);
	context->random = worker_random(side->worker);
	ssize_t reply = service->udp_reply(context, bytes, length, UDP_DATAGRAM_SIZE);
	if (reply < 0)
		return false;
	add_reply(socket, train, bytes, (size_t)reply, joins && own_room);
	if (!own_room)
		send_replies(socket);
	return true;
}

/* The reply to an IPv4 client of a socket of both families goes to its IPv4 address, as options of IPv4 go with it. */
static void unmap_source(struct train *train)
{
	socket_address_unmap(&train->from);
	memcpy(train->request->msg_name, &train->from.any, train->from.length);
	train->request->msg_namelen = train->from.length;
}

/* Answers all of message I. */
static void answer_train(struct udp_socket *socket, unsigned i, struct service_context *context)
{
	struct side *side = socket->side;
	struct train train = {.request = &side->in[i].msg_hdr, .bytes = side->parts[i].iov_base};
	bool joins = false;

	train.length = side->in[i].msg_len;
	train.from = (struct socket_address){.v6 = side->names[i], .length = train.request->msg_namelen};
	if (socket->both_families)
		unmap_source(&train);
	read_control(socket, &train);
	judge_train(socket, &train);
	metrics_add(socket->counters, METRIC_DATAGRAMS_RECEIVED, count_datagrams(train.length, train.segment));
	metrics_add(socket->counters, METRIC_RECEIVED_BYTES, train.length);
	if (train.segment == train.length) {
		answer(socket, &train, train.bytes, train.length, context, false);
		return;
	}
	for (size_t at = 0; at < train.length; at += train.segment) {
		size_t left = train.length - at, length = left < train.segment ? left : train.segment;
		joins |= answer(socket, &train, train.bytes + at, length, context, joins);
	}
}

/* --- sending --- */

static void sent(struct udp_socket *socket, size_t length, size_t segment)
{
	metrics_add(socket->counters, METRIC_DATAGRAMS_SENT, count_datagrams(length, segment));
	metrics_add(socket->counters, METRIC_SENT_BYTES, length);
}

/* Copies reply I out of the batch, to be sent when the socket takes it; SINGLY: its datagrams one by one. */
static void keep(struct udp_socket *socket, unsigned i, bool singly)
{
	const struct msghdr *message = &socket->side->out[i].msg_hdr;
	size_t length = 0, segment = socket->side->segments[i];

	for (size_t part = 0; part < message->msg_iovlen; part++)
		length += message->msg_iov[part].iov_len;
	struct unsent *unsent = malloc(sizeof *unsent + length);
	if (unsent == NULL) {
		drop(socket, METRIC_DROPPED_NO_MEMORY, count_datagrams(length, segment));
		return;
	}
	unsent->next = NULL;
	unsent->from = 0;
	unsent->length = 0;
	unsent->segment = segment;
	unsent->singly = singly;
	unsent->name_length = message->msg_namelen;
	memcpy(&unsent->name, message->msg_name, message->msg_namelen);
	unsent->control_length = message->msg_controllen;
	memcpy(unsent->control.bytes, message->msg_control, message->msg_controllen);
	for (size_t part = 0; part < message->msg_iovlen; part++) {
		const struct iovec *piece = &message->msg_iov[part];
		memcpy(unsent->bytes + unsent->length, piece->iov_base, piece->iov_len);
		unsent->length += piece->iov_len;
	}
	*socket->unsent_last = unsent;
	socket->unsent_last = &unsent->next;
}

/* Takes the first kept reply away. */
static void forget_unsent(struct udp_socket *socket)
{
	struct unsent *unsent = socket->unsent;
	socket->unsent = unsent->next;
	if (socket->unsent == NULL)
		socket->unsent_last = &socket->unsent;
	free(unsent);
}

/* Sends what is next of a kept reply: all of it, or one of its datagrams. Returns as sendmsg, the size in SIZE. */
static ssize_t send_kept(int fd, struct unsent *unsent, size_t *size)
{
	bool cut = unsent->singly && unsent->length - unsent->from > unsent->segment;
	*size = cut ? unsent->segment : unsent->length - unsent->from;
	struct iovec part = {.iov_base = unsent->bytes + unsent->from, .iov_len = *size};
	struct msghdr message = {
		.msg_name = &unsent->name,
		.msg_namelen = unsent->name_length,
		.msg_iov = &part,
		.msg_iovlen = 1,
		.msg_control = unsent->control.bytes,
		.msg_controllen = unsent->control_length - (unsent->singly ? SEGMENT_SPACE : 0),
	};
	return sendmsg(fd, &message, 0);
}

/* Sends what is kept, in order, until all has left or the socket is full. */
static void send_unsent(struct udp_socket *socket)
{
	while (socket->unsent != NULL) {
		struct unsent *unsent = socket->unsent;
		bool train = unsent->segment > 0 && !unsent->singly;
		size_t size;
		if (send_kept(socket->fd, unsent, &size) >= 0) {
			sent(socket, size, train ? unsent->segment : 0);
		} else if (errno == EAGAIN || errno == EINTR) {
			return;
		} else if (train) {
			unsent->singly = true;
			continue;
		} else {
			drop(socket, METRIC_DROPPED_SEND_FAILED, 1);
		}
		unsent->from += size;
		if (unsent->from == unsent->length)
			forget_unsent(socket);
	}
}

/* Waits until the socket takes what is kept, which is lost where there is no memory for that. A socket that is watched already needs
 * none: only one that stops may not be. */
static void wait_writable(struct udp_socket *socket)
{
	if (socket->unsent == NULL)
		return;
	if (event_add(&socket->writable, NULL) == 0) {
		event_del(&socket->readable); /* no more is taken in until this has left */
		return;
	}
	while (socket->unsent != NULL) {
		struct unsent *unsent = socket->unsent;
		drop(socket, METRIC_DROPPED_NO_MEMORY, count_datagrams(unsent->length - unsent->from, unsent->segment));
		forget_unsent(socket);
	}
}

/* Sends replies from FIRST on. Returns how many the kernel took, or -1 with errno for the first of them. */
static int send_batch(struct udp_socket *socket, unsigned first, unsigned count)
{
	struct mmsghdr *replies = &socket->side->out[first];
	struct msghdr *message = &replies->msg_hdr;

	if (count > 1)
		return sendmmsg(socket->fd, replies, count, 0);
	if (message->msg_controllen == 0 && message->msg_iovlen == 1)
		return sendto(socket->fd, message->msg_iov->iov_base, message->msg_iov->iov_len, 0, message->msg_name,
			      message->msg_namelen) < 0
			       ? -1
			       : 1;
	return sendmsg(socket->fd, message, 0) < 0 ? -1 : 1;
}

/* Sends all replies there are, or keeps them for when the socket takes more. */
static void send_replies(struct udp_socket *socket)
{
	struct side *side = socket->side;
	unsigned done = 0, count = side->reply_count;

	while (done < count && socket->unsent == NULL) {
		int number = send_batch(socket, done, count - done);
		for (int i = 0; i < number; i++, done++)
			sent(socket, side->out[done].msg_len, side->segments[done]);
		if (number > 0 || errno == EINTR)
			continue;
		if (errno == EAGAIN)
			break;
		if (side->segments[done] > 0) {
			/* too long for the path, or a device that cannot cut it: this one goes in pieces */
			keep(socket, done++, true);
			send_unsent(socket);
			continue;
		}
		drop(socket, METRIC_DROPPED_SEND_FAILED, 1); /* this one alone: the rest of its batch goes on */
		done++;
	}
	for (; done < count; done++)
		keep(socket, done, false);
	side->reply_count = side->part_count = 0;
	wait_writable(socket);
}

/* Receives what comes from now on; without memory for that the kernel is asked again later. */
static void watch(struct udp_socket *socket)
{
	const struct timeval rest = clock_timeval(RETRY_MS);
	if (event_add(&socket->readable, NULL) == 0)
		return;
	int error = errno;
	event_add(&socket->retry, &rest);
	if (log_allows(&socket->instance->failed_bound, clock_ms()))
		log_warning("%s: receiving pauses: %s", socket->instance->config->name, strerror(error));
}

static void on_retry(evutil_socket_t fd, short what, void *argument)
{
	(void)fd, (void)what;
	watch(argument);
}

static void finish_stop(struct udp_socket *socket);

static void on_writable(evutil_socket_t fd, short what, void *argument)
{
	struct udp_socket *socket = argument;

	(void)fd, (void)what;
	send_unsent(socket);
	if (socket->unsent != NULL)
		return;
	event_del(&socket->writable);
	if (socket->stopping)
		finish_stop(socket);
	else
		watch(socket);
}

/* --- receiving --- */

static bool wants_control(const struct udp_socket *socket)
{
	return socket->wants_control || socket->hears_trains;
}

static void prepare(struct side *side, bool control, unsigned count)
{
	for (unsigned i = 0; i < count; i++) {
		struct msghdr *message = &side->in[i].msg_hdr;
		message->msg_namelen = sizeof side->names[i];
		message->msg_control = control ? side->control_in[i].bytes : NULL;
		message->msg_controllen = control ? CONTROL_SIZE : 0;
		message->msg_flags = 0;
	}
}

/* One datagram, or train, in place 0. Returns as recvmmsg. */
static int receive_one(struct udp_socket *socket)
{
	struct side *side = socket->side;
	struct msghdr *message = &side->in[0].msg_hdr;
	ssize_t length;

	prepare(side, wants_control(socket), 1);
	if (wants_control(socket))
		length = recvmsg(socket->fd, message, 0);
	else
		length = recvfrom(socket->fd, side->buffers, UDP_DATAGRAM_SIZE, 0, message->msg_name,
				  &message->msg_namelen);
	side->in[0].msg_len = (unsigned)length;
	return length < 0 ? -1 : 1;
}

/* Asks the kernel for trains, once there is more than one datagram at a time; a single one must not pay for it. Never
 * taken back: what lies in the queue would be one long datagram then. */
static void ask_trains(struct udp_socket *socket)
{
	const int yes = 1;
	if (socket->asked_trains || socket->instance->service->amplifies || atomic_load(&socket->shared))
		return;
	socket->asked_trains = true;
	if (setsockopt(socket->fd, IPPROTO_UDP, UDP_GRO, &yes, sizeof yes) == 0)
		socket->hears_trains = true;
}

/* Receives a batch, or one where lately there was one at a time: recvmmsg is dearer for a single datagram. Returns the
 * count; -1 with errno. */
static int receive(struct udp_socket *socket)
{
	if (atomic_load_explicit(&socket->shared, memory_order_relaxed))
		socket->hears_trains = true; /* the other one may have asked */
	if (!socket->batching && ++socket->paused < socket->pause)
		return receive_one(socket);
	prepare(socket->side, wants_control(socket), UDP_BATCH);
	int count = recvmmsg(socket->fd, socket->side->in, UDP_BATCH, 0, NULL);
	if (count > 1) {
		socket->batching = true;
		socket->singles = 0;
		socket->pause = PAUSE_FIRST;
		ask_trains(socket);
	} else if (socket->batching) {
		socket->batching = ++socket->singles < SINGLES_BEFORE_SINGLE;
	} else if (socket->pause < PAUSE_LONGEST) {
		socket->pause *= 2;
	}
	socket->paused = 0;
	return count;
}

/* Serves a batch. Returns how many messages there were. */
static int serve(struct udp_socket *socket)
{
	int received = receive(socket);
	if (received <= 0) {
		if (errno != EAGAIN && errno != EINTR && log_allows(&socket->instance->failed_bound, clock_ms()))
			log_warning("%s: cannot receive datagrams: %s", socket->instance->config->name,
				    strerror(errno));
		return 0;
	}
	struct service_context context = {
		.settings = socket->instance->settings,
		.memo = instance_memo(socket->instance, worker_index(socket->side->worker)),
	};
	clock_gettime(CLOCK_REALTIME, &context.now);
	for (int i = 0; i < received; i++)
		answer_train(socket, (unsigned)i, &context);
	send_replies(socket);
	return received;
}

static void on_readable(evutil_socket_t fd, short what, void *argument)
{
	(void)fd, (void)what;
	serve(argument);
}

/* --- starting and stopping --- */

static void start(void *argument)
{
	struct udp_socket *socket = argument;
	struct event_base *base = worker_base(socket->side->worker);
	int on = 0;
	socklen_t length = sizeof on;

	instance_hold(socket->instance, worker_index(socket->side->worker));
	if (getsockopt(socket->fd, IPPROTO_UDP, UDP_GRO, &on, &length) == 0 && on != 0)
		socket->asked_trains = socket->hears_trains = true; /* it was somebody else's before */
	event_assign(&socket->readable, base, socket->fd, EV_READ | EV_PERSIST, on_readable, socket);
	event_assign(&socket->writable, base, socket->fd, EV_WRITE | EV_PERSIST, on_writable, socket);
	evtimer_assign(&socket->retry, base, on_retry, socket);
	watch(socket);
}

/* Answers what is queued, as far as no flood refills the queue and the kernel takes the replies. */
static void empty(struct udp_socket *socket)
{
	for (int i = 0; i < DRAIN_BATCHES && socket->unsent == NULL; i++)
		if (serve(socket) == 0)
			break;
}

static void stopped(struct udp_socket *socket)
{
	instance_release(socket->instance, worker_index(socket->side->worker));
	task_queue_post(socket->main, socket->done);
}

static void finish_stop(struct udp_socket *socket)
{
	empty(socket);
	if (socket->unsent == NULL && !socket->stays_open && !socket->refuses) {
		socket->refuses = true;
		int error = socket_refuse_datagrams(socket->fd);
		if (error != 0)
			log_info("%s: udp: cannot leave a port before it is closed: %s", socket->instance->config->name,
				 strerror(error));
		empty(socket); /* what came in between */
	}
	if (socket->unsent != NULL)
		return; /* on_writable goes on */
	event_del(&socket->readable);
	worker_drop_fd(socket->side->worker, socket->fd);
	stopped(socket);
}

static void use_runtime(struct udp_socket *socket, struct instance *instance)
{
	socket->instance = instance;
	socket->counters = &instance->udp[worker_index(socket->side->worker)];
	socket->wants_control = socket_address_is_wildcard(&socket->address) || instance->config->dscp == DSCP_COPY;
}

static void change(void *argument)
{
	struct udp_socket *socket = argument;
	unsigned index = worker_index(socket->side->worker);
	instance_hold(socket->next_instance, index);
	instance_release(socket->instance, index);
	use_runtime(socket, socket->next_instance);
}

static void stop(void *argument)
{
	struct udp_socket *socket = argument;
	socket->stopping = true;
	event_del(&socket->retry);
	if (socket->unsent == NULL)
		finish_stop(socket);
}

/* Maps what holds datagrams, and has the messages point there for good. False: out of memory. */
static bool side_init(struct side *side, struct worker *worker)
{
	side->worker = worker;
	side->buffers =
		mmap(NULL, BUFFERS_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (side->buffers == MAP_FAILED) {
		side->buffers = NULL;
		return false;
	}
	for (unsigned i = 0; i < UDP_BATCH; i++) {
		side->parts[i].iov_base = side->buffers + i * (size_t)UDP_DATAGRAM_SIZE;
		side->parts[i].iov_len = UDP_DATAGRAM_SIZE;
		side->in[i].msg_hdr.msg_name = &side->names[i];
		side->in[i].msg_hdr.msg_iov = &side->parts[i];
		side->in[i].msg_hdr.msg_iovlen = 1;
	}
	return true;
}

struct udp *udp_new(struct worker *const *workers, unsigned count)
{
	struct udp *udp = calloc(1, sizeof *udp + count * sizeof *udp->sides);
	if (udp == NULL)
		return NULL;
	udp->count = count;
	for (unsigned i = 0; i < count; i++)
		if (!side_init(&udp->sides[i], workers[i])) {
			udp_free(udp);
			return NULL;
		}
	return udp;
}

void udp_free(struct udp *udp)
{
	if (udp == NULL)
		return;
	for (unsigned i = 0; i < udp->count; i++)
		if (udp->sides[i].buffers != NULL)
			munmap(udp->sides[i].buffers, BUFFERS_SIZE);
	free(udp);
}

struct udp_socket *udp_socket_new(struct udp *udp, unsigned worker, int fd, const struct socket_address *address,
				  struct instance *instance)
{
	struct udp_socket *socket = calloc(1, sizeof *socket);
	if (socket == NULL)
		return NULL;
	socket->side = &udp->sides[worker];
	socket->fd = fd;
	socket->address = *address;
	use_runtime(socket, instance);
	socket->unsent_last = &socket->unsent;
	socket->pause = PAUSE_FIRST;
	socket->start = (struct task){.run = start, .argument = socket};
	socket->stop = (struct task){.run = stop, .argument = socket};
	socket->change = (struct task){.run = change, .argument = socket};
	return socket;
}

void udp_socket_set_shared(struct udp_socket *socket, bool shared)
{
	atomic_store(&socket->shared, shared);
}

void udp_socket_leave_open(struct udp_socket *socket)
{
	socket->stays_open = true;
}

void udp_socket_serve_both_families(struct udp_socket *socket)
{
	socket->both_families = true;
}

void udp_socket_hear_elsewhere(struct udp_socket *socket)
{
	socket->hears_elsewhere = true;
}

void udp_socket_change(struct udp_socket *socket, struct instance *instance)
{
	socket->next_instance = instance;
	worker_post(socket->side->worker, &socket->change);
}

void udp_socket_name(struct udp_socket *socket, int fd)
{
	socket->fd = fd;
}

void udp_socket_start(struct udp_socket *socket)
{
	worker_post(socket->side->worker, &socket->start);
}

void udp_socket_stop(struct udp_socket *socket, struct task_queue *main, struct task *done)
{
	socket->main = main;
	socket->done = done;
	worker_post(socket->side->worker, &socket->stop);
}

void udp_socket_free(struct udp_socket *socket)
{
	if (socket == NULL)
		return;
	if (event_initialized(&socket->readable)) {
		event_del(&socket->readable);
		event_del(&socket->writable);
		event_del(&socket->retry);
	}
	while (socket->unsent != NULL)
		forget_unsent(socket);
	free(socket);
}
