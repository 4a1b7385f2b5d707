/* metrics.c: the counters of services: names, per-worker blocks, sums, text. */
#include "net/metrics.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include "core/transport.h"

const struct metrics_row metrics_rows[METRIC_COUNT] = {
	[METRIC_RECEIVED_BYTES] = {"received_bytes", NULL, TRANSPORT_BOTH},
	[METRIC_SENT_BYTES] = {"sent_bytes", NULL, TRANSPORT_BOTH},
	[METRIC_ACCEPTED] = {"accepted", NULL, TRANSPORT_TCP},
	[METRIC_REFUSED_DENIED] = {"refused", "denied", TRANSPORT_TCP},
	[METRIC_REFUSED_SOURCE_LIMIT] = {"refused", "max_connections_per_source", TRANSPORT_TCP},
	[METRIC_REFUSED_RATE] = {"refused", "connection_rate", TRANSPORT_TCP},
	[METRIC_REFUSED_NO_MEMORY] = {"refused", "no_memory", TRANSPORT_TCP},
	[METRIC_REFUSED_PROXY_REFUSED] = {"refused", "proxy_refused", TRANSPORT_TCP},
	[METRIC_REFUSED_PROXY_HEADER] = {"refused", "proxy_header", TRANSPORT_TCP},
	[METRIC_REFUSED_HANDSHAKE_TIMEOUT] = {"refused", "handshake_timeout", TRANSPORT_TCP},
	[METRIC_REFUSED_STOP] = {"refused", "stop", TRANSPORT_TCP},
	[METRIC_CLOSED_DONE] = {"closed", "done", TRANSPORT_TCP},
	[METRIC_CLOSED_CLIENT] = {"closed", "client", TRANSPORT_TCP},
	[METRIC_CLOSED_IDLE_TIMEOUT] = {"closed", "idle_timeout", TRANSPORT_TCP},
	[METRIC_CLOSED_LIFETIME] = {"closed", "lifetime", TRANSPORT_TCP},
	[METRIC_CLOSED_RESET] = {"closed", "reset", TRANSPORT_TCP},
	[METRIC_CLOSED_ERROR] = {"closed", "error", TRANSPORT_TCP},
	[METRIC_CLOSED_NO_MEMORY] = {"closed", "no_memory", TRANSPORT_TCP},
	[METRIC_CLOSED_STOP] = {"closed", "stop", TRANSPORT_TCP},
	[METRIC_CLOSED_HANDSHAKE_TIMEOUT] = {"closed", "handshake_timeout", TRANSPORT_TCP},
	[METRIC_CLOSED_TLS_HANDSHAKE] = {"closed", "tls_handshake", TRANSPORT_TCP},
	[METRIC_CLOSED_TLS_CERTIFICATE_MISSING] = {"closed", "tls_certificate_missing", TRANSPORT_TCP},
	[METRIC_CLOSED_TLS_CERTIFICATE_EXPIRED] = {"closed", "tls_certificate_expired", TRANSPORT_TCP},
	[METRIC_CLOSED_TLS_CERTIFICATE_NOT_YET_VALID] = {"closed", "tls_certificate_not_yet_valid", TRANSPORT_TCP},
	[METRIC_CLOSED_TLS_CERTIFICATE_REVOKED] = {"closed", "tls_certificate_revoked", TRANSPORT_TCP},
	[METRIC_CLOSED_TLS_CERTIFICATE_UNKNOWN_AUTHORITY] = {"closed", "tls_certificate_unknown_authority",
							     TRANSPORT_TCP},
	[METRIC_CLOSED_TLS_CERTIFICATE_SELF_SIGNED] = {"closed", "tls_certificate_self_signed", TRANSPORT_TCP},
	[METRIC_CLOSED_TLS_CERTIFICATE_WRONG_PURPOSE] = {"closed", "tls_certificate_wrong_purpose", TRANSPORT_TCP},
	[METRIC_CLOSED_TLS_CERTIFICATE_NO_CRL] = {"closed", "tls_certificate_no_crl", TRANSPORT_TCP},
	[METRIC_CLOSED_TLS_CERTIFICATE_INVALID] = {"closed", "tls_certificate_invalid", TRANSPORT_TCP},
	[METRIC_CLOSED_TLS_PROTOCOL] = {"closed", "tls_protocol", TRANSPORT_TCP},
	[METRIC_CLOSED_TLS_TRUNCATED] = {"closed", "tls_truncated", TRANSPORT_TCP},
	[METRIC_DATAGRAMS_RECEIVED] = {"datagrams_received", NULL, TRANSPORT_UDP},
	[METRIC_DATAGRAMS_SENT] = {"datagrams_sent", NULL, TRANSPORT_UDP},
	[METRIC_DROPPED_TOO_LONG] = {"dropped", "too_long", TRANSPORT_UDP},
	[METRIC_DROPPED_PORT_ZERO] = {"dropped", "port_zero", TRANSPORT_UDP},
	[METRIC_DROPPED_OWN_ENDPOINT] = {"dropped", "own_endpoint", TRANSPORT_UDP},
	[METRIC_DROPPED_REFUSED_PORT] = {"dropped", "refused_port", TRANSPORT_UDP},
	[METRIC_DROPPED_SOURCE_MULTICAST] = {"dropped", "source_multicast", TRANSPORT_UDP},
	[METRIC_DROPPED_SOURCE_BROADCAST] = {"dropped", "source_broadcast", TRANSPORT_UDP},
	[METRIC_DROPPED_SOURCE_UNSPECIFIED] = {"dropped", "source_unspecified", TRANSPORT_UDP},
	[METRIC_DROPPED_DENIED] = {"dropped", "denied", TRANSPORT_UDP},
	[METRIC_DROPPED_TO_BROADCAST] = {"dropped", "to_broadcast", TRANSPORT_UDP},
	[METRIC_DROPPED_TO_MULTICAST] = {"dropped", "to_multicast", TRANSPORT_UDP},
	[METRIC_DROPPED_RATE] = {"dropped", "datagram_rate", TRANSPORT_UDP},
	[METRIC_DROPPED_SEND_FAILED] = {"dropped", "send_failed", TRANSPORT_UDP},
	[METRIC_DROPPED_NO_MEMORY] = {"dropped", "no_memory", TRANSPORT_UDP},
};

