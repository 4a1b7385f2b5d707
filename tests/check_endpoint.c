/* check_endpoint.c: open endpoints, the pool from which a configuration picks, socket activation. */
#include <string.h>

#include "check_net.h"
#include "check_run.h"
#include "check_stderr.h"
#include "core/transport.h"
#include "handoff/listen_fds.h"
#include "net/endpoint_pool.h"

static struct config *config;
static struct endpoint_pool *pool;
static struct diagnostics diagnostics;

static void setup(void)
{
	stderr_begin();
	diagnostics = (struct diagnostics){.keep_first = true};
	pool = endpoint_pool_new();
	ck_assert_ptr_nonnull(pool);
}

static void teardown(void)
{
	endpoint_pool_free(pool, true);
	config_unref(config);
	stderr_end();
}

static const struct config_endpoint *want(const char *ini)
{
	config_unref(config);
	config = host_read(ini);
	return config->endpoints;
}

static struct socket_kind kind_of(unsigned transport, const char *ip, uint16_t port)
{
	return (struct socket_kind){.type = transport == TRANSPORT_TCP ? SOCK_STREAM : SOCK_DGRAM,
				    .address = net_address(ip, port)};
}

/* Makes an endpoint without a socket that an earlier process opened. */
static struct endpoint *make_as(unsigned transport, const char *ip, uint16_t port, struct endpoint_record record)
{
	struct socket_kind kind = kind_of(transport, ip, port);
	if (record.wanted.length == 0)
		record.wanted = kind.address;
	struct endpoint *endpoint = endpoint_from_parent(&(int){-1}, 1, &kind, &record);
	ck_assert_ptr_nonnull(endpoint);
	return endpoint;
}

static struct endpoint *make(unsigned transport, const char *ip, uint16_t port)
{
	return make_as(transport, ip, port, (struct endpoint_record){0});
}

static struct endpoint *add_to_pool(struct endpoint *endpoint)
{
	ck_assert_ptr_nonnull(endpoint);
	ck_assert(endpoint_pool_add(pool, endpoint));
	return endpoint;
}

static struct endpoint *add(unsigned transport, const char *ip, uint16_t port)
{
	return add_to_pool(make(transport, ip, port));
}

/* Adds an endpoint, without a socket, as from LISTEN_FDS. */
static struct endpoint *add_listen_fd(const char *ip, uint16_t port, const char *interface, bool dual_stack,
				      const char *name)
{
	struct socket_kind kind = kind_of(TRANSPORT_TCP, ip, port);
	snprintf(kind.interface, sizeof kind.interface, "%s", interface);
	kind.dual_stack = dual_stack;
	return add_to_pool(endpoint_from_listen_fds(-1, &kind, name));
}

/* Takes the first endpoint of INI from the pool and frees it. */
static void assert_takes(const char *ini, const struct endpoint *expected)
{
	struct endpoint *taken = endpoint_pool_take(pool, want(ini));
	ck_assert_ptr_eq(taken, expected);
	endpoint_free(taken);
}

#define ECHO(more) "[echo]\nprotocol = tcp\naddress = 127.0.0.1\nport = 4007\n" more

START_TEST(endpoint_is_found_by_transport_address_and_port)
{
	add(TRANSPORT_UDP, "127.0.0.1", 4007);
	add(TRANSPORT_TCP, "127.0.0.2", 4007);
	add(TRANSPORT_TCP, "127.0.0.1", 4008);
	add(TRANSPORT_TCP, "::1", 4007);
	add(TRANSPORT_TCP, "0.0.0.0", 4007);
	assert_takes(ECHO(""), NULL);
	const struct endpoint *right = add(TRANSPORT_TCP, "127.0.0.1", 4007);
	assert_takes(ECHO(""), right);
	assert_takes(ECHO(""), NULL); /* it has been taken */
}
END_TEST

