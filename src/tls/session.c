/* session.c: TLS sessions: handshake, read, write, shutdown, failures. */
#include "tls/tls_internal.h"

#include <errno.h>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "core/array.h"

/* --- socket BIO --- */

/* Replaces OpenSSL's socket BIO, which raises SIGPIPE and fails the session at a FIN without close_notify. */

/* An operation calls recv once, and once more for each so many bytes that it has returned. */
enum { BYTES_PER_RECEIVE = 4096 };

/* Bounds the receives per operation: OpenSSL reads on while records carry no data, so that a flood of key updates would
 * hold the worker. The rest waits for the next event. */
static int bio_read(BIO *bio, char *bytes, int size)
{
	struct tls *tls = BIO_get_data(bio);

	BIO_clear_retry_flags(bio);
	if (tls->receives > tls->delivered / BYTES_PER_RECEIVE) {
		BIO_set_retry_read(bio);
		return -1;
	}
	tls->receives++;
	ssize_t received = recv(tls->fd, bytes, (size_t)size, 0);
	if (received > 0)
		return (int)received;
	tls->socket_ended |= received == 0;
	if (received == 0 || errno == EAGAIN || errno == EINTR)
		BIO_set_retry_read(bio);
	else
		tls->socket_error = errno;
	return -1;
}

static int bio_write(BIO *bio, const char *bytes, int length)
{
	struct tls *tls = BIO_get_data(bio);
	ssize_t sent = send(tls->fd, bytes, (size_t)length, MSG_NOSIGNAL);

	BIO_clear_retry_flags(bio);
	if (sent >= 0)
		return (int)sent;
	if (errno == EAGAIN || errno == EINTR)
		BIO_set_retry_write(bio);
	else
		tls->socket_error = errno;
	return -1;
}

static long bio_control(BIO *bio, int command, long number, void *pointer)
{
	(void)bio, (void)number, (void)pointer;
	return command == BIO_CTRL_FLUSH;
}

/* Created with the first context, never freed. */
static BIO_METHOD *socket_method;

bool tls_create_bio_method(void)
{
	if (socket_method != NULL)
		return true;
	BIO_METHOD *method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "smallservd");
	if (method == NULL)
		return false;
	BIO_meth_set_read(method, bio_read);
	BIO_meth_set_write(method, bio_write);
	BIO_meth_set_ctrl(method, bio_control);
	socket_method = method;
	return true;
}

/* --- sessions --- */

struct tls *tls_new(const struct tls_context *context, int fd)
{
	struct tls *tls = calloc(1, sizeof *tls);
	BIO *bio = BIO_new(socket_method);

	ERR_clear_error();
	if (tls != NULL)
		tls->ssl = SSL_new(context->ssl_ctx);
	if (bio == NULL || tls == NULL || tls->ssl == NULL || SSL_set_app_data(tls->ssl, tls) != 1) {
		BIO_free(bio);
		tls_free(tls);
		return NULL;
	}
	tls->fd = fd;
	tls->client_auth = (uint8_t)context->client_auth;
	BIO_set_data(bio, tls);
	BIO_set_init(bio, 1);
	SSL_set_bio(tls->ssl, bio, bio);
	SSL_set_accept_state(tls->ssl);
	return tls;
}

void tls_free(struct tls *tls)
{
	if (tls == NULL)
		return;
	SSL_free(tls->ssl);
	free(tls->subject);
	free(tls);
}

/* --- failures --- */

static enum tls_failure certificate_failure(long verify_error)
{
	static const struct {
		long error;
		enum tls_failure failure;
	} failures[] = {
		{X509_V_ERR_CERT_HAS_EXPIRED, TLS_CERTIFICATE_EXPIRED},
		{X509_V_ERR_CERT_NOT_YET_VALID, TLS_CERTIFICATE_NOT_YET_VALID},
		{X509_V_ERR_CERT_REVOKED, TLS_CERTIFICATE_REVOKED},
		{X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT, TLS_CERTIFICATE_UNKNOWN_AUTHORITY},
		{X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY, TLS_CERTIFICATE_UNKNOWN_AUTHORITY},
		{X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE, TLS_CERTIFICATE_UNKNOWN_AUTHORITY},
		{X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN, TLS_CERTIFICATE_UNKNOWN_AUTHORITY},
		{X509_V_ERR_CERT_UNTRUSTED, TLS_CERTIFICATE_UNKNOWN_AUTHORITY},
		{X509_V_ERR_CERT_SIGNATURE_FAILURE, TLS_CERTIFICATE_UNKNOWN_AUTHORITY},
		{X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT, TLS_CERTIFICATE_SELF_SIGNED},
		{X509_V_ERR_INVALID_PURPOSE, TLS_CERTIFICATE_WRONG_PURPOSE},
		{X509_V_ERR_UNABLE_TO_GET_CRL, TLS_CERTIFICATE_NO_CRL},
		{X509_V_ERR_CRL_HAS_EXPIRED, TLS_CERTIFICATE_NO_CRL},
		{X509_V_ERR_CRL_NOT_YET_VALID, TLS_CERTIFICATE_NO_CRL},
		{X509_V_ERR_CRL_SIGNATURE_FAILURE, TLS_CERTIFICATE_NO_CRL},
	};
	for (size_t i = 0; i < COUNT_OF(failures); i++)
		if (failures[i].error == verify_error)
			return failures[i].failure;
	return TLS_CERTIFICATE_INVALID;
}

static enum tls_failure find_failure(const struct tls *tls)
{
	if (tls->established)
		return TLS_PROTOCOL_FAILED;
	if (ERR_GET_REASON(tls->ssl_code) == SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE)
		return TLS_CERTIFICATE_MISSING;
	if (tls->verify_error != X509_V_OK)
		return certificate_failure(tls->verify_error);
	return TLS_HANDSHAKE_FAILED;
}

