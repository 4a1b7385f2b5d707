/* check_tcp.c: TCP listeners: accepting, limits, stop, generations. */
#include "check_tcp.h"

/* --- workers --- */

/* The kernel selects a listener by a hash of both addresses and ports. Of 1000 connections a worker gets 500 with a
 * standard deviation of 16, so 10 % are exceeded once in 600 draws, and three times in a row practically never. */
START_TEST(kernel_distributes_1000_connections_over_two_workers_within_10_percent)
{
	enum { COUNT = 1000, DRAWS = 3, OFF = COUNT / 2 / 10 };
	uint64_t least = 0;
	serve(ECHO, WORKERS);
	for (uint64_t draw = 1; draw <= DRAWS && least < COUNT / 2 - OFF; draw++) {
		uint64_t before[WORKERS], share[WORKERS];
		for (unsigned i = 0; i < WORKERS; i++)
			before[i] = host_instance(&host, 0)->tcp[i].values[METRIC_ACCEPTED];
		for (unsigned i = 0; i < COUNT; i++)
			close(connect_to(0));
		await_sum(METRIC_ACCEPTED, draw * COUNT);
		for (unsigned i = 0; i < WORKERS; i++)
			share[i] = host_instance(&host, 0)->tcp[i].values[METRIC_ACCEPTED] - before[i];
		least = share[0] < share[1] ? share[0] : share[1];
	}
	ck_assert_uint_ge(least, COUNT / 2 - OFF);
	finish();
}
END_TEST

/* --- limits --- */

/* Sets SERVED for each client that has received its echo. Returns their count. */
static unsigned count_served(const int *clients, unsigned count, bool *served)
{
	char byte;
	unsigned sum_served = 0;
	for (unsigned i = 0; i < count; i++) {
		served[i] |= clients[i] >= 0 && recv(clients[i], &byte, 1, MSG_DONTWAIT) == 1;
		sum_served += served[i];
	}
	return sum_served;
}

static void await_served(const int *clients, unsigned count, bool *served, unsigned expected)
{
	for (int left = NET_TIMEOUT_MS; count_served(clients, count, served) < expected;)
		net_rest(&left);
}

/* Asserts that at most MAXIMUM of COUNT clients are served at a time, and that each close admits the next. */
static void take_turns(const int *clients, unsigned count, unsigned maximum)
{
	bool served[CLIENTS_MAX] = {false};
	int open[CLIENTS_MAX];
	memcpy(open, clients, count * sizeof *open);
	for (unsigned i = 0; i < count; i++)
		net_send(open[i], "b", 1);
	for (unsigned left = 0; left < count; left++) {
		unsigned expected = left + maximum < count ? left + maximum : count;
		await_served(open, count, served, expected);
		host_settle(&host);
		ck_assert_uint_eq(count_served(open, count, served), expected);
		ck_assert_int_le(host_instance(&host, 0)->gate->taken, maximum);
		ck_assert_uint_eq(sum(METRIC_ACCEPTED), expected);
		unsigned leaver = 0;
		while (open[leaver] < 0 || !served[leaver])
			leaver++;
		close(open[leaver]);
		open[leaver] = -1;
	}
	await_sum(METRIC_CLOSED_CLIENT, count);
}

START_TEST(max_connections_is_exact_across_workers_and_others_wait_in_queue)
{
	enum { CLIENTS = 60, MAXIMUM = 7 };
	int clients[CLIENTS];
	serve(ECHO "max_connections = 7\n", WORKERS);
	connect_many(clients, CLIENTS);
	take_turns(clients, CLIENTS, MAXIMUM);
	finish();
}
END_TEST

START_TEST(daemon_limit_is_exact_across_workers)
{
	enum { CLIENTS = 40, MAXIMUM = 3 };
	int clients[CLIENTS];
	prepare(ECHO, WORKERS, MAXIMUM);
	start();
	connect_many(clients, CLIENTS);
	take_turns(clients, CLIENTS, MAXIMUM);
	await_slots(0);
	finish();
}
END_TEST

