/* check_tcp_transport.c: TCP connections over TLS that have to wait for a writable socket. */
#include <openssl/ssl.h>

#include "check_certificates.h"
#include "check_tcp.h"

/* --- a TLS client --- */

static struct identity server;
static SSL_CTX *clients;

static void set_up(void)
{
	make_directory();
	server = identity_new((struct template){.name = "localhost"});
	write_certificate("server.pem", "w", &server);
	write_key("server.key", "w", &server, NULL);
	clients = SSL_CTX_new(TLS_client_method());
	ck_assert_ptr_nonnull(clients);
}

static void tear_down(void)
{
	SSL_CTX_free(clients);
	identity_free(&server);
	remove_directory();
}

/* Serves INI, the text of one service, over TLS. */
static void serve_tls(const char *ini)
{
	char text[1024];
	snprintf(text, sizeof text, "%stls = yes\ntls_certificate = %s\ntls_key = %s\n", ini, path_of("server.pem"),
		 path_of("server.key"));
	serve(text, 1);
}

/* Returns a client that has completed its handshake. */
static SSL *connect_tls(void)
{
	SSL *client = SSL_new(clients);
	ck_assert_int_eq(SSL_set_fd(client, connect_to(0)), 1);
	ck_assert_int_eq(SSL_connect(client), 1);
	return client;
}

static void close_tls(SSL *client)
{
	close(SSL_get_fd(client));
	SSL_free(client);
}

static void assert_tls_echo(SSL *client)
{
	char byte = 'e';
	ck_assert_int_eq(SSL_write(client, &byte, 1), 1);
	byte = 0;
	ck_assert_int_eq(SSL_read(client, &byte, 1), 1);
	ck_assert_int_eq(byte, 'e');
}

static void assert_close_notify(SSL *client)
{
	char byte;
	int result = SSL_read(client, &byte, 1);
	ck_assert_int_eq(SSL_get_error(client, result), SSL_ERROR_ZERO_RETURN);
}

/* --- close_notify --- */

START_TEST(close_notify_to_full_socket_is_sent_when_writable)
{
	serve_tls(ECHO "lifetime = 1m\n");
	SSL *client = connect_tls();
	assert_tls_echo(client);
	atomic_store(&full, true);
	pass(MINUTE_MS + 1000);
	net_assert_quiet(SSL_get_fd(client));
	ck_assert_uint_eq(count_closed(), 0);
	atomic_store(&full, false);
	assert_close_notify(client);
	net_assert_end(SSL_get_fd(client));
	ck_assert_uint_eq(count_closed(), 0); /* waits for the client's FIN */
	close_tls(client);
	await_sum(METRIC_CLOSED_LIFETIME, 1);
	finish();
}
END_TEST

START_TEST(close_notify_to_socket_that_stays_full_is_given_up_after_linger_timeout)
{
	serve_tls(ECHO "lifetime = 1m\n");
	SSL *client = connect_tls();
	assert_tls_echo(client);
	atomic_store(&full, true);
	pass(MINUTE_MS + 1000);
	ck_assert_uint_eq(count_closed(), 0);
	pass(TCP_LINGER_MS + TIMER_WHEEL_TICK_MS);
	await_sum(METRIC_CLOSED_LIFETIME, 1);
	close_tls(client);
	finish();
}
END_TEST

static Suite *suite(void)
{
	Suite *suite = suite_create("tcp_transport");
	TCase *tls = add_tcase(suite, "tls");
	tcase_add_checked_fixture(tls, set_up, tear_down);
	tcase_add_test(tls, close_notify_to_full_socket_is_sent_when_writable);
	tcase_add_test(tls, close_notify_to_socket_that_stays_full_is_given_up_after_linger_timeout);
	return suite;
}

int main(void)
{
	return check_run(suite());
}
