/* runtime.c: one service of one generation of the configuration, as the data path sees it. */
#include "runtime.h"

#include <stdlib.h>
#include <string.h>

struct in6_addr runtime_source(const struct runtime *runtime, const struct in6_addr *ip)
{
	const struct option_source_prefix *length = &runtime->config->source_prefix;
	return prefix_mask(ip, IN6_IS_ADDR_V4MAPPED(ip) ? 96 + length->v4 : length->v6);
}

/* IPv4, which is mapped into IPv6, is not meant by IPv6's shorter prefixes: this one comes between. */
static struct prefix_rule all_ipv4(bool allow)
{
	return (struct prefix_rule){.address.s6_addr = {[10] = 0xff, [11] = 0xff}, .length = 96, .allow = allow};
}

/* Adds of PREFIXES those that are `all`, or the others. */
static void add_rules(struct prefix_rule *rules, size_t *count, const struct option_prefixes *prefixes, bool all,
		      bool allow)
{
	for (size_t i = 0; i < prefixes->count; i++) {
		const struct option_prefix *prefix = &prefixes->list[i];
		if (prefix->all != all)
			continue;
		rules[(*count)++] = (struct prefix_rule){prefix->address, prefix->length, allow};
		if (all)
			rules[(*count)++] = all_ipv4(allow);
	}
}

/* Where somebody is allowed by name, everybody else is not. */
static bool make_prefixes(struct runtime *runtime)
{
	const struct config_service *config = runtime->config;
	const struct {
		const struct option_prefixes *prefixes;
		bool allow;
	} lists[] = {
		{&config->allow, true},
		{&config->allow_file.prefixes, true},
		{&config->deny, false},
		{&config->deny_file.prefixes, false},
	};
	enum { LISTS = sizeof lists / sizeof *lists };
	bool named = config->allow.count > 0 || config->allow_file.path != NULL;
	size_t total = 0, count = 0;

	for (int i = 0; i < LISTS; i++)
		total += lists[i].prefixes->count;
	if (total == 0 && !named)
		return true;
	struct prefix_rule *rules = calloc(2 * total + 1, sizeof *rules);
	if (rules == NULL)
		return false;
	rules[count++] = all_ipv4(!named);
	for (int i = 0; i < 2 * LISTS; i++) /* `all` first: of equal rules the last one holds */
		add_rules(rules, &count, lists[i % LISTS].prefixes, i < LISTS, lists[i % LISTS].allow);
	runtime->prefixes = prefix_map_new(rules, count, !named);
	free(rules);
	return runtime->prefixes != NULL;
}

static bool make_proxies(struct runtime *runtime)
{
	const struct option_prefixes *from = &runtime->config->proxy_from;
	size_t count = 0;

	if (!runtime->config->proxy_protocol)
		return true;
	struct prefix_rule *rules = calloc(2 * from->count + 1, sizeof *rules);
	if (rules == NULL)
		return false;
	rules[count++] = all_ipv4(false);
	for (int all = 1; all >= 0; all--)
		add_rules(rules, &count, from, all, true);
	runtime->proxies = prefix_map_new(rules, count, false);
	free(rules);
	return runtime->proxies != NULL;
}

/* --- what outlives generations --- */

struct standing_buckets {
	struct standing_buckets *next;
	unsigned transport, owners;
	struct option_rate rate;
	struct limit_buckets *buckets;
};

struct runtime_store {
	struct metrics *metrics;
	struct limit_gate *daemon_gate;
	unsigned workers;
	struct mailbox *main;
	generation_callback *on_over;
	struct standing *standings;
	struct limit_sources *shared_sources; /* of all services whose limit of a source is the daemon's */
};

struct runtime_store *runtime_store_new(struct metrics *metrics, struct limit_gate *daemon_gate, unsigned workers,
					struct mailbox *main, generation_callback *on_over)
{
	struct runtime_store *store = calloc(1, sizeof *store);
	if (store == NULL)
		return NULL;
	*store = (struct runtime_store){
		.metrics = metrics, .daemon_gate = daemon_gate, .workers = workers, .main = main, .on_over = on_over};
	store->shared_sources = limit_sources_new();
	if (store->shared_sources != NULL)
		return store;
	free(store);
	return NULL;
}

void runtime_store_free(struct runtime_store *store)
{
	if (store != NULL)
		limit_sources_free(store->shared_sources);
	free(store);
}

/* The standing of SERVICE, with one owner more. NULL when out of memory. */
static struct standing *take_standing(struct runtime_store *store, const struct config_service *service)
{
	struct standing *standing = store->standings;
	while (standing != NULL && strcmp(standing->name, service->name) != 0)
		standing = standing->next;
	if (standing == NULL) {
		standing = calloc(1, sizeof *standing);
		if (standing == NULL || (standing->name = strdup(service->name)) == NULL) {
			free(standing);
			return NULL;
		}
		limit_gate_init(&standing->gate, service->max_connections);
		standing->next = store->standings;
		store->standings = standing;
	}
	standing->owners++;
	return standing;
}

