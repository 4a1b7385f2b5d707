/* limit.c: how many are let in: of all, and of each source. */
#include "net/limit.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

/* --- places that all share --- */

void limit_gate_init(struct limit_gate *gate, int64_t maximum)
{
	atomic_init(&gate->taken, 0);
	atomic_init(&gate->maximum, maximum);
	atomic_init(&gate->awaited, false);
}

static bool try_enter(struct limit_gate *gate)
{
	int64_t taken = atomic_load(&gate->taken);
	do {
		if (taken >= atomic_load_explicit(&gate->maximum, memory_order_relaxed))
			return false;
	} while (!atomic_compare_exchange_weak(&gate->taken, &taken, taken + 1));
	return true;
}

bool limit_gate_enter(struct limit_gate *gate)
{
	if (try_enter(gate))
		return true;
	/* a place that was given back between the look and the flag would wake nobody: so flag, then look again */
	atomic_store(&gate->awaited, true);
	return try_enter(gate);
}

int64_t limit_gate_left(const struct limit_gate *gate)
{
	return atomic_load_explicit(&gate->maximum, memory_order_relaxed) -
	       atomic_load_explicit(&gate->taken, memory_order_relaxed);
}

bool limit_gate_leave(struct limit_gate *gate)
{
	atomic_fetch_sub(&gate->taken, 1);
	return atomic_load(&gate->awaited) && atomic_exchange(&gate->awaited, false);
}

/* --- a keyed hash: nobody outside can choose addresses that collide --- */

struct key {
	uint64_t halves[2];
};

static void make_key(struct key *key)
{
	if (getrandom(key, sizeof *key, 0) != sizeof *key)
		*key = (struct key){{(uint64_t)time(NULL), (uint64_t)getpid()}}; /* no kernel of the last ten years */
}

static uint64_t rotate(uint64_t value, int bits)
{
	return value << bits | value >> (64 - bits);
}

static inline void sip_round(uint64_t v[4])
{
	v[0] += v[1], v[2] += v[3];
	v[1] = rotate(v[1], 13) ^ v[0], v[3] = rotate(v[3], 16) ^ v[2];
	v[0] = rotate(v[0], 32);
	v[2] += v[1], v[0] += v[3];
	v[1] = rotate(v[1], 17) ^ v[2], v[3] = rotate(v[3], 21) ^ v[0];
	v[2] = rotate(v[2], 32);
}

/* SipHash-1-3 (Aumasson and Bernstein), which suffices for tables, of the 16 bytes of ADDRESS. */
static uint64_t hash(const struct key *key, const struct in6_addr *address)
{
	uint64_t words[3];
	memcpy(words, address, sizeof *address);
	words[2] = (uint64_t)sizeof *address << 56;

	uint64_t v[4] = {
		key->halves[0] ^ UINT64_C(0x736f6d6570736575),
		key->halves[1] ^ UINT64_C(0x646f72616e646f6d),
		key->halves[0] ^ UINT64_C(0x6c7967656e657261),
		key->halves[1] ^ UINT64_C(0x7465646279746573),
	};
	for (int i = 0; i < 3; i++) {
		v[3] ^= words[i];
		sip_round(v);
		v[0] ^= words[i];
	}
	v[2] ^= 0xff;
	for (int i = 0; i < 3; i++)
		sip_round(v);
	return v[0] ^ v[1] ^ v[2] ^ v[3];
}

/* --- counts per source --- */

enum { SHARDS = 16, CHAINS_AT_FIRST = 64, SPARES = 64 };

struct limit_source {
	struct limit_source *next;
	struct in6_addr address;
	uint64_t hash;
	_Atomic int64_t taken; /* changed with the shard locked */
};

struct shard {
	_Alignas(64) pthread_mutex_t lock;
	struct limit_source **chains;
	size_t chain_count, source_count;
	struct limit_source *spares; /* of sources that left, at most SPARES: who comes and goes costs no allocation */
	unsigned spare_count;
};

struct limit_sources {
	struct key key;
	struct shard shards[SHARDS];
};

struct limit_sources *limit_sources_new(void)
{
	struct limit_sources *sources = aligned_alloc(_Alignof(struct limit_sources), sizeof *sources);
	if (sources == NULL)
		return NULL;
	memset(sources, 0, sizeof *sources);
	make_key(&sources->key);
	for (int i = 0; i < SHARDS; i++)
		pthread_mutex_init(&sources->shards[i].lock, NULL);
	return sources;
}

static struct limit_source *new_source(struct shard *shard)
{
	struct limit_source *source = shard->spares;
	if (source == NULL)
		return malloc(sizeof *source);
	shard->spares = source->next;
	shard->spare_count--;
	return source;
}

static void free_source(struct shard *shard, struct limit_source *source)
{
	if (shard->spare_count == SPARES) {
		free(source);
		return;
	}
	source->next = shard->spares;
	shard->spares = source;
	shard->spare_count++;
}

