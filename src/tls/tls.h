/* tls.h: TLS through OpenSSL, which no other room knows. */
#ifndef SMALLSERVD_TLS_TLS_H
#define SMALLSERVD_TLS_TLS_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>
#include <time.h>

enum tls_version { TLS_ANY_VERSION, TLS_1_2, TLS_1_3 };
enum tls_client_auth { TLS_CLIENT_NONE, TLS_CLIENT_OPTIONAL, TLS_CLIENT_REQUIRED };

/* What the sessions of one service share. Files are in PEM format. */
struct tls_settings {
	const char *certificate; /* with the chain behind it */
	const char *key;         /* NULL: in the certificate's file */
	const char *client_ca;   /* who may vouch for clients; NULL: nobody */
	const char *crl;         /* NULL: nothing is revoked */
	enum tls_version min_version, max_version;
	enum tls_client_auth client_auth;
};

enum tls_file { TLS_CERTIFICATE, TLS_KEY, TLS_CLIENT_CA, TLS_CRL };

/* Takes one message about what one of the files holds. */
typedef void tls_tell(void *context, enum tls_file file, bool warning, const char *message);

/* Never changes once made: any thread may use it. */
struct tls_context;

/* Reads the files of SETTINGS, and completes a handshake with itself, so that nothing of OpenSSL is left to load when
 * clients come. TELL is told, with CONTEXT, each thing that is wrong or doubtful. NULL: something is wrong. */
struct tls_context *tls_context_new(const struct tls_settings *settings, tls_tell *tell, void *context);
void tls_context_free(struct tls_context *tls);

/* When the first certificate of the server's chain expires. */
time_t tls_context_expiry(const struct tls_context *tls);

/* Why a session failed. */
enum tls_failure {
	TLS_NO_FAILURE,
	TLS_HANDSHAKE_FAILED, /* for another reason than those below */
	TLS_CERTIFICATE_MISSING,
	TLS_CERTIFICATE_EXPIRED,
	TLS_CERTIFICATE_NOT_YET_VALID,
	TLS_CERTIFICATE_REVOKED,
	TLS_CERTIFICATE_UNKNOWN_AUTHORITY,
	TLS_CERTIFICATE_SELF_SIGNED,
	TLS_CERTIFICATE_WRONG_PURPOSE,
	TLS_CERTIFICATE_NO_CRL, /* whether it is revoked cannot be told: no list of its authority, or none that is valid */
	TLS_CERTIFICATE_INVALID,
	TLS_PROTOCOL_FAILED, /* after the handshake */
	TLS_FAILURE_COUNT,
};

/* One connection's session, for one thread. */
struct tls;

/* The server's end of a session over FD, a socket that does not block; it stays the caller's. NULL when out of memory. */
struct tls *tls_new(const struct tls_context *context, int fd);
void tls_free(struct tls *tls);

/* The operations return as recv and send do, and -1 with errno: EAGAIN asks to be called again, with the same bytes if it
 * was a write, once the socket is ready for what tls_wants_write says; EPROTO: tls_failure says why. A session that has
 * failed once fails at once ever after, with the same errno, and touches its socket no more. */

/* 0: done, and the client is who it must be. */
int tls_handshake(struct tls *tls);

/* 0: the client has ended its side; tls_was_truncated tells how. As much as is there and fits is read. */
ssize_t tls_read(struct tls *tls, char *bytes, size_t size);
ssize_t tls_write(struct tls *tls, const char *bytes, size_t length);

/* Whether the last write returned EAGAIN, or less than it was given, with a record half sent: only that write may go on. */
bool tls_owes_write(const struct tls *tls);

/* Says that nothing follows; never while a write is owed. 0: that has left for the kernel. */
int tls_shutdown(struct tls *tls);

/* Whether the operation that returned EAGAIN waits for the socket to be writable, not readable. */
bool tls_wants_write(const struct tls *tls);

/* Whether tls_read has something to tell that no event of the socket would announce. */
bool tls_has_pending(const struct tls *tls);

/* Whether the client's side ended without its word that nothing was missing (close_notify). */
bool tls_was_truncated(const struct tls *tls);

enum tls_failure tls_failure(const struct tls *tls);
/* Writes what OpenSSL says about the failure to TEXT. */
void tls_failure_print(const struct tls *tls, char *text, size_t size);

/* The subject of the client's certificate as in RFC 2253, printable ASCII; NULL: it has shown none. Lives as long as the
 * session. */
const char *tls_client_subject(const struct tls *tls);

#endif
