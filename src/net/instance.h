/* instance.h: one service of one generation of the configuration, as the data path sees it. */
#ifndef SMALLSERVD_NET_INSTANCE_H
#define SMALLSERVD_NET_INSTANCE_H

#include <stddef.h>
#include <stdint.h>

#include "config/config.h"
#include "core/log.h"
#include "core/problems.h"
#include "net/acl.h"
#include "net/limit.h"
#include "net/metrics.h"
#include "net/port_set.h"
#include "net/sockaddr.h"
#include "net/source_limit.h"
#include "net/token_bucket.h"
#include "service/service.h"
#include "thread/worker.h"

/* What stands under a service's name for as long as any generation that has it: so its limits are exact through a reload, also
 * while connections of several generations are open. */
struct service_state {
	struct limit_gate gate; /* open connections of this service */
	_Atomic uint64_t
		ends_at_ms;    /* of the wheel's clock: its connections end then, as it was removed; 0: it is served */
	uint64_t refused_told; /* datagrams, told of in the log so far; main thread */

	/* instance.c's */
	struct service_state *next;
	char *name;
	unsigned owners;
	struct limit_sources *sources;   /* NULL: no generation has limited sources by a number of its own */
	struct service_buckets *buckets; /* for each rate that a generation has */
};

/* Read-only to the workers, but for what limit.h says any thread may change, and each worker's own block of counters. */
struct instance {
	struct generation *generation;
	struct service_state *state;
	const struct config_service *config;
	const struct service *service;
	const void *settings;           /* of the service's own options */
	char *memos;                    /* the service's, one a worker; NULL: it has none */
	struct limit_gate *daemon_gate; /* open connections over all services */
	struct limit_gate *gate;        /* open connections of this service */
	struct acl *prefixes;           /* who is allowed; NULL: everybody */
	struct acl *proxies;            /* whose PROXY headers are believed; NULL: connections begin without one */
	struct limit_sources *sources;  /* open connections of each source; NULL: not limited */
	int64_t source_maximum;
	struct limit_buckets *connection_buckets; /* NULL: not limited */
	struct limit_buckets *datagram_buckets;   /* NULL: not limited */
	struct port_set *refused_ports;           /* of UDP sources; NULL: none */
	struct in6_addr *groups;                  /* multicast, with IPv4 mapped into IPv6 */
	size_t group_count;
	struct log_bound refused_bound, full_bound, failed_bound;
	struct metrics_block *tcp; /* one a worker; NULL: not served over TCP */
	struct metrics_block *udp;
};

/* Logs `NAME: TEXT` or, with a PEER, `NAME: TRANSPORT ADDRESS:PORT TEXT` at LEVEL of syslog(3). The journal gets name, transport and
 * peer as fields. Any thread. */
void instance_log(const struct instance *instance, int level, unsigned transport, const struct socket_address *peer,
		  const char *format, ...) __attribute__((format(printf, 5, 6)));

/* The prefix that counts as one source with IP. */
struct in6_addr instance_source(const struct instance *instance, const struct in6_addr *ip);

/* What the service remembers on worker INDEX, for that worker's thread; NULL: nothing. */
void *instance_memo(const struct instance *instance, unsigned index);

static inline bool instance_refuses_port(const struct instance *instance, uint16_t port)
{
	return instance->refused_ports != NULL && port_set_has(instance->refused_ports, port);
}

/* A worker's share of a generation. */
struct generation_share {
	_Alignas(64) struct generation *generation;
	uint64_t held; /* listeners, sockets and connections of this worker; its own thread's */
	bool left;
	struct task leave; /* posted to the worker once another generation is in force */
};

/* All services of one configuration. */
struct generation {
	struct config *config;
	struct instance *instances; /* one an entry of config->services */
	struct instance_store *store;
	atomic_uint references;          /* one a worker, and one each connection on its way between two */
	struct generation_share *shares; /* one a worker */
	struct task over;                /* posted to the main thread when no worker serves by it any more */
	struct generation *next;         /* these two are of the owner's use */
	void *owner;
};

/* Mail of a generation's end; it may be NULL where generations are never left. */
typedef void generation_callback(void *generation);

/* What outlives generations. */
struct instance_store;

/* MAIN's thread is told by ON_OVER, with the generation, when the last worker has left one. NULL when out of memory. */
struct instance_store *instance_store_new(struct metrics *metrics, struct limit_gate *daemon_gate, unsigned workers,
					  struct task_queue *main, generation_callback *on_over);

/* No generation is left. NULL is fine. */
void instance_store_free(struct instance_store *store);

/* Prepares what serving CONFIG needs, and takes a reference to it; DAEMON_MAXIMUM connections may be open then. What serves
 * already is not touched. NULL: PROBLEMS has been told. For the main thread. */
struct generation *generation_new(struct config *config, struct instance_store *store, int64_t daemon_maximum,
				  struct problems *problems);

/* Has every service that refuses source ports refuse those of SERVED too. Before anything serves it. */
void generation_refuse_ports(struct generation *generation, const struct port_set *served);

/* Puts its limits of places in force, and forgets that a service of it was removed. For the main thread. */
void generation_enforce(struct generation *generation);

/* Nothing may serve it any more. NULL is fine. */
void generation_free(struct generation *generation);

/* The instance of SERVICE, which is one of the generation's configuration. */
struct instance *generation_instance(const struct generation *generation, const struct config_service *service);

/* The instance of the service called NAME, or NULL. */
struct instance *generation_find(const struct generation *generation, const char *name);

/* A listener, a socket or a connection of worker INDEX begins or ends to serve by RUNTIME. For that worker's thread; before the workers
 * run, for the main thread. */
void instance_hold(struct instance *instance, unsigned index);
void instance_release(struct instance *instance, unsigned index);

/* A connection leaves a worker that holds RUNTIME, and arrives at worker INDEX, which holds it then, or is given up on the way. */
void instance_send(struct instance *instance);
void instance_receive(struct instance *instance, unsigned index);
void instance_give_up(struct instance *instance);

#endif