START_TEST(slot_freed_by_one_service_admits_client_of_another)
{
	prepare("[a]\ntype = echo\nprotocol = tcp\naddress = 127.0.0.1\nport = 0\n"
		"[b]\ntype = echo\nprotocol = tcp\naddress = 127.0.0.1\nport = 0\n",
		WORKERS, 1);
	start();
	int first = connect_to(0);
	net_assert_echo(first);
	int second = connect_to(1);
	net_send(second, "b", 1);
	net_assert_quiet(second);
	close(first);
	await_byte(second);
	close(second);
	finish();
}
END_TEST

START_TEST(full_service_does_not_delay_another)
{
	prepare("[a]\ntype = echo\nprotocol = tcp\naddress = 127.0.0.1\nport = 0\nmax_connections = 1\n"
		"[b]\ntype = echo\nprotocol = tcp\naddress = 127.0.0.1\nport = 0\n",
		1, UNLIMITED);
	start();
	int first = connect_to(0), second = connect_to(0), other = connect_to(1);
	net_assert_echo(first);
	net_send(second, "b", 1);
	net_assert_echo(other);
	net_assert_quiet(second);
	close(first);
	await_byte(second);
	close(second);
	close(other);
	finish();
}
END_TEST

/* --- limits of a source --- */

static int connect_from(const char *ip)
{
	struct socket_address from = net_address(ip, 0);
	const struct socket_address *to = &endpoints[0].address;
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	ck_assert_int_eq(bind(fd, &from.any, from.length), 0);
	ck_assert_int_eq(connect(fd, &to->any, to->length), 0);
	return fd;
}

static void assert_refused(int fd)
{
	char byte;
	net_wait(fd, POLLIN);
	ck_assert_int_le(recv(fd, &byte, 1, 0), 0);
	close(fd);
}

#define LAB "[lab]\ntype = echo\nprotocol = tcp\naddress = 127.0.0.1\nport = 0\n"

START_TEST(max_connections_per_source_is_exact_across_workers)
{
	enum { MAXIMUM = 5, MORE = 30 };
	int clients[MAXIMUM];
	serve(LAB "max_connections_per_source = 5\n", WORKERS);
	for (int i = 0; i < MAXIMUM; i++) {
		clients[i] = connect_from("127.0.0.2");
		net_assert_echo(clients[i]);
	}
	for (int i = 0; i < MORE; i++)
		assert_refused(connect_from("127.0.0.2"));
	int other = connect_from("127.0.0.3");
	net_assert_echo(other);
	await_sum(METRIC_REFUSED_SOURCE_LIMIT, MORE);
	ck_assert_uint_eq(sum(METRIC_ACCEPTED), MAXIMUM + 1);
	await_slots(MAXIMUM + 1);

	close(clients[0]);
	await_sum(METRIC_CLOSED_CLIENT, 1);
	host_settle(&host);
	clients[0] = connect_from("127.0.0.2");
	net_assert_echo(clients[0]);
	close_all(clients, MAXIMUM);
	close(other);
	finish();
}
END_TEST

START_TEST(source_limit_counts_addresses_of_one_source_prefix_together)
{
	serve(LAB "max_connections_per_source = 1\nsource_prefix = /24, /64\n", WORKERS);
	int first = connect_from("127.0.5.1");
	net_assert_echo(first);
	assert_refused(connect_from("127.0.5.200"));
	int other = connect_from("127.0.6.1");
	net_assert_echo(other);
	close(first);
	close(other);
	finish();
}
END_TEST

START_TEST(source_limit_by_default_is_half_of_daemon_limit)
{
	int clients[4];
	prepare(LAB, WORKERS, 8);
	start();
	for (int i = 0; i < 4; i++) {
		clients[i] = connect_from("127.0.0.2");
		net_assert_echo(clients[i]);
	}
	assert_refused(connect_from("127.0.0.2"));
	int other = connect_from("127.0.0.3");
	net_assert_echo(other);
	close_all(clients, 4);
	close(other);
	finish();
}
END_TEST

