/* chargen.c: RFC 864: an endless stream of 72-character lines, each starting one character further in a ring of 95. */
#include "service/service.h"

#include <string.h>

#include "core/transport.h"

enum {
	RING_SIZE = 95, /* the printable characters, from space to tilde */
	LINE_LENGTH = 72,
	LINE_SIZE = LINE_LENGTH + 2,
	PERIOD = RING_SIZE * LINE_SIZE,
	PERIODS = 37, /* at least 36 periods are readable from any position: nearly 256 KiB */
	REPLY_MAX = 512,
};

static char stream[PERIODS * PERIOD];

/* Runs as a constructor, before any thread: the fast path needs neither a lock nor a check. */
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
	return (struct service_output){.bytes = stream + offset, .length = sizeof stream - offset};
}

/* Replies with the length of the request. RFC 864 asks for a random length, which would amplify a forged request. */
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
