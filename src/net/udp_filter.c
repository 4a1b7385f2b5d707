/* udp_filter.c: which datagrams are answered. */
#include <string.h>

#include "net/udp_internal.h"

static void read_control_part(struct udp_message *message, const struct cmsghdr *part)
{
	struct udp_destination *to = &message->to;
	const void *data = CMSG_DATA(part);

	if (part->cmsg_level == IPPROTO_IP && part->cmsg_type == IP_PKTINFO) {
		const struct in_pktinfo *info = data;
		if (to->address.any.sa_family == AF_INET6) /* an IPv4 client of a dual-stack socket */
			socket_address_set(&to->address, AF_INET, &info->ipi_addr, "",
					   socket_address_port(&to->address));
		to->address.v4.sin_addr = info->ipi_addr;
		to->reply_v4 = info->ipi_spec_dst;
		to->interface = (unsigned)info->ipi_ifindex;
	} else if (part->cmsg_level == IPPROTO_IPV6 && part->cmsg_type == IPV6_PKTINFO) {
		const struct in6_pktinfo *info = data;
		if (IN6_IS_ADDR_V4MAPPED(&info->ipi6_addr))
			return; /* IP_PKTINFO comes too, with the reply's address */
		to->address.v6.sin6_addr = info->ipi6_addr;
		to->interface = info->ipi6_ifindex;
	} else if (part->cmsg_level == IPPROTO_IP && part->cmsg_type == IP_TOS) {
		to->traffic_class = *(const uint8_t *)data;
	} else if (part->cmsg_level == IPPROTO_IPV6 && part->cmsg_type == IPV6_TCLASS) {
		memcpy(&to->traffic_class, data, sizeof to->traffic_class);
	} else if (part->cmsg_level == IPPROTO_UDP && part->cmsg_type == UDP_GRO) {
		int size;
		memcpy(&size, data, sizeof size);
		if (size > 0 && (size_t)size < message->length)
			message->segment = (size_t)size;
	}
}

/* Reads destination and segment size from the control messages. */
static void read_control(const struct udp_socket *socket, struct udp_message *message)
{
	struct udp_destination *to = &message->to;
	*to = (struct udp_destination){.address = socket->address, .traffic_class = -1};
	to->reply_v4 = socket->address.v4.sin_addr;
	message->segment = message->length;
	if (message->request->msg_controllen == 0)
		return;
	for (struct cmsghdr *part = CMSG_FIRSTHDR(message->request); part != NULL;
	     part = CMSG_NXTHDR(message->request, part))
		read_control_part(message, part);
}

static bool is_listed_group(const struct instance *instance, const struct socket_address *address)
{
	struct in6_addr group = socket_address_ip(address);
	for (size_t i = 0; i < instance->group_count; i++)
		if (IN6_ARE_ADDR_EQUAL(&instance->groups[i], &group))
			return true;
	return false;
}

/* Returns whether the source is the endpoint itself. A wildcard receives on each address of this host. The kernel is
 * asked whether the source is one of these: only a loop or a forged datagram has our own port as its source. In a
 * foreign network namespace it cannot be asked, and the port decides. */
static bool is_own_endpoint(const struct udp_socket *socket, const struct socket_address *from,
			    const struct udp_destination *to)
{
	if (socket_address_port(from) != socket_address_port(&socket->address))
		return false;
	return socket_address_same_ip(from, &to->address) || (socket_address_is_wildcard(&socket->address) &&
							      (socket->foreign_netns || socket_address_is_local(from)));
}

/* Judges the source. A reply to an own endpoint, or to the port of a service that replies by itself, could loop
 * endlessly; a reply to a group or broadcast address would reach many hosts. */
static enum metric judge_source(const struct udp_socket *socket, const struct socket_address *from,
				const struct udp_destination *to)
{
	if (socket_address_port(from) == 0)
		return METRIC_DROPPED_PORT_ZERO;
	if (socket_address_is_wildcard(from))
		return METRIC_DROPPED_SOURCE_UNSPECIFIED;
	if (socket_address_is_multicast(from))
		return METRIC_DROPPED_SOURCE_MULTICAST;
	if (socket_address_is_broadcast(from))
		return METRIC_DROPPED_SOURCE_BROADCAST;
	if (is_own_endpoint(socket, from, to))
		return METRIC_DROPPED_OWN_ENDPOINT;
	if (instance_refuses_port(socket->listener.instance, socket_address_port(from)))
		return METRIC_DROPPED_REFUSED_PORT;
	return METRIC_COUNT;
}

/* Judges the destination. Every socket of the port receives a broadcast, and each would answer it. */
static enum metric judge_destination(const struct udp_socket *socket, const struct udp_destination *to)
{
	bool v4 = to->address.any.sa_family == AF_INET;
	if (socket_address_is_multicast(&to->address))
		return is_listed_group(socket->listener.instance, &to->address) ? METRIC_COUNT
										: METRIC_DROPPED_TO_MULTICAST;
	return v4 && to->reply_v4.s_addr != to->address.v4.sin_addr.s_addr ? METRIC_DROPPED_TO_BROADCAST : METRIC_COUNT;
}

void udp_examine(const struct udp_socket *socket, struct udp_message *message)
{
	const struct instance *instance = socket->listener.instance;

	read_control(socket, message);
	message->verdict = judge_source(socket, &message->from, &message->to);
	if (message->verdict == METRIC_COUNT)
		message->verdict = judge_destination(socket, &message->to);
	message->limited = admission_limits_datagrams(instance);
	if (message->verdict != METRIC_COUNT || !message->limited)
		return;
	struct in6_addr ip = socket_address_ip(&message->from);
	message->source = admission_examine(instance, &ip);
}
