/* check_tls.c: contexts from valid and invalid files, sessions over socket pairs with an OpenSSL client. */
#include "tls/tls.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>

#include "check_certificates.h"
#include "check_run.h"
#include "core/array.h"

/* --- identities --- */

static struct identity authority, server, other_authority;

/* --- messages about files --- */

static char messages[4096];
static unsigned errors, warnings;

static void take_message(void *context, enum tls_file file, bool warning, const char *message)
{
	static const char *const names[] = {"certificate", "key", "client_ca", "crl"};
	size_t length = strlen(messages);
	ck_assert_ptr_eq(context, messages);
	errors += !warning;
	warnings += warning;
	snprintf(messages + length, sizeof messages - length, "%s%s: %s\n", warning ? "warning: " : "", names[file],
		 message);
}

static struct tls_context *load(struct tls_settings settings)
{
	messages[0] = '\0';
	errors = warnings = 0;
	if (settings.min_version < TLS_1_2)
		settings.min_version = TLS_1_2;
	struct tls_context *context = tls_context_new(&settings, take_message, messages);
	ck_assert_msg((context == NULL) == (errors > 0), "%s", messages);
	ck_assert_uint_eq(ERR_peek_error(), 0);
	return context;
}

static void assert_reports(struct tls_settings settings, unsigned error_count, unsigned warning_count, const char *text)
{
	struct tls_context *context = load(settings);
	ck_assert_msg(errors == error_count && warnings == warning_count, "%s", messages);
	ck_assert_msg(strstr(messages, text) != NULL, "%s", messages);
	tls_context_free(context);
}

static void set_up(void)
{
	make_directory();
	authority = identity_new((struct template){.name = "Authority", .authority = true});
	other_authority = identity_new((struct template){.name = "Other", .authority = true});
	server = identity_new((struct template){.name = "server", .issuer = &authority});
	write_certificate("server.pem", "w", &server);
	write_key("server.key", "w", &server, NULL);
	write_certificate("both.pem", "w", &server);
	write_key("both.pem", "a", &server, NULL);
	write_certificate("ca.pem", "w", &authority);
}

static void tear_down(void)
{
	identity_free(&authority);
	identity_free(&other_authority);
	identity_free(&server);
	remove_directory();
}

static struct tls_settings good_settings(void)
{
	return (struct tls_settings){.certificate = path_of("server.pem"), .key = path_of("server.key")};
}

/* --- contexts --- */

START_TEST(certificate_and_key_load_from_one_file_or_two)
{
	assert_reports(good_settings(), 0, 0, "");
	assert_reports((struct tls_settings){.certificate = path_of("both.pem")}, 0, 0, "");
}
END_TEST

START_TEST(missing_or_special_file_is_reported_by_name)
{
	struct tls_settings settings = good_settings();
	settings.certificate = path_of("missing.pem");
	assert_reports(settings, 1, 0, "missing.pem: No such file or directory");
	settings = good_settings();
	settings.key = path_of("missing.key");
	assert_reports(settings, 1, 0, "missing.key: No such file or directory");
	settings = good_settings();
	settings.client_ca = path_of("missing.ca");
	settings.crl = path_of("missing.crl");
	assert_reports(settings, 2, 0, "missing.crl: No such file or directory");
	ck_assert_ptr_nonnull(strstr(messages, "client_ca: "));
	settings = good_settings();
	settings.certificate = certificate_directory;
	assert_reports(settings, 1, 0, "Is a directory");
	settings.certificate = path_of("fifo"); /* without a writer: a plain open blocks */
	ck_assert_int_eq(mkfifo(settings.certificate, 0600), 0);
	assert_reports(settings, 1, 0, "fifo: not a regular file");
}
END_TEST

