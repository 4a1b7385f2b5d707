/* check_udp.c: each datagram is answered once, from its destination, or counted as dropped. */
#include <net/if.h>
#include <netinet/ip.h>
#include <netinet/udp.h>
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "check_event.h"
#include "check_net.h"
#include "check_run.h"
#include "core/transport.h"
#include "net/udp.h"
#include "net/udp_internal.h"

enum {
	WORKERS = 2,
	ENDPOINTS_MAX = 4,
	UNLIMITED = 1 << 30,
	BUFFER = 1024 * 1024,
	LONGEST_V4 = 65507,
	LONGEST_V6 = 65527,
	MANY = 500,
};

/* --- the server of one test --- */

struct endpoint {
	struct socket_address address;
	int fds[WORKERS];
	struct listener *sockets[WORKERS];
	struct task stopped[WORKERS];
};

static struct host host;
static struct udp *udp;
static struct endpoint endpoints[ENDPOINTS_MAX];
static unsigned endpoint_count, stopped;
static pthread_t test_thread; /* faults of system calls hit the workers alone */

static bool foreign_netns; /* of the sockets to be opened */

static void open_endpoint(const struct config_endpoint *wanted)
{
	struct endpoint *endpoint = &endpoints[endpoint_count];
	char ip[INET6_ADDRSTRLEN];
	inet_ntop(wanted->address.family, &wanted->address.ip, ip, sizeof ip);
	struct socket_request request = net_request(SOCK_DGRAM, ip, wanted->port);
	if (!net_has(ip))
		return;
	request.receive_buffer = BUFFER;
	request.wants_dscp = wanted->service->dscp == DSCP_COPY;
	request.shared = wanted->service->multicast_groups.count > 0;
	ck_assert_int_eq(socket_open_group(&request, endpoint->fds, host.worker_count), 0);
	endpoint->address = request.address;
	const struct udp_socket_facts facts = {.address = &endpoint->address, .foreign_netns = foreign_netns};
	for (unsigned i = 0; i < host.worker_count; i++) {
		endpoint->sockets[i] = udp_socket_new(udp, i, endpoint->fds[i], &facts,
						      generation_instance(host.generation, wanted->service));
		endpoint->stopped[i] = (struct task){.run = host_count, .argument = &stopped};
	}
	endpoint_count++;
}

static void each_socket(void (*act)(struct endpoint *endpoint, unsigned worker))
{
	for (unsigned i = 0; i < endpoint_count; i++)
		for (unsigned j = 0; j < host.worker_count; j++)
			act(&endpoints[i], j);
}

static void start_one(struct endpoint *endpoint, unsigned worker)
{
	listener_start(endpoint->sockets[worker]);
}

static void stop_one(struct endpoint *endpoint, unsigned worker)
{
	listener_stop(endpoint->sockets[worker], host.task_queue, &endpoint->stopped[worker]);
}

static void free_one(struct endpoint *endpoint, unsigned worker)
{
	listener_free(endpoint->sockets[worker]);
	close(endpoint->fds[worker]);
}

/* Binds the sockets, so that clients can send, but starts no worker. */
static void prepare(const char *ini, unsigned workers)
{
	test_thread = pthread_self();
	log_open(LOG_TO_STDERR, LOG_CRIT, LOG_DAEMON);
	host_init(&host, ini, workers, UNLIMITED);
	udp = udp_new(host.workers, workers);
	ck_assert_ptr_nonnull(udp);
	for (size_t i = 0; i < host.config->endpoint_count; i++)
		open_endpoint(&host.config->endpoints[i]);
}

static void serve(const char *ini, unsigned workers)
{
	prepare(ini, workers);
	each_socket(start_one);
	host_start(&host);
}

/* Frees in the order of server_free. */
static void finish(void)
{
	host_stop(&host);
	each_socket(free_one);
	udp_free(udp);
	host_free(&host);
	log_close();
}

static uint64_t sum(enum metric metric)
{
	return host_sum(&host, 0, TRANSPORT_UDP, metric);
}

static void await_sum(enum metric metric, uint64_t value)
{
	host_await_sum(&host, TRANSPORT_UDP, metric, value);
}

static uint64_t count_dropped(void)
{
	uint64_t count = 0;
	for (int i = METRIC_DROPPED_FIRST; i <= METRIC_DROPPED_LAST; i++)
		count += sum((enum metric)i);
	return count;
}

#define ECHO      "[echo]\nprotocol = udp\nport = 0\naddress = "
#define ECHO_HERE ECHO "127.0.0.1\n"

/* --- clients --- */

static int open_client(const char *ip)
{
	struct socket_address address = net_address(ip, 0);
	int fd = socket(address.any.sa_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	ck_assert_int_eq(bind(fd, &address.any, address.length), 0);
	net_set(fd, SOL_SOCKET, SO_RCVBUF, BUFFER);
	return fd;
}

static uint16_t client_port(int fd)
{
	struct socket_address name = net_name(fd);
	return socket_address_port(&name);
}

static void send_datagram(int fd, const struct socket_address *to, const void *bytes, size_t length)
{
	ssize_t sent = sendto(fd, bytes, length, 0, &to->any, to->length);
	ck_assert_msg(sent == (ssize_t)length, "cannot send %zu bytes: %s", length, strerror(errno));
}

/* Receives one datagram. Returns its length. */
static size_t receive(int fd, char *bytes, size_t size, struct socket_address *from)
{
	struct socket_address ignored;
	from = from != NULL ? from : &ignored;
	from->length = sizeof from->v6;
	net_wait(fd, POLLIN);
	ssize_t length = recvfrom(fd, bytes, size, 0, &from->any, &from->length);
	ck_assert_msg(length >= 0, "receive: %s", strerror(errno));
	return (size_t)length;
}

static void assert_echo(int fd, const struct socket_address *to, size_t length)
{
	static char bytes[LONGEST_V6 + 1];
	unsigned number = (unsigned)length % 251;
	struct socket_address from;
	net_fill(bytes, length, number, 0);
	send_datagram(fd, to, bytes, length);
	memset(bytes, 0, sizeof bytes);
	ck_assert_uint_eq(receive(fd, bytes, sizeof bytes, &from), length);
	net_assert_bytes(bytes, length, number, 0);
	ck_assert(socket_address_same_ip(&from, to));
	ck_assert_uint_eq(socket_address_port(&from), socket_address_port(to));
}

/* Sends COUNT datagrams that carry their number. */
static void send_numbers(int fd, const struct socket_address *to, uint32_t from, uint32_t count)
{
	for (uint32_t i = from; i < from + count; i++)
		send_datagram(fd, to, &i, sizeof i);
}

static void receive_numbers(int fd, uint32_t from, uint32_t count)
{
	for (uint32_t i = from; i < from + count; i++) {
		uint32_t number;
		ck_assert_uint_eq(receive(fd, (char *)&number, sizeof number, NULL), sizeof number);
		ck_assert_uint_eq(number, i);
	}
}

/* --- faults of the workers' system calls: a full socket buffer, an error for one destination --- */

static _Atomic int full, refused_port, full_calls;
static _Atomic int gso_fault;           /* the errno for each GSO batch; 0: none */
static _Atomic int gso_sent, gso_tried; /* count of GSO batches */

static bool is_gso(const struct msghdr *message)
{
	struct msghdr copy = *message;
	for (struct cmsghdr *part = CMSG_FIRSTHDR(&copy); part != NULL; part = CMSG_NXTHDR(&copy, part))
		if (part->cmsg_level == IPPROTO_UDP && part->cmsg_type == UDP_SEGMENT)
			return true;
	return false;
}

/* Returns the errno that a call of this thread has to fail with; 0: none. */
static int fault_of(const struct sockaddr *name, bool gso)
{
	const struct sockaddr_in *to = (const void *)name;
	if (pthread_equal(pthread_self(), test_thread))
		return 0;
	if (atomic_load(&full)) {
		atomic_fetch_add(&full_calls, 1);
		return EAGAIN;
	}
	if (to != NULL && atomic_load(&refused_port) != 0 && ntohs(to->sin_port) == atomic_load(&refused_port))
		return EPERM;
	if (!gso)
		return 0;
	atomic_fetch_add(&gso_tried, 1);
	if (atomic_load(&gso_fault) == 0)
		atomic_fetch_add(&gso_sent, 1);
	return atomic_load(&gso_fault);
}

ssize_t sendmsg(int fd, const struct msghdr *message, int flags)
{
	int fault = fault_of(message->msg_name, is_gso(message));
	if (fault != 0) {
		errno = fault;
		return -1;
	}
	return syscall(SYS_sendmsg, fd, message, flags);
}

ssize_t sendto(int fd, const void *bytes, size_t length, int flags, const struct sockaddr *to, socklen_t to_length)
{
	int fault = fault_of(to, false);
	if (fault != 0) {
		errno = fault;
		return -1;
	}
	return syscall(SYS_sendto, fd, bytes, length, flags, to, to_length);
}

/* Counts of waits for events, of receives, and of receives without a wait since the last. */
static _Atomic int waits, received_at = -1, receives, receives_again;

int epoll_wait(int fd, struct epoll_event *events, int count, int timeout_ms)
{
	if (!pthread_equal(pthread_self(), test_thread))
		atomic_fetch_add(&waits, 1);
	return (int)syscall(SYS_epoll_pwait, fd, events, count, timeout_ms, NULL, 8);
}

static void note_receive(void)
{
	if (pthread_equal(pthread_self(), test_thread))
		return;
	atomic_fetch_add(&receives, 1);
	if (atomic_exchange(&received_at, atomic_load(&waits)) == atomic_load(&waits))
		atomic_fetch_add(&receives_again, 1);
}

int recvmmsg(int fd, struct mmsghdr *messages, unsigned count, int flags, struct timespec *timeout)
{
	note_receive();
	return (int)syscall(SYS_recvmmsg, fd, messages, count, flags, timeout);
}

ssize_t recvmsg(int fd, struct msghdr *message, int flags)
{
	note_receive();
	return syscall(SYS_recvmsg, fd, message, flags);
}

/* A kernel without UDP_GRO. */
static atomic_bool gro_unsupported;
static _Atomic int gro_requests;

int setsockopt(int fd, int level, int option, const void *value, socklen_t length)
{
	if (level == IPPROTO_UDP && option == UDP_GRO && !pthread_equal(pthread_self(), test_thread)) {
		atomic_fetch_add(&gro_requests, 1);
		if (atomic_load(&gro_unsupported)) {
			errno = ENOPROTOOPT;
			return -1;
		}
	}
	return (int)syscall(SYS_setsockopt, fd, level, option, value, length);
}

/* Fails, as the kernel does, only with the error of the first message. */
int sendmmsg(int fd, struct mmsghdr *messages, unsigned count, int flags)
{
	for (unsigned i = 0; i < count; i++) {
		ssize_t sent = sendmsg(fd, &messages[i].msg_hdr, flags);
		if (sent < 0)
			return i > 0 ? (int)i : -1;
		messages[i].msg_len = (unsigned)sent;
	}
	return (int)count;
}

/* --- replies --- */

static const size_t lengths[] = {0, 1, 2, 511, 512, 1472, 1473, 9000, 32768, LONGEST_V4 - 1, LONGEST_V4};

START_TEST(echo_returns_datagrams_of_any_length)
{
	serve(ECHO_HERE, 1);
	int client = open_client("127.0.0.1");
	uint64_t bytes = 0;
	for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
		assert_echo(client, &endpoints[0].address, lengths[i]);
		bytes += lengths[i];
	}
	await_sum(METRIC_DATAGRAMS_SENT, sizeof lengths / sizeof *lengths);
	ck_assert_uint_eq(sum(METRIC_DATAGRAMS_RECEIVED), sizeof lengths / sizeof *lengths);
	await_sum(METRIC_SENT_BYTES, bytes);
	ck_assert_uint_eq(sum(METRIC_RECEIVED_BYTES), bytes);
	ck_assert_uint_eq(count_dropped(), 0);
	close(client);
	finish();
}
END_TEST

