/* source_limit.c: slots taken by each source. */
#include "net/source_limit.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include "core/siphash.h"

enum { SHARDS = 16, CHAINS_AT_FIRST = 64 };

struct source_entry {
	SLIST_ENTRY(source_entry) link;
	struct in6_addr address;
	uint64_t hash;
	_Atomic int64_t taken; /* changed with the shard locked */
};

SLIST_HEAD(chain, source_entry);

/* A hash table under a lock. */
struct shard {
	_Alignas(64) pthread_mutex_t lock;
	struct chain *chains;
	size_t chain_count, source_count;
};

struct source_limit {
	struct siphash_key key;
	struct shard shards[SHARDS];
};

struct source_limit *source_limit_new(void)
{
	struct source_limit *limit = aligned_alloc(_Alignof(struct source_limit), sizeof *limit);
	if (limit == NULL)
		return NULL;
	memset(limit, 0, sizeof *limit);
	siphash_key_init(&limit->key);
	for (int i = 0; i < SHARDS; i++)
		pthread_mutex_init(&limit->shards[i].lock, NULL);
	return limit;
}

void source_limit_free(struct source_limit *limit)
{
	if (limit == NULL)
		return;
	for (int i = 0; i < SHARDS; i++) {
		pthread_mutex_destroy(&limit->shards[i].lock);
		free(limit->shards[i].chains);
	}
	free(limit);
}

static struct shard *find_shard(struct source_limit *limit, uint64_t hash)
{
	return &limit->shards[hash % SHARDS];
}

static struct chain *find_chain(const struct shard *shard, uint64_t hash)
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
		while (!SLIST_EMPTY(&shard->chains[i])) {
			struct source_entry *entry = SLIST_FIRST(&shard->chains[i]);
			SLIST_REMOVE_HEAD(&shard->chains[i], link);
			SLIST_INSERT_HEAD(find_chain(&grown, entry->hash), entry, link);
		}
	free(shard->chains);
	shard->chains = grown.chains;
	shard->chain_count = grown.chain_count;
	return true;
}

/* Returns the entry of ADDRESS, a new one if there is none; NULL when out of memory. The shard is locked. */
static struct source_entry *find_entry(struct shard *shard, uint64_t hash, const struct in6_addr *address)
{
	struct source_entry *entry;

	if (!grow(shard))
		return NULL;
	SLIST_FOREACH(entry, find_chain(shard, hash), link)
		if (entry->hash == hash && IN6_ARE_ADDR_EQUAL(&entry->address, address))
			return entry;
	entry = malloc(sizeof *entry);
	if (entry == NULL)
		return NULL;
	*entry = (struct source_entry){.address = *address, .hash = hash};
	SLIST_INSERT_HEAD(find_chain(shard, hash), entry, link);
	shard->source_count++;
	return entry;
}

int source_limit_enter(struct source_limit *limit, const struct in6_addr *address, int64_t maximum,
		       struct source_entry **entry)
{
	uint64_t hash = siphash_address(&limit->key, address);
	struct shard *shard = find_shard(limit, hash);
	int error = 0;

	pthread_mutex_lock(&shard->lock);
	*entry = find_entry(shard, hash, address);
	if (*entry == NULL) {
		error = -ENOMEM;
	} else if ((*entry)->taken >= maximum) {
		*entry = NULL;
		error = -EAGAIN;
	} else {
		(*entry)->taken++;
	}
	pthread_mutex_unlock(&shard->lock);
	return error;
}

int64_t source_limit_taken(const struct source_entry *entry)
{
	return atomic_load_explicit(&entry->taken, memory_order_relaxed);
}

void source_limit_leave(struct source_limit *limit, struct source_entry *entry)
{
	struct shard *shard = find_shard(limit, entry->hash);
	pthread_mutex_lock(&shard->lock);
	if (--entry->taken == 0) {
		SLIST_REMOVE(find_chain(shard, entry->hash), entry, source_entry, link);
		shard->source_count--;
		free(entry);
	}
	pthread_mutex_unlock(&shard->lock);
}
