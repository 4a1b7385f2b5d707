/* tls_client.h: TLS client contexts and sessions, as the options say. */
#ifndef SMALLSERVD_PROBE_TLS_CLIENT_H
#define SMALLSERVD_PROBE_TLS_CLIENT_H

#include <openssl/ssl.h>

#include "probe/options.h"
#include "probe/target.h"

/* Creates a context with the authorities and the certificate of the options, to be freed with SSL_CTX_free. Threads can
 * share it. Returns NULL with the reason in ERROR (TARGET_ERROR_SIZE bytes). */
SSL_CTX *tls_client_context(const struct options *options, char *error);

/* Creates a session on FD, a connected non-blocking socket, that checks the certificate against TARGET or
 * --server-name; to be freed with SSL_free, which leaves FD open. Returns NULL with the reason in ERROR. */
SSL *tls_client_session(SSL_CTX *context, const struct options *options, const struct target *target, int fd,
			char *error);

/* Writes the reason why the last call on SESSION failed, which returned RESULT, to ERROR. Empties OpenSSL's error queue
 * of this thread. */
void tls_client_explain(const SSL *session, int result, char *error);

#endif
