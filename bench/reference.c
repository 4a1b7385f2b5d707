/* reference.c: reference servers for the bench: raw epoll, without libevent, limits, counters or logs. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <netinet/udp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif
#ifndef UDP_GRO
#define UDP_GRO 104
#endif

enum {
	BUFFER_SIZE = 256 * 1024,
	BUFFER_ALIGNMENT = 4096,
	EVENTS_AT_ONCE = 1024,
	BACKLOG = 4096,
	BATCH = 64,
	DATAGRAM_SIZE = 64 * 1024,
	RECEIVE_BUFFER = 1024 * 1024,
	LINGER_MS = 2000,
	ACCEPTS_A_WAKEUP = 64, /* limits accepting, so that open connections are served */
};

/* Aligned as in the daemon: copies to an unaligned address cost 1 % of a message of 4 KiB. */
static _Alignas(BUFFER_ALIGNMENT) char buffer[BUFFER_SIZE];
static int poller;
static struct epoll_event events[EVENTS_AT_ONCE];

static void check(bool good, const char *call)
{
	if (good)
		return;
	perror(call);
	exit(EXIT_FAILURE);
}

static void watch(int operation, int fd, uint32_t mask, void *context)
{
	struct epoll_event event = {.events = mask, .data.ptr = context};
	check(epoll_ctl(poller, operation, fd, &event) == 0, "epoll_ctl");
}

/* Binds a socket to a port chosen by the kernel and to the loopback interface, and prints the port. */
static int bound_socket(int type, const char *address)
{
	const int yes = 1;
	struct sockaddr_in name = {.sin_family = AF_INET};
	socklen_t length = sizeof name;
	int fd = socket(AF_INET, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	check(fd >= 0, "socket");
	check(inet_pton(AF_INET, address, &name.sin_addr) == 1, "not an IPv4 address");
	if (name.sin_addr.s_addr == htonl(INADDR_ANY))
		check(setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, "lo", sizeof "lo") == 0, "SO_BINDTODEVICE");
	if (type == SOCK_STREAM)
		check(setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes) == 0, "TCP_NODELAY");
	check(bind(fd, (struct sockaddr *)&name, length) == 0, "bind");
	check(getsockname(fd, (struct sockaddr *)&name, &length) == 0, "getsockname");
	if (type == SOCK_STREAM)
		check(listen(fd, BACKLOG) == 0, "listen");
	printf("%u\n", ntohs(name.sin_port));
	fflush(stdout);
	return fd;
}

/* Calls CALLBACK for each event, with NULL for the listener. ON_IDLE returns the timeout of each wait. */
static void loop(int fd, void (*callback)(int fd, void *context), int (*on_idle)(void))
{
	watch(EPOLL_CTL_ADD, fd, EPOLLIN, NULL);
	for (;;) {
		int count = epoll_wait(poller, events, EVENTS_AT_ONCE, on_idle());
		check(count >= 0 || errno == EINTR, "epoll_wait");
		for (int i = 0; i < count; i++)
			callback(fd, events[i].data.ptr);
	}
}

/* Accepts queued connections and passes them to BEGIN. */
static void accept_some(int listener, void (*begin)(int fd))
{
	for (int i = 0; i < ACCEPTS_A_WAKEUP; i++) {
		int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
		if (fd < 0) {
			check(errno == EAGAIN, "accept4");
			return;
		}
		begin(fd);
	}
}

static int no_timeout(void)
{
	return -1;
}

/* --- echo on TCP --- */

struct connection {
	int fd;
	size_t from, to; /* unsent bytes of a short send */
	char *rest;
};
static uint32_t input = EPOLLIN; /* epoll events for input */

static void connection_close(struct connection *connection)
{
	close(connection->fd);
	free(connection->rest);
	free(connection);
}

static void keep(struct connection *connection, const char *bytes, size_t length)
{
	connection->rest = malloc(length);
	check(connection->rest != NULL, "malloc");
	memcpy(connection->rest, bytes, length);
	connection->from = 0;
	connection->to = length;
	watch(EPOLL_CTL_MOD, connection->fd, EPOLLOUT, connection);
}

static void send_rest(struct connection *connection)
{
	ssize_t sent = send(connection->fd, connection->rest + connection->from, connection->to - connection->from,
			    MSG_NOSIGNAL);
	if (sent < 0 && errno != EAGAIN) {
		connection_close(connection);
		return;
	}
	connection->from += sent > 0 ? (size_t)sent : 0;
	if (connection->from < connection->to)
		return;
	free(connection->rest);
	connection->rest = NULL;
	watch(EPOLL_CTL_MOD, connection->fd, input, connection);
}