static void leave_standing(struct runtime_store *store, struct standing *standing)
{
	if (standing == NULL || --standing->owners > 0)
		return;
	struct standing **link = &store->standings;
	while (*link != standing)
		link = &(*link)->next;
	*link = standing->next;
	limit_sources_free(standing->sources);
	free(standing->name);
	free(standing);
}

/* Buckets stay full or empty as they are while the rate stays the same. */
static bool take_buckets(struct standing *standing, unsigned transport, struct option_rate rate,
			 struct limit_buckets **buckets)
{
	if (rate.count == 0)
		return true;
	struct standing_buckets *entry = standing->buckets;
	while (entry != NULL && (entry->transport != transport || entry->rate.count != rate.count ||
				 entry->rate.unit_ms != rate.unit_ms))
		entry = entry->next;
	if (entry == NULL) {
		struct limit_buckets *fresh =
			limit_buckets_new((struct limit_rate){.count = rate.count, .unit_ms = rate.unit_ms});
		entry = calloc(1, sizeof *entry);
		if (fresh == NULL || entry == NULL) {
			limit_buckets_free(fresh);
			free(entry);
			return false;
		}
		*entry = (struct standing_buckets){standing->buckets, transport, 0, rate, fresh};
		standing->buckets = entry;
	}
	entry->owners++;
	*buckets = entry->buckets;
	return true;
}

static void leave_buckets(struct standing *standing, const struct limit_buckets *buckets)
{
	struct standing_buckets **link = buckets != NULL ? &standing->buckets : NULL;
	while (link != NULL && (*link)->buckets != buckets)
		link = &(*link)->next;
	if (link == NULL || --(*link)->owners > 0)
		return;
	struct standing_buckets *entry = *link;
	*link = entry->next;
	limit_buckets_free(entry->buckets);
	free(entry);
}

/* --- one service --- */

/* A limit of the service's own is counted in a table of its own; the daemon's, half of all places, over all services
 * together: else a few services would be enough for one source to have them all. */
static bool make_source_limit(struct runtime *runtime, int64_t daemon_maximum)
{
	int64_t maximum = runtime->config->max_connections_per_source;
	int64_t half = daemon_maximum / 2;

	if (maximum == INT64_MAX)
		return true;
	runtime->source_maximum = maximum > 0 ? maximum : half > 0 ? half : 1;
	if (maximum > 0 && runtime->standing->sources == NULL)
		runtime->standing->sources = limit_sources_new();
	runtime->sources = maximum > 0 ? runtime->standing->sources : runtime->generation->store->shared_sources;
	return runtime->sources != NULL;
}

enum { CACHE_LINE = 64 };

/* No two in one cache line, as each has its own writer. */
static size_t memo_stride(const struct runtime *runtime)
{
	return (runtime->service->memo_size + CACHE_LINE - 1) / CACHE_LINE * CACHE_LINE;
}

static bool make_memos(struct runtime *runtime)
{
	size_t stride = memo_stride(runtime), size = stride * runtime->generation->store->workers;
	if (size == 0)
		return true;
	runtime->memos = aligned_alloc(CACHE_LINE, size);
	if (runtime->memos != NULL)
		memset(runtime->memos, 0, size);
	return runtime->memos != NULL;
}

void *runtime_memo(const struct runtime *runtime, unsigned index)
{
	return runtime->memos != NULL ? runtime->memos + index * memo_stride(runtime) : NULL;
}

static bool make_tcp(struct runtime *runtime, int64_t daemon_maximum)
{
	const struct config_service *config = runtime->config;

	runtime->tcp = metrics_blocks(runtime->generation->store->metrics, config->name, TRANSPORT_TCP);
	if (runtime->tcp == NULL ||
	    !take_buckets(runtime->standing, TRANSPORT_TCP, config->connection_rate, &runtime->connection_buckets))
		return false;
	return make_source_limit(runtime, daemon_maximum);
}

static bool make_udp(struct runtime *runtime)
{
	const struct config_service *config = runtime->config;
	const struct option_ports *refused = &config->refuse_source_ports;

	runtime->udp = metrics_blocks(runtime->generation->store->metrics, config->name, TRANSPORT_UDP);
	if (runtime->udp == NULL ||
	    !take_buckets(runtime->standing, TRANSPORT_UDP, config->datagram_rate, &runtime->datagram_buckets))
		return false;
	if (refused->count == 0)
		return true;
	runtime->refused_ports = calloc(1, sizeof *runtime->refused_ports);
	if (runtime->refused_ports == NULL)
		return false;
	for (size_t i = 0; i < refused->count; i++)
		for (unsigned port = refused->list[i].first; port <= refused->list[i].last; port++)
			port_set_add(runtime->refused_ports, (uint16_t)port);
	return true;
}

static bool runtime_init(struct runtime *runtime, struct generation *generation, const struct config_service *config,
			 int64_t daemon_maximum)
{
	runtime->generation = generation;
	runtime->daemon_gate = generation->store->daemon_gate;
	runtime->config = config;
	runtime->service = config->type;
	runtime->settings = config->settings;
	runtime->standing = take_standing(generation->store, config);
	if (runtime->standing == NULL)
		return false;
	runtime->gate = &runtime->standing->gate;
	if (!config->enabled)
		return true;
	return make_prefixes(runtime) && make_proxies(runtime) && make_memos(runtime) &&
	       (!(config->transports & TRANSPORT_TCP) || make_tcp(runtime, daemon_maximum)) &&
	       (!(config->transports & TRANSPORT_UDP) || make_udp(runtime));
}