START_TEST(file_without_the_expected_pem_object_is_reported)
{
	const char *text = write_text("text", "no PEM object\n");
	const char *broken = write_text("broken", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
	struct tls_settings settings = good_settings();
	settings.certificate = text;
	assert_reports(settings, 1, 0, "certificate: ");
	ck_assert_ptr_nonnull(strstr(messages, "text: no certificate in PEM format"));
	settings.certificate = broken;
	assert_reports(settings, 1, 0, "broken: certificate 1: ");
	settings.certificate = path_of("server.key");
	assert_reports(settings, 1, 0, "no certificate in PEM format");
	settings = good_settings();
	settings.key = text;
	assert_reports(settings, 1, 0, "text: no private key in PEM format");
	settings = good_settings();
	settings.client_ca = path_of("server.pem");
	settings.crl = path_of("server.pem");
	assert_reports(settings, 1, 0, "crl: ");
	ck_assert_ptr_nonnull(strstr(messages, "no revocation list in PEM format"));
}
END_TEST

START_TEST(invalid_chain_certificate_is_reported_by_number)
{
	write_certificate("chain.pem", "w", &server);
	FILE *file = fopen(path_of("chain.pem"), "a");
	fputs("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", file);
	fclose(file);
	struct tls_settings settings = good_settings();
	settings.certificate = path_of("chain.pem");
	assert_reports(settings, 1, 0, "chain.pem: certificate 2: ");
}
END_TEST

START_TEST(key_of_another_certificate_is_reported)
{
	struct identity stranger = identity_new((struct template){.name = "stranger"});
	struct identity curve = identity_new((struct template){.name = "curve", .key_curve = "P-384"});
	struct tls_settings settings = good_settings();
	settings.key = write_key("stranger.key", "w", &stranger, NULL);
	assert_reports(settings, 1, 0, "key: ");
	ck_assert_ptr_nonnull(strstr(messages, "stranger.key: the key does not match tls_certificate"));
	settings.key = write_key("curve.key", "w", &curve, NULL);
	assert_reports(settings, 1, 0, "the key does not match tls_certificate");
	identity_free(&stranger);
	identity_free(&curve);
}
END_TEST

START_TEST(encrypted_key_is_reported)
{
	struct tls_settings settings = good_settings();
	settings.key = write_key("secret.key", "w", &server, "secret");
	assert_reports(settings, 1, 0, "secret.key: encrypted private keys are not supported");
}
END_TEST

START_TEST(world_readable_key_raises_a_warning)
{
	ck_assert_int_eq(chmod(path_of("server.key"), 0644), 0);
	assert_reports(good_settings(), 0, 1, "warning: key: ");
	ck_assert_ptr_nonnull(strstr(messages, "server.key: the key file is world-readable"));
	ck_assert_int_eq(chmod(path_of("server.key"), 0640), 0);
	assert_reports(good_settings(), 0, 0, "");
}
END_TEST

START_TEST(expired_or_not_yet_valid_certificate_or_crl_raises_a_warning)
{
	struct identity old = identity_new((struct template){.name = "old", .from_s = -2 * HOUR_S, .until_s = -HOUR_S});
	struct identity young = identity_new((struct template){.name = "young", .from_s = HOUR_S, .until_s = YEAR_S});
	write_certificate("old.pem", "w", &old);
	write_key("old.pem", "a", &old, NULL);
	write_certificate("young.pem", "w", &young);
	write_key("young.pem", "a", &young, NULL);
	assert_reports((struct tls_settings){.certificate = path_of("old.pem")}, 0, 1,
		       "the certificate of CN=old,O=Lab expired on 20");
	assert_reports((struct tls_settings){.certificate = path_of("young.pem")}, 0, 1,
		       "the certificate of CN=young,O=Lab is not valid before 20");
	struct tls_settings settings = good_settings();
	settings.client_ca = path_of("ca.pem");
	settings.crl = write_crl("late.crl", "w", &authority, NULL, -HOUR_S);
	assert_reports(settings, 0, 1, "warning: crl: ");
	ck_assert_ptr_nonnull(strstr(messages, "a revocation list expired on 20"));
	identity_free(&old);
	identity_free(&young);
}
END_TEST

/* --- a session and its client --- */

enum { BIG = 4 * 1024 * 1024, SCRATCH = 256 * 1024 };

static SSL_CTX *clients;
static SSL *client;
static struct tls_context *context;
static struct tls *tls;
static int client_fd, server_fd;

static void make_pair(int fds[2])
{
	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
}

/* Connects a session of CONTEXT and one of CLIENTS. */
static void connect_client(void)
{
	int fds[2];
	make_pair(fds);
	client_fd = fds[0];
	server_fd = fds[1];
	tls = tls_new(context, server_fd);
	ck_assert_ptr_nonnull(tls);
	client = SSL_new(clients);
	ck_assert_int_eq(SSL_set_fd(client, client_fd), 1);
	SSL_set_connect_state(client);
}

static void disconnect_client(void)
{
	tls_free(tls);
	SSL_free(client);
	close(client_fd);
	close(server_fd);
}

static void begin(struct tls_settings settings, int version, const struct identity *shown)
{
	context = load(settings);
	ck_assert_msg(context != NULL, "%s", messages);
	clients = SSL_CTX_new(TLS_client_method());
	SSL_CTX_set_min_proto_version(clients, version);
	SSL_CTX_set_max_proto_version(clients, version);
	if (shown != NULL) {
		ck_assert_int_eq(SSL_CTX_use_certificate(clients, shown->certificate), 1);
		ck_assert_int_eq(SSL_CTX_use_PrivateKey(clients, shown->key), 1);
	}
	connect_client();
}

static void end(void)
{
	disconnect_client();
	tls_context_free(context);
	SSL_CTX_free(clients);
}

/* Completes the handshake on both sides. Returns the result of tls_handshake. */
static int complete_handshake(void)
{
	int result = -1;
	for (int i = 0; i < 100; i++) {
		ERR_clear_error();
		SSL_do_handshake(client);
		result = tls_handshake(tls);
		if (result == 0 || errno != EAGAIN)
			break;
	}
	int error = errno;
	ERR_clear_error();
	SSL_do_handshake(client);
	errno = error;
	return result;
}

/* Asserts that the client receives close_notify next. */
static void assert_close_notify(void)
{
	char byte;
	int result = SSL_read(client, &byte, 1);
	ck_assert_int_eq(SSL_get_error(client, result), SSL_ERROR_ZERO_RETURN);
}

/* Closes the client's socket; the session notices by a failed write. */
static void close_client_socket(void)
{
	close(client_fd);
	client_fd = dup(server_fd);
	ck_assert_int_eq(tls_write(tls, "x", 1), -1);
	ck_assert_int_eq(errno, EPIPE);
	errno = 0;
}

/* Fills the send buffer of the server's socket with bytes outside of the session. */
static void fill_socket(void)
{
	while (send(server_fd, "x", 1, 0) == 1)
		;
}

/* Discards all bytes in the client's socket. */
static void empty_socket(void)
{
	char bytes[16384];
	while (recv(client_fd, bytes, sizeof bytes, 0) > 0)
		;
}

static const int versions[] = {TLS1_2_VERSION, TLS1_3_VERSION};

static void begin_session(int version)
{
	begin(good_settings(), version, NULL);
	ck_assert_int_eq(complete_handshake(), 0);
	ck_assert_int_eq(SSL_is_init_finished(client), 1);
}

static uint8_t pattern(size_t at)
{
	return (uint8_t)(at * 2654435761u >> 13);
}

/* --- handshakes --- */

START_TEST(session_transfers_data_in_both_directions)
{
	char bytes[100];
	begin_session(versions[_i]);
	ck_assert_int_eq(SSL_version(client), versions[_i]);
	ck_assert_int_eq(SSL_write(client, "hello", 5), 5);
	ck_assert_int_eq(tls_read(tls, bytes, sizeof bytes), 5);
	ck_assert_mem_eq(bytes, "hello", 5);
	ck_assert(!tls_has_pending(tls));
	ck_assert_int_eq(tls_read(tls, bytes, sizeof bytes), -1);
	ck_assert_int_eq(errno, EAGAIN);
	ck_assert(!tls_wants_write(tls));
	ck_assert_int_eq(tls_write(tls, "answer", 6), 6);
	ck_assert_int_eq(SSL_read(client, bytes, sizeof bytes), 6);
	ck_assert_mem_eq(bytes, "answer", 6);
	ck_assert_ptr_null(tls_client_subject(tls));
	end();
}
END_TEST

/* Relays up to MOST available bytes from FROM to TO. Returns whether there was one. */
static bool relay(int from, int to, size_t most)
{
	char bytes[256];
	ssize_t length = recv(from, bytes, most < sizeof bytes ? most : sizeof bytes, 0);
	if (length <= 0)
		return false;
	ck_assert_int_eq(send(to, bytes, (size_t)length, MSG_NOSIGNAL), length);
	return true;
}

START_TEST(handshake_and_data_in_single_bytes_are_read)
{
	int fds[2];
	char bytes[100];
	size_t got = 0;
	bool done = false;

	begin(good_settings(), versions[_i], NULL);
	make_pair(fds); /* the client uses one end, the relay the other */
	SSL_set_fd(client, fds[0]);
	for (int i = 0; i < 100000 && got < 5; i++) {
		ERR_clear_error();
		if (SSL_do_handshake(client) == 1 && SSL_get_app_data(client) == NULL) {
			ck_assert_int_eq(SSL_write(client, "hello", 5), 5);
			SSL_set_app_data(client, client);
		}
		relay(fds[1], client_fd, 1);
		if (!done) {
			int result = tls_handshake(tls);
			ck_assert(result == 0 || errno == EAGAIN);
			done = result == 0;
		}
		ssize_t length = done ? tls_read(tls, bytes + got, sizeof bytes - got) : 0;
		ck_assert(length >= 0 || errno == EAGAIN);
		got += length > 0 ? (size_t)length : 0;
		relay(client_fd, fds[1], 256);
	}
	ck_assert_uint_eq(got, 5);
	ck_assert_mem_eq(bytes, "hello", 5);
	close(fds[0]);
	close(fds[1]);
	end();
}
END_TEST

START_TEST(version_out_of_bounds_fails_the_handshake)
{
	struct tls_settings settings = good_settings();
	char text[200];
	settings.min_version = TLS_1_3;
	begin(settings, TLS1_2_VERSION, NULL);
	ck_assert_int_eq(complete_handshake(), -1);
	ck_assert_int_eq(errno, EPROTO);
	ck_assert_int_eq(tls_failure(tls), TLS_HANDSHAKE_FAILED);
	tls_failure_print(tls, text, sizeof text);
	ck_assert_str_eq(text, "unsupported protocol");
	end();
	settings.min_version = TLS_1_2;
	settings.max_version = TLS_1_2;
	begin(settings, TLS1_3_VERSION, NULL);
	ck_assert_int_eq(complete_handshake(), -1);
	ck_assert_int_eq(tls_failure(tls), TLS_HANDSHAKE_FAILED);
	end();
}
END_TEST

START_TEST(plain_text_fails_the_session_for_good)
{
	char bytes[100];
	begin(good_settings(), TLS1_3_VERSION, NULL);
	ck_assert_int_eq(send(client_fd, "GET / HTTP/1.0\r\n\r\n", 18, 0), 18);
	ck_assert_int_eq(tls_handshake(tls), -1);
	ck_assert_int_eq(errno, EPROTO);
	ck_assert_int_eq(tls_failure(tls), TLS_HANDSHAKE_FAILED);
	/* a failed session neither reads nor writes */
	empty_socket();
	ck_assert_int_eq(send(client_fd, "more", 4, 0), 4);
	for (int i = 0; i < 3; i++) {
		ck_assert_int_eq(tls_handshake(tls), -1);
		ck_assert_int_eq(errno, EPROTO);
		ck_assert_int_eq(tls_read(tls, bytes, sizeof bytes), -1);
		ck_assert_int_eq(errno, EPROTO);
		ck_assert_int_eq(tls_write(tls, "x", 1), -1);
		ck_assert_int_eq(errno, EPROTO);
		ck_assert_int_eq(tls_shutdown(tls), 0);
	}
	ck_assert(tls_has_pending(tls)); /* the error is pending */
	ck_assert_int_eq(recv(server_fd, bytes, sizeof bytes, 0), 4);
	ck_assert_int_eq(recv(client_fd, bytes, sizeof bytes, 0), -1);
	ck_assert_int_eq(errno, EAGAIN);
	end();
}
END_TEST

START_TEST(fin_during_the_handshake_fails_it_with_that_detail)
{
	char text[200];
	begin(good_settings(), TLS1_3_VERSION, NULL);
	SSL_do_handshake(client);
	shutdown(client_fd, SHUT_WR);
	int result;
	for (int i = 0; (result = tls_handshake(tls)) < 0 && errno == EAGAIN && i < 10; i++)
		;
	ck_assert_int_eq(result, -1);
	ck_assert_int_ne(errno, EAGAIN);
	ck_assert_int_eq(tls_failure(tls), TLS_HANDSHAKE_FAILED);
	tls_failure_print(tls, text, sizeof text);
	ck_assert_str_eq(text, "connection closed by the client");
	end();
}
END_TEST

START_TEST(session_resumption_falls_back_to_a_full_handshake)
{
	char bytes[10];
	begin_session(versions[_i]);
	ck_assert_int_eq(tls_write(tls, "x", 1), 1);
	ck_assert_int_eq(SSL_read(client, bytes, sizeof bytes), 1);
	SSL_SESSION *session = SSL_get1_session(client);
	ck_assert_int_eq(SSL_SESSION_has_ticket(session), 0);
	SSL_shutdown(client);
	disconnect_client();

	connect_client();
	SSL_set_session(client, session);
	ck_assert_int_eq(complete_handshake(), 0);
	ck_assert_int_eq(SSL_session_reused(client), 0);
	SSL_SESSION_free(session);
	end();
}
END_TEST

START_TEST(renegotiation_is_refused)
{
	char bytes[100];
	begin_session(TLS1_2_VERSION);
	ck_assert_int_eq(SSL_renegotiate(client), 1);
	SSL_do_handshake(client);
	ck_assert_int_eq(tls_read(tls, bytes, sizeof bytes), -1);
	ck_assert(errno == EAGAIN || errno == EPROTO);
	ck_assert_int_ne(SSL_do_handshake(client), 1);
	end();
}
END_TEST

/* --- client certificates --- */

enum shown { VALID, NONE, EXPIRED, NOT_YET_VALID, REVOKED, UNKNOWN_AUTHORITY, SELF_SIGNED, WRONG_PURPOSE, SHOWN_COUNT };

static struct identity make_shown(enum shown shown)
{
	struct template template = {.name = "client", .issuer = &authority, .purpose = "clientAuth"};
	if (shown == EXPIRED)
		template.from_s = -2 * HOUR_S, template.until_s = -HOUR_S;
	if (shown == NOT_YET_VALID)
		template.from_s = HOUR_S, template.until_s = YEAR_S;
	if (shown == UNKNOWN_AUTHORITY)
		template.issuer = &other_authority;
	if (shown == SELF_SIGNED)
		template.issuer = NULL;
	if (shown == WRONG_PURPOSE)
		template.purpose = "serverAuth";
	return identity_new(template);
}

static const enum tls_failure failures[SHOWN_COUNT] = {
	[VALID] = TLS_NO_FAILURE,
	[NONE] = TLS_CERTIFICATE_MISSING,
	[EXPIRED] = TLS_CERTIFICATE_EXPIRED,
	[NOT_YET_VALID] = TLS_CERTIFICATE_NOT_YET_VALID,
	[REVOKED] = TLS_CERTIFICATE_REVOKED,
	[UNKNOWN_AUTHORITY] = TLS_CERTIFICATE_UNKNOWN_AUTHORITY,
	[SELF_SIGNED] = TLS_CERTIFICATE_SELF_SIGNED,
	[WRONG_PURPOSE] = TLS_CERTIFICATE_WRONG_PURPOSE,
};

static void try_client(enum shown shown, int version, enum tls_client_auth auth)
{
	struct identity identity = make_shown(shown);
	struct tls_settings settings = good_settings();
	bool accepted = shown == VALID || (shown == NONE && auth == TLS_CLIENT_OPTIONAL);
	char text[200];

	settings.client_ca = path_of("ca.pem");
	settings.client_auth = auth;
	settings.crl = write_crl("list.crl", "w", &authority, shown == REVOKED ? &identity : NULL, YEAR_S);
	begin(settings, version, shown == NONE ? NULL : &identity);
	int result = complete_handshake(), error = errno;
	tls_failure_print(tls, text, sizeof text);
	ck_assert_msg(result == (accepted ? 0 : -1), "%d: %s", (int)shown, text);
	if (accepted) {
		const char *subject = shown == NONE ? NULL : "CN=client,O=Lab";
		ck_assert_pstr_eq(tls_client_subject(tls), subject);
	} else {
		ck_assert_int_eq(error, EPROTO);
		ck_assert_msg(tls_failure(tls) == failures[shown], "%d: %s", (int)shown, text);
		ck_assert_pstr_eq(tls_client_subject(tls), shown == NONE ? NULL : "CN=client,O=Lab");
		/* no data reaches the client */
		ck_assert_int_eq(tls_write(tls, "secret", 6), -1);
		ck_assert_int_le(SSL_read(client, text, sizeof text), 0);
	}
	end();
	identity_free(&identity);
}

START_TEST(required_client_certificate_rejects_missing_and_invalid_ones)
{
	for (enum shown shown = VALID; shown < SHOWN_COUNT; shown++)
		try_client(shown, versions[_i], TLS_CLIENT_REQUIRED);
}
END_TEST

START_TEST(optional_client_certificate_rejects_invalid_ones_only)
{
	for (enum shown shown = VALID; shown < SHOWN_COUNT; shown++)
		try_client(shown, versions[_i], TLS_CLIENT_OPTIONAL);
}
END_TEST

/* Asserts the result of a handshake in which the client presents SHOWN. */
static void assert_handshake(struct tls_settings settings, const struct identity *shown, enum tls_failure failure)
{
	begin(settings, TLS1_3_VERSION, shown);
	ck_assert_int_eq(complete_handshake(), failure == TLS_NO_FAILURE ? 0 : -1);
	ck_assert_int_eq(tls_failure(tls), failure);
	end();
}

/* The client's authority is an intermediate one: its own list is required, the list of the root optional. */
START_TEST(crl_of_the_root_is_optional_and_applied_if_present)
{
	struct identity middle = identity_new((struct template){.name = "m", .issuer = &authority, .authority = true});
	struct identity shown =
		identity_new((struct template){.name = "c", .issuer = &middle, .purpose = "clientAuth"});
	struct tls_settings settings = good_settings();
	settings.client_auth = TLS_CLIENT_REQUIRED;
	settings.client_ca = write_certificate("cas.pem", "w", &authority);
	write_certificate("cas.pem", "a", &middle);

	settings.crl = write_crl("lists.crl", "w", &authority, NULL, YEAR_S);
	assert_handshake(settings, &shown, TLS_CERTIFICATE_NO_CRL);

	write_crl("lists.crl", "w", &middle, NULL, YEAR_S);
	assert_handshake(settings, &shown, TLS_NO_FAILURE);

	write_crl("lists.crl", "a", &authority, &middle, YEAR_S);
	assert_handshake(settings, &shown, TLS_CERTIFICATE_REVOKED);

	write_crl("lists.crl", "w", &middle, NULL, -HOUR_S);
	assert_handshake(settings, &shown, TLS_CERTIFICATE_NO_CRL);
	identity_free(&middle);
	identity_free(&shown);
}
END_TEST

START_TEST(client_subject_is_escaped_to_printable_ascii)
{
	struct identity shown = identity_new(
		(struct template){.name = "a,b\n\x1b[31m\xc3\xa9", .issuer = &authority, .purpose = "clientAuth"});
	struct tls_settings settings = good_settings();
	settings.client_ca = path_of("ca.pem");
	settings.client_auth = TLS_CLIENT_REQUIRED;
	begin(settings, TLS1_3_VERSION, &shown);
	ck_assert_int_eq(complete_handshake(), 0);
	ck_assert_str_eq(tls_client_subject(tls), "CN=a\\,b\\0A\\1B[31m\\C3\\A9,O=Lab");
	end();
	identity_free(&shown);
}
END_TEST

/* --- the stream --- */

START_TEST(decrypted_unread_data_is_pending)
{
	char bytes[1000];
	begin_session(versions[_i]);
	for (int i = 0; i < 10; i++)
		ck_assert_int_eq(SSL_write(client, "0123456789", 10), 10);
	ck_assert_int_eq(tls_read(tls, bytes, 4), 4);
	ck_assert(tls_has_pending(tls));
	ck_assert_int_eq(recv(server_fd, bytes, 1, MSG_PEEK), -1); /* the socket raises no event */
	ck_assert_int_eq(tls_read(tls, bytes, 90), 90);
	ck_assert_mem_eq(bytes, "456789", 6);
	ck_assert(tls_has_pending(tls));
	ck_assert_int_eq(tls_read(tls, bytes, sizeof bytes), 6);
	ck_assert(!tls_has_pending(tls));
	end();
}
END_TEST

START_TEST(data_directly_before_close_notify_is_read_whole)
{
	char bytes[1000];
	begin_session(versions[_i]);
	ck_assert_int_eq(SSL_write(client, "last words", 10), 10);
	ck_assert_int_eq(SSL_shutdown(client), 0);
	shutdown(client_fd, SHUT_WR);
	ck_assert_int_eq(tls_read(tls, bytes, sizeof bytes), 10);
	ck_assert(tls_has_pending(tls));
	ck_assert_int_eq(tls_read(tls, bytes, sizeof bytes), 0);
	ck_assert(!tls_was_truncated(tls));
	/* the server's direction is still open */
	ck_assert_int_eq(tls_write(tls, "last answer", 11), 11);
	ck_assert_int_eq(tls_shutdown(tls), 0);
	ck_assert_int_eq(SSL_read(client, bytes, sizeof bytes), 11);
	assert_close_notify();
	end();
}
END_TEST

START_TEST(fin_without_close_notify_reads_as_truncated_after_the_data)
{
	char bytes[1000];
	begin_session(versions[_i]);
	ck_assert_int_eq(SSL_write(client, "last words", 10), 10);
	shutdown(client_fd, SHUT_WR);
	ck_assert_int_eq(tls_read(tls, bytes, sizeof bytes), 10);
	ck_assert_int_eq(tls_read(tls, bytes, sizeof bytes), 0);
	ck_assert(tls_was_truncated(tls));
	ck_assert(tls_has_pending(tls));
	/* the client can still read data and close_notify */
	ck_assert_int_eq(tls_write(tls, "answer", 6), 6);
	ck_assert_int_eq(tls_shutdown(tls), 0);
	ck_assert_int_eq(SSL_read(client, bytes, sizeof bytes), 6);
	assert_close_notify();
	end();
}
END_TEST

START_TEST(fin_within_a_record_keeps_the_records_before)
{
	char bytes[1000], record[64];
	begin_session(versions[_i]);
	ck_assert_int_eq(SSL_write(client, "whole", 5), 5);
	/* the start of another record, then FIN */
	memcpy(record, "\x17\x03\x03\x00\x40half", 9);
	ck_assert_int_eq(send(client_fd, record, 9, 0), 9);
	shutdown(client_fd, SHUT_WR);
	ck_assert_int_eq(tls_read(tls, bytes, sizeof bytes), 5);
	ck_assert_int_eq(tls_write(tls, "whole", 5), 5);
	ck_assert_int_eq(tls_read(tls, bytes, sizeof bytes), 0);
	ck_assert(tls_was_truncated(tls));
	end();
}
END_TEST

START_TEST(modified_record_fails_the_session)
{
	char bytes[100], text[200];
	begin_session(versions[_i]);
	ck_assert_int_eq(send(client_fd, "\x17\x03\x03\x00\x20 this was not encrypted by the other", 41, 0), 41);
	ck_assert_int_eq(tls_read(tls, bytes, sizeof bytes), -1);
	ck_assert_int_eq(errno, EPROTO);
	ck_assert_int_eq(tls_failure(tls), TLS_PROTOCOL_FAILED);
	tls_failure_print(tls, text, sizeof text);
	ck_assert_str_eq(text, "decryption failed or bad record mac");
	ck_assert_int_eq(tls_write(tls, "x", 1), -1);
	ck_assert_int_eq(errno, EPROTO);
	end();
}
END_TEST

START_TEST(write_to_a_closed_socket_returns_epipe_without_sigpipe)
{
	char bytes[100];
	begin_session(versions[_i]);
	close_client_socket();
	ck_assert_int_eq(tls_read(tls, bytes, sizeof bytes), -1);
	ck_assert_int_eq(errno, EPIPE);
	end();
}
END_TEST

START_TEST(write_failing_after_close_notify_returns_the_socket_error)
{
	char bytes[100];
	begin_session(versions[_i]);
	ck_assert_int_eq(SSL_shutdown(client), 0);
	ck_assert_int_eq(tls_read(tls, bytes, sizeof bytes), 0);
	close_client_socket();
	ck_assert_int_eq(tls_write(tls, "x", 1), -1);
	ck_assert_int_eq(errno, EPIPE);
	end();
}
END_TEST

/* The client reads nothing until the socket is full. The rest of a write is then passed from another address. */
START_TEST(write_continues_after_a_full_socket)
{
	char *all = malloc(BIG), *got = malloc(BIG + 1);
	size_t sent = 0, received = 0;
	unsigned blocked = 0;

	begin_session(versions[_i]);
	for (size_t i = 0; i < BIG; i++)
		all[i] = (char)pattern(i);
	for (int turn = 0; turn < 1000000 && received < BIG; turn++) {
		size_t left = BIG - sent < SCRATCH ? BIG - sent : SCRATCH;
		char *moved = malloc(left + 1);
		memcpy(moved, all + sent, left);
		ssize_t length = left > 0 ? tls_write(tls, moved, left) : 0;
		ck_assert(length >= 0 || (errno == EAGAIN && tls_wants_write(tls)));
		ck_assert(tls_has_unfinished_write(tls) == (left > 0 && (length < 0 || (size_t)length < left)));
		blocked += length < 0;
		sent += length > 0 ? (size_t)length : 0;
		memset(moved, 0, left);
		free(moved);
		if (length > 0)
			continue;
		int size = SSL_read(client, got + received, 10000);
		received += size > 0 ? (size_t)size : 0;
	}
	ck_assert_uint_eq(received, BIG);
	ck_assert_uint_gt(blocked, 0);
	ck_assert_mem_eq(all, got, BIG);
	free(all);
	free(got);
	end();
}
END_TEST

START_TEST(read_of_any_size_fills_at_most_its_buffer)
{
	char *bytes = malloc(SCRATCH);
	size_t sent = 0, received = 0;

	begin_session(versions[_i]);
	for (int turn = 0; turn < 100000 && received < BIG; turn++) {
		char chunk[5000];
		for (size_t i = 0; i < sizeof chunk; i++)
			chunk[i] = (char)pattern(sent + i);
		int wrote = sent + sizeof chunk <= BIG + sizeof chunk ? SSL_write(client, chunk, sizeof chunk) : -1;
		if (wrote > 0) {
			sent += (size_t)wrote;
			continue;
		}
		size_t size = 1 + (size_t)turn * 7919 % SCRATCH;
		ssize_t length = tls_read(tls, bytes, size);
		ck_assert(length > 0 || errno == EAGAIN);
		ck_assert(length < 0 || (size_t)length <= size);
		size_t right = 0;
		while (length > 0 && right < (size_t)length && bytes[right] == (char)pattern(received + right))
			right++;
		ck_assert(length < 0 || right == (size_t)length);
		received += length > 0 ? (size_t)length : 0;
	}
	ck_assert_uint_ge(received, BIG);
	free(bytes);
	end();
}
END_TEST

START_TEST(shutdown_on_a_full_socket_waits_until_writable)
{
	begin_session(versions[_i]);
	fill_socket();
	ck_assert_int_eq(tls_shutdown(tls), -1);
	ck_assert_int_eq(errno, EAGAIN);
	ck_assert(tls_wants_write(tls));
	empty_socket();
	ck_assert_int_eq(tls_shutdown(tls), 0);
	assert_close_notify();
	end();
}
END_TEST

/* TLS 1.3: key updates in more bytes than one recv takes. Each read processes a part, as other connections wait for the
 * thread. */
START_TEST(flood_of_key_updates_is_read_in_parts)
{
	char bytes[16384], *flood;
	BIO *socket, *memory;
	unsigned reads = 0;
	ssize_t length;

	begin_session(TLS1_3_VERSION);
	socket = SSL_get_wbio(client);
	memory = BIO_new(BIO_s_mem());
	ck_assert_int_eq(BIO_up_ref(socket), 1);
	ck_assert_int_eq(BIO_up_ref(memory), 1);
	SSL_set0_wbio(client, memory);
	for (int i = 0; i < 4000; i++) {
		ck_assert_int_eq(SSL_key_update(client, SSL_KEY_UPDATE_NOT_REQUESTED), 1);
		ck_assert_int_eq(SSL_do_handshake(client), 1);
	}
	ck_assert_int_eq(SSL_write(client, "hello", 5), 5);
	long size = BIO_get_mem_data(memory, &flood);
	ck_assert_int_eq(send(client_fd, flood, (size_t)size, 0), size);
	BIO_free(memory);
	SSL_set0_wbio(client, socket);

	while ((length = tls_read(tls, bytes, sizeof bytes)) < 0 && reads < 4000) {
		ck_assert_int_eq(errno, EAGAIN);
		ck_assert(!tls_wants_write(tls));
		reads++;
	}
	ck_assert_int_eq(length, 5);
	ck_assert_uint_gt(reads, 1);
	end();
}
END_TEST

/* TLS 1.3: a key update requires a reply. While the socket is full the read waits for it to be writable. */
START_TEST(read_that_has_to_reply_waits_until_writable)
{
	char bytes[16384];
	begin_session(TLS1_3_VERSION);
	fill_socket();
	ck_assert_int_eq(SSL_key_update(client, SSL_KEY_UPDATE_REQUESTED), 1);
	ck_assert_int_eq(SSL_write(client, "hello", 5), 5);
	ssize_t length = tls_read(tls, bytes, sizeof bytes);
	if (length < 0) {
		ck_assert_int_eq(errno, EAGAIN);
		ck_assert(tls_wants_write(tls));
		empty_socket();
		length = tls_read(tls, bytes, sizeof bytes);
	}
	ck_assert_int_eq(length, 5);
	ck_assert_mem_eq(bytes, "hello", 5);
	end();
}
END_TEST

enum { VERSIONS = COUNT_OF(versions) };

static Suite *tls_suite(void)
{
	Suite *suite = suite_create("tls");
	TCase *files = tcase_create("files"), *sessions = tcase_create("sessions");
	tcase_add_checked_fixture(files, set_up, tear_down);
	tcase_add_checked_fixture(sessions, set_up, tear_down);
	tcase_add_test(files, certificate_and_key_load_from_one_file_or_two);
	tcase_add_test(files, missing_or_special_file_is_reported_by_name);
	tcase_add_test(files, file_without_the_expected_pem_object_is_reported);
	tcase_add_test(files, invalid_chain_certificate_is_reported_by_number);
	tcase_add_test(files, key_of_another_certificate_is_reported);
	tcase_add_test(files, encrypted_key_is_reported);
	tcase_add_test(files, world_readable_key_raises_a_warning);
	tcase_add_test(files, expired_or_not_yet_valid_certificate_or_crl_raises_a_warning);
	tcase_add_loop_test(sessions, session_transfers_data_in_both_directions, 0, VERSIONS);
	tcase_add_loop_test(sessions, handshake_and_data_in_single_bytes_are_read, 0, VERSIONS);
	tcase_add_test(sessions, version_out_of_bounds_fails_the_handshake);
	tcase_add_test(sessions, plain_text_fails_the_session_for_good);
	tcase_add_test(sessions, fin_during_the_handshake_fails_it_with_that_detail);
	tcase_add_loop_test(sessions, session_resumption_falls_back_to_a_full_handshake, 0, VERSIONS);
	tcase_add_test(sessions, renegotiation_is_refused);
	tcase_add_loop_test(sessions, required_client_certificate_rejects_missing_and_invalid_ones, 0, VERSIONS);
	tcase_add_loop_test(sessions, optional_client_certificate_rejects_invalid_ones_only, 0, VERSIONS);
	tcase_add_test(sessions, crl_of_the_root_is_optional_and_applied_if_present);
	tcase_add_test(sessions, client_subject_is_escaped_to_printable_ascii);
	tcase_add_loop_test(sessions, decrypted_unread_data_is_pending, 0, VERSIONS);
	tcase_add_loop_test(sessions, data_directly_before_close_notify_is_read_whole, 0, VERSIONS);
	tcase_add_loop_test(sessions, fin_without_close_notify_reads_as_truncated_after_the_data, 0, VERSIONS);
	tcase_add_loop_test(sessions, fin_within_a_record_keeps_the_records_before, 0, VERSIONS);
	tcase_add_loop_test(sessions, modified_record_fails_the_session, 0, VERSIONS);
	tcase_add_loop_test(sessions, write_to_a_closed_socket_returns_epipe_without_sigpipe, 0, VERSIONS);
	tcase_add_loop_test(sessions, write_failing_after_close_notify_returns_the_socket_error, 0, VERSIONS);
	tcase_add_loop_test(sessions, write_continues_after_a_full_socket, 0, VERSIONS);
	tcase_add_loop_test(sessions, read_of_any_size_fills_at_most_its_buffer, 0, VERSIONS);
	tcase_add_loop_test(sessions, shutdown_on_a_full_socket_waits_until_writable, 0, VERSIONS);
	tcase_add_test(sessions, read_that_has_to_reply_waits_until_writable);
	tcase_add_test(sessions, flood_of_key_updates_is_read_in_parts);
	suite_add_tcase(suite, files);
	suite_add_tcase(suite, sessions);
	return suite;
}

int main(void)
{
	return check_run(tls_suite());
}