START_TEST(each_of_many_endpoints_is_found_and_the_others_stay_in_the_pool)
{
	enum { COUNT = 500 };
	for (unsigned i = 0; i < COUNT; i++)
		add(i % 2 ? TRANSPORT_TCP : TRANSPORT_UDP, "127.0.0.1", (uint16_t)(10000 + i * 7919 % COUNT));
	want("[echo]\naddress = 127.0.0.1\nport = 10000-10499\n");
	unsigned found = 0, left = 0;
	for (size_t i = 0; i < config->endpoint_count; i += 2) {
		struct endpoint *endpoint = endpoint_pool_take(pool, &config->endpoints[i]);
		if (endpoint == NULL)
			continue;
		ck_assert_uint_eq(socket_address_port(&endpoint->address), config->endpoints[i].port);
		ck_assert_uint_eq(endpoint->transport, config->endpoints[i].transport);
		endpoint_free(endpoint);
		found++;
	}
	for (size_t i = 0; endpoint_pool_next(pool, &i) != NULL;)
		left++;
	ck_assert_uint_gt(found, 0);
	ck_assert_uint_eq(found + left, COUNT);
}
END_TEST

START_TEST(endpoint_is_found_by_interface)
{
	struct endpoint *endpoint = add(TRANSPORT_TCP, "127.0.0.1", 4007);
	assert_takes(ECHO("interface = lo\n"), NULL);
	assert_takes(ECHO(""), endpoint);
	endpoint = add_to_pool(make_as(TRANSPORT_TCP, "127.0.0.1", 4007, (struct endpoint_record){.interface = "lo"}));
	assert_takes(ECHO(""), NULL);
	assert_takes(ECHO("interface = lo\n"), endpoint);
}
END_TEST

START_TEST(endpoint_of_port_0_is_found_by_service)
{
	struct endpoint *endpoint =
		add_to_pool(make_as(TRANSPORT_TCP, "127.0.0.1", 4007,
				    (struct endpoint_record){.wanted = net_address("127.0.0.1", 0), .service = "one"}));
	assert_takes("[two]\ntype = echo\nprotocol = tcp\naddress = 127.0.0.1\nport = 0\n", NULL);
	assert_takes(ECHO(""), NULL);
	assert_takes("[one]\ntype = echo\nprotocol = tcp\naddress = 127.0.0.1\nport = 0\n", endpoint);
}
END_TEST

START_TEST(socket_name_selects_among_passed_sockets_only)
{
	struct endpoint *endpoint = add_listen_fd("127.0.0.1", 4007, "", false, "theirs");
	assert_takes(ECHO("socket_name = ours\n"), NULL);
	assert_takes(ECHO("socket_name = theirs\n"), endpoint);
	assert_takes(ECHO("socket_name = ours\n"), NULL);
	add_listen_fd("127.0.0.1", 4007, "", false, NULL);
	assert_takes(ECHO("socket_name = ours\n"), NULL);
	endpoint = add(TRANSPORT_TCP, "127.0.0.1", 4007); /* not passed, so it has no name */
	assert_takes(ECHO("socket_name = ours\n"), endpoint);
}
END_TEST

START_TEST(passed_socket_of_an_interface_matches_a_service_without_interface)
{
	struct endpoint *endpoint = add_listen_fd("127.0.0.1", 4007, "lo", false, NULL);
	assert_takes(ECHO("interface = eth7\n"), NULL);
	assert_takes(ECHO(""), endpoint);
}
END_TEST

START_TEST(dual_stack_socket_covers_the_ipv4_half_of_a_star)
{
	struct endpoint *endpoint = add_listen_fd("::", 4007, "", true, NULL);
	const struct config_endpoint *wanted = want("[echo]\nprotocol = tcp\nport = 4007\n");
	ck_assert_uint_eq(config->endpoint_count, 2);
	ck_assert(endpoint_pool_is_covered(pool, &wanted[0]));
	ck_assert(!endpoint_pool_is_covered(pool, &wanted[1]));
	ck_assert_ptr_null(endpoint_pool_take(pool, &wanted[0]));
	wanted = want("[echo]\nprotocol = tcp\naddress = ::, 0.0.0.0\nport = 4007\n");
	for (int i = 0; i < 2; i++) {
		ck_assert(!endpoint_pool_is_covered(pool, &wanted[i]));
		ck_assert_ptr_null(endpoint_pool_take(pool, &wanted[i]));
	}
	wanted = want("[echo]\nprotocol = tcp\nport = 4007\n");
	ck_assert_ptr_eq(endpoint_pool_take(pool, &wanted[1]), endpoint);
	ck_assert(!endpoint_pool_is_covered(pool, &wanted[0]));
	endpoint_free(endpoint);
}
END_TEST

