/* runtime.h: one service of one generation of the configuration, as the data path sees it. */
#ifndef SMALLSERVD_RUNTIME_H
#define SMALLSERVD_RUNTIME_H

#include <stddef.h>

#include "config.h"
#include "limit.h"
#include "metrics.h"
#include "services/service.h"

/* Read-only to the workers, but for the gates and each worker's own block of counters. */
struct runtime {
	const struct config_service *config;
	const struct service *service;
	const void *settings;           /* of the service's own options */
	struct limit_gate *daemon_gate; /* open connections over all services */
	struct limit_gate gate;         /* open connections of this service */
	struct metrics_block *tcp;      /* one a worker; NULL: not served over TCP */
	struct metrics_block *udp;
};

/* All services of one configuration. */
struct generation {
	struct config *config;
	struct runtime *runtimes; /* one an entry of config->services */
};

/* Prepares what serving CONFIG needs, and takes a reference to it. NULL when out of memory. For the main thread. */
struct generation *generation_new(struct config *config, struct metrics *metrics, struct limit_gate *daemon_gate);

/* Nothing may serve it any more. NULL is fine. */
void generation_free(struct generation *generation);

/* The runtime of SERVICE, which is one of the generation's configuration. */
struct runtime *generation_runtime(const struct generation *generation, const struct config_service *service);

#endif
