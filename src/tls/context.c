/* context.c: TLS contexts: certificates, keys, revocation lists, protocol settings. */
#include "tls/tls_internal.h"

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "core/text_file.h"

enum { MESSAGE_SIZE = 1024 };

/* --- subjects and times as text --- */

char *tls_print_subject(const X509 *certificate)
{
	BIO *out = BIO_new(BIO_s_mem());
	char *text = NULL, *bytes;

	if (out == NULL)
		return NULL;
	if (X509_NAME_print_ex(out, X509_get_subject_name(certificate), 0, XN_FLAG_RFC2253) >= 0) {
		long length = BIO_get_mem_data(out, &bytes);
		text = strndup(length > 0 ? bytes : "", length > TLS_SUBJECT_MAX ? TLS_SUBJECT_MAX : (size_t)length);
	}
	BIO_free(out);
	return text;
}

static void print_time(const ASN1_TIME *time, char text[32])
{
	struct tm tm = {.tm_mday = 1};

	ASN1_TIME_to_tm(time, &tm); /* succeeds: the time has been compared */
	strftime(text, 32, "%Y-%m-%d %H:%M:%S UTC", &tm);
}

/* --- files --- */

/* A file being read, and the receiver of messages about it. */
struct source {
	tls_report *report;
	void *context;
	enum tls_file file;
	const char *path;
};

