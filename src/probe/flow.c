/* flow.c: datagrams to the target and back, and the ICMP errors they cause. */
#include "probe/flow.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* after netinet/in.h, on which it depends */
#include <linux/errqueue.h>

#include "probe/socket.h"

#ifndef IP_RECVFRAGSIZE
#define IP_RECVFRAGSIZE 25
#endif
#ifndef IPV6_RECVFRAGSIZE
#define IPV6_RECVFRAGSIZE 77
#endif

enum { SEND_TRIES = 4 };

struct flow {
	struct target_address target;
	struct flow_calls calls;
	void *context;
	int fd;
	struct event *readable;
	char peer[TARGET_TEXT_SIZE];
};

static bool is_target(const struct flow *flow, const struct sockaddr *source)
{
	if (source->sa_family != flow->target.address.ss_family)
		return false;
	if (source->sa_family == AF_INET) {
		const struct sockaddr_in *a = (const struct sockaddr_in *)(const void *)source;
		const struct sockaddr_in *b = (const struct sockaddr_in *)&flow->target.address;

		return a->sin_port == b->sin_port && a->sin_addr.s_addr == b->sin_addr.s_addr;
	}
	const struct sockaddr_in6 *a = (const struct sockaddr_in6 *)(const void *)source;
	const struct sockaddr_in6 *b = (const struct sockaddr_in6 *)&flow->target.address;

	return a->sin6_port == b->sin6_port && memcmp(&a->sin6_addr, &b->sin6_addr, sizeof a->sin6_addr) == 0;
}

/* Returns the number in the control message LEVEL, TYPE, or ABSENT. */
static int control_number(struct msghdr *message, int level, int type, int absent)
{
	for (struct cmsghdr *control = CMSG_FIRSTHDR(message); control; control = CMSG_NXTHDR(message, control)) {
		int number;

		if (control->cmsg_level != level || control->cmsg_type != type)
			continue;
		memcpy(&number, CMSG_DATA(control), sizeof number);
		return number;
	}
	return absent;
}

static const struct sock_extended_err *control_error(struct msghdr *message)
{
	for (struct cmsghdr *control = CMSG_FIRSTHDR(message); control; control = CMSG_NXTHDR(message, control))
		if ((control->cmsg_level == IPPROTO_IP && control->cmsg_type == IP_RECVERR) ||
		    (control->cmsg_level == IPPROTO_IPV6 && control->cmsg_type == IPV6_RECVERR))
			return (const struct sock_extended_err *)(const void *)CMSG_DATA(control);
	return NULL;
}

static void tell_refusal(struct flow *flow, struct msghdr *message, const char *bytes, size_t length)
{
	const struct sock_extended_err *error = control_error(message);
	struct flow_refusal refusal = {.bytes = bytes, .length = length};

	if (error == NULL || error->ee_origin == SO_EE_ORIGIN_TIMESTAMPING)
		return;
	refusal.error = (int)error->ee_errno;
	refusal.mtu = error->ee_errno == EMSGSIZE ? error->ee_info : 0;
	if (error->ee_origin == SO_EE_ORIGIN_LOCAL) {
		snprintf(refusal.by, sizeof refusal.by, "this host");
	} else {
		target_print(SO_EE_OFFENDER(error), refusal.by);
		*strrchr(refusal.by, ':') = '\0'; /* an ICMP message has no port */
	}
	flow->calls.on_refusal(flow->context, &refusal);
}