START_TEST(ipv6_datagram_of_the_longest_length_is_returned)
{
	serve(ECHO "::1\n", 1);
	if (endpoint_count > 0) {
		int client = open_client("::1");
		net_set(client, SOL_SOCKET, SO_SNDBUF, BUFFER);
		assert_echo(client, &endpoints[0].address, 0);
		assert_echo(client, &endpoints[0].address, LONGEST_V6);
		close(client);
	}
	finish();
}
END_TEST

START_TEST(reply_leaves_from_the_destination_of_the_request)
{
	static const char *const destinations[] = {"127.0.0.1", "127.0.0.2", "127.1.2.3", "::1"};
	serve(ECHO "0.0.0.0, ::\n", 1);
	for (size_t i = 0; i < sizeof destinations / sizeof *destinations; i++) {
		const struct endpoint *endpoint = &endpoints[strchr(destinations[i], ':') != NULL];
		if (endpoint == &endpoints[endpoint_count])
			break; /* the host has no IPv6 */
		struct socket_address to = net_address(destinations[i], socket_address_port(&endpoint->address));
		int client = open_client(to.any.sa_family == AF_INET ? "127.0.0.1" : "::1");
		for (int j = 0; j < 3; j++)
			assert_echo(client, &to, (size_t)j);
		close(client);
	}
	finish();
}
END_TEST

START_TEST(replies_of_a_batch_leave_from_their_own_addresses)
{
	enum { ADDRESSES = 200 };
	bool heard[ADDRESSES] = {false};
	prepare(ECHO "0.0.0.0\n", 1);
	int client = open_client("127.0.0.1");
	for (uint32_t i = 0; i < ADDRESSES; i++) {
		struct socket_address to = net_address("127.0.0.1", socket_address_port(&endpoints[0].address));
		to.v4.sin_addr.s_addr = htonl(INADDR_LOOPBACK + i);
		send_datagram(client, &to, &i, sizeof i);
	}
	each_socket(start_one);
	host_start(&host);
	for (int i = 0; i < ADDRESSES; i++) {
		uint32_t number;
		struct socket_address from;
		ck_assert_uint_eq(receive(client, (char *)&number, sizeof number, &from), sizeof number);
		ck_assert_uint_eq(ntohl(from.v4.sin_addr.s_addr), INADDR_LOOPBACK + number);
		ck_assert(!heard[number]);
		heard[number] = true;
	}
	close(client);
	finish();
}
END_TEST

START_TEST(queue_of_500_datagrams_gets_500_replies_in_order)
{
	prepare(ECHO_HERE, 1);
	int client = open_client("127.0.0.1");
	send_numbers(client, &endpoints[0].address, 0, MANY);
	each_socket(start_one);
	host_start(&host);
	receive_numbers(client, 0, MANY);
	await_sum(METRIC_DATAGRAMS_SENT, MANY);
	ck_assert_uint_eq(sum(METRIC_DATAGRAMS_RECEIVED), MANY);
	net_assert_quiet(client);
	close(client);
	finish();
}
END_TEST

/* Connections get their turn between batches. */
START_TEST(event_receives_one_batch_however_long_the_queue)
{
	prepare(ECHO "0.0.0.0\n", 1);
	struct socket_address to = net_address("127.0.0.1", socket_address_port(&endpoints[0].address));
	int client = open_client("127.0.0.1");
	send_numbers(client, &to, 0, MANY);
	each_socket(start_one);
	host_start(&host);
	receive_numbers(client, 0, MANY);
	ck_assert_int_ge(atomic_load(&receives), MANY / UDP_BATCH);
	ck_assert_int_eq(atomic_load(&receives_again), 0);
	close(client);
	finish();
}
END_TEST

START_TEST(single_datagrams_and_bursts_are_answered_in_order)
{
	uint32_t next = 0;
	serve(ECHO_HERE, 1);
	int client = open_client("127.0.0.1");
	for (uint32_t round = 0; round < 300; round++) {
		uint32_t count = round % 30 == 7 ? 100 : round % 30 == 20 ? UDP_BATCH : round % 7 == 0 ? 3 : 1;
		send_numbers(client, &endpoints[0].address, next, count);
		receive_numbers(client, next, count);
		next += count;
	}
	await_sum(METRIC_DATAGRAMS_SENT, next);
	ck_assert_uint_eq(sum(METRIC_DATAGRAMS_RECEIVED), next);
	close(client);
	finish();
}
END_TEST

