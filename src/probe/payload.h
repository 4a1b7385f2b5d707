/* payload.h: self-describing contents of datagrams and streams, for checking replies. */
#ifndef SMALLSERVD_PROBE_PAYLOAD_H
#define SMALLSERVD_PROBE_PAYLOAD_H

#include <stddef.h>
#include <stdint.h>

struct series;

enum {
	PAYLOAD_HEADER = 24, /* sequence number, time, checksum of both and of the seed: 64 bits each, little-endian */
	PAYLOAD_STREAM_AHEAD = 256 * 1024,
	PAYLOAD_STREAM_PERIOD = 65521, /* a prime: a stream shifted by anything but a multiple of it differs */
};
#define PAYLOAD_SAME SIZE_MAX

/* The datagrams of a run. A small one has the first bytes of the header. The header is followed by a pattern that
 * depends on the seed and the sequence number. */
struct payload {
	uint64_t seed; /* tells the datagrams of this run from those of other runs */
	size_t size;
};

/* Returns a random seed. */
uint64_t payload_new_seed(void);

/* Writes the datagram of SEQUENCE, payload->size bytes. TIME_NS is the time that was passed to series_send. */
void payload_fill(const struct payload *payload, void *bytes, uint64_t sequence, uint64_t time_ns);

/* Returns the offset of the first byte in which LENGTH bytes differ from that datagram, or PAYLOAD_SAME; if the length
 * differs, at most the end of the shorter. */
size_t payload_difference(const struct payload *payload, const void *bytes, size_t length, uint64_t sequence,
			  uint64_t time_ns);

struct payload_match {
	uint64_t sequence; /* the answered request; 0: none that the series remembers */
	size_t differs_at; /* as payload_difference; undefined for sequence 0 */
};

/* Finds the request of SERIES that LENGTH bytes answer, also if bytes of the sequence number are corrupted: of the last
 * 1,024 the one that agrees in most bytes, and in more than half. An empty datagram answers the oldest request in
 * flight; up to 8 bytes are only a number, and a corrupted number is that of another request, or of none. */
struct payload_match payload_match(const struct payload *payload, const struct series *series, const void *bytes,
				   size_t length);

/* Returns PAYLOAD_STREAM_AHEAD bytes of an endless stream from POSITION on, in static memory. SEED and position of each
 * connection make it unique. */
const char *payload_stream(uint64_t seed, uint64_t position);

/* Returns the offset of the first of LENGTH bytes that differs from the stream at POSITION, or PAYLOAD_SAME. */
size_t payload_stream_difference(uint64_t seed, uint64_t position, const void *bytes, size_t length);

#endif
