/* udp_reply.c: batches of replies, GSO, and the queue behind a full socket buffer.
 *
 * A batch of 32 replies leaves with one sendmmsg(2), 28 % cheaper per datagram than single calls. Replies to a GRO
 * batch leave as one GSO batch (UDP_SEGMENT), about six times cheaper per datagram of 1,200 bytes. */
#include <errno.h>
#include <event2/event.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>

#include "net/udp_internal.h"

enum {
	SEGMENT_SPACE = CMSG_SPACE(sizeof(uint16_t)), /* of UDP_SEGMENT in the control messages */
	GSO_BATCH_MAX = 64,                           /* datagrams; the kernel's UDP_MAX_SEGMENTS is never less */
};

/* --- adding --- */

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

/* Sets the reply's source address to the request's destination, and its traffic class to the request's. */
static void address_reply(const struct udp_socket *socket, const struct udp_destination *to, struct msghdr *message)
{
	if (to->address.any.sa_family == AF_INET) {
		struct in_pktinfo *info = put_control(message, IPPROTO_IP, IP_PKTINFO, sizeof *info);
		info->ipi_spec_dst = to->reply_v4;
	} else {
		bool group = socket_address_is_multicast(&to->address);
		struct in6_pktinfo *info = put_control(message, IPPROTO_IPV6, IPV6_PKTINFO, sizeof *info);
		if (!group)
			info->ipi6_addr = to->address.v6.sin6_addr;
		if (group || IN6_IS_ADDR_LINKLOCAL(&to->address.v6.sin6_addr))
			info->ipi6_ifindex = to->interface;
	}
	if (socket->listener.instance->config->dscp != DSCP_COPY || to->traffic_class < 0)
		return;
	bool v4 = to->address.any.sa_family == AF_INET;
	int traffic_class = to->traffic_class & 0xfc; /* the two low bits belong to ECN */
	memcpy(put_control(message, v4 ? IPPROTO_IP : IPPROTO_IPV6, v4 ? IP_TOS : IPV6_TCLASS, sizeof traffic_class),
	       &traffic_class, sizeof traffic_class);
}

/* Returns whether a reply of LENGTH can be appended to the last one as a GSO batch: segments have one length, and only
 * the last may be shorter. */
static bool can_join(const struct udp_worker *worker, size_t length)
{
	size_t first = worker->segments[worker->reply_count - 1];
	const struct mmsghdr *reply = &worker->out[worker->reply_count - 1];
	size_t total = reply->msg_len, count = first > 0 ? total / first : 1;

	first = first > 0 ? first : total;
	return length > 0 && length <= first && total == count * first && count < GSO_BATCH_MAX;
}

/* Appends BYTES to the last reply. */
static void join_reply(struct udp_worker *worker, char *bytes, size_t length)
{
	unsigned last = worker->reply_count - 1;
	struct mmsghdr *reply = &worker->out[last];
	struct iovec *part = &worker->reply_parts[worker->part_count - 1];

	if (worker->segments[last] == 0) {
		uint16_t segment = (uint16_t)reply->msg_len;
		memcpy(put_control(&reply->msg_hdr, IPPROTO_UDP, UDP_SEGMENT, sizeof segment), &segment,
		       sizeof segment);
		worker->segments[last] = segment;
	}
	reply->msg_len += (unsigned)length;
	if ((char *)part->iov_base + part->iov_len == bytes) {
		part->iov_len += length;
		return;
	}
	part[1] = (struct iovec){.iov_base = bytes, .iov_len = length};
	worker->part_count++;
	reply->msg_hdr.msg_iovlen++;
}

void udp_add_reply(struct udp_socket *socket, const struct udp_message *message, char *bytes, size_t length, bool join)
{
	struct udp_worker *worker = socket->worker;

	if (worker->reply_count == UDP_BATCH || worker->part_count == UDP_REPLY_PARTS) {
		udp_send_replies(socket);
		join = false;
	}
	if (join && can_join(worker, length)) {
		join_reply(worker, bytes, length);
		return;
	}
	unsigned i = worker->reply_count++;
	struct iovec *part = &worker->reply_parts[worker->part_count++];
	*part = (struct iovec){.iov_base = bytes, .iov_len = length};
	worker->segments[i] = 0;
	worker->out[i] = (struct mmsghdr){.msg_len = (unsigned)length,
					  .msg_hdr = {
						  .msg_name = message->request->msg_name,
						  .msg_namelen = message->request->msg_namelen,
						  .msg_iov = part,
						  .msg_iovlen = 1,
						  .msg_control = worker->control_out[i].bytes,
					  }};
	if (socket->wants_control)
		address_reply(socket, &message->to, &worker->out[i].msg_hdr);
}

/* --- the unsent queue --- */

static void count_sent(struct udp_socket *socket, size_t length, size_t segment)
{
	metrics_add(socket->counters, METRIC_DATAGRAMS_SENT, udp_count(length, segment));
	metrics_add(socket->counters, METRIC_SENT_BYTES, length);
}

/* Copies reply I of the batch to the unsent queue; UNSEGMENTED: to be sent datagram by datagram. */
static void keep(struct udp_socket *socket, unsigned i, bool unsegmented)
{
	const struct msghdr *message = &socket->worker->out[i].msg_hdr;
	size_t length = 0, segment = socket->worker->segments[i];

	for (size_t part = 0; part < message->msg_iovlen; part++)
		length += message->msg_iov[part].iov_len;
	struct udp_unsent *unsent = malloc(sizeof *unsent + length);
	if (unsent == NULL) {
		udp_drop(socket, METRIC_DROPPED_NO_MEMORY, udp_count(length, segment));
		return;
	}
	unsent->from = 0;
	unsent->length = 0;
	unsent->segment = segment;
	unsent->unsegmented = unsegmented;
	unsent->name_length = message->msg_namelen;
	memcpy(&unsent->name, message->msg_name, message->msg_namelen);
	unsent->control_length = message->msg_controllen;
	memcpy(unsent->control.bytes, message->msg_control, message->msg_controllen);
	for (size_t part = 0; part < message->msg_iovlen; part++) {
		const struct iovec *piece = &message->msg_iov[part];
		memcpy(unsent->bytes + unsent->length, piece->iov_base, piece->iov_len);
		unsent->length += piece->iov_len;
	}
	STAILQ_INSERT_TAIL(&socket->unsent, unsent, link);
}

