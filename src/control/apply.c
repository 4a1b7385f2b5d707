/* apply.c: applies a configuration as a two-phase commit. */
#include "control/apply.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "core/log.h"
#include "core/port_set.h"
#include "core/transport.h"

enum {
	DESCRIPTORS_PER_WORKER = 4, /* epoll, two of libevent's signals, the task queue */
	DESCRIPTORS_RESERVED = 64,  /* logs, files, status and libraries */
};

struct transaction {
	struct running_config *running;
	struct generation *generation;
	int64_t maximum; /* of open connections */
	struct endpoint_plan {
		const struct config_endpoint *wanted;
		struct endpoint *taken;       /* from a pool, before it has a group */
		struct listener_group *group; /* NULL: it needs none */
		bool fresh;                   /* the group is new */
		bool covered;                 /* a dual-stack socket serves it */
		bool overlaps;                /* with an endpoint that was open before */
	} * plans;                            /* one per endpoint of the configuration */
	size_t plan_count;
	struct listener_group **groups;   /* capacity for those in force after the commit */
	struct endpoint_pool *in_service; /* endpoints left in it are removed; NULL at the start */
};

/* --- log lines --- */

static void log_endpoint(const struct endpoint *endpoint, const struct log_context *context, const char *event)
{
	char text[SOCKET_TEXT_SIZE];
	if (endpoint->dual_stack) {
		struct socket_address v4 = {.v4 = {.sin_family = AF_INET}, .length = sizeof v4.v4};
		v4.v4.sin_port = endpoint->address.v6.sin6_port;
		socket_address_print(&v4, text);
		log_write(LOG_NOTICE, context, "%s: %s on %s %s", context->service, event, context->transport, text);
	}
	socket_address_print(&endpoint->address, text);
	log_write(LOG_NOTICE, context, "%s: %s on %s %s", context->service, event, context->transport, text);
}

static void log_added(const struct listener_group *group)
{
	struct log_context context = endpoint_context(group->wanted);
	log_endpoint(group->endpoint, &context, "listening");
}

static void log_removed(const struct endpoint *endpoint)
{
	struct log_context context = {.service = endpoint->service, .transport = transport_name(endpoint->transport)};
	log_endpoint(endpoint, &context, "no longer listening");
}

/* --- prepare --- */

/* Sets the limit of connections by RLIMIT_NOFILE. Returns false and a problem if none is left. */
static bool limit_connections(struct transaction *transaction, const struct config *config, size_t sockets,
			      struct diagnostics *diagnostics)
{
	const struct running_env *env = &transaction->running->env;
	int64_t own = (int64_t)sockets + env->worker_count * DESCRIPTORS_PER_WORKER;
	int64_t available = env->descriptors - own - DESCRIPTORS_RESERVED;
	int64_t wanted = config->daemon.max_connections;

	if (available < 1) {
		diagnostics_log(diagnostics, NULL,
				"%s%sRLIMIT_NOFILE = %" PRId64 " does not suffice for %zu endpoints and %u workers",
				diagnostics->keep_first ? config->file : "", diagnostics->keep_first ? ": " : "",
				env->descriptors, config->endpoint_count, env->worker_count);
		return false;
	}
	if (wanted > available)
		log_warning("max_connections = %" PRId64 ", but the descriptors suffice for %" PRId64
			    " (RLIMIT_NOFILE is %" PRId64 ")",
			    wanted, available, env->descriptors);
	transaction->maximum = wanted > 0 && wanted < available ? wanted : available;
	return true;
}

/* Returns the endpoints in service as a pool; NULL when out of memory. */
static struct endpoint_pool *pool_in_service(const struct running_config *running)
{
	struct endpoint_pool *pool = endpoint_pool_new();
	for (size_t i = 0; pool != NULL && i < running->group_count; i++)
		if (!endpoint_pool_add(pool, running->groups[i]->endpoint)) {
			endpoint_pool_free(pool, false);
			pool = NULL;
		}
	return pool;
}

static bool add_group(struct transaction *transaction, struct endpoint_plan *plan, struct endpoint *endpoint,
		      struct diagnostics *diagnostics)
{
	plan->group = listener_group_new(transaction->running, endpoint);
	plan->fresh = plan->group != NULL;
	if (plan->group == NULL) {
		diagnostics_log(diagnostics, NULL, "%s: out of memory", plan->wanted->service->name);
		endpoint_free(endpoint);
	}
	return plan->fresh;
}

