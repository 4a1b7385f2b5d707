/* check_tcp_connection.c: TCP connections: input and output of the services, backpressure, close, deadlines. */
#include <linux/tcp.h> /* netinet/tcp.h counts no segments */
#include <sys/resource.h>

#include "check_stderr.h"
#include "check_tcp.h"

/* --- echo --- */

/* One of several concurrent clients. */
struct talk {
	int fd;
	unsigned number;
	uint64_t length, sent, received;
	bool ended;
};

/* Sends a piece of random size, and FIN after the last. */
static void talk_send(struct talk *talk)
{
	static char bytes[70000];
	uint64_t left = talk->length - talk->sent;
	size_t length = 1 + next_random(next_random(3) == 0 ? 10 : sizeof bytes);
	if (length > left)
		length = left;
	net_fill(bytes, length, talk->number, talk->sent);
	ssize_t sent = send(talk->fd, bytes, length, MSG_NOSIGNAL | MSG_DONTWAIT);
	ck_assert_msg(sent > 0 || errno == EAGAIN, "send: %s", strerror(errno));
	talk->sent += sent > 0 ? (uint64_t)sent : 0;
	if (talk->sent == talk->length)
		shutdown(talk->fd, SHUT_WR);
}

static void talk_receive(struct talk *talk)
{
	static char bytes[70000];
	ssize_t length = recv(talk->fd, bytes, 1 + next_random(sizeof bytes), MSG_DONTWAIT);
	if (length < 0 && errno == EAGAIN)
		return;
	ck_assert_msg(length >= 0, "client %u: after %llu bytes: %s", talk->number, (unsigned long long)talk->received,
		      strerror(errno));
	net_assert_bytes(bytes, (size_t)length, talk->number, talk->received);
	talk->received += (uint64_t)length;
	talk->ended = length == 0;
}

/* Each client sends its LENGTH bytes, and receives them and FIN. */
static void talk_all(struct talk *talks, unsigned count)
{
	struct pollfd polls[CLIENTS_MAX];
	for (unsigned ended = 0; ended < count;) {
		for (unsigned i = 0; i < count; i++) {
			short wants = talks[i].sent < talks[i].length ? POLLIN | POLLOUT : POLLIN;
			polls[i] = (struct pollfd){.fd = talks[i].ended ? -1 : talks[i].fd, .events = wants};
		}
		ck_assert_msg(poll(polls, count, NET_TIMEOUT_MS) > 0, "no event within the time limit");
		ended = 0;
		for (unsigned i = 0; i < count; i++) {
			if (polls[i].revents & POLLOUT && talks[i].sent < talks[i].length)
				talk_send(&talks[i]);
			if (polls[i].revents & (POLLIN | POLLHUP | POLLERR))
				talk_receive(&talks[i]);
			ended += talks[i].ended;
		}
	}
	for (unsigned i = 0; i < count; i++)
		ck_assert_uint_eq(talks[i].received, talks[i].length);
}

static void talk_to(unsigned endpoint, unsigned count, uint64_t length)
{
	static struct talk talks[CLIENTS_MAX];
	for (unsigned i = 0; i < count; i++)
		talks[i] = (struct talk){.fd = connect_to(endpoint), .number = i, .length = length};
	talk_all(talks, count);
	for (unsigned i = 0; i < count; i++)
		close(talks[i].fd);
}

START_TEST(echo_returns_every_byte_in_order_for_any_segmentation)
{
	enum { LENGTH = 3 * 1024 * 1024 };
	serve(ECHO, 1);
	talk_to(0, 1, LENGTH);
	await_sum(METRIC_CLOSED_CLIENT, 1);
	ck_assert_uint_eq(sum(METRIC_RECEIVED_BYTES), LENGTH);
	ck_assert_uint_eq(sum(METRIC_SENT_BYTES), LENGTH);
	ck_assert_uint_eq(sum(METRIC_ACCEPTED), 1);
	finish();
}
END_TEST

START_TEST(echo_returns_each_single_byte_at_once)
{
	serve(ECHO, 1);
	int client = connect_to(0);
	for (int i = 0; i < 100; i++)
		net_assert_echo(client);
	close(client);
	finish();
}
END_TEST

