/* payload.h: bytes that tell what became of them: of datagrams, and of a stream. */
#ifndef SMALLSERVD_PROBE_PAYLOAD_H
#define SMALLSERVD_PROBE_PAYLOAD_H

#include <stddef.h>
#include <stdint.h>

struct series;

enum {
	PAYLOAD_HEADER = 24, /* sequence number, time, checksum of both and of the seed: 64 bits each, little-endian */
	PAYLOAD_STREAM_AHEAD = 256 * 1024,
	PAYLOAD_STREAM_PERIOD = 65521, /* a prime: the stream shifted by anything but a multiple of it differs */
};
#define PAYLOAD_SAME SIZE_MAX

/* How a run makes its datagrams. Any size: a small one has the first bytes of the header. What follows the header is a
 * pattern, another one for each seed and number. */
struct payload {
	uint64_t seed; /* by which the datagrams of other runs are told from ours */
	size_t size;
};

/* A seed by chance. */
uint64_t payload_new_seed(void);

/* Writes the datagram of SEQUENCE, payload->size bytes. TIME_NS is the time at which series_send was told that it left. */
void payload_fill(const struct payload *payload, void *bytes, uint64_t sequence, uint64_t time_ns);

/* The offset of the first byte in which LENGTH bytes differ from that datagram, or PAYLOAD_SAME; with too few or too many
 * bytes it is where the shorter ends, if not before. */
size_t payload_difference(const struct payload *payload, const void *bytes, size_t length, uint64_t sequence,
			  uint64_t time_ns);

struct payload_match {
	uint64_t sequence; /* which request this is the answer to; 0: to none that the series remembers */
	size_t differs_at; /* as payload_difference; means nothing for sequence 0 */
};

/* Finds the request of SERIES that LENGTH bytes answer, also when bytes of the sequence number itself are corrupted: of the
 * last 1024, the one that agrees in most bytes, which have to be more than half. Small datagrams say less: without any byte
 * the oldest in flight is meant; up to 8 bytes are a number alone, and a corrupted one is that of another request, or of none. */
struct payload_match payload_match(const struct payload *payload, const struct series *series, const void *bytes,
				   size_t length);

/* PAYLOAD_STREAM_AHEAD bytes of an endless stream, from POSITION on, in static memory. Position and SEED of each connection
 * make it its own. */
const char *payload_stream(uint64_t seed, uint64_t position);

/* The offset of the first of LENGTH bytes, any number, that is not what the stream has from POSITION on, or PAYLOAD_SAME. */
size_t payload_stream_difference(uint64_t seed, uint64_t position, const void *bytes, size_t length);

#endif
