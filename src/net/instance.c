/* instance.c: a service of one configuration generation, as the data path sees it. */
#include "net/instance.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/array.h"
#include "core/transport.h"

void instance_log(const struct instance *instance, int level, unsigned transport, const struct socket_address *peer,
		  const char *format, ...)
{
	const char *name = instance->config->name;
	struct log_context context = {.service = name, .transport = transport_name(transport)};
	char source[SOCKET_TEXT_SIZE], text[1800];
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(text, sizeof text, format, arguments);
	va_end(arguments);
	if (peer == NULL) {
		log_write(level, &context, "%s: %s", name, text);
		return;
	}
	socket_address_print(peer, source);
	context.source = source;
	log_write(level, &context, "%s: %s %s %s", name, context.transport, source, text);
}

void instance_report_suppressed(struct instance *instance)
{
	log_report_suppressed(&instance->refused_bound, instance->config->name);
	log_report_suppressed(&instance->full_bound, instance->config->name);
	log_report_suppressed(&instance->failed_bound, instance->config->name);
}

/* Returns the rule of all IPv4: a shorter IPv6 prefix than ::ffff:0:0/96 does not apply to it. */
static struct acl_rule all_ipv4(bool allow)
{
	return (struct acl_rule){.address.s6_addr = {[10] = 0xff, [11] = 0xff}, .length = 96, .allow = allow};
}

/* Adds the PREFIXES that are `all`, or those that are not. */
static void add_rules(struct acl_rule *rules, size_t *count, const struct option_prefixes *prefixes, bool all,
		      bool allow)
{
	for (size_t i = 0; i < prefixes->count; i++) {
		const struct option_prefix *prefix = &prefixes->list[i];
		if (prefix->all != all)
			continue;
		rules[(*count)++] = (struct acl_rule){prefix->address, prefix->length, allow};
		if (all)
			rules[(*count)++] = all_ipv4(allow);
	}
}

struct rule_list {
	const struct option_prefixes *prefixes;
	bool allow;
};

/* Returns the ACL of COUNT lists; NULL when out of memory. */
static struct acl *build_acl(const struct rule_list *lists, size_t count, bool unmatched)
{
	size_t total = 0, rule_count = 0;

	for (size_t i = 0; i < count; i++)
		total += lists[i].prefixes->count;
	struct acl_rule *rules = calloc(2 * total + 1, sizeof *rules);
	if (rules == NULL)
		return NULL;
	rules[rule_count++] = all_ipv4(unmatched);
	for (size_t i = 0; i < 2 * count; i++) /* `all` first: the last of equal rules applies */
		add_rules(rules, &rule_count, lists[i % count].prefixes, i < count, lists[i % count].allow);
	struct acl *acl = acl_new(rules, rule_count, unmatched);
	free(rules);
	return acl;
}

/* With an allow list, sources that match no prefix are denied. */
static bool make_acl(struct instance *instance)
{
	const struct config_service *config = instance->config;
	const struct rule_list lists[] = {
		{&config->allow, true},
		{&config->allow_file.prefixes, true},
		{&config->deny, false},
		{&config->deny_file.prefixes, false},
	};
	bool allow_listed = config->allow.count > 0 || config->allow_file.path != NULL;

	if (!allow_listed && config->deny.count == 0 && config->deny_file.prefixes.count == 0)
		return true;
	instance->acl = build_acl(lists, COUNT_OF(lists), !allow_listed);
	return instance->acl != NULL;
}

static bool make_proxy_acl(struct instance *instance)
{
	if (!instance->config->proxy_protocol)
		return true;
	instance->proxy_acl = build_acl(&(struct rule_list){&instance->config->proxy_from, true}, 1, false);
	return instance->proxy_acl != NULL;
}

/* --- the store --- */

struct service_buckets {
	SLIST_ENTRY(service_buckets) link;
	unsigned transport, owners;
	struct token_rate rate;
	struct token_buckets *buckets;
};

