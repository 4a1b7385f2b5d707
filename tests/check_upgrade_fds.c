/* check_upgrade_fds.c: the list of endpoints that an upgrade passes on. */
#include <fcntl.h>
#include <net/if.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "check_net.h"
#include "check_run.h"
#include "core/transport.h"
#include "handoff/upgrade_fds.h"

enum { TEXT_SIZE = 1024 };

static int tcp_fd, udp_fds[2];
static uint16_t tcp_port, udp_port;
static struct endpoint_pool *pool;
static struct diagnostics diagnostics;

static void set_loopback(struct socket_address *address, uint16_t port)
{
	const struct in_addr loopback = {.s_addr = htonl(INADDR_LOOPBACK)};
	socket_address_set(address, AF_INET, &loopback, "", port);
}

static void setup(void)
{
	struct socket_request tcp = {.type = SOCK_STREAM, .backlog = 5, .dscp = -1, .owner = (uid_t)-1};
	struct socket_request udp = {.type = SOCK_DGRAM, .dscp = -1, .owner = (uid_t)-1};
	set_loopback(&tcp.address, 0);
	set_loopback(&udp.address, 0);
	ck_assert_int_eq(socket_open_group(&tcp, &tcp_fd, 1), 0);
	ck_assert_int_eq(socket_open_group(&udp, udp_fds, 2), 0);
	tcp_port = socket_address_port(&tcp.address);
	udp_port = socket_address_port(&udp.address);
	pool = endpoint_pool_new();
	/* a first problem is kept, as at a reload */
	diagnostics = (struct diagnostics){.keep_first = true};
}

/* Clears FD_CLOEXEC, as on descriptors that an exec passes. */
static void clear_cloexec(int fd)
{
	ck_assert_int_eq(fcntl(fd, F_SETFD, 0), 0);
}

static void pass_through_exec(void)
{
	clear_cloexec(tcp_fd);
	clear_cloexec(udp_fds[0]);
	clear_cloexec(udp_fds[1]);
}

static void teardown(void)
{
	endpoint_pool_free(pool, true);
	close(tcp_fd);
	close(udp_fds[0]);
	close(udp_fds[1]);
}

static int make_list(const char *text)
{
	int fd = memfd_create("check", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	ck_assert_int_eq(write(fd, text, strlen(text)), (ssize_t)strlen(text));
	ck_assert_int_eq(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW), 0);
	return fd;
}

static struct endpoint *make_tcp(void)
{
	struct socket_kind kind;
	const struct endpoint_record record = {.wanted = net_address("127.0.0.1", 0), .service = "lab-echo"};
	ck_assert_ptr_null(socket_examine(tcp_fd, &kind));
	return endpoint_from_parent(&tcp_fd, 1, &kind, &record);
}

static struct endpoint *make_udp(void)
{
	const int fds[] = {udp_fds[0], -1, udp_fds[1]}; /* the second was closed */
	const struct in6_addr ip = {.s6_addr = {0xff, 0x15, [15] = 7}};
	struct socket_group group = {.interface = 5};
	socket_address_set(&group.address, AF_INET6, &ip, "", 0);
	struct socket_kind kind;
	const struct endpoint_record record = {.wanted = net_address("127.0.0.1", udp_port),
					       .from_listen_fds = true,
					       .interface = "a b%",
					       .socket_name = "my socket = 100%, mine",
					       .groups = &group,
					       .group_count = 1};
	ck_assert_ptr_null(socket_examine(udp_fds[0], &kind));
	return endpoint_from_parent(fds, 3, &kind, &record);
}

/* Frees ENDPOINT without its sockets, which are the fixture's. */
static void forget(struct endpoint *endpoint)
{
	for (unsigned i = 0; i < endpoint->count; i++)
		endpoint->fds[i] = -1;
	endpoint_free(endpoint);
}

static struct endpoint *only_endpoint(void)
{
	size_t index = 0;
	struct endpoint *endpoint = endpoint_pool_next(pool, &index);
	ck_assert_ptr_nonnull(endpoint);
	ck_assert_ptr_null(endpoint_pool_next(pool, &index));
	return endpoint;
}

static struct upgrade_fds *list_endpoints(struct endpoint *first, struct endpoint *second)
{
	struct endpoint **endpoints = calloc(2, sizeof(struct endpoint *));
	endpoints[0] = first;
	endpoints[1] = second;
	struct upgrade_fds *fds = upgrade_fds_new(endpoints, (first != NULL) + (second != NULL));
	ck_assert_ptr_nonnull(fds);
	return fds;
}