START_TEST(connection_rate_refuses_source_until_bucket_refills)
{
	serve(LAB "connection_rate = 3/m\n", WORKERS);
	for (int minute = 0; minute < 3; minute++) {
		for (int i = 0; i < 3; i++) {
			int client = connect_from("127.0.0.2");
			net_assert_echo(client);
			close(client);
		}
		assert_refused(connect_from("127.0.0.2"));
		pass(MINUTE_MS);
	}
	await_sum(METRIC_REFUSED_RATE, 3);
	ck_assert_uint_eq(sum(METRIC_ACCEPTED), 9);
	finish();
}
END_TEST

START_TEST(denied_client_is_refused_and_takes_no_slot)
{
	serve(LAB "deny = 127.0.0.0/24\nallow = 127.0.0.7, 127.0.1.0/24\n", WORKERS);
	assert_refused(connect_from("127.0.0.2"));
	assert_refused(connect_from("127.0.2.1"));
	int named = connect_from("127.0.0.7"), inside = connect_from("127.0.1.9");
	net_assert_echo(named);
	net_assert_echo(inside);
	await_sum(METRIC_REFUSED_DENIED, 2);
	await_slots(2);
	ck_assert_uint_eq(sum(METRIC_ACCEPTED), 2);
	close(named);
	close(inside);
	finish();
}
END_TEST

/* --- accept that fails --- */

START_TEST(accepting_without_descriptors_pauses_then_resumes)
{
	enum { FAULTS = 5 };
	serve(ECHO, 1);
	host_settle(&host);
	fail_accepts(EMFILE, FAULTS);
	int client = connect_to(0);
	net_send(client, "b", 1);
	for (int i = 0; i < FAULTS; i++) {
		for (int left = NET_TIMEOUT_MS; atomic_load(&accept_faults_left) > FAULTS - 1 - i;)
			net_rest(&left);
		host_settle(&host);
		ck_assert_int_eq(atomic_load(&accept_faults_left), FAULTS - 1 - i); /* no call while paused */
		pass(TCP_RETRY_MS);
	}
	await_byte(client);
	await_slots(1);
	close(client);
	finish();
}
END_TEST

/* accept(2) also returns pending network errors of the new socket. */
START_TEST(accept_error_of_one_connection_does_not_delay_others)
{
	static const int errors[] = {ECONNABORTED, EPROTO, ENETDOWN, EHOSTUNREACH, ENETUNREACH, EINTR, EPERM};
	serve(ECHO, 1);
	for (size_t i = 0; i < COUNT_OF(errors); i++) {
		host_settle(&host);
		fail_accepts(errors[i], 3);
		int client = connect_to(0);
		net_assert_echo(client);
		ck_assert_int_eq(atomic_load(&accept_faults_left), 0);
		close(client);
	}
	await_sum(METRIC_CLOSED_CLIENT, COUNT_OF(errors));
	await_slots(0);
	finish();
}
END_TEST

START_TEST(idle_listener_makes_no_accept_call)
{
	serve(ECHO, WORKERS);
	int client = connect_to(0);
	net_assert_echo(client);
	host_settle(&host);
	int before = atomic_load(&accept_calls);
	for (int i = 0; i < 100; i++)
		net_assert_echo(client);
	pass(MINUTE_MS);
	ck_assert_int_eq(atomic_load(&accept_calls), before);
	close(client);
	finish();
}
END_TEST

/* --- DSCP --- */

START_TEST(dscp_copy_marks_replies_as_client_syn)
{
	serve(ECHO "dscp = copy\n", 1);
	int client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	ck_assert_int_eq(socket_set_dscp(client, AF_INET, 34), 0);
	ck_assert_int_eq(connect(client, &endpoints[0].address.any, endpoints[0].address.length), 0);
	net_assert_echo(client);
	ck_assert_int_eq(net_get(atomic_load(&last_accepted), IPPROTO_IP, IP_TOS), 34 << 2);
	close(client);
	finish();
}
END_TEST

/* --- stopping --- */