START_TEST(batch_of_mixed_lengths_is_answered_with_the_same_lengths)
{
	enum { COUNT = 60 };
	static char bytes[LONGEST_V4 + 1];
	prepare(ECHO_HERE, 1);
	int client = open_client("127.0.0.1");
	for (unsigned i = 0; i < COUNT; i++) {
		size_t length = i % 5 == 0 ? 4000 + i : i % 3;
		net_fill(bytes, length, i, 0);
		send_datagram(client, &endpoints[0].address, bytes, length);
	}
	each_socket(start_one);
	host_start(&host);
	for (unsigned i = 0; i < COUNT; i++) {
		size_t length = i % 5 == 0 ? 4000 + i : i % 3;
		ck_assert_uint_eq(receive(client, bytes, sizeof bytes, NULL), length);
		net_assert_bytes(bytes, length, i, 0);
	}
	close(client);
	finish();
}
END_TEST

START_TEST(clients_are_spread_over_workers_and_answered_once)
{
	enum { CLIENTS = 64 };
	int clients[CLIENTS];
	serve(ECHO_HERE, WORKERS);
	for (int i = 0; i < CLIENTS; i++) {
		clients[i] = open_client("127.0.0.1");
		send_numbers(clients[i], &endpoints[0].address, 0, 5);
	}
	for (int i = 0; i < CLIENTS; i++)
		receive_numbers(clients[i], 0, 5);
	await_sum(METRIC_DATAGRAMS_SENT, 5 * CLIENTS);
	for (int i = 0; i < CLIENTS; i++) {
		ck_assert_int_lt(recv(clients[i], &(char){0}, 1, MSG_DONTWAIT), 0);
		close(clients[i]);
	}
	for (unsigned i = 0; i < WORKERS; i++)
		ck_assert_uint_gt(host_instance(&host, 0)->udp[i].values[METRIC_DATAGRAMS_SENT], 0);
	finish();
}
END_TEST

START_TEST(services_on_one_worker_answer_independently)
{
	char line[128];
	serve("[echo]\nprotocol = udp\naddress = 127.0.0.1\nport = 0\n"
	      "[time]\nprotocol = udp\naddress = 127.0.0.1\nport = 0\n",
	      1);
	int client = open_client("127.0.0.1");
	for (int i = 0; i < 50; i++) {
		assert_echo(client, &endpoints[0].address, 100);
		send_datagram(client, &endpoints[1].address, "junk", 4);
		ck_assert_uint_eq(receive(client, line, sizeof line, NULL), 4);
	}
	close(client);
	finish();
}
END_TEST

START_TEST(daytime_answers_a_datagram_with_one_line)
{
	char line[256];
	serve("[daytime]\nprotocol = udp\naddress = 127.0.0.1\nport = 0\n", 1);
	int client = open_client("127.0.0.1");
	for (size_t length = 0; length < sizeof line; length += 100) {
		send_datagram(client, &endpoints[0].address, line, length);
		size_t answered = receive(client, line, sizeof line, NULL);
		ck_assert_uint_gt(answered, 10);
		ck_assert_int_eq(memcmp(line + answered - 2, "\r\n", 2), 0);
	}
	close(client);
	finish();
}
END_TEST

START_TEST(daytime_caches_its_line_over_udp)
{
	char line[256];
	serve("[daytime]\nprotocol = udp\naddress = 127.0.0.1\nport = 0\n", 1);
	int client = open_client("127.0.0.1");
	send_datagram(client, &endpoints[0].address, line, 1);
	ck_assert_uint_gt(receive(client, line, sizeof line, NULL), 10);
	host_settle(&host);
	const struct instance *instance = host_instance(&host, 0);
	const unsigned char *memo = instance_memo(instance, 0);
	unsigned written = 0;
	ck_assert_ptr_nonnull(memo);
	for (size_t i = 0; i < instance->service->memo_size; i++)
		written += memo[i] != 0;
	ck_assert_uint_gt(written, 10);
	close(client);
	finish();
}
END_TEST

START_TEST(chargen_reply_is_never_longer_than_the_request)
{
	static const size_t requests[] = {0, 1, 72, 511, 512, 513, 5000};
	char bytes[5000];
	serve("[chargen]\nprotocol = udp\naddress = 127.0.0.1\nport = 0\n", 1);
	int client = open_client("127.0.0.1");
	for (size_t i = 0; i < sizeof requests / sizeof *requests; i++) {
		send_datagram(client, &endpoints[0].address, bytes, requests[i]);
		ck_assert_uint_eq(receive(client, bytes, sizeof bytes, NULL), requests[i] < 512 ? requests[i] : 512);
	}
	close(client);
	finish();
}
END_TEST

START_TEST(discard_counts_datagrams_without_replies)
{
	serve("[discard]\nprotocol = udp\naddress = 127.0.0.1\nport = 0\n", 1);
	int client = open_client("127.0.0.1");
	send_numbers(client, &endpoints[0].address, 0, 40);
	await_sum(METRIC_DATAGRAMS_RECEIVED, 40);
	ck_assert_uint_eq(sum(METRIC_RECEIVED_BYTES), 40 * sizeof(uint32_t));
	net_assert_quiet(client);
	ck_assert_uint_eq(sum(METRIC_DATAGRAMS_SENT), 0);
	ck_assert_uint_eq(count_dropped(), 0);
	close(client);
	finish();
}
END_TEST

/* Receives a datagram. Returns its traffic class, or -1. */
static int receive_class(int fd)
{
	_Alignas(struct cmsghdr) char control[128];
	char byte;
	struct iovec part = {.iov_base = &byte, .iov_len = 1};
	struct msghdr message = {
		.msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
	net_wait(fd, POLLIN);
	ck_assert_int_eq(recvmsg(fd, &message, 0), 1);
	for (struct cmsghdr *header = CMSG_FIRSTHDR(&message); header != NULL; header = CMSG_NXTHDR(&message, header)) {
		if (header->cmsg_type == IP_TOS && header->cmsg_level == IPPROTO_IP)
			return *CMSG_DATA(header);
		if (header->cmsg_type == IPV6_TCLASS && header->cmsg_level == IPPROTO_IPV6)
			return *(const int *)(const void *)CMSG_DATA(header);
	}
	return -1;
}

START_TEST(dscp_copy_takes_the_dscp_of_the_request_without_ecn)
{
	static const int classes[] = {46 << 2, (10 << 2) + 2, 0, (63 << 2) + 3};
	serve(ECHO "127.0.0.1, 0.0.0.0, ::\ndscp = copy\n", 1);
	for (unsigned i = 0; i < endpoint_count; i++) {
		bool v4 = endpoints[i].address.any.sa_family == AF_INET;
		const char *ip = v4 ? "127.0.0.1" : "::1";
		struct socket_address to = net_address(ip, socket_address_port(&endpoints[i].address));
		int client = open_client(ip), level = v4 ? IPPROTO_IP : IPPROTO_IPV6;
		net_set(client, level, v4 ? IP_RECVTOS : IPV6_RECVTCLASS, 1);
		for (size_t j = 0; j < sizeof classes / sizeof *classes; j++) {
			net_set(client, level, v4 ? IP_TOS : IPV6_TCLASS, classes[j]);
			send_datagram(client, &to, "c", 1);
			ck_assert_int_eq(receive_class(client), classes[j] & ~3);
		}
		close(client);
	}
	finish();
}
END_TEST

/* --- GSO and GRO --- */

enum { SEGMENT = 1200, SEGMENTS = 16 };

/* Returns whether the kernel has UDP_SEGMENT and UDP_GRO (Linux 5.0). Without them the tests pass. */
static bool has_gso(void)
{
	int fd = open_client("127.0.0.1"), size = SEGMENT;
	bool has = setsockopt(fd, IPPROTO_UDP, UDP_SEGMENT, &size, sizeof size) == 0 &&
		   setsockopt(fd, IPPROTO_UDP, UDP_GRO, &(int){1}, sizeof(int)) == 0;
	close(fd);
	return has;
}

static int gro_of(int fd)
{
	return net_get(fd, IPPROTO_UDP, UDP_GRO);
}

/* Sends LENGTH bytes of the stream NUMBER as one GSO batch with segments of SIZE. */
static void send_batch(int fd, const struct socket_address *to, unsigned number, size_t length, size_t size)
{
	static char bytes[LONGEST_V4];
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(sizeof(uint16_t))];
	} control = {0};
	struct iovec part = {.iov_base = bytes, .iov_len = length};
	struct msghdr message = {.msg_name = (void *)(uintptr_t)&to->any,
				 .msg_namelen = to->length,
				 .msg_iov = &part,
				 .msg_iovlen = 1,
				 .msg_control = control.bytes,
				 .msg_controllen = sizeof control.bytes};
	uint16_t segment = (uint16_t)size;
	struct cmsghdr *head = CMSG_FIRSTHDR(&message);
	head->cmsg_level = IPPROTO_UDP;
	head->cmsg_type = UDP_SEGMENT;
	head->cmsg_len = CMSG_LEN(sizeof segment);
	memcpy(CMSG_DATA(head), &segment, sizeof segment);
	net_fill(bytes, length, number, 0);
	ck_assert_int_eq(sendmsg(fd, &message, 0), (ssize_t)length);
}

