/* instance.c: one service of one generation of the configuration, as the data path sees it. */
#include "net/instance.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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

struct in6_addr instance_source(const struct instance *instance, const struct in6_addr *ip)
{
	const struct option_source_prefix *length = &instance->config->source_prefix;
	return acl_mask(ip, IN6_IS_ADDR_V4MAPPED(ip) ? 96 + length->v4 : length->v6);
}

/* IPv4, which is mapped into IPv6, is not meant by IPv6's shorter prefixes: this one comes between. */
static struct acl_rule all_ipv4(bool allow)
{
	return (struct acl_rule){.address.s6_addr = {[10] = 0xff, [11] = 0xff}, .length = 96, .allow = allow};
}

/* Adds of PREFIXES those that are `all`, or the others. */
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

/* Where somebody is allowed by name, everybody else is not. */
static bool make_prefixes(struct instance *instance)
{
	const struct config_service *config = instance->config;
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
	struct acl_rule *rules = calloc(2 * total + 1, sizeof *rules);
	if (rules == NULL)
		return false;
	rules[count++] = all_ipv4(!named);
	for (int i = 0; i < 2 * LISTS; i++) /* `all` first: of equal rules the last one holds */
		add_rules(rules, &count, lists[i % LISTS].prefixes, i < LISTS, lists[i % LISTS].allow);
	instance->prefixes = acl_new(rules, count, !named);
	free(rules);
	return instance->prefixes != NULL;
}

static bool make_proxies(struct instance *instance)
{
	const struct option_prefixes *from = &instance->config->proxy_from;
	size_t count = 0;

	if (!instance->config->proxy_protocol)
		return true;
	struct acl_rule *rules = calloc(2 * from->count + 1, sizeof *rules);
	if (rules == NULL)
		return false;
	rules[count++] = all_ipv4(false);
	for (int all = 1; all >= 0; all--)
		add_rules(rules, &count, from, all, true);
	instance->proxies = acl_new(rules, count, false);
	free(rules);
	return instance->proxies != NULL;
}

/* --- what outlives generations --- */

struct service_buckets {
	struct service_buckets *next;
	unsigned transport, owners;
	struct option_rate rate;
	struct limit_buckets *buckets;
};

struct instance_store {
	struct metrics *metrics;
	struct limit_gate *daemon_gate;
	unsigned workers;
	struct task_queue *main;
	generation_callback *on_over;
	struct service_state *standings;
	struct limit_sources *shared_sources; /* of all services whose limit of a source is the daemon's */
};

struct instance_store *instance_store_new(struct metrics *metrics, struct limit_gate *daemon_gate, unsigned workers,
					  struct task_queue *main, generation_callback *on_over)
{
	struct instance_store *store = calloc(1, sizeof *store);
	if (store == NULL)
		return NULL;
	*store = (struct instance_store){
		.metrics = metrics, .daemon_gate = daemon_gate, .workers = workers, .main = main, .on_over = on_over};
	store->shared_sources = limit_sources_new();
	if (store->shared_sources != NULL)
		return store;
	free(store);
	return NULL;
}

void instance_store_free(struct instance_store *store)
{
	if (store != NULL)
		limit_sources_free(store->shared_sources);
	free(store);
}

/* The standing of SERVICE, with one owner more. NULL when out of memory. */
static struct service_state *take_standing(struct instance_store *store, const struct config_service *service)
{
	struct service_state *state = store->standings;
	while (state != NULL && strcmp(state->name, service->name) != 0)
		state = state->next;
	if (state == NULL) {
		state = calloc(1, sizeof *state);
		if (state == NULL || (state->name = strdup(service->name)) == NULL) {
			free(state);
			return NULL;
		}
		limit_gate_init(&state->gate, service->max_connections);
		state->next = store->standings;
		store->standings = state;
	}
	state->owners++;
	return state;
}

static void leave_standing(struct instance_store *store, struct service_state *state)
{
	if (state == NULL || --state->owners > 0)
		return;
	struct service_state **link = &store->standings;
	while (*link != state)
		link = &(*link)->next;
	*link = state->next;
	limit_sources_free(state->sources);
	free(state->name);
	free(state);
}