static void write_and_read(struct endpoint *endpoint)
{
	struct upgrade_fds *fds = list_endpoints(endpoint, NULL);
	ck_assert_int_eq(fcntl(fds->memfd, F_GETFD), FD_CLOEXEC);
	forget(endpoint);
	pass_through_exec();
	ck_assert_msg(upgrade_fds_read(fds->memfd, pool, &diagnostics), "%s", diagnostics.first);
	upgrade_fds_free(fds);
}

START_TEST(endpoint_is_read_as_it_was_written)
{
	write_and_read(make_tcp());
	const struct endpoint *read = only_endpoint();
	ck_assert_uint_eq(read->transport, TRANSPORT_TCP);
	ck_assert_uint_eq(socket_address_port(&read->wanted), 0);
	ck_assert_uint_eq(socket_address_port(&read->address), tcp_port);
	ck_assert_str_eq(read->interface, "");
	ck_assert_str_eq(read->service, "lab-echo");
	ck_assert_ptr_null(read->socket_name);
	ck_assert(!read->from_listen_fds && !read->dual_stack);
	ck_assert(read->shared && read->from_parent);
	ck_assert_uint_eq(read->count, 1);
	ck_assert_int_eq(read->fds[0], tcp_fd);
	ck_assert_int_eq(fcntl(tcp_fd, F_GETFD), FD_CLOEXEC);
	tcp_fd = -1;
}
END_TEST

START_TEST(endpoint_with_all_properties_is_read_as_it_was_written)
{
	write_and_read(make_udp());
	const struct endpoint *read = only_endpoint();
	ck_assert_uint_eq(read->transport, TRANSPORT_UDP);
	ck_assert_uint_eq(socket_address_port(&read->wanted), udp_port);
	ck_assert_str_eq(read->interface, "a b%");
	ck_assert_ptr_null(read->service);
	ck_assert_str_eq(read->socket_name, "my socket = 100%, mine");
	ck_assert(read->from_listen_fds);
	ck_assert_uint_eq(read->count, 2);
	ck_assert_int_eq(read->fds[0], udp_fds[0]);
	ck_assert_int_eq(read->fds[1], udp_fds[1]);
	ck_assert_uint_eq(read->group_count, 1);
	ck_assert_uint_eq(read->groups_in_force, 1);
	ck_assert_uint_eq(read->groups[0].interface, 5);
	ck_assert_uint_eq(read->groups[0].address.v6.sin6_addr.s6_addr[0], 0xff);
	ck_assert_uint_eq(read->groups[0].address.v6.sin6_addr.s6_addr[15], 7);
	udp_fds[0] = udp_fds[1] = -1;
}
END_TEST

START_TEST(listed_descriptors_are_the_sockets_and_the_list)
{
	char variable[64];
	struct endpoint *tcp = make_tcp(), *udp = make_udp();
	struct upgrade_fds *fds = list_endpoints(tcp, udp);
	ck_assert_uint_eq(fds->count, 4);
	ck_assert_int_eq(fds->list[0], tcp_fd);
	ck_assert_int_eq(fds->list[1], udp_fds[0]);
	ck_assert_int_eq(fds->list[2], udp_fds[1]);
	ck_assert_int_eq(fds->list[3], fds->memfd);
	snprintf(variable, sizeof variable, UPGRADE_FDS_VARIABLE "=%d", fds->memfd);
	ck_assert_str_eq(fds->variable, variable);
	upgrade_fds_free(fds);
	forget(tcp);
	forget(udp);
}
END_TEST

START_TEST(empty_list_is_read)
{
	struct upgrade_fds *fds = list_endpoints(NULL, NULL);
	size_t index = 0;
	ck_assert(upgrade_fds_read(fds->memfd, pool, &diagnostics));
	ck_assert_ptr_null(endpoint_pool_next(pool, &index));
	upgrade_fds_free(fds);
}
END_TEST