void udp_forget_unsent(struct udp_socket *socket)
{
	struct udp_unsent *unsent = STAILQ_FIRST(&socket->unsent);
	STAILQ_REMOVE_HEAD(&socket->unsent, link);
	free(unsent);
}

/* Sends all that is left of a kept reply, or its next datagram. Returns as sendmsg, and the length tried in SIZE. */
static ssize_t send_kept(int fd, struct udp_unsent *unsent, size_t *size)
{
	bool cut = unsent->unsegmented && unsent->length - unsent->from > unsent->segment;
	*size = cut ? unsent->segment : unsent->length - unsent->from;
	struct iovec part = {.iov_base = unsent->bytes + unsent->from, .iov_len = *size};
	struct msghdr message = {
		.msg_name = &unsent->name,
		.msg_namelen = unsent->name_length,
		.msg_iov = &part,
		.msg_iovlen = 1,
		.msg_control = unsent->control.bytes,
		.msg_controllen = unsent->control_length - (unsent->unsegmented ? SEGMENT_SPACE : 0),
	};
	return sendmsg(fd, &message, 0);
}

void udp_send_unsent(struct udp_socket *socket)
{
	while (!STAILQ_EMPTY(&socket->unsent)) {
		struct udp_unsent *unsent = STAILQ_FIRST(&socket->unsent);
		bool gso_batch = unsent->segment > 0 && !unsent->unsegmented;
		size_t size;
		if (send_kept(socket->listener.fd, unsent, &size) >= 0) {
			count_sent(socket, size, gso_batch ? unsent->segment : 0);
		} else if (errno == EAGAIN || errno == EINTR) {
			return;
		} else if (gso_batch) {
			unsent->unsegmented = true;
			continue;
		} else {
			udp_drop(socket, METRIC_DROPPED_SEND_FAILED, 1);
		}
		unsent->from += size;
		if (unsent->from == unsent->length)
			udp_forget_unsent(socket);
	}
}

/* Waits until the socket is writable, and does not read until then. Without memory for the event the queue is dropped;
 * a socket that was registered before needs none. */
static void wait_writable(struct udp_socket *socket)
{
	if (STAILQ_EMPTY(&socket->unsent))
		return;
	if (event_add(&socket->writable, NULL) == 0) {
		event_del(&socket->readable);
		return;
	}
	while (!STAILQ_EMPTY(&socket->unsent)) {
		struct udp_unsent *unsent = STAILQ_FIRST(&socket->unsent);
		udp_drop(socket, METRIC_DROPPED_NO_MEMORY, udp_count(unsent->length - unsent->from, unsent->segment));
		udp_forget_unsent(socket);
	}
}

/* --- sending --- */

/* Sends COUNT replies from FIRST on. Returns the count that the kernel took, or -1 with errno for the first of them. */
static int send_batch(struct udp_socket *socket, unsigned first, unsigned count)
{
	struct mmsghdr *replies = &socket->worker->out[first];
	struct msghdr *message = &replies->msg_hdr;

	if (count > 1)
		return sendmmsg(socket->listener.fd, replies, count, 0);
	if (message->msg_controllen == 0 && message->msg_iovlen == 1)
		return sendto(socket->listener.fd, message->msg_iov->iov_base, message->msg_iov->iov_len, 0,
			      message->msg_name, message->msg_namelen) < 0
			       ? -1
			       : 1;
	return sendmsg(socket->listener.fd, message, 0) < 0 ? -1 : 1;
}

/* Counts NUMBER replies from FIRST on as sent. */
static void count_batch(struct udp_socket *socket, unsigned first, unsigned number)
{
	const struct udp_worker *worker = socket->worker;
	size_t datagrams = 0, bytes = 0;

	for (unsigned i = first; i < first + number; i++) {
		datagrams += udp_count(worker->out[i].msg_len, worker->segments[i]);
		bytes += worker->out[i].msg_len;
	}
	metrics_add(socket->counters, METRIC_DATAGRAMS_SENT, datagrams);
	metrics_add(socket->counters, METRIC_SENT_BYTES, bytes);
}

void udp_send_replies(struct udp_socket *socket)
{
	struct udp_worker *worker = socket->worker;
	unsigned done = 0, count = worker->reply_count;

	while (done < count && STAILQ_EMPTY(&socket->unsent)) {
		int number = send_batch(socket, done, count - done);
		if (number > 0) {
			count_batch(socket, done, (unsigned)number);
			done += (unsigned)number;
			continue;
		}
		if (errno == EINTR)
			continue;
		if (errno == EAGAIN)
			break;
		if (worker->segments[done] > 0) {
			/* a GSO batch longer than the path's MTU, or a device without segmentation */
			keep(socket, done++, true);
			udp_send_unsent(socket);
			continue;
		}
		udp_drop(socket, METRIC_DROPPED_SEND_FAILED, 1); /* the rest of the batch is sent */
		done++;
	}
	for (; done < count; done++)
		keep(socket, done, false);
	worker->reply_count = worker->part_count = 0;
	wait_writable(socket);
}