struct instance_store {
	struct limit_gate *daemon_gate;
	unsigned workers;
	struct task_queue *main;
	generation_callback *on_over;
	SLIST_HEAD(, service_state) states;
	struct source_limit *shared_sources; /* of all services without a source limit of their own */
};

struct instance_store *instance_store_new(struct limit_gate *daemon_gate, unsigned workers, struct task_queue *main,
					  generation_callback *on_over)
{
	struct instance_store *store = calloc(1, sizeof *store);
	if (store == NULL)
		return NULL;
	*store = (struct instance_store){
		.daemon_gate = daemon_gate, .workers = workers, .main = main, .on_over = on_over};
	store->shared_sources = source_limit_new();
	if (store->shared_sources != NULL)
		return store;
	free(store);
	return NULL;
}

static void state_free(struct service_state *state)
{
	if (state == NULL)
		return;
	source_limit_free(state->sources);
	free(state->tcp);
	free(state->udp);
	free(state->name);
	free(state);
}

void instance_store_free(struct instance_store *store)
{
	if (store == NULL)
		return;
	while (!SLIST_EMPTY(&store->states)) {
		struct service_state *state = SLIST_FIRST(&store->states);
		SLIST_REMOVE_HEAD(&store->states, link);
		state_free(state);
	}
	source_limit_free(store->shared_sources);
	free(store);
}

/* Returns the state of SERVICE, a new one if the store has none; NULL when out of memory. */
static struct service_state *find_state(struct instance_store *store, const struct config_service *service)
{
	struct service_state *state;
	SLIST_FOREACH(state, &store->states, link)
		if (strcmp(state->name, service->name) == 0)
			return state;
	state = calloc(1, sizeof *state);
	if (state == NULL || (state->name = strdup(service->name)) == NULL) {
		state_free(state);
		return NULL;
	}
	limit_gate_init(&state->gate, service->max_connections);
	SLIST_INSERT_HEAD(&store->states, state, link);
	return state;
}

/* Stores the counters of a transport in COUNTERS, new ones if BLOCKS has none. Returns false when out of memory. */
static bool find_counters(const struct instance *instance, struct metrics_block **blocks,
			  struct metrics_block **counters)
{
	if (*blocks == NULL)
		*blocks = metrics_new(instance->generation->store->workers);
	*counters = *blocks;
	return *blocks != NULL;
}

/* Stores the BUCKETS of RATE, with one owner more. A generation with the same rate goes on with the same buckets.
 * Returns false when out of memory. */
static bool take_buckets(struct service_state *state, unsigned transport, struct token_rate rate,
			 struct token_buckets **buckets)
{
	if (rate.count == 0)
		return true;
	struct service_buckets *entry;
	SLIST_FOREACH(entry, &state->buckets, link)
		if (entry->transport == transport && entry->rate.count == rate.count &&
		    entry->rate.unit_ms == rate.unit_ms)
			break;
	if (entry == NULL) {
		struct token_buckets *fresh = token_buckets_new(rate);
		entry = calloc(1, sizeof *entry);
		if (fresh == NULL || entry == NULL) {
			token_buckets_free(fresh);
			free(entry);
			return false;
		}
		*entry = (struct service_buckets){.transport = transport, .rate = rate, .buckets = fresh};
		SLIST_INSERT_HEAD(&state->buckets, entry, link);
	}
	entry->owners++;
	*buckets = entry->buckets;
	return true;
}

static void leave_buckets(struct service_state *state, const struct token_buckets *buckets)
{
	struct service_buckets *entry;
	SLIST_FOREACH(entry, &state->buckets, link)
		if (entry->buckets == buckets)
			break;
	if (entry == NULL || --entry->owners > 0)
		return;
	SLIST_REMOVE(&state->buckets, entry, service_buckets, link);
	token_buckets_free(entry->buckets);
	free(entry);
}

/* --- one service --- */

