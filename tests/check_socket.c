/* check_socket.c: groups of sockets that share a port, and their options. */
#include <dirent.h>
#include <fcntl.h>
#include <net/if.h>
#include <netinet/tcp.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "check_net.h"
#include "check_run.h"

enum { GROUP = 3, BACKLOG = 128 };

static const int types[] = {SOCK_STREAM, SOCK_DGRAM};
static const char *const loopbacks[] = {"127.0.0.1", "::1"};
static const char *const wildcards[] = {"0.0.0.0", "::"};

/* The sockets of one test. */
struct group {
	struct socket_request request;
	int fds[GROUP];
	unsigned count;
};

static int group_try(struct group *group, struct socket_request request, unsigned count)
{
	group->request = request;
	group->count = count;
	return socket_open_group(&group->request, group->fds, count);
}

static void group_open(struct group *group, struct socket_request request, unsigned count)
{
	ck_assert_int_eq(group_try(group, request, count), 0);
}

static void group_close(const struct group *group)
{
	for (unsigned i = 0; i < group->count; i++)
		close(group->fds[i]);
}

static uint16_t group_port(const struct group *group)
{
	return socket_address_port(&group->request.address);
}

static int accept_one(int fd)
{
	net_wait(fd, POLLIN);
	int accepted = accept4(fd, NULL, NULL, SOCK_CLOEXEC);
	ck_assert_int_ge(accepted, 0);
	return accepted;
}

static int count_descriptors(void)
{
	int count = 0;
	DIR *folder = opendir("/proc/self/fd");
	ck_assert_ptr_nonnull(folder);
	while (readdir(folder) != NULL)
		count++;
	closedir(folder);
	return count;
}

/* --- addresses --- */

static void assert_printed(const char *ip, const char *zone, uint16_t port, const char *expected)
{
	struct socket_address address = net_address(ip, port);
	char text[SOCKET_TEXT_SIZE];
	if (zone[0] != '\0')
		address.v6.sin6_scope_id = (uint32_t)strtoul(zone, NULL, 10);
	socket_address_print(&address, text);
	ck_assert_str_eq(text, expected);
	ck_assert_uint_eq(socket_address_port(&address), port);
}

START_TEST(addresses_are_printed_with_port_and_zone)
{
	char zone[16], expected[64];
	assert_printed("127.0.0.1", "", 7, "127.0.0.1:7");
	assert_printed("255.255.255.255", "", 65535, "255.255.255.255:65535");
	assert_printed("::1", "", 13, "[::1]:13");
	assert_printed("::", "", 0, "[::]:0");
	assert_printed("fe80::1", "4000000", 7, "[fe80::1%4000000]:7");
	snprintf(zone, sizeof zone, "%u", if_nametoindex("lo"));
	snprintf(expected, sizeof expected, "[fe80:1111:2222:3333:4444:5555:6666:7777%%lo]:65535");
	assert_printed("fe80:1111:2222:3333:4444:5555:6666:7777", zone, 65535, expected);
}
END_TEST

START_TEST(wildcards_are_recognised)
{
	static const char *const others[] = {"127.0.0.1", "0.0.0.1", "::1", "::ffff:0.0.0.0"};
	for (size_t i = 0; i < 2; i++) {
		struct socket_address address = net_address(wildcards[i], 7);
		ck_assert(socket_address_is_wildcard(&address));
	}
	for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
		struct socket_address address = net_address(others[i], 7);
		ck_assert(!socket_address_is_wildcard(&address));
	}
}
END_TEST

START_TEST(addresses_with_one_ip_are_the_same_whatever_their_ports)
{
	static const char *const ips[] = {"127.0.0.1", "127.0.0.2", "0.0.0.0", "::1", "::2", "::", "::ffff:127.0.0.1"};
	enum { COUNT = sizeof ips / sizeof *ips };
	for (size_t i = 0; i < COUNT; i++)
		for (size_t j = 0; j < COUNT; j++) {
			struct socket_address a = net_address(ips[i], 7), b = net_address(ips[j], 13);
			ck_assert_msg(socket_address_same_ip(&a, &b) == (i == j), "%s and %s", ips[i], ips[j]);
		}
}
END_TEST

START_TEST(interface_is_found_by_name_or_number)
{
	unsigned lo = if_nametoindex("lo"), index = 99;
	char number[16];
	ck_assert(socket_find_interface("lo", &index));
	ck_assert_uint_eq(index, lo);
	snprintf(number, sizeof number, "%u", lo);
	ck_assert(socket_find_interface(number, &index));
	ck_assert_uint_eq(index, lo);
	ck_assert(socket_find_interface("", &index));
	ck_assert_uint_eq(index, 0);
}
END_TEST

START_TEST(names_of_no_interface_are_not_found)
{
	static const char *const names[] = {"nosuch", "0", "lo1x", "1x", "-1", "4294967297", " 1", "3000000000"};
	unsigned index;
	for (size_t i = 0; i < sizeof names / sizeof *names; i++)
		ck_assert_msg(!socket_find_interface(names[i], &index), "%s is found as %u", names[i], index);
}
END_TEST