/* Returns whether sockets may be added: the parent of an upgrade can have had fewer workers. */
static bool may_grow(const struct endpoint *endpoint)
{
	return endpoint->from_parent && !endpoint->from_listen_fds;
}

/* Plans each endpoint of CONFIG, with open sockets of POOL where they fit. Returns the number of sockets after the
 * commit. */
static size_t plan_endpoints(struct transaction *transaction, const struct config *config, struct endpoint_pool *pool)
{
	size_t sockets = 0, workers = transaction->running->env.worker_count;
	for (size_t i = 0; i < config->endpoint_count; i++) {
		struct endpoint_plan *plan = &transaction->plans[i];
		plan->wanted = &config->endpoints[i];
		plan->covered = endpoint_pool_is_covered(pool, plan->wanted);
		plan->taken = plan->covered ? NULL : endpoint_pool_take(pool, plan->wanted);
		if (plan->taken != NULL && (plan->taken->count > workers || !may_grow(plan->taken)))
			sockets += plan->taken->count;
		else if (!plan->covered)
			sockets += workers;
	}
	return sockets;
}

/* Returns whether added sockets of ENDPOINT take datagrams from the parent at once: there is no listen(2) to put off.
 */
static bool grows_at_once(const struct endpoint *endpoint, unsigned workers)
{
	return endpoint->transport == TRANSPORT_UDP && may_grow(endpoint) && endpoint->count < workers;
}

/* Creates the groups of endpoints from a pool: of those that grow at once, or of the others. Returns false and adds the
 * problems. */
static bool serve_taken(struct transaction *transaction, bool growing, struct diagnostics *diagnostics)
{
	const struct running_env *env = &transaction->running->env;
	unsigned errors_before = diagnostics->errors;
	for (size_t i = 0; i < transaction->plan_count; i++) {
		struct endpoint_plan *plan = &transaction->plans[i];
		struct endpoint *endpoint = plan->taken;
		if (endpoint == NULL || grows_at_once(endpoint, env->worker_count) != growing)
			continue;
		plan->taken = NULL;
		plan->group = endpoint->owner;
		if (may_grow(endpoint))
			endpoint = endpoint_add_sockets(endpoint, plan->wanted, env->worker_count, env->owner,
							diagnostics);
		if (endpoint != NULL && plan->group == NULL)
			add_group(transaction, plan, endpoint, diagnostics);
	}
	return diagnostics->errors == errors_before;
}

/* Returns the ports of all open endpoints, also those of the parent of an upgrade; NULL when out of memory. */
static struct endpoint_ports *list_ports(const struct transaction *transaction, struct endpoint_pool *pool)
{
	struct endpoint_ports *ports = endpoint_ports_new();
	const struct running_config *running = transaction->running;
	const struct listener_group *group;
	const struct endpoint *endpoint;

	for (size_t i = 0; ports != NULL && i < transaction->plan_count; i++)
		if (transaction->plans[i].group != NULL)
			endpoint_ports_add(ports, transaction->plans[i].group->endpoint, false);
		else if (transaction->plans[i].taken != NULL)
			endpoint_ports_add(ports, transaction->plans[i].taken, false);
	for (size_t i = 0; ports != NULL && (endpoint = endpoint_pool_next(pool, &i)) != NULL;)
		endpoint_ports_add(ports, endpoint, false);
	if (ports != NULL)
		LIST_FOREACH(group, &running->leaving, link)
			endpoint_ports_add(ports, group->endpoint, true);
	return ports;
}

/* Opens missing endpoints of TRANSPORTS: those that overlap with open ones, or the others. */
static void open_some(struct transaction *transaction, unsigned transports, bool overlap, struct endpoint_ports *ports,
		      struct diagnostics *diagnostics)
{
	const struct running_env *env = &transaction->running->env;
	for (unsigned phase = 0; phase < ENDPOINT_BIND_PHASES; phase++)
		for (size_t i = 0; i < transaction->plan_count; i++) {
			struct endpoint_plan *plan = &transaction->plans[i];
			if (plan->group != NULL || plan->taken != NULL || plan->covered || plan->overlaps != overlap ||
			    endpoint_bind_order(plan->wanted) != phase || (plan->wanted->transport & transports) == 0)
				continue;
			struct endpoint *endpoint = endpoint_open(plan->wanted, env->worker_count, env->owner, !overlap,
								  ports, diagnostics);
			if (endpoint != NULL)
				add_group(transaction, plan, endpoint, diagnostics);
		}
}