START_TEST(echo_serves_ipv4_and_ipv6)
{
	serve("[echo]\nprotocol = tcp\naddress = 127.0.0.1, ::1\nport = 0\n", WORKERS);
	for (unsigned i = 0; i < endpoint_count; i++)
		talk_to(i, 4, 100000);
	finish();
}
END_TEST

START_TEST(echo_to_64_concurrent_clients_returns_to_each_its_own_bytes)
{
	enum { CLIENTS = 64, LENGTH = 100000 };
	serve(ECHO, WORKERS);
	talk_to(0, CLIENTS, LENGTH);
	await_sum(METRIC_CLOSED_CLIENT, CLIENTS);
	ck_assert_uint_eq(sum(METRIC_ACCEPTED), CLIENTS);
	ck_assert_uint_eq(sum(METRIC_SENT_BYTES), (uint64_t)CLIENTS * LENGTH);
	await_slots(0);
	finish();
}
END_TEST

START_TEST(half_closed_client_receives_remaining_echo_then_fin)
{
	static char bytes[20000];
	serve(ECHO, 1);
	int client = connect_to(0);
	net_fill(bytes, sizeof bytes, 1, 0);
	net_send(client, bytes, sizeof bytes);
	shutdown(client, SHUT_WR);
	memset(bytes, 0, sizeof bytes);
	net_receive(client, bytes, sizeof bytes);
	net_assert_bytes(bytes, sizeof bytes, 1, 0);
	net_assert_end(client);
	close(client);
	finish();
}
END_TEST

START_TEST(fin_of_silent_client_is_answered_with_fin)
{
	serve(ECHO, 1);
	int client = connect_to(0);
	shutdown(client, SHUT_WR);
	net_assert_end(client);
	await_sum(METRIC_CLOSED_CLIENT, 1);
	close(client);
	finish();
}
END_TEST

START_TEST(reset_by_client_is_counted_as_reset)
{
	const struct linger reset = {.l_onoff = 1};
	serve(ECHO, 1);
	int client = connect_to(0);
	net_assert_echo(client);
	ck_assert_int_eq(setsockopt(client, SOL_SOCKET, SO_LINGER, &reset, sizeof reset), 0);
	close(client);
	await_sum(METRIC_CLOSED_RESET, 1);
	ck_assert_uint_eq(count_closed(), 1);
	finish();
}
END_TEST

/* --- backpressure --- */

/* Reads stream NUMBER from its start to its end. */
static void assert_stream(int fd, unsigned number, uint64_t length)
{
	static char bytes[64 * 1024];
	for (uint64_t at = 0; at < length;) {
		size_t part = length - at < sizeof bytes ? (size_t)(length - at) : sizeof bytes;
		net_receive(fd, bytes, part);
		net_assert_bytes(bytes, part, number, at);
		at += part;
	}
	net_assert_end(fd);
}

START_TEST(short_send_pauses_reading_until_client_reads)
{
	uint64_t sent = 0;
	send_buffer = SMALL_BUFFER;
	serve(ECHO, 1);
	int client = connect_with_small_buffer();
	flood(&client, &sent, 1);
	shutdown(client, SHUT_WR);
	assert_stream(client, 0, sent);
	close(client);
	await_sum(METRIC_CLOSED_CLIENT, 1);
	finish();
}
END_TEST

START_TEST(unsent_bytes_per_slow_reader_are_bounded_by_scratch_buffer)
{
	enum { SLOW = 24 };
	int clients[SLOW];
	uint64_t sent[SLOW] = {0};

	send_buffer = SMALL_BUFFER;
	receive_buffer = 2 * TCP_SCRATCH_SIZE;
	serve(ECHO, WORKERS);
	for (unsigned i = 0; i < SLOW; i++)
		clients[i] = connect_with_small_buffer();
	flood(clients, sent, SLOW);
	ck_assert_uint_le(count_held(), (uint64_t)SLOW * TCP_SCRATCH_SIZE);
	talk_to(0, 4, 10000); /* other clients are not delayed */
	for (unsigned i = 0; i < SLOW; i++) {
		shutdown(clients[i], SHUT_WR);
		assert_stream(clients[i], i, sent[i]);
	}
	close_all(clients, SLOW);
	finish();
}
END_TEST

