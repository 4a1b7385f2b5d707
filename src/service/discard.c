/* discard.c: RFC 863: reads and never replies. */
#include "service/service.h"

#include "core/transport.h"

static ssize_t discard_reply(const struct service_context *context, char *bytes, size_t length, size_t size)
{
	(void)context;
	(void)bytes;
	(void)length;
	(void)size;
	return -1;
}

const struct service discard_service = {
	.name = "discard",
	.port = 9,
	.rfc = 863,
	.transports = TRANSPORT_BOTH,
	.udp_reply = discard_reply,
};
