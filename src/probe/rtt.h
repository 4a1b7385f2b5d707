/* rtt.h: what round trips took: extremes, mean, deviation, jitter, percentiles. */
#ifndef SMALLSERVD_PROBE_RTT_H
#define SMALLSERVD_PROBE_RTT_H

#include <stdint.h>

#include "probe/histogram.h"

/* Zeroed memory is an empty one. For one thread. 31 KiB. */
struct rtt {
	struct histogram histogram;
	double mean_ns, squares; /* squares: of the distances to the mean, in sum */
	uint64_t last_ns, differences;
	double differences_ns; /* between each and the one that came before it, in sum */
};

/* Adds one, in the order in which replies came. */
void rtt_add(struct rtt *rtt, uint64_t value_ns);

/* Adds all of OTHER, as of another connection: there is no difference between its first and our last. */
void rtt_merge(struct rtt *rtt, const struct rtt *other);

/* All in ns, 0 when there were none (jitter: fewer than two). */
struct rtt_summary {
	uint64_t count;
	double min, avg, max;
	double mdev; /* as ping has it: the standard deviation of all there are */
	double jitter; /* the mean of the differences between successive replies, without sign (RFC 3393's ipdv, of round trips) */
	double median, p90, p95, p99, p999;
};
struct rtt_summary rtt_summary(const struct rtt *rtt);

#endif
