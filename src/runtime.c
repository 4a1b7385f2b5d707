/* runtime.c: one service of one generation of the configuration, as the data path sees it. */
#include "runtime.h"

#include <stdlib.h>

struct in6_addr runtime_source(const struct runtime *runtime, const struct in6_addr *ip)
{
	const struct option_source_prefix *length = &runtime->config->source_prefix;
	return prefix_mask(ip, IN6_IS_ADDR_V4MAPPED(ip) ? 96 + length->v4 : length->v6);
}

void runtime_ports_add(struct runtime_ports *ports, uint16_t port)
{
	ports->bits[port / 64] |= UINT64_C(1) << (port % 64);
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

static bool make_buckets(struct option_rate rate, struct limit_buckets **buckets)
{
	if (rate.count == 0)
		return true;
	*buckets = limit_buckets_new((struct limit_rate){.count = rate.count, .unit_ms = rate.unit_ms});
	return *buckets != NULL;
}

/* A limit of the service's own is counted in a table of its own; the daemon's, half of all places, over all services
 * together: else a few services would be enough for one source to have them all. */
static bool make_source_limit(struct runtime *runtime, struct limit_sources *shared)
{
	int64_t maximum = runtime->config->max_connections_per_source;
	int64_t half = atomic_load(&runtime->daemon_gate->maximum) / 2;

	if (maximum == INT64_MAX)
		return true;
	runtime->source_maximum = maximum > 0 ? maximum : half > 0 ? half : 1;
	runtime->sources = maximum > 0 ? limit_sources_new() : shared;
	runtime->shares_sources = maximum == 0;
	return runtime->sources != NULL;
}

static bool make_tcp(struct runtime *runtime, struct metrics *metrics, struct limit_sources *shared)
{
	const struct config_service *config = runtime->config;

	runtime->tcp = metrics_blocks(metrics, config->name, TRANSPORT_TCP);
	if (runtime->tcp == NULL || !make_buckets(config->connection_rate, &runtime->connection_buckets))
		return false;
	return make_source_limit(runtime, shared);
}

static bool make_udp(struct runtime *runtime, struct metrics *metrics)
{
	const struct config_service *config = runtime->config;
	const struct option_ports *refused = &config->refuse_source_ports;

	runtime->udp = metrics_blocks(metrics, config->name, TRANSPORT_UDP);
	if (runtime->udp == NULL || !make_buckets(config->datagram_rate, &runtime->datagram_buckets))
		return false;
	if (refused->count == 0)
		return true;
	runtime->refused_ports = calloc(1, sizeof *runtime->refused_ports);
	if (runtime->refused_ports == NULL)
		return false;
	for (size_t i = 0; i < refused->count; i++)
		for (unsigned port = refused->list[i].first; port <= refused->list[i].last; port++)
			runtime_ports_add(runtime->refused_ports, (uint16_t)port);
	return true;
}

static bool runtime_init(struct runtime *runtime, const struct config_service *config, struct metrics *metrics,
			 struct limit_sources *shared)
{
	runtime->config = config;
	runtime->service = config->type;
	runtime->settings = config->settings;
	limit_gate_init(&runtime->gate, config->max_connections);
	if (!config->enabled)
		return true;
	return make_prefixes(runtime) &&
	       (!(config->transports & TRANSPORT_TCP) || make_tcp(runtime, metrics, shared)) &&
	       (!(config->transports & TRANSPORT_UDP) || make_udp(runtime, metrics));
}

static void runtime_clear(struct runtime *runtime)
{
	prefix_map_free(runtime->prefixes);
	if (!runtime->shares_sources)
		limit_sources_free(runtime->sources);
	limit_buckets_free(runtime->connection_buckets);
	limit_buckets_free(runtime->datagram_buckets);
	free(runtime->refused_ports);
}

struct generation *generation_new(struct config *config, struct metrics *metrics, struct limit_gate *daemon_gate)
{
	struct generation *generation = calloc(1, sizeof *generation);
	if (generation == NULL)
		return NULL;
	generation->config = config_ref(config);
	generation->runtimes = calloc(config->service_count, sizeof *generation->runtimes);
	generation->shared_sources = limit_sources_new();
	if (generation->runtimes == NULL || generation->shared_sources == NULL)
		goto fail;
	for (size_t i = 0; i < config->service_count; i++) {
		generation->runtimes[i].daemon_gate = daemon_gate;
		if (!runtime_init(&generation->runtimes[i], &config->services[i], metrics, generation->shared_sources))
			goto fail;
	}
	return generation;
fail:
	generation_free(generation);
	return NULL;
}

void generation_refuse_ports(struct generation *generation, const struct runtime_ports *served)
{
	for (size_t i = 0; i < generation->config->service_count; i++) {
		struct runtime_ports *refused = generation->runtimes[i].refused_ports;
		for (size_t word = 0; refused != NULL && word < sizeof served->bits / sizeof *served->bits; word++)
			refused->bits[word] |= served->bits[word];
	}
}

void generation_free(struct generation *generation)
{
	if (generation == NULL)
		return;
	for (size_t i = 0; generation->runtimes != NULL && i < generation->config->service_count; i++)
		runtime_clear(&generation->runtimes[i]);
	limit_sources_free(generation->shared_sources);
	config_unref(generation->config);
	free(generation->runtimes);
	free(generation);
}

struct runtime *generation_runtime(const struct generation *generation, const struct config_service *service)
{
	return &generation->runtimes[service - generation->config->services];
}