/* Receives the datagrams of the reply to send_batch. */
static void receive_batch(int fd, const struct socket_address *to, unsigned number, size_t length, size_t size)
{
	static char bytes[LONGEST_V4 + 1];
	struct socket_address from;
	for (size_t at = 0; at < length; at += size) {
		size_t left = length - at, wanted = left < size ? left : size;
		ck_assert_uint_eq(receive(fd, bytes, sizeof bytes, &from), wanted);
		net_assert_bytes(bytes, wanted, number, at);
		ck_assert(socket_address_same_ip(&from, to));
	}
}

/* Sends bursts until the worker has turned UDP_GRO on. */
static void turn_gro_on(int client, const struct socket_address *to)
{
	for (unsigned i = 0; i < 1000 && gro_of(endpoints[0].fds[0]) == 0; i++) {
		send_numbers(client, to, 0, 40);
		receive_numbers(client, 0, 40);
	}
	ck_assert_int_eq(gro_of(endpoints[0].fds[0]), 1);
}

START_TEST(single_datagrams_do_not_turn_gro_on)
{
	serve(ECHO_HERE, 1);
	int client = open_client("127.0.0.1");
	for (int i = 0; i < 200; i++)
		assert_echo(client, &endpoints[0].address, 64);
	ck_assert_int_eq(atomic_load(&gro_requests), 0);
	close(client);
	finish();
}
END_TEST

START_TEST(gro_batch_is_answered_by_one_gso_batch)
{
	static const size_t totals[] = {SEGMENT + 1, 2 * SEGMENT, SEGMENTS * SEGMENT, SEGMENTS * SEGMENT + 7,
					54 * SEGMENT};
	uint64_t count = 0, bytes = 0;
	serve(ECHO_HERE, 1);
	if (has_gso()) {
		int client = open_client("127.0.0.1");
		turn_gro_on(client, &endpoints[0].address);
		host_settle(&host);
		uint64_t before = sum(METRIC_DATAGRAMS_SENT), bytes_before = sum(METRIC_SENT_BYTES);
		for (unsigned i = 0; i < sizeof totals / sizeof *totals; i++) {
			send_batch(client, &endpoints[0].address, i, totals[i], SEGMENT);
			receive_batch(client, &endpoints[0].address, i, totals[i], SEGMENT);
			count += (totals[i] + SEGMENT - 1) / SEGMENT;
			bytes += totals[i];
		}
		await_sum(METRIC_SENT_BYTES, bytes_before + bytes);
		ck_assert_uint_eq(sum(METRIC_DATAGRAMS_SENT), before + count);
		ck_assert_uint_eq(sum(METRIC_DATAGRAMS_RECEIVED), before + count);
		ck_assert_uint_eq(sum(METRIC_RECEIVED_BYTES), bytes_before + bytes);
		ck_assert_int_eq(atomic_load(&gso_sent), sizeof totals / sizeof *totals);
		ck_assert_int_eq(atomic_load(&gro_requests), 1);
		ck_assert_uint_eq(count_dropped(), 0);
		close(client);
	}
	finish();
}
END_TEST

START_TEST(gro_batches_and_single_datagrams_of_many_sources_are_answered)
{
	enum { CLIENTS = 8, ROUNDS = 20 };
	int clients[CLIENTS];
	serve(ECHO_HERE, 1);
	for (int i = 0; i < CLIENTS; i++)
		clients[i] = open_client("127.0.0.1");
	if (has_gso()) {
		turn_gro_on(clients[0], &endpoints[0].address);
		for (unsigned round = 0; round < ROUNDS; round++) {
			for (unsigned i = 0; i < CLIENTS; i++) {
				send_batch(clients[i], &endpoints[0].address, i, 100 * (i + 2) + round, 100);
				send_numbers(clients[i], &endpoints[0].address, round, 1);
			}
			for (unsigned i = 0; i < CLIENTS; i++) {
				receive_batch(clients[i], &endpoints[0].address, i, 100 * (i + 2) + round, 100);
				receive_numbers(clients[i], round, 1);
			}
		}
		ck_assert_uint_eq(count_dropped(), 0);
	}
	for (int i = 0; i < CLIENTS; i++)
		close(clients[i]);
	finish();
}
END_TEST

START_TEST(gso_batch_leaves_from_the_destination_of_the_request)
{
	static const char *const destinations[] = {"127.0.0.1", "127.0.0.2", "127.1.2.3"};
	serve(ECHO "0.0.0.0\ndscp = copy\n", 1);
	if (has_gso()) {
		int client = open_client("127.0.0.1");
		struct socket_address to = net_address("127.0.0.1", socket_address_port(&endpoints[0].address));
		turn_gro_on(client, &to);
		for (unsigned i = 0; i < sizeof destinations / sizeof *destinations; i++) {
			to = net_address(destinations[i], socket_address_port(&endpoints[0].address));
			send_batch(client, &to, i, SEGMENTS * SEGMENT, SEGMENT);
			receive_batch(client, &to, i, SEGMENTS * SEGMENT, SEGMENT);
		}
		ck_assert_int_eq(atomic_load(&gso_sent), sizeof destinations / sizeof *destinations);
		close(client);
	}
	finish();
}
END_TEST

START_TEST(gro_batch_over_ipv6_is_answered_by_one_gso_batch)
{
	serve(ECHO "::1, ::\n", 1);
	for (unsigned i = 0; i < endpoint_count && has_gso(); i++) {
		struct socket_address to = net_address("::1", socket_address_port(&endpoints[i].address));
		int client = open_client("::1");
		net_set(endpoints[i].fds[0], IPPROTO_UDP, UDP_GRO, 1);
		listener_set_shared(endpoints[i].sockets[0], true); /* the socket reads UDP_GRO */
		send_batch(client, &to, i, SEGMENTS * SEGMENT + 1, SEGMENT);
		receive_batch(client, &to, i, SEGMENTS * SEGMENT + 1, SEGMENT);
		ck_assert_int_eq(atomic_load(&gso_sent), (int)i + 1);
		close(client);
	}
	finish();
}
END_TEST

/* A rate per hour gives no token back during the test. */
START_TEST(datagrams_of_a_gro_batch_take_a_token_each)
{
	prepare(ECHO "127.0.0.1\ndatagram_rate = 10/h\n", 1);
	net_set(endpoints[0].fds[0], SOL_SOCKET, SO_RCVBUF, BUFFER);
	if (has_gso()) {
		net_set(endpoints[0].fds[0], IPPROTO_UDP, UDP_GRO, 1);
		int client = open_client("127.0.0.1");
		send_batch(client, &endpoints[0].address, 3, SEGMENTS * SEGMENT, SEGMENT);
		each_socket(start_one);
		host_start(&host);
		receive_batch(client, &endpoints[0].address, 3, 10 * SEGMENT, SEGMENT);
		await_sum(METRIC_DROPPED_RATE, SEGMENTS - 10);
		net_assert_quiet(client);
		ck_assert_uint_eq(sum(METRIC_DATAGRAMS_RECEIVED), SEGMENTS);
		ck_assert_int_eq(atomic_load(&gso_sent), 1);
		close(client);
	}
	finish();
}
END_TEST

START_TEST(gro_batch_of_a_denied_source_is_dropped)
{
	serve(ECHO "127.0.0.1\ndeny = 127.0.0.8/31\n", 1);
	if (has_gso()) {
		int denied = open_client("127.0.0.9"), client = open_client("127.0.0.10");
		turn_gro_on(client, &endpoints[0].address);
		send_batch(denied, &endpoints[0].address, 1, SEGMENTS * SEGMENT, SEGMENT);
		await_sum(METRIC_DROPPED_DENIED, SEGMENTS);
		net_assert_quiet(denied);
		close(denied);
		close(client);
	}
	finish();
}
END_TEST