/* --- exclusive ports --- */

START_TEST(port_zero_gives_the_group_one_free_port)
{
	for (int i = 0; i < 4; i++) {
		struct group group;
		if (!net_has(loopbacks[i / 2]))
			continue;
		group_open(&group, net_request(types[i % 2], loopbacks[i / 2], 0), GROUP);
		ck_assert_uint_ne(group_port(&group), 0);
		for (unsigned j = 0; j < GROUP; j++) {
			struct socket_address name = net_name(group.fds[j]);
			ck_assert_uint_eq(socket_address_port(&name), group_port(&group));
			ck_assert(socket_address_same_ip(&name, &group.request.address));
		}
		group_close(&group);
	}
}
END_TEST

/* The second daemon has the same user and options as the first. */
START_TEST(second_daemon_on_the_same_port_gets_eaddrinuse)
{
	for (int i = 0; i < 4; i++) {
		struct group ours, theirs;
		const char *ip = loopbacks[i / 2], *wildcard = wildcards[i / 2];
		int type = types[i % 2];
		if (!net_has(ip))
			continue;
		group_open(&ours, net_request(type, ip, 0), GROUP);
		ck_assert_int_eq(group_try(&theirs, net_request(type, ip, group_port(&ours)), GROUP), -EADDRINUSE);
		ck_assert_int_eq(group_try(&theirs, net_request(type, wildcard, group_port(&ours)), 1), -EADDRINUSE);
		group_close(&ours);
	}
}
END_TEST

/* The other daemon has bound the port and does not listen yet. */
START_TEST(daemons_that_start_together_cannot_share_a_tcp_port)
{
	struct group ours;
	struct socket_request request = net_request(SOCK_STREAM, "127.0.0.1", 0);
	int theirs = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	net_set(theirs, SOL_SOCKET, SO_REUSEADDR, 1);
	ck_assert_int_eq(bind(theirs, &request.address.any, request.address.length), 0);
	ck_assert_int_eq(getsockname(theirs, &request.address.any, &request.address.length), 0);
	group_open(&ours, request, GROUP);
	ck_assert_int_eq(listen(theirs, BACKLOG), -1);
	ck_assert_int_eq(errno, EADDRINUSE);
	close(theirs);
	group_close(&ours);
}
END_TEST

START_TEST(port_can_be_bound_again_during_time_wait)
{
	struct group group;
	group_open(&group, net_request(SOCK_STREAM, "127.0.0.1", 0), 1);
	int client = net_connect(&group.request.address), server = accept_one(group.fds[0]);
	shutdown(server, SHUT_WR); /* the active close leaves FIN_WAIT, then TIME_WAIT */
	net_assert_end(client);
	close(client);
	close(server);
	group_close(&group);
	group_open(&group, net_request(SOCK_STREAM, "127.0.0.1", group_port(&group)), GROUP);
	group_close(&group);
}
END_TEST

START_TEST(overlapping_groups_bind_if_requested)
{
	for (int i = 0; i < 4; i++) {
		struct group broad, narrow;
		if (!net_has(loopbacks[i / 2]))
			continue;
		group_open(&broad, net_request(types[i % 2], wildcards[i / 2], 0), GROUP);
		struct socket_request request = net_request(types[i % 2], loopbacks[i / 2], group_port(&broad));
		ck_assert_int_eq(group_try(&narrow, request, 1), -EADDRINUSE);
		request.overlaps = true;
		group_open(&narrow, request, GROUP);
		group_close(&broad);
		group_close(&narrow);
	}
}
END_TEST

/* Returns whether a client can connect to PORT of 127.0.0.1. */
static bool connects(uint16_t port)
{
	struct socket_address to = net_address("127.0.0.1", port);
	int client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	bool connected = connect(client, &to.any, to.length) == 0;
	if (!connected)
		ck_assert_int_eq(errno, ECONNREFUSED);
	close(client);
	return connected;
}

START_TEST(deferred_group_holds_its_port_and_accepts_after_socket_listen)
{
	struct group group, other;
	struct socket_request request = net_request(SOCK_STREAM, "127.0.0.1", 0);
	request.defer_listen = true;
	request.backlog = 16;
	group_open(&group, request, GROUP);
	ck_assert(!connects(group_port(&group)));
	ck_assert_int_eq(socket_listen(group.fds, GROUP, request.backlog), 0);
	ck_assert(connects(group_port(&group)));
	ck_assert_int_eq(group_try(&other, net_request(SOCK_STREAM, "127.0.0.1", group_port(&group)), 1), -EADDRINUSE);
	group_close(&group);
	int none = -1;
	ck_assert_int_eq(socket_listen(&none, 1, 16), -EBADF);
}
END_TEST

