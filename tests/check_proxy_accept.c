/* check_proxy_accept.c: a PROXY header is read to its last byte, or the wait ends by deadline, error or stop. */
#include "net/proxy_accept.h"

#include <errno.h>
#include <event2/event.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "check_net.h"
#include "check_run.h"
#include "core/clock.h"

#define LINE "PROXY TCP4 192.0.2.1 198.51.100.2 4660 7\r\n"

enum { FAR_MS = 3600 * 1000, SOON_MS = 200, BUFFER_SIZE = 8192 };

/* --- callbacks --- */

static struct event_base *base;
static struct proxy_accept *proxy_accept;
static unsigned callbacks;
static enum metric last_reason; /* METRIC_COUNT: the header was read */
static const char *last_detail;
static struct proxy_header last_header;
static struct proxy_socket last_socket;

static void on_result(void *context, const struct proxy_socket *socket, const struct proxy_header *header,
		      enum metric reason, const char *detail)
{
	ck_assert_ptr_eq(context, &callbacks);
	ck_assert((header != NULL) == (reason == METRIC_COUNT));
	callbacks++;
	last_socket = *socket;
	last_reason = reason;
	last_detail = detail;
	if (header != NULL)
		last_header = *header;
}

static void set_up(void)
{
	base = event_base_new();
	ck_assert_ptr_nonnull(base);
	proxy_accept = proxy_accept_new(base, on_result, &callbacks);
	ck_assert_ptr_nonnull(proxy_accept);
	callbacks = 0;
}

static void tear_down(void)
{
	proxy_accept_free(proxy_accept);
	event_base_free(base);
}

/* --- sockets --- */

static void make_pair(int fds[2])
{
	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
}

static void close_pair(const int fds[2])
{
	close(fds[0]);
	close(fds[1]);
}

static bool wait_for(int fd, void *owner, uint64_t within_ms)
{
	struct proxy_socket socket = {.fd = fd, .owner = owner, .accepted_ms = clock_ms()};
	return proxy_accept_wait(proxy_accept, &socket, socket.accepted_ms + within_ms);
}

/* Runs the pending events without waiting. */
static void run_events(void)
{
	ck_assert_int_ge(event_base_loop(base, EVLOOP_NONBLOCK), 0);
}

static void assert_result(enum metric reason, const char *detail)
{
	ck_assert_uint_eq(callbacks, 1);
	ck_assert_int_eq(last_reason, reason);
	ck_assert_pstr_eq(last_detail, detail);
}

/* Asserts that REST is left in the socket. */
static void assert_left(int fd, const char *rest)
{
	char bytes[100];
	ssize_t length = recv(fd, bytes, sizeof bytes, 0);
	ck_assert_int_eq(length, (ssize_t)strlen(rest));
	ck_assert_mem_eq(bytes, rest, (size_t)length);
}

/* --- tests --- */

START_TEST(header_that_has_arrived_is_read_at_once)
{
	int fds[2], owner;
	make_pair(fds);
	net_send(fds[0], LINE "hello", strlen(LINE "hello"));
	ck_assert(wait_for(fds[1], &owner, FAR_MS));
	assert_result(METRIC_COUNT, NULL);
	ck_assert(last_header.has_source);
	ck_assert_uint_eq(last_header.source_port, 4660);
	ck_assert_int_eq(last_socket.fd, fds[1]);
	ck_assert_ptr_eq(last_socket.owner, &owner);
	assert_left(fds[1], "hello");
	close_pair(fds);
}
END_TEST

START_TEST(header_in_two_parts_is_read_without_the_bytes_after_it)
{
	int fds[2];
	for (size_t at = 0; at < strlen(LINE); at++) {
		make_pair(fds);
		callbacks = 0;
		net_send(fds[0], LINE, at);
		ck_assert(wait_for(fds[1], NULL, FAR_MS));
		run_events();
		ck_assert_uint_eq(callbacks, 0);
		/* the bytes are consumed: the loop does not spin */
		ck_assert_int_eq(poll(&(struct pollfd){.fd = fds[1], .events = POLLIN}, 1, 0), 0);
		net_send(fds[0], &(LINE "hello")[at], strlen(LINE "hello") - at);
		run_events();
		assert_result(METRIC_COUNT, NULL);
		assert_left(fds[1], "hello");
		close_pair(fds);
	}
}
END_TEST