static const unsigned queue_lengths[] = {
	0,  1, 10, TCP_ACCEPTS_A_WAKEUP - 1, TCP_ACCEPTS_A_WAKEUP, TCP_ACCEPTS_A_WAKEUP + 1, 2 * TCP_ACCEPTS_A_WAKEUP,
	200};

START_TEST(stop_accepts_queued_connections_then_posts_stopped)
{
	int clients[CLIENTS_MAX];
	unsigned count = queue_lengths[_i];
	prepare(ECHO, 1, UNLIMITED);
	connect_many(clients, count);
	start_and_stop();
	assert_all_echo(clients, count);
	host_await(&host, &stopped, 1);
	ck_assert_uint_eq(sum(METRIC_ACCEPTED), count);
	assert_all_echo(clients, count); /* open connections go on */
	close_all(clients, count);
	host_run_tasks(&host, NET_QUIET_MS);
	ck_assert_uint_eq(stopped, 1);
	finish();
}
END_TEST

START_TEST(stopped_listener_accepts_no_connection)
{
	serve(ECHO, WORKERS);
	int client = connect_to(0);
	net_assert_echo(client);
	each_listener(stop_one);
	host_await(&host, &stopped, WORKERS);
	int late = connect_to(0); /* the kernel completes the handshake, as the socket is open */
	net_send(late, "b", 1);
	net_assert_quiet(late);
	ck_assert_uint_eq(sum(METRIC_ACCEPTED), 1);
	net_assert_echo(client);
	close(client);
	close(late);
	finish();
}
END_TEST

START_TEST(stop_of_full_service_accepts_queue_as_slots_are_freed)
{
	enum { CLIENTS = 20, MAXIMUM = 3 };
	int clients[CLIENTS];
	prepare(ECHO "max_connections = 3\n", 1, UNLIMITED);
	connect_many(clients, CLIENTS);
	start_and_stop();
	await_sum(METRIC_ACCEPTED, MAXIMUM);
	host_run_tasks(&host, NET_QUIET_MS);
	ck_assert_uint_eq(stopped, 0);
	take_turns(clients, CLIENTS, MAXIMUM);
	host_await(&host, &stopped, 1);
	finish();
}
END_TEST

START_TEST(stop_of_full_service_with_empty_queue_ends_when_slot_is_freed)
{
	serve(ECHO "max_connections = 1\n", 1);
	int client = connect_to(0);
	net_assert_echo(client);
	host_settle(&host);
	each_listener(stop_one);
	host_settle(&host);
	close(client);
	host_await(&host, &stopped, 1);
	finish();
}
END_TEST

START_TEST(stop_during_accept_pause_accepts_queue_after_it)
{
	prepare(ECHO, 1, UNLIMITED);
	int client = connect_to(0);
	fail_accepts(ENFILE, 2);
	start_and_stop();
	for (int left = NET_TIMEOUT_MS; atomic_load(&accept_faults_left) > 0; pass(TCP_RETRY_MS))
		net_rest(&left);
	pass(TCP_RETRY_MS);
	net_assert_echo(client);
	host_await(&host, &stopped, 1);
	close(client);
	finish();
}
END_TEST

START_TEST(drain_without_connections_posts_idle_at_once)
{
	serve(ECHO, WORKERS);
	tcp_drain(tcp, host.task_queue, &idle_task);
	host_await(&host, &idle, 1);
	finish();
}
END_TEST

START_TEST(drain_posts_idle_after_last_connection_is_closed)
{
	enum { CLIENTS = 10 };
	int clients[CLIENTS];
	serve(ECHO, WORKERS);
	connect_many(clients, CLIENTS);
	assert_all_echo(clients, CLIENTS);
	tcp_drain(tcp, host.task_queue, &idle_task);
	for (int i = 0; i < CLIENTS; i++) {
		host_run_tasks(&host, 5);
		ck_assert_uint_eq(idle, 0);
		net_assert_echo(clients[i]);
		close(clients[i]);
	}
	host_await(&host, &idle, 1);
	finish();
}
END_TEST

