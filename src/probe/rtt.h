/* rtt.h: statistics of round-trip times: extremes, mean, deviation, jitter, percentiles. */
#ifndef SMALLSERVD_PROBE_RTT_H
#define SMALLSERVD_PROBE_RTT_H

#include <stdint.h>

#include "probe/histogram.h"
#include "probe/json.h"

/* Zero-initialised: empty. For one thread. 31 KiB. */
struct rtt {
	struct histogram histogram;
	double mean_ns, squares; /* squares: sum of the squared distances to the mean */
	uint64_t last_ns, differences;
	double differences_ns; /* sum of the differences between successive values */
};

/* Adds a value, in the order of the replies. */
void rtt_add(struct rtt *rtt, uint64_t value_ns);

/* Adds all of OTHER, the values of another connection: the difference between its first value and the last one here
 * does not count. */
void rtt_merge(struct rtt *rtt, const struct rtt *other);

/* All in ns, 0 without values (jitter: with fewer than two). */
struct rtt_summary {
	uint64_t count;
	double min, avg, max;
	double mdev;   /* the standard deviation, as in ping(8) */
	double jitter; /* the mean absolute difference of successive values (as ipdv of RFC 3393, for round trips) */
	double median, p90, p95, p99, p999;
};
struct rtt_summary rtt_summary(const struct rtt *rtt);

/* Writes SUMMARY as the member rtt_ms of an object, in ms; null without values. */
void rtt_write_json(const struct rtt_summary *summary, struct json *json);

#endif
