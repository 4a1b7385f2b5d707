/* tls.c: TLS through OpenSSL, which no other room knows. */
#include "tls/tls.h"

#include <errno.h>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/text_file.h"

enum {
	MESSAGE_SIZE = 1024,
	SUBJECT_MAX = 512, /* bytes of a subject that are kept */
	RECEIVE_WORTH =
		4096, /* an operation receives once, and once more for so many bytes that it has got out of that */
};

struct tls_context {
	SSL_CTX *ssl;
	enum tls_client_auth client_auth;
	time_t expiry;
};

struct tls {
	SSL *ssl;
	int fd;
	int error;             /* errno of the socket, once it has failed */
	unsigned receives;     /* of this operation */
	size_t delivered;      /* bytes that it has handed out so far */
	int death;             /* errno of the operation that has failed: no other one is tried; 0: none has */
	bool socket_ended;     /* the client has shut down its sending side */
	bool wants_write;      /* the last EAGAIN waits for the socket to be writable */
	bool established;      /* the handshake is done */
	bool owes_write;       /* OpenSSL holds a record that the socket did not take whole */
	uint8_t client_auth;   /* enum tls_client_auth */
	uint8_t failure;       /* enum tls_failure */
	long verify_error;     /* X509_V_ERR_* */
	unsigned long details; /* of OpenSSL's error queue */
	char *subject;         /* of the client's certificate */
};

/* --- the socket as OpenSSL sees it --- */

/* OpenSSL's own socket BIO would raise SIGPIPE, and take the end of a stream for an attack that nothing may be sent after. */

/* OpenSSL reads on as long as what comes holds no data. So a client could hold a worker, by asking for new keys without end:
 * what goes beyond one receive is left for the next event, when the others have had their turn. */
static int bio_read(BIO *bio, char *bytes, int size)
{
	struct tls *tls = BIO_get_data(bio);

	BIO_clear_retry_flags(bio);
	if (tls->receives > tls->delivered / RECEIVE_WORTH) {
		BIO_set_retry_read(bio);
		return -1;
	}
	tls->receives++;
	ssize_t got = recv(tls->fd, bytes, (size_t)size, 0);
	if (got > 0)
		return (int)got;
	tls->socket_ended |= got == 0;
	if (got == 0 || errno == EAGAIN || errno == EINTR)
		BIO_set_retry_read(bio);
	else
		tls->error = errno;
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
		tls->error = errno;
	return -1;
}

static long bio_control(BIO *bio, int command, long number, void *pointer)
{
	(void)bio, (void)number, (void)pointer;
	return command == BIO_CTRL_FLUSH;
}

/* Made with the first context, by the main thread, and kept for good. */
static BIO_METHOD *socket_method;

static bool make_socket_method(void)
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

/* --- subjects and times as text --- */

/* SUBJECT as in RFC 2253, where whatever is no printable ASCII is escaped; for the caller to free. NULL: out of memory. */
static char *print_subject(const X509 *certificate)
{
	BIO *out = BIO_new(BIO_s_mem());
	char *text = NULL, *bytes;

	if (out == NULL)
		return NULL;
	if (X509_NAME_print_ex(out, X509_get_subject_name(certificate), 0, XN_FLAG_RFC2253) >= 0) {
		long length = BIO_get_mem_data(out, &bytes);
		text = strndup(length > 0 ? bytes : "", length > SUBJECT_MAX ? SUBJECT_MAX : (size_t)length);
	}
	BIO_free(out);
	return text;
}

static time_t read_time(const ASN1_TIME *time)
{
	struct tm tm = {.tm_mday = 1};
	return ASN1_TIME_to_tm(time, &tm) == 1 ? timegm(&tm) : 0;
}

static void print_time(time_t when, char text[32])
{
	struct tm tm;
	gmtime_r(&when, &tm);
	strftime(text, 32, "%Y-%m-%d %H:%M:%S UTC", &tm);
}

/* --- reading files --- */

