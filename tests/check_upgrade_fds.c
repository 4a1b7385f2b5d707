/* check_upgrade_fds.c: endpoints are read as they were written, and nothing else is taken for one. */
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

static const char title[] = "smallservd-endpoints 1 1\n";

static int tcp_fd, udp_fds[2];
static uint16_t tcp_port, udp_port;
static struct endpoint_pool *pool;
static struct problems problems;

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
	problems = (struct problems){.reloads = true};
}

/* As an exec without FD_CLOEXEC would hand it on. */
static void hand_on(int fd)
{
	ck_assert_int_eq(fcntl(fd, F_SETFD, 0), 0);
}

static void hand_on_all(void)
{
	hand_on(tcp_fd);
	hand_on(udp_fds[0]);
	hand_on(udp_fds[1]);
}

static void teardown(void)
{
	endpoint_pool_free(pool, true);
	close(tcp_fd);
	close(udp_fds[0]);
	close(udp_fds[1]);
}

/* A writing of TEXT. */
static int make_writing(const char *text)
{
	int fd = memfd_create("check", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	ck_assert_int_eq(write(fd, text, strlen(text)), (ssize_t)strlen(text));
	ck_assert_int_eq(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW), 0);
	return fd;
}

static struct endpoint *make_tcp(void)
{
	struct socket_kind kind;
	const struct endpoint_record record = {.any_port = true, .interface = "", .service = "lab-echo"};
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
	const struct endpoint_record record = {.from_listen_fds = true,
					       .interface = "a b%",
					       .socket_name = "my socket = 100%, mine",
					       .groups = &group,
					       .group_count = 1};
	ck_assert_ptr_null(socket_examine(udp_fds[0], &kind));
	return endpoint_from_parent(fds, 3, &kind, &record);
}

/* The sockets are the fixture's. */
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

static void pass_on(struct endpoint *endpoint)
{
	int fd = upgrade_fds_write(&endpoint, 1);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(fcntl(fd, F_GETFD), FD_CLOEXEC);
	forget(endpoint);
	hand_on_all();
	ck_assert_msg(upgrade_fds_read(fd, pool, &problems), "%s", problems.first);
	close(fd);
}

