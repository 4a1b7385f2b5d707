/* metrics.h: the counters of services: names, per-worker blocks, sums, text. */
#ifndef SMALLSERVD_NET_METRICS_H
#define SMALLSERVD_NET_METRICS_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

/* The counters of a service on one transport. metrics_rows has their names. */
enum metric {
	METRIC_RECEIVED_BYTES,
	METRIC_SENT_BYTES,
	/* TCP */
	METRIC_ACCEPTED,
	METRIC_REFUSED_DENIED,
	METRIC_REFUSED_SOURCE_LIMIT,
	METRIC_REFUSED_RATE,
	METRIC_REFUSED_NO_MEMORY,
	METRIC_REFUSED_PROXY_REFUSED,
	METRIC_REFUSED_PROXY_HEADER,
	METRIC_REFUSED_HANDSHAKE_TIMEOUT,
	METRIC_REFUSED_STOP,
	METRIC_CLOSED_DONE,
	METRIC_CLOSED_CLIENT,
	METRIC_CLOSED_IDLE_TIMEOUT,
	METRIC_CLOSED_LIFETIME,
	METRIC_CLOSED_RESET,
	METRIC_CLOSED_ERROR,
	METRIC_CLOSED_NO_MEMORY,
	METRIC_CLOSED_STOP,
	METRIC_CLOSED_HANDSHAKE_TIMEOUT,
	METRIC_CLOSED_TLS_HANDSHAKE,
	METRIC_CLOSED_TLS_CERTIFICATE_MISSING,
	METRIC_CLOSED_TLS_CERTIFICATE_EXPIRED,
	METRIC_CLOSED_TLS_CERTIFICATE_NOT_YET_VALID,
	METRIC_CLOSED_TLS_CERTIFICATE_REVOKED,
	METRIC_CLOSED_TLS_CERTIFICATE_UNKNOWN_AUTHORITY,
	METRIC_CLOSED_TLS_CERTIFICATE_SELF_SIGNED,
	METRIC_CLOSED_TLS_CERTIFICATE_WRONG_PURPOSE,
	METRIC_CLOSED_TLS_CERTIFICATE_NO_CRL,
	METRIC_CLOSED_TLS_CERTIFICATE_INVALID,
	METRIC_CLOSED_TLS_PROTOCOL,
	METRIC_CLOSED_TLS_TRUNCATED,
	/* UDP */
	METRIC_DATAGRAMS_RECEIVED,
	METRIC_DATAGRAMS_SENT,
	METRIC_DROPPED_TOO_LONG,
	METRIC_DROPPED_PORT_ZERO,
	METRIC_DROPPED_OWN_ENDPOINT,
	METRIC_DROPPED_REFUSED_PORT,
	METRIC_DROPPED_SOURCE_MULTICAST,
	METRIC_DROPPED_SOURCE_BROADCAST,
	METRIC_DROPPED_SOURCE_UNSPECIFIED,
	METRIC_DROPPED_DENIED,
	METRIC_DROPPED_TO_BROADCAST,
	METRIC_DROPPED_TO_MULTICAST,
	METRIC_DROPPED_RATE,
	METRIC_DROPPED_SEND_FAILED,
	METRIC_DROPPED_NO_MEMORY,
	METRIC_COUNT,
	METRIC_REFUSED_FIRST = METRIC_REFUSED_DENIED,
	METRIC_REFUSED_LAST = METRIC_REFUSED_STOP,
	METRIC_CLOSED_FIRST = METRIC_CLOSED_DONE,
	METRIC_CLOSED_LAST = METRIC_CLOSED_TLS_TRUNCATED,
	METRIC_DROPPED_FIRST = METRIC_DROPPED_TOO_LONG,
	METRIC_DROPPED_LAST_REFUSED = METRIC_DROPPED_RATE, /* the reasons after it are errors */
	METRIC_DROPPED_LAST = METRIC_DROPPED_NO_MEMORY,
};

/* The name of a counter: FAMILY, with REASON unless the family is a single counter. TRANSPORTS: the bits of
 * TRANSPORT_*. */
struct metrics_row {
	const char *family;
	const char *reason;
	unsigned transports;
};
extern const struct metrics_row metrics_rows[METRIC_COUNT];

/* One worker's counters of a service on one transport. That worker alone writes them, without locked instructions. */
struct metrics_block {
	_Alignas(64) _Atomic uint64_t values[METRIC_COUNT];
};

static inline void metrics_add(struct metrics_block *block, enum metric metric, uint64_t amount)
{
	uint64_t value = atomic_load_explicit(&block->values[metric], memory_order_relaxed);
	atomic_store_explicit(&block->values[metric], value + amount, memory_order_relaxed);
}

/* The sums over all workers. */
struct metrics_sums {
	uint64_t values[METRIC_COUNT];
};

struct metrics;

/* Returns an empty store of blocks for WORKERS workers; NULL when out of memory. */
struct metrics *metrics_new(unsigned workers);
void metrics_free(struct metrics *metrics);

/* Returns the blocks of NAME on TRANSPORT, one per worker, which last until metrics_free: a service that a reload adds
 * again continues its counts. NULL when out of memory. Main thread. */
struct metrics_block *metrics_blocks(struct metrics *metrics, const char *name, unsigned transport);

/* Adds up BLOCKS into SUMS. Any thread; exact when the workers are idle. */
void metrics_sum(const struct metrics *metrics, const struct metrics_block *blocks, struct metrics_sums *sums);

/* Returns the sum of the counters FIRST to LAST. */
uint64_t metrics_range(const struct metrics_sums *sums, enum metric first, enum metric last);

/* Writes the counters of TRANSPORT to TEXT, `family=N family{reason}=N ...`, without the reasons that are zero.
 * Truncates at SIZE. */
void metrics_print(const struct metrics_sums *sums, unsigned transport, char *text, size_t size);

#endif