START_TEST(ipv6_wildcard_leaves_the_port_to_ipv4)
{
	struct group v4, v6;
	if (!net_has("::"))
		return; /* no IPv6 here */
	for (int i = 0; i < 2; i++) {
		group_open(&v4, net_request(types[i], "0.0.0.0", 0), GROUP);
		group_open(&v6, net_request(types[i], "::", group_port(&v4)), GROUP);
		group_close(&v4);
		group_close(&v6);
	}
}
END_TEST

static void make_datagram_pair(struct group *broad, struct group *narrow)
{
	group_open(broad, net_request(SOCK_DGRAM, "0.0.0.0", 0), 1);
	struct socket_request request = net_request(SOCK_DGRAM, "127.0.0.1", group_port(broad));
	request.overlaps = true;
	group_open(narrow, request, 1);
}

START_TEST(specific_address_goes_before_the_wildcard)
{
	static const char *const ips[] = {"127.0.0.1", "127.0.0.2"};
	struct group broad, narrow;
	char byte;
	make_datagram_pair(&broad, &narrow);
	int client = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	for (int i = 0; i < 2; i++) {
		struct socket_address to = net_address(ips[i], group_port(&broad));
		ck_assert_int_eq(sendto(client, ips[i] + 8, 1, 0, &to.any, to.length), 1);
		int winner = i == 0 ? narrow.fds[0] : broad.fds[0];
		net_wait(winner, POLLIN);
		ck_assert_int_eq(recv(winner, &byte, 1, 0), 1);
	}
	close(client);
	group_close(&broad);
	group_close(&narrow);
}
END_TEST

START_TEST(clients_are_spread_over_all_sockets_of_a_group)
{
	enum { CLIENTS = 96 };
	struct group group;
	int clients[CLIENTS], had[GROUP] = {0};
	group_open(&group, net_request(SOCK_STREAM, "127.0.0.1", 0), GROUP);
	for (int i = 0; i < CLIENTS; i++)
		clients[i] = net_connect(&group.request.address);
	for (int i = 0; i < CLIENTS; i++) {
		struct pollfd all[GROUP];
		for (int j = 0; j < GROUP; j++)
			all[j] = (struct pollfd){.fd = group.fds[j], .events = POLLIN};
		ck_assert_int_gt(poll(all, GROUP, NET_TIMEOUT_MS), 0);
		int ready = 0;
		while (all[ready].revents == 0)
			ready++;
		close(accept_one(group.fds[ready]));
		had[ready]++;
	}
	for (int i = 0; i < GROUP; i++)
		ck_assert_int_gt(had[i], 0);
	for (int i = 0; i < CLIENTS; i++)
		close(clients[i]);
	group_close(&group);
}
END_TEST

START_TEST(group_that_cannot_be_bound_leaves_no_socket_open)
{
	struct group ours, theirs;
	group_open(&ours, net_request(SOCK_DGRAM, "127.0.0.1", 0), 1);
	int before = count_descriptors();
	ck_assert_int_eq(group_try(&theirs, net_request(SOCK_DGRAM, "127.0.0.1", group_port(&ours)), GROUP),
			 -EADDRINUSE);
	ck_assert_int_eq(group_try(&theirs, net_request(SOCK_DGRAM, "192.0.2.1", 0), GROUP), -EADDRNOTAVAIL);
	ck_assert_int_eq(count_descriptors(), before);
	group_close(&ours);
}
END_TEST

/* The descriptors suffice for all sockets but the last. */
START_TEST(group_that_runs_out_of_descriptors_leaves_no_socket_open)
{
	struct group group;
	struct rlimit limit, before;
	int next = dup(STDERR_FILENO), count = count_descriptors();
	close(next);
	ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &before), 0);
	limit = (struct rlimit){.rlim_cur = (rlim_t)next + GROUP - 1, .rlim_max = before.rlim_max};
	ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
	ck_assert_int_eq(group_try(&group, net_request(SOCK_STREAM, "127.0.0.1", 0), GROUP), -EMFILE);
	ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &before), 0);
	ck_assert_int_eq(count_descriptors(), count - 1);
}
END_TEST

/* --- options --- */

START_TEST(sockets_are_nonblocking_and_close_on_exec)
{
	for (int i = 0; i < 2; i++) {
		struct group group;
		group_open(&group, net_request(types[i], "127.0.0.1", 0), 2);
		for (int j = 0; j < 2; j++) {
			ck_assert(fcntl(group.fds[j], F_GETFL) & O_NONBLOCK);
			ck_assert(fcntl(group.fds[j], F_GETFD) & FD_CLOEXEC);
		}
		group_close(&group);
	}
}
END_TEST