/* The blocks of one service on one transport. */
struct series {
	SLIST_ENTRY(series) link;
	char *name;
	unsigned transport;
	struct metrics_block *blocks;
};

struct metrics {
	unsigned workers;
	SLIST_HEAD(, series) series;
};

struct metrics *metrics_new(unsigned workers)
{
	struct metrics *metrics = calloc(1, sizeof *metrics);
	if (metrics != NULL)
		metrics->workers = workers;
	return metrics;
}

static void series_free(struct series *series)
{
	if (series == NULL)
		return;
	free(series->name);
	free(series->blocks);
	free(series);
}

void metrics_free(struct metrics *metrics)
{
	if (metrics == NULL)
		return;
	while (!SLIST_EMPTY(&metrics->series)) {
		struct series *series = SLIST_FIRST(&metrics->series);
		SLIST_REMOVE_HEAD(&metrics->series, link);
		series_free(series);
	}
	free(metrics);
}

static struct series *series_new(const char *name, unsigned transport, unsigned workers)
{
	struct series *series = calloc(1, sizeof *series);
	if (series == NULL)
		return NULL;
	series->name = strdup(name);
	series->transport = transport;
	series->blocks = aligned_alloc(_Alignof(struct metrics_block), workers * sizeof *series->blocks);
	if (series->name == NULL || series->blocks == NULL) {
		series_free(series);
		return NULL;
	}
	memset(series->blocks, 0, workers * sizeof *series->blocks);
	return series;
}

struct metrics_block *metrics_blocks(struct metrics *metrics, const char *name, unsigned transport)
{
	struct series *series;
	SLIST_FOREACH(series, &metrics->series, link)
	if (series->transport == transport && strcmp(series->name, name) == 0)
		return series->blocks;

	series = series_new(name, transport, metrics->workers);
	if (series == NULL)
		return NULL;
	SLIST_INSERT_HEAD(&metrics->series, series, link);
	return series->blocks;
}

void metrics_sum(const struct metrics *metrics, const struct metrics_block *blocks, struct metrics_sums *sums)
{
	*sums = (struct metrics_sums){0};
	for (unsigned worker = 0; worker < metrics->workers; worker++)
		for (int i = 0; i < METRIC_COUNT; i++)
			sums->values[i] += atomic_load_explicit(&blocks[worker].values[i], memory_order_relaxed);
}

uint64_t metrics_range(const struct metrics_sums *sums, enum metric first, enum metric last)
{
	uint64_t sum = 0;
	for (enum metric i = first; i <= last; i++)
		sum += sums->values[i];
	return sum;
}

void metrics_print(const struct metrics_sums *sums, unsigned transport, char *text, size_t size)
{
	size_t used = 0;
	if (size > 0)
		text[0] = '\0';
	for (int i = 0; i < METRIC_COUNT && used < size; i++) {
		const struct metrics_row *row = &metrics_rows[i];
		unsigned long long value = sums->values[i];
		const char *space = used > 0 ? " " : "";
		if (!(row->transports & transport) || (row->reason != NULL && value == 0))
			continue;
		int length = row->reason == NULL
				     ? snprintf(text + used, size - used, "%s%s=%llu", space, row->family, value)
				     : snprintf(text + used, size - used, "%s%s{%s}=%llu", space, row->family,
						row->reason, value);
		used += (size_t)length;
	}
}