START_TEST(endpoint_is_read_as_it_was_written)
{
	pass_on(make_tcp());
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

START_TEST(all_that_an_endpoint_can_have_is_read_again)
{
	pass_on(make_udp());
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

START_TEST(no_endpoint_at_all_is_fine)
{
	int fd = upgrade_fds_write(NULL, 0);
	size_t index = 0;
	ck_assert(upgrade_fds_read(fd, pool, &problems));
	ck_assert_ptr_null(endpoint_pool_next(pool, &index));
	close(fd);
}
END_TEST

START_TEST(writer_learns_what_was_left)
{
	struct endpoint *list[] = {make_tcp(), make_udp()};
	bool left[2] = {true, true};
	int fd = upgrade_fds_write(list, 2);
	ck_assert(upgrade_fds_list_left(fd, left, 2));
	ck_assert(!left[0] && !left[1]);
	forget(list[1]);
	/* only the first is in the reader's pool, and nobody takes it */
	ck_assert(endpoint_pool_add(pool, list[0]));
	ck_assert(upgrade_fds_leave(fd, pool));
	ck_assert(upgrade_fds_list_left(fd, left, 2));
	ck_assert(left[0] && !left[1]);
	ck_assert(!upgrade_fds_list_left(fd, left, 1));
	close(fd);
	tcp_fd = -1;
}
END_TEST

/* T and U stand for the descriptors of a TCP and a UDP socket, P and Q for their ports. */
static const char *const malformed[] = {
	"",
	"\n",
	"smallservd-endpoints 1 1",
	"smallservd-endpoints 2 0\n",
	"smallservd-endpoints 1 -1\n",
	"smallservd-endpoints 1 x\n",
	"smallservd-endpoints 1 1\n",
	"smallservd-endpoints 1 0\nmore\n",
	"smallservd-endpoints 1 99999999999999999999\n",
	"smallservd-endpoints 1 2\n+ tcp 4/7f000001/P/0 4/7f000001/P/0 - =echo - - T -\n",
	"smallservd-endpoints 1 1\n+ tcp 4/7f000001/P/0 4/7f000001/P/0 - =echo - - T -",
	"smallservd-endpoints 1 1\n+ tcp 4/7f000001/P/0 4/7f000001/P/0 - =echo - - T\n",
	"smallservd-endpoints 1 1\n+ tcp 4/7f000001/P/0 4/7f000001/P/0 - =echo - - T - more\n",
	"smallservd-endpoints 1 1\n+  tcp 4/7f000001/P/0 4/7f000001/P/0 - =echo - - T -\n",
	"smallservd-endpoints 1 1\n? tcp 4/7f000001/P/0 4/7f000001/P/0 - =echo - - T -\n",
	"smallservd-endpoints 1 1\n+ sctp 4/7f000001/P/0 4/7f000001/P/0 - =echo - - T -\n",
	"smallservd-endpoints 1 1\n+ tcp 5/7f000001/P/0 4/7f000001/P/0 - =echo - - T -\n",
	"smallservd-endpoints 1 1\n+ tcp 4/7f0000/P/0 4/7f000001/P/0 - =echo - - T -\n",
	"smallservd-endpoints 1 1\n+ tcp 4/7f000001/65536/0 4/7f000001/P/0 - =echo - - T -\n",
	"smallservd-endpoints 1 1\n+ tcp 4/7f000001/P/1 4/7f000001/P/0 - =echo - - T -\n",
	"smallservd-endpoints 1 1\n+ tcp 4/7f000001/P/0/0 4/7f000001/P/0 - =echo - - T -\n",
	"smallservd-endpoints 1 1\n+ tcp 4/7f000001/P/0 4/7f000002/P/0 - =echo - - T -\n",
	"smallservd-endpoints 1 1\n+ tcp 4/7f000001/P/0 4/7f000001/1/0 - =echo - - T -\n",
	"smallservd-endpoints 1 1\n+ tcp 4/7f000001/P/0 6/00000000000000000000000000000001/P/0 - =echo - - T -\n",
	"smallservd-endpoints 1 1\n+ udp 4/7f000001/P/0 4/7f000001/P/0 - =echo - - T -\n",
	"smallservd-endpoints 1 1\n+ tcp 4/7f000001/Q/0 4/7f000001/Q/0 - =echo - - U -\n",
	"smallservd-endpoints 1 1\n+ tcp 4/7f000001/P/0 4/7f000001/P/0 eth0 =echo - - T -\n",
	"smallservd-endpoints 1 1\n+ tcp 4/7f000001/P/0 4/7f000001/P/0 =a-name-that-is-too-long =echo - - T -\n",
	"smallservd-endpoints 1 1\n+ tcp 4/7f000001/P/0 4/7f000001/P/0 - =e%0 - - T -\n",
	"smallservd-endpoints 1 1\n+ tcp 4/7f000001/P/0 4/7f000001/P/0 - =e%00 - - T -\n",
	"smallservd-endpoints 1 1\n+ tcp 4/7f000001/P/0 4/7f000001/P/0 - =e(o - - T -\n",
	"smallservd-endpoints 1 1\n+ tcp 4/7f000001/P/0 4/7f000001/P/0 - =echo - x T -\n",
	"smallservd-endpoints 1 1\n+ tcp 4/7f000001/P/0 4/7f000001/P/0 - =echo - bh T -\n",
	"smallservd-endpoints 1 1\n+ tcp 4/7f000001/P/0 4/7f000001/P/0 - =echo -  T -\n",
	"smallservd-endpoints 1 1\n+ tcp 4/7f000001/P/0 4/7f000001/P/0 - =echo - - - -\n",
	"smallservd-endpoints 1 1\n+ tcp 4/7f000001/P/0 4/7f000001/P/0 - =echo - - T, -\n",
	"smallservd-endpoints 1 1\n+ tcp 4/7f000001/P/0 4/7f000001/P/0 - =echo - - T,T -\n",
	"smallservd-endpoints 1 1\n+ tcp 4/7f000001/P/0 4/7f000001/P/0 - =echo - - T;T -\n",
	"smallservd-endpoints 1 1\n+ tcp 4/7f000001/P/0 4/7f000001/P/0 - =echo - - 1000000 -\n",
	"smallservd-endpoints 1 1\n+ tcp 4/7f000001/P/0 4/7f000001/P/0 - =echo - - 99999999999 -\n",
	"smallservd-endpoints 1 1\n+ tcp 4/7f000001/P/0 4/7f000001/P/0 - =echo - - 1 -\n",
	"smallservd-endpoints 1 1\n+ tcp 4/7f000001/P/0 4/7f000001/P/0 - =echo - - T 4/ef010203/0/0\n",
	"smallservd-endpoints 1 1\n+ tcp 4/7f000001/P/0 4/7f000001/P/0 - =echo - - T 4/ef010203/0/0@\n",
	"smallservd-endpoints 1 1\n+ tcp 4/7f000001/P/0 4/7f000001/P/0 - =echo - - T 4/ef010203/0/0@1,\n",
};

/* TEXT with what the letters stand for. */
static void fill_in(const char *text, char filled[TEXT_SIZE])
{
	size_t length = 0;
	for (; *text != '\0'; text++) {
		int number = *text == 'T' ? tcp_fd : *text == 'U' ? udp_fds[0] : *text == 'P' ? tcp_port : udp_port;
		if (strchr("TUPQ", *text) != NULL)
			length += (size_t)snprintf(filled + length, TEXT_SIZE - length, "%d", number);
		else
			filled[length++] = *text;
	}
	filled[length] = '\0';
}

START_TEST(malformed_writing_is_a_problem)
{
	char text[TEXT_SIZE];
	fill_in(malformed[_i], text);
	hand_on_all();
	int fd = make_writing(text);
	ck_assert_msg(!upgrade_fds_read(fd, pool, &problems), "taken: %s", text);
	ck_assert_uint_gt(problems.count, 0);
	ck_assert_ptr_nonnull(strstr(problems.first, "SMALLSERVD_INHERITANCE: "));
	close(fd);
	if (fcntl(tcp_fd, F_GETFD) < 0) /* it was closed again with its endpoint */
		tcp_fd = -1;
}
END_TEST

START_TEST(well_formed_writing_is_none)
{
	char text[TEXT_SIZE];
	fill_in("smallservd-endpoints 1 1\n+ tcp 4/7f000001/P/0 4/7f000001/P/0 - =echo - - T 4/ef010203/0/0@1\n", text);
	hand_on_all();
	int fd = make_writing(text);
	ck_assert_msg(upgrade_fds_read(fd, pool, &problems), "%s", problems.first);
	close(fd);
	tcp_fd = -1;
}
END_TEST

START_TEST(bytes_that_are_no_text_are_a_problem)
{
	char text[TEXT_SIZE] = {0};
	memcpy(text, title, sizeof title - 1);
	int fd = memfd_create("check", MFD_CLOEXEC);
	ck_assert_int_eq(write(fd, text, sizeof text), sizeof text);
	ck_assert(!upgrade_fds_read(fd, pool, &problems));
	close(fd);
}
END_TEST

START_TEST(descriptor_that_was_not_handed_on_is_a_problem)
{
	char text[TEXT_SIZE];
	fill_in("smallservd-endpoints 1 1\n+ tcp 4/7f000001/P/0 4/7f000001/P/0 - =echo - - T -\n", text);
	int fd = make_writing(text);
	ck_assert(!upgrade_fds_read(fd, pool, &problems));
	ck_assert_ptr_nonnull(strstr(problems.first, "was not handed on"));
	close(fd);
}
END_TEST

START_TEST(variable_is_found_once)
{
	char number[16];
	int fd = make_writing("smallservd-endpoints 1 0\n");
	hand_on(fd);
	snprintf(number, sizeof number, "%d", fd);
	setenv(UPGRADE_FDS_VARIABLE, number, 1);
	ck_assert_int_eq(upgrade_fds_find(&problems), fd);
	ck_assert_int_eq(fcntl(fd, F_GETFD), FD_CLOEXEC);
	ck_assert_int_eq(upgrade_fds_find(&problems), -1);
	ck_assert_uint_eq(problems.count, 0);
	close(fd);
}
END_TEST

static const char *const no_descriptors[] = {"", "x", "-1", "0", "2", "4x", "+4", "999999", "99999999999999999999"};

START_TEST(variable_that_names_no_writing_is_a_problem)
{
	setenv(UPGRADE_FDS_VARIABLE, no_descriptors[_i], 1);
	ck_assert_int_eq(upgrade_fds_find(&problems), -1);
	ck_assert_uint_eq(problems.count, 1);
	ck_assert_ptr_null(getenv(UPGRADE_FDS_VARIABLE));
}
END_TEST

START_TEST(another_kind_of_descriptor_is_no_writing)
{
	char number[16];
	snprintf(number, sizeof number, "%d", tcp_fd);
	setenv(UPGRADE_FDS_VARIABLE, number, 1);
	ck_assert_int_eq(upgrade_fds_find(&problems), -1);
	ck_assert_uint_eq(problems.count, 1);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("bequest");
	TCase *tests = tcase_create("bequest");
	tcase_add_checked_fixture(tests, setup, teardown);
	tcase_add_test(tests, endpoint_is_read_as_it_was_written);
	tcase_add_test(tests, all_that_an_endpoint_can_have_is_read_again);
	tcase_add_test(tests, no_endpoint_at_all_is_fine);
	tcase_add_test(tests, writer_learns_what_was_left);
	tcase_add_loop_test(tests, malformed_writing_is_a_problem, 0, sizeof malformed / sizeof *malformed);
	tcase_add_test(tests, well_formed_writing_is_none);
	tcase_add_test(tests, bytes_that_are_no_text_are_a_problem);
	tcase_add_test(tests, descriptor_that_was_not_handed_on_is_a_problem);
	tcase_add_test(tests, variable_is_found_once);
	tcase_add_loop_test(tests, variable_that_names_no_writing_is_a_problem, 0,
			    sizeof no_descriptors / sizeof *no_descriptors);
	tcase_add_test(tests, another_kind_of_descriptor_is_no_writing);
	suite_add_tcase(suite, tests);
	return check_run(suite);
}