/* Opens the missing endpoints, and reports every failure. Sockets that overlap with open ones take clients from them:
 * TCP sockets from their listen(2), which is put off; UDP sockets at once, so they are opened last. */
static bool open_rest(struct transaction *transaction, const struct config *config, struct endpoint_pool *pool,
		      struct diagnostics *diagnostics)
{
	struct endpoint_ports *ports = list_ports(transaction, pool);
	unsigned errors_before = diagnostics->errors;

	if (ports == NULL) {
		diagnostics_log(diagnostics, NULL, "%s: out of memory", config->file);
		return false;
	}
	for (size_t i = 0; i < transaction->plan_count; i++)
		transaction->plans[i].overlaps = endpoint_ports_overlap(ports, transaction->plans[i].wanted);
	open_some(transaction, TRANSPORT_BOTH, false, ports, diagnostics);
	if (diagnostics->errors == errors_before)
		open_some(transaction, TRANSPORT_TCP, true, ports, diagnostics);
	if (diagnostics->errors == errors_before)
		open_some(transaction, TRANSPORT_UDP, true, ports, diagnostics);
	free(ports);
	return diagnostics->errors == errors_before;
}

static bool join_groups(struct transaction *transaction, struct diagnostics *diagnostics)
{
	bool joined = true;
	for (size_t i = 0; i < transaction->plan_count; i++) {
		const struct endpoint_plan *plan = &transaction->plans[i];
		if (plan->group != NULL)
			joined &= endpoint_join(plan->group->endpoint, plan->wanted, diagnostics);
	}
	return joined;
}

static void add_port(struct port_set *served, const struct endpoint *endpoint)
{
	if (endpoint->transport == TRANSPORT_UDP)
		port_set_add(served, socket_address_port(&endpoint->address));
}

/* Refuses datagrams from ports served over UDP, as a reply could start an endless loop; also from ports of the
 * configuration before, by which a worker may still serve. */
static bool refuse_served_ports(const struct transaction *transaction)
{
	const struct running_config *running = transaction->running;
	const struct listener_group *group;
	struct port_set *served = calloc(1, sizeof *served);
	if (served == NULL)
		return false;
	for (size_t i = 0; i < transaction->plan_count; i++)
		if (transaction->plans[i].group != NULL)
			add_port(served, transaction->plans[i].group->endpoint);
	for (size_t i = 0; i < running->group_count; i++)
		add_port(served, running->groups[i]->endpoint);
	LIST_FOREACH(group, &running->leaving, link)
		add_port(served, group->endpoint);
	generation_refuse_ports(transaction->generation, served);
	free(served);
	return true;
}

static bool fill_groups(const struct transaction *transaction)
{
	for (size_t i = 0; i < transaction->plan_count; i++) {
		const struct endpoint_plan *plan = &transaction->plans[i];
		if (plan->fresh && !listener_group_fill(plan->group, generation_instance(transaction->generation,
											 plan->wanted->service)))
			return false;
	}
	return true;
}

static bool prepare(struct transaction *transaction, struct config *config, struct endpoint_pool *pool,
		    struct diagnostics *diagnostics)
{
	size_t sockets = plan_endpoints(transaction, config, pool);

	if (!serve_taken(transaction, false, diagnostics) ||
	    !limit_connections(transaction, config, sockets, diagnostics))
		return false;
	transaction->generation =
		generation_new(config, transaction->running->store, transaction->maximum, diagnostics);
	if (transaction->generation == NULL || !open_rest(transaction, config, pool, diagnostics) ||
	    !serve_taken(transaction, true, diagnostics) || !join_groups(transaction, diagnostics))
		return false;
	transaction->generation->owner = transaction->running;
	if (refuse_served_ports(transaction) && fill_groups(transaction))
		return true;
	diagnostics_log(diagnostics, NULL, "%s: out of memory", config->file);
	return false;
}

