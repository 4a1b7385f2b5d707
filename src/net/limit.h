/* limit.h: how many are let in: of all, and of each source. */
#ifndef SMALLSERVD_NET_LIMIT_H
#define SMALLSERVD_NET_LIMIT_H

#include <netinet/in.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

/* An exact count of places shared by all workers: one a service, one for the daemon. */
struct limit_gate {
	_Atomic int64_t taken;
	_Atomic int64_t maximum;
	atomic_bool awaited; /* somebody paused for want of a place */
};

void limit_gate_init(struct limit_gate *gate, int64_t maximum);

/* Takes a place. False: all are taken, and the next limit_gate_leave says that somebody waits. Any thread. */
bool limit_gate_enter(struct limit_gate *gate);

/* How many places are free at the moment. Any thread. */
int64_t limit_gate_left(const struct limit_gate *gate);

/* Gives a place back. True: somebody waits for it, and the caller has to wake them. Any thread. */
bool limit_gate_leave(struct limit_gate *gate);

/* Counts per source: how many places each holds. Sharded under locks, so any thread. */
struct limit_sources;

/* NULL when out of memory. */
struct limit_sources *limit_sources_new(void);
void limit_sources_free(struct limit_sources *sources);

/* One source's count, kept while it holds places. */
struct limit_source;

/* What becomes of a client. */
enum limit_verdict { LIMIT_ADMIT, LIMIT_TURN_AWAY, LIMIT_NO_MEMORY };

/* Takes one of MAXIMUM places for ADDRESS, a masked prefix; what to give back is in SOURCE. */
enum limit_verdict limit_source_enter(struct limit_sources *sources, const struct in6_addr *address, int64_t maximum,
				      struct limit_source **source);

/* How many places it holds at the moment. Any thread, while the caller has one of them. */
int64_t limit_source_taken(const struct limit_source *source);

void limit_source_leave(struct limit_sources *sources, struct limit_source *source);

/* So many in so long: 50/s is {50, 1000}. A bucket holds one unit's worth. COUNT 0: unlimited. */
struct limit_rate {
	int64_t count;
	int64_t unit_ms;
};

/* Token buckets in a fixed array under a keyed hash: sources that collide share one, none is ever evicted, so spoofed
 * sources can neither fill it nor reset a bucket. LIMIT_BUCKETS * 8 bytes of memory each. */
struct limit_buckets;
enum { LIMIT_BUCKETS = 64 * 1024 };

/* NULL when out of memory. */
struct limit_buckets *limit_buckets_new(struct limit_rate rate);
void limit_buckets_free(struct limit_buckets *buckets);

/* Takes a token for SOURCE, a masked prefix, at NOW_MS of a monotonic clock. Any thread. */
bool limit_bucket_take(struct limit_buckets *buckets, const struct in6_addr *source, uint64_t now_ms);

#endif