/* Buckets stay full or empty as they are while the rate stays the same. */
static bool take_buckets(struct service_state *state, unsigned transport, struct option_rate rate,
			 struct limit_buckets **buckets)
{
	if (rate.count == 0)
		return true;
	struct service_buckets *entry = state->buckets;
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
		*entry = (struct service_buckets){state->buckets, transport, 0, rate, fresh};
		state->buckets = entry;
	}
	entry->owners++;
	*buckets = entry->buckets;
	return true;
}

static void leave_buckets(struct service_state *state, const struct limit_buckets *buckets)
{
	struct service_buckets **link = buckets != NULL ? &state->buckets : NULL;
	while (link != NULL && (*link)->buckets != buckets)
		link = &(*link)->next;
	if (link == NULL || --(*link)->owners > 0)
		return;
	struct service_buckets *entry = *link;
	*link = entry->next;
	limit_buckets_free(entry->buckets);
	free(entry);
}

/* --- one service --- */

/* A limit of the service's own is counted in a table of its own; the daemon's, half of all places, over all services
 * together: else a few services would be enough for one source to have them all. */
static bool make_source_limit(struct instance *instance, int64_t daemon_maximum)
{
	int64_t maximum = instance->config->max_connections_per_source;
	int64_t half = daemon_maximum / 2;

	if (maximum == INT64_MAX)
		return true;
	instance->source_maximum = maximum > 0 ? maximum : half > 0 ? half : 1;
	if (maximum > 0 && instance->state->sources == NULL)
		instance->state->sources = limit_sources_new();
	instance->sources = maximum > 0 ? instance->state->sources : instance->generation->store->shared_sources;
	return instance->sources != NULL;
}

enum { CACHE_LINE = 64 };

/* No two in one cache line, as each has its own writer. */
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

	instance->tcp = metrics_blocks(instance->generation->store->metrics, config->name, TRANSPORT_TCP);
	if (instance->tcp == NULL ||
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

	instance->udp = metrics_blocks(instance->generation->store->metrics, config->name, TRANSPORT_UDP);
	return instance->udp != NULL &&
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
	instance->state = take_standing(generation->store, config);
	if (instance->state == NULL)
		return false;
	instance->gate = &instance->state->gate;
	if (!config->enabled)
		return true;
	return make_prefixes(instance) && make_proxies(instance) && make_memos(instance) &&
	       (!(config->transports & TRANSPORT_TCP) || make_tcp(instance, daemon_maximum)) &&
	       (!(config->transports & TRANSPORT_UDP) || make_udp(instance));
}

static void instance_clear(struct instance *instance)
{
	if (instance->state == NULL)
		return;
	log_report_suppressed(&instance->refused_bound, instance->config->name);
	log_report_suppressed(&instance->full_bound, instance->config->name);
	log_report_suppressed(&instance->failed_bound, instance->config->name);
	acl_free(instance->prefixes);
	acl_free(instance->proxies);
	leave_buckets(instance->state, instance->connection_buckets);
	leave_buckets(instance->state, instance->datagram_buckets);
	leave_standing(instance->generation->store, instance->state);
	free(instance->refused_ports);
	free(instance->groups);
	free(instance->memos);
}

/* --- all of one configuration --- */

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

static bool make_runtimes(struct generation *generation, int64_t daemon_maximum)
{
	const struct config *config = generation->config;

	generation->instances = calloc(config->service_count + 1, sizeof *generation->instances);
	for (size_t i = 0; generation->instances != NULL && i < config->service_count; i++)
		if (!instance_init(&generation->instances[i], generation, &config->services[i], daemon_maximum))
			return false;
	return generation->instances != NULL;
}

struct generation *generation_new(struct config *config, struct instance_store *store, int64_t daemon_maximum,
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

/* --- who serves by it --- */

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
		drop(share->generation); /* else the worker, which had given up its own reference, keeps this one */
}

void instance_give_up(struct instance *instance)
{
	drop(instance->generation);
}
