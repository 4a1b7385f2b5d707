/* service.h: a service: a row of a table, and functions that turn bytes into bytes. */
#ifndef SMALLSERVD_SERVICE_SERVICE_H
#define SMALLSERVD_SERVICE_SERVICE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <time.h>

#include "option/option.h"

/* Input of a service function; functions use nothing else. */
struct service_context {
	const void *settings; /* its own options, as their rows filled them; NULL without rows */
	struct timespec now;  /* CLOCK_REALTIME */
	uint64_t random;
	void *memo; /* memo_size bytes, zeroed before the first call, for these settings and this thread; or NULL */
};

/* Bytes to send. BYTES lie in the given buffer, and are sent whole before the next call, or in static memory: then the
 * next call asks for the unsent rest by its position. */
struct service_output {
	const char *bytes;
	size_t length;
	bool done; /* close when these bytes are sent */
};

/* A service. Its functions are pure: no socket, event, thread, allocation or clock. */
struct service {
	const char *name;
	uint16_t port; /* assigned by IANA */
	unsigned rfc;
	unsigned transports; /* TRANSPORT_* bits */
	bool amplifies;      /* a UDP reply can be longer than its request */

	/* Its own options, besides those of every service; they fill a zeroed struct of settings_size bytes. */
	const struct option *options;
	size_t option_count;
	size_t settings_size;
	size_t memo_size; /* of the state kept between calls; 0: none */

	/* TCP: returns the output at POSITION, the number of bytes sent so far: after the connect and each time all of
	 * it has been sent. SIZE is at least 1,024. NULL: the service only replies. */
	struct service_output (*tcp_output)(const struct service_context *context, uint64_t position, char *buffer,
					    size_t size);
	/* TCP: turns LENGTH bytes of input, in place, into the bytes to send back; returns their number, at most
	 * LENGTH. Input is segmented arbitrarily. NULL: input is discarded. */
	size_t (*tcp_input)(const void *settings, char *bytes, size_t length);
	/* UDP: turns a datagram of LENGTH bytes, in place, into the reply; the buffer has SIZE bytes, at least 65,535.
	 * Returns the length of the reply; -1: no reply. */
	ssize_t (*udp_reply)(const struct service_context *context, char *bytes, size_t length, size_t size);
};

/* All services, in the order of their ports (registry.c). */
extern const struct service *const service_table[];
extern const size_t service_count;

/* Returns the service called NAME, or NULL. */
const struct service *service_find(const char *name);

extern const struct service echo_service, discard_service, daytime_service, qotd_service, chargen_service, time_service;

#endif