START_TEST(end_all_closes_every_connection_with_fin)
{
	enum { CLIENTS = 30 };
	int clients[CLIENTS];
	serve(ECHO, WORKERS);
	connect_many(clients, CLIENTS);
	assert_all_echo(clients, CLIENTS);
	tcp_drain(tcp, host.task_queue, &idle_task);
	tcp_end_all(tcp);
	assert_all_end(clients, CLIENTS);
	host_await(&host, &idle, 1);
	ck_assert_uint_eq(sum(METRIC_CLOSED_STOP), CLIENTS);
	await_slots(0);
	close_all(clients, CLIENTS);
	finish();
}
END_TEST

/* Unread input would turn close(2) into a reset, which destroys output that the client has not read. */
START_TEST(end_all_with_unread_input_preserves_sent_output)
{
	static char bytes[10000 + 1];
	enum { LENGTH = sizeof bytes - 1 };
	struct hold hold;
	serve(ECHO, 1);
	int client = connect_to(0);
	net_fill(bytes, LENGTH, 1, 0);
	net_send(client, bytes, LENGTH);
	await_sum(METRIC_SENT_BYTES, LENGTH);
	hold_worker(&hold, host.workers[0]);
	net_send(client, bytes, LENGTH);
	tcp_end_all(tcp);
	sem_post(&hold.over);
	await_sum(METRIC_CLOSED_STOP, 1);
	ck_assert_uint_eq(net_receive_all(client, bytes, sizeof bytes), LENGTH);
	net_assert_bytes(bytes, LENGTH, 1, 0);
	close(client);
	finish();
}
END_TEST

START_TEST(end_all_stops_listener_that_waits_for_slot)
{
	int clients[2];
	prepare(ECHO "max_connections = 1\n", 1, UNLIMITED);
	connect_many(clients, 2);
	start_and_stop();
	net_assert_echo(clients[0]);
	tcp_end_all(tcp);
	host_await(&host, &stopped, 1);
	net_assert_end(clients[0]);
	ck_assert_uint_eq(sum(METRIC_ACCEPTED), 1);
	close_all(clients, 2);
	finish();
}
END_TEST

START_TEST(tcp_free_closes_open_connections)
{
	enum { CLIENTS = 10 };
	int clients[CLIENTS];
	send_buffer = SMALL_BUFFER;
	serve(ECHO, WORKERS);
	connect_many(clients, CLIENTS);
	assert_all_echo(clients, CLIENTS);
	int stuck = connect_stuck();
	finish();
	assert_all_end(clients, CLIENTS);
	net_assert_reset(stuck);
	close_all(clients, CLIENTS);
	close(stuck);
}
END_TEST

START_TEST(listeners_of_workers_never_started_are_freed)
{
	prepare(ECHO, WORKERS, UNLIMITED);
	listener_free(NULL);
	tcp_free(NULL);
	each_listener(start_one);
	finish();
}
END_TEST

/* --- generations, round-robin and shared listeners --- */

START_TEST(listener_change_applies_to_new_connections_only)
{
	serve(ECHO DAYTIME, WORKERS);
	int open = connect_to(0);
	net_assert_echo(open);
	for (unsigned i = 0; i < WORKERS; i++)
		listener_change(endpoints[0].listeners[i], host_instance(&host, 1));
	host_settle(&host);
	for (int i = 0; i < 8; i++) {
		int client = connect_to(0);
		assert_daytime(client);
		close(client);
	}
	net_assert_echo(open);
	close(open);
	finish();
}
END_TEST

static unsigned over;

static void on_over(void *generation)
{
	over++;
	generation_free(generation);
}

