/* flow.h: datagrams to the target and back, and the ICMP errors they cause. */
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
	int ttl;                /* -1: unknown */
	unsigned fragment_size; /* of the largest fragment, if the datagram was fragmented; else 0 */
};

/* A datagram returned by an ICMP error, or rejected by the local kernel. */
struct flow_refusal {
	int error;                 /* errno */
	char by[TARGET_TEXT_SIZE]; /* sender of the error, without a port */
	unsigned mtu;              /* for EMSGSIZE: the MTU; 0: not stated */
	const char *bytes;         /* start of the datagram */
	size_t length;
};

/* Callbacks of the owner. The flow may be freed within each. */
struct flow_calls {
	void (*on_datagram)(void *context, const struct flow_datagram *datagram);
	void (*on_refusal)(void *context, const struct flow_refusal *refusal);
};

struct flow;

/* Opens a socket for datagrams to ADDRESS. Returns NULL with the reason in ERROR (TARGET_ERROR_SIZE bytes). */
struct flow *flow_open(struct event_base *base, const struct options *options, const struct target_address *address,
		       const struct flow_calls *calls, void *context, char *error);
void flow_free(struct flow *flow);

/* Sets DF on every datagram, ignoring the path MTU that the kernel has learned, and reports whether replies were
 * fragmented. */
bool flow_forbid_fragments(struct flow *flow);

/* Returns 0 or an errno. */
int flow_send(struct flow *flow, const void *bytes, size_t length);

/* Returns the target's address, as 127.0.0.1:7. */
const char *flow_peer(const struct flow *flow);

#endif
