/* stream.h: one connection over TCP or TLS, from dialing to its end. */
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
	STREAM_UNREACHED, /* there never was a connection */
	STREAM_CLOSED,    /* the server ended its side in order */
	STREAM_BROKEN,    /* reset, or against the rules of TLS */
};

/* What the owner is told. Within each call the stream may be freed. */
struct stream_calls {
	void (*on_open)(void *context); /* connected, and the PROXY header and the handshake are done */
	void (*on_bytes)(void *context, const char *bytes, size_t length);
	void (*on_end)(void *context, enum stream_end end, const char *reason); /* the last call; may come first, too */
};

struct stream;

/* Begins to connect to TARGET: to its addresses in turns, the next 250 ms after the last or when that failed; the first
 * that is connected stays. TLS is NULL for plain TCP. Never fails at once: what does is told by on_end. NULL: out of
 * memory. */
struct stream *stream_open(struct event_base *base, const struct options *options, const struct target *target,
			   SSL_CTX *tls, const struct stream_calls *calls, void *context);
void stream_free(struct stream *stream);

/* Sends LENGTH bytes, or keeps what the kernel does not take now. False: out of memory. */
bool stream_send(struct stream *stream, const void *bytes, size_t length);

/* Ends our side when all is sent; replies are still read. */
void stream_shut(struct stream *stream);

/* How many bytes wait to be sent. */
size_t stream_unsent(const struct stream *stream);

/* The server's address, as 127.0.0.1:7; empty before on_open. */
const char *stream_peer(const struct stream *stream);

#endif