START_TEST(ipv6_only_socket_covers_no_ipv4_half)
{
	add_listen_fd("::", 4007, "", false, NULL);
	ck_assert(!endpoint_pool_is_covered(pool, want("[echo]\nprotocol = tcp\nport = 4007\n")));
}
END_TEST

static bool overlaps(const struct endpoint *open, bool leaving, const char *ini)
{
	struct endpoint_ports *ports = endpoint_ports_new();
	ck_assert_ptr_nonnull(ports);
	endpoint_ports_add(ports, open, leaving);
	bool overlap = endpoint_ports_overlap(ports, want(ini));
	free(ports);
	return overlap;
}

START_TEST(address_overlaps_wildcards_interfaces_and_leaving_sockets_of_its_port)
{
	struct endpoint *address = make(TRANSPORT_TCP, "127.0.0.2", 4007);
	struct endpoint *wildcard = make(TRANSPORT_TCP, "0.0.0.0", 4007);
	ck_assert(!overlaps(address, false, ECHO(""))); /* so a bind detects another program */
	ck_assert(overlaps(address, true, ECHO("")));
	ck_assert(overlaps(wildcard, false, ECHO("")));
	ck_assert(overlaps(address, false, "[echo]\nprotocol = tcp\naddress = 0.0.0.0\nport = 4007\n"));
	ck_assert(overlaps(address, false, ECHO("interface = lo\n")));
	ck_assert(!overlaps(wildcard, false, "[echo]\nprotocol = tcp\naddress = 0.0.0.0\nport = 4008\n"));
	ck_assert(!overlaps(wildcard, false, "[echo]\nprotocol = udp\naddress = 0.0.0.0\nport = 4007\n"));
	ck_assert(!overlaps(wildcard, false, "[echo]\nprotocol = tcp\naddress = ::1\nport = 4007\n"));
	ck_assert(!overlaps(wildcard, false, "[echo]\nprotocol = tcp\naddress = 127.0.0.1\nport = 0\n"));
	endpoint_free(address);
	endpoint_free(wildcard);
}
END_TEST

static struct endpoint *open_one(const char *ini)
{
	struct endpoint_ports *ports = endpoint_ports_new();
	struct endpoint *endpoint = endpoint_open(want(ini), 2, (uid_t)-1, true, ports, &diagnostics);
	free(ports);
	return endpoint;
}

START_TEST(opened_endpoint_is_found_in_the_pool)
{
	static const char ini[] = "[echo]\nprotocol = udp\naddress = 127.0.0.1\nport = 0\n";
	struct endpoint *endpoint = open_one(ini);
	ck_assert_ptr_nonnull(endpoint);
	ck_assert_uint_eq(endpoint->count, 2);
	ck_assert_uint_ne(socket_address_port(&endpoint->address), 0);
	ck_assert(endpoint_pool_add(pool, endpoint));
	assert_takes(ini, endpoint);
}
END_TEST

START_TEST(address_that_cannot_be_opened_is_a_problem_with_file_and_line)
{
	ck_assert_ptr_null(open_one("[echo]\nprotocol = tcp\naddress = 192.0.2.1\nport = 4007\n"));
	ck_assert_uint_eq(diagnostics.errors, 1);
	ck_assert_ptr_nonnull(strstr(diagnostics.first, ":4: echo: cannot listen on tcp 192.0.2.1:4007: "));
}
END_TEST

START_TEST(reload_keeps_its_first_problem_and_logs_the_others)
{
	struct log_context context = {.config_file = "FILE", .config_line = 7};
	diagnostics_log(&diagnostics, &context, "%s", "first");
	diagnostics_log(&diagnostics, &context, "%s", "second");
	diagnostics_log(&diagnostics, NULL, "%s", "third");
	ck_assert_uint_eq(diagnostics.errors, 3);
	ck_assert_str_eq(diagnostics.first, "FILE:7: first");
	ck_assert_ptr_null(strstr(stderr_so_far(), "first"));
	ck_assert_ptr_nonnull(strstr(stderr_text, "FILE:7: second\n"));
	ck_assert_ptr_nonnull(strstr(stderr_text, "third\n"));
}
END_TEST