START_TEST(endpoint_is_marked_as_shared_unless_the_new_process_marks_it_as_unused)
{
	struct endpoint_ports *ports = endpoint_ports_new();
	struct config *config = host_read("[echo]\naddress = 127.0.0.1\nport = 0\n");
	struct endpoint *tcp = endpoint_open(&config->endpoints[0], 1, (uid_t)-1, true, ports, &diagnostics);
	struct endpoint *udp = endpoint_open(&config->endpoints[1], 1, (uid_t)-1, true, ports, &diagnostics);
	struct upgrade_fds *fds = list_endpoints(tcp, udp);
	ck_assert(endpoint_pool_add(pool, tcp)); /* the new process takes UDP alone */
	ck_assert(upgrade_fds_mark_unused(fds->memfd, pool));
	upgrade_fds_mark_shared(fds);
	ck_assert(!tcp->shared);
	ck_assert(udp->shared);
	upgrade_fds_free(fds);
	endpoint_free(udp);
	config_unref(config);
	free(ports);
}
END_TEST

/* T and P stand for the descriptor and the port of a TCP socket. */
#define LINE "smallservd-endpoints 1 1\n+ tcp 4/7f000001/P/0 4/7f000001/P/0 "

static const char *const malformed[] = {
	"",
	"\n",
	"smallservd-endpoints 2 0\n",
	"smallservd-endpoints 1 1\n+\n",
	"smallservd-endpoints 1 1\n+  tcp 4/7f000001/P/0 4/7f000001/P/0 - =echo - - T -\n",
	"smallservd-endpoints 1 1\n+ tcp 5/7f000001/P/0 4/7f000001/P/0 - =echo - - T -\n",
	"smallservd-endpoints 1 1\n+ tcp 4/7f0000/P/0 4/7f000001/P/0 - =echo - - T -\n",
	"smallservd-endpoints 1 1\n+ tcp 4/7f000001/65536/0 4/7f000001/P/0 - =echo - - T -\n",
	"smallservd-endpoints 1 1\n+ tcp 4/7f000001/P/0/0 4/7f000001/P/0 - =echo - - T -\n",
	"smallservd-endpoints 1 1\n+ tcp 4/7f000001 4/7f000001/P/0 - =echo - - T -\n",
	LINE "- =echo - - T\n",
	LINE "eth0 =echo - - T -\n",
	LINE "- =e%0 - - T -\n",
	LINE "- =e%xx - - T -\n",
	LINE "- =echo - - - -\n",
	LINE "- =echo - - T, -\n",
	LINE "- =echo - - T,T -\n",
	LINE "- =echo - - T;T -\n",
	LINE "- =echo - - 1000000 -\n",
	LINE "- =echo - - 99999999999 -\n",
	LINE "- =echo - - 1 -\n",
	LINE "- =echo - - T 4/ef010203/0/0\n",
	LINE "- =echo - - T 4/ef010203/0/0@\n",
	LINE "- =echo - - T 4/ef010203/0/0@1,\n",
};

/* Replaces the letters in TEXT by their numbers. */
static void fill_in(const char *text, char filled[TEXT_SIZE])
{
	size_t length = 0;
	for (; *text != '\0'; text++)
		if (*text == 'T' || *text == 'P')
			length += (size_t)snprintf(filled + length, TEXT_SIZE - length, "%d",
						   *text == 'T' ? tcp_fd : tcp_port);
		else
			filled[length++] = *text;
	filled[length] = '\0';
}

/* Reads the list TEXT as a new process does. Returns whether it is valid. */
static bool read_list(const char *text)
{
	char filled[TEXT_SIZE];
	fill_in(text, filled);
	pass_through_exec();
	int fd = make_list(filled);
	bool valid = upgrade_fds_read(fd, pool, &diagnostics);
	close(fd);
	return valid;
}

START_TEST(malformed_list_is_a_problem)
{
	ck_assert_msg(!read_list(malformed[_i]), "taken: %s", malformed[_i]);
	ck_assert_uint_gt(diagnostics.errors, 0);
	ck_assert_ptr_nonnull(strstr(diagnostics.first, "SMALLSERVD_INHERITANCE: "));
}
END_TEST

START_TEST(list_with_unknown_lines_fields_and_origins_is_read)
{
	ck_assert_msg(
		read_list("smallservd-endpoints 1 1 more\nunknown\n\n"
			  "+ tcp 4/7f000001/P/0 4/7f000001/P/0 - =echo - x T 4/ef010203/0/0@1 more and more\n? tcp\n"),
		"%s", diagnostics.first);
	const struct endpoint *read = only_endpoint();
	ck_assert_str_eq(read->service, "echo");
	ck_assert_uint_eq(read->group_count, 1);
	ck_assert_uint_eq(read->groups[0].address.v4.sin_addr.s_addr, htonl(0xef010203));
	tcp_fd = -1;
}
END_TEST