START_TEST(accepted_connections_inherit_the_requested_options)
{
	struct group group;
	struct socket_request request = net_request(SOCK_STREAM, "127.0.0.1", 0);
	request.keepalive_s = 61;
	request.dscp = 46;
	request.send_buffer = 30000;
	request.receive_buffer = 20000;
	group_open(&group, request, 2);
	for (unsigned i = 0; i < 2; i++)
		ck_assert_int_eq(net_get(group.fds[i], IPPROTO_IP, IP_TOS), 46 << 2);
	group_close(&group);

	group_open(&group, request, 1);
	int client = net_connect(&group.request.address), server = accept_one(group.fds[0]);
	ck_assert_int_eq(net_get(server, IPPROTO_TCP, TCP_NODELAY), 1);
	ck_assert_int_eq(net_get(server, SOL_SOCKET, SO_KEEPALIVE), 1);
	ck_assert_int_eq(net_get(server, IPPROTO_TCP, TCP_KEEPIDLE), 61);
	ck_assert_int_eq(net_get(server, IPPROTO_TCP, TCP_KEEPINTVL), 61);
	ck_assert_int_eq(net_get(server, IPPROTO_IP, IP_TOS), 46 << 2);
	ck_assert_int_eq(socket_buffer_size(server, SO_SNDBUF), 30000);
	ck_assert_int_eq(socket_buffer_size(server, SO_RCVBUF), 20000);
	close(client);
	close(server);
	group_close(&group);
}
END_TEST

START_TEST(options_that_are_not_requested_keep_their_defaults)
{
	struct group group;
	group_open(&group, net_request(SOCK_STREAM, "127.0.0.1", 0), 1);
	int plain = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	ck_assert_int_eq(net_get(group.fds[0], SOL_SOCKET, SO_KEEPALIVE), 0);
	ck_assert_int_eq(net_get(group.fds[0], IPPROTO_IP, IP_TOS), net_get(plain, IPPROTO_IP, IP_TOS));
	ck_assert_int_eq(socket_buffer_size(group.fds[0], SO_SNDBUF), socket_buffer_size(plain, SO_SNDBUF));
	ck_assert_int_eq(socket_buffer_size(group.fds[0], SO_RCVBUF), socket_buffer_size(plain, SO_RCVBUF));
	close(plain);
	group_close(&group);
}
END_TEST

START_TEST(datagram_wildcard_reports_the_destination)
{
	static const struct {
		const char *ip;
		int level, option, all, expected;
	} rows[] = {
		{"0.0.0.0", IPPROTO_IP, IP_PKTINFO, IP_MULTICAST_ALL, 1},
		{"127.0.0.1", IPPROTO_IP, IP_PKTINFO, IP_MULTICAST_ALL, 0},
		{"::", IPPROTO_IPV6, IPV6_RECVPKTINFO, IPV6_MULTICAST_ALL, 1},
		{"::1", IPPROTO_IPV6, IPV6_RECVPKTINFO, IPV6_MULTICAST_ALL, 0},
	};
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		struct group group;
		if (!net_has(rows[i].ip))
			continue;
		group_open(&group, net_request(SOCK_DGRAM, rows[i].ip, 0), 1);
		ck_assert_int_eq(net_get(group.fds[0], rows[i].level, rows[i].option), rows[i].expected);
		ck_assert_int_eq(net_get(group.fds[0], rows[i].level, rows[i].all), 0);
		group_close(&group);
	}
}
END_TEST

