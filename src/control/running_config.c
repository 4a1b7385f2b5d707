/* running_config.c: the configuration in force and its listeners, until the last of them has stopped. */
#include "control/running_config.h"

#include <event2/event.h>
#include <stdlib.h>
#include <string.h>

#include "core/clock.h"
#include "core/log.h"
#include "core/transport.h"

enum {
	LAST_ACCEPT_MS = 50, /* for TCP handshakes in progress when an endpoint leaves */
	CLOCK_SLACK_MS = 50, /* a tick of the timer wheels, and the resolution of their clock */
};

/* --- a group of listeners --- */

void listener_group_free(struct listener_group *group)
{
	if (group == NULL)
		return;
	for (unsigned i = 0; i < group->endpoint->count; i++)
		listener_free(group->sockets[i].listener);
	if (event_initialized(&group->last_accept))
		event_del(&group->last_accept);
	endpoint_free(group->endpoint);
	free(group);
}

/* Closes a socket at once, so that the kernel refuses clients, while others of the group are still stopping. */
static void on_socket_stopped(void *argument)
{
	struct worker_socket *socket = argument;
	struct listener_group *group = socket->group;
	const struct running_env *env = &group->running->env;

	endpoint_close(group->endpoint, (unsigned)(socket - group->sockets));
	listener_free(socket->listener);
	socket->listener = NULL;
	if (--group->serving > 0)
		return;
	LIST_REMOVE(group, link);
	listener_group_free(group);
	env->on_closed(env->argument);
}

static void stop_sockets(struct listener_group *group)
{
	for (unsigned i = 0; i < group->endpoint->count; i++) {
		struct worker_socket *socket = &group->sockets[i];
		listener_stop(socket->listener, group->running->env.tasks, &socket->stopped);
	}
}

static void on_last_accept(evutil_socket_t fd, short what, void *argument)
{
	(void)fd, (void)what;
	stop_sockets(argument);
}

static struct listener *create_listener(const struct running_env *env, const struct endpoint *endpoint, unsigned index,
					struct instance *instance)
{
	unsigned worker = index % env->worker_count;
	int fd = endpoint->fds[index];

	if (endpoint->transport == TRANSPORT_TCP)
		return tcp_listener_new(env->tcp, worker, fd, instance, endpoint->from_listen_fds);
	const struct udp_socket_facts facts = {
		.address = &endpoint->address,
		.dual_stack = endpoint->dual_stack,
		.foreign_netns = endpoint->from_listen_fds && !socket_in_own_netns(fd),
		.shared = endpoint->from_parent,
	};
	return udp_socket_new(env->udp, worker, fd, &facts, instance);
}

struct listener_group *listener_group_new(struct running_config *running, struct endpoint *endpoint)
{
	struct listener_group *group = calloc(1, sizeof *group + endpoint->count * sizeof *group->sockets);
	if (group == NULL)
		return NULL;
	group->running = running;
	group->endpoint = endpoint;
	return group;
}

bool listener_group_fill(struct listener_group *group, struct instance *instance)
{
	const struct running_env *env = &group->running->env;
	for (unsigned i = 0; i < group->endpoint->count; i++) {
		struct worker_socket *socket = &group->sockets[i];
		socket->group = group;
		socket->stopped = (struct task){.run = on_socket_stopped, .argument = socket};
		socket->listener = create_listener(env, group->endpoint, i, instance);
		if (socket->listener == NULL)
			return false;
	}
	evtimer_assign(&group->last_accept, env->base, on_last_accept, group);
	return true;
}

void listener_group_start(struct listener_group *group)
{
	endpoint_set_owner(group->endpoint, group);
	group->serving = group->endpoint->count;
	for (unsigned i = 0; i < group->endpoint->count; i++)
		listener_start(group->sockets[i].listener);
}

void listener_group_change(struct listener_group *group, struct instance *instance)
{
	for (unsigned i = 0; i < group->endpoint->count; i++)
		listener_change(group->sockets[i].listener, instance);
}

/* Has the kernel refuse new clients. Returns whether TCP handshakes in progress need time to complete. */
static bool stop_new_clients(struct listener_group *group)
{
	bool pending = false;
	for (unsigned i = 0; i < group->endpoint->count; i++) {
		struct listener *listener = group->sockets[i].listener;
		int error = 0;
		if (listener->ops->stop_new != NULL) {
			pending = true;
			error = listener->ops->stop_new(listener);
		}
		if (error != 0)
			log_info("%s: cannot stop new connections before the port is closed: %s",
				 group->endpoint->service, strerror(-error));
	}
	return pending;
}

void listener_group_leave(struct listener_group *group)
{
	const struct timeval last = clock_timeval(LAST_ACCEPT_MS);
	const struct endpoint *endpoint = group->endpoint;

	LIST_INSERT_HEAD(&group->running->leaving, group, link);
	for (unsigned i = 0; endpoint->shared && i < endpoint->count; i++)
		listener_keep_open(group->sockets[i].listener); /* clients are left to the other process */
	if (endpoint->shared || !stop_new_clients(group) || event_add(&group->last_accept, &last) < 0)
		stop_sockets(group);
}

/* --- removed services --- */

