/* runtime.h: one service of one generation of the configuration, as the data path sees it. */
#ifndef SMALLSERVD_RUNTIME_H
#define SMALLSERVD_RUNTIME_H

#include <stddef.h>
#include <stdint.h>

#include "config.h"
#include "limit.h"
#include "log.h"
#include "metrics.h"
#include "port_set.h"
#include "prefix.h"
#include "problems.h"
#include "services/service.h"
#include "worker.h"

/* What stands under a service's name for as long as any generation that has it: so its limits are exact through a reload, also
 * while connections of several generations are open. */
struct standing {
	struct limit_gate gate; /* open connections of this service */
	_Atomic uint64_t
		ends_at_ms;    /* of the wheel's clock: its connections end then, as it was removed; 0: it is served */
	uint64_t refused_told; /* datagrams, told of in the log so far; main thread */

	/* runtime.c's */
	struct standing *next;
	char *name;
	unsigned owners;
	struct limit_sources *sources;    /* NULL: no generation has limited sources by a number of its own */
	struct standing_buckets *buckets; /* for each rate that a generation has */
};

/* Read-only to the workers, but for what limit.h says any thread may change, and each worker's own block of counters. */
struct runtime {
	struct generation *generation;
	struct standing *standing;
	const struct config_service *config;
	const struct service *service;
	const void *settings;           /* of the service's own options */
	char *memos;                    /* the service's, one a worker; NULL: it has none */
	struct limit_gate *daemon_gate; /* open connections over all services */
	struct limit_gate *gate;        /* open connections of this service */
	struct prefix_map *prefixes;    /* who is allowed; NULL: everybody */
	struct prefix_map *proxies;     /* whose PROXY headers are believed; NULL: connections begin without one */
	struct limit_sources *sources;  /* open connections of each source; NULL: not limited */
	int64_t source_maximum;
	struct limit_buckets *connection_buckets; /* NULL: not limited */
	struct limit_buckets *datagram_buckets;   /* NULL: not limited */
	struct port_set *refused_ports;           /* of UDP sources; NULL: none */
	struct log_bound refused_bound, full_bound, failed_bound;
	struct metrics_block *tcp; /* one a worker; NULL: not served over TCP */
	struct metrics_block *udp;
};

/* The prefix that counts as one source with IP. */
struct in6_addr runtime_source(const struct runtime *runtime, const struct in6_addr *ip);

/* What the service remembers on worker INDEX, for that worker's thread; NULL: nothing. */
void *runtime_memo(const struct runtime *runtime, unsigned index);

static inline bool runtime_refuses_port(const struct runtime *runtime, uint16_t port)
{
	return runtime->refused_ports != NULL && port_set_has(runtime->refused_ports, port);
}

/* A worker's share of a generation. */
struct generation_share {
	_Alignas(64) struct generation *generation;
	uint64_t held; /* listeners, sockets and connections of this worker; its own thread's */
	bool left;
	struct mail leave; /* posted to the worker once another generation is in force */
};

/* All services of one configuration. */
struct generation {
	struct config *config;
	struct runtime *runtimes; /* one an entry of config->services */
	struct runtime_store *store;
	atomic_uint references;          /* one a worker, and one each connection on its way between two */
	struct generation_share *shares; /* one a worker */
	struct mail over;                /* posted to the main thread when no worker serves by it any more */
	struct generation *next;         /* these two are of the owner's use */
	void *owner;
};

/* Mail of a generation's end; it may be NULL where generations are never left. */
typedef void generation_callback(void *generation);

/* What outlives generations. */
struct runtime_store;

/* MAIN's thread is told by ON_OVER, with the generation, when the last worker has left one. NULL when out of memory. */
struct runtime_store *runtime_store_new(struct metrics *metrics, struct limit_gate *daemon_gate, unsigned workers,
					struct mailbox *main, generation_callback *on_over);

/* No generation is left. NULL is fine. */
void runtime_store_free(struct runtime_store *store);

/* Prepares what serving CONFIG needs, and takes a reference to it; DAEMON_MAXIMUM connections may be open then. What serves
 * already is not touched. NULL: PROBLEMS has been told. For the main thread. */
struct generation *generation_new(struct config *config, struct runtime_store *store, int64_t daemon_maximum,
				  struct problems *problems);

/* Has every service that refuses source ports refuse those of SERVED too. Before anything serves it. */
void generation_refuse_ports(struct generation *generation, const struct port_set *served);

/* Puts its limits of places in force, and forgets that a service of it was removed. For the main thread. */
void generation_enforce(struct generation *generation);

/* Nothing may serve it any more. NULL is fine. */
void generation_free(struct generation *generation);

/* The runtime of SERVICE, which is one of the generation's configuration. */
struct runtime *generation_runtime(const struct generation *generation, const struct config_service *service);

/* The runtime of the service called NAME, or NULL. */
struct runtime *generation_find(const struct generation *generation, const char *name);

/* A listener, a socket or a connection of worker INDEX begins or ends to serve by RUNTIME. For that worker's thread; before the workers
 * run, for the main thread. */
void runtime_hold(struct runtime *runtime, unsigned index);
void runtime_release(struct runtime *runtime, unsigned index);

/* A connection leaves a worker that holds RUNTIME, and arrives at worker INDEX, which holds it then, or is given up on the way. */
void runtime_send(struct runtime *runtime);
void runtime_receive(struct runtime *runtime, unsigned index);
void runtime_give_up(struct runtime *runtime);

#endif
