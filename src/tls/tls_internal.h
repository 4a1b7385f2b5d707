/* tls_internal.h: contexts and sessions as their two files see them. */
#ifndef SMALLSERVD_TLS_TLS_INTERNAL_H
#define SMALLSERVD_TLS_TLS_INTERNAL_H

#include "tls/tls.h" /* first: OpenSSL defines a macro TLS_VERSION_ANY */

#include <openssl/ssl.h>
#include <stdint.h>

struct tls_context {
	SSL_CTX *ssl_ctx;
	enum tls_client_auth client_auth;
};

struct tls {
	SSL *ssl;
	int fd;
	int socket_error;       /* errno of the last failed recv or send; 0: none */
	unsigned receives;      /* calls of recv in this operation */
	size_t delivered;       /* bytes that this operation has returned */
	int session_error;      /* errno of the operation that failed; 0: the session is usable */
	bool socket_ended;      /* the client has shut down its sending side */
	bool wants_write;       /* the last EAGAIN waits for the socket to be writable */
	bool established;       /* the handshake is complete */
	bool write_unfinished;  /* OpenSSL holds a partly sent record */
	uint8_t client_auth;    /* enum tls_client_auth */
	uint8_t failure;        /* enum tls_failure */
	long verify_error;      /* X509_V_ERR_* */
	unsigned long ssl_code; /* last error of OpenSSL's queue */
	char *subject;          /* of the client's certificate */
};

enum { TLS_SUBJECT_MAX = 512 };

/* Returns the subject of CERTIFICATE as in RFC 2253, printable ASCII only, cut at TLS_SUBJECT_MAX bytes; the caller
 * frees it. Returns NULL when out of memory. */
char *tls_print_subject(const X509 *certificate);

/* Creates the BIO method of sessions once per process. Called by the main thread. Returns false when out of memory. */
bool tls_create_bio_method(void);

#endif
