/* histogram.h: durations counted in buckets, from which percentiles are read. */
#ifndef SMALLSERVD_PROBE_HISTOGRAM_H
#define SMALLSERVD_PROBE_HISTOGRAM_H

#include <stdint.h>
#include <stdio.h>

/* Up to 128 ns buckets are exact. Above, each doubling has 64 buckets, of which the middle is told: a percentile is wrong by
 * less than one part in 128. There is a bucket for every value of 64 bits. */
enum { HISTOGRAM_BUCKETS_A_DOUBLING = 64, HISTOGRAM_BUCKETS = 59 * HISTOGRAM_BUCKETS_A_DOUBLING };

/* Zeroed memory is an empty one. For one thread. */
struct histogram {
	uint64_t count;
	uint64_t minimum_ns, maximum_ns; /* exact; of an empty one both 0 */
	uint64_t buckets[HISTOGRAM_BUCKETS];
};

void histogram_add(struct histogram *histogram, uint64_t value_ns);

/* Adds what OTHER has counted. */
void histogram_merge(struct histogram *histogram, const struct histogram *other);

/* What HISTOGRAM has counted since it was BEFORE; the extremes are those of its buckets. */
void histogram_since(const struct histogram *histogram, const struct histogram *before, struct histogram *since);

/* The value that PART (0 to 1) of all are not above, by nearest rank: of 0 the smallest, of 1 the largest. 0 when
 * nothing was counted. */
uint64_t histogram_percentile(const struct histogram *histogram, double part);

/* Calls EACH for a row of values, from the smallest, with the first value and the count of the row, empty ones left out: a row a
 * doubling of time, finer where all are close together. */
void histogram_each(const struct histogram *histogram, void (*each)(void *context, uint64_t from_ns, uint64_t count),
		    void *context);

/* Draws these rows as bars, one line each, with counts and cumulated per cent. */
void histogram_print(const struct histogram *histogram, FILE *file);

enum { HISTOGRAM_TIME_SIZE = 32 };

/* Writes a duration in the unit that suits it, as `12.3 us`, to TEXT of HISTOGRAM_TIME_SIZE bytes. Returns TEXT. */
char *histogram_time_text(double value_ns, char *text);

#endif
