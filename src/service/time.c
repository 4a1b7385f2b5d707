/* time.c: RFC 868: the seconds since 1900 in four bytes. */
#include "service/service.h"

#include <arpa/inet.h>
#include <string.h>

#include "core/transport.h"

/* From 1900-01-01 to 1970-01-01: 70 years, 17 of them leap years. */
static const uint32_t seconds_before_1970 = 2208988800;

/* Writes the low 32 bits: the count wraps to 0 on 2036-02-07 06:28:16 UTC, and clients assume the era of their own
 * clock. */
static size_t write_time(const struct timespec *now, char *bytes)
{
	uint32_t seconds = htonl((uint32_t)now->tv_sec + seconds_before_1970);

	memcpy(bytes, &seconds, sizeof seconds);
	return sizeof seconds;
}

static struct service_output time_output(const struct service_context *context, uint64_t position, char *buffer,
					 size_t size)
{
	(void)position;
	(void)size;
	return (struct service_output){.bytes = buffer, .length = write_time(&context->now, buffer), .done = true};
}

static ssize_t time_reply(const struct service_context *context, char *bytes, size_t length, size_t size)
{
	(void)length;
	(void)size;
	return (ssize_t)write_time(&context->now, bytes);
}

const struct service time_service = {
	.name = "time",
	.port = 37,
	.rfc = 868,
	.transports = TRANSPORT_BOTH,
	.amplifies = true,
	.tcp_output = time_output,
	.udp_reply = time_reply,
};