START_TEST(longest_header_is_read_byte_by_byte)
{
	static char bytes[BUFFER_SIZE];
	int fds[2];
	memcpy(bytes, "\r\n\r\n\0\r\nQUIT\n\x21\x11\x0f\xf0", 16);
	memcpy(bytes + 28, "\x04\x0f\xe1", 3);
	memcpy(bytes + PROXY_HEADER_MAX, "x", 1);
	make_pair(fds);
	ck_assert(wait_for(fds[1], NULL, FAR_MS));
	for (size_t i = 0; i < PROXY_HEADER_MAX; i++) {
		ck_assert_uint_eq(callbacks, 0);
		net_send(fds[0], bytes + i, 1);
		run_events();
	}
	assert_result(METRIC_COUNT, NULL);
	ck_assert_uint_eq(last_header.length, PROXY_HEADER_MAX);
	close_pair(fds);
}
END_TEST

START_TEST(invalid_header_is_reported_with_its_reason)
{
	int fds[2];
	make_pair(fds);
	net_send(fds[0], "GET / HTTP/1.0\r\n", 16);
	ck_assert(wait_for(fds[1], NULL, FAR_MS));
	assert_result(METRIC_REFUSED_PROXY_HEADER, "no PROXY header");
	close_pair(fds);
}
END_TEST

START_TEST(fin_before_the_end_of_the_header_is_reported)
{
	int fds[2];
	make_pair(fds);
	net_send(fds[0], LINE, 10);
	ck_assert(wait_for(fds[1], NULL, FAR_MS));
	shutdown(fds[0], SHUT_WR);
	run_events();
	assert_result(METRIC_REFUSED_PROXY_HEADER, "connection closed by the proxy");
	close_pair(fds);
}
END_TEST

START_TEST(socket_error_is_reported)
{
	/* receiving fails: the socket is not connected */
	int alone = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	ck_assert_int_ge(alone, 0);
	ck_assert(wait_for(alone, NULL, FAR_MS));
	assert_result(METRIC_REFUSED_PROXY_HEADER, strerror(ENOTCONN));
	close(alone);
}
END_TEST

START_TEST(input_does_not_move_the_deadline)
{
	int fds[2];
	make_pair(fds);
	uint64_t began_ms = clock_ms();
	ck_assert(wait_for(fds[1], NULL, SOON_MS));
	for (size_t sent = 0; callbacks == 0;) {
		if (sent < 30)
			net_send(fds[0], &LINE[sent++], 1);
		ck_assert_int_ge(event_base_loop(base, EVLOOP_ONCE), 0);
	}
	assert_result(METRIC_REFUSED_HANDSHAKE_TIMEOUT, NULL);
	ck_assert_uint_ge(clock_ms(), began_ms + SOON_MS);
	close_pair(fds);
}
END_TEST

static int chosen;

static bool is_chosen(const struct proxy_socket *socket)
{
	return socket->owner == &chosen;
}

START_TEST(stop_ends_the_wait_of_the_matching_sockets)
{
	int one[2], other[2];
	make_pair(one);
	make_pair(other);
	ck_assert(wait_for(one[1], NULL, FAR_MS));
	ck_assert(wait_for(other[1], &chosen, FAR_MS));
	proxy_accept_stop(proxy_accept, is_chosen);
	assert_result(METRIC_REFUSED_STOP, NULL);
	ck_assert_int_eq(last_socket.fd, other[1]);
	proxy_accept_stop(proxy_accept, is_chosen);
	ck_assert_uint_eq(callbacks, 1);
	proxy_accept_stop(proxy_accept, NULL);
	ck_assert_uint_eq(callbacks, 2);
	ck_assert_int_eq(last_socket.fd, one[1]);
	close_pair(one);
	close_pair(other);
}
END_TEST

static Suite *proxy_accept_suite(void)
{
	Suite *suite = suite_create("proxy_accept");
	TCase *tests = tcase_create("proxy_accept");
	tcase_add_checked_fixture(tests, set_up, tear_down);
	tcase_add_test(tests, header_that_has_arrived_is_read_at_once);
	tcase_add_test(tests, header_in_two_parts_is_read_without_the_bytes_after_it);
	tcase_add_test(tests, longest_header_is_read_byte_by_byte);
	tcase_add_test(tests, invalid_header_is_reported_with_its_reason);
	tcase_add_test(tests, fin_before_the_end_of_the_header_is_reported);
	tcase_add_test(tests, socket_error_is_reported);
	tcase_add_test(tests, input_does_not_move_the_deadline);
	tcase_add_test(tests, stop_ends_the_wait_of_the_matching_sockets);
	suite_add_tcase(suite, tests);
	return suite;
}

int main(void)
{
	return check_run(proxy_accept_suite());
}
