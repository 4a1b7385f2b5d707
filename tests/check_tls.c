/* check_tls.c: contexts from good and bad files, and sessions over socket pairs, with a client that is OpenSSL itself. */
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

/* --- who takes part --- */

static struct identity authority, server, other_authority;

/* --- what is told about files --- */

static char told[4096];
static unsigned told_errors, told_warnings;

static void take_message(void *context, enum tls_file file, bool warning, const char *message)
{
	static const char *const names[] = {"certificate", "key", "client_ca", "crl"};
	size_t length = strlen(told);
	ck_assert_ptr_eq(context, told);
	told_errors += !warning;
	told_warnings += warning;
	snprintf(told + length, sizeof told - length, "%s%s: %s\n", warning ? "warning: " : "", names[file], message);
}

static struct tls_context *load(struct tls_settings settings)
{
	told[0] = '\0';
	told_errors = told_warnings = 0;
	if (settings.min_version == TLS_ANY_VERSION)
		settings.min_version = TLS_1_2;
	struct tls_context *context = tls_context_new(&settings, take_message, told);
	ck_assert_msg((context == NULL) == (told_errors > 0), "%s", told);
	ck_assert_uint_eq(ERR_peek_error(), 0);
	return context;
}

static void ck_told(struct tls_settings settings, unsigned errors, unsigned warnings, const char *text)
{
	struct tls_context *context = load(settings);
	ck_assert_msg(told_errors == errors && told_warnings == warnings, "%s", told);
	ck_assert_msg(strstr(told, text) != NULL, "%s", told);
	tls_context_free(context);
}

