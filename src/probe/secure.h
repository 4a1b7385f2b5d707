/* secure.h: TLS as a client, as the options say: the only room of the probe that makes contexts and sessions. */
#ifndef SMALLSERVD_PROBE_SECURE_H
#define SMALLSERVD_PROBE_SECURE_H

#include <openssl/ssl.h>

#include "probe/options.h"
#include "probe/target.h"

/* A context with the authorities and the certificate that the options name; freed with SSL_CTX_free. It can be shared by
 * threads. NULL: the reason is in ERROR (TARGET_ERROR_SIZE bytes). */
SSL_CTX *secure_context(const struct options *options, char *error);

/* A client's session on FD, a connected non-blocking socket, that will check the certificate against the name or
 * address of TARGET or --server-name; freed with SSL_free, which leaves FD open. NULL: the reason is in ERROR. */
SSL *secure_session(SSL_CTX *context, const struct options *options, const struct target *target, int fd, char *error);

/* Writes why the last call on SESSION failed, which returned RESULT, to ERROR, and empties this thread's queue of errors. */
void secure_explain(const SSL *session, int result, char *error);

#endif