struct transaction *apply_prepare(struct running_config *running, struct config *config, struct endpoint_pool *pool,
				  struct diagnostics *diagnostics)
{
	struct transaction *transaction = calloc(1, sizeof *transaction);
	if (transaction == NULL)
		goto out_of_memory;
	transaction->running = running;
	transaction->plan_count = config->endpoint_count;
	transaction->plans = calloc(config->endpoint_count + 1, sizeof *transaction->plans);
	transaction->groups = calloc(config->endpoint_count + 1, sizeof(struct listener_group *));
	if (pool == NULL)
		pool = transaction->in_service = pool_in_service(running);
	if (transaction->plans == NULL || transaction->groups == NULL || pool == NULL)
		goto out_of_memory;
	if (prepare(transaction, config, pool, diagnostics))
		return transaction;
	apply_rollback(transaction);
	return NULL;
out_of_memory:
	diagnostics_log(diagnostics, NULL, "%s: out of memory", config->file);
	apply_rollback(transaction);
	return NULL;
}

/* --- listen --- */

bool apply_listen(struct transaction *transaction, struct diagnostics *diagnostics)
{
	for (size_t i = 0; i < transaction->plan_count; i++) {
		const struct endpoint_plan *plan = &transaction->plans[i];
		if (plan->fresh && !endpoint_listen(plan->group->endpoint, plan->wanted, diagnostics))
			return false;
	}
	return true;
}

/* --- roll back --- */

static void transaction_free(struct transaction *transaction)
{
	endpoint_pool_free(transaction->in_service, false);
	free(transaction->plans);
	free(transaction->groups);
	free(transaction);
}

void apply_rollback(struct transaction *transaction)
{
	if (transaction == NULL)
		return;
	for (size_t i = 0; transaction->plans != NULL && i < transaction->plan_count; i++) {
		struct endpoint_plan *plan = &transaction->plans[i];
		if (plan->fresh)
			listener_group_free(plan->group);
		else if (plan->group != NULL)
			endpoint_unjoin(plan->group->endpoint);
		else
			endpoint_free(plan->taken);
	}
	generation_free(transaction->generation);
	transaction_free(transaction);
}

/* --- commit --- */

static void remove_unwanted(const struct transaction *transaction)
{
	struct endpoint *endpoint;
	if (transaction->in_service == NULL)
		return;
	for (size_t i = 0; (endpoint = endpoint_pool_next(transaction->in_service, &i)) != NULL;) {
		log_removed(endpoint);
		listener_group_leave(endpoint->owner);
	}
}

static void commit_plan(const struct transaction *transaction, const struct endpoint_plan *plan)
{
	struct instance *instance = generation_instance(transaction->generation, plan->wanted->service);
	struct listener_group *group = plan->group;
	const char *before = group->endpoint->service;
	bool moves = plan->fresh || before == NULL || strcmp(before, plan->wanted->service->name) != 0;

	if (moves && !plan->fresh)
		log_removed(group->endpoint);
	group->wanted = plan->wanted;
	endpoint_apply(group->endpoint, plan->wanted);
	if (plan->fresh)
		listener_group_start(group);
	else
		listener_group_change(group, instance);
	if (moves)
		log_added(group);
}

static void commit_plans(struct running_config *running, struct transaction *transaction)
{
	struct listener_group **groups = transaction->groups;

	transaction->groups = running->groups;
	running->groups = groups;
	running->group_count = running->endpoint_count = 0;
	for (size_t i = 0; i < transaction->plan_count; i++) {
		const struct endpoint_plan *plan = &transaction->plans[i];
		running->endpoint_count += plan->covered || plan->group != NULL;
		if (plan->group == NULL)
			continue;
		commit_plan(transaction, plan);
		groups[running->group_count++] = plan->group;
	}
}

/* Posts the barrier behind all tasks of the commit: a worker that has run it serves by the new configuration. */
static void post_barriers(struct running_config *running, struct task *committed)
{
	if (committed == NULL)
		return;
	running->committed = committed;
	atomic_store(&running->pending_workers, running->env.worker_count);
	for (unsigned i = 0; i < running->env.worker_count; i++)
		worker_post(running->env.workers[i], &running->barriers[i]);
}

void apply_commit(struct transaction *transaction, struct task *committed)
{
	struct running_config *running = transaction->running;
	struct generation *before = running->generation, *after = transaction->generation;

	atomic_store(&running->env.gate->maximum, transaction->maximum);
	generation_enforce(after);
	after->next = before;
	running->generation = after;
	remove_unwanted(transaction);
	commit_plans(running, transaction);
	transaction_free(transaction);
	if (before != NULL) {
		running_config_expire_removed(running, before, after);
		for (unsigned i = 0; i < running->env.worker_count; i++)
			worker_post(running->env.workers[i], &before->shares[i].leave);
	}
	post_barriers(running, committed);
}