START_TEST(last_datagram_of_a_gro_batch_is_judged_by_its_own_length)
{
	serve(ECHO "127.0.0.1\nmax_datagram = 100\n", 1);
	if (has_gso()) {
		int client = open_client("127.0.0.1");
		char bytes[SEGMENT];
		turn_gro_on(client, &endpoints[0].address);
		send_batch(client, &endpoints[0].address, 1, 3 * SEGMENT + 100, SEGMENT);
		ck_assert_uint_eq(receive(client, bytes, sizeof bytes, NULL), 100);
		net_assert_bytes(bytes, 100, 1, (uint64_t)3 * SEGMENT);
		await_sum(METRIC_DROPPED_TOO_LONG, 3);
		ck_assert_uint_eq(count_dropped(), 3);
		close(client);
	}
	finish();
}
END_TEST

START_TEST(daytime_answers_each_datagram_of_a_gro_batch)
{
	char line[256];
	prepare("[daytime]\nprotocol = udp\naddress = 127.0.0.1\nport = 0\ndatagram_rate = unlimited\n", 1);
	if (has_gso()) {
		net_set(endpoints[0].fds[0], IPPROTO_UDP, UDP_GRO, 1); /* as the upgraded process may have left it */
		int client = open_client("127.0.0.1");
		send_batch(client, &endpoints[0].address, 1, 40 * 3, 3);
		each_socket(start_one);
		host_start(&host);
		for (int i = 0; i < 40; i++) {
			size_t length = receive(client, line, sizeof line, NULL);
			ck_assert_uint_gt(length, 10);
			ck_assert_int_eq(memcmp(line + length - 2, "\r\n", 2), 0);
		}
		await_sum(METRIC_DATAGRAMS_SENT, 40);
		net_assert_quiet(client);
		close(client);
	}
	finish();
}
END_TEST

START_TEST(chargen_answers_a_gro_batch_with_shorter_datagrams)
{
	char bytes[SEGMENT];
	serve("[chargen]\nprotocol = udp\naddress = 127.0.0.1\nport = 0\n", 1);
	if (has_gso()) {
		int client = open_client("127.0.0.1");
		net_set(endpoints[0].fds[0], IPPROTO_UDP, UDP_GRO, 1);
		listener_set_shared(endpoints[0].sockets[0], true);
		send_batch(client, &endpoints[0].address, 1, SEGMENTS * SEGMENT + 5, SEGMENT);
		for (int i = 0; i < SEGMENTS; i++)
			ck_assert_uint_eq(receive(client, bytes, sizeof bytes, NULL), 512);
		ck_assert_uint_eq(receive(client, bytes, sizeof bytes, NULL), 5);
		close(client);
	}
	finish();
}
END_TEST

/* Errors of a GSO batch beyond the path's MTU, or on a device without segmentation. */
static const int gso_faults[] = {EMSGSIZE, EIO, EINVAL, ENOPROTOOPT, EOPNOTSUPP};

START_TEST(rejected_gso_batch_is_sent_unsegmented_and_the_next_is_tried)
{
	serve(ECHO_HERE, 1);
	if (has_gso()) {
		int client = open_client("127.0.0.1");
		turn_gro_on(client, &endpoints[0].address);
		int before = atomic_load(&gso_sent);
		atomic_store(&gso_fault, gso_faults[_i]);
		for (unsigned i = 0; i < 5; i++) {
			send_batch(client, &endpoints[0].address, i, SEGMENTS * SEGMENT + 9, SEGMENT);
			receive_batch(client, &endpoints[0].address, i, SEGMENTS * SEGMENT + 9, SEGMENT);
		}
		ck_assert_int_ge(atomic_load(&gso_tried), 5);
		ck_assert_int_eq(atomic_load(&gso_sent), before);
		atomic_store(&gso_fault, 0);
		send_batch(client, &endpoints[0].address, 9, SEGMENTS * SEGMENT, SEGMENT);
		receive_batch(client, &endpoints[0].address, 9, SEGMENTS * SEGMENT, SEGMENT);
		ck_assert_int_eq(atomic_load(&gso_sent), before + 1);
		await_sum(METRIC_DATAGRAMS_SENT, sum(METRIC_DATAGRAMS_RECEIVED));
		ck_assert_uint_eq(count_dropped(), 0);
		close(client);
	}
	finish();
}
END_TEST

/* In the second run the GSO batches are rejected when they are sent later. */
START_TEST(gso_batches_behind_a_full_socket_are_sent_later_in_order)
{
	serve(ECHO_HERE, 1);
	if (has_gso()) {
		int client = open_client("127.0.0.1");
		turn_gro_on(client, &endpoints[0].address);
		atomic_store(&full, 1);
		for (unsigned i = 0; i < 10; i++)
			send_batch(client, &endpoints[0].address, i, SEGMENTS * SEGMENT + i, SEGMENT);
		for (int left = NET_TIMEOUT_MS; atomic_load(&full_calls) == 0;)
			net_rest(&left);
		atomic_store(&gso_fault, _i == 0 ? 0 : EMSGSIZE);
		atomic_store(&full, 0);
		for (unsigned i = 0; i < 10; i++)
			receive_batch(client, &endpoints[0].address, i, SEGMENTS * SEGMENT + i, SEGMENT);
		await_sum(METRIC_DATAGRAMS_SENT, sum(METRIC_DATAGRAMS_RECEIVED));
		ck_assert_uint_eq(count_dropped(), 0);
		close(client);
	}
	finish();
}
END_TEST

START_TEST(datagrams_of_a_failed_gso_batch_are_counted)
{
	serve(ECHO_HERE, 1);
	if (has_gso()) {
		int client = open_client("127.0.0.1"), failing = open_client("127.0.0.1");
		turn_gro_on(client, &endpoints[0].address);
		atomic_store(&refused_port, client_port(failing));
		send_batch(failing, &endpoints[0].address, 1, SEGMENTS * SEGMENT, SEGMENT);
		await_sum(METRIC_DROPPED_SEND_FAILED, SEGMENTS);
		assert_echo(client, &endpoints[0].address, 10);
		close(client);
		close(failing);
	}
	finish();
}
END_TEST

START_TEST(kernel_without_gro_is_asked_once_and_all_is_answered)
{
	atomic_store(&gro_unsupported, true);
	serve(ECHO_HERE, 1);
	int client = open_client("127.0.0.1");
	for (unsigned i = 0; i < 1000 && atomic_load(&gro_requests) == 0; i++) {
		send_numbers(client, &endpoints[0].address, 0, 40);
		receive_numbers(client, 0, 40);
	}
	for (unsigned i = 0; i < 20; i++) {
		send_numbers(client, &endpoints[0].address, 0, 40);
		receive_numbers(client, 0, 40);
	}
	ck_assert_int_eq(atomic_load(&gro_requests), 1);
	ck_assert_int_eq(gro_of(endpoints[0].fds[0]), 0);
	close(client);
	finish();
}
END_TEST

START_TEST(shared_socket_turns_gro_on_after_the_share_ends_only)
{
	prepare(ECHO_HERE, 1);
	int client = open_client("127.0.0.1");
	listener_set_shared(endpoints[0].sockets[0], true);
	each_socket(start_one);
	host_start(&host);
	for (unsigned i = 0; i < 20; i++) {
		send_numbers(client, &endpoints[0].address, 0, 40);
		receive_numbers(client, 0, 40);
	}
	ck_assert_int_eq(atomic_load(&gro_requests), 0);
	if (has_gso()) {
		net_set(endpoints[0].fds[0], IPPROTO_UDP, UDP_GRO, 1); /* the other process turns it on */
		send_batch(client, &endpoints[0].address, 1, SEGMENTS * SEGMENT, SEGMENT);
		receive_batch(client, &endpoints[0].address, 1, SEGMENTS * SEGMENT, SEGMENT);
		net_set(endpoints[0].fds[0], IPPROTO_UDP, UDP_GRO, 0);
		listener_set_shared(endpoints[0].sockets[0], false);
		turn_gro_on(client, &endpoints[0].address);
	}
	close(client);
	finish();
}
END_TEST

/* --- drops --- */

