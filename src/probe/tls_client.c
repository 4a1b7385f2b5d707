/* tls_client.c: TLS client contexts and sessions, as the options say. */
#include "probe/tls_client.h"

#include <errno.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <string.h>

static const char *last_error(void)
{
	unsigned long code = ERR_peek_error();
	const char *reason = ERR_SYSTEM_ERROR(code) ? strerror(ERR_GET_REASON(code)) : ERR_reason_error_string(code);

	return reason != NULL ? reason : "unknown error";
}

static bool fail(char *error, const char *option, const char *file)
{
	snprintf(error, TARGET_ERROR_SIZE, "%s%s%s: %s", option, file != NULL ? " " : "", file != NULL ? file : "",
		 last_error());
	ERR_clear_error();
	return false;
}

static bool load_authorities(SSL_CTX *context, const struct options *options, char *error)
{
	if (options->cacert != NULL)
		return SSL_CTX_load_verify_locations(context, options->cacert, NULL) == 1 ||
		       fail(error, "--cacert", options->cacert);
	return SSL_CTX_set_default_verify_paths(context) == 1 || fail(error, "the system's authorities", NULL);
}

static bool load_certificate(SSL_CTX *context, const struct options *options, char *error)
{
	const char *key = options->key != NULL ? options->key : options->cert;

	if (options->cert == NULL)
		return true;
	if (SSL_CTX_use_certificate_chain_file(context, options->cert) != 1)
		return fail(error, "--cert", options->cert);
	if (SSL_CTX_use_PrivateKey_file(context, key, SSL_FILETYPE_PEM) != 1)
		return fail(error, "--key", key);
	return true;
}

SSL_CTX *tls_client_context(const struct options *options, char *error)
{
	SSL_CTX *context = SSL_CTX_new(TLS_client_method());

	if (context == NULL) {
		fail(error, "TLS", NULL);
		return NULL;
	}
	SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
	SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
	SSL_CTX_set_verify(context, options->insecure ? SSL_VERIFY_NONE : SSL_VERIFY_PEER, NULL);
	if (SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION) == 1 && load_authorities(context, options, error) &&
	    load_certificate(context, options, error))
		return context;
	SSL_CTX_free(context);
	return NULL;
}

/* Sets the name for SNI and the certificate check; an address is for the check alone (RFC 6066). */
static bool name_server(SSL *session, const struct options *options, const struct target *target)
{
	const char *name = options->server_name != NULL ? options->server_name : target->host;

	if (X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(session), name) == 1)
		return true;
	ERR_clear_error();
	return SSL_set_tlsext_host_name(session, name) == 1 && SSL_set1_host(session, name) == 1;
}

SSL *tls_client_session(SSL_CTX *context, const struct options *options, const struct target *target, int fd,
			char *error)
{
	SSL *session = SSL_new(context);

	if (session != NULL && name_server(session, options, target) && SSL_set_fd(session, fd) == 1) {
		SSL_set_connect_state(session);
		return session;
	}
	fail(error, "TLS", NULL);
	SSL_free(session);
	return NULL;
}

void tls_client_explain(const SSL *session, int result, char *error)
{
	int system_error = errno, kind = SSL_get_error(session, result);
	long verified = SSL_get_verify_result(session);

	if (kind == SSL_ERROR_SSL && verified != X509_V_OK && SSL_get_verify_mode(session) != SSL_VERIFY_NONE)
		snprintf(error, TARGET_ERROR_SIZE, "the certificate: %s", X509_verify_cert_error_string(verified));
	else if (kind == SSL_ERROR_ZERO_RETURN)
		snprintf(error, TARGET_ERROR_SIZE, "closed by the server");
	else if (kind == SSL_ERROR_SYSCALL && system_error)
		snprintf(error, TARGET_ERROR_SIZE, "%s", strerror(system_error));
	else if (kind == SSL_ERROR_SYSCALL || ERR_peek_error() == 0)
		snprintf(error, TARGET_ERROR_SIZE, "connection closed during the TLS handshake");
	else
		snprintf(error, TARGET_ERROR_SIZE, "TLS: %s", last_error());
	ERR_clear_error();
}
