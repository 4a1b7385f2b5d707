/* stream.h: one connection over TCP or TLS, from connecting to its end. */
#ifndef SMALLSERVD_PROBE_STREAM_H
#define SMALLSERVD_PROBE_STREAM_H

#include <event2/event.h>
#include <openssl/ssl.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "probe/options.h"
#include "probe/target.h"

enum stream_end {
	STREAM_UNREACHED, /* the connection failed */
	STREAM_CLOSED,    /* the server shut down its side in order */
	STREAM_BROKEN,    /* reset, or a violation of TLS */
};

/* Callbacks of the owner. The stream may be freed within each. */
struct stream_calls {
	void (*on_open)(void *context); /* connected; the PROXY header is sent and the handshake done */
	void (*on_bytes)(void *context, const char *bytes, size_t length);
	void (*on_end)(void *context, enum stream_end end,
		       const char *reason); /* the last callback, possibly the first */
};

struct stream;

/* Starts to connect to the addresses of TARGET in turn, each 250 ms after the previous or when that has failed (Happy
 * Eyeballs, RFC 8305); the first connection stays. TLS is NULL for plain TCP. All failures are reported by on_end.
 * Returns NULL when out of memory. */
struct stream *stream_open(struct event_base *base, const struct options *options, const struct target *target,
			   SSL_CTX *tls, const struct stream_calls *calls, void *context);
void stream_free(struct stream *stream);

/* Sends LENGTH bytes; queues those that the kernel does not take. Returns false when out of memory. */
bool stream_send(struct stream *stream, const void *bytes, size_t length);

/* Shuts down the sending side once all is sent; replies are still read. */
void stream_shut(struct stream *stream);

/* Returns the number of queued bytes. */
size_t stream_unsent(const struct stream *stream);

/* Returns the server's address, as 127.0.0.1:7; empty before on_open. */
const char *stream_peer(const struct stream *stream);

#endif
