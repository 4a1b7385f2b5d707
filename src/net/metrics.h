/* metrics.h: the counters of services: names, per-worker blocks, sums, text. */
#ifndef SMALLSERVD_NET_METRICS_H
#define SMALLSERVD_NET_METRICS_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include "core/transport.h"

/* The counters of a service on one transport: NAME, FAMILY, REASON or NULL if the family is a single counter,
 * TRANSPORTS. Reasons of a family are adjacent. */
#define METRICS(ROW)                                                                                                   \
	ROW(RECEIVED_BYTES, "received_bytes", NULL, TRANSPORT_BOTH)                                                    \
	ROW(SENT_BYTES, "sent_bytes", NULL, TRANSPORT_BOTH)                                                            \
	ROW(ACCEPTED, "accepted", NULL, TRANSPORT_TCP)                                                                 \
	ROW(REFUSED_DENIED, "refused", "denied", TRANSPORT_TCP)                                                        \
	ROW(REFUSED_SOURCE_LIMIT, "refused", "max_connections_per_source", TRANSPORT_TCP)                              \
	ROW(REFUSED_RATE, "refused", "connection_rate", TRANSPORT_TCP)                                                 \
	ROW(REFUSED_NO_MEMORY, "refused", "no_memory", TRANSPORT_TCP)                                                  \
	ROW(REFUSED_PROXY_REFUSED, "refused", "proxy_refused", TRANSPORT_TCP)                                          \
	ROW(REFUSED_PROXY_HEADER, "refused", "proxy_header", TRANSPORT_TCP)                                            \
	ROW(REFUSED_HANDSHAKE_TIMEOUT, "refused", "handshake_timeout", TRANSPORT_TCP)                                  \
	ROW(REFUSED_STOP, "refused", "stop", TRANSPORT_TCP)                                                            \
	ROW(CLOSED_DONE, "closed", "done", TRANSPORT_TCP)                                                              \
	ROW(CLOSED_CLIENT, "closed", "client", TRANSPORT_TCP)                                                          \
	ROW(CLOSED_IDLE_TIMEOUT, "closed", "idle_timeout", TRANSPORT_TCP)                                              \
	ROW(CLOSED_LIFETIME, "closed", "lifetime", TRANSPORT_TCP)                                                      \
	ROW(CLOSED_RESET, "closed", "reset", TRANSPORT_TCP)                                                            \
	ROW(CLOSED_ERROR, "closed", "error", TRANSPORT_TCP)                                                            \
	ROW(CLOSED_NO_MEMORY, "closed", "no_memory", TRANSPORT_TCP)                                                    \
	ROW(CLOSED_STOP, "closed", "stop", TRANSPORT_TCP)                                                              \
	ROW(CLOSED_HANDSHAKE_TIMEOUT, "closed", "handshake_timeout", TRANSPORT_TCP)                                    \
	ROW(CLOSED_TLS_HANDSHAKE, "closed", "tls_handshake", TRANSPORT_TCP)                                            \
	ROW(CLOSED_TLS_CERTIFICATE_MISSING, "closed", "tls_certificate_missing", TRANSPORT_TCP)                        \
	ROW(CLOSED_TLS_CERTIFICATE_EXPIRED, "closed", "tls_certificate_expired", TRANSPORT_TCP)                        \
	ROW(CLOSED_TLS_CERTIFICATE_NOT_YET_VALID, "closed", "tls_certificate_not_yet_valid", TRANSPORT_TCP)            \
	ROW(CLOSED_TLS_CERTIFICATE_REVOKED, "closed", "tls_certificate_revoked", TRANSPORT_TCP)                        \
	ROW(CLOSED_TLS_CERTIFICATE_UNKNOWN_AUTHORITY, "closed", "tls_certificate_unknown_authority", TRANSPORT_TCP)    \
	ROW(CLOSED_TLS_CERTIFICATE_SELF_SIGNED, "closed", "tls_certificate_self_signed", TRANSPORT_TCP)                \
	ROW(CLOSED_TLS_CERTIFICATE_WRONG_PURPOSE, "closed", "tls_certificate_wrong_purpose", TRANSPORT_TCP)            \
	ROW(CLOSED_TLS_CERTIFICATE_NO_CRL, "closed", "tls_certificate_no_crl", TRANSPORT_TCP)                          \
	ROW(CLOSED_TLS_CERTIFICATE_INVALID, "closed", "tls_certificate_invalid", TRANSPORT_TCP)                        \
	ROW(CLOSED_TLS_PROTOCOL, "closed", "tls_protocol", TRANSPORT_TCP)                                              \
	ROW(CLOSED_TLS_TRUNCATED, "closed", "tls_truncated", TRANSPORT_TCP)                                            \
	ROW(DATAGRAMS_RECEIVED, "datagrams_received", NULL, TRANSPORT_UDP)                                             \
	ROW(DATAGRAMS_SENT, "datagrams_sent", NULL, TRANSPORT_UDP)                                                     \
	ROW(DROPPED_TOO_LONG, "dropped", "too_long", TRANSPORT_UDP)                                                    \
	ROW(DROPPED_PORT_ZERO, "dropped", "port_zero", TRANSPORT_UDP)                                                  \
	ROW(DROPPED_OWN_ENDPOINT, "dropped", "own_endpoint", TRANSPORT_UDP)                                            \
	ROW(DROPPED_REFUSED_PORT, "dropped", "refused_port", TRANSPORT_UDP)                                            \
	ROW(DROPPED_SOURCE_MULTICAST, "dropped", "source_multicast", TRANSPORT_UDP)                                    \
	ROW(DROPPED_SOURCE_BROADCAST, "dropped", "source_broadcast", TRANSPORT_UDP)                                    \
	ROW(DROPPED_SOURCE_UNSPECIFIED, "dropped", "source_unspecified", TRANSPORT_UDP)                                \
	ROW(DROPPED_DENIED, "dropped", "denied", TRANSPORT_UDP)                                                        \
	ROW(DROPPED_TO_BROADCAST, "dropped", "to_broadcast", TRANSPORT_UDP)                                            \
	ROW(DROPPED_TO_MULTICAST, "dropped", "to_multicast", TRANSPORT_UDP)                                            \
	ROW(DROPPED_RATE, "dropped", "datagram_rate", TRANSPORT_UDP)                                                   \
	ROW(DROPPED_SEND_FAILED, "dropped", "send_failed", TRANSPORT_UDP)                                              \
	ROW(DROPPED_NO_MEMORY, "dropped", "no_memory", TRANSPORT_UDP)