START_TEST(datagram_above_max_datagram_is_dropped_not_truncated)
{
	char bytes[2000];
	serve(ECHO "127.0.0.1\nmax_datagram = 100\n", 1);
	int client = open_client("127.0.0.1");
	send_datagram(client, &endpoints[0].address, bytes, 101);
	send_datagram(client, &endpoints[0].address, bytes, sizeof bytes);
	assert_echo(client, &endpoints[0].address, 100);
	await_sum(METRIC_DROPPED_TOO_LONG, 2);
	await_sum(METRIC_DATAGRAMS_SENT, 1);
	ck_assert_uint_eq(sum(METRIC_DATAGRAMS_RECEIVED), 3);
	ck_assert_uint_eq(count_dropped(), 2);
	close(client);
	finish();
}
END_TEST

struct packet {
	struct iphdr ip;
	struct udphdr udp;
	char bytes[4];
};

/* Sends a datagram with the forged source FROM. Returns false without CAP_NET_RAW. */
static bool forge(const struct socket_address *from, const struct socket_address *to)
{
	struct packet packet = {
		.ip = {.version = 4,
		       .ihl = 5,
		       .ttl = 64,
		       .protocol = IPPROTO_UDP,
		       .tot_len = htons(sizeof packet),
		       .saddr = from->v4.sin_addr.s_addr,
		       .daddr = to->v4.sin_addr.s_addr},
		.udp = {.source = from->v4.sin_port,
			.dest = to->v4.sin_port,
			.len = htons(sizeof packet - sizeof packet.ip)},
		.bytes = "hey",
	};
	int fd = socket(AF_INET, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_RAW);
	if (fd < 0)
		return false;
	ssize_t sent = sendto(fd, &packet, sizeof packet, 0, &to->any, to->length);
	ck_assert_msg(sent == (ssize_t)sizeof packet, "cannot send: %s", strerror(errno));
	close(fd);
	return true;
}

/* Does the same over IPv6, from an address of this host. */
static bool forge_v6(const struct socket_address *from, const struct socket_address *to)
{
	struct packet packet = {
		.udp = {.source = from->v6.sin6_port,
			.dest = to->v6.sin6_port,
			.len = htons(sizeof packet - sizeof packet.ip)},
		.bytes = "hey",
	};
	struct socket_address source = *from, destination = *to;
	int fd = socket(AF_INET6, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_UDP);
	if (fd < 0)
		return false;
	source.v6.sin6_port = destination.v6.sin6_port = 0;
	net_set(fd, IPPROTO_IPV6, IPV6_CHECKSUM, offsetof(struct udphdr, check));
	ck_assert_int_eq(bind(fd, &source.any, source.length), 0);
	ssize_t sent =
		sendto(fd, &packet.udp, sizeof packet - sizeof packet.ip, 0, &destination.any, destination.length);
	ck_assert_msg(sent > 0, "cannot send: %s", strerror(errno));
	close(fd);
	return true;
}

/* Passes without CAP_NET_RAW, which forging needs. PORT 1: the port of the endpoint. */
static void assert_forged_is_dropped(const char *source, uint16_t port, enum metric reason)
{
	serve(ECHO "127.0.0.1, ::1\n", 1);
	bool v4 = strchr(source, ':') == NULL;
	if (v4 || endpoint_count > 1) {
		const struct socket_address *to = &endpoints[!v4].address;
		struct socket_address from = net_address(source, port == 1 ? socket_address_port(to) : port);
		if (v4 ? forge(&from, to) : forge_v6(&from, to)) {
			await_sum(reason, 1);
			host_settle(&host);
			ck_assert_uint_eq(sum(METRIC_DATAGRAMS_SENT), 0);
			ck_assert_uint_eq(count_dropped(), 1);
		}
	}
	finish();
}

START_TEST(datagram_from_port_zero_is_dropped)
{
	assert_forged_is_dropped("127.0.0.1", 0, METRIC_DROPPED_PORT_ZERO);
}
END_TEST

START_TEST(datagram_over_ipv6_from_port_zero_is_dropped)
{
	assert_forged_is_dropped("::1", 0, METRIC_DROPPED_PORT_ZERO);
}
END_TEST

START_TEST(datagram_from_its_own_endpoint_is_dropped)
{
	assert_forged_is_dropped("127.0.0.1", 1, METRIC_DROPPED_OWN_ENDPOINT);
}
END_TEST

START_TEST(datagram_over_ipv6_from_its_own_endpoint_is_dropped)
{
	assert_forged_is_dropped("::1", 1, METRIC_DROPPED_OWN_ENDPOINT);
}
END_TEST

START_TEST(datagram_from_a_multicast_group_is_dropped)
{
	assert_forged_is_dropped("239.1.2.3", 5000, METRIC_DROPPED_SOURCE_MULTICAST);
}
END_TEST

START_TEST(datagram_from_the_broadcast_address_is_dropped)
{
	assert_forged_is_dropped("255.255.255.255", 5000, METRIC_DROPPED_SOURCE_BROADCAST);
}
END_TEST

START_TEST(datagram_from_the_same_port_of_another_host_is_answered)
{
	serve(ECHO_HERE, 1);
	struct socket_address other = net_address("127.0.0.2", socket_address_port(&endpoints[0].address));
	int client = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	ck_assert_int_eq(bind(client, &other.any, other.length), 0);
	assert_echo(client, &endpoints[0].address, 10);
	close(client);
	finish();
}
END_TEST

/* The wildcard receives on both addresses: a reply would be a request again, and loop. */
START_TEST(wildcard_does_not_loop_between_two_of_its_addresses)
{
	serve(ECHO "0.0.0.0\n", 1);
	uint16_t port = socket_address_port(&endpoints[0].address);
	struct socket_address one = net_address("127.0.0.1", port), other = net_address("127.0.0.2", port);
	if (forge(&other, &one)) {
		for (int left = NET_TIMEOUT_MS; sum(METRIC_DATAGRAMS_RECEIVED) < 1;)
			net_rest(&left);
		poll(NULL, 0, NET_QUIET_MS);
		ck_assert_uint_le(sum(METRIC_DATAGRAMS_RECEIVED), 1);
	}
	finish();
}
END_TEST

/* In a foreign network namespace the local addresses are unknown. */
START_TEST(wildcard_of_a_foreign_netns_drops_datagrams_from_its_port)
{
	foreign_netns = true;
	prepare(ECHO "0.0.0.0\n", 1);
	each_socket(start_one);
	host_start(&host);
	struct socket_address here = net_address("127.0.0.1", socket_address_port(&endpoints[0].address));
	struct socket_address far = net_address("198.51.100.7", socket_address_port(&here));
	if (forge(&far, &here)) {
		await_sum(METRIC_DROPPED_OWN_ENDPOINT, 1);
		host_settle(&host);
		ck_assert_uint_eq(sum(METRIC_DATAGRAMS_SENT), 0);
	}
	int client = open_client("127.0.0.1");
	assert_echo(client, &here, 10);
	close(client);
	finish();
}
END_TEST

START_TEST(datagram_to_a_broadcast_address_is_dropped)
{
	serve(ECHO "0.0.0.0\n", 1);
	uint16_t port = socket_address_port(&endpoints[0].address);
	struct socket_address all = net_address("127.255.255.255", port), one = net_address("127.0.0.1", port);
	int client = open_client("127.0.0.1");
	net_set(client, SOL_SOCKET, SO_BROADCAST, 1);
	send_datagram(client, &all, "all", 3);
	assert_echo(client, &one, 1);
	await_sum(METRIC_DATAGRAMS_SENT, 1);
	ck_assert_uint_eq(sum(METRIC_DROPPED_TO_BROADCAST), 1);
	ck_assert_uint_eq(count_dropped(), 1);
	close(client);
	finish();
}
END_TEST

static void send_to_group(int fd, const char *ip)
{
	struct ip_mreqn through = {.imr_ifindex = (int)if_nametoindex("lo")};
	struct socket_address to = net_address(ip, socket_address_port(&endpoints[0].address));
	ck_assert_int_eq(setsockopt(fd, IPPROTO_IP, IP_MULTICAST_IF, &through, sizeof through), 0);
	send_datagram(fd, &to, "all", 3);
}

static void join(const char *ip)
{
	struct socket_group group = {.address = net_address(ip, 0), .interface = if_nametoindex("lo")};
	ck_assert_int_eq(socket_join(endpoints[0].fds[0], &group), 0);
}

