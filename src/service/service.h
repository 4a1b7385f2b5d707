/* service.h: what a service is: a row, and functions that turn bytes into bytes. */
#ifndef SMALLSERVD_SERVICE_SERVICE_H
#define SMALLSERVD_SERVICE_SERVICE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <time.h>

#include "option/option.h"

/* What a service is told when it speaks; it asks for nothing else. */
struct service_context {
	const void *settings; /* its own options, as its rows filled them; NULL without rows */
	struct timespec now;  /* CLOCK_REALTIME */
	uint64_t random;
	void *memo; /* memo_size bytes, zeroed before the first call, for these settings and this thread alone; or NULL */
};

/* What to send. BYTES lie in the buffer that was given, and are then sent whole before the next call, or in memory
 * that stays (a table): then whatever was not sent is asked for again by its position. */
struct service_output {
	const char *bytes;
	size_t length;
	bool done; /* nothing follows: close when they have left */
};

/* A service. Its functions are pure: no socket, no event, no thread, no allocation, no clock. */
struct service {
	const char *name;
	uint16_t port; /* assigned by IANA */
	unsigned rfc;
	unsigned transports; /* TRANSPORT_* bits */
	bool amplifies;      /* a UDP reply can be longer than its request */

	/* Its own options, beside those of every service; they fill a zeroed struct of settings_size bytes. */
	const struct option *options;
	size_t option_count;
	size_t settings_size;
	size_t memo_size; /* of what it likes to remember from one call to the next; 0: nothing */

	/* TCP: what to send at POSITION, the count of bytes already sent: when connected and each time all of it has
	 * left. SIZE is at least 1024. NULL: the service speaks only when spoken to. */
	struct service_output (*tcp_output)(const struct service_context *context, uint64_t position, char *buffer,
					    size_t size);
	/* TCP: turns LENGTH bytes of input, in place, into the bytes to send back; returns their count, at most
	 * LENGTH. Input arrives cut anywhere. NULL: input is thrown away. */
	size_t (*tcp_input)(const void *settings, char *bytes, size_t length);
	/* UDP: turns a datagram of LENGTH bytes, in place, into the reply; SIZE bytes are there, at least 65535.
	 * Returns the reply's length; -1: no reply. */
	ssize_t (*udp_reply)(const struct service_context *context, char *bytes, size_t length, size_t size);
};

/* Every service, in the order of their ports (services/table.c). */
extern const struct service *const service_table[];
extern const size_t service_count;

/* The service of that name, or NULL. */
const struct service *service_find(const char *name);

extern const struct service echo_service, discard_service, daytime_service, qotd_service, chargen_service, time_service;

#endif
