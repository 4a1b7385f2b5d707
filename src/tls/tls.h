/* tls.h: server side of TLS; in the daemon, the only interface to OpenSSL. */
#ifndef SMALLSERVD_TLS_TLS_H
#define SMALLSERVD_TLS_TLS_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

enum tls_version { TLS_VERSION_ANY, TLS_1_2, TLS_1_3 };
enum tls_client_auth { TLS_CLIENT_NONE, TLS_CLIENT_OPTIONAL, TLS_CLIENT_REQUIRED };

/* The settings of a context. Files are in PEM format. */
struct tls_settings {
	const char *certificate; /* followed by its chain */
	const char *key;         /* NULL: in the certificate file */
	const char *client_ca;   /* authorities for client certificates; NULL: none */
	const char *crl;         /* revocation lists; NULL: no revocation check */
	enum tls_version min_version, max_version;
	enum tls_client_auth client_auth;
};

enum tls_file { TLS_CERTIFICATE, TLS_KEY, TLS_CLIENT_CA, TLS_CRL };

/* Receives one error or WARNING about FILE. */
typedef void tls_report(void *context, enum tls_file file, bool warning, const char *message);

/* Certificate, keys and settings of one service, shared by its sessions. Immutable: any thread may use it. */
struct tls_context;

/* Reads the files of SETTINGS and tests them by a handshake in memory, after which OpenSSL loads no more modules or
 * files. Calls REPORT with CONTEXT for each error and warning. Returns NULL after an error. Main thread only. */
struct tls_context *tls_context_new(const struct tls_settings *settings, tls_report *report, void *context);
/* Frees TLS (NULL: no-op). Its sessions may outlive it. */
void tls_context_free(struct tls_context *tls);

/* The reason for which a session failed. */
enum tls_failure {
	TLS_NO_FAILURE,
	TLS_HANDSHAKE_FAILED, /* any reason not listed below */
	TLS_CERTIFICATE_MISSING,
	TLS_CERTIFICATE_EXPIRED,
	TLS_CERTIFICATE_NOT_YET_VALID,
	TLS_CERTIFICATE_REVOKED,
	TLS_CERTIFICATE_UNKNOWN_AUTHORITY,
	TLS_CERTIFICATE_SELF_SIGNED,
	TLS_CERTIFICATE_WRONG_PURPOSE,
	TLS_CERTIFICATE_NO_CRL, /* no valid revocation list of its authority */
	TLS_CERTIFICATE_INVALID,
	TLS_PROTOCOL_FAILED, /* after the handshake */
	TLS_FAILURE_COUNT,
};

/* The session of one connection, used by one thread. */
struct tls;

/* Creates the server side of a session over FD, a non-blocking socket that the caller continues to own. Returns NULL
 * when out of memory. */
struct tls *tls_new(const struct tls_context *context, int fd);
void tls_free(struct tls *tls);

/* The operations return as recv and send do. On failure they return -1 with errno:
 * EAGAIN: call again, for a write with the same bytes, when the socket is ready (see tls_wants_write);
 * EPROTO: the session has failed (see tls_failure); any other: the socket has failed.
 * After a failure other than EAGAIN each operation fails with the same errno and leaves the socket alone; tls_shutdown
 * returns 0. */

/* Returns 0 when the handshake is complete and the client authenticated as required. */
int tls_handshake(struct tls *tls);

/* Reads what is available, up to SIZE bytes. Returns 0 at the end of the client's stream (see tls_was_truncated). */
ssize_t tls_read(struct tls *tls, char *bytes, size_t size);
ssize_t tls_write(struct tls *tls, const char *bytes, size_t length);

/* Returns whether the last write left a record partly sent; only the rest of that write may follow. */
bool tls_has_unfinished_write(const struct tls *tls);

/* Sends close_notify; not allowed during an unfinished write. Returns 0 when the kernel has accepted it. */
int tls_shutdown(struct tls *tls);

/* Returns whether the last EAGAIN waits for the socket to be writable, not readable. */
bool tls_wants_write(const struct tls *tls);

/* Returns whether tls_read has data, an end or an error to return for which the socket raises no event. */
bool tls_has_pending(const struct tls *tls);

/* Returns whether the client's stream ended without close_notify. */
bool tls_was_truncated(const struct tls *tls);

enum tls_failure tls_failure(const struct tls *tls);

/* Writes the detail of the failure, as OpenSSL or the C library words it, to TEXT. */
void tls_failure_print(const struct tls *tls, char *text, size_t size);

/* Returns the subject of the client's certificate as in RFC 2253, printable ASCII; NULL without a certificate. Valid
 * until tls_free. */
const char *tls_client_subject(const struct tls *tls);

#endif
