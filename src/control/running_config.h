/* running_config.h: the configuration in force and its listeners, until the last of them has stopped. */
#ifndef SMALLSERVD_CONTROL_RUNNING_CONFIG_H
#define SMALLSERVD_CONTROL_RUNNING_CONFIG_H

#include <event2/event_struct.h>
#include <stdatomic.h>
#include <sys/queue.h>
#include <sys/types.h>

#include "net/endpoint.h"
#include "net/instance.h"
#include "net/tcp.h"
#include "net/udp.h"
#include "thread/worker.h"

/* The means of serving. All of it stays the caller's, until running_config_free. */
struct running_env {
	struct event_base *base; /* the main thread's */
	struct task_queue *tasks;
	struct worker *const *workers;
	unsigned worker_count;
	struct tcp *tcp;
	struct udp *udp;
	struct limit_gate *gate;           /* open connections of all services */
	uid_t owner;                       /* of the sockets; (uid_t)-1: unchanged */
	int64_t descriptors;               /* RLIMIT_NOFILE */
	void (*on_closed)(void *argument); /* an endpoint has been closed */
	void *argument;
};

/* A socket of a group, served by one worker. */
struct worker_socket {
	struct listener_group *group;
	struct listener *listener;
	struct task stopped;
};

/* The listeners of an endpoint. */
struct listener_group {
	LIST_ENTRY(listener_group) link; /* of those that are leaving */
	struct running_config *running;
	struct endpoint *endpoint;
	const struct config_endpoint *wanted; /* of the configuration in force */
	struct event last_accept;
	unsigned serving;               /* sockets whose listeners have not stopped */
	struct worker_socket sockets[]; /* as many as endpoint->count */
};
LIST_HEAD(listener_groups, listener_group);

/* All functions are for the main thread. Members are for apply.c. */
struct running_config {
	struct running_env env;
	struct instance_store *store;
	struct generation *generation;      /* in force; NULL before the first commit; linked to those before it that
					     * a worker still serves by */
	struct listener_group **groups;     /* in force, in the order of the configuration */
	size_t group_count, endpoint_count; /* a dual-stack socket counts as two endpoints */
	struct listener_groups leaving;
	struct event *expiry; /* the time of the connections of removed services is over */
	struct task *committed;
	atomic_uint pending_workers; /* that have not passed the barrier of a commit */
	struct task *barriers;       /* one per worker */
};

/* Creates a running configuration without services. Returns NULL when out of memory. */
struct running_config *running_config_new(const struct running_env *env);

/* Frees RUNNING and closes its sockets; the workers have been stopped, tcp is freed, udp is not. NULL is fine. */
void running_config_free(struct running_config *running);

/* Returns the configuration in force; NULL before the first commit. */
struct config *running_config_value(const struct running_config *running);

/* Returns a list of the *COUNT endpoints in force, for the caller to free; NULL with errno. */
struct endpoint **running_config_list_endpoints(const struct running_config *running, size_t *count);

/* The parent of an upgrade has closed the sockets: sets the options that were left unchanged so far. */
void running_config_parent_released(struct running_config *running);

/* Stops every listener: no new client is accepted, queued ones are served, then each endpoint is closed and reported by
 * on_closed. */
void running_config_stop(struct running_config *running);

/* Ends the wait for TCP handshakes that running_config_stop allows for. */
void running_config_stop_now(struct running_config *running);

/* Returns whether all endpoints are closed. */
bool running_config_is_closed(const struct running_config *running);

/* --- for apply.c --- */

/* Creates a group for ENDPOINT, which it owns then, without listeners. Returns NULL when out of memory. */
struct listener_group *listener_group_new(struct running_config *running, struct endpoint *endpoint);

/* Creates the listeners of GROUP. Returns false when out of memory. */
bool listener_group_fill(struct listener_group *group, struct instance *instance);

/* Frees a group that does not serve, with its endpoint. NULL is fine. */
void listener_group_free(struct listener_group *group);

/* Starts the listeners. */
void listener_group_start(struct listener_group *group);

/* Has the listeners serve new clients by INSTANCE. */
void listener_group_change(struct listener_group *group, struct instance *instance);

/* Stops the listeners of GROUP, which was in force, and frees it when the last one has stopped. */
void listener_group_leave(struct listener_group *group);

/* Gives the connections of services that BEFORE has over TCP and AFTER has not the time drain_timeout. */
void running_config_expire_removed(struct running_config *running, const struct generation *before,
				   const struct generation *after);

#endif
