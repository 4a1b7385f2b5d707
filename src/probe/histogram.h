/* histogram.h: durations counted in log-linear buckets, for percentiles. */
#ifndef SMALLSERVD_PROBE_HISTOGRAM_H
#define SMALLSERVD_PROBE_HISTOGRAM_H

#include <stdint.h>
#include <stdio.h>

/* Up to 128 ns buckets are exact. Above, each power of two has 64 buckets and a bucket stands for its middle: the error
 * of a percentile is below 1/128. Every 64-bit value has a bucket. */
enum { HISTOGRAM_BUCKETS_A_DOUBLING = 64, HISTOGRAM_BUCKETS = 59 * HISTOGRAM_BUCKETS_A_DOUBLING };

/* Zero-initialised: empty. For one thread. */
struct histogram {
	uint64_t count;
	uint64_t minimum_ns, maximum_ns; /* exact; both 0 when empty */
	uint64_t buckets[HISTOGRAM_BUCKETS];
};

void histogram_add(struct histogram *histogram, uint64_t value_ns);

/* Adds the counts of OTHER. */
void histogram_merge(struct histogram *histogram, const struct histogram *other);

/* Returns the counts of HISTOGRAM that were added since BEFORE; the extremes are those of its buckets. */
void histogram_since(const struct histogram *histogram, const struct histogram *before, struct histogram *since);

/* Returns the PART quantile (0 to 1) by nearest rank: 0 is the smallest value, 1 the largest. 0 when empty. */
uint64_t histogram_percentile(const struct histogram *histogram, double part);

/* Calls EACH for each non-empty row from the smallest value on, with the first value and the count of the row: a row
 * per power of two, finer if all values are close together. */
void histogram_each(const struct histogram *histogram, void (*each)(void *context, uint64_t from_ns, uint64_t count),
		    void *context);

/* Draws these rows as bars, a line each, with counts and cumulative percentages. */
void histogram_print(const struct histogram *histogram, FILE *file);

enum { HISTOGRAM_TIME_SIZE = 32 };

/* Writes a duration in a fitting unit, as `12.3 us`, to TEXT of HISTOGRAM_TIME_SIZE bytes. Returns TEXT. */
char *histogram_time_text(double value_ns, char *text);

#endif