/* Sets the source limit. A limit of the service counts in a table of the service. The default, half of the daemon's
 * slots, counts over all services: otherwise a source could take all slots by a few services. */
static bool make_source_limit(struct instance *instance, int64_t daemon_maximum)
{
	int64_t maximum = instance->config->max_connections_per_source;
	int64_t half = daemon_maximum / 2;

	if (maximum == INT64_MAX)
		return true;
	instance->source_maximum = maximum > 0 ? maximum : half > 0 ? half : 1;
	if (maximum > 0 && instance->state->sources == NULL)
		instance->state->sources = source_limit_new();
	instance->sources = maximum > 0 ? instance->state->sources : instance->generation->store->shared_sources;
	return instance->sources != NULL;
}

enum { CACHE_LINE = 64 };

/* Returns the distance of two workers' caches, which share no cache line. */
static size_t memo_stride(const struct instance *instance)
{
	return (instance->service->memo_size + CACHE_LINE - 1) / CACHE_LINE * CACHE_LINE;
}

static bool make_memos(struct instance *instance)
{
	size_t stride = memo_stride(instance), size = stride * instance->generation->store->workers;
	if (size == 0)
		return true;
	instance->memos = aligned_alloc(CACHE_LINE, size);
	if (instance->memos != NULL)
		memset(instance->memos, 0, size);
	return instance->memos != NULL;
}

void *instance_memo(const struct instance *instance, unsigned index)
{
	return instance->memos != NULL ? instance->memos + index * memo_stride(instance) : NULL;
}

static bool make_tcp(struct instance *instance, int64_t daemon_maximum)
{
	const struct config_service *config = instance->config;

	if (!find_counters(instance, &instance->state->tcp, &instance->tcp) ||
	    !take_buckets(instance->state, TRANSPORT_TCP, config->connection_rate, &instance->connection_buckets))
		return false;
	return make_source_limit(instance, daemon_maximum);
}

static bool make_groups(struct instance *instance)
{
	const struct option_addresses *listed = &instance->config->multicast_groups;

	instance->groups = calloc(listed->count + 1, sizeof *instance->groups);
	if (instance->groups == NULL)
		return false;
	for (size_t i = 0; i < listed->count; i++) {
		struct socket_address address;
		socket_address_set(&address, listed->list[i].family, &listed->list[i].ip, "", 0);
		instance->groups[instance->group_count++] = socket_address_ip(&address);
	}
	return true;
}

static bool make_refused_ports(struct instance *instance)
{
	const struct option_ports *refused = &instance->config->refuse_source_ports;

	if (refused->count == 0)
		return true;
	instance->refused_ports = calloc(1, sizeof *instance->refused_ports);
	if (instance->refused_ports == NULL)
		return false;
	for (size_t i = 0; i < refused->count; i++)
		for (unsigned port = refused->list[i].first; port <= refused->list[i].last; port++)
			port_set_add(instance->refused_ports, (uint16_t)port);
	return true;
}

static bool make_udp(struct instance *instance)
{
	const struct config_service *config = instance->config;

	return find_counters(instance, &instance->state->udp, &instance->udp) &&
	       take_buckets(instance->state, TRANSPORT_UDP, config->datagram_rate, &instance->datagram_buckets) &&
	       make_groups(instance) && make_refused_ports(instance);
}

static bool instance_init(struct instance *instance, struct generation *generation, const struct config_service *config,
			  int64_t daemon_maximum)
{
	instance->generation = generation;
	instance->daemon_gate = generation->store->daemon_gate;
	instance->config = config;
	instance->service = config->type;
	instance->settings = config->settings;
	instance->state = find_state(generation->store, config);
	if (instance->state == NULL)
		return false;
	instance->gate = &instance->state->gate;
	if (!config->enabled)
		return true;
	return make_acl(instance) && make_proxy_acl(instance) && make_memos(instance) &&
	       (!(config->transports & TRANSPORT_TCP) || make_tcp(instance, daemon_maximum)) &&
	       (!(config->transports & TRANSPORT_UDP) || make_udp(instance));
}

