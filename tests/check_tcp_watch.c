/* check_tcp_watch.c: edge-triggered reading of TCP connections, and polling for FIN. */
#include "check_event.h"
#include "check_tcp.h"

/* --- edge-triggered reading: a read leaves input --- */

/* Connects before a worker runs: all that the client sends meanwhile is reported by the first event. */
static int connect_ahead(const char *ini)
{
	prepare(ini, 1, UNLIMITED);
	return connect_to(0);
}

static void assert_text(int client, const char *expected)
{
	char text[64] = "";
	net_receive(client, text, strlen(expected));
	ck_assert_str_eq(text, expected);
}

static void send_urgent(int client, char byte)
{
	ck_assert_int_eq(syscall(SYS_sendto, client, &byte, 1, MSG_OOB, NULL, 0), 1);
}

START_TEST(data_and_fin_in_one_event_are_both_handled)
{
	int client = connect_ahead(ECHO);
	net_send(client, "abc", 3);
	shutdown(client, SHUT_WR);
	start();
	assert_text(client, "abc");
	net_assert_end(client);
	await_sum(METRIC_CLOSED_CLIENT, 1);
	close(client);
	finish();
}
END_TEST

START_TEST(data_behind_urgent_byte_is_echoed_before_fin)
{
	int client = connect_ahead(ECHO);
	net_send(client, "abc", 3);
	send_urgent(client, '!');
	net_send(client, "def", 3);
	shutdown(client, SHUT_WR);
	start();
	assert_text(client, "abcdef");
	net_assert_end(client);
	await_sum(METRIC_CLOSED_CLIENT, 1);
	close(client);
	finish();
}
END_TEST

/* An urgent byte is not part of the stream, but a read ends at its mark. */
START_TEST(data_behind_urgent_byte_is_echoed_after_recheck)
{
	int client = connect_ahead(ECHO);
	net_send(client, "abc", 3);
	send_urgent(client, '!');
	net_send(client, "def", 3);
	start();
	assert_text(client, "abc");
	pass(TCP_RECHECK_MS + TIMER_WHEEL_TICK_MS);
	assert_text(client, "def");
	for (int i = 0; i < 10; i++) { /* level-triggered from now on: no recheck is needed */
		net_send(client, "ghi", 3);
		send_urgent(client, '!');
		net_send(client, "jkl", 3);
		assert_text(client, "ghijkl");
	}
	close(client);
	finish();
}
END_TEST

START_TEST(recheck_after_read_does_not_restart_idle_timeout)
{
	serve(ECHO "idle_timeout = 2s\n", 1);
	int client = connect_to(0);
	for (int i = 0; i < 3; i++) {
		net_assert_echo(client);
		pass(TCP_RECHECK_MS + TIMER_WHEEL_TICK_MS);
		ck_assert_uint_eq(count_closed(), 0);
	}
	pass(1000);
	ck_assert_uint_eq(sum(METRIC_CLOSED_IDLE_TIMEOUT), 1);
	close(client);
	finish();
}
END_TEST

START_TEST(data_behind_urgent_byte_is_echoed_before_short_idle_timeout)
{
	int client = connect_ahead(ECHO "idle_timeout = 500ms\n");
	net_send(client, "abc", 3);
	send_urgent(client, '!');
	net_send(client, "def", 3);
	start();
	assert_text(client, "abc");
	pass(500 + TIMER_WHEEL_TICK_MS);
	assert_text(client, "def");
	ck_assert_uint_eq(count_closed(), 0);
	pass(500 + TIMER_WHEEL_TICK_MS);
	await_sum(METRIC_CLOSED_IDLE_TIMEOUT, 1);
	close(client);
	finish();
}
END_TEST

START_TEST(data_behind_urgent_byte_after_reply_is_discarded)
{
	serve(daytimes[_i], 1);
	int client = connect_to(0);
	assert_daytime(client);
	pass_fin_poll();
	net_send(client, "abc", 3);
	send_urgent(client, '!');
	net_send(client, "def", 3);
	await_sum(METRIC_RECEIVED_BYTES, 6); /* unread input would turn close(2) into a reset */
	close(client);
	pass_fin_poll();
	await_sum(METRIC_CLOSED_DONE, 1);
	finish();
}
END_TEST

