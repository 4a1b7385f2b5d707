/* echo.c: RFC 862: returns its input. */
#include "service/service.h"

#include "core/transport.h"

static size_t echo_input(const void *settings, char *bytes, size_t length)
{
	(void)settings;
	(void)bytes;
	return length;
}

static ssize_t echo_reply(const struct service_context *context, char *bytes, size_t length, size_t size)
{
	(void)context;
	(void)bytes;
	(void)size;
	return (ssize_t)length;
}

const struct service echo_service = {
	.name = "echo",
	.port = 7,
	.rfc = 862,
	.transports = TRANSPORT_BOTH,
	.tcp_input = echo_input,
	.udp_reply = echo_reply,
};
