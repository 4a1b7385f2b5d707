/* token_bucket.h: rate limits of sources. */
#ifndef SMALLSERVD_CORE_TOKEN_BUCKET_H
#define SMALLSERVD_CORE_TOKEN_BUCKET_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>

/* COUNT tokens per unit of time: 50/s is {50, 1000}. A bucket holds the tokens of one unit. COUNT 0: unlimited. */
struct token_rate {
	int64_t count;
	int64_t unit_ms;
};

/* Token buckets in an array of fixed size, indexed by a keyed hash of the source. Sources that collide share a bucket,
 * and none is evicted: forged sources can neither fill the array nor reset a bucket. Takes TOKEN_BUCKETS * 8 bytes of
 * memory. */
struct token_buckets;
enum { TOKEN_BUCKETS = 64 * 1024 };

/* Returns full buckets; NULL when out of memory. */
struct token_buckets *token_buckets_new(struct token_rate rate);
void token_buckets_free(struct token_buckets *buckets);

/* Takes a token of SOURCE, a masked prefix, at NOW_MS of a monotonic clock. Returns false if its bucket is empty. Any
 * thread. */
bool token_bucket_take(struct token_buckets *buckets, const struct in6_addr *source, uint64_t now_ms);

#endif
