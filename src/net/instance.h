/* instance.h: a service of one configuration generation, as the data path sees it. */
#ifndef SMALLSERVD_NET_INSTANCE_H
#define SMALLSERVD_NET_INSTANCE_H

#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

#include "config/config.h"
#include "core/acl.h"
#include "core/diagnostics.h"
#include "core/log.h"
#include "core/port_set.h"
#include "core/token_bucket.h"
#include "net/limit.h"
#include "net/metrics.h"
#include "net/sockaddr.h"
#include "net/source_limit.h"
#include "service/service.h"
#include "thread/worker.h"

/* State of a service that outlives a generation, keyed by the service's name. Limits stay exact through a reload, even
 * with open connections of several generations. */
struct service_state {
	struct limit_gate gate;      /* open connections of this service */
	_Atomic uint64_t ends_at_ms; /* on clock_ms: when the connections of a removed service are closed; 0: served */
	uint64_t dropped_logged;     /* count of dropped datagrams in the log so far; main thread */

	/* private to instance.c */
	SLIST_ENTRY(service_state) link;
	char *name;
	struct metrics_block *tcp, *udp;       /* NULL: never served over it */
	struct source_limit *sources;          /* NULL: the service has had no source limit of its own */
	SLIST_HEAD(, service_buckets) buckets; /* for each rate of a generation */
};

/* Read-only for the workers, except for limits and buckets, which any thread may change, and the worker's own
 * counters. */
struct instance {
	struct generation *generation;
	struct service_state *state;
	const struct config_service *config;
	const struct service *service;
	const void *settings;           /* of the service's own options */
	char *memos;                    /* the service's cache, one per worker; NULL: none */
	struct limit_gate *daemon_gate; /* open connections of all services */
	struct limit_gate *gate;        /* open connections of this service */
	struct acl *acl;                /* of allow and deny; NULL: all sources are allowed */
	struct acl *proxy_acl;          /* of proxy_from, the senders of PROXY headers; NULL: no headers */
	struct source_limit *sources;   /* open connections per source; NULL: not limited */
	int64_t source_maximum;
	struct token_buckets *connection_buckets; /* NULL: not limited */
	struct token_buckets *datagram_buckets;   /* NULL: not limited */
	struct port_set *refused_ports;           /* source ports of dropped datagrams; NULL: none */
	struct in6_addr *groups;                  /* multicast_groups; IPv4 is mapped into IPv6 */
	size_t group_count;
	struct log_bound refused_bound, full_bound, failed_bound;
	struct metrics_block *tcp; /* one per worker; NULL: not served over TCP */
	struct metrics_block *udp;
};

/* Logs `NAME: TEXT` or, with a PEER, `NAME: TRANSPORT ADDRESS:PORT TEXT` at LEVEL of syslog(3). The journal gets name,
 * transport and peer as fields. Any thread. */
void instance_log(const struct instance *instance, int level, unsigned transport, const struct socket_address *peer,
		  const char *format, ...) __attribute__((format(printf, 5, 6)));

/* Logs the counts of lines that the bounds have suppressed. Any thread. */
void instance_report_suppressed(struct instance *instance);

/* Returns the service's cache of worker INDEX, which only that worker's thread uses; NULL: the service has none. */
void *instance_memo(const struct instance *instance, unsigned index);

/* Returns whether datagrams from source port PORT are dropped. */
static inline bool instance_refuses_port(const struct instance *instance, uint16_t port)
{
	return instance->refused_ports != NULL && port_set_has(instance->refused_ports, port);
}

/* A worker's share of a generation. */
struct generation_share {
	_Alignas(64) struct generation *generation;
	uint64_t held; /* count of listeners, sockets and connections; used by the worker's thread alone */
	bool left;
	struct task leave; /* posted to the worker after another generation is in force */
};

/* All services of one configuration. */
struct generation {
	struct config *config;
	struct instance *instances; /* one per entry of config->services */
	struct instance_store *store;
	atomic_uint references;          /* one per worker, and one per connection that moves between two */
	struct generation_share *shares; /* one per worker */
	struct task over;                /* posted to the main thread after the last reference is dropped */
	struct generation *next;         /* NEXT and OWNER are for the use of control/ */
	void *owner;
};

/* Called on the main thread after the last reference to GENERATION is dropped. */
typedef void generation_callback(void *generation);

/* The state of all services that were ever configured, shared by all generations. */
struct instance_store;

/* Returns an empty store; NULL when out of memory. ON_OVER, posted to MAIN, may be NULL if no generation is ever
 * replaced. */
struct instance_store *instance_store_new(struct limit_gate *daemon_gate, unsigned workers, struct task_queue *main,
					  generation_callback *on_over);

/* Frees STORE after its last generation. NULL is fine. */
void instance_store_free(struct instance_store *store);

/* Returns the generation of CONFIG, to which it takes a reference, with up to DAEMON_MAXIMUM open connections. The
 * generation in force is not changed. Returns NULL when out of memory, with an entry in DIAGNOSTICS. Main thread. */
struct generation *generation_new(struct config *config, struct instance_store *store, int64_t daemon_maximum,
				  struct diagnostics *diagnostics);

/* Adds SERVED to the refused source ports of each service that has some. Before the generation is in force. */
void generation_refuse_ports(struct generation *generation, const struct port_set *served);

/* Puts the limits of open connections in force, and cancels the removal of its services. Main thread. */
void generation_enforce(struct generation *generation);

/* Frees a generation that no worker holds. NULL is fine. */
void generation_free(struct generation *generation);

/* Returns the instance of SERVICE, an entry of the generation's configuration. */
struct instance *generation_instance(const struct generation *generation, const struct config_service *service);

/* Returns the instance of the service NAME, or NULL. */
struct instance *generation_find(const struct generation *generation, const char *name);

/* Takes or drops a reference for a listener, socket or connection of worker INDEX. That worker's thread, or the main
 * thread before the workers run. */
void instance_hold(struct instance *instance, unsigned index);
void instance_release(struct instance *instance, unsigned index);

/* Moves the reference of a connection between workers: the sender, which holds INSTANCE, calls send; worker INDEX calls
 * receive; give_up drops it on the way. */
void instance_send(struct instance *instance);
void instance_receive(struct instance *instance, unsigned index);
void instance_give_up(struct instance *instance);

#endif