START_TEST(dscp_of_a_syn_is_saved_and_can_be_set_on_the_connection)
{
	for (int i = 0; i < 2; i++) {
		bool v4 = i == 0;
		struct group group;
		struct socket_request request = net_request(SOCK_STREAM, loopbacks[i], 0);
		if (!net_has(loopbacks[i]))
			continue;
		request.wants_dscp = true;
		group_open(&group, request, 1);
		int client = socket(v4 ? AF_INET : AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
		ck_assert_int_eq(socket_set_dscp(client, v4 ? AF_INET : AF_INET6, 34), 0);
		ck_assert_int_eq(connect(client, &group.request.address.any, group.request.address.length), 0);
		int server = accept_one(group.fds[0]);
		ck_assert_int_eq(socket_saved_dscp(server), 34);
		ck_assert_int_eq(socket_set_dscp(server, v4 ? AF_INET : AF_INET6, 34), 0);
		ck_assert_int_eq(net_get(server, v4 ? IPPROTO_IP : IPPROTO_IPV6, v4 ? IP_TOS : IPV6_TCLASS), 34 << 2);
		close(client);
		close(server);
		group_close(&group);
	}
}
END_TEST

START_TEST(saved_dscp_is_minus_one_without_a_saved_syn)
{
	struct group group;
	group_open(&group, net_request(SOCK_STREAM, "127.0.0.1", 0), 1);
	int client = net_connect(&group.request.address), server = accept_one(group.fds[0]);
	ck_assert_int_eq(socket_saved_dscp(server), -1);
	ck_assert_int_eq(socket_saved_dscp(-1), -1);
	close(client);
	close(server);
	group_close(&group);
}
END_TEST

START_TEST(all_sockets_of_a_group_have_the_requested_owner)
{
	struct group group;
	struct stat stat;
	struct socket_request request = net_request(SOCK_DGRAM, "127.0.0.1", 0);
	request.owner = geteuid() == 0 ? 65534 : geteuid(); /* another owner needs root */
	group_open(&group, request, GROUP);
	for (int i = 0; i < GROUP; i++) {
		ck_assert_int_eq(fstat(group.fds[i], &stat), 0);
		ck_assert_uint_eq(stat.st_uid, request.owner);
	}
	group_close(&group);
}
END_TEST

START_TEST(missing_address_is_bound_with_free_bind_only)
{
	struct group group;
	struct socket_request request = net_request(SOCK_STREAM, "192.0.2.1", 0);
	ck_assert_int_eq(group_try(&group, request, 1), -EADDRNOTAVAIL);
	request.free_bind = true;
	ck_assert_int_eq(group_try(&group, request, 1), 0);
	group_close(&group);
}
END_TEST

static void send_to_group(const struct group *group, const char *ip)
{
	int lo = (int)if_nametoindex("lo");
	struct ip_mreqn through = {.imr_ifindex = lo};
	struct socket_address to = net_address(ip, group_port(group));
	int client = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	ck_assert_int_eq(setsockopt(client, IPPROTO_IP, IP_MULTICAST_IF, &through, sizeof through), 0);
	ck_assert_int_eq(sendto(client, "m", 1, 0, &to.any, to.length), 1);
	close(client);
}

START_TEST(only_the_socket_that_joined_receives_multicast)
{
	char byte;
	struct group group;
	struct socket_group wanted = {.address = net_address("239.255.77.7", 0), .interface = if_nametoindex("lo")};
	struct socket_request request = net_request(SOCK_DGRAM, "0.0.0.0", 0);
	request.shared = true;
	group_open(&group, request, 2);
	int error = socket_join(group.fds[0], &wanted);
	ck_assert_msg(error == 0, "cannot join: %s", strerror(-error));
	send_to_group(&group, "239.255.77.7");
	net_wait(group.fds[0], POLLIN);
	ck_assert_int_eq(recv(group.fds[0], &byte, 1, 0), 1);
	net_assert_quiet(group.fds[1]);
	send_to_group(&group, "239.255.77.8");
	net_assert_quiet(group.fds[0]);
	group_close(&group);
}
END_TEST

START_TEST(unicast_address_cannot_be_joined)
{
	struct group group;
	struct socket_group wanted = {.address = net_address("127.0.0.1", 0), .interface = if_nametoindex("lo")};
	group_open(&group, net_request(SOCK_DGRAM, "0.0.0.0", 0), 1);
	ck_assert_int_ne(socket_join(group.fds[0], &wanted), 0);
	group_close(&group);
}
END_TEST

/* --- before a close --- */

START_TEST(listener_that_stops_new_syns_keeps_its_accept_queue)
{
	for (int i = 0; i < 2; i++) {
		struct group group;
		if (!net_has(loopbacks[i]))
			continue;
		group_open(&group, net_request(SOCK_STREAM, loopbacks[i], 0), 1);
		int queued = net_connect(&group.request.address), open = net_connect(&group.request.address);
		int first = accept_one(group.fds[0]);
		ck_assert_int_eq(socket_stop_new(group.fds[0]), 0);
		int late = net_begin_connect(&group.request.address);
		int second = accept_one(group.fds[0]);
		net_send(queued, "q", 1);
		net_send(open, "o", 1);
		net_wait(first, POLLIN);
		net_wait(second, POLLIN);
		net_assert_not_connected(late);
		close(late);
		close(queued);
		close(open);
		close(first);
		close(second);
		group_close(&group);
	}
}
END_TEST

/* With TCP_DEFER_ACCEPT a handshake lasts until the client sends data. */
START_TEST(listener_that_stops_new_syns_completes_handshakes_in_progress)
{
	for (int i = 0; i < 2; i++) {
		struct group group;
		char byte = 0;
		if (!net_has(loopbacks[i]))
			continue;
		group_open(&group, net_request(SOCK_STREAM, loopbacks[i], 0), 1);
		net_set(group.fds[0], IPPROTO_TCP, TCP_DEFER_ACCEPT, 60);
		int early = net_connect(&group.request.address);
		ck_assert_int_lt(accept4(group.fds[0], NULL, NULL, SOCK_CLOEXEC), 0);
		ck_assert_int_eq(errno, EAGAIN);
		ck_assert_int_eq(socket_stop_new(group.fds[0]), 0);
		int late = net_begin_connect(&group.request.address);
		net_send(early, "s", 1);
		int server = accept_one(group.fds[0]);
		net_receive(server, &byte, 1);
		ck_assert_int_eq(byte, 's');
		net_assert_not_connected(late);
		close(late);
		close(early);
		close(server);
		group_close(&group);
	}
}
END_TEST

static void become_nobody(void)
{
	if (geteuid() == 0)
		ck_assert_int_eq(setresuid(65534, 65534, 65534), 0);
}

/* Without root a socket that is bound to an interface cannot be bound to another, and filters may need root, too. */
START_TEST(listener_of_an_interface_stops_new_syns_without_root)
{
	for (int i = 0; i < 2; i++) {
		struct group group;
		struct socket_request request = net_request(SOCK_STREAM, loopbacks[i], 0);
		if (!net_has(loopbacks[i]))
			continue;
		request.interface = "lo";
		group_open(&group, request, 1);
		int queued = net_connect(&group.request.address);
		become_nobody();
		ck_assert_int_eq(socket_stop_new(group.fds[0]), 0);
		int late = net_begin_connect(&group.request.address);
		int accepted = accept_one(group.fds[0]);
		net_assert_not_connected(late);
		socket_restore_accepted(accepted);
		net_send(queued, "q", 1);
		net_wait(accepted, POLLIN);
		close(late);
		close(queued);
		close(accepted);
		group_close(&group);
	}
}
END_TEST

START_TEST(new_syns_reach_another_socket_of_the_port_at_once)
{
	struct group leaving, next;
	struct socket_request request = net_request(SOCK_STREAM, "127.0.0.1", 0);
	group_open(&leaving, request, 2);
	for (int i = 0; i < 2; i++)
		ck_assert_int_eq(socket_stop_new(leaving.fds[i]), 0);
	request.address = leaving.request.address;
	request.overlaps = true;
	group_open(&next, request, 1);
	for (int i = 0; i < 20; i++) { /* a dropped SYN would be sent again after a second */
		int peer = net_connect(&request.address);
		close(accept_one(next.fds[0]));
		close(peer);
	}
	group_close(&leaving);
	group_close(&next);
}
END_TEST

static void send_to(const struct socket_address *to, const char *text)
{
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	ck_assert_int_eq(sendto(fd, text, strlen(text), 0, &to->any, to->length), (ssize_t)strlen(text));
	close(fd);
}

static void assert_datagram(int fd, const char *text)
{
	char bytes[16];
	net_wait(fd, POLLIN);
	ck_assert_int_eq(recv(fd, bytes, sizeof bytes, 0), (ssize_t)strlen(text));
	ck_assert_int_eq(memcmp(bytes, text, strlen(text)), 0);
}

START_TEST(datagrams_stopped_by_an_address_reach_the_wildcard)
{
	struct group wildcard, address;
	struct socket_request request = net_request(SOCK_DGRAM, "0.0.0.0", 0);
	group_open(&wildcard, request, 1);
	struct socket_address to = net_address("127.0.0.1", group_port(&wildcard));
	request.address = to;
	request.overlaps = true;
	group_open(&address, request, 1);
	send_to(&to, "early");
	ck_assert_int_eq(socket_stop_datagrams(address.fds[0]), 0);
	send_to(&to, "late");
	assert_datagram(wildcard.fds[0], "late");
	assert_datagram(address.fds[0], "early");
	net_assert_quiet(address.fds[0]);
	group_close(&address);
	group_close(&wildcard);
}
END_TEST

/* --- open sockets --- */

START_TEST(retune_sets_and_resets_the_options_of_a_listener)
{
	struct group group;
	struct socket_request was = net_request(SOCK_STREAM, "127.0.0.1", 0), now;
	group_open(&group, was, 1);
	int fd = group.fds[0], first = net_get(fd, SOL_SOCKET, SO_RCVBUF);
	was = now = group.request;
	now.dscp = 46;
	now.keepalive_s = 77;
	now.receive_buffer = 100000;
	now.backlog = 3;
	now.wants_dscp = true;
	ck_assert_int_eq(socket_retune(fd, &was, &now), 0);
	ck_assert_int_eq(net_get(fd, IPPROTO_IP, IP_TOS), 46 << 2);
	ck_assert_int_eq(net_get(fd, SOL_SOCKET, SO_KEEPALIVE), 1);
	ck_assert_int_eq(net_get(fd, IPPROTO_TCP, TCP_KEEPIDLE), 77);
	ck_assert_int_eq(net_get(fd, SOL_SOCKET, SO_RCVBUF), 200000);
	ck_assert_int_eq(net_get(fd, IPPROTO_TCP, TCP_SAVE_SYN), 1);
	ck_assert_int_eq(socket_retune(fd, &now, &was), 0);
	ck_assert_int_eq(net_get(fd, IPPROTO_IP, IP_TOS), 0);
	ck_assert_int_eq(net_get(fd, SOL_SOCKET, SO_KEEPALIVE), 0);
	ck_assert_int_eq(net_get(fd, SOL_SOCKET, SO_RCVBUF), first);
	ck_assert_int_eq(net_get(fd, IPPROTO_TCP, TCP_SAVE_SYN), 0);
	group_close(&group);
}
END_TEST

START_TEST(retune_sets_and_resets_the_options_of_a_datagram_socket)
{
	struct group group;
	struct socket_request was = net_request(SOCK_DGRAM, "127.0.0.1", 0), now;
	group_open(&group, was, 1);
	int fd = group.fds[0];
	was = now = group.request;
	now.shared = now.wants_dscp = true;
	now.send_buffer = 50000;
	ck_assert_int_eq(socket_retune(fd, &was, &now), 0);
	ck_assert_int_eq(net_get(fd, SOL_SOCKET, SO_REUSEADDR), 1);
	ck_assert_int_eq(net_get(fd, IPPROTO_IP, IP_RECVTOS), 1);
	ck_assert_int_eq(net_get(fd, SOL_SOCKET, SO_SNDBUF), 100000);
	ck_assert_int_eq(socket_retune(fd, &now, &was), 0);
	ck_assert_int_eq(net_get(fd, SOL_SOCKET, SO_REUSEADDR), 0);
	ck_assert_int_eq(net_get(fd, IPPROTO_IP, IP_RECVTOS), 0);
	group_close(&group);
}
END_TEST

START_TEST(examine_reports_type_address_and_interface)
{
	struct socket_kind kind;
	struct group group;
	for (int i = 0; i < 2; i++) {
		group_open(&group, net_request(i == 0 ? SOCK_STREAM : SOCK_DGRAM, "127.0.0.1", 0), 1);
		ck_assert_ptr_null(socket_examine(group.fds[0], &kind));
		ck_assert_int_eq(kind.type, group.request.type);
		ck_assert_uint_eq(socket_address_port(&kind.address), group_port(&group));
		ck_assert(!kind.dual_stack);
		ck_assert_str_eq(kind.interface, "");
		group_close(&group);
	}
}
END_TEST

START_TEST(examine_rejects_sockets_that_cannot_be_served)
{
	struct socket_kind kind;
	int pair[2], pipes[2];
	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
	ck_assert_int_eq(pipe2(pipes, O_CLOEXEC), 0);
	int stream = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0),
	    datagrams = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	ck_assert_str_eq(socket_examine(-1, &kind), "is not open");
	ck_assert_str_eq(socket_examine(pipes[0], &kind), "is not a socket");
	ck_assert_str_eq(socket_examine(pair[0], &kind), "is neither an IPv4 nor an IPv6 socket");
	ck_assert_str_eq(socket_examine(stream, &kind), "is a TCP socket that does not listen");
	ck_assert_str_eq(socket_examine(datagrams, &kind), "is not bound to a port");
	close(stream);
	close(datagrams);
	close(pair[0]);
	close(pair[1]);
	close(pipes[0]);
	close(pipes[1]);
}
END_TEST