START_TEST(only_datagrams_to_listed_groups_are_answered)
{
	char bytes[16];
	struct socket_address from;
	serve(ECHO "0.0.0.0\nmulticast_groups = 239.255.77.9\n", 1);
	join("239.255.77.9");
	join("239.255.77.10"); /* not listed; another program of the host may have joined it */
	int client = open_client("127.0.0.1");
	send_to_group(client, "239.255.77.10");
	send_to_group(client, "239.255.77.9");
	ck_assert_uint_eq(receive(client, bytes, sizeof bytes, &from), 3);
	ck_assert_uint_eq(ntohl(from.v4.sin_addr.s_addr), INADDR_LOOPBACK);
	await_sum(METRIC_DATAGRAMS_SENT, 1);
	ck_assert_uint_eq(sum(METRIC_DROPPED_TO_MULTICAST), 1);
	ck_assert_uint_eq(count_dropped(), 1);
	close(client);
	finish();
}
END_TEST

START_TEST(datagram_from_a_refused_port_is_dropped)
{
	char ini[256];
	int refused = open_client("127.0.0.1"), client = open_client("127.0.0.1");
	snprintf(ini, sizeof ini, ECHO "127.0.0.1\nrefuse_source_ports = %u\n", client_port(refused));
	serve(ini, 1);
	send_datagram(refused, &endpoints[0].address, "loop", 4);
	assert_echo(client, &endpoints[0].address, 4);
	await_sum(METRIC_DATAGRAMS_SENT, 1);
	ck_assert_uint_eq(sum(METRIC_DROPPED_REFUSED_PORT), 1);
	ck_assert_uint_eq(count_dropped(), 1);
	close(refused);
	close(client);
	finish();
}
END_TEST

START_TEST(datagram_of_a_denied_source_is_dropped)
{
	serve(ECHO "127.0.0.1\ndeny = 127.0.0.8/31\n", 1);
	int denied = open_client("127.0.0.9"), client = open_client("127.0.0.10");
	send_datagram(denied, &endpoints[0].address, "hello", 5);
	assert_echo(client, &endpoints[0].address, 5);
	await_sum(METRIC_DATAGRAMS_SENT, 1);
	ck_assert_uint_eq(sum(METRIC_DROPPED_DENIED), 1);
	ck_assert_uint_eq(count_dropped(), 1);
	close(denied);
	close(client);
	finish();
}
END_TEST

/* A rate per hour gives no token back during the test. */
START_TEST(datagrams_above_the_rate_of_a_source_are_dropped)
{
	prepare(ECHO "127.0.0.1\ndatagram_rate = 70/h\n", 1);
	int client = open_client("127.0.0.2"), other = open_client("127.0.0.3");
	send_numbers(client, &endpoints[0].address, 0, 200);
	each_socket(start_one);
	host_start(&host);
	receive_numbers(client, 0, 70);
	await_sum(METRIC_DROPPED_RATE, 130);
	net_assert_quiet(client);
	assert_echo(other, &endpoints[0].address, 5);
	await_sum(METRIC_DATAGRAMS_SENT, 71);
	ck_assert_uint_eq(count_dropped(), 130);
	close(client);
	close(other);
	finish();
}
END_TEST

/* --- send errors --- */

START_TEST(failed_reply_is_counted_and_the_rest_of_its_batch_is_sent)
{
	enum { COUNT = 60 };
	uint32_t refused = 0;
	prepare(ECHO_HERE, 1);
	int client = open_client("127.0.0.1"), failing = open_client("127.0.0.1");
	atomic_store(&refused_port, client_port(failing));
	for (uint32_t i = 0; i < COUNT; i++) {
		send_numbers(client, &endpoints[0].address, i, 1);
		uint32_t more = i % 7 == 0 ? 1 + i % 3 : 0;
		send_numbers(failing, &endpoints[0].address, i, more);
		refused += more;
	}
	each_socket(start_one);
	host_start(&host);
	receive_numbers(client, 0, COUNT);
	await_sum(METRIC_DATAGRAMS_SENT, COUNT);
	await_sum(METRIC_DROPPED_SEND_FAILED, refused);
	ck_assert_uint_eq(sum(METRIC_DATAGRAMS_RECEIVED), COUNT + refused);
	net_assert_quiet(failing);
	close(client);
	close(failing);
	finish();
}
END_TEST

/* Makes the socket buffer full, and sends COUNT datagrams. */
static void fill_up(int client, uint32_t count)
{
	atomic_store(&full, 1);
	send_numbers(client, &endpoints[0].address, 0, count);
	for (int left = NET_TIMEOUT_MS; atomic_load(&full_calls) == 0;)
		net_rest(&left);
}

START_TEST(replies_behind_a_full_socket_are_sent_later_in_order)
{
	serve(ECHO_HERE, 1);
	int client = open_client("127.0.0.1");
	fill_up(client, 300);
	net_assert_quiet(client);
	atomic_store(&full, 0);
	receive_numbers(client, 0, 300);
	await_sum(METRIC_DATAGRAMS_SENT, 300);
	ck_assert_uint_eq(count_dropped(), 0);
	assert_echo(client, &endpoints[0].address, 10);
	close(client);
	finish();
}
END_TEST

START_TEST(socket_with_unsent_replies_does_not_receive)
{
	prepare(ECHO_HERE, 1);
	int client = open_client("127.0.0.1");
	atomic_store(&full, 1);
	send_numbers(client, &endpoints[0].address, 0, 300);
	each_socket(start_one);
	host_start(&host);
	for (int left = NET_TIMEOUT_MS; atomic_load(&full_calls) < 20;)
		net_rest(&left);
	ck_assert_uint_le(sum(METRIC_DATAGRAMS_RECEIVED), UDP_BATCH);
	atomic_store(&full, 0);
	receive_numbers(client, 0, 300);
	close(client);
	finish();
}
END_TEST

START_TEST(unsent_reply_leaves_from_the_destination_of_the_request)
{
	serve(ECHO "0.0.0.0\n", 1);
	int client = open_client("127.0.0.1");
	struct socket_address to = net_address("127.0.0.2", socket_address_port(&endpoints[0].address)), from;
	char byte;
	atomic_store(&full, 1);
	send_datagram(client, &to, "k", 1);
	for (int left = NET_TIMEOUT_MS; atomic_load(&full_calls) == 0;)
		net_rest(&left);
	atomic_store(&full, 0);
	receive(client, &byte, 1, &from);
	ck_assert(socket_address_same_ip(&from, &to));
	close(client);
	finish();
}
END_TEST

START_TEST(failed_unsent_reply_does_not_block_the_next)
{
	serve(ECHO_HERE, 1);
	int client = open_client("127.0.0.1"), failing = open_client("127.0.0.1");
	atomic_store(&full, 1);
	send_numbers(failing, &endpoints[0].address, 0, 1);
	fill_up(client, 50);
	atomic_store(&refused_port, client_port(failing));
	atomic_store(&full, 0);
	receive_numbers(client, 0, 50);
	await_sum(METRIC_DROPPED_SEND_FAILED, 1);
	close(client);
	close(failing);
	finish();
}
END_TEST

/* --- stopping --- */

static const uint32_t queue_lengths[] = {0, 1, 2, UDP_BATCH - 1, UDP_BATCH, UDP_BATCH + 1, 2 * UDP_BATCH, MANY};

/* The worker runs start and stop at once, so that the stop finds the whole queue. */
START_TEST(stop_answers_the_queued_datagrams_and_posts_done)
{
	uint32_t count = queue_lengths[_i];
	prepare(ECHO_HERE, 1);
	int client = open_client("127.0.0.1");
	send_numbers(client, &endpoints[0].address, 0, count);
	each_socket(start_one);
	each_socket(stop_one);
	host_start(&host);
	host_await(&host, &stopped, 1);
	ck_assert_uint_eq(sum(METRIC_DATAGRAMS_SENT), count);
	receive_numbers(client, 0, count);
	close(client);
	finish();
}
END_TEST

START_TEST(stopped_socket_does_not_receive)
{
	serve(ECHO_HERE, WORKERS);
	int client = open_client("127.0.0.1");
	assert_echo(client, &endpoints[0].address, 10);
	each_socket(stop_one);
	host_await(&host, &stopped, WORKERS);
	send_numbers(client, &endpoints[0].address, 0, 3);
	net_assert_quiet(client);
	ck_assert_uint_eq(sum(METRIC_DATAGRAMS_RECEIVED), 1);
	host_run_tasks(&host, NET_QUIET_MS);
	ck_assert_uint_eq(stopped, WORKERS);
	close(client);
	finish();
}
END_TEST