enum metric {
#define METRIC_ENUM(name, family, reason, transports) METRIC_##name,
	METRICS(METRIC_ENUM) METRIC_COUNT,
#undef METRIC_ENUM
	METRIC_REFUSED_FIRST = METRIC_REFUSED_DENIED,
	METRIC_REFUSED_LAST = METRIC_REFUSED_STOP,
	METRIC_CLOSED_FIRST = METRIC_CLOSED_DONE,
	METRIC_CLOSED_LAST = METRIC_CLOSED_TLS_TRUNCATED,
	METRIC_DROPPED_FIRST = METRIC_DROPPED_TOO_LONG,
	METRIC_DROPPED_LAST_FILTERED = METRIC_DROPPED_RATE, /* the reasons after it are errors */
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

/* Returns zeroed counters, a block per worker; free(3) frees them. NULL when out of memory. */
struct metrics_block *metrics_new(unsigned workers);

/* Adds up the BLOCKS of WORKERS workers into SUMS. Any thread; exact when the workers are idle. */
void metrics_sum(const struct metrics_block *blocks, unsigned workers, struct metrics_sums *sums);

/* Returns the sum of the counters FIRST to LAST. */
uint64_t metrics_range(const struct metrics_sums *sums, enum metric first, enum metric last);

/* Writes the counters of TRANSPORT to TEXT, `family=N family{reason}=N ...`, without the reasons that are zero.
 * Truncates at SIZE. */
void metrics_print(const struct metrics_sums *sums, unsigned transport, char *text, size_t size);

#endif