START_TEST(examine_and_adopt_know_a_dual_stack_wildcard)
{
	struct socket_kind kind;
	struct socket_address any = net_address("::", 0);
	if (!net_has("::1"))
		return;
	int fd = socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	net_set(fd, IPPROTO_IPV6, IPV6_V6ONLY, 0);
	ck_assert_int_eq(bind(fd, &any.any, any.length), 0);
	ck_assert_ptr_null(socket_examine(fd, &kind));
	ck_assert(kind.dual_stack);
	struct socket_request request = {.address = kind.address, .type = SOCK_DGRAM, .dscp = -1, .dual_stack = true};
	ck_assert_int_eq(socket_adopt(fd, &request), 0);
	ck_assert_int_eq(net_get(fd, IPPROTO_IP, IP_PKTINFO), 1);
	ck_assert_int_eq(net_get(fd, IPPROTO_IPV6, IPV6_RECVPKTINFO), 1);
	ck_assert_int_ne(fcntl(fd, F_GETFL) & O_NONBLOCK, 0);
	close(fd);
}
END_TEST

START_TEST(unmap_makes_a_mapped_address_ipv4)
{
	struct socket_address mapped = net_address("::ffff:192.0.2.7", 77), other = net_address("2001:db8::1", 77);
	char text[SOCKET_TEXT_SIZE];
	socket_address_unmap(&mapped);
	socket_address_print(&mapped, text);
	ck_assert_str_eq(text, "192.0.2.7:77");
	ck_assert_uint_eq(mapped.length, sizeof mapped.v4);
	socket_address_unmap(&other);
	socket_address_print(&other, text);
	ck_assert_str_eq(text, "[2001:db8::1]:77");
}
END_TEST

