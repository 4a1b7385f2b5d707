/* runtime.c: one service of one generation of the configuration, as the data path sees it. */
#include "runtime.h"

#include <stdlib.h>

static bool runtime_init(struct runtime *runtime, const struct config_service *config, struct metrics *metrics)
{
	runtime->config = config;
	runtime->service = config->type;
	runtime->settings = config->settings;
	limit_gate_init(&runtime->gate, config->max_connections);
	if (config->transports & TRANSPORT_TCP)
		runtime->tcp = metrics_blocks(metrics, config->name, TRANSPORT_TCP);
	if (config->transports & TRANSPORT_UDP)
		runtime->udp = metrics_blocks(metrics, config->name, TRANSPORT_UDP);
	return (runtime->tcp != NULL || !(config->transports & TRANSPORT_TCP)) &&
	       (runtime->udp != NULL || !(config->transports & TRANSPORT_UDP));
}

struct generation *generation_new(struct config *config, struct metrics *metrics, struct limit_gate *daemon_gate)
{
	struct generation *generation = calloc(1, sizeof *generation);
	if (generation == NULL)
		return NULL;
	generation->config = config_ref(config);
	generation->runtimes = calloc(config->service_count, sizeof *generation->runtimes);
	if (generation->runtimes == NULL)
		goto fail;
	for (size_t i = 0; i < config->service_count; i++) {
		generation->runtimes[i].daemon_gate = daemon_gate;
		if (!runtime_init(&generation->runtimes[i], &config->services[i], metrics))
			goto fail;
	}
	return generation;
fail:
	generation_free(generation);
	return NULL;
}

void generation_free(struct generation *generation)
{
	if (generation == NULL)
		return;
	config_unref(generation->config);
	free(generation->runtimes);
	free(generation);
}

struct runtime *generation_runtime(const struct generation *generation, const struct config_service *service)
{
	return &generation->runtimes[service - generation->config->services];
}
