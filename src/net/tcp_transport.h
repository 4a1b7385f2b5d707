/* tcp_transport.h: plain TCP and TLS as the same operations. */
#ifndef SMALLSERVD_NET_TCP_TRANSPORT_H
#define SMALLSERVD_NET_TCP_TRANSPORT_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "net/metrics.h"
#include "net/tcp_connection.h"

/* Operations as recv(2) and send(2): the number of bytes, 0 at the end of the stream, -1 with errno; EAGAIN: to be
 * repeated when the socket is ready. */
struct tcp_transport {
	int (*handshake)(struct connection *connection); /* 0: done; -1 with errno */
	ssize_t (*read)(struct connection *connection, char *bytes, size_t size);
	/* LAST: shutdown follows at once, so the kernel may send short data together with the FIN */
	ssize_t (*write)(struct connection *connection, const char *bytes, size_t length, bool last);
	int (*shutdown)(struct connection *connection); /* ends the sending side: 0, or -1 with errno */
};

extern const struct tcp_transport tcp_plain, tcp_tls;

/* Returns the transport in use; it changes to tcp_plain when the TLS session has failed. */
static inline const struct tcp_transport *connection_transport(const struct connection *connection)
{
	return connection->tls_active ? &tcp_tls : &tcp_plain;
}

/* Allocates a connection of INSTANCE and its TLS session, if any. The struct connection is uninitialised. Returns NULL
 * when out of memory. */
struct connection *tcp_transport_alloc(struct tcp_worker *worker, const struct instance *instance, int fd);

/* Frees the connection and its TLS session. */
void tcp_transport_free(struct connection *connection);

/* Logs why the TLS session failed, and returns the reason for the counter. */
enum metric tcp_transport_failure(const struct connection *connection);

#endif