static void free_spares(struct shard *shard)
{
	while (shard->spare_count > 0)
		free(new_source(shard));
}

void limit_sources_free(struct limit_sources *sources)
{
	if (sources == NULL)
		return;
	for (int i = 0; i < SHARDS; i++) {
		pthread_mutex_destroy(&sources->shards[i].lock);
		free_spares(&sources->shards[i]);
		free(sources->shards[i].chains);
	}
	free(sources);
}

static struct shard *find_shard(struct limit_sources *sources, uint64_t hash)
{
	return &sources->shards[hash % SHARDS];
}

static struct limit_source **find_chain(const struct shard *shard, uint64_t hash)
{
	return &shard->chains[hash / SHARDS % shard->chain_count];
}

/* Keeps chains at one source on average. False: out of memory with no chain at all. */
static bool grow(struct shard *shard)
{
	if (shard->source_count < shard->chain_count)
		return true;
	struct shard grown = {.chain_count = shard->chain_count > 0 ? shard->chain_count * 2 : CHAINS_AT_FIRST};
	grown.chains = calloc(grown.chain_count, sizeof *grown.chains);
	if (grown.chains == NULL)
		return shard->chain_count > 0; /* longer chains will do */
	for (size_t i = 0; i < shard->chain_count; i++)
		for (struct limit_source *source = shard->chains[i], *next; source != NULL; source = next) {
			struct limit_source **chain = find_chain(&grown, source->hash);
			next = source->next;
			source->next = *chain;
			*chain = source;
		}
	free(shard->chains);
	shard->chains = grown.chains;
	shard->chain_count = grown.chain_count;
	return true;
}

/* The entry of ADDRESS, made where there is none yet. The shard is locked. */
static struct limit_source *find_source(struct shard *shard, uint64_t hash, const struct in6_addr *address)
{
	if (!grow(shard))
		return NULL;
	struct limit_source **chain = find_chain(shard, hash);
	for (struct limit_source *source = *chain; source != NULL; source = source->next)
		if (source->hash == hash && IN6_ARE_ADDR_EQUAL(&source->address, address))
			return source;

	struct limit_source *source = new_source(shard);
	if (source == NULL)
		return NULL;
	*source = (struct limit_source){.next = *chain, .address = *address, .hash = hash};
	*chain = source;
	shard->source_count++;
	return source;
}

static void forget_source(struct shard *shard, struct limit_source *source)
{
	struct limit_source **link = find_chain(shard, source->hash);
	while (*link != source)
		link = &(*link)->next;
	*link = source->next;
	shard->source_count--;
	free_source(shard, source);
}

enum limit_verdict limit_source_enter(struct limit_sources *sources, const struct in6_addr *address, int64_t maximum,
				      struct limit_source **source)
{
	uint64_t hashed = hash(&sources->key, address);
	struct shard *shard = find_shard(sources, hashed);
	enum limit_verdict verdict = LIMIT_ADMIT;

	pthread_mutex_lock(&shard->lock);
	*source = find_source(shard, hashed, address);
	if (*source == NULL) {
		verdict = LIMIT_NO_MEMORY;
	} else if ((*source)->taken >= maximum) {
		*source = NULL;
		verdict = LIMIT_TURN_AWAY;
	} else {
		(*source)->taken++;
	}
	pthread_mutex_unlock(&shard->lock);
	return verdict;
}

int64_t limit_source_taken(const struct limit_source *source)
{
	return atomic_load_explicit(&source->taken, memory_order_relaxed);
}

void limit_source_leave(struct limit_sources *sources, struct limit_source *source)
{
	struct shard *shard = find_shard(sources, source->hash);
	pthread_mutex_lock(&shard->lock);
	if (--source->taken == 0)
		forget_source(shard, source);
	pthread_mutex_unlock(&shard->lock);
}

/* --- token buckets --- */

/* A bucket is one number, the time at which it will be full again (GCRA, ITU-T I.371): it needs no refill. Time is counted
 * in ms divided by the rate's count, so that a token takes unit_ms of them and nothing is rounded. */
struct limit_buckets {
	struct key key;
	uint64_t count, unit_ms;
	_Atomic uint64_t full_at[LIMIT_BUCKETS];
};

struct limit_buckets *limit_buckets_new(struct limit_rate rate)
{
	struct limit_buckets *buckets = calloc(1, sizeof *buckets);
	if (buckets == NULL)
		return NULL;
	make_key(&buckets->key);
	buckets->count = (uint64_t)rate.count;
	buckets->unit_ms = (uint64_t)rate.unit_ms;
	return buckets;
}

void limit_buckets_free(struct limit_buckets *buckets)
{
	free(buckets);
}

bool limit_bucket_take(struct limit_buckets *buckets, const struct in6_addr *source, uint64_t now_ms)
{
	_Atomic uint64_t *bucket = &buckets->full_at[hash(&buckets->key, source) % LIMIT_BUCKETS];
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
