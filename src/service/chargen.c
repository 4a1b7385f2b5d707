/* chargen.c: RFC 864: lines of 72 characters without end, each starting one character further in a ring of 95. */
#include "service/service.h"

#include <string.h>

#include "core/transport.h"

enum {
	RING_SIZE = 95, /* the printing characters, from space to tilde */
	LINE_LENGTH = 72,
	LINE_SIZE = LINE_LENGTH + 2,
	PERIOD = RING_SIZE * LINE_SIZE,
	PERIODS = 37, /* from any position at least 36 periods are ahead: a quarter of a MiB less a bit */
	REPLY_MAX = 512,
};

static char stream[PERIODS * PERIOD];

/* A constructor, as it needs neither a lock nor a check on the fast path: no thread exists before main. */
__attribute__((constructor)) static void fill_stream(void)
{
	char *at = stream;

	for (size_t line = 0; line < RING_SIZE; line++) {
		for (size_t column = 0; column < LINE_LENGTH; column++)
			*at++ = (char)(' ' + (line + column) % RING_SIZE);
		*at++ = '\r';
		*at++ = '\n';
	}
	for (size_t period = 1; period < PERIODS; period++)
		memcpy(stream + period * PERIOD, stream, PERIOD);
}

static struct service_output chargen_output(const struct service_context *context, uint64_t position, char *buffer,
					    size_t size)
{
	size_t offset = position % PERIOD;

	(void)context;
	(void)buffer;
	(void)size;
	return (struct service_output){.bytes = stream + offset, .length = sizeof(stream) - offset};
}

/* RFC 864 asks for a random length; that of the request keeps a forged source from drawing more than was sent. */
static ssize_t chargen_reply(const struct service_context *context, char *bytes, size_t length, size_t size)
{
	size_t reply = length < REPLY_MAX ? length : REPLY_MAX;

	(void)context;
	(void)size;
	memcpy(bytes, stream, reply);
	return (ssize_t)reply;
}

const struct service chargen_service = {
	.name = "chargen",
	.port = 19,
	.rfc = 864,
	.transports = TRANSPORT_BOTH,
	.tcp_output = chargen_output,
	.udp_reply = chargen_reply,
};