/* --- polling for FIN --- */

/* Closes CLIENT, the last one accepted, and waits until its FIN has arrived at the accepted socket, which is open. */
static void close_and_await_fin(int client)
{
	struct pollfd accepted = {.fd = atomic_load(&last_accepted), .events = POLLRDHUP};
	close(client);
	ck_assert_int_eq(poll(&accepted, 1, NET_TIMEOUT_MS), 1);
}

static const char *const many_slots[] = {DAYTIME, DAYTIME "max_connections = 1020\n",
					 DAYTIME "max_connections_per_source = 1020\n",
					 DAYTIME "max_connections_per_source = unlimited\n"};

START_TEST(fin_after_reply_is_polled_without_epoll_ctl)
{
	enum { CLIENTS = 20 };
	serve(many_slots[_i], 1);
	host_settle(&host);
	int before = atomic_load(&epoll_changes);
	ck_assert_int_gt(before, 0);
	for (int i = 0; i < CLIENTS; i++) {
		int client = connect_to(0);
		assert_daytime(client);
		close_and_await_fin(client);
	}
	host_settle(&host);
	ck_assert_uint_eq(count_closed(), 0);
	pass(TIMER_WHEEL_SOON_MS - 1);
	ck_assert_uint_eq(count_closed(), 0);
	pass(1);
	await_sum(METRIC_CLOSED_DONE, 1);
	pass(TIMER_WHEEL_SOON_MS); /* for connections scheduled after the first */
	await_sum(METRIC_CLOSED_DONE, CLIENTS);
	await_slots(0);
	ck_assert_int_eq(atomic_load(&epoll_changes), before);
	finish();
}
END_TEST

static const struct {
	const char *limits;
	int64_t daemon_maximum;
} few_slots[] = {
	{"max_connections = 1000\n", UNLIMITED}, /* 999 are spare */
	{"max_connections_per_source = 1000\n", UNLIMITED},
	{"max_connections_per_source = unlimited\n", 1000},
	{"max_connections_per_source = auto\n", 2000},
	{"log_connections = yes\n", UNLIMITED},
};

START_TEST(fin_with_few_spare_slots_frees_slot_without_poll)
{
	char ini[256];
	snprintf(ini, sizeof ini, "%s%s", DAYTIME, few_slots[_i].limits);
	prepare(ini, 1, few_slots[_i].daemon_maximum);
	start();
	int client = connect_to(0);
	assert_daytime(client);
	close(client);
	await_sum(METRIC_CLOSED_DONE, 1); /* while the clock stands */
	await_slots(0);
	finish();
}
END_TEST