START_TEST(start_logs_every_problem_without_file_and_line)
{
	struct log_context context = {.config_file = "FILE", .config_line = 7};
	diagnostics = (struct diagnostics){0};
	diagnostics_log(&diagnostics, &context, "%s", "first");
	ck_assert_str_eq(diagnostics.first, "");
	ck_assert_ptr_nonnull(strstr(stderr_so_far(), "first\n"));
	ck_assert_ptr_null(strstr(stderr_text, "FILE"));
}
END_TEST

/* Returns ENDPOINT as the child of an upgrade has it from its parent, ENDPOINT itself freed. */
static struct endpoint *as_child(struct endpoint *endpoint)
{
	struct socket_kind kind = {.type = endpoint->transport == TRANSPORT_TCP ? SOCK_STREAM : SOCK_DGRAM,
				   .address = endpoint->address};
	const struct endpoint_record record = {.wanted = endpoint->wanted,
					       .service = endpoint->service,
					       .groups = endpoint->groups,
					       .group_count = endpoint->groups_in_force};
	struct endpoint *child = endpoint_from_parent(endpoint->fds, endpoint->count, &kind, &record);
	ck_assert_ptr_nonnull(child);
	for (unsigned i = 0; i < endpoint->count; i++)
		endpoint->fds[i] = -1;
	endpoint_free(endpoint);
	return child;
}

#define ANYWHERE(more) "[echo]\nprotocol = tcp\naddress = 127.0.0.1\nport = 0\n" more

#define GROUPS(groups) "[echo]\nprotocol = udp\naddress = 0.0.0.0\nport = 0\nmulticast_groups = " groups "\n"

START_TEST(groups_of_a_failed_reload_are_left)
{
	struct endpoint *endpoint = open_one(GROUPS("239.255.1.1%lo"));
	ck_assert_ptr_nonnull(endpoint);
	ck_assert(endpoint_join(endpoint, config->endpoints, &diagnostics));
	endpoint_apply(endpoint, config->endpoints);
	ck_assert_uint_eq(endpoint->groups_in_force, 1);

	ck_assert(!endpoint_join(endpoint, want(GROUPS("239.255.1.2%lo, 239.255.1.3%nowhere0")), &diagnostics));
	ck_assert_ptr_nonnull(strstr(diagnostics.first, "cannot join 239.255.1.3%nowhere0: No such device"));
	ck_assert_uint_eq(endpoint->group_count, 2);
	endpoint_unjoin(endpoint);
	ck_assert_uint_eq(endpoint->group_count, 1);

	ck_assert(endpoint_join(endpoint, want(GROUPS("239.255.1.2%lo")), &diagnostics));
	endpoint_apply(endpoint, config->endpoints);
	ck_assert_uint_eq(endpoint->group_count, 1);
	struct socket_group first = {.address = net_address("239.255.1.1", 0), .interface = if_nametoindex("lo")};
	ck_assert_int_eq(socket_join(endpoint->fds[0], &first), 0); /* the socket had left it */
	endpoint_free(endpoint);
}
END_TEST

/* Whether the socket of ENDPOINT is a member, which then cannot join. */
static bool is_member(const struct endpoint *endpoint, const char *address)
{
	struct socket_group group = {.address = net_address(address, 0), .interface = if_nametoindex("lo")};
	int error = socket_join(endpoint->fds[0], &group);
	if (error == 0)
		ck_assert_int_eq(socket_leave(endpoint->fds[0], &group), 0);
	else
		ck_assert_int_eq(error, -EADDRINUSE);
	return error != 0;
}