START_TEST(generation_is_freed_after_its_last_connection_is_closed)
{
	struct diagnostics diagnostics = {0};
	int clients[8];
	over = 0;
	prepare(ECHO, WORKERS, UNLIMITED);
	struct instance_store *store = instance_store_new(&host.gate, WORKERS, host.task_queue, on_over);
	struct generation *old = generation_new(host.config, store, UNLIMITED, &diagnostics);
	ck_assert_ptr_nonnull(old);
	each_listener(free_one);
	endpoint_count = 0;
	struct generation *first = host.generation;
	host.generation = old;
	open_endpoint(&host.config->endpoints[0]);
	host.generation = first;
	start();
	connect_many(clients, 8);
	assert_all_echo(clients, 8);

	for (unsigned i = 0; i < WORKERS; i++) {
		listener_change(endpoints[0].listeners[i], host_instance(&host, 0));
		worker_post(host.workers[i], &old->shares[i].leave);
	}
	host_settle(&host);
	for (int i = 0; i < 8; i++) {
		host_run_tasks(&host, 0);
		ck_assert_uint_eq(over, 0);
		net_assert_echo(clients[i]);
		close(clients[i]);
	}
	host_await(&host, &over, 1);
	instance_store_free(store);
	finish();
}
END_TEST

/* Replaces the listeners by a single one that distributes round-robin. */
static void prepare_round_robin(void)
{
	prepare(ECHO, WORKERS, UNLIMITED);
	listener_free(endpoints[0].listeners[1]);
	close(endpoints[0].fds[1]);
	endpoints[0].listeners[1] = NULL;
	endpoints[0].fds[1] = -1;
	listener_free(endpoints[0].listeners[0]);
	endpoints[0].listeners[0] = tcp_listener_new(tcp, 0, endpoints[0].fds[0], host_instance(&host, 0), true);
	listener_start(endpoints[0].listeners[0]);
}

START_TEST(single_listener_distributes_connections_round_robin)
{
	int clients[10];
	prepare_round_robin();
	host_start(&host);
	connect_many(clients, 10);
	assert_all_echo(clients, 10);
	for (unsigned i = 0; i < WORKERS; i++) {
		const struct metrics_block *block = &host_instance(&host, 0)->tcp[i];
		ck_assert_uint_eq(atomic_load(&block->values[METRIC_ACCEPTED]), 5);
	}
	close_all(clients, 10);
	finish();
}
END_TEST

START_TEST(migrating_connections_are_closed_by_tcp_free)
{
	int clients[50];
	prepare_round_robin();
	ck_assert_int_eq(worker_start(host.workers[0]), 0); /* worker 1 never adopts its connections */
	connect_many(clients, 50);
	for (int i = 0; i < 50; i += 2) /* odd ones stay on worker 0 */
		net_assert_echo(clients[i + 1]);
	finish();
	for (int i = 0; i < 50; i++) {
		net_wait(clients[i], POLLIN);
		close(clients[i]);
	}
	ck_assert_int_eq(atomic_load(&host.gate.taken), 0);
}
END_TEST

START_TEST(connections_of_removed_service_are_closed_after_drain_timeout)
{
	serve(ECHO DISCARD, WORKERS);
	int clients[4], other = connect_to(1);
	connect_many(clients, 4);
	assert_all_echo(clients, 4);
	net_send(other, "x", 1);
	atomic_store(&host_instance(&host, 0)->state->ends_at_ms, START_MS + MINUTE_MS);
	tcp_end_removed(tcp);
	host_settle(&host);
	assert_all_echo(clients, 4);
	pass(MINUTE_MS);
	tcp_end_removed(tcp);
	assert_all_end(clients, 4);
	close_all(clients, 4);
	await_sum(METRIC_CLOSED_STOP, 4);
	net_assert_quiet(other);
	close(other);
	finish();
}
END_TEST

START_TEST(shared_listener_stops_while_new_clients_connect)
{
	prepare(ECHO, 1, UNLIMITED);
	int clients[CLIENTS_MAX];
	connect_many(clients, CLIENTS_MAX);
	listener_keep_open(endpoints[0].listeners[0]);
	start();
	each_listener(stop_one);
	host_await(&host, &stopped, 1);
	assert_all_echo(clients, CLIENTS_MAX); /* queued connections are served */
	close_all(clients, CLIENTS_MAX);
	int late = net_begin_connect(&endpoints[0].address); /* left to the other process */
	net_wait(late, POLLOUT);
	close(late);
	finish();
}
END_TEST