/* Sends TCP_SCRATCH_SIZE bytes, which the worker receives and cannot send. Returns the count that it received. */
static uint64_t send_unanswered(int client)
{
	static char bytes[TCP_SCRATCH_SIZE];
	uint64_t before = sum(METRIC_RECEIVED_BYTES);
	net_send(client, bytes, sizeof bytes);
	for (int left = NET_TIMEOUT_MS; sum(METRIC_RECEIVED_BYTES) == before;)
		net_rest(&left);
	return sum(METRIC_RECEIVED_BYTES) - before;
}

START_TEST(worker_above_unsent_limit_reads_small_pieces)
{
	enum { DESCRIPTORS = 4096, MOST = DESCRIPTORS / 4 };
	static int clients[MOST];
	struct rlimit limit;
	unsigned count = 0;

	ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &limit), 0);
	limit.rlim_cur = limit.rlim_max < DESCRIPTORS ? limit.rlim_max : DESCRIPTORS;
	ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
	receive_buffer = 4 * TCP_SCRATCH_SIZE;
	serve(ECHO, 1);
	atomic_store(&full, true);
	while (sum(METRIC_RECEIVED_BYTES) <= TCP_UNSENT_HIGH) {
		ck_assert_uint_lt(count, MOST - 1);
		clients[count] = connect_to(0);
		ck_assert_uint_le(send_unanswered(clients[count++]), TCP_SCRATCH_SIZE);
	}
	for (int i = 0; i < 5; i++) {
		clients[count] = connect_to(0);
		ck_assert_uint_le(send_unanswered(clients[count++]), TCP_READ_SMALL);
	}
	ck_assert_uint_eq(sum(METRIC_SENT_BYTES), 0);
	close_all(clients, count);
	finish();
}
END_TEST

START_TEST(client_closing_with_unread_echo_frees_its_slot)
{
	send_buffer = SMALL_BUFFER;
	serve(ECHO, 1);
	int client = connect_stuck();
	close(client);
	await_sum(METRIC_CLOSED_RESET, 1);
	await_slots(0);
	finish();
}
END_TEST

/* --- lingering close --- */

START_TEST(daytime_sends_one_line_then_fin)
{
	serve(daytimes[_i], 1);
	int client = connect_to(0);
	assert_daytime(client);
	close(client);
	pass_fin_poll();
	await_sum(METRIC_CLOSED_DONE, 1);
	ck_assert_uint_eq(count_closed(), 1);
	finish();
}
END_TEST

START_TEST(daytime_line_and_fin_leave_in_one_packet)
{
	struct tcp_info info = {0};
	socklen_t length = sizeof info;

	serve(daytimes[_i], 1);
	int client = connect_to(0);
	assert_daytime(client);
	ck_assert_int_eq(getsockopt(client, IPPROTO_TCP, TCP_INFO, &info, &length), 0);
	ck_assert_int_eq(info.tcpi_segs_in, 2); /* SYN+ACK, and the line with FIN */
	close(client);
	finish();
}
END_TEST

/* The input has arrived before the daemon accepts: close(2) without shutdown(2) would send a reset. */
START_TEST(daytime_reply_survives_unread_input)
{
	enum { CLIENTS = 20 };
	static char junk[48 * 1024];
	int clients[CLIENTS];
	prepare(daytimes[_i], 1, UNLIMITED);
	connect_many(clients, CLIENTS);
	for (int i = 0; i < CLIENTS; i++) {
		net_send(clients[i], junk, sizeof junk);
		shutdown(clients[i], SHUT_WR);
	}
	start();
	for (int i = 0; i < CLIENTS; i++)
		assert_daytime(clients[i]);
	pass_fin_poll();
	await_sum(METRIC_CLOSED_DONE, CLIENTS);
	ck_assert_uint_eq(sum(METRIC_CLOSED_RESET), 0);
	close_all(clients, CLIENTS);
	finish();
}
END_TEST