static void echo(struct connection *connection)
{
	ssize_t length = recv(connection->fd, buffer, sizeof buffer, 0);
	if (length <= 0) {
		if (length == 0 || errno != EAGAIN)
			connection_close(connection);
		return;
	}
	ssize_t sent = send(connection->fd, buffer, (size_t)length, MSG_NOSIGNAL);
	if (sent < 0 && errno != EAGAIN)
		connection_close(connection);
	else if (sent < length)
		keep(connection, buffer + (sent > 0 ? sent : 0), (size_t)(length - (sent > 0 ? sent : 0)));
	else if (input != EPOLLIN && length == sizeof buffer)
		watch(EPOLL_CTL_MOD, connection->fd, input, connection); /* no further edge for the unread rest */
}

static void connection_new(int fd)
{
	struct connection *connection = calloc(1, sizeof *connection);
	check(connection != NULL, "calloc");
	connection->fd = fd;
	watch(EPOLL_CTL_ADD, fd, input, connection);
}

static void on_echo(int listener, void *context)
{
	struct connection *connection = context;
	if (connection == NULL)
		accept_some(listener, connection_new);
	else if (connection->rest != NULL)
		send_rest(connection);
	else
		echo(connection);
}

static void tcp_echo(const char *address)
{
	loop(bound_socket(SOCK_STREAM, address), on_echo, no_timeout);
}

static void tcp_echo_edges(const char *address)
{
	input = EPOLLIN | EPOLLET;
	tcp_echo(address);
}

/* --- daytime on TCP: write, shutdown, read until FIN or for 2 s, close --- */

struct visit {
	struct visit *next, **link; /* in the order of their deadlines, since all timeouts are equal */
	int fd;
	uint64_t deadline_ms;
};
static struct visit *visits, **visits_last = &visits;

static uint64_t now_ms(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static void visit_close(struct visit *visit)
{
	*visit->link = visit->next;
	if (visit->next != NULL)
		visit->next->link = visit->link;
	else
		visits_last = visit->link;
	close(visit->fd);
	free(visit);
}

static int close_overdue(void)
{
	uint64_t now = now_ms();
	while (visits != NULL && visits->deadline_ms <= now)
		visit_close(visits);
	return visits != NULL ? (int)(visits->deadline_ms - now) : -1;
}

static void visit_new(int fd)
{
	char line[64];
	struct tm tm;
	time_t now = time(NULL);
	size_t length = strftime(line, sizeof line, "%a %b %e %H:%M:%S %Y\r\n", localtime_r(&now, &tm));
	struct visit *visit = malloc(sizeof *visit);
	check(visit != NULL, "malloc");

	*visit = (struct visit){.link = visits_last, .fd = fd, .deadline_ms = now_ms() + LINGER_MS};
	*visits_last = visit;
	visits_last = &visit->next;
	/* MSG_MORE: the line leaves in one packet with the FIN of the shutdown */
	if (send(fd, line, length, MSG_NOSIGNAL | MSG_MORE) != (ssize_t)length || shutdown(fd, SHUT_WR) < 0)
		visit_close(visit);
	else
		watch(EPOLL_CTL_ADD, fd, EPOLLIN, visit);
}

static void on_daytime(int listener, void *context)
{
	struct visit *visit = context;
	if (visit == NULL) {
		accept_some(listener, visit_new);
		return;
	}
	ssize_t length = recv(visit->fd, buffer, sizeof buffer, 0);
	if (length == 0 || (length < 0 && errno != EAGAIN))
		visit_close(visit);
}

static void tcp_daytime(const char *address)
{
	loop(bound_socket(SOCK_STREAM, address), on_daytime, close_overdue);
}

/* --- echo on UDP --- */

static int udp_socket(const char *address)
{
	const int size = RECEIVE_BUFFER;
	int fd = bound_socket(SOCK_DGRAM, address);
	if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof size) < 0)
		check(setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof size) == 0, "SO_RCVBUF");
	return fd;
}

static void on_datagram(int fd, void *context)
{
	struct sockaddr_in from;
	socklen_t from_length = sizeof from;
	(void)context;
	ssize_t length = recvfrom(fd, buffer, DATAGRAM_SIZE, 0, (struct sockaddr *)&from, &from_length);
	if (length >= 0)
		sendto(fd, buffer, (size_t)length, 0, (struct sockaddr *)&from, from_length);
}

static void udp_single(const char *address)
{
	loop(udp_socket(address), on_datagram, no_timeout);
}

static _Alignas(BUFFER_ALIGNMENT) char datagrams[BATCH][DATAGRAM_SIZE];
static struct mmsghdr messages[BATCH];
static struct iovec parts[BATCH];
static struct sockaddr_in names[BATCH];
static struct {
	_Alignas(struct cmsghdr) char bytes[CMSG_SPACE(sizeof(struct in_pktinfo))];
} controls[BATCH];

static void batch_prepare(void)
{
	for (int i = 0; i < BATCH; i++) {
		parts[i].iov_base = datagrams[i];
		messages[i].msg_hdr.msg_iov = &parts[i];
		messages[i].msg_hdr.msg_iovlen = 1;
		messages[i].msg_hdr.msg_name = &names[i];
	}
}