/* The other process serves the queue. */
START_TEST(shared_listener_waiting_for_slot_stops_at_once)
{
	prepare(ECHO "max_connections = 1\n", 1, UNLIMITED);
	listener_keep_open(endpoints[0].listeners[0]);
	start();
	int client = connect_to(0), queued = connect_to(0);
	net_assert_echo(client);
	net_send(queued, "b", 1);
	net_assert_quiet(queued);
	host_settle(&host);
	each_listener(stop_one);
	host_await(&host, &stopped, 1);
	net_assert_echo(client);
	ck_assert_uint_eq(sum(METRIC_ACCEPTED), 1);
	close(client);
	close(queued);
	finish();
}
END_TEST

static Suite *suite(void)
{
	Suite *suite = suite_create("tcp");
	TCase *workers = add_tcase(suite, "workers");
	tcase_add_test(workers, kernel_distributes_1000_connections_over_two_workers_within_10_percent);

	TCase *limits = add_tcase(suite, "limits");
	tcase_add_test(limits, max_connections_is_exact_across_workers_and_others_wait_in_queue);
	tcase_add_test(limits, daemon_limit_is_exact_across_workers);
	tcase_add_test(limits, slot_freed_by_one_service_admits_client_of_another);
	tcase_add_test(limits, full_service_does_not_delay_another);
	tcase_add_test(limits, max_connections_per_source_is_exact_across_workers);
	tcase_add_test(limits, source_limit_counts_addresses_of_one_source_prefix_together);
	tcase_add_test(limits, source_limit_by_default_is_half_of_daemon_limit);
	tcase_add_test(limits, connection_rate_refuses_source_until_bucket_refills);
	tcase_add_test(limits, denied_client_is_refused_and_takes_no_slot);

	TCase *accepting = add_tcase(suite, "accepting");
	tcase_add_test(accepting, accepting_without_descriptors_pauses_then_resumes);
	tcase_add_test(accepting, accept_error_of_one_connection_does_not_delay_others);
	tcase_add_test(accepting, idle_listener_makes_no_accept_call);
	tcase_add_test(accepting, dscp_copy_marks_replies_as_client_syn);

	TCase *stopping = add_tcase(suite, "stopping");
	tcase_add_loop_test(stopping, stop_accepts_queued_connections_then_posts_stopped, 0,
			    (int)COUNT_OF(queue_lengths));
	tcase_add_test(stopping, stopped_listener_accepts_no_connection);
	tcase_add_test(stopping, stop_of_full_service_accepts_queue_as_slots_are_freed);
	tcase_add_test(stopping, stop_of_full_service_with_empty_queue_ends_when_slot_is_freed);
	tcase_add_test(stopping, stop_during_accept_pause_accepts_queue_after_it);
	tcase_add_test(stopping, drain_without_connections_posts_idle_at_once);
	tcase_add_test(stopping, drain_posts_idle_after_last_connection_is_closed);
	tcase_add_test(stopping, end_all_closes_every_connection_with_fin);
	tcase_add_test(stopping, end_all_with_unread_input_preserves_sent_output);
	tcase_add_test(stopping, end_all_stops_listener_that_waits_for_slot);
	tcase_add_test(stopping, tcp_free_closes_open_connections);
	tcase_add_test(stopping, listeners_of_workers_never_started_are_freed);

	TCase *generations = add_tcase(suite, "generations");
	tcase_add_test(generations, listener_change_applies_to_new_connections_only);
	tcase_add_test(generations, generation_is_freed_after_its_last_connection_is_closed);
	tcase_add_test(generations, single_listener_distributes_connections_round_robin);
	tcase_add_test(generations, migrating_connections_are_closed_by_tcp_free);
	tcase_add_test(generations, connections_of_removed_service_are_closed_after_drain_timeout);
	tcase_add_test(generations, shared_listener_stops_while_new_clients_connect);
	tcase_add_test(generations, shared_listener_waiting_for_slot_stops_at_once);
	return suite;
}

int main(void)
{
	return check_run(suite());
}