struct reading {
	tls_tell *tell;
	void *context;
	enum tls_file file;
	const char *path;
};

static void say(const struct reading *reading, bool warning, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

static void say(const struct reading *reading, bool warning, const char *format, ...)
{
	char message[MESSAGE_SIZE];
	int length = snprintf(message, sizeof message, "%s: ", reading->path);
	va_list arguments;

	va_start(arguments, format);
	if (length > 0 && (size_t)length < sizeof message)
		vsnprintf(message + length, sizeof message - (size_t)length, format, arguments);
	va_end(arguments);
	reading->tell(reading->context, reading->file, warning, message);
}

/* What OpenSSL says about its last error. */
static const char *reason(void)
{
	unsigned long error = ERR_peek_last_error();
	const char *text = error != 0 ? ERR_reason_error_string(error) : NULL;
	return text != NULL ? text : "unknown error";
}

/* A file that is open for reading; NULL: it cannot be, which has been told. */
static BIO *open_file(const struct reading *reading)
{
	struct stat status;
	const char *wrong;
	FILE *file = text_file_open(reading->path, &wrong);

	if (file == NULL) {
		say(reading, false, "%s", wrong);
		return NULL;
	}
	if (reading->file == TLS_KEY && fstat(fileno(file), &status) == 0 && (status.st_mode & S_IROTH))
		say(reading, true, "the key can be read by everybody");
	BIO *bio = BIO_new_fp(file, BIO_CLOSE);
	if (bio == NULL) {
		say(reading, false, "out of memory");
		fclose(file);
	}
	return bio;
}

/* Whether the last PEM that was looked for is not there, as at the end of a file. */
static bool is_at_end(void)
{
	unsigned long error = ERR_peek_last_error();
	return ERR_GET_LIB(error) == ERR_LIB_PEM && ERR_GET_REASON(error) == PEM_R_NO_START_LINE;
}

/* Reads the next of a file's objects of a kind, and gives it to CONTEXT. 1: done, 0: there is none, -1: it is no good,
 * the error queue says why. */
typedef int read_next(BIO *bio, SSL_CTX *context, const struct reading *reading);

/* Reads all, WHAT they are, of which there must be one. False: something is wrong, which has been told. */
static bool read_all(const struct reading *reading, SSL_CTX *context, read_next *next, const char *what)
{
	BIO *bio = open_file(reading);
	unsigned count = 0;
	int result;

	if (bio == NULL)
		return false;
	ERR_clear_error();
	while ((result = next(bio, context, reading)) > 0)
		count++;
	BIO_free(bio);
	if (result < 0)
		say(reading, false, "%s %u: %s", what, count + 1, reason());
	else if (count == 0)
		say(reading, false, "no %s in PEM format", what);
	ERR_clear_error();
	return result == 0 && count > 0;
}

static X509 *next_certificate(BIO *bio, int *result)
{
	X509 *certificate = PEM_read_bio_X509(bio, NULL, NULL, NULL);
	*result = certificate != NULL ? 1 : is_at_end() ? 0 : -1;
	return certificate;
}

/* Warns of a certificate or a list, WHAT it is, that is not valid now. UNTIL is NULL where there is no end. */
static void check_times(const struct reading *reading, const char *what, const ASN1_TIME *from, const ASN1_TIME *until)
{
	char when[32];

	if (until != NULL && X509_cmp_current_time(until) < 0) {
		print_time(read_time(until), when);
		say(reading, true, "%s expired on %s", what, when);
	}
	if (X509_cmp_current_time(from) > 0) {
		print_time(read_time(from), when);
		say(reading, true, "%s is not valid before %s", what, when);
	}
}

static void check_certificate(const struct reading *reading, X509 *certificate)
{
	char *subject = print_subject(certificate);
	char what[SUBJECT_MAX + 32];

	snprintf(what, sizeof what, "the certificate of %s", subject != NULL ? subject : "");
	check_times(reading, what, X509_get0_notBefore(certificate), X509_get0_notAfter(certificate));
	free(subject);
}

/* The first certificate is the server's, the others are its chain. */
static int next_of_chain(BIO *bio, SSL_CTX *context, const struct reading *reading)
{
	int result;
	X509 *certificate = next_certificate(bio, &result);

	if (certificate == NULL)
		return result;
	check_certificate(reading, certificate);
	bool taken = SSL_CTX_get0_certificate(context) == NULL ? SSL_CTX_use_certificate(context, certificate) == 1
							       : SSL_CTX_add1_chain_cert(context, certificate) == 1;
	X509_free(certificate);
	return taken ? 1 : -1;
}

/* Names the authority to clients, too: so they know which certificate to show. */
static int next_authority(BIO *bio, SSL_CTX *context, const struct reading *reading)
{
	int result;
	X509 *certificate = next_certificate(bio, &result);

	if (certificate == NULL)
		return result;
	check_certificate(reading, certificate);
	bool taken = X509_STORE_add_cert(SSL_CTX_get_cert_store(context), certificate) == 1 &&
		     SSL_CTX_add_client_CA(context, certificate) == 1;
	X509_free(certificate);
	return taken ? 1 : -1;
}

static int next_revocation_list(BIO *bio, SSL_CTX *context, const struct reading *reading)
{
	X509_CRL *list = PEM_read_bio_X509_CRL(bio, NULL, NULL, NULL);

	if (list == NULL)
		return is_at_end() ? 0 : -1;
	check_times(reading, "a revocation list", X509_CRL_get0_lastUpdate(list), X509_CRL_get0_nextUpdate(list));
	bool taken = X509_STORE_add_crl(SSL_CTX_get_cert_store(context), list) == 1;
	X509_CRL_free(list);
	return taken ? 1 : -1;
}

static int on_passphrase(char *text, int size, int writing, void *argument)
{
	bool *encrypted = argument;
	(void)text, (void)size, (void)writing;
	*encrypted = true;
	return -1;
}

static bool read_key(const struct reading *reading, SSL_CTX *context)
{
	BIO *bio = open_file(reading);
	bool encrypted = false, taken = false;

	if (bio == NULL)
		return false;
	ERR_clear_error();
	EVP_PKEY *key = PEM_read_bio_PrivateKey(bio, NULL, on_passphrase, &encrypted);
	BIO_free(bio);
	if (encrypted)
		say(reading, false, "the key is encrypted, and nobody is there to type its passphrase");
	else if (key == NULL)
		say(reading, false, "no private key in PEM format");
	else if (X509_check_private_key(SSL_CTX_get0_certificate(context), key) != 1)
		say(reading, false, "the key does not match tls_certificate");
	else if (SSL_CTX_use_PrivateKey(context, key) != 1)
		say(reading, false, "the key: %s", reason());
	else
		taken = true;
	EVP_PKEY_free(key);
	ERR_clear_error();
	return taken;
}

/* --- contexts --- */

static int version_number(enum tls_version version)
{
	static const int numbers[] = {[TLS_ANY_VERSION] = 0, [TLS_1_2] = TLS1_2_VERSION, [TLS_1_3] = TLS1_3_VERSION};
	return numbers[version];
}

/* Sees every certificate of a client's chain that is no good. Of an authority above the client's own there need not be
 * a list; where there is one it holds. */
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
		tls->subject = print_subject(X509_STORE_CTX_get0_cert(store));
	return 0;
}