static void set_up(void)
{
	make_directory();
	authority = identity_new((struct wanted){.name = "Authority", .authority = true});
	other_authority = identity_new((struct wanted){.name = "Other", .authority = true});
	server = identity_new((struct wanted){.name = "server", .issuer = &authority});
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

START_TEST(a_certificate_and_its_key_are_taken_from_one_file_or_two)
{
	ck_told(good_settings(), 0, 0, "");
	ck_told((struct tls_settings){.certificate = path_of("both.pem")}, 0, 0, "");
}
END_TEST

START_TEST(a_file_that_is_not_there_is_named)
{
	struct tls_settings settings = good_settings();
	settings.certificate = path_of("nowhere.pem");
	ck_told(settings, 1, 0, "nowhere.pem: No such file or directory");
	settings = good_settings();
	settings.key = path_of("nowhere.key");
	ck_told(settings, 1, 0, "nowhere.key: No such file or directory");
	settings = good_settings();
	settings.client_ca = path_of("nowhere.ca");
	settings.crl = path_of("nowhere.crl");
	ck_told(settings, 2, 0, "nowhere.crl: No such file or directory");
	ck_assert_ptr_nonnull(strstr(told, "client_ca: "));
	settings = good_settings();
	settings.certificate = certificate_directory;
	ck_told(settings, 1, 0, "Is a directory");
	settings.certificate = path_of("fifo"); /* nobody writes to it, and nobody is waited for */
	ck_assert_int_eq(mkfifo(settings.certificate, 0600), 0);
	ck_told(settings, 1, 0, "fifo: not a regular file");
}
END_TEST

START_TEST(a_file_of_something_else_is_named)
{
	const char *text = write_text("text", "these are no certificates\n");
	const char *broken = write_text("broken", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
	struct tls_settings settings = good_settings();
	settings.certificate = text;
	ck_told(settings, 1, 0, "certificate: ");
	ck_assert_ptr_nonnull(strstr(told, "text: no certificate in PEM format"));
	settings.certificate = broken;
	ck_told(settings, 1, 0, "broken: certificate 1: ");
	settings.certificate = path_of("server.key");
	ck_told(settings, 1, 0, "no certificate in PEM format");
	settings = good_settings();
	settings.key = text;
	ck_told(settings, 1, 0, "text: no private key in PEM format");
	settings = good_settings();
	settings.client_ca = path_of("server.pem");
	settings.crl = path_of("server.pem");
	ck_told(settings, 1, 0, "crl: ");
	ck_assert_ptr_nonnull(strstr(told, "no revocation list in PEM format"));
}
END_TEST

START_TEST(a_second_certificate_that_is_broken_is_named)
{
	write_certificate("chain.pem", "w", &server);
	FILE *file = fopen(path_of("chain.pem"), "a");
	fputs("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", file);
	fclose(file);
	struct tls_settings settings = good_settings();
	settings.certificate = path_of("chain.pem");
	ck_told(settings, 1, 0, "chain.pem: certificate 2: ");
}
END_TEST

START_TEST(a_key_that_does_not_match_is_named)
{
	struct identity stranger = identity_new((struct wanted){.name = "stranger"});
	struct identity curve = identity_new((struct wanted){.name = "curve", .key_curve = "P-384"});
	struct tls_settings settings = good_settings();
	settings.key = write_key("stranger.key", "w", &stranger, NULL);
	ck_told(settings, 1, 0, "key: ");
	ck_assert_ptr_nonnull(strstr(told, "stranger.key: the key does not match tls_certificate"));
	settings.key = write_key("curve.key", "w", &curve, NULL);
	ck_told(settings, 1, 0, "the key does not match tls_certificate");
	identity_free(&stranger);
	identity_free(&curve);
}
END_TEST

START_TEST(an_encrypted_key_is_named)
{
	struct tls_settings settings = good_settings();
	settings.key = write_key("secret.key", "w", &server, "secret");
	ck_told(settings, 1, 0, "secret.key: the key is encrypted");
}
END_TEST

START_TEST(a_key_that_everybody_can_read_is_warned_of)
{
	ck_assert_int_eq(chmod(path_of("server.key"), 0644), 0);
	ck_told(good_settings(), 0, 1, "warning: key: ");
	ck_assert_ptr_nonnull(strstr(told, "server.key: the key can be read by everybody"));
	ck_assert_int_eq(chmod(path_of("server.key"), 0640), 0);
	ck_told(good_settings(), 0, 0, "");
}
END_TEST

START_TEST(a_certificate_that_is_not_valid_now_is_warned_of)
{
	struct identity old = identity_new((struct wanted){.name = "old", .from_s = -2 * HOUR_S, .until_s = -HOUR_S});
	struct identity young = identity_new((struct wanted){.name = "young", .from_s = HOUR_S, .until_s = YEAR_S});
	write_certificate("old.pem", "w", &old);
	write_key("old.pem", "a", &old, NULL);
	write_certificate("young.pem", "w", &young);
	write_key("young.pem", "a", &young, NULL);
	ck_told((struct tls_settings){.certificate = path_of("old.pem")}, 0, 1,
		"the certificate of CN=old,O=Lab expired on 20");
	ck_told((struct tls_settings){.certificate = path_of("young.pem")}, 0, 1,
		"the certificate of CN=young,O=Lab is not valid before 20");
	struct tls_settings settings = good_settings();
	settings.client_ca = path_of("ca.pem");
	settings.crl = write_list("late.crl", "w", &authority, NULL, -HOUR_S);
	ck_told(settings, 0, 1, "warning: crl: ");
	ck_assert_ptr_nonnull(strstr(told, "a revocation list expired on 20"));
	identity_free(&old);
	identity_free(&young);
}
END_TEST

START_TEST(the_first_certificate_to_expire_tells_the_expiry)
{
	struct identity brief = identity_new((struct wanted){.name = "brief", .from_s = -HOUR_S, .until_s = HOUR_S});
	time_t now = time(NULL);
	struct tls_context *context = load(good_settings());
	ck_assert_int_ge(tls_context_expiry(context), now + YEAR_S - 60);
	ck_assert_int_le(tls_context_expiry(context), now + YEAR_S + 600);
	tls_context_free(context);
	write_certificate("both.pem", "a", &brief);
	context = load((struct tls_settings){.certificate = path_of("both.pem")});
	ck_assert_int_ge(tls_context_expiry(context), now + HOUR_S - 60);
	ck_assert_int_le(tls_context_expiry(context), now + HOUR_S + 600);
	tls_context_free(context);
	identity_free(&brief);
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

/* A session of CONTEXT and one of CLIENTS at both ends of a new connection. */
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
	ck_assert_msg(context != NULL, "%s", told);
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

/* Lets both sides shake hands. Returns what the server's side came to: 0, or -1 with errno. */
static int shake_hands(void)
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

/* The client has read all that was sent, and was told that this is all. */
static void assert_ended_in_order(void)
{
	char byte;
	int result = SSL_read(client, &byte, 1);
	ck_assert_int_eq(SSL_get_error(client, result), SSL_ERROR_ZERO_RETURN);
}

/* The client's socket is closed: to write finds that out. */
static void end_client(void)
{
	close(client_fd);
	client_fd = dup(server_fd);
	ck_assert_int_eq(tls_write(tls, "x", 1), -1);
	ck_assert_int_eq(errno, EPIPE);
	errno = 0;
}

/* Until the server can send nothing more: not through the session, as the client is not to read it. */
static void fill_socket(void)
{
	while (send(server_fd, "x", 1, 0) == 1)
		;
}

/* Takes what was sent to the client past its session. */
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
	ck_assert_int_eq(shake_hands(), 0);
	ck_assert_int_eq(SSL_is_init_finished(client), 1);
}

static uint8_t pattern(size_t at)
{
	return (uint8_t)(at * 2654435761u >> 13);
}

/* --- handshakes --- */

START_TEST(bytes_pass_both_ways)
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

/* Relays what waits in FROM to TO, up to MOST bytes. */
static bool relay(int from, int to, size_t most)
{
	char bytes[256];
	ssize_t length = recv(from, bytes, most < sizeof bytes ? most : sizeof bytes, 0);
	if (length <= 0)
		return false;
	ck_assert_int_eq(send(to, bytes, (size_t)length, MSG_NOSIGNAL), length);
	return true;
}

START_TEST(a_handshake_and_data_may_come_byte_by_byte)
{
	int fds[2];
	char bytes[100];
	size_t got = 0;
	bool done = false;

	begin(good_settings(), versions[_i], NULL);
	make_pair(fds); /* the client's socket is one end; the relay stands between */
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

START_TEST(a_version_below_or_above_the_bounds_is_refused)
{
	struct tls_settings settings = good_settings();
	char text[200];
	settings.min_version = TLS_1_3;
	begin(settings, TLS1_2_VERSION, NULL);
	ck_assert_int_eq(shake_hands(), -1);
	ck_assert_int_eq(errno, EPROTO);
	ck_assert_int_eq(tls_failure(tls), TLS_HANDSHAKE_FAILED);
	tls_failure_print(tls, text, sizeof text);
	ck_assert_str_eq(text, "unsupported protocol");
	end();
	settings.min_version = TLS_1_2;
	settings.max_version = TLS_1_2;
	begin(settings, TLS1_3_VERSION, NULL);
	ck_assert_int_eq(shake_hands(), -1);
	ck_assert_int_eq(tls_failure(tls), TLS_HANDSHAKE_FAILED);
	end();
}
END_TEST

START_TEST(what_is_no_tls_fails_and_stays_failed)
{
	char bytes[100];
	begin(good_settings(), TLS1_3_VERSION, NULL);
	ck_assert_int_eq(send(client_fd, "GET / HTTP/1.0\r\n\r\n", 18, 0), 18);
	ck_assert_int_eq(tls_handshake(tls), -1);
	ck_assert_int_eq(errno, EPROTO);
	ck_assert_int_eq(tls_failure(tls), TLS_HANDSHAKE_FAILED);
	/* dead: nothing more is read, written or tried */
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
	ck_assert(tls_has_pending(tls)); /* that it is dead is to be told */
	ck_assert_int_eq(recv(server_fd, bytes, sizeof bytes, 0), 4);
	ck_assert_int_eq(recv(client_fd, bytes, sizeof bytes, 0), -1);
	ck_assert_int_eq(errno, EAGAIN);
	end();
}
END_TEST

START_TEST(a_client_that_leaves_during_the_handshake_is_told_so)
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
	ck_assert_str_eq(text, "the client left");
	end();
}
END_TEST

START_TEST(a_client_that_offers_a_session_gets_a_full_handshake)
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
	ck_assert_int_eq(shake_hands(), 0);
	ck_assert_int_eq(SSL_session_reused(client), 0);
	SSL_SESSION_free(session);
	end();
}
END_TEST

START_TEST(there_is_no_renegotiation)
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

enum shown { GOOD, NOBODY, EXPIRED, TOO_YOUNG, REVOKED, STRANGE, SELF_SIGNED, OF_A_SERVER, SHOWN_COUNT };

static struct identity make_shown(enum shown shown)
{
	struct wanted wanted = {.name = "client", .issuer = &authority, .purpose = "clientAuth"};
	if (shown == EXPIRED)
		wanted.from_s = -2 * HOUR_S, wanted.until_s = -HOUR_S;
	if (shown == TOO_YOUNG)
		wanted.from_s = HOUR_S, wanted.until_s = YEAR_S;
	if (shown == STRANGE)
		wanted.issuer = &other_authority;
	if (shown == SELF_SIGNED)
		wanted.issuer = NULL;
	if (shown == OF_A_SERVER)
		wanted.purpose = "serverAuth";
	return identity_new(wanted);
}

static const enum tls_failure failures[SHOWN_COUNT] = {
	[GOOD] = TLS_NO_FAILURE,
	[NOBODY] = TLS_CERTIFICATE_MISSING,
	[EXPIRED] = TLS_CERTIFICATE_EXPIRED,
	[TOO_YOUNG] = TLS_CERTIFICATE_NOT_YET_VALID,
	[REVOKED] = TLS_CERTIFICATE_REVOKED,
	[STRANGE] = TLS_CERTIFICATE_UNKNOWN_AUTHORITY,
	[SELF_SIGNED] = TLS_CERTIFICATE_SELF_SIGNED,
	[OF_A_SERVER] = TLS_CERTIFICATE_WRONG_PURPOSE,
};

static void try_client(enum shown shown, int version, enum tls_client_auth auth)
{
	struct identity identity = make_shown(shown);
	struct tls_settings settings = good_settings();
	bool let_in = shown == GOOD || (shown == NOBODY && auth == TLS_CLIENT_OPTIONAL);
	char text[200];

	settings.client_ca = path_of("ca.pem");
	settings.client_auth = auth;
	settings.crl = write_list("list.crl", "w", &authority, shown == REVOKED ? &identity : NULL, YEAR_S);
	begin(settings, version, shown == NOBODY ? NULL : &identity);
	int result = shake_hands(), error = errno;
	tls_failure_print(tls, text, sizeof text);
	ck_assert_msg(result == (let_in ? 0 : -1), "%d: %s", (int)shown, text);
	if (let_in) {
		const char *subject = shown == NOBODY ? NULL : "CN=client,O=Lab";
		ck_assert_pstr_eq(tls_client_subject(tls), subject);
	} else {
		ck_assert_int_eq(error, EPROTO);
		ck_assert_msg(tls_failure(tls) == failures[shown], "%d: %s", (int)shown, text);
		ck_assert_pstr_eq(tls_client_subject(tls), shown == NOBODY ? NULL : "CN=client,O=Lab");
		/* nothing for the service to say gets through */
		ck_assert_int_eq(tls_write(tls, "secret", 6), -1);
		ck_assert_int_le(SSL_read(client, text, sizeof text), 0);
	}
	end();
	identity_free(&identity);
}

START_TEST(nobody_gets_in_without_a_good_certificate)
{
	for (enum shown shown = GOOD; shown < SHOWN_COUNT; shown++)
		try_client(shown, versions[_i], TLS_CLIENT_REQUIRED);
}
END_TEST

START_TEST(optional_lets_in_those_without_but_nobody_with_a_bad_one)
{
	for (enum shown shown = GOOD; shown < SHOWN_COUNT; shown++)
		try_client(shown, versions[_i], TLS_CLIENT_OPTIONAL);
}
END_TEST

/* A handshake of a client that shows SHOWN. */
static void assert_comes_to(struct tls_settings settings, const struct identity *shown, enum tls_failure failure)
{
	begin(settings, TLS1_3_VERSION, shown);
	ck_assert_int_eq(shake_hands(), failure == TLS_NO_FAILURE ? 0 : -1);
	ck_assert_int_eq(tls_failure(tls), failure);
	end();
}

/* An authority below the root: its clients' list is needed; one of the root that revokes it holds where it is there. */
START_TEST(lists_of_authorities_above_hold_where_they_are_there)
{
	struct identity middle = identity_new((struct wanted){.name = "m", .issuer = &authority, .authority = true});
	struct identity shown = identity_new((struct wanted){.name = "c", .issuer = &middle, .purpose = "clientAuth"});
	struct tls_settings settings = good_settings();
	settings.client_auth = TLS_CLIENT_REQUIRED;
	settings.client_ca = write_certificate("cas.pem", "w", &authority);
	write_certificate("cas.pem", "a", &middle);

	settings.crl = write_list("lists.crl", "w", &authority, NULL, YEAR_S);
	assert_comes_to(settings, &shown, TLS_CERTIFICATE_NO_CRL);

	write_list("lists.crl", "w", &middle, NULL, YEAR_S);
	assert_comes_to(settings, &shown, TLS_NO_FAILURE);

	write_list("lists.crl", "a", &authority, &middle, YEAR_S);
	assert_comes_to(settings, &shown, TLS_CERTIFICATE_REVOKED);

	write_list("lists.crl", "w", &middle, NULL, -HOUR_S);
	assert_comes_to(settings, &shown, TLS_CERTIFICATE_NO_CRL);
	identity_free(&middle);
	identity_free(&shown);
}
END_TEST

START_TEST(a_subject_is_printable_whatever_it_holds)
{
	struct identity shown = identity_new(
		(struct wanted){.name = "a,b\n\x1b[31m\xc3\xa9", .issuer = &authority, .purpose = "clientAuth"});
	struct tls_settings settings = good_settings();
	settings.client_ca = path_of("ca.pem");
	settings.client_auth = TLS_CLIENT_REQUIRED;
	begin(settings, TLS1_3_VERSION, &shown);
	ck_assert_int_eq(shake_hands(), 0);
	ck_assert_str_eq(tls_client_subject(tls), "CN=a\\,b\\0A\\1B[31m\\C3\\A9,O=Lab");
	end();
	identity_free(&shown);
}
END_TEST

/* --- the stream --- */

START_TEST(what_is_decrypted_but_not_read_is_told_of)
{
	char bytes[1000];
	begin_session(versions[_i]);
	for (int i = 0; i < 10; i++)
		ck_assert_int_eq(SSL_write(client, "0123456789", 10), 10);
	ck_assert_int_eq(tls_read(tls, bytes, 4), 4);
	ck_assert(tls_has_pending(tls));
	ck_assert_int_eq(recv(server_fd, bytes, 1, MSG_PEEK), -1); /* no event of the socket would tell */
	ck_assert_int_eq(tls_read(tls, bytes, 90), 90);
	ck_assert_mem_eq(bytes, "456789", 6);
	ck_assert(tls_has_pending(tls));
	ck_assert_int_eq(tls_read(tls, bytes, sizeof bytes), 6);
	ck_assert(!tls_has_pending(tls));
	end();
}
END_TEST

START_TEST(data_with_close_notify_right_behind_it_is_read_whole)
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
	/* our side is open still */
	ck_assert_int_eq(tls_write(tls, "last answer", 11), 11);
	ck_assert_int_eq(tls_shutdown(tls), 0);
	ck_assert_int_eq(SSL_read(client, bytes, sizeof bytes), 11);
	assert_ended_in_order();
	end();
}
END_TEST