static int receive_batch(int fd, size_t control_size)
{
	for (int i = 0; i < BATCH; i++) {
		parts[i].iov_len = DATAGRAM_SIZE;
		messages[i].msg_hdr.msg_namelen = sizeof names[i];
		messages[i].msg_hdr.msg_control = control_size > 0 ? controls[i].bytes : NULL;
		messages[i].msg_hdr.msg_controllen = control_size;
	}
	int count = recvmmsg(fd, messages, BATCH, 0, NULL);
	for (int i = 0; i < count; i++)
		parts[i].iov_len = messages[i].msg_len;
	return count;
}

static void send_batch(int fd, int count)
{
	for (int done = 0; done < count;) {
		int sent = sendmmsg(fd, messages + done, (unsigned)(count - done), 0);
		if (sent <= 0)
			break; /* datagrams that do not fit the socket are dropped */
		done += sent;
	}
}

static void on_batch(int fd, void *context)
{
	(void)context;
	send_batch(fd, receive_batch(fd, 0));
}

static void udp_batch(const char *address)
{
	batch_prepare();
	loop(udp_socket(address), on_batch, no_timeout);
}

/* Sends each reply from the destination address of its request. */
static void on_addressed_batch(int fd, void *context)
{
	(void)context;
	int count = receive_batch(fd, sizeof controls->bytes);
	for (int i = 0; i < count; i++) {
		struct in_pktinfo *info = (void *)CMSG_DATA(CMSG_FIRSTHDR(&messages[i].msg_hdr));
		info->ipi_ifindex = 0;
	}
	send_batch(fd, count);
}

static void udp_batch_addressed(const char *address)
{
	const int yes = 1;
	int fd = udp_socket(address);
	check(setsockopt(fd, IPPROTO_IP, IP_PKTINFO, &yes, sizeof yes) == 0, "IP_PKTINFO");
	batch_prepare();
	loop(fd, on_addressed_batch, no_timeout);
}

/* Answers a GRO batch by a GSO batch. The segment size is an int for UDP_GRO and a uint16_t for UDP_SEGMENT. */
static void turn_control(struct msghdr *message)
{
	struct cmsghdr *part = CMSG_FIRSTHDR(message);
	int size = 0;
	if (part != NULL && part->cmsg_level == SOL_UDP && part->cmsg_type == UDP_GRO)
		memcpy(&size, CMSG_DATA(part), sizeof size);
	uint16_t segment = (uint16_t)size;
	if (segment == 0) {
		message->msg_controllen = 0;
		return;
	}
	part->cmsg_type = UDP_SEGMENT;
	part->cmsg_len = CMSG_LEN(sizeof segment);
	memcpy(CMSG_DATA(part), &segment, sizeof segment);
	message->msg_controllen = CMSG_SPACE(sizeof segment);
}

static void on_trains(int fd, void *context)
{
	(void)context;
	int count = receive_batch(fd, sizeof controls->bytes);
	for (int i = 0; i < count; i++)
		turn_control(&messages[i].msg_hdr);
	send_batch(fd, count);
}

static void udp_trains(const char *address)
{
	const int yes = 1;
	int fd = udp_socket(address);
	check(setsockopt(fd, SOL_UDP, UDP_GRO, &yes, sizeof yes) == 0, "UDP_GRO");
	batch_prepare();
	loop(fd, on_trains, no_timeout);
}

static const struct {
	const char *name;
	void (*serve)(const char *address);
} modes[] = {
	{"tcp-echo", tcp_echo},     {"tcp-echo-edges", tcp_echo_edges}, {"tcp-daytime", tcp_daytime},
	{"udp-single", udp_single}, {"udp-batch", udp_batch},           {"udp-batch-addressed", udp_batch_addressed},
	{"udp-trains", udp_trains},
};

int main(int argc, char **argv)
{
	struct rlimit limit;
	poller = epoll_create1(EPOLL_CLOEXEC);
	check(poller >= 0, "epoll_create1");
	check(getrlimit(RLIMIT_NOFILE, &limit) == 0, "RLIMIT_NOFILE");
	limit.rlim_cur = limit.rlim_max;
	check(setrlimit(RLIMIT_NOFILE, &limit) == 0, "RLIMIT_NOFILE");
	for (size_t i = 0; argc == 3 && i < sizeof modes / sizeof *modes; i++)
		if (strcmp(argv[1], modes[i].name) == 0)
			modes[i].serve(argv[2]);
	fputs("usage: reference MODE ADDRESS\nMODE is one of", stderr);
	for (size_t i = 0; i < sizeof modes / sizeof *modes; i++)
		fprintf(stderr, " %s", modes[i].name);
	fputc('\n', stderr);
	return 2;
}