/* Ends the session and notes the reason. Returns -1 with errno. */
static int fail_session(struct tls *tls, int error)
{
	tls->session_error = error;
	tls->ssl_code = ERR_peek_last_error();
	tls->verify_error = SSL_get_verify_result(tls->ssl);
	tls->failure = (uint8_t)find_failure(tls);
	ERR_clear_error();
	errno = error;
	return -1;
}

/* Converts RESULT of an unsuccessful operation. Returns 0 at the end of the client's stream, else -1 with errno. */
static int convert_result(struct tls *tls, int result)
{
	switch (SSL_get_error(tls->ssl, result)) {
	case SSL_ERROR_ZERO_RETURN: /* also a failed write after the client's close_notify */
		return tls->socket_error != 0 ? fail_session(tls, tls->socket_error) : 0;
	case SSL_ERROR_WANT_READ:
		if (tls->socket_ended)
			return 0;
		tls->wants_write = false;
		break;
	case SSL_ERROR_WANT_WRITE:
		tls->wants_write = true;
		break;
	case SSL_ERROR_SYSCALL:
		return fail_session(tls, tls->socket_error != 0 ? tls->socket_error : ECONNRESET);
	default:
		return fail_session(tls, EPROTO);
	}
	errno = EAGAIN;
	return -1;
}

static void begin_operation(struct tls *tls)
{
	tls->receives = 0;
	tls->delivered = 0;
}

/* Returns -1 with the errno of a failed session. */
static int session_failed(const struct tls *tls)
{
	errno = tls->session_error;
	return -1;
}

/* --- operations --- */

/* Returns whether the client is authenticated as its service requires: a second check after OpenSSL's own. */
static bool is_client_authenticated(const struct tls *tls)
{
	const X509 *certificate = SSL_get0_peer_certificate(tls->ssl);
	if (certificate == NULL)
		return tls->client_auth != TLS_CLIENT_REQUIRED;
	return SSL_get_verify_result(tls->ssl) == X509_V_OK;
}

int tls_handshake(struct tls *tls)
{
	if (tls->session_error != 0)
		return session_failed(tls);
	begin_operation(tls);
	ERR_clear_error();
	int result = SSL_accept(tls->ssl);
	if (result != 1) {
		result = convert_result(tls, result);
		return result < 0 ? result : fail_session(tls, ECONNRESET); /* the client has closed */
	}
	if (!is_client_authenticated(tls))
		return fail_session(tls, EPROTO);
	const X509 *certificate = SSL_get0_peer_certificate(tls->ssl);
	if (certificate != NULL && tls->subject == NULL)
		tls->subject = tls_print_subject(certificate);
	tls->established = true;
	return 0;
}

ssize_t tls_read(struct tls *tls, char *bytes, size_t size)
{
	size_t total = 0, received;

	if (tls->session_error != 0)
		return session_failed(tls);
	begin_operation(tls);
	do {
		ERR_clear_error();
		int result = SSL_read_ex(tls->ssl, bytes + total, size - total, &received);
		if (result != 1) {
			result = convert_result(tls, result);
			return total > 0 ? (ssize_t)total : result; /* an error is returned by the next call */
		}
		tls->delivered = total += received;
	} while (total < size && SSL_has_pending(tls->ssl));
	return (ssize_t)total;
}

ssize_t tls_write(struct tls *tls, const char *bytes, size_t length)
{
	size_t total = 0, sent;

	if (tls->session_error != 0)
		return session_failed(tls);
	while (total < length) {
		ERR_clear_error();
		int result = SSL_write_ex(tls->ssl, bytes + total, length - total, &sent);
		tls->write_unfinished = result != 1;
		if (result != 1) {
			result = convert_result(tls, result);
			/* without renegotiation a write never waits for input */
			if (result == 0 || (tls->session_error == 0 && !tls->wants_write))
				result = fail_session(tls, EPROTO);
			return total > 0 ? (ssize_t)total : result;
		}
		total += sent;
	}
	return (ssize_t)total;
}

int tls_shutdown(struct tls *tls)
{
	if (tls->session_error != 0 || !tls->established)
		return 0; /* no close_notify without a session */
	begin_operation(tls);
	ERR_clear_error();
	int result = SSL_shutdown(tls->ssl);
	return result >= 0 ? 0 : convert_result(tls, result);
}

/* --- state --- */

bool tls_wants_write(const struct tls *tls)
{
	return tls->wants_write;
}

bool tls_has_unfinished_write(const struct tls *tls)
{
	return tls->write_unfinished;
}

bool tls_has_pending(const struct tls *tls)
{
	return tls->session_error != 0 || tls->socket_ended || (SSL_get_shutdown(tls->ssl) & SSL_RECEIVED_SHUTDOWN) ||
	       SSL_has_pending(tls->ssl);
}

bool tls_was_truncated(const struct tls *tls)
{
	return !(SSL_get_shutdown(tls->ssl) & SSL_RECEIVED_SHUTDOWN);
}

enum tls_failure tls_failure(const struct tls *tls)
{
	return tls->failure;
}

void tls_failure_print(const struct tls *tls, char *text, size_t size)
{
	const char *detail = NULL;

	if (tls->verify_error != X509_V_OK)
		detail = X509_verify_cert_error_string(tls->verify_error);
	else if (tls->ssl_code != 0)
		detail = ERR_reason_error_string(tls->ssl_code);
	else if (tls->socket_ended)
		detail = "connection closed by the client";
	else if (tls->socket_error != 0)
		detail = strerror(tls->socket_error);
	snprintf(text, size, "%s", detail != NULL ? detail : "unknown error");
}

const char *tls_client_subject(const struct tls *tls)
{
	return tls->subject;
}