/* Without resumption: neither tickets, which TLS 1.3 would send after the handshake, nor a cache; without renegotiation. */
static bool set_protocol(SSL_CTX *ssl, const struct tls_settings *settings)
{
	static const unsigned char session_context[] = "smallservd";

	SSL_CTX_set_options(ssl, SSL_OP_NO_TICKET | SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
	SSL_CTX_clear_options(ssl, SSL_OP_IGNORE_UNEXPECTED_EOF);
	SSL_CTX_set_session_cache_mode(ssl, SSL_SESS_CACHE_OFF);
	SSL_CTX_set_mode(ssl, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
				      SSL_MODE_RELEASE_BUFFERS);
	SSL_CTX_set_read_ahead(ssl, 1); /* a record's header and its bytes in one receive */
	return SSL_CTX_set_num_tickets(ssl, 0) == 1 &&
	       SSL_CTX_set_session_id_context(ssl, session_context, sizeof session_context - 1) == 1 &&
	       SSL_CTX_set_min_proto_version(ssl, version_number(settings->min_version)) == 1 &&
	       SSL_CTX_set_max_proto_version(ssl, version_number(settings->max_version)) == 1 &&
	       /* of TLS 1.2 what has forward secrecy and authenticated encryption, as all of TLS 1.3 has */
	       SSL_CTX_set_cipher_list(ssl, "ECDHE+AESGCM:ECDHE+CHACHA20") == 1;
}

static void set_verification(SSL_CTX *ssl, const struct tls_settings *settings)
{
	static const int modes[] = {
		[TLS_CLIENT_NONE] = SSL_VERIFY_NONE,
		[TLS_CLIENT_OPTIONAL] = SSL_VERIFY_PEER,
		[TLS_CLIENT_REQUIRED] = SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT,
	};
	X509_VERIFY_PARAM *parameters = SSL_CTX_get0_param(ssl);

	SSL_CTX_set_verify(ssl, modes[settings->client_auth], on_verify);
	X509_VERIFY_PARAM_set_purpose(parameters, X509_PURPOSE_SSL_CLIENT);
	if (settings->crl != NULL)
		X509_VERIFY_PARAM_set_flags(parameters, X509_V_FLAG_CRL_CHECK | X509_V_FLAG_CRL_CHECK_ALL);
}

static bool read_files(SSL_CTX *ssl, const struct tls_settings *settings, tls_tell *tell, void *context)
{
	struct reading certificate = {tell, context, TLS_CERTIFICATE, settings->certificate};
	struct reading key = {tell, context, TLS_KEY, settings->key != NULL ? settings->key : settings->certificate};
	struct reading client_ca = {tell, context, TLS_CLIENT_CA, settings->client_ca};
	struct reading crl = {tell, context, TLS_CRL, settings->crl};

	bool good = read_all(&certificate, ssl, next_of_chain, "certificate") && read_key(&key, ssl);
	if (settings->client_ca != NULL)
		good &= read_all(&client_ca, ssl, next_authority, "certificate");
	if (settings->crl != NULL)
		good &= read_all(&crl, ssl, next_revocation_list, "revocation list");
	return good;
}

/* Whether a client that asks for nothing gets through a handshake. Whatever OpenSSL loads late is loaded by that. */
static bool try_handshake(SSL_CTX *context)
{
	SSL_CTX *clients = SSL_CTX_new(TLS_client_method());
	SSL *client = clients != NULL ? SSL_new(clients) : NULL, *server = SSL_new(context);
	BIO *of_client = NULL, *of_server = NULL;
	bool done = false;

	ERR_clear_error();
	if (client == NULL || server == NULL || BIO_new_bio_pair(&of_client, 0, &of_server, 0) != 1)
		goto end;
	SSL_set_bio(client, of_client, of_client);
	SSL_set_bio(server, of_server, of_server);
	SSL_set_verify(server, SSL_VERIFY_NONE, NULL);
	SSL_set_connect_state(client);
	SSL_set_accept_state(server);
	for (int flight = 0; flight < 16 && !done; flight++) {
		int of[] = {SSL_do_handshake(client), SSL_do_handshake(server)};
		done = of[0] == 1 && of[1] == 1;
		if ((of[0] != 1 && SSL_get_error(client, of[0]) != SSL_ERROR_WANT_READ) ||
		    (of[1] != 1 && SSL_get_error(server, of[1]) != SSL_ERROR_WANT_READ))
			break;
	}
end:
	SSL_free(client);
	SSL_free(server);
	SSL_CTX_free(clients);
	return done;
}

static time_t find_expiry(SSL_CTX *ssl)
{
	STACK_OF(X509) *chain = NULL;
	time_t first = read_time(X509_get0_notAfter(SSL_CTX_get0_certificate(ssl)));

	SSL_CTX_get0_chain_certs(ssl, &chain);
	for (int i = 0; i < sk_X509_num(chain); i++) {
		time_t expiry = read_time(X509_get0_notAfter(sk_X509_value(chain, i)));
		first = expiry < first ? expiry : first;
	}
	return first;
}

struct tls_context *tls_context_new(const struct tls_settings *settings, tls_tell *tell, void *context)
{
	/* threads may still run when the process exits: what they use is not taken from under them */
	OPENSSL_init_ssl(OPENSSL_INIT_NO_ATEXIT, NULL);
	const struct reading reading = {tell, context, TLS_CERTIFICATE, settings->certificate};
	struct tls_context *tls = calloc(1, sizeof *tls);
	SSL_CTX *ssl = SSL_CTX_new(TLS_server_method());

	if (tls == NULL || ssl == NULL || !make_socket_method() || !set_protocol(ssl, settings)) {
		say(&reading, false, "TLS cannot be set up: %s", reason());
		goto fail;
	}
	set_verification(ssl, settings);
	if (!read_files(ssl, settings, tell, context))
		goto fail;
	if (!try_handshake(ssl)) {
		say(&reading, false, "no handshake succeeds with it: %s", reason());
		goto fail;
	}
	ERR_clear_error();
	tls->ssl = ssl;
	tls->client_auth = settings->client_auth;
	tls->expiry = find_expiry(ssl);
	return tls;
fail:
	ERR_clear_error();
	SSL_CTX_free(ssl);
	free(tls);
	return NULL;
}

void tls_context_free(struct tls_context *tls)
{
	if (tls == NULL)
		return;
	SSL_CTX_free(tls->ssl);
	free(tls);
}

time_t tls_context_expiry(const struct tls_context *tls)
{
	return tls->expiry;
}

/* --- sessions --- */

struct tls *tls_new(const struct tls_context *context, int fd)
{
	struct tls *tls = calloc(1, sizeof *tls);
	BIO *bio = BIO_new(socket_method);

	ERR_clear_error();
	if (tls != NULL)
		tls->ssl = SSL_new(context->ssl);
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
	for (size_t i = 0; i < sizeof failures / sizeof *failures; i++)
		if (failures[i].error == verify_error)
			return failures[i].failure;
	return TLS_CERTIFICATE_INVALID;
}

static enum tls_failure find_failure(const struct tls *tls)
{
	if (tls->established)
		return TLS_PROTOCOL_FAILED;
	if (ERR_GET_REASON(tls->details) == SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE)
		return TLS_CERTIFICATE_MISSING;
	if (tls->verify_error != X509_V_OK)
		return certificate_failure(tls->verify_error);
	return TLS_HANDSHAKE_FAILED;
}

/* The session is over: notes why. Returns -1 with errno. */
static int die(struct tls *tls, int error)
{
	tls->death = error;
	tls->details = ERR_peek_last_error();
	tls->verify_error = SSL_get_verify_result(tls->ssl);
	tls->failure = (uint8_t)find_failure(tls);
	ERR_clear_error();
	errno = error;
	return -1;
}

/* What RESULT of an operation that did not succeed means: 0 is the end of the client's side, else -1 with errno. */
static int explain(struct tls *tls, int result)
{
	switch (SSL_get_error(tls->ssl, result)) {
	case SSL_ERROR_ZERO_RETURN: /* a write that fails after the client's end is told as this, too */
		return tls->error != 0 ? die(tls, tls->error) : 0;
	case SSL_ERROR_WANT_READ:
		if (tls->socket_ended)
			return 0;
		tls->wants_write = false;
		break;
	case SSL_ERROR_WANT_WRITE:
		tls->wants_write = true;
		break;
	case SSL_ERROR_SYSCALL:
		return die(tls, tls->error != 0 ? tls->error : ECONNRESET);
	default:
		return die(tls, EPROTO);
	}
	errno = EAGAIN;
	return -1;
}

static void begin_operation(struct tls *tls)
{
	ERR_clear_error();
	tls->receives = 0;
	tls->delivered = 0;
}

static int refuse_dead(const struct tls *tls)
{
	errno = tls->death;
	return -1;
}

/* --- operations --- */

/* Whether the client is who it must be. OpenSSL has seen to it; no byte may depend on that alone. */
static bool is_client_right(const struct tls *tls)
{
	const X509 *certificate = SSL_get0_peer_certificate(tls->ssl);
	if (certificate == NULL)
		return tls->client_auth != TLS_CLIENT_REQUIRED;
	return SSL_get_verify_result(tls->ssl) == X509_V_OK;
}

int tls_handshake(struct tls *tls)
{
	if (tls->death != 0)
		return refuse_dead(tls);
	begin_operation(tls);
	int result = SSL_accept(tls->ssl);
	if (result != 1) {
		result = explain(tls, result);
		return result < 0 ? result : die(tls, ECONNRESET); /* the client left */
	}
	if (!is_client_right(tls))
		return die(tls, EPROTO);
	const X509 *certificate = SSL_get0_peer_certificate(tls->ssl);
	if (certificate != NULL && tls->subject == NULL)
		tls->subject = print_subject(certificate);
	tls->established = true;
	return 0;
}

ssize_t tls_read(struct tls *tls, char *bytes, size_t size)
{
	size_t total = 0, got;

	if (tls->death != 0)
		return refuse_dead(tls);
	begin_operation(tls);
	do {
		ERR_clear_error();
		int result = SSL_read_ex(tls->ssl, bytes + total, size - total, &got);
		if (result != 1) {
			result = explain(tls, result);
			return total > 0 ? (ssize_t)total : result; /* what is wrong is told the next time */
		}
		tls->delivered = total += got;
	} while (total < size && SSL_has_pending(tls->ssl));
	return (ssize_t)total;
}

ssize_t tls_write(struct tls *tls, const char *bytes, size_t length)
{
	size_t total = 0, sent;

	if (tls->death != 0)
		return refuse_dead(tls);
	while (total < length) {
		ERR_clear_error();
		int result = SSL_write_ex(tls->ssl, bytes + total, length - total, &sent);
		tls->owes_write = result != 1;
		if (result != 1) {
			result = explain(tls, result);
			if (result == 0 ||
			    (tls->death == 0 && !tls->wants_write)) /* without renegotiation a write never reads */
				result = die(tls, EPROTO);
			return total > 0 ? (ssize_t)total : result;
		}
		total += sent;
	}
	return (ssize_t)total;
}

int tls_shutdown(struct tls *tls)
{
	if (tls->death != 0 || !tls->established)
		return 0; /* there is no session that could end in order */
	begin_operation(tls);
	int result = SSL_shutdown(tls->ssl);
	return result >= 0 ? 0 : explain(tls, result);
}

/* --- telling --- */

bool tls_wants_write(const struct tls *tls)
{
	return tls->wants_write;
}

bool tls_owes_write(const struct tls *tls)
{
	return tls->owes_write;
}

bool tls_has_pending(const struct tls *tls)
{
	return tls->death != 0 || tls->socket_ended || (SSL_get_shutdown(tls->ssl) & SSL_RECEIVED_SHUTDOWN) ||
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
	const char *why = NULL;

	if (tls->verify_error != X509_V_OK)
		why = X509_verify_cert_error_string(tls->verify_error);
	else if (tls->details != 0)
		why = ERR_reason_error_string(tls->details);
	else if (tls->socket_ended)
		why = "the client left";
	else if (tls->error != 0)
		why = strerror(tls->error);
	snprintf(text, size, "%s", why != NULL ? why : "unknown error");
}

const char *tls_client_subject(const struct tls *tls)
{
	return tls->subject;
}