START_TEST(groups_are_joined_once_the_parent_has_released_the_socket)
{
	struct endpoint *endpoint = open_one(GROUPS("239.255.1.1%lo"));
	ck_assert_ptr_nonnull(endpoint);
	endpoint = as_child(endpoint);
	ck_assert(!endpoint_join(endpoint, want(GROUPS("239.255.1.3%nowhere0")), &diagnostics));
	ck_assert_ptr_nonnull(strstr(diagnostics.first, "cannot join 239.255.1.3%nowhere0: No such device"));
	ck_assert(endpoint_join(endpoint, want(GROUPS("239.255.1.1%lo, 239.255.1.2%lo")), &diagnostics));
	endpoint_apply(endpoint, config->endpoints);
	ck_assert(!is_member(endpoint, "239.255.1.1"));

	endpoint_parent_released(endpoint, config->endpoints);
	ck_assert(is_member(endpoint, "239.255.1.1"));
	ck_assert(is_member(endpoint, "239.255.1.2"));
	ck_assert_uint_eq(endpoint->groups_in_force, 2);
	endpoint_unjoin(endpoint);
	ck_assert(is_member(endpoint, "239.255.1.2"));
	endpoint_free(endpoint);
}
END_TEST

START_TEST(added_sockets_do_not_listen_before_endpoint_listen)
{
	struct endpoint *endpoint = open_one(ANYWHERE(""));
	ck_assert_ptr_nonnull(endpoint);
	unsigned before = endpoint->count;
	endpoint = as_child(endpoint);
	endpoint = endpoint_add_sockets(endpoint, want(ANYWHERE("")), before + 2, (uid_t)-1, &diagnostics);
	ck_assert_ptr_nonnull(endpoint);
	ck_assert_uint_eq(endpoint->count, before + 2);
	for (unsigned i = 0; i < endpoint->count; i++)
		ck_assert_int_eq(net_get(endpoint->fds[i], SOL_SOCKET, SO_ACCEPTCONN), i < before);
	ck_assert(endpoint_listen(endpoint, config->endpoints, &diagnostics));
	for (unsigned i = 0; i < endpoint->count; i++)
		ck_assert_int_eq(net_get(endpoint->fds[i], SOL_SOCKET, SO_ACCEPTCONN), 1);
	endpoint_free(endpoint);
}
END_TEST

START_TEST(options_of_another_service_are_set)
{
	struct endpoint *endpoint = open_one(ANYWHERE("backlog = 10\n"));
	ck_assert_ptr_nonnull(endpoint);
	endpoint_apply(endpoint, want("[other]\ntype = echo\nprotocol = tcp\naddress = 127.0.0.1\nport = 0\n"
				      "dscp = ef\nkeepalive = 60s\n"));
	ck_assert_str_eq(endpoint->service, "other");
	for (unsigned i = 0; i < endpoint->count; i++) {
		ck_assert_int_eq(net_get(endpoint->fds[i], IPPROTO_IP, IP_TOS), 46 << 2);
		ck_assert_int_eq(net_get(endpoint->fds[i], SOL_SOCKET, SO_KEEPALIVE), 1);
	}
	endpoint_apply(endpoint, want(ANYWHERE("")));
	ck_assert_int_eq(net_get(endpoint->fds[1], IPPROTO_IP, IP_TOS), 0);
	endpoint_free(endpoint);
}
END_TEST

START_TEST(options_are_set_once_the_parent_has_released_the_socket)
{
	struct endpoint *endpoint = open_one(ANYWHERE(""));
	ck_assert_ptr_nonnull(endpoint);
	endpoint = as_child(endpoint);
	endpoint_apply(endpoint, want(ANYWHERE("dscp = ef\n")));
	ck_assert_int_eq(net_get(endpoint->fds[0], IPPROTO_IP, IP_TOS), 0);
	endpoint_parent_released(endpoint, config->endpoints);
	ck_assert_int_eq(net_get(endpoint->fds[0], IPPROTO_IP, IP_TOS), 46 << 2);
	endpoint_free(endpoint);
}
END_TEST

START_TEST(options_set_by_the_parent_are_reset)
{
	struct endpoint *endpoint = open_one(ANYWHERE("dscp = ef\nkeepalive = 60s\n"));
	ck_assert_ptr_nonnull(endpoint);
	ck_assert_int_eq(net_get(endpoint->fds[0], IPPROTO_IP, IP_TOS), 46 << 2);
	ck_assert_int_eq(net_get(endpoint->fds[0], SOL_SOCKET, SO_KEEPALIVE), 1);
	endpoint = as_child(endpoint);
	endpoint_parent_released(endpoint, want(ANYWHERE("")));
	ck_assert_int_eq(net_get(endpoint->fds[0], IPPROTO_IP, IP_TOS), 0);
	ck_assert_int_eq(net_get(endpoint->fds[0], SOL_SOCKET, SO_KEEPALIVE), 0);
	endpoint_free(endpoint);
}
END_TEST