/* The list is part of the interface between versions: this is how the first one wrote it. */
START_TEST(list_of_the_first_version_is_read)
{
	ck_assert_msg(read_list("smallservd-endpoints 1 1\n"
				"+ tcp 4/7f000001/0/0 4/7f000001/P/0 =lo =lab-echo_1 =100%25%20mine h T "
				"4/ef010203/0/0@1,6/ff150000000000000000000000000007/0/0@5\n"),
		      "%s", diagnostics.first);
	const struct endpoint *read = only_endpoint();
	ck_assert_uint_eq(socket_address_port(&read->wanted), 0);
	ck_assert_uint_eq(socket_address_port(&read->address), tcp_port);
	ck_assert_str_eq(read->interface, "lo");
	ck_assert_str_eq(read->service, "lab-echo_1");
	ck_assert_str_eq(read->socket_name, "100% mine");
	ck_assert(read->from_listen_fds);
	ck_assert_uint_eq(read->groups_in_force, 2);
	tcp_fd = -1;
}
END_TEST

START_TEST(descriptor_with_cloexec_is_a_problem)
{
	char text[TEXT_SIZE];
	fill_in("smallservd-endpoints 1 1\n+ tcp 4/7f000001/P/0 4/7f000001/P/0 - =echo - - T -\n", text);
	int fd = make_list(text);
	ck_assert(!upgrade_fds_read(fd, pool, &diagnostics));
	ck_assert_ptr_nonnull(strstr(diagnostics.first, "was not passed through exec"));
	close(fd);
}
END_TEST

START_TEST(variable_is_read_once_and_unset)
{
	char number[16];
	int fd = make_list("smallservd-endpoints 1 0\n");
	clear_cloexec(fd);
	snprintf(number, sizeof number, "%d", fd);
	setenv(UPGRADE_FDS_VARIABLE, number, 1);
	ck_assert_int_eq(upgrade_fds_find(&diagnostics), fd);
	ck_assert_int_eq(fcntl(fd, F_GETFD), FD_CLOEXEC);
	ck_assert_int_eq(upgrade_fds_find(&diagnostics), -1);
	ck_assert_uint_eq(diagnostics.errors, 0);
	close(fd);
}
END_TEST

static const char *const no_descriptors[] = {"", "x", "-1", "0", "2", "4x", "+4", "999999", "99999999999999999999"};

START_TEST(variable_without_a_valid_descriptor_is_a_problem)
{
	setenv(UPGRADE_FDS_VARIABLE, no_descriptors[_i], 1);
	ck_assert_int_eq(upgrade_fds_find(&diagnostics), -1);
	ck_assert_uint_eq(diagnostics.errors, 1);
	ck_assert_ptr_null(getenv(UPGRADE_FDS_VARIABLE));
}
END_TEST

START_TEST(descriptor_that_is_not_a_list_is_a_problem)
{
	char number[16];
	snprintf(number, sizeof number, "%d", tcp_fd);
	setenv(UPGRADE_FDS_VARIABLE, number, 1);
	ck_assert_int_eq(upgrade_fds_find(&diagnostics), -1);
	ck_assert_uint_eq(diagnostics.errors, 1);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("upgrade_fds");
	TCase *tests = tcase_create("upgrade_fds");
	tcase_add_checked_fixture(tests, setup, teardown);
	tcase_add_test(tests, endpoint_is_read_as_it_was_written);
	tcase_add_test(tests, endpoint_with_all_properties_is_read_as_it_was_written);
	tcase_add_test(tests, empty_list_is_read);
	tcase_add_test(tests, listed_descriptors_are_the_sockets_and_the_list);
	tcase_add_test(tests, endpoint_is_marked_as_shared_unless_the_new_process_marks_it_as_unused);
	tcase_add_loop_test(tests, malformed_list_is_a_problem, 0, sizeof malformed / sizeof *malformed);
	tcase_add_test(tests, list_of_the_first_version_is_read);
	tcase_add_test(tests, list_with_unknown_lines_fields_and_origins_is_read);
	tcase_add_test(tests, descriptor_with_cloexec_is_a_problem);
	tcase_add_test(tests, variable_is_read_once_and_unset);
	tcase_add_loop_test(tests, variable_without_a_valid_descriptor_is_a_problem, 0,
			    sizeof no_descriptors / sizeof *no_descriptors);
	tcase_add_test(tests, descriptor_that_is_not_a_list_is_a_problem);
	suite_add_tcase(suite, tests);
	return check_run(suite);
}
