/* source_limit.c: slots taken by each source. */
#include "net/source_limit.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "core/siphash.h"

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
	struct limit_source *spares; /* free entries, at most SPARES, so that a returning source needs no allocation */
	unsigned spare_count;
};

struct limit_sources {
	struct siphash_key key;
	struct shard shards[SHARDS];
};

struct limit_sources *limit_sources_new(void)
{
	struct limit_sources *sources = aligned_alloc(_Alignof(struct limit_sources), sizeof *sources);
	if (sources == NULL)
		return NULL;
	memset(sources, 0, sizeof *sources);
	siphash_key_init(&sources->key);
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

/* Grows the table so that chains have one source on average. Returns false when out of memory for the first chains. */
static bool grow(struct shard *shard)
{
	if (shard->source_count < shard->chain_count)
		return true;
	struct shard grown = {.chain_count = shard->chain_count > 0 ? shard->chain_count * 2 : CHAINS_AT_FIRST};
	grown.chains = calloc(grown.chain_count, sizeof *grown.chains);
	if (grown.chains == NULL)
		return shard->chain_count > 0; /* chains become longer */
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

/* Returns the entry of ADDRESS, a new one if there is none; NULL when out of memory. The shard is locked. */
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
	uint64_t hashed = siphash_address(&sources->key, address);
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
