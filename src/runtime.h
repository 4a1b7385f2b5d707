/* runtime.h: one service of one generation of the configuration, as the data path sees it. */
#ifndef SMALLSERVD_RUNTIME_H
#define SMALLSERVD_RUNTIME_H

#include <stddef.h>
#include <stdint.h>

#include "config.h"
#include "limit.h"
#include "log.h"
#include "metrics.h"
#include "prefix.h"
#include "services/service.h"

/* A bit a port. */
struct runtime_ports {
	uint64_t bits[65536 / 64];
};

/* Read-only to the workers, but for what limit.h says any thread may change, and each worker's own block of counters. */
struct runtime {
	const struct config_service *config;
	const struct service *service;
	const void *settings;           /* of the service's own options */
	struct limit_gate *daemon_gate; /* open connections over all services */
	struct limit_gate gate;         /* open connections of this service */
	struct prefix_map *prefixes;    /* who is allowed; NULL: everybody */
	struct limit_sources *sources;  /* open connections of each source; NULL: not limited */
	bool shares_sources;            /* with other services */
	int64_t source_maximum;
	struct limit_buckets *connection_buckets; /* NULL: not limited */
	struct limit_buckets *datagram_buckets;   /* NULL: not limited */
	struct runtime_ports *refused_ports;      /* of UDP sources; NULL: none */
	struct log_bound refused_bound, full_bound, failed_bound;
	struct metrics_block *tcp; /* one a worker; NULL: not served over TCP */
	struct metrics_block *udp;
};

void runtime_ports_add(struct runtime_ports *ports, uint16_t port);

/* The prefix that counts as one source with IP. */
struct in6_addr runtime_source(const struct runtime *runtime, const struct in6_addr *ip);

static inline bool runtime_refuses_port(const struct runtime *runtime, uint16_t port)
{
	return runtime->refused_ports != NULL && (runtime->refused_ports->bits[port / 64] >> (port % 64)) & 1;
}

/* All services of one configuration. */
struct generation {
	struct config *config;
	struct runtime *runtimes;             /* one an entry of config->services */
	struct limit_sources *shared_sources; /* of all services whose limit of a source is the daemon's */
};

/* Prepares what serving CONFIG needs, and takes a reference to it. NULL when out of memory. For the main thread. */
struct generation *generation_new(struct config *config, struct metrics *metrics, struct limit_gate *daemon_gate);

/* Has every service that refuses source ports refuse those of SERVED too. Before anything serves it. */
void generation_refuse_ports(struct generation *generation, const struct runtime_ports *served);

/* Nothing may serve it any more. NULL is fine. */
void generation_free(struct generation *generation);

/* The runtime of SERVICE, which is one of the generation's configuration. */
struct runtime *generation_runtime(const struct generation *generation, const struct config_service *service);

#endif