START_TEST(daytime_reply_survives_input_after_it)
{
	static char junk[16 * 1024];
	serve(daytimes[_i], 1);
	int client = connect_to(0);
	net_wait(client, POLLIN);
	net_send(client, junk, sizeof junk);
	assert_daytime(client);
	close(client);
	pass_fin_poll();
	await_sum(METRIC_CLOSED_DONE, 1);
	finish();
}
END_TEST

START_TEST(daytime_reply_to_full_socket_is_sent_when_writable)
{
	static char junk[1024];
	prepare(daytimes[_i], 1, UNLIMITED);
	atomic_store(&full, true);
	start();
	int client = connect_to(0);
	await_sum(METRIC_ACCEPTED, 1);
	net_assert_quiet(client);
	atomic_store(&full, false);
	net_wait(client, POLLIN);
	net_send(client, junk, sizeof junk); /* does not cause a reset */
	assert_daytime(client);
	ck_assert_uint_eq(count_closed(), 0); /* waits for the client's FIN */
	close(client);
	await_sum(METRIC_CLOSED_DONE, 1);
	finish();
}
END_TEST

START_TEST(client_without_fin_after_reply_is_closed_after_linger_timeout)
{
	serve(daytimes[_i], 1);
	int client = connect_to(0);
	assert_daytime(client);
	pass_fin_poll();
	pass(TCP_LINGER_MS - 200);
	ck_assert_uint_eq(count_closed(), 0);
	pass(400);
	ck_assert_uint_eq(sum(METRIC_CLOSED_DONE), 1);
	close(client);
	finish();
}
END_TEST

START_TEST(input_within_linger_limit_after_reply_does_not_close)
{
	static char junk[1024];
	serve(daytimes[_i], 1);
	int client = connect_to(0);
	assert_daytime(client);
	pass_fin_poll();
	for (int i = 0; i < 20; i++) {
		net_send(client, junk, sizeof junk);
		host_settle(&host);
	}
	ck_assert_uint_eq(count_closed(), 0);
	shutdown(client, SHUT_WR);
	await_sum(METRIC_CLOSED_DONE, 1);
	close(client);
	finish();
}
END_TEST

START_TEST(input_above_linger_limit_after_reply_closes)
{
	static char junk[4096];
	uint64_t sent = 0;
	serve(daytimes[_i], 1);
	int client = connect_to(0);
	assert_daytime(client);
	pass_fin_poll();
	while (sent < STREAM_MAX && send(client, junk, sizeof junk, MSG_NOSIGNAL) > 0)
		sent += sizeof junk;
	ck_assert_uint_lt(sent, STREAM_MAX);
	ck_assert_uint_ge(sent, TCP_LINGER_BYTES);
	await_sum(METRIC_CLOSED_DONE, 1);
	close(client);
	finish();
}
END_TEST

/* --- services --- */