START_TEST(multicast_group_can_be_left_and_joined_again)
{
	struct group group;
	struct socket_group wanted = {.address = net_address("239.255.77.77", 0), .interface = if_nametoindex("lo")};
	struct socket_group other = wanted;
	group_open(&group, net_request(SOCK_DGRAM, "0.0.0.0", 0), 1);
	ck_assert_int_eq(socket_join(group.fds[0], &wanted), 0);
	ck_assert_int_eq(socket_join(group.fds[0], &wanted), -EADDRINUSE);
	ck_assert_int_eq(socket_leave(group.fds[0], &wanted), 0);
	ck_assert_int_eq(socket_leave(group.fds[0], &wanted), -EADDRNOTAVAIL);
	ck_assert_int_eq(socket_join(group.fds[0], &wanted), 0);
	ck_assert(socket_group_equals(&wanted, &other));
	other.interface++;
	ck_assert(!socket_group_equals(&wanted, &other));
	group_close(&group);
}
END_TEST

START_TEST(errors_are_returned_as_negative_errno)
{
	ck_assert_int_eq(socket_stop_datagrams(-1), -EBADF);
	ck_assert_int_eq(socket_stop_new(-1), -EBADF);
	ck_assert_int_eq(socket_set_dscp(-1, AF_INET, 1), -EBADF);
	ck_assert_int_eq(socket_buffer_size(-1, SO_RCVBUF), -1);
}
END_TEST

