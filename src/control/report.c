/* report.c: readiness, periodic reports and counters. */
#include <inttypes.h>
#include <stdio.h>

#include "control/notify.h"
#include "control/server.h"
#include "control/server_internal.h"
#include "core/log.h"
#include "core/transport.h"

enum { COUNTERS_TEXT_SIZE = 1600 }; /* every reason of TCP at once */

/* --- ready, for the log and the service manager --- */

static size_t count_enabled(const struct config *config)
{
	size_t count = 0;
	for (size_t i = 0; i < config->service_count; i++)
		count += config->services[i].enabled;
	return count;
}

void server_summarise(const struct server *server, char text[SUMMARY_SIZE])
{
	snprintf(text, SUMMARY_SIZE, "%zu services, %zu endpoints",
		 count_enabled(running_config_value(server->running)), server->running->endpoint_count);
}

void server_announce(struct server *server)
{
	char summary[SUMMARY_SIZE], status[2 * SUMMARY_SIZE];
	server_summarise(server, summary);
	snprintf(status, sizeof status, "%s, %u workers", summary, server->worker_count);
	notify_ready(status);
	server->announced = true;
}

/* --- each minute --- */

/* Logs the number of datagrams dropped since the last report, with log_connections. */
static void report_dropped(const struct server *server, struct instance *instance)
{
	struct metrics_sums sums;
	if (instance->udp == NULL || !instance->config->log_connections)
		return;
	metrics_sum(instance->udp, server->worker_count, &sums);
	uint64_t dropped = metrics_range(&sums, METRIC_DROPPED_FIRST, METRIC_DROPPED_LAST_FILTERED);
	uint64_t *logged = &instance->state->dropped_logged;
	if (dropped != *logged)
		instance_log(instance, LOG_NOTICE, TRANSPORT_UDP, NULL,
			     "udp: %" PRIu64 " datagrams dropped in the last minute", dropped - *logged);
	*logged = dropped;
}

void report_on_timer(evutil_socket_t fd, short what, void *argument)
{
	struct server *server = argument;
	const struct generation *generation = server->running->generation;

	(void)fd, (void)what;
	for (size_t i = 0; i < generation->config->service_count; i++) {
		struct instance *instance = &generation->instances[i];
		report_dropped(server, instance);
		instance_report_suppressed(instance);
	}
}

/* --- counters --- */

static void log_sums(const struct server *server, const struct instance *instance, unsigned transport)
{
	const struct metrics_block *blocks = transport == TRANSPORT_TCP ? instance->tcp : instance->udp;
	char text[COUNTERS_TEXT_SIZE], open[32] = "";
	struct metrics_sums sums;

	if (blocks == NULL)
		return;
	metrics_sum(blocks, server->worker_count, &sums);
	if (transport == TRANSPORT_TCP)
		snprintf(open, sizeof open, "open=%" PRIu64 " ",
			 sums.values[METRIC_ACCEPTED] - metrics_range(&sums, METRIC_CLOSED_FIRST, METRIC_CLOSED_LAST));
	metrics_print(&sums, transport, text, sizeof text);
	instance_log(instance, LOG_NOTICE, transport, NULL, "%s: %s%s", transport_name(transport), open, text);
}

void server_log_counters(const struct server *server)
{
	for (size_t i = 0; i < running_config_value(server->running)->service_count; i++) {
		const struct instance *instance = &server->running->generation->instances[i];
		if (!instance->config->enabled)
			continue;
		log_sums(server, instance, TRANSPORT_TCP);
		log_sums(server, instance, TRANSPORT_UDP);
	}
}