/* discard never sends, so that no send(2) can fail with ECONNRESET. */
START_TEST(discard_with_reset_behind_data_closes_at_once)
{
	const struct linger reset = {.l_onoff = 1};
	static char junk[1000];
	struct hold hold;
	serve(DISCARD, 1);
	int client = connect_to(0);
	setsockopt(client, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
	await_sum(METRIC_ACCEPTED, 1);
	hold_worker(&hold, host.workers[0]);
	net_send(client, junk, sizeof junk);
	close(client);
	sem_post(&hold.over);
	await_sum(METRIC_CLOSED_RESET, 1); /* while the clock stands */
	finish();
}
END_TEST

START_TEST(discard_reads_all_input_and_sends_nothing)
{
	enum { LENGTH = 1024 * 1024 };
	static char junk[LENGTH];
	serve(DISCARD, 1);
	int client = connect_to(0);
	net_send(client, junk, LENGTH);
	await_sum(METRIC_RECEIVED_BYTES, LENGTH);
	net_assert_quiet(client);
	shutdown(client, SHUT_WR);
	net_assert_end(client);
	ck_assert_uint_eq(sum(METRIC_SENT_BYTES), 0);
	close(client);
	finish();
}
END_TEST

/* Returns byte AT by RFC 864: line L has 72 characters of the ring, from character L on. */
static char chargen_byte(uint64_t at)
{
	uint64_t line = at / 74 % 95, column = at % 74;
	if (column >= 72)
		return column == 72 ? '\r' : '\n';
	return (char)(' ' + (line + column) % 95);
}

static void assert_chargen(int client, uint64_t from, uint64_t length)
{
	static char bytes[64 * 1024];
	for (uint64_t at = from; at < from + length;) {
		uint64_t left = from + length - at;
		size_t part = 1 + next_random(left < sizeof bytes ? left : sizeof bytes);
		net_receive(client, bytes, part);
		size_t right = 0;
		while (right < part && bytes[right] == chargen_byte(at + right))
			right++;
		ck_assert_msg(right == part, "byte %llu is wrong", (unsigned long long)(at + right));
		at += part;
	}
}

START_TEST(chargen_output_is_continuous_and_independent_of_input)
{
	static char junk[30000];
	serve(CHARGEN, 1);
	int client = connect_to(0);
	net_send(client, junk, sizeof junk);
	assert_chargen(client, 0, 8 * 1024 * 1024);
	close(client);
	await_sum(METRIC_CLOSED_RESET, 1);
	finish();
}
END_TEST

START_TEST(chargen_continues_after_half_close)
{
	serve(CHARGEN, 1);
	int client = connect_to(0);
	shutdown(client, SHUT_WR);
	assert_chargen(client, 0, 4 * 1024 * 1024);
	close(client);
	await_sum(METRIC_CLOSED_RESET, 1);
	finish();
}
END_TEST

START_TEST(chargen_to_slow_reader_does_not_delay_other_clients)
{
	send_buffer = SMALL_BUFFER;
	serve(CHARGEN, 1);
	int slow = connect_with_small_buffer();
	net_wait(slow, POLLIN);
	int other = connect_to(0);
	assert_chargen(other, 0, 1024 * 1024);
	assert_chargen(slow, 0, 1024 * 1024);
	close(slow);
	close(other);
	await_sum(METRIC_CLOSED_RESET, 2);
	finish();
}
END_TEST

/* --- deadlines, with a stopped clock --- */

#define IDLE ECHO "idle_timeout = 10m\n"

START_TEST(silent_connection_is_closed_at_idle_timeout)
{
	serve(IDLE, 1);
	int client = connect_to(0);
	net_assert_echo(client);
	pass(10 * MINUTE_MS - 1000);
	ck_assert_uint_eq(count_closed(), 0);
	pass(2000);
	ck_assert_uint_eq(sum(METRIC_CLOSED_IDLE_TIMEOUT), 1);
	net_assert_end(client);
	close(client);
	finish();
}
END_TEST

START_TEST(input_restarts_idle_timeout)
{
	serve(IDLE, 1);
	int client = connect_to(0);
	for (int i = 0; i < 5; i++) {
		net_assert_echo(client);
		pass(10 * MINUTE_MS - 1000);
		ck_assert_uint_eq(count_closed(), 0);
	}
	pass(2000);
	ck_assert_uint_eq(sum(METRIC_CLOSED_IDLE_TIMEOUT), 1);
	close(client);
	finish();
}
END_TEST

START_TEST(late_proxy_header_does_not_shorten_idle_timeout)
{
	static const char header[] = "PROXY TCP4 192.0.2.1 192.0.2.2 1 7\r\n";
	serve(ECHO "idle_timeout = 2s\nproxy_protocol = on\nproxy_from = 127.0.0.1\n", 1);
	int client = connect_to(0);
	await_slots(1);
	pass(5000);
	net_send(client, header, sizeof header - 1);
	await_sum(METRIC_ACCEPTED, 1);
	pass(1000);
	ck_assert_uint_eq(count_closed(), 0);
	net_assert_echo(client);
	close(client);
	finish();
}
END_TEST

START_TEST(output_restarts_idle_timeout)
{
	enum { PART = 1000000 };
	serve(CHARGEN "idle_timeout = 10m\n", 1);
	int client = connect_to(0);
	for (int i = 0; i < 5; i++) {
		assert_chargen(client, (uint64_t)i * PART, PART);
		pass(10 * MINUTE_MS - 1000);
		ck_assert_uint_eq(count_closed(), 0);
	}
	pass(2000);
	ck_assert_uint_eq(sum(METRIC_CLOSED_IDLE_TIMEOUT), 1);
	close(client);
	finish();
}
END_TEST

START_TEST(silent_connection_without_idle_timeout_stays_open)
{
	serve(ECHO "idle_timeout = off\n", 1);
	int client = connect_to(0);
	net_assert_echo(client);
	for (int day = 0; day < 3; day++)
		pass(24 * 60 * MINUTE_MS);
	ck_assert_uint_eq(count_closed(), 0);
	net_assert_echo(client);
	close(client);
	finish();
}
END_TEST

/* FIN would make a truncated stream look complete. */
START_TEST(idle_timeout_with_unsent_output_resets)
{
	send_buffer = SMALL_BUFFER;
	serve(IDLE, 1);
	int client = connect_stuck();
	pass(11 * MINUTE_MS);
	ck_assert_uint_eq(sum(METRIC_CLOSED_IDLE_TIMEOUT), 1);
	net_assert_reset(client);
	close(client);
	finish();
}
END_TEST

/* No input is unread, which would cause a reset as well. */
START_TEST(idle_timeout_with_unacknowledged_output_resets)
{
	serve(CHARGEN "idle_timeout = 10m\n", 1);
	int client = connect_with_small_buffer();
	net_wait(client, POLLIN);
	for (int left = NET_TIMEOUT_MS; sum(METRIC_CLOSED_IDLE_TIMEOUT) == 0; pass(11 * MINUTE_MS))
		net_rest(&left); /* until the send buffer is full */
	net_assert_reset(client);
	close(client);
	finish();
}
END_TEST

START_TEST(busy_connection_is_closed_with_fin_at_its_lifetime)
{
	serve(ECHO "lifetime = 10m\n", 1);
	int client = connect_to(0);
	for (int i = 0; i < 9; i++) {
		net_assert_echo(client);
		pass(MINUTE_MS);
	}
	pass(MINUTE_MS - 1000);
	net_assert_echo(client);
	ck_assert_uint_eq(count_closed(), 0);
	pass(2000);
	net_send(client, "too late", 8);
	net_assert_end(client);
	close(client);
	await_sum(METRIC_CLOSED_LIFETIME, 1);
	ck_assert_uint_eq(count_closed(), 1);
	finish();
}
END_TEST

START_TEST(endless_output_is_closed_at_lifetime)
{
	serve(CHARGEN "lifetime = 10m\n", 1);
	int client = connect_to(0);
	assert_chargen(client, 0, 100000);
	pass(10 * MINUTE_MS + 1000);
	net_receive_rest(client);
	close(client);
	await_sum(METRIC_CLOSED_LIFETIME, 1);
	finish();
}
END_TEST

START_TEST(each_connection_is_closed_at_its_own_idle_timeout)
{
	enum { CLIENTS = 60 };
	int clients[CLIENTS];
	serve(IDLE, WORKERS);
	for (unsigned i = 0; i < CLIENTS; i++) {
		clients[i] = connect_to(0);
		net_assert_echo(clients[i]);
		ck_assert_uint_eq(count_closed(), 0);
		pass(10000);
	}
	/* the first has been silent for 10 minutes, each next one for 10 seconds less */
	for (unsigned i = 0; i < CLIENTS; i++) {
		pass(5000);
		ck_assert_uint_eq(sum(METRIC_CLOSED_IDLE_TIMEOUT), i + 1);
		pass(5000);
	}
	close_all(clients, CLIENTS);
	finish();
}
END_TEST

/* --- the log --- */

START_TEST(log_connections_logs_each_closed_connection)
{
	char expected[128];
	serve(ECHO "log_connections = yes\n", 1);
	log_open(LOG_TO_STDERR, LOG_NOTICE, LOG_DAEMON);
	int client = connect_to(0);
	struct socket_address name = net_name(client);
	net_assert_echo(client);
	net_assert_echo(client);
	close(client);
	await_sum(METRIC_CLOSED_CLIENT, 1);
	host_settle(&host);
	stderr_begin();
	log_close();
	const char *line = stderr_end();
	snprintf(expected, sizeof expected, "echo: tcp 127.0.0.1:%u closed: client, ", socket_address_port(&name));
	ck_assert_msg(strncmp(line, expected, strlen(expected)) == 0, "%s", line);
	ck_assert_ptr_nonnull(strstr(line, " s, 2 bytes received, 2 sent\n"));
	finish();
}
END_TEST

static Suite *suite(void)
{
	Suite *suite = suite_create("tcp_connection");
	TCase *echo = add_tcase(suite, "echo");
	tcase_add_test(echo, echo_returns_every_byte_in_order_for_any_segmentation);
	tcase_add_test(echo, echo_returns_each_single_byte_at_once);
	tcase_add_test(echo, echo_serves_ipv4_and_ipv6);
	tcase_add_test(echo, echo_to_64_concurrent_clients_returns_to_each_its_own_bytes);
	tcase_add_test(echo, half_closed_client_receives_remaining_echo_then_fin);
	tcase_add_test(echo, fin_of_silent_client_is_answered_with_fin);
	tcase_add_test(echo, reset_by_client_is_counted_as_reset);

	TCase *backpressure = add_tcase(suite, "backpressure");
	tcase_add_test(backpressure, short_send_pauses_reading_until_client_reads);
	tcase_add_test(backpressure, unsent_bytes_per_slow_reader_are_bounded_by_scratch_buffer);
	tcase_add_test(backpressure, worker_above_unsent_limit_reads_small_pieces);
	tcase_add_test(backpressure, client_closing_with_unread_echo_frees_its_slot);

	TCase *lingering = add_tcase(suite, "lingering");
	tcase_add_loop_test(lingering, daytime_sends_one_line_then_fin, 0, 2);
	tcase_add_loop_test(lingering, daytime_line_and_fin_leave_in_one_packet, 0, 2);
	tcase_add_loop_test(lingering, daytime_reply_survives_unread_input, 0, 2);
	tcase_add_loop_test(lingering, daytime_reply_survives_input_after_it, 0, 2);
	tcase_add_loop_test(lingering, daytime_reply_to_full_socket_is_sent_when_writable, 0, 2);
	tcase_add_loop_test(lingering, client_without_fin_after_reply_is_closed_after_linger_timeout, 0, 2);
	tcase_add_loop_test(lingering, input_within_linger_limit_after_reply_does_not_close, 0, 2);
	tcase_add_loop_test(lingering, input_above_linger_limit_after_reply_closes, 0, 2);

	TCase *services = add_tcase(suite, "services");
	tcase_add_test(services, discard_with_reset_behind_data_closes_at_once);
	tcase_add_test(services, discard_reads_all_input_and_sends_nothing);
	tcase_add_test(services, chargen_output_is_continuous_and_independent_of_input);
	tcase_add_test(services, chargen_continues_after_half_close);
	tcase_add_test(services, chargen_to_slow_reader_does_not_delay_other_clients);

	TCase *deadlines = add_tcase(suite, "deadlines");
	tcase_add_test(deadlines, silent_connection_is_closed_at_idle_timeout);
	tcase_add_test(deadlines, input_restarts_idle_timeout);
	tcase_add_test(deadlines, late_proxy_header_does_not_shorten_idle_timeout);
	tcase_add_test(deadlines, output_restarts_idle_timeout);
	tcase_add_test(deadlines, silent_connection_without_idle_timeout_stays_open);
	tcase_add_test(deadlines, idle_timeout_with_unsent_output_resets);
	tcase_add_test(deadlines, idle_timeout_with_unacknowledged_output_resets);
	tcase_add_test(deadlines, busy_connection_is_closed_with_fin_at_its_lifetime);
	tcase_add_test(deadlines, endless_output_is_closed_at_lifetime);
	tcase_add_test(deadlines, each_connection_is_closed_at_its_own_idle_timeout);

	TCase *log = add_tcase(suite, "log");
	tcase_add_test(log, log_connections_logs_each_closed_connection);
	return suite;
}

int main(void)
{
	return check_run(suite());
}