static TCase *add_tcase(Suite *suite, const char *name)
{
	TCase *tcase = tcase_create(name);
	tcase_set_timeout(tcase, 60);
	suite_add_tcase(suite, tcase);
	return tcase;
}

static Suite *suite(void)
{
	Suite *suite = suite_create("socket");
	TCase *addresses = add_tcase(suite, "addresses");
	tcase_add_test(addresses, addresses_are_printed_with_port_and_zone);
	tcase_add_test(addresses, wildcards_are_recognised);
	tcase_add_test(addresses, addresses_with_one_ip_are_the_same_whatever_their_ports);
	tcase_add_test(addresses, interface_is_found_by_name_or_number);
	tcase_add_test(addresses, names_of_no_interface_are_not_found);

	TCase *ports = add_tcase(suite, "ports");
	tcase_add_test(ports, port_zero_gives_the_group_one_free_port);
	tcase_add_test(ports, second_daemon_on_the_same_port_gets_eaddrinuse);
	tcase_add_test(ports, daemons_that_start_together_cannot_share_a_tcp_port);
	tcase_add_test(ports, port_can_be_bound_again_during_time_wait);
	tcase_add_test(ports, overlapping_groups_bind_if_requested);
	tcase_add_test(ports, deferred_group_holds_its_port_and_accepts_after_socket_listen);
	tcase_add_test(ports, ipv6_wildcard_leaves_the_port_to_ipv4);
	tcase_add_test(ports, specific_address_goes_before_the_wildcard);
	tcase_add_test(ports, clients_are_spread_over_all_sockets_of_a_group);
	tcase_add_test(ports, group_that_cannot_be_bound_leaves_no_socket_open);
	tcase_add_test(ports, group_that_runs_out_of_descriptors_leaves_no_socket_open);

	TCase *options = add_tcase(suite, "options");
	tcase_add_test(options, sockets_are_nonblocking_and_close_on_exec);
	tcase_add_test(options, accepted_connections_inherit_the_requested_options);
	tcase_add_test(options, options_that_are_not_requested_keep_their_defaults);
	tcase_add_test(options, datagram_wildcard_reports_the_destination);
	tcase_add_test(options, dscp_of_a_syn_is_saved_and_can_be_set_on_the_connection);
	tcase_add_test(options, saved_dscp_is_minus_one_without_a_saved_syn);
	tcase_add_test(options, all_sockets_of_a_group_have_the_requested_owner);
	tcase_add_test(options, missing_address_is_bound_with_free_bind_only);
	tcase_add_test(options, only_the_socket_that_joined_receives_multicast);
	tcase_add_test(options, unicast_address_cannot_be_joined);

	TCase *closing = add_tcase(suite, "close");
	tcase_add_test(closing, listener_that_stops_new_syns_keeps_its_accept_queue);
	tcase_add_test(closing, listener_that_stops_new_syns_completes_handshakes_in_progress);
	tcase_add_test(closing, listener_of_an_interface_stops_new_syns_without_root);
	tcase_add_test(closing, new_syns_reach_another_socket_of_the_port_at_once);
	tcase_add_test(closing, datagrams_stopped_by_an_address_reach_the_wildcard);
	tcase_add_test(closing, errors_are_returned_as_negative_errno);

	TCase *open = add_tcase(suite, "open");
	tcase_add_test(open, retune_sets_and_resets_the_options_of_a_listener);
	tcase_add_test(open, retune_sets_and_resets_the_options_of_a_datagram_socket);
	tcase_add_test(open, examine_reports_type_address_and_interface);
	tcase_add_test(open, examine_rejects_sockets_that_cannot_be_served);
	tcase_add_test(open, examine_and_adopt_know_a_dual_stack_wildcard);
	tcase_add_test(open, unmap_makes_a_mapped_address_ipv4);
	tcase_add_test(open, multicast_group_can_be_left_and_joined_again);
	return suite;
}

int main(void)
{
	return check_run(suite());
}