/* --- socket activation --- */

static void set_listen(const char *pid, const char *fds, const char *names)
{
	char own[24];
	snprintf(own, sizeof own, "%ld", (long)getpid());
	setenv("LISTEN_PID", pid != NULL ? pid : own, 1);
	setenv("LISTEN_FDS", fds, 1);
	if (names != NULL)
		setenv("LISTEN_FDNAMES", names, 1);
	else
		unsetenv("LISTEN_FDNAMES");
}

START_TEST(listen_fds_of_another_process_are_ignored)
{
	static const char *const pids[] = {"1", "", "self", "-5", "99999999999999999999"};
	for (size_t i = 0; i < sizeof pids / sizeof *pids; i++) {
		set_listen(pids[i], "1", NULL);
		ck_assert(listen_fds_take(pool, &diagnostics));
		ck_assert_ptr_null(getenv("LISTEN_FDS"));
		ck_assert_ptr_null(getenv("LISTEN_PID"));
	}
	size_t index = 0;
	ck_assert_ptr_null(endpoint_pool_next(pool, &index));
	ck_assert_uint_eq(diagnostics.errors, 0);
}
END_TEST

START_TEST(invalid_number_of_listen_fds_is_a_problem)
{
	static const char *const counts[] = {"", "x", "-1", "1x", "99999999999999999999"};
	for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
		diagnostics.errors = 0;
		set_listen(NULL, counts[i], NULL);
		ck_assert(!listen_fds_take(pool, &diagnostics));
		ck_assert_uint_eq(diagnostics.errors, 1);
	}
}
END_TEST

static TCase *add_tcase(Suite *suite, const char *name)
{
	TCase *tcase = tcase_create(name);
	tcase_set_timeout(tcase, 60);
	tcase_add_checked_fixture(tcase, setup, teardown);
	suite_add_tcase(suite, tcase);
	return tcase;
}

static Suite *suite(void)
{
	Suite *suite = suite_create("endpoint");
	TCase *taking = add_tcase(suite, "pool");
	tcase_add_test(taking, endpoint_is_found_by_transport_address_and_port);
	tcase_add_test(taking, each_of_many_endpoints_is_found_and_the_others_stay_in_the_pool);
	tcase_add_test(taking, endpoint_is_found_by_interface);
	tcase_add_test(taking, endpoint_of_port_0_is_found_by_service);
	tcase_add_test(taking, socket_name_selects_among_passed_sockets_only);
	tcase_add_test(taking, passed_socket_of_an_interface_matches_a_service_without_interface);
	tcase_add_test(taking, dual_stack_socket_covers_the_ipv4_half_of_a_star);
	tcase_add_test(taking, ipv6_only_socket_covers_no_ipv4_half);

	TCase *opening = add_tcase(suite, "opening");
	tcase_add_test(opening, address_overlaps_wildcards_interfaces_and_leaving_sockets_of_its_port);
	tcase_add_test(opening, opened_endpoint_is_found_in_the_pool);
	tcase_add_test(opening, address_that_cannot_be_opened_is_a_problem_with_file_and_line);
	tcase_add_test(opening, reload_keeps_its_first_problem_and_logs_the_others);
	tcase_add_test(opening, start_logs_every_problem_without_file_and_line);

	TCase *applying = add_tcase(suite, "applying");
	tcase_add_test(applying, groups_of_a_failed_reload_are_left);
	tcase_add_test(applying, groups_are_joined_once_the_parent_has_released_the_socket);
	tcase_add_test(applying, added_sockets_do_not_listen_before_endpoint_listen);
	tcase_add_test(applying, options_of_another_service_are_set);
	tcase_add_test(applying, options_are_set_once_the_parent_has_released_the_socket);
	tcase_add_test(applying, options_set_by_the_parent_are_reset);

	TCase *activation = add_tcase(suite, "activation");
	tcase_add_test(activation, listen_fds_of_another_process_are_ignored);
	tcase_add_test(activation, invalid_number_of_listen_fds_is_a_problem);
	return suite;
}

int main(void)
{
	return check_run(suite());
}
