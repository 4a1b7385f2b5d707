/* token_bucket.c: rate limits of sources. */
#include "core/token_bucket.h"

#include <stdatomic.h>
#include <stdlib.h>

#include "core/siphash.h"

/* A bucket is one number, the time at which it is full again (GCRA, ITU-T I.371), so it is never refilled. The unit of
 * time is 1 ms divided by the rate's count: a token takes unit_ms of them, without rounding. */
struct token_buckets {
	struct siphash_key key;
	uint64_t count, unit_ms;
	_Atomic uint64_t full_at[TOKEN_BUCKETS];
};

struct token_buckets *token_buckets_new(struct token_rate rate)
{
	struct token_buckets *buckets = calloc(1, sizeof *buckets);
	if (buckets == NULL)
		return NULL;
	siphash_key_init(&buckets->key);
	buckets->count = (uint64_t)rate.count;
	buckets->unit_ms = (uint64_t)rate.unit_ms;
	return buckets;
}

void token_buckets_free(struct token_buckets *buckets)
{
	free(buckets);
}

bool token_bucket_take(struct token_buckets *buckets, const struct in6_addr *source, uint64_t now_ms)
{
	_Atomic uint64_t *bucket = &buckets->full_at[siphash_address(&buckets->key, source) % TOKEN_BUCKETS];
	uint64_t now = now_ms * buckets->count, whole = buckets->unit_ms * buckets->count, after;
	uint64_t full_at = atomic_load_explicit(bucket, memory_order_relaxed);
	do {
		after = (full_at > now ? full_at : now) + buckets->unit_ms;
		if (after - now > whole)
			return false;
	} while (!atomic_compare_exchange_weak_explicit(bucket, &full_at, after, memory_order_relaxed,
							memory_order_relaxed));
	return true;
}