static void runtime_clear(struct runtime *runtime)
{
	if (runtime->standing == NULL)
		return;
	log_tell_suppressed(&runtime->refused_bound, runtime->config->name);
	log_tell_suppressed(&runtime->full_bound, runtime->config->name);
	log_tell_suppressed(&runtime->failed_bound, runtime->config->name);
	prefix_map_free(runtime->prefixes);
	prefix_map_free(runtime->proxies);
	leave_buckets(runtime->standing, runtime->connection_buckets);
	leave_buckets(runtime->standing, runtime->datagram_buckets);
	leave_standing(runtime->generation->store, runtime->standing);
	free(runtime->refused_ports);
	free(runtime->memos);
}

/* --- all of one configuration --- */

static void drop(struct generation *generation)
{
	if (atomic_fetch_sub(&generation->references, 1) == 1)
		mailbox_post(generation->store->main, &generation->over);
}

static void on_leave(void *argument)
{
	struct generation_share *share = argument;
	share->left = true;
	if (share->held == 0)
		drop(share->generation);
}

static bool make_shares(struct generation *generation, unsigned workers)
{
	generation->shares = aligned_alloc(_Alignof(struct generation_share), workers * sizeof *generation->shares);
	if (generation->shares == NULL)
		return false;
	for (unsigned i = 0; i < workers; i++)
		generation->shares[i] = (struct generation_share){
			.generation = generation,
			.leave = {.run = on_leave, .argument = &generation->shares[i]},
		};
	atomic_init(&generation->references, workers);
	generation->over = (struct mail){.run = generation->store->on_over, .argument = generation};
	return true;
}

static bool make_runtimes(struct generation *generation, int64_t daemon_maximum)
{
	const struct config *config = generation->config;

	generation->runtimes = calloc(config->service_count + 1, sizeof *generation->runtimes);
	for (size_t i = 0; generation->runtimes != NULL && i < config->service_count; i++)
		if (!runtime_init(&generation->runtimes[i], generation, &config->services[i], daemon_maximum))
			return false;
	return generation->runtimes != NULL;
}

struct generation *generation_new(struct config *config, struct runtime_store *store, int64_t daemon_maximum,
				  struct problems *problems)
{
	struct generation *generation = calloc(1, sizeof *generation);
	if (generation != NULL) {
		generation->config = config_ref(config);
		generation->store = store;
		if (make_shares(generation, store->workers) && make_runtimes(generation, daemon_maximum))
			return generation;
	}
	problems_add(problems, NULL, "%s: out of memory", config->file);
	generation_free(generation);
	return NULL;
}

void generation_enforce(struct generation *generation)
{
	for (size_t i = 0; i < generation->config->service_count; i++) {
		struct runtime *runtime = &generation->runtimes[i];
		atomic_store(&runtime->gate->maximum, runtime->config->max_connections);
		if (runtime->tcp != NULL)
			atomic_store(&runtime->standing->ends_at_ms, 0);
	}
}

void generation_refuse_ports(struct generation *generation, const struct port_set *served)
{
	for (size_t i = 0; i < generation->config->service_count; i++)
		if (generation->runtimes[i].refused_ports != NULL)
			port_set_unite(generation->runtimes[i].refused_ports, served);
}

void generation_free(struct generation *generation)
{
	if (generation == NULL)
		return;
	for (size_t i = 0; generation->runtimes != NULL && i < generation->config->service_count; i++)
		runtime_clear(&generation->runtimes[i]);
	config_unref(generation->config);
	free(generation->shares);
	free(generation->runtimes);
	free(generation);
}

struct runtime *generation_runtime(const struct generation *generation, const struct config_service *service)
{
	return &generation->runtimes[service - generation->config->services];
}

struct runtime *generation_find(const struct generation *generation, const char *name)
{
	for (size_t i = 0; i < generation->config->service_count; i++)
		if (strcmp(generation->config->services[i].name, name) == 0)
			return &generation->runtimes[i];
	return NULL;
}

/* --- who serves by it --- */

void runtime_hold(struct runtime *runtime, unsigned index)
{
	runtime->generation->shares[index].held++;
}

void runtime_release(struct runtime *runtime, unsigned index)
{
	struct generation_share *share = &runtime->generation->shares[index];
	if (--share->held == 0 && share->left)
		drop(share->generation);
}

void runtime_send(struct runtime *runtime)
{
	atomic_fetch_add(&runtime->generation->references, 1);
}

void runtime_receive(struct runtime *runtime, unsigned index)
{
	struct generation_share *share = &runtime->generation->shares[index];
	if (share->held++ > 0 || !share->left)
		drop(share->generation); /* else the worker, which had given up its own reference, keeps this one */
}

void runtime_give_up(struct runtime *runtime)
{
	drop(runtime->generation);
}