static void report_message(const struct source *source, bool warning, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

static void report_message(const struct source *source, bool warning, const char *format, ...)
{
	char message[MESSAGE_SIZE];
	int length = snprintf(message, sizeof message, "%s: ", source->path);
	va_list arguments;

	va_start(arguments, format);
	if (length > 0 && (size_t)length < sizeof message)
		vsnprintf(message + length, sizeof message - (size_t)length, format, arguments);
	va_end(arguments);
	source->report(source->context, source->file, warning, message);
}

#define report_error(source, ...)   report_message(source, false, __VA_ARGS__)
#define report_warning(source, ...) report_message(source, true, __VA_ARGS__)

/* Returns the text of the last error in OpenSSL's queue. */
static const char *last_error(void)
{
	unsigned long error = ERR_peek_last_error();
	const char *text = error != 0 ? ERR_reason_error_string(error) : NULL;
	return text != NULL ? text : "unknown error";
}

/* Opens the file for reading. On failure reports it and returns NULL. */
static BIO *open_file(const struct source *source)
{
	struct stat status;
	const char *reason;
	FILE *file = text_file_open(source->path, &reason);

	if (file == NULL) {
		report_error(source, "%s", reason);
		return NULL;
	}
	if (source->file == TLS_KEY && fstat(fileno(file), &status) == 0 && (status.st_mode & S_IROTH))
		report_warning(source, "the key file is world-readable");
	BIO *bio = BIO_new_fp(file, BIO_CLOSE);
	if (bio == NULL) {
		report_error(source, "out of memory");
		fclose(file);
	}
	return bio;
}

/* Returns whether the last read failed because no further PEM object follows. */
static bool is_at_end(void)
{
	unsigned long error = ERR_peek_last_error();
	return ERR_GET_LIB(error) == ERR_LIB_PEM && ERR_GET_REASON(error) == PEM_R_NO_START_LINE;
}

/* Reads the next object of a file into SSL_CTX. Returns 1, 0 at the end of the file, -1 with OpenSSL's error for an
 * invalid object. */
typedef int read_object(BIO *bio, SSL_CTX *ssl_ctx, const struct source *source);

/* Reads all objects of a file, at least one; NAME is their kind in messages. On failure reports it and returns false.
 */
static bool read_objects(const struct source *source, SSL_CTX *ssl_ctx, read_object *read, const char *name)
{
	BIO *bio = open_file(source);
	unsigned count = 0;
	int result;

	if (bio == NULL)
		return false;
	ERR_clear_error();
	while ((result = read(bio, ssl_ctx, source)) > 0)
		count++;
	BIO_free(bio);
	if (result < 0)
		report_error(source, "%s %u: %s", name, count + 1, last_error());
	else if (count == 0)
		report_error(source, "no %s in PEM format", name);
	ERR_clear_error();
	return result == 0 && count > 0;
}

/* Reads a certificate. Sets RESULT as read_object returns it. */
static X509 *read_certificate(BIO *bio, int *result)
{
	X509 *certificate = PEM_read_bio_X509(bio, NULL, NULL, NULL);
	*result = certificate != NULL ? 1 : is_at_end() ? 0 : -1;
	return certificate;
}

/* Warns of a certificate or a revocation list, NAME in messages, that is not valid now. UNTIL is NULL without an end.
 */
static void check_times(const struct source *source, const char *name, const ASN1_TIME *from, const ASN1_TIME *until)
{
	char when[32];

	if (until != NULL && X509_cmp_current_time(until) < 0) {
		print_time(until, when);
		report_warning(source, "%s expired on %s", name, when);
	}
	if (X509_cmp_current_time(from) > 0) {
		print_time(from, when);
		report_warning(source, "%s is not valid before %s", name, when);
	}
}

static void check_certificate(const struct source *source, X509 *certificate)
{
	char *subject = tls_print_subject(certificate);
	char name[TLS_SUBJECT_MAX + 32];

	snprintf(name, sizeof name, "the certificate of %s", subject != NULL ? subject : "");
	check_times(source, name, X509_get0_notBefore(certificate), X509_get0_notAfter(certificate));
	free(subject);
}

/* Reads the server's certificate, if it is the first one, or else one of its chain. */
static int read_chain_certificate(BIO *bio, SSL_CTX *ssl_ctx, const struct source *source)
{
	int result;
	X509 *certificate = read_certificate(bio, &result);

	if (certificate == NULL)
		return result;
	check_certificate(source, certificate);
	bool valid = SSL_CTX_get0_certificate(ssl_ctx) == NULL ? SSL_CTX_use_certificate(ssl_ctx, certificate) == 1
							       : SSL_CTX_add1_chain_cert(ssl_ctx, certificate) == 1;
	X509_free(certificate);
	return valid ? 1 : -1;
}

/* Reads an authority for client certificates. Its name is also sent to clients, which select a certificate by it. */
static int read_authority(BIO *bio, SSL_CTX *ssl_ctx, const struct source *source)
{
	int result;
	X509 *certificate = read_certificate(bio, &result);

	if (certificate == NULL)
		return result;
	check_certificate(source, certificate);
	bool valid = X509_STORE_add_cert(SSL_CTX_get_cert_store(ssl_ctx), certificate) == 1 &&
		     SSL_CTX_add_client_CA(ssl_ctx, certificate) == 1;
	X509_free(certificate);
	return valid ? 1 : -1;
}

static int read_revocation_list(BIO *bio, SSL_CTX *ssl_ctx, const struct source *source)
{
	X509_CRL *list = PEM_read_bio_X509_CRL(bio, NULL, NULL, NULL);

	if (list == NULL)
		return is_at_end() ? 0 : -1;
	check_times(source, "a revocation list", X509_CRL_get0_lastUpdate(list), X509_CRL_get0_nextUpdate(list));
	bool valid = X509_STORE_add_crl(SSL_CTX_get_cert_store(ssl_ctx), list) == 1;
	X509_CRL_free(list);
	return valid ? 1 : -1;
}

/* Notes that the key is encrypted, and makes the read fail. */
static int on_passphrase(char *text, int size, int writing, void *argument)
{
	bool *encrypted = argument;
	(void)text, (void)size, (void)writing;
	*encrypted = true;
	return -1;
}

static bool read_key(const struct source *source, SSL_CTX *ssl_ctx)
{
	BIO *bio = open_file(source);
	bool encrypted = false, valid = false;

	if (bio == NULL)
		return false;
	ERR_clear_error();
	EVP_PKEY *key = PEM_read_bio_PrivateKey(bio, NULL, on_passphrase, &encrypted);
	BIO_free(bio);
	if (encrypted)
		report_error(source, "encrypted private keys are not supported");
	else if (key == NULL)
		report_error(source, "no private key in PEM format");
	else if (X509_check_private_key(SSL_CTX_get0_certificate(ssl_ctx), key) != 1)
		report_error(source, "the key does not match tls_certificate");
	else if (SSL_CTX_use_PrivateKey(ssl_ctx, key) != 1)
		report_error(source, "private key: %s", last_error());
	else
		valid = true;
	EVP_PKEY_free(key);
	ERR_clear_error();
	return valid;
}

/* --- contexts --- */

/* Returns the number of VERSION in OpenSSL; 0: no bound. */
static int version_number(enum tls_version version)
{
	static const int numbers[] = {[TLS_1_2] = TLS1_2_VERSION, [TLS_1_3] = TLS1_3_VERSION};
	return numbers[version];
}

/* Ignores that an intermediate authority has no revocation list; a list that exists is always applied. For any other
 * error notes the subject of the rejected certificate. */
static int on_verify(int good, X509_STORE_CTX *store)
{
	const SSL *ssl = X509_STORE_CTX_get_ex_data(store, SSL_get_ex_data_X509_STORE_CTX_idx());
	struct tls *tls = ssl != NULL ? SSL_get_app_data(ssl) : NULL;

	if (good)
		return 1;
	if (X509_STORE_CTX_get_error(store) == X509_V_ERR_UNABLE_TO_GET_CRL &&
	    X509_STORE_CTX_get_error_depth(store) > 0) {
		X509_STORE_CTX_set_error(store, X509_V_OK);
		return 1;
	}
	if (tls != NULL && tls->subject == NULL && X509_STORE_CTX_get0_cert(store) != NULL)
		tls->subject = tls_print_subject(X509_STORE_CTX_get0_cert(store));
	return 0;
}

/* Disables resumption (cache and tickets, which TLS 1.3 sends after the handshake) and renegotiation; sets the
 * versions. */
static bool set_protocol(SSL_CTX *ssl_ctx, const struct tls_settings *settings)
{
	static const unsigned char session_context[] = "smallservd";

	SSL_CTX_set_options(ssl_ctx, SSL_OP_NO_TICKET | SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
	SSL_CTX_clear_options(ssl_ctx, SSL_OP_IGNORE_UNEXPECTED_EOF);
	SSL_CTX_set_session_cache_mode(ssl_ctx, SSL_SESS_CACHE_OFF);
	SSL_CTX_set_mode(ssl_ctx, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
					  SSL_MODE_RELEASE_BUFFERS);
	SSL_CTX_set_read_ahead(ssl_ctx, 1); /* header and data of a record in one recv */
	return SSL_CTX_set_num_tickets(ssl_ctx, 0) == 1 &&
	       SSL_CTX_set_session_id_context(ssl_ctx, session_context, sizeof session_context - 1) == 1 &&
	       SSL_CTX_set_min_proto_version(ssl_ctx, version_number(settings->min_version)) == 1 &&
	       SSL_CTX_set_max_proto_version(ssl_ctx, version_number(settings->max_version)) == 1 &&
	       /* TLS 1.2: forward secrecy and AEAD only, as in TLS 1.3 */
	       SSL_CTX_set_cipher_list(ssl_ctx, "ECDHE+AESGCM:ECDHE+CHACHA20") == 1;
}

static void set_verification(SSL_CTX *ssl_ctx, const struct tls_settings *settings)
{
	static const int modes[] = {
		[TLS_CLIENT_NONE] = SSL_VERIFY_NONE,
		[TLS_CLIENT_OPTIONAL] = SSL_VERIFY_PEER,
		[TLS_CLIENT_REQUIRED] = SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT,
	};
	X509_VERIFY_PARAM *parameters = SSL_CTX_get0_param(ssl_ctx);

	SSL_CTX_set_verify(ssl_ctx, modes[settings->client_auth], on_verify);
	X509_VERIFY_PARAM_set_purpose(parameters, X509_PURPOSE_SSL_CLIENT);
	if (settings->crl != NULL)
		X509_VERIFY_PARAM_set_flags(parameters, X509_V_FLAG_CRL_CHECK | X509_V_FLAG_CRL_CHECK_ALL);
}

static bool read_files(SSL_CTX *ssl_ctx, const struct tls_settings *settings, tls_report *report, void *context)
{
	struct source certificate = {report, context, TLS_CERTIFICATE, settings->certificate};
	struct source key = {report, context, TLS_KEY, settings->key != NULL ? settings->key : settings->certificate};
	struct source client_ca = {report, context, TLS_CLIENT_CA, settings->client_ca};
	struct source crl = {report, context, TLS_CRL, settings->crl};

	bool valid =
		read_objects(&certificate, ssl_ctx, read_chain_certificate, "certificate") && read_key(&key, ssl_ctx);
	if (settings->client_ca != NULL)
		valid &= read_objects(&client_ca, ssl_ctx, read_authority, "certificate");
	if (settings->crl != NULL)
		valid &= read_objects(&crl, ssl_ctx, read_revocation_list, "revocation list");
	return valid;
}

/* Completes a handshake with a client in memory, so that OpenSSL loads all it needs now. Returns whether it succeeded.
 */
static bool test_handshake(SSL_CTX *ssl_ctx)
{
	SSL_CTX *client_ctx = SSL_CTX_new(TLS_client_method());
	SSL *client = client_ctx != NULL ? SSL_new(client_ctx) : NULL, *server = SSL_new(ssl_ctx);
	BIO *client_bio = NULL, *server_bio = NULL;
	bool done = false;

	ERR_clear_error();
	if (client == NULL || server == NULL || BIO_new_bio_pair(&client_bio, 0, &server_bio, 0) != 1)
		goto end;
	SSL_set_bio(client, client_bio, client_bio);
	SSL_set_bio(server, server_bio, server_bio);
	SSL_set_verify(server, SSL_VERIFY_NONE, NULL);
	SSL_set_connect_state(client);
	SSL_set_accept_state(server);
	for (int flight = 0; flight < 16 && !done; flight++) {
		int results[] = {SSL_do_handshake(client), SSL_do_handshake(server)};
		done = results[0] == 1 && results[1] == 1;
		if ((results[0] != 1 && SSL_get_error(client, results[0]) != SSL_ERROR_WANT_READ) ||
		    (results[1] != 1 && SSL_get_error(server, results[1]) != SSL_ERROR_WANT_READ))
			break;
	}
end:
	SSL_free(client);
	SSL_free(server);
	SSL_CTX_free(client_ctx);
	return done;
}

struct tls_context *tls_context_new(const struct tls_settings *settings, tls_report *report, void *context)
{
	/* threads can still use OpenSSL while the process exits, so it is not cleaned up at exit */
	OPENSSL_init_ssl(OPENSSL_INIT_NO_ATEXIT, NULL);
	const struct source source = {report, context, TLS_CERTIFICATE, settings->certificate};
	struct tls_context *tls = calloc(1, sizeof *tls);
	SSL_CTX *ssl_ctx = SSL_CTX_new(TLS_server_method());

	if (tls == NULL || ssl_ctx == NULL || !tls_create_bio_method() || !set_protocol(ssl_ctx, settings)) {
		report_error(&source, "cannot create a TLS context: %s", last_error());
		goto fail;
	}
	set_verification(ssl_ctx, settings);
	if (!read_files(ssl_ctx, settings, report, context))
		goto fail;
	if (!test_handshake(ssl_ctx)) {
		report_error(&source, "test handshake failed: %s", last_error());
		goto fail;
	}
	ERR_clear_error();
	*tls = (struct tls_context){ssl_ctx, settings->client_auth};
	return tls;
fail:
	ERR_clear_error();
	SSL_CTX_free(ssl_ctx);
	free(tls);
	return NULL;
}

void tls_context_free(struct tls_context *tls)
{
	if (tls == NULL)
		return;
	SSL_CTX_free(tls->ssl_ctx);
	free(tls);
}