/* Receives one message a wake-up, as the event is level-triggered: the owner may free the flow in its callback. */
static void on_readable(evutil_socket_t fd, short what, void *context)
{
	static char bytes[FLOW_DATAGRAM_MAX]; /* this part of the probe has one thread */
	struct flow *flow = context;
	struct sockaddr_storage source = {0};
	union {
		struct cmsghdr align;
		char bytes[512];
	} control;
	struct iovec vector = {bytes, sizeof bytes};
	struct msghdr message = {
		.msg_name = &source,
		.msg_namelen = sizeof source,
		.msg_iov = &vector,
		.msg_iovlen = 1,
		.msg_control = &control,
		.msg_controllen = sizeof control,
	};
	bool v6 = flow->target.address.ss_family == AF_INET6;
	int level = v6 ? IPPROTO_IPV6 : IPPROTO_IP;

	(void)what;
	ssize_t length = recvmsg(fd, &message, MSG_ERRQUEUE);

	if (length >= 0) {
		tell_refusal(flow, &message, bytes, (size_t)length);
		return;
	}
	message.msg_namelen = sizeof source;
	message.msg_controllen = sizeof control;
	length = recvmsg(fd, &message, 0);
	if (length < 0)
		return; /* no data, or an error that the error queue has reported in full */

	struct flow_datagram datagram = {
		.bytes = bytes,
		.length = (size_t)length,
		.source = (const struct sockaddr *)&source,
		.from_target = is_target(flow, (const struct sockaddr *)&source),
		.ttl = control_number(&message, level, v6 ? IPV6_HOPLIMIT : IP_TTL, -1),
		.fragment_size = (unsigned)control_number(&message, level, v6 ? IPV6_RECVFRAGSIZE : IP_RECVFRAGSIZE, 0),
	};
	flow->calls.on_datagram(flow->context, &datagram);
}

struct flow *flow_open(struct event_base *base, const struct options *options, const struct target_address *address,
		       const struct flow_calls *calls, void *context, char *error)
{
	struct flow *flow = calloc(1, sizeof *flow);

	if (flow == NULL) {
		snprintf(error, TARGET_ERROR_SIZE, "%s", strerror(ENOMEM));
		return NULL;
	}
	*flow = (struct flow){.target = *address, .calls = *calls, .context = context};
	target_print((const struct sockaddr *)&address->address, flow->peer);
	flow->fd = socket_open(options, address, error);
	if (flow->fd < 0)
		goto fail;
	flow->readable = event_new(base, flow->fd, EV_READ | EV_PERSIST, on_readable, flow);
	if (flow->readable != NULL && event_add(flow->readable, NULL) == 0)
		return flow;
	snprintf(error, TARGET_ERROR_SIZE, "%s", strerror(ENOMEM));
fail:
	flow_free(flow);
	return NULL;
}

void flow_free(struct flow *flow)
{
	if (flow == NULL)
		return;
	if (flow->readable != NULL)
		event_free(flow->readable);
	if (flow->fd >= 0)
		close(flow->fd);
	free(flow);
}

bool flow_forbid_fragments(struct flow *flow)
{
	bool v6 = flow->target.address.ss_family == AF_INET6;
	int level = v6 ? IPPROTO_IPV6 : IPPROTO_IP, on = 1, probe = v6 ? IPV6_PMTUDISC_PROBE : IP_PMTUDISC_PROBE;

	return setsockopt(flow->fd, level, v6 ? IPV6_MTU_DISCOVER : IP_MTU_DISCOVER, &probe, sizeof probe) == 0 &&
	       setsockopt(flow->fd, level, v6 ? IPV6_RECVFRAGSIZE : IP_RECVFRAGSIZE, &on, sizeof on) == 0;
}

int flow_send(struct flow *flow, const void *bytes, size_t length)
{
	int error = 0;

	for (int tries = 0; tries < SEND_TRIES; tries++) {
		if (sendto(flow->fd, bytes, length, 0, (const struct sockaddr *)&flow->target.address,
			   flow->target.length) >= 0)
			return 0;
		error = errno;
		/* the error belongs to an earlier datagram and is in the error queue, too */
		if (error != ECONNREFUSED && error != EHOSTUNREACH && error != ENETUNREACH && error != EINTR &&
		    error != EPROTO && error != ENOPROTOOPT)
			break;
	}
	return error;
}

const char *flow_peer(const struct flow *flow)
{
	return flow->peer;
}
