/* udp.c: the life of a batch of datagrams. */
#include "udp.h"

#include <errno.h>
#include <event2/event.h>
#include <event2/event_struct.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <time.h>

#include "log.h"
#include "wheel.h"

enum {
	CONTROL_SIZE = 128,
	SINGLES_BEFORE_SINGLE = 8, /* wake-ups with one datagram until receiving goes one by one */
	SINGLES_BEFORE_PROBE = 8,  /* and then until a batch is tried again */
	DRAIN_BATCHES = 4096,      /* a stop does not wait for the end of a flood */
};

/* The control messages that go with a datagram. */
struct control {
	_Alignas(struct cmsghdr) char bytes[CONTROL_SIZE];
};

/* One worker's share: a batch is received, answered in place and sent within one callback. */
struct side {
	struct worker *worker;
	char *buffers; /* UDP_BATCH times UDP_DATAGRAM_SIZE; the kernel gives pages only as they are touched */
	struct mmsghdr in[UDP_BATCH], out[UDP_BATCH];
	struct iovec parts[UDP_BATCH];
	struct sockaddr_in6 names[UDP_BATCH];
	struct control control_in[UDP_BATCH], control_out[UDP_BATCH];
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
	size_t control_length, length;
	char bytes[];
};

struct udp_socket {
	struct side *side;
	struct runtime *runtime;
	struct metrics_block *counters;
	struct event readable, writable;
	int fd;
	struct socket_address address;
	bool wants_control; /* a wildcard hears which address was asked; dscp = copy hears the class */
	bool batching;
	unsigned singles;
	struct unsent *unsent, **unsent_last;
	bool stopping;
	struct mail start, stop;
	struct mailbox *main;
	struct mail *done;
};

/* To whom a datagram was sent. */
struct destination {
	struct socket_address address; /* its port is the socket's */
	struct in_addr reply_v4;       /* the address of ours to answer from */
	unsigned interface;
	int traffic_class; /* -1: not told */
};

static void drop(struct udp_socket *socket, enum metric reason)
{
	metrics_add(socket->counters, reason, 1);
}

/* --- judging --- */

