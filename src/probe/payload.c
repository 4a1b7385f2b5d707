/* payload.c: self-describing contents of datagrams and streams, for checking replies. */
#include "probe/payload.h"

#include <endian.h>
#include <stdbool.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include "probe/series.h"

enum {
	PERIOD = PAYLOAD_STREAM_PERIOD,
	SEARCHED = 1024, /* requests searched for the one that a corrupted reply belongs to */
	COMPARED = 64,   /* bytes compared of each */
};

struct header {
	uint64_t sequence, time_ns, check;
};
_Static_assert(sizeof(struct header) == PAYLOAD_HEADER, "the header has no gaps");

static char pattern[PERIOD + PAYLOAD_STREAM_AHEAD];

/* Returns VALUE with every bit spread over the result (the finalizer of splitmix64). */
static uint64_t mixed(uint64_t value)
{
	value += UINT64_C(0x9e3779b97f4a7c15);
	value = (value ^ value >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	value = (value ^ value >> 27) * UINT64_C(0x94d049bb133111eb);
	return value ^ value >> 31;
}

/* Runs as a constructor, before any thread. */
__attribute__((constructor)) static void fill_pattern(void)
{
	for (size_t i = 0; i < PERIOD; i++)
		pattern[i] = (char)mixed(i);
	for (size_t i = PERIOD; i < sizeof pattern; i++)
		pattern[i] = pattern[i - PERIOD];
}

uint64_t payload_new_seed(void)
{
	uint64_t seed;
	if (getrandom(&seed, sizeof seed, GRND_NONBLOCK) == (ssize_t)sizeof seed)
		return seed;
	/* early at boot no randomness may be available: a seed need not be secret, only different each time */
	struct timespec now = {0};
	clock_gettime(CLOCK_REALTIME, &now);
	return mixed((uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec) + (uint64_t)getpid();
}

static struct header header_of(const struct payload *payload, uint64_t sequence, uint64_t time_ns)
{
	return (struct header){
		.sequence = htole64(sequence),
		.time_ns = htole64(time_ns),
		.check = htole64(mixed(mixed(payload->seed ^ time_ns) ^ sequence)),
	};
}

/* Returns the pattern that follows the header; more than a period of it is readable. */
static const char *rest_of(const struct payload *payload, uint64_t sequence)
{
	return pattern + mixed(payload->seed ^ mixed(sequence)) % PERIOD;
}

static size_t smaller(size_t a, size_t b)
{
	return a < b ? a : b;
}

void payload_fill(const struct payload *payload, void *bytes, uint64_t sequence, uint64_t time_ns)
{
	const struct header header = header_of(payload, sequence, time_ns);
	if (payload->size <= sizeof header) {
		memcpy(bytes, &header, payload->size);
		return;
	}
	memcpy(bytes, &header, sizeof header);
	memcpy((char *)bytes + sizeof header, rest_of(payload, sequence), payload->size - sizeof header);
}

static size_t first_difference(const char *a, const char *b, size_t length)
{
	if (memcmp(a, b, length) == 0)
		return PAYLOAD_SAME;
	size_t at = 0;
	while (a[at] == b[at])
		at++;
	return at;
}

size_t payload_difference(const struct payload *payload, const void *bytes, size_t length, uint64_t sequence,
			  uint64_t time_ns)
{
	const struct header header = header_of(payload, sequence, time_ns);
	const size_t both = smaller(length, payload->size), front = smaller(both, sizeof header);

	size_t at = first_difference(bytes, (const char *)&header, front);
	if (at != PAYLOAD_SAME)
		return at;
	at = first_difference((const char *)bytes + front, rest_of(payload, sequence), both - front);
	if (at != PAYLOAD_SAME)
		return front + at;
	return length == payload->size ? PAYLOAD_SAME : both;
}

/* Returns the sequence number at the start of LENGTH bytes. From fewer than 8 bytes, the last sent number with these
 * low bits. */
static uint64_t claimed_sequence(const struct series *series, const void *bytes, size_t length)
{
	uint64_t claimed = 0;
	memcpy(&claimed, bytes, smaller(length, sizeof claimed));
	claimed = le64toh(claimed);
	if (length >= sizeof claimed)
		return claimed;
	uint64_t newest = series_newest(series), mask = (UINT64_C(1) << 8 * length) - 1;
	uint64_t back = (newest - claimed) & mask;
	return back < newest ? newest - back : 0;
}

/* Returns how many of the first LENGTH bytes, at most COMPARED, are those of SEQUENCE. */
static size_t agreement(const struct payload *payload, const struct series *series, const char *bytes, size_t length,
			uint64_t sequence)
{
	char expected[COMPARED];
	const struct payload front = {.seed = payload->seed, .size = length};
	uint64_t time_ns = 0;
	size_t same = 0;

	if (!series_sent_at(series, sequence, &time_ns))
		return 0;
	payload_fill(&front, expected, sequence, time_ns);
	for (size_t i = 0; i < length; i++)
		same += bytes[i] == expected[i];
	return same;
}

static uint64_t most_like(const struct payload *payload, const struct series *series, const char *bytes, size_t length)
{
	const size_t compared = smaller(smaller(length, payload->size), COMPARED);
	uint64_t oldest = series_oldest(series), newest = series_newest(series), best = 0;
	size_t most = compared / 2;

	if (newest >= SEARCHED && oldest <= newest - SEARCHED)
		oldest = newest - SEARCHED + 1;
	for (uint64_t sequence = newest; sequence >= oldest; sequence--) {
		size_t same = agreement(payload, series, bytes, compared, sequence);
		if (same > most) {
			most = same;
			best = sequence;
		}
	}
	return best;
}

struct payload_match payload_match(const struct payload *payload, const struct series *series, const void *bytes,
				   size_t length)
{
	uint64_t time_ns = 0, sequence = 0;

	if (length == 0 || payload->size == 0) {
		bool waits = series_waiting(series, &sequence, &time_ns);
		return (struct payload_match){waits ? sequence : 0, length == payload->size ? PAYLOAD_SAME : 0};
	}
	sequence = claimed_sequence(series, bytes, length);
	bool known = series_sent_at(series, sequence, &time_ns);
	size_t at = known ? payload_difference(payload, bytes, length, sequence, time_ns) : 0;
	bool number_alone = payload->size <= sizeof sequence || length <= sizeof sequence;
	if (known && (at >= PAYLOAD_HEADER || number_alone))
		return (struct payload_match){sequence, at};
	if (number_alone)
		return (struct payload_match){0, 0};
	sequence = most_like(payload, series, bytes, length);
	if (!series_sent_at(series, sequence, &time_ns))
		return (struct payload_match){0, 0};
	return (struct payload_match){sequence, payload_difference(payload, bytes, length, sequence, time_ns)};
}

const char *payload_stream(uint64_t seed, uint64_t position)
{
	return pattern + (mixed(seed) % PERIOD + position % PERIOD) % PERIOD;
}

size_t payload_stream_difference(uint64_t seed, uint64_t position, const void *bytes, size_t length)
{
	for (size_t done = 0; done < length;) {
		size_t part = smaller(length - done, PAYLOAD_STREAM_AHEAD);
		size_t at = first_difference((const char *)bytes + done, payload_stream(seed, position + done), part);
		if (at != PAYLOAD_SAME)
			return done + at;
		done += part;
	}
	return PAYLOAD_SAME;
}
