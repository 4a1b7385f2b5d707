/* flow.h: datagrams to the target and back, with what the network says of them. */
#ifndef SMALLSERVD_PROBE_FLOW_H
#define SMALLSERVD_PROBE_FLOW_H

#include <event2/event.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/socket.h>

#include "probe/options.h"
#include "probe/target.h"

enum { FLOW_DATAGRAM_MAX = 65536 };

struct flow_datagram {
	const char *bytes;
	size_t length;
	const struct sockaddr *source;
	bool from_target;
	int ttl;                /* -1: not known */
	unsigned fragment_size; /* of the largest fragment, when it came in fragments; else 0 */
};

/* A datagram of ours that came back as an ICMP error, or that our own kernel refused. */
struct flow_refusal {
	int error;                 /* errno */
	char by[TARGET_TEXT_SIZE]; /* who said so, without a port */
	unsigned mtu;              /* for EMSGSIZE: what fits; 0: not told */
	const char *bytes;         /* the beginning of the datagram */
	size_t length;
};

/* What the owner is told. Within each call the flow may be freed. */
struct flow_calls {
	void (*on_datagram)(void *context, const struct flow_datagram *datagram);
	void (*on_refusal)(void *context, const struct flow_refusal *refusal);
};

struct flow;

/* A socket for datagrams to ADDRESS. NULL: the reason is in ERROR (TARGET_ERROR_SIZE bytes). */
struct flow *flow_open(struct event_base *base, const struct options *options, const struct target_address *address,
		       const struct flow_calls *calls, void *context, char *error);
void flow_free(struct flow *flow);

/* Forbids fragments (DF) whatever the kernel believes of the path, and asks whether replies came in some. */
bool flow_forbid_fragments(struct flow *flow);

/* Returns 0 or an errno. */
int flow_send(struct flow *flow, const void *bytes, size_t length);

/* The target's address, as 127.0.0.1:7. */
const char *flow_peer(const struct flow *flow);

#endif
