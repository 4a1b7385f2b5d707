/* token_bucket.h: rate limits of sources. */
#ifndef SMALLSERVD_NET_TOKEN_BUCKET_H
#define SMALLSERVD_NET_TOKEN_BUCKET_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>

/* COUNT tokens per unit of time: 50/s is {50, 1000}. A bucket holds the tokens of one unit. COUNT 0: unlimited. */
struct limit_rate {
	int64_t count;
	int64_t unit_ms;
};

/* Token buckets in an array of fixed size, indexed by a keyed hash of the source. Sources that collide share a bucket,
 * and none is evicted: forged sources can neither fill the array nor reset a bucket. Takes LIMIT_BUCKETS * 8 bytes of
 * memory. */
struct limit_buckets;
enum { LIMIT_BUCKETS = 64 * 1024 };

/* Returns full buckets; NULL when out of memory. */
struct limit_buckets *limit_buckets_new(struct limit_rate rate);
void limit_buckets_free(struct limit_buckets *buckets);

/* Takes a token of SOURCE, a masked prefix, at NOW_MS of a monotonic clock. Returns false if its bucket is empty. Any
 * thread. */
bool limit_bucket_take(struct limit_buckets *buckets, const struct in6_addr *source, uint64_t now_ms);

#endif
