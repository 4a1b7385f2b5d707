/* tcp_transport.c: plain TCP and TLS as the same operations. */
#include "net/tcp_internal.h"

#include <stdlib.h>
#include <sys/socket.h>
#include <syslog.h>

#include "core/clock.h"
#include "core/transport.h"

/* --- operations --- */

ssize_t tcp_transport_read(struct connection *connection, char *bytes, size_t size)
{
	if (connection->tls_active)
		return tls_read(connection_tls(connection), bytes, size);
	return recv(connection_fd(connection), bytes, size, 0);
}

ssize_t tcp_transport_write(struct connection *connection, const char *bytes, size_t length, bool last)
{
	if (connection->tls_active)
		return tls_write(connection_tls(connection), bytes, length);
	return send(connection_fd(connection), bytes, length, MSG_NOSIGNAL | (last ? MSG_MORE : 0));
}

int tcp_transport_shutdown(struct connection *connection)
{
	int result = connection->tls_active ? tls_shutdown(connection_tls(connection)) : 0;
	return result == 0 ? shutdown(connection_fd(connection), SHUT_WR) : result;
}

/* --- memory --- */

struct connection *tcp_transport_alloc(struct tcp_worker *worker, const struct instance *instance, int fd)
{
	const struct tls_context *context = instance->config->tls_context;
	if (context == NULL)
		return malloc(sizeof(struct connection));
	struct tls_connection *connection = malloc(sizeof *connection);
	if (connection == NULL)
		return NULL;
	connection->tls = tls_new(context, fd);
	if (connection->tls == NULL) {
		free(connection);
		return NULL;
	}
	event_assign(&connection->pending, worker_base(worker->worker), -1, 0, connection_on_readable, connection);
	return &connection->connection;
}

void tcp_transport_free(struct connection *connection)
{
	if (connection_has_tls(connection)) {
		event_del(&tls_connection_of(connection)->pending);
		tls_free(connection_tls(connection));
	}
	free(connection);
}

/* --- failures --- */

static const enum metric reasons[TLS_FAILURE_COUNT] = {
	[TLS_NO_FAILURE] = METRIC_CLOSED_TLS_PROTOCOL,
	[TLS_HANDSHAKE_FAILED] = METRIC_CLOSED_TLS_HANDSHAKE,
	[TLS_CERTIFICATE_MISSING] = METRIC_CLOSED_TLS_CERTIFICATE_MISSING,
	[TLS_CERTIFICATE_EXPIRED] = METRIC_CLOSED_TLS_CERTIFICATE_EXPIRED,
	[TLS_CERTIFICATE_NOT_YET_VALID] = METRIC_CLOSED_TLS_CERTIFICATE_NOT_YET_VALID,
	[TLS_CERTIFICATE_REVOKED] = METRIC_CLOSED_TLS_CERTIFICATE_REVOKED,
	[TLS_CERTIFICATE_UNKNOWN_AUTHORITY] = METRIC_CLOSED_TLS_CERTIFICATE_UNKNOWN_AUTHORITY,
	[TLS_CERTIFICATE_SELF_SIGNED] = METRIC_CLOSED_TLS_CERTIFICATE_SELF_SIGNED,
	[TLS_CERTIFICATE_WRONG_PURPOSE] = METRIC_CLOSED_TLS_CERTIFICATE_WRONG_PURPOSE,
	[TLS_CERTIFICATE_NO_CRL] = METRIC_CLOSED_TLS_CERTIFICATE_NO_CRL,
	[TLS_CERTIFICATE_INVALID] = METRIC_CLOSED_TLS_CERTIFICATE_INVALID,
	[TLS_PROTOCOL_FAILED] = METRIC_CLOSED_TLS_PROTOCOL,
};

enum metric tcp_transport_failure(const struct connection *connection)
{
	const struct tls *tls = connection_tls(connection);
	enum metric reason = reasons[tls_failure(tls)];
	const char *subject = tls_client_subject(tls);
	struct socket_address peer = connection_peer(connection);
	char detail[200];

	if (!log_allows(&connection->instance->refused_bound, clock_ms()))
		return reason;
	tls_failure_print(tls, detail, sizeof detail);
	instance_log(connection->instance, LOG_WARNING, TRANSPORT_TCP, &peer, "closed: %s: %s%s%s",
		     metrics_rows[reason].reason, detail, subject != NULL ? ", certificate " : "",
		     subject != NULL ? subject : "");
	return reason;
}