/* Returns the next time at which connections of a removed service expire; UINT64_MAX: none. */
static uint64_t next_expiry(const struct running_config *running, uint64_t now_ms)
{
	uint64_t next = UINT64_MAX;
	for (const struct generation *generation = running->generation; generation != NULL;
	     generation = generation->next)
		for (size_t i = 0; i < generation->config->service_count; i++) {
			uint64_t ends_at_ms = atomic_load(&generation->instances[i].state->ends_at_ms);
			if (ends_at_ms > now_ms && ends_at_ms < next)
				next = ends_at_ms;
		}
	return next;
}

static void set_expiry_timer(struct running_config *running)
{
	uint64_t now_ms = clock_ms(), next = next_expiry(running, now_ms);
	if (next == UINT64_MAX)
		return;
	struct timeval wait = clock_timeval((int64_t)(next - now_ms) + CLOCK_SLACK_MS);
	event_add(running->expiry, &wait);
}

static void on_expiry(evutil_socket_t fd, short what, void *argument)
{
	struct running_config *running = argument;
	(void)fd, (void)what;
	tcp_end_removed(running->env.tcp);
	set_expiry_timer(running);
}

void running_config_expire_removed(struct running_config *running, const struct generation *before,
				   const struct generation *after)
{
	uint64_t ends_at_ms = clock_ms() + (uint64_t)after->config->daemon.drain_timeout_ms + 1;
	bool removed = false;

	for (size_t i = 0; i < before->config->service_count; i++) {
		const struct instance *instance = &before->instances[i];
		const struct instance *successor = generation_find(after, instance->config->name);
		if (instance->tcp == NULL || (successor != NULL && successor->tcp != NULL))
			continue;
		atomic_store(&instance->state->ends_at_ms, ends_at_ms);
		removed = true;
	}
	if (removed)
		set_expiry_timer(running);
}

/* --- the configuration in force --- */

struct config *running_config_value(const struct running_config *running)
{
	return running->generation != NULL ? running->generation->config : NULL;
}

struct endpoint **running_config_list_endpoints(const struct running_config *running, size_t *count)
{
	struct endpoint **endpoints = calloc(running->group_count + 1, sizeof(struct endpoint *));
	*count = running->group_count;
	for (size_t i = 0; endpoints != NULL && i < *count; i++)
		endpoints[i] = running->groups[i]->endpoint;
	return endpoints;
}

void running_config_parent_released(struct running_config *running)
{
	for (size_t i = 0; i < running->group_count; i++) {
		struct listener_group *group = running->groups[i];
		if (!group->endpoint->from_parent)
			continue;
		endpoint_parent_released(group->endpoint, group->wanted);
		for (unsigned j = 0; j < group->endpoint->count; j++)
			listener_set_shared(group->sockets[j].listener, false);
	}
}

void running_config_stop(struct running_config *running)
{
	for (size_t i = 0; i < running->group_count; i++)
		listener_group_leave(running->groups[i]);
	running->group_count = 0;
}

void running_config_stop_now(struct running_config *running)
{
	struct listener_group *group;
	LIST_FOREACH(group, &running->leaving, link)
		if (evtimer_pending(&group->last_accept, NULL)) {
			event_del(&group->last_accept);
			stop_sockets(group);
		}
}

bool running_config_is_closed(const struct running_config *running)
{
	return running->group_count == 0 && LIST_EMPTY(&running->leaving);
}

/* --- creation and end --- */

static void on_generation_over(void *argument)
{
	struct generation *generation = argument;
	struct running_config *running = generation->owner;
	struct generation **link = &running->generation;
	while (*link != generation)
		link = &(*link)->next;
	*link = generation->next;
	generation_free(generation);
}

/* Runs in each worker's thread. */
static void on_barrier(void *argument)
{
	struct running_config *running = argument;
	if (atomic_fetch_sub(&running->pending_workers, 1) == 1)
		task_queue_post(running->env.tasks, running->committed);
}

static bool create_barriers(struct running_config *running)
{
	running->barriers = calloc(running->env.worker_count, sizeof *running->barriers);
	for (unsigned i = 0; running->barriers != NULL && i < running->env.worker_count; i++)
		running->barriers[i] = (struct task){.run = on_barrier, .argument = running};
	return running->barriers != NULL;
}

struct running_config *running_config_new(const struct running_env *env)
{
	struct running_config *running = calloc(1, sizeof *running);
	if (running == NULL)
		return NULL;
	running->env = *env;
	LIST_INIT(&running->leaving);
	running->store = instance_store_new(env->gate, env->worker_count, env->tasks, on_generation_over);
	running->expiry = evtimer_new(env->base, on_expiry, running);
	if (running->store != NULL && running->expiry != NULL && create_barriers(running))
		return running;
	running_config_free(running);
	return NULL;
}

void running_config_free(struct running_config *running)
{
	if (running == NULL)
		return;
	for (size_t i = 0; i < running->group_count; i++)
		listener_group_free(running->groups[i]);
	while (!LIST_EMPTY(&running->leaving)) {
		struct listener_group *group = LIST_FIRST(&running->leaving);
		LIST_REMOVE(group, link);
		listener_group_free(group);
	}
	for (struct generation *generation = running->generation, *next; generation != NULL; generation = next) {
		next = generation->next;
		generation_free(generation);
	}
	instance_store_free(running->store);
	if (running->expiry != NULL)
		event_free(running->expiry);
	free(running->barriers);
	free(running->groups);
	free(running);
}