static struct destination find_destination(const struct udp_socket *socket, struct msghdr *message)
{
	struct destination to = {.address = socket->address, .traffic_class = -1};
	to.reply_v4 = socket->address.v4.sin_addr;
	for (struct cmsghdr *part = CMSG_FIRSTHDR(message); part != NULL; part = CMSG_NXTHDR(message, part)) {
		const void *data = CMSG_DATA(part);
		if (part->cmsg_level == IPPROTO_IP && part->cmsg_type == IP_PKTINFO) {
			const struct in_pktinfo *info = data;
			to.address.v4.sin_addr = info->ipi_addr;
			to.reply_v4 = info->ipi_spec_dst;
			to.interface = (unsigned)info->ipi_ifindex;
		} else if (part->cmsg_level == IPPROTO_IPV6 && part->cmsg_type == IPV6_PKTINFO) {
			const struct in6_pktinfo *info = data;
			to.address.v6.sin6_addr = info->ipi6_addr;
			to.interface = info->ipi6_ifindex;
		} else if (part->cmsg_level == IPPROTO_IP && part->cmsg_type == IP_TOS) {
			to.traffic_class = *(const uint8_t *)data;
		} else if (part->cmsg_level == IPPROTO_IPV6 && part->cmsg_type == IPV6_TCLASS) {
			memcpy(&to.traffic_class, data, sizeof to.traffic_class);
		}
	}
	return to;
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
 * as only a loop, or somebody who forges one, sends from our own port. */
static bool is_own_endpoint(const struct udp_socket *socket, const struct socket_address *from,
			    const struct destination *to)
{
	if (socket_address_port(from) != socket_address_port(&socket->address))
		return false;
	return socket_address_same_ip(from, &to->address) ||
	       (socket_address_is_wildcard(&socket->address) && socket_address_is_local(from));
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
	if (runtime_refuses_port(socket->runtime, socket_address_port(from)))
		return METRIC_DROPPED_REFUSED_PORT;
	return METRIC_COUNT;
}

/* The same for where it was sent TO: a broadcast reaches every socket of the port, and each would answer it. */
static enum metric judge_destination(const struct udp_socket *socket, const struct destination *to)
{
	bool v4 = to->address.any.sa_family == AF_INET;
	if (is_multicast(&to->address))
		return is_listed_group(socket->runtime->config, &to->address) ? METRIC_COUNT
									      : METRIC_DROPPED_TO_MULTICAST;
	return v4 && to->reply_v4.s_addr != to->address.v4.sin_addr.s_addr ? METRIC_DROPPED_TO_BROADCAST : METRIC_COUNT;
}

/* Why a datagram of LENGTH bytes gets no answer; METRIC_COUNT: it is served. */
static enum metric judge(const struct udp_socket *socket, const struct socket_address *from,
			 const struct destination *to, size_t length)
{
	const struct runtime *runtime = socket->runtime;
	enum metric reason = judge_source(socket, from, to);

	if (reason == METRIC_COUNT)
		reason = judge_destination(socket, to);
	if (reason != METRIC_COUNT)
		return reason;
	if (length > (size_t)runtime->config->max_datagram)
		return METRIC_DROPPED_TOO_LONG;
	if (runtime->prefixes == NULL && runtime->datagram_buckets == NULL)
		return METRIC_COUNT;

	struct in6_addr ip = socket_address_ip(from), prefix = runtime_source(runtime, &ip);
	if (runtime->prefixes != NULL && !prefix_map_allows(runtime->prefixes, &ip))
		return METRIC_DROPPED_DENIED;
	if (runtime->datagram_buckets != NULL && !limit_bucket_take(runtime->datagram_buckets, &prefix, wheel_now_ms()))
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
	if (socket->runtime->config->dscp != DSCP_COPY || to->traffic_class < 0)
		return;
	bool v4 = to->address.any.sa_family == AF_INET;
	int traffic_class = to->traffic_class & 0xfc; /* the two low bits belong to ECN */
	memcpy(put_control(message, v4 ? IPPROTO_IP : IPPROTO_IPV6, v4 ? IP_TOS : IPV6_TCLASS, sizeof traffic_class),
	       &traffic_class, sizeof traffic_class);
}

/* Judges datagram I and turns it into the next of COUNT replies. True: there is one. */
static bool answer(struct udp_socket *socket, unsigned i, struct service_context *context, unsigned count)
{
	struct side *side = socket->side;
	struct msghdr *request = &side->in[i].msg_hdr;
	size_t length = side->in[i].msg_len;
	struct socket_address from = {.v6 = side->names[i], .length = request->msg_namelen};
	struct destination to = find_destination(socket, request);

	metrics_add(socket->counters, METRIC_RECEIVED_BYTES, length);
	enum metric reason = judge(socket, &from, &to, length);
	if (reason != METRIC_COUNT) {
		drop(socket, reason);
		return false;
	}
	context->random = worker_random(side->worker);
	ssize_t reply =
		socket->runtime->service->udp_reply(context, side->parts[i].iov_base, length, UDP_DATAGRAM_SIZE);
	if (reply < 0)
		return false;

	side->parts[i].iov_len = (size_t)reply;
	struct msghdr *message = &side->out[count].msg_hdr;
	*message = (struct msghdr){
		.msg_name = request->msg_name,
		.msg_namelen = request->msg_namelen,
		.msg_iov = &side->parts[i],
		.msg_iovlen = 1,
		.msg_control = side->control_out[i].bytes,
	};
	address_reply(socket, &to, message);
	return true;
}

/* --- sending --- */

static void sent(struct udp_socket *socket, size_t length)
{
	metrics_add(socket->counters, METRIC_DATAGRAMS_SENT, 1);
	metrics_add(socket->counters, METRIC_SENT_BYTES, length);
}

/* Copies a reply out of the batch, to be sent when the socket takes it. */
static void keep(struct udp_socket *socket, const struct msghdr *message)
{
	size_t length = message->msg_iov->iov_len;
	struct unsent *unsent = malloc(sizeof *unsent + length);
	if (unsent == NULL) {
		drop(socket, METRIC_DROPPED_NO_MEMORY);
		return;
	}
	unsent->next = NULL;
	unsent->length = length;
	unsent->name_length = message->msg_namelen;
	memcpy(&unsent->name, message->msg_name, message->msg_namelen);
	unsent->control_length = message->msg_controllen;
	memcpy(unsent->control.bytes, message->msg_control, message->msg_controllen);
	memcpy(unsent->bytes, message->msg_iov->iov_base, length);
	*socket->unsent_last = unsent;
	socket->unsent_last = &unsent->next;
}

static void wait_writable(struct udp_socket *socket)
{
	if (socket->unsent == NULL)
		return;
	event_del(&socket->readable); /* no more is taken in until this has left */
	event_add(&socket->writable, NULL);
}

static void send_replies(struct udp_socket *socket, unsigned count)
{
	struct mmsghdr *replies = socket->side->out;
	unsigned done = 0;

	while (done < count) {
		int number;
		if (count - done == 1)
			number = sendmsg(socket->fd, &replies[done].msg_hdr, 0) < 0 ? -1 : 1;
		else
			number = sendmmsg(socket->fd, replies + done, count - done, 0);
		for (int i = 0; i < number; i++)
			sent(socket, replies[done++].msg_hdr.msg_iov->iov_len);
		if (number > 0 || errno == EINTR)
			continue;
		if (errno == EAGAIN)
			break;
		drop(socket, METRIC_DROPPED_SEND_FAILED); /* this one alone: the rest of its batch goes on */
		done++;
	}
	for (; done < count; done++)
		keep(socket, &replies[done].msg_hdr);
	wait_writable(socket);
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

static void finish_stop(struct udp_socket *socket);

static void on_writable(evutil_socket_t fd, short what, void *argument)
{
	struct udp_socket *socket = argument;

	(void)what;
	while (socket->unsent != NULL) {
		struct unsent *unsent = socket->unsent;
		struct iovec part = {.iov_base = unsent->bytes, .iov_len = unsent->length};
		struct msghdr message = {
			.msg_name = &unsent->name,
			.msg_namelen = unsent->name_length,
			.msg_iov = &part,
			.msg_iovlen = 1,
			.msg_control = unsent->control.bytes,
			.msg_controllen = unsent->control_length,
		};
		if (sendmsg(fd, &message, 0) >= 0)
			sent(socket, unsent->length);
		else if (errno == EAGAIN || errno == EINTR)
			return;
		else
			drop(socket, METRIC_DROPPED_SEND_FAILED);
		forget_unsent(socket);
	}
	event_del(&socket->writable);
	if (socket->stopping)
		finish_stop(socket);
	else
		event_add(&socket->readable, NULL);
}

/* --- receiving --- */

static void prepare(struct side *side, const struct udp_socket *socket, unsigned count)
{
	for (unsigned i = 0; i < count; i++) {
		side->parts[i].iov_base = side->buffers + i * (size_t)UDP_DATAGRAM_SIZE;
		side->parts[i].iov_len = UDP_DATAGRAM_SIZE;
		side->in[i].msg_hdr = (struct msghdr){
			.msg_name = &side->names[i],
			.msg_namelen = sizeof side->names[i],
			.msg_iov = &side->parts[i],
			.msg_iovlen = 1,
			.msg_control = socket->wants_control ? side->control_in[i].bytes : NULL,
			.msg_controllen = socket->wants_control ? CONTROL_SIZE : 0,
		};
	}
}

/* Receives a batch, or one where lately there was one at a time: recvmmsg is dearer for a single datagram. Returns the
 * count; -1 with errno. */
static int receive(struct udp_socket *socket)
{
	struct side *side = socket->side;
	bool probe = ++socket->singles % SINGLES_BEFORE_PROBE == 0;

	if (!socket->batching && !probe) {
		prepare(side, socket, 1);
		ssize_t length = recvmsg(socket->fd, &side->in[0].msg_hdr, 0);
		side->in[0].msg_len = (unsigned)length;
		return length < 0 ? -1 : 1;
	}
	prepare(side, socket, UDP_BATCH);
	int count = recvmmsg(socket->fd, side->in, UDP_BATCH, 0, NULL);
	if (count > 1)
		socket->singles = 0;
	socket->batching = count > 1 || (socket->batching && socket->singles < SINGLES_BEFORE_SINGLE);
	return count;
}

/* Serves a batch. Returns how many datagrams there were. */
static int serve(struct udp_socket *socket)
{
	int received = receive(socket);
	if (received <= 0) {
		if (errno != EAGAIN && errno != EINTR && log_allows(&socket->runtime->failed_bound, wheel_now_ms()))
			log_warning("%s: cannot receive datagrams: %s", socket->runtime->config->name, strerror(errno));
		return 0;
	}
	metrics_add(socket->counters, METRIC_DATAGRAMS_RECEIVED, (uint64_t)received);

	struct service_context context = {.settings = socket->runtime->settings};
	clock_gettime(CLOCK_REALTIME, &context.now);
	unsigned replies = 0;
	for (int i = 0; i < received; i++)
		replies += answer(socket, (unsigned)i, &context, replies);
	send_replies(socket, replies);
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
	event_assign(&socket->readable, base, socket->fd, EV_READ | EV_PERSIST, on_readable, socket);
	event_assign(&socket->writable, base, socket->fd, EV_WRITE | EV_PERSIST, on_writable, socket);
	if (event_add(&socket->readable, NULL) < 0)
		log_error("%s: cannot watch a socket: out of memory", socket->runtime->config->name);
}

static void finish_stop(struct udp_socket *socket)
{
	for (int i = 0; i < DRAIN_BATCHES && socket->unsent == NULL; i++)
		if (serve(socket) == 0)
			break;
	if (socket->unsent != NULL)
		return; /* on_writable goes on */
	event_del(&socket->readable);
	mailbox_post(socket->main, socket->done);
}

static void stop(void *argument)
{
	struct udp_socket *socket = argument;
	socket->stopping = true;
	if (socket->unsent == NULL)
		finish_stop(socket);
}

struct udp *udp_new(struct worker *const *workers, unsigned count)
{
	struct udp *udp = calloc(1, sizeof *udp + count * sizeof *udp->sides);
	if (udp == NULL)
		return NULL;
	udp->count = count;
	for (unsigned i = 0; i < count; i++) {
		struct side *side = &udp->sides[i];
		side->worker = workers[i];
		side->buffers = mmap(NULL, (size_t)UDP_BATCH * UDP_DATAGRAM_SIZE, PROT_READ | PROT_WRITE,
				     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
		if (side->buffers == MAP_FAILED) {
			side->buffers = NULL;
			udp_free(udp);
			return NULL;
		}
	}
	return udp;
}

void udp_free(struct udp *udp)
{
	if (udp == NULL)
		return;
	for (unsigned i = 0; i < udp->count; i++)
		if (udp->sides[i].buffers != NULL)
			munmap(udp->sides[i].buffers, (size_t)UDP_BATCH * UDP_DATAGRAM_SIZE);
	free(udp);
}

struct udp_socket *udp_socket_new(struct udp *udp, unsigned worker, int fd, const struct socket_address *address,
				  struct runtime *runtime)
{
	struct udp_socket *socket = calloc(1, sizeof *socket);
	if (socket == NULL)
		return NULL;
	socket->side = &udp->sides[worker];
	socket->runtime = runtime;
	socket->counters = &runtime->udp[worker];
	socket->fd = fd;
	socket->address = *address;
	socket->wants_control = socket_address_is_wildcard(address) || runtime->config->dscp == DSCP_COPY;
	socket->unsent_last = &socket->unsent;
	socket->start = (struct mail){.run = start, .argument = socket};
	socket->stop = (struct mail){.run = stop, .argument = socket};
	return socket;
}

void udp_socket_start(struct udp_socket *socket)
{
	worker_post(socket->side->worker, &socket->start);
}

void udp_socket_stop(struct udp_socket *socket, struct mailbox *main, struct mail *done)
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
	}
	while (socket->unsent != NULL)
		forget_unsent(socket);
	free(socket);
}