START_TEST(an_end_without_close_notify_is_told_after_the_data)
{
	char bytes[1000];
	begin_session(versions[_i]);
	ck_assert_int_eq(SSL_write(client, "last words", 10), 10);
	shutdown(client_fd, SHUT_WR);
	ck_assert_int_eq(tls_read(tls, bytes, sizeof bytes), 10);
	ck_assert_int_eq(tls_read(tls, bytes, sizeof bytes), 0);
	ck_assert(tls_was_truncated(tls));
	ck_assert(tls_has_pending(tls));
	/* it may read still, and is told that we end in order */
	ck_assert_int_eq(tls_write(tls, "answer", 6), 6);
	ck_assert_int_eq(tls_shutdown(tls), 0);
	ck_assert_int_eq(SSL_read(client, bytes, sizeof bytes), 6);
	assert_ended_in_order();
	end();
}
END_TEST

START_TEST(an_end_within_a_record_loses_none_of_those_before)
{
	char bytes[1000], record[64];
	begin_session(versions[_i]);
	ck_assert_int_eq(SSL_write(client, "whole", 5), 5);
	/* the first bytes of one more record, and then the end */
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

START_TEST(a_record_that_was_tampered_with_fails_the_session)
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

START_TEST(a_socket_that_is_gone_raises_no_signal)
{
	char bytes[100];
	begin_session(versions[_i]);
	end_client();
	ck_assert_int_eq(tls_read(tls, bytes, sizeof bytes), -1);
	ck_assert_int_eq(errno, EPIPE);
	end();
}
END_TEST

START_TEST(a_write_that_fails_after_the_clients_end_says_why)
{
	char bytes[100];
	begin_session(versions[_i]);
	ck_assert_int_eq(SSL_shutdown(client), 0);
	ck_assert_int_eq(tls_read(tls, bytes, sizeof bytes), 0);
	end_client();
	ck_assert_int_eq(tls_write(tls, "x", 1), -1);
	ck_assert_int_eq(errno, EPIPE);
	end();
}
END_TEST

/* The client reads nothing until the socket is full; then what was not written is offered again, from another place. */
START_TEST(a_write_goes_on_where_a_full_socket_stopped_it)
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
		ck_assert(tls_owes_write(tls) == (left > 0 && (length < 0 || (size_t)length < left)));
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

START_TEST(reads_take_what_fits_and_no_more)
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

START_TEST(close_notify_waits_for_room)
{
	begin_session(versions[_i]);
	fill_socket();
	ck_assert_int_eq(tls_shutdown(tls), -1);
	ck_assert_int_eq(errno, EAGAIN);
	ck_assert(tls_wants_write(tls));
	empty_socket();
	ck_assert_int_eq(tls_shutdown(tls), 0);
	assert_ended_in_order();
	end();
}
END_TEST

/* TLS 1.3: records without data, more than a receive takes: each read leaves some to the next, for others wait for the thread. */
START_TEST(a_read_does_not_go_on_for_ever_without_data)
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

/* TLS 1.3: a client may ask for new keys, and must be answered; where the answer has no room the read waits for it. */
START_TEST(a_read_can_wait_for_room_to_write)
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

#define VERSIONS ((int)(sizeof versions / sizeof *versions))

static Suite *tls_suite(void)
{
	Suite *suite = suite_create("tls");
	TCase *files = tcase_create("files"), *sessions = tcase_create("sessions");
	tcase_add_checked_fixture(files, set_up, tear_down);
	tcase_add_checked_fixture(sessions, set_up, tear_down);
	tcase_add_test(files, a_certificate_and_its_key_are_taken_from_one_file_or_two);
	tcase_add_test(files, a_file_that_is_not_there_is_named);
	tcase_add_test(files, a_file_of_something_else_is_named);
	tcase_add_test(files, a_second_certificate_that_is_broken_is_named);
	tcase_add_test(files, a_key_that_does_not_match_is_named);
	tcase_add_test(files, an_encrypted_key_is_named);
	tcase_add_test(files, a_key_that_everybody_can_read_is_warned_of);
	tcase_add_test(files, a_certificate_that_is_not_valid_now_is_warned_of);
	tcase_add_test(files, the_first_certificate_to_expire_tells_the_expiry);
	tcase_add_loop_test(sessions, bytes_pass_both_ways, 0, VERSIONS);
	tcase_add_loop_test(sessions, a_handshake_and_data_may_come_byte_by_byte, 0, VERSIONS);
	tcase_add_test(sessions, a_version_below_or_above_the_bounds_is_refused);
	tcase_add_test(sessions, what_is_no_tls_fails_and_stays_failed);
	tcase_add_test(sessions, a_client_that_leaves_during_the_handshake_is_told_so);
	tcase_add_loop_test(sessions, a_client_that_offers_a_session_gets_a_full_handshake, 0, VERSIONS);
	tcase_add_test(sessions, there_is_no_renegotiation);
	tcase_add_loop_test(sessions, nobody_gets_in_without_a_good_certificate, 0, VERSIONS);
	tcase_add_loop_test(sessions, optional_lets_in_those_without_but_nobody_with_a_bad_one, 0, VERSIONS);
	tcase_add_test(sessions, lists_of_authorities_above_hold_where_they_are_there);
	tcase_add_test(sessions, a_subject_is_printable_whatever_it_holds);
	tcase_add_loop_test(sessions, what_is_decrypted_but_not_read_is_told_of, 0, VERSIONS);
	tcase_add_loop_test(sessions, data_with_close_notify_right_behind_it_is_read_whole, 0, VERSIONS);
	tcase_add_loop_test(sessions, an_end_without_close_notify_is_told_after_the_data, 0, VERSIONS);
	tcase_add_loop_test(sessions, an_end_within_a_record_loses_none_of_those_before, 0, VERSIONS);
	tcase_add_loop_test(sessions, a_record_that_was_tampered_with_fails_the_session, 0, VERSIONS);
	tcase_add_loop_test(sessions, a_socket_that_is_gone_raises_no_signal, 0, VERSIONS);
	tcase_add_loop_test(sessions, a_write_that_fails_after_the_clients_end_says_why, 0, VERSIONS);
	tcase_add_loop_test(sessions, a_write_goes_on_where_a_full_socket_stopped_it, 0, VERSIONS);
	tcase_add_loop_test(sessions, reads_take_what_fits_and_no_more, 0, VERSIONS);
	tcase_add_loop_test(sessions, close_notify_waits_for_room, 0, VERSIONS);
	tcase_add_test(sessions, a_read_can_wait_for_room_to_write);
	tcase_add_test(sessions, a_read_does_not_go_on_for_ever_without_data);
	suite_add_tcase(suite, files);
	suite_add_tcase(suite, sessions);
	return suite;
}

int main(void)
{
	return check_run(tls_suite());
}