static void instance_clear(struct instance *instance)
{
	if (instance->state == NULL)
		return;
	instance_report_suppressed(instance);
	acl_free(instance->acl);
	acl_free(instance->proxy_acl);
	leave_buckets(instance->state, instance->connection_buckets);
	leave_buckets(instance->state, instance->datagram_buckets);
	free(instance->refused_ports);
	free(instance->groups);
	free(instance->memos);
}

/* --- generations --- */

static void drop(struct generation *generation)
{
	if (atomic_fetch_sub(&generation->references, 1) == 1)
		task_queue_post(generation->store->main, &generation->over);
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
	generation->over = (struct task){.run = generation->store->on_over, .argument = generation};
	return true;
}

static bool make_instances(struct generation *generation, int64_t daemon_maximum)
{
	const struct config *config = generation->config;

	generation->instances = calloc(config->service_count + 1, sizeof *generation->instances);
	for (size_t i = 0; generation->instances != NULL && i < config->service_count; i++)
		if (!instance_init(&generation->instances[i], generation, &config->services[i], daemon_maximum))
			return false;
	return generation->instances != NULL;
}

struct generation *generation_new(struct config *config, struct instance_store *store, int64_t daemon_maximum,
				  struct diagnostics *diagnostics)
{
	struct generation *generation = calloc(1, sizeof *generation);
	if (generation != NULL) {
		generation->config = config_ref(config);
		generation->store = store;
		if (make_shares(generation, store->workers) && make_instances(generation, daemon_maximum))
			return generation;
	}
	diagnostics_log(diagnostics, NULL, "%s: out of memory", config->file);
	generation_free(generation);
	return NULL;
}

void generation_enforce(struct generation *generation)
{
	for (size_t i = 0; i < generation->config->service_count; i++) {
		struct instance *instance = &generation->instances[i];
		atomic_store(&instance->gate->maximum, instance->config->max_connections);
		if (instance->tcp != NULL)
			atomic_store(&instance->state->ends_at_ms, 0);
	}
}

void generation_refuse_ports(struct generation *generation, const struct port_set *served)
{
	for (size_t i = 0; i < generation->config->service_count; i++)
		if (generation->instances[i].refused_ports != NULL)
			port_set_unite(generation->instances[i].refused_ports, served);
}

void generation_free(struct generation *generation)
{
	if (generation == NULL)
		return;
	for (size_t i = 0; generation->instances != NULL && i < generation->config->service_count; i++)
		instance_clear(&generation->instances[i]);
	config_unref(generation->config);
	free(generation->shares);
	free(generation->instances);
	free(generation);
}

struct instance *generation_instance(const struct generation *generation, const struct config_service *service)
{
	return &generation->instances[service - generation->config->services];
}

struct instance *generation_find(const struct generation *generation, const char *name)
{
	for (size_t i = 0; i < generation->config->service_count; i++)
		if (strcmp(generation->config->services[i].name, name) == 0)
			return &generation->instances[i];
	return NULL;
}

/* --- references --- */

void instance_hold(struct instance *instance, unsigned index)
{
	instance->generation->shares[index].held++;
}

void instance_release(struct instance *instance, unsigned index)
{
	struct generation_share *share = &instance->generation->shares[index];
	if (--share->held == 0 && share->left)
		drop(share->generation);
}

void instance_send(struct instance *instance)
{
	atomic_fetch_add(&instance->generation->references, 1);
}

void instance_receive(struct instance *instance, unsigned index)
{
	struct generation_share *share = &instance->generation->shares[index];
	if (share->held++ > 0 || !share->left)
		drop(share->generation); /* otherwise the reference becomes the worker's, which had dropped its own */
}

void instance_give_up(struct instance *instance)
{
	drop(instance->generation);
}