START_TEST(stop_waits_for_unsent_replies)
{
	serve(ECHO_HERE, 1);
	int client = open_client("127.0.0.1");
	fill_up(client, 200);
	each_socket(stop_one);
	host_run_tasks(&host, NET_QUIET_MS);
	ck_assert_uint_eq(stopped, 0);
	atomic_store(&full, 0);
	host_await(&host, &stopped, 1);
	receive_numbers(client, 0, 200);
	host_run_tasks(&host, NET_QUIET_MS);
	ck_assert_uint_eq(stopped, 1);
	close(client);
	finish();
}
END_TEST

START_TEST(stop_that_fills_the_socket_answers_the_whole_queue)
{
	prepare(ECHO_HERE, 1);
	int client = open_client("127.0.0.1");
	atomic_store(&full, 1);
	send_numbers(client, &endpoints[0].address, 0, 200);
	each_socket(start_one);
	each_socket(stop_one);
	host_start(&host);
	for (int left = NET_TIMEOUT_MS; atomic_load(&full_calls) < 3;)
		net_rest(&left);
	host_run_tasks(&host, NET_QUIET_MS);
	ck_assert_uint_eq(stopped, 0);
	atomic_store(&full, 0);
	host_await(&host, &stopped, 1);
	receive_numbers(client, 0, 200);
	close(client);
	finish();
}
END_TEST

/* No event would end the stop otherwise. */
START_TEST(stop_without_memory_for_its_event_counts_the_lost_replies)
{
	serve(ECHO_HERE, 1);
	int client = open_client("127.0.0.1");
	atomic_store(&full, 1);
	atomic_store(&events_without_memory, EV_WRITE);
	send_numbers(client, &endpoints[0].address, 0, 200);
	each_socket(stop_one);
	host_await(&host, &stopped, 1);
	ck_assert_uint_eq(sum(METRIC_DATAGRAMS_RECEIVED), 200);
	ck_assert_uint_eq(sum(METRIC_DROPPED_NO_MEMORY), 200);
	atomic_store(&events_without_memory, 0);
	atomic_store(&full, 0);
	close(client);
	finish();
}
END_TEST

START_TEST(socket_with_unsent_replies_can_be_freed)
{
	serve(ECHO_HERE, 1);
	int client = open_client("127.0.0.1");
	fill_up(client, 100);
	finish();
	atomic_store(&full, 0);
	net_assert_quiet(client);
	close(client);
}
END_TEST

START_TEST(socket_whose_start_never_ran_can_be_freed)
{
	prepare(ECHO_HERE, WORKERS);
	listener_free(NULL);
	udp_free(NULL);
	each_socket(start_one);
	finish();
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
	Suite *suite = suite_create("udp");
	TCase *replies = add_tcase(suite, "replies");
	tcase_add_test(replies, echo_returns_datagrams_of_any_length);
	tcase_add_test(replies, ipv6_datagram_of_the_longest_length_is_returned);
	tcase_add_test(replies, reply_leaves_from_the_destination_of_the_request);
	tcase_add_test(replies, replies_of_a_batch_leave_from_their_own_addresses);
	tcase_add_test(replies, queue_of_500_datagrams_gets_500_replies_in_order);
	tcase_add_test(replies, event_receives_one_batch_however_long_the_queue);
	tcase_add_test(replies, single_datagrams_and_bursts_are_answered_in_order);
	tcase_add_test(replies, batch_of_mixed_lengths_is_answered_with_the_same_lengths);
	tcase_add_test(replies, clients_are_spread_over_workers_and_answered_once);
	tcase_add_test(replies, services_on_one_worker_answer_independently);
	tcase_add_test(replies, daytime_answers_a_datagram_with_one_line);
	tcase_add_test(replies, daytime_caches_its_line_over_udp);
	tcase_add_test(replies, chargen_reply_is_never_longer_than_the_request);
	tcase_add_test(replies, discard_counts_datagrams_without_replies);
	tcase_add_test(replies, dscp_copy_takes_the_dscp_of_the_request_without_ecn);

	TCase *gso = add_tcase(suite, "gso");
	tcase_add_test(gso, single_datagrams_do_not_turn_gro_on);
	tcase_add_test(gso, gro_batch_is_answered_by_one_gso_batch);
	tcase_add_test(gso, gro_batches_and_single_datagrams_of_many_sources_are_answered);
	tcase_add_test(gso, gso_batch_leaves_from_the_destination_of_the_request);
	tcase_add_test(gso, gro_batch_over_ipv6_is_answered_by_one_gso_batch);
	tcase_add_test(gso, datagrams_of_a_gro_batch_take_a_token_each);
	tcase_add_test(gso, gro_batch_of_a_denied_source_is_dropped);
	tcase_add_test(gso, last_datagram_of_a_gro_batch_is_judged_by_its_own_length);
	tcase_add_test(gso, daytime_answers_each_datagram_of_a_gro_batch);
	tcase_add_test(gso, chargen_answers_a_gro_batch_with_shorter_datagrams);
	tcase_add_loop_test(gso, rejected_gso_batch_is_sent_unsegmented_and_the_next_is_tried, 0,
			    sizeof gso_faults / sizeof *gso_faults);
	tcase_add_loop_test(gso, gso_batches_behind_a_full_socket_are_sent_later_in_order, 0, 2);
	tcase_add_test(gso, datagrams_of_a_failed_gso_batch_are_counted);
	tcase_add_test(gso, kernel_without_gro_is_asked_once_and_all_is_answered);
	tcase_add_test(gso, shared_socket_turns_gro_on_after_the_share_ends_only);

	TCase *drops = add_tcase(suite, "drops");
	tcase_add_test(drops, datagram_above_max_datagram_is_dropped_not_truncated);
	tcase_add_test(drops, datagram_from_port_zero_is_dropped);
	tcase_add_test(drops, datagram_over_ipv6_from_port_zero_is_dropped);
	tcase_add_test(drops, datagram_from_its_own_endpoint_is_dropped);
	tcase_add_test(drops, datagram_over_ipv6_from_its_own_endpoint_is_dropped);
	tcase_add_test(drops, datagram_from_a_multicast_group_is_dropped);
	tcase_add_test(drops, datagram_from_the_broadcast_address_is_dropped);
	tcase_add_test(drops, datagram_from_the_same_port_of_another_host_is_answered);
	tcase_add_test(drops, wildcard_does_not_loop_between_two_of_its_addresses);
	tcase_add_test(drops, wildcard_of_a_foreign_netns_drops_datagrams_from_its_port);
	tcase_add_test(drops, datagram_to_a_broadcast_address_is_dropped);
	tcase_add_test(drops, datagram_from_a_refused_port_is_dropped);
	tcase_add_test(drops, datagram_of_a_denied_source_is_dropped);
	tcase_add_test(drops, datagrams_above_the_rate_of_a_source_are_dropped);
	tcase_add_test(drops, only_datagrams_to_listed_groups_are_answered);

	TCase *failures = add_tcase(suite, "failures");
	tcase_add_test(failures, failed_reply_is_counted_and_the_rest_of_its_batch_is_sent);
	tcase_add_test(failures, replies_behind_a_full_socket_are_sent_later_in_order);
	tcase_add_test(failures, socket_with_unsent_replies_does_not_receive);
	tcase_add_test(failures, unsent_reply_leaves_from_the_destination_of_the_request);
	tcase_add_test(failures, failed_unsent_reply_does_not_block_the_next);

	TCase *stopping = add_tcase(suite, "stopping");
	tcase_add_loop_test(stopping, stop_answers_the_queued_datagrams_and_posts_done, 0,
			    sizeof queue_lengths / sizeof *queue_lengths);
	tcase_add_test(stopping, stopped_socket_does_not_receive);
	tcase_add_test(stopping, stop_without_memory_for_its_event_counts_the_lost_replies);
	tcase_add_test(stopping, stop_waits_for_unsent_replies);
	tcase_add_test(stopping, stop_that_fills_the_socket_answers_the_whole_queue);
	tcase_add_test(stopping, socket_with_unsent_replies_can_be_freed);
	tcase_add_test(stopping, socket_whose_start_never_ran_can_be_freed);
	return suite;
}

int main(void)
{
	return check_run(suite());
}
