/* rtt.c: statistics of round-trip times: extremes, mean, deviation, jitter, percentiles. */
#include "probe/rtt.h"

#include <math.h>

#include "core/array.h"

void rtt_add(struct rtt *rtt, uint64_t value_ns)
{
	if (rtt->histogram.count > 0) {
		rtt->differences_ns += fabs((double)value_ns - (double)rtt->last_ns);
		rtt->differences++;
	}
	rtt->last_ns = value_ns;
	histogram_add(&rtt->histogram, value_ns);

	/* Welford's method: sums of squares of nanoseconds would lose the deviation to rounding */
	double distance = (double)value_ns - rtt->mean_ns;
	rtt->mean_ns += distance / (double)rtt->histogram.count;
	rtt->squares += distance * ((double)value_ns - rtt->mean_ns);
}

void rtt_merge(struct rtt *rtt, const struct rtt *other)
{
	double ours = (double)rtt->histogram.count, theirs = (double)other->histogram.count, all = ours + theirs;
	if (theirs == 0)
		return;
	double distance = other->mean_ns - rtt->mean_ns;
	rtt->mean_ns += distance * theirs / all;
	rtt->squares += other->squares + distance * distance * ours * theirs / all;
	rtt->differences += other->differences;
	rtt->differences_ns += other->differences_ns;
	rtt->last_ns = other->last_ns;
	histogram_merge(&rtt->histogram, &other->histogram);
}

struct rtt_summary rtt_summary(const struct rtt *rtt)
{
	const struct histogram *histogram = &rtt->histogram;
	if (histogram->count == 0)
		return (struct rtt_summary){0};
	return (struct rtt_summary){
		.count = histogram->count,
		.min = (double)histogram->minimum_ns,
		.avg = rtt->mean_ns,
		.max = (double)histogram->maximum_ns,
		.mdev = sqrt(rtt->squares / (double)histogram->count),
		.jitter = rtt->differences > 0 ? rtt->differences_ns / (double)rtt->differences : 0,
		.median = (double)histogram_percentile(histogram, 0.5),
		.p90 = (double)histogram_percentile(histogram, 0.9),
		.p95 = (double)histogram_percentile(histogram, 0.95),
		.p99 = (double)histogram_percentile(histogram, 0.99),
		.p999 = (double)histogram_percentile(histogram, 0.999),
	};
}

void rtt_write_json(const struct rtt_summary *summary, struct json *json)
{
	const struct {
		const char *key;
		double ns;
	} times[] = {{"min", summary->min},   {"avg", summary->avg},       {"max", summary->max},
		     {"mdev", summary->mdev}, {"median", summary->median}, {"p90", summary->p90},
		     {"p99", summary->p99},   {"p999", summary->p999},     {"jitter", summary->jitter}};

	if (summary->count == 0) {
		json_null(json, "rtt_ms");
		return;
	}
	json_begin_object(json, "rtt_ms");
	for (size_t i = 0; i < COUNT_OF(times); i++)
		json_number(json, times[i].key, times[i].ns / 1e6, 6);
	json_end(json);
}