/* The read that polls fails with ECONNRESET. */
START_TEST(reset_after_reply_is_polled_without_epoll_ctl)
{
	const struct linger reset = {.l_onoff = 1};
	serve(DAYTIME, 1);
	host_settle(&host);
	int before = atomic_load(&epoll_changes), client = connect_to(0);
	assert_daytime(client);
	setsockopt(client, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
	close_and_await_fin(client);
	pass_fin_poll();
	await_sum(METRIC_CLOSED_DONE, 1);
	ck_assert_int_eq(atomic_load(&epoll_changes), before);
	finish();
}
END_TEST

START_TEST(fin_without_memory_for_poll_timer_is_reported_by_event)
{
	serve(DAYTIME, 1);
	host_settle(&host);
	atomic_store(&events_without_memory, EV_TIMEOUT);
	int client = connect_to(0);
	assert_daytime(client);
	close(client);
	await_sum(METRIC_CLOSED_DONE, 1); /* while the clock stands */
	await_slots(0);
	atomic_store(&events_without_memory, 0);
	finish();
}
END_TEST

START_TEST(lingering_connection_without_memory_for_event_is_closed)
{
	serve(DAYTIME, 1);
	host_settle(&host);
	int client = connect_to(0);
	assert_daytime(client);
	atomic_store(&events_without_memory, EV_READ);
	pass_fin_poll();
	await_sum(METRIC_CLOSED_DONE, 1);
	await_slots(0);
	atomic_store(&events_without_memory, 0);
	close(client);
	finish();
}
END_TEST

START_TEST(input_before_fin_poll_is_counted_and_limited)
{
	static char junk[TCP_LINGER_BYTES];
	serve(DAYTIME, 1);
	int client = connect_to(0), other = connect_to(0);
	assert_daytime(client);
	net_send(client, junk, 1000);
	assert_daytime(other);
	net_send(other, junk, sizeof junk);
	pass_fin_poll();
	await_sum(METRIC_CLOSED_DONE, 1);
	ck_assert_uint_eq(sum(METRIC_RECEIVED_BYTES), 1000 + sizeof junk);
	net_send(client, junk, 1000);
	close(client);
	await_sum(METRIC_CLOSED_DONE, 2);
	ck_assert_uint_eq(sum(METRIC_RECEIVED_BYTES), 2000 + sizeof junk);
	close(other);
	finish();
}
END_TEST

START_TEST(end_all_closes_connections_that_poll_for_fin)
{
	static char junk[1024];
	serve(DAYTIME, 1);
	int client = connect_to(0), other = connect_to(0);
	assert_daytime(client);
	assert_daytime(other);
	net_send(other, junk, sizeof junk);
	pass(TIMER_WHEEL_SOON_MS);
	int late = connect_to(0);
	assert_daytime(late);
	tcp_drain(tcp, host.task_queue, &idle_task);
	tcp_end_all(tcp);
	host_await(&host, &idle, 1);
	ck_assert_uint_eq(sum(METRIC_CLOSED_DONE), 3);
	ck_assert_uint_eq(count_closed(), 3);
	close(client);
	close(other);
	close(late);
	finish();
}
END_TEST

START_TEST(tcp_free_closes_connections_that_poll_for_fin)
{
	serve(DAYTIME, 1);
	int client = connect_to(0);
	assert_daytime(client);
	finish();
	ck_assert_int_eq(atomic_load(&host.gate.taken), 0);
	close(client);
}
END_TEST

static Suite *suite(void)
{
	Suite *suite = suite_create("tcp_watch");
	TCase *edges = add_tcase(suite, "edges");
	tcase_add_test(edges, data_and_fin_in_one_event_are_both_handled);
	tcase_add_test(edges, data_behind_urgent_byte_is_echoed_before_fin);
	tcase_add_test(edges, data_behind_urgent_byte_is_echoed_after_recheck);
	tcase_add_test(edges, recheck_after_read_does_not_restart_idle_timeout);
	tcase_add_test(edges, data_behind_urgent_byte_is_echoed_before_short_idle_timeout);
	tcase_add_loop_test(edges, data_behind_urgent_byte_after_reply_is_discarded, 0, 2);

	TCase *polling = add_tcase(suite, "polling");
	tcase_add_loop_test(polling, fin_after_reply_is_polled_without_epoll_ctl, 0, (int)COUNT_OF(many_slots));
	tcase_add_loop_test(polling, fin_with_few_spare_slots_frees_slot_without_poll, 0, (int)COUNT_OF(few_slots));
	tcase_add_test(polling, reset_after_reply_is_polled_without_epoll_ctl);
	tcase_add_test(polling, fin_without_memory_for_poll_timer_is_reported_by_event);
	tcase_add_test(polling, lingering_connection_without_memory_for_event_is_closed);
	tcase_add_test(polling, input_before_fin_poll_is_counted_and_limited);
	tcase_add_test(polling, end_all_closes_connections_that_poll_for_fin);
	tcase_add_test(polling, tcp_free_closes_connections_that_poll_for_fin);
	return suite;
}

int main(void)
{
	return check_run(suite());
}
