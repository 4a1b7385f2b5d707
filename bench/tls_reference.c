/* tls_reference.c: reference server for the bench: echo over TLS with OpenSSL and raw epoll. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

enum { BUFFER_SIZE = 256 * 1024, BUFFER_ALIGNMENT = 4096, EVENTS_AT_ONCE = 1024, BACKLOG = 4096 };

struct connection {
	SSL *tls;
	int fd;
	bool established;
	size_t from, to; /* unsent bytes of a short write */
	char *rest;
};

static _Alignas(BUFFER_ALIGNMENT) char buffer[BUFFER_SIZE]; /* as in the daemon */
static int poller;
static SSL_CTX *context;

static void check(bool good, const char *call)
{
	if (good)
		return;
	perror(call);
	ERR_print_errors_fp(stderr);
	exit(EXIT_FAILURE);
}

static void watch(int operation, int fd, uint32_t mask, void *data)
{
	struct epoll_event event = {.events = mask, .data.ptr = data};
	check(epoll_ctl(poller, operation, fd, &event) == 0, "epoll_ctl");
}

static void connection_close(struct connection *connection)
{
	SSL_free(connection->tls);
	close(connection->fd);
	free(connection->rest);
	free(connection);
}

static bool must_wait(const struct connection *connection, int result)
{
	int error = SSL_get_error(connection->tls, result);
	return error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE;
}

/* Writes as much of BYTES as the socket accepts. Returns the count, or -1. */
static ssize_t write_some(struct connection *connection, const char *bytes, size_t length)
{
	size_t total = 0, written;
	while (total < length) {
		int result = SSL_write_ex(connection->tls, bytes + total, length - total, &written);
		if (result != 1)
			return must_wait(connection, result) ? (ssize_t)total : -1;
		total += written;
	}
	return (ssize_t)total;
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

/* Echoes up to a buffer of data. Returns whether OpenSSL holds more, which causes no event. */
static bool echo(struct connection *connection)
{
	size_t total = 0, got;
	do {
		int result = SSL_read_ex(connection->tls, buffer + total, BUFFER_SIZE - total, &got);
		if (result != 1 && total == 0 && !must_wait(connection, result)) {
			connection_close(connection);
			return false;
		}
		total += result == 1 ? got : 0;
		if (result != 1)
			break;
	} while (total < BUFFER_SIZE && SSL_has_pending(connection->tls));

	ssize_t written = write_some(connection, buffer, total);
	if (written < 0) {
		connection_close(connection);
		return false;
	}
	if ((size_t)written < total) {
		keep(connection, buffer + written, total - (size_t)written);
		return false;
	}
	return total == BUFFER_SIZE && SSL_has_pending(connection->tls);
}

static void write_rest(struct connection *connection)
{
	ssize_t written =
		write_some(connection, connection->rest + connection->from, connection->to - connection->from);
	if (written < 0) {
		connection_close(connection);
		return;
	}
	connection->from += (size_t)written;
	if (connection->from < connection->to)
		return;
	free(connection->rest);
	connection->rest = NULL;
	watch(EPOLL_CTL_MOD, connection->fd, EPOLLIN, connection);
	while (echo(connection))
		;
}

static void on_event(struct connection *connection)
{
	const int yes = 1;
	if (connection->rest != NULL) {
		write_rest(connection);
		return;
	}
	if (!connection->established) {
		int result = SSL_accept(connection->tls);
		if (result != 1) {
			if (!must_wait(connection, result))
				connection_close(connection);
			return;
		}
		connection->established = true;
		setsockopt(connection->fd, IPPROTO_TCP, TCP_QUICKACK, &yes, sizeof yes);
		if (!SSL_has_pending(connection->tls))
			return;
	}
	while (echo(connection))
		;
}

static void on_acceptable(int listener)
{
	int fd;
	while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
		struct connection *connection = calloc(1, sizeof *connection);
		check(connection != NULL, "calloc");
		connection->fd = fd;
		connection->tls = SSL_new(context);
		check(connection->tls != NULL && SSL_set_fd(connection->tls, fd) == 1, "SSL_new");
		watch(EPOLL_CTL_ADD, fd, EPOLLIN, connection);
	}
	check(errno == EAGAIN, "accept4");
}

static void make_context(const char *certificate, const char *key)
{
	context = SSL_CTX_new(TLS_server_method());
	check(context != NULL, "SSL_CTX_new");
	check(SSL_CTX_use_certificate_chain_file(context, certificate) == 1, certificate);
	check(SSL_CTX_use_PrivateKey_file(context, key, SSL_FILETYPE_PEM) == 1, key);
	SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
					  SSL_MODE_RELEASE_BUFFERS);
	SSL_CTX_set_read_ahead(context, 1);
	SSL_CTX_set_num_tickets(context, 0);
	SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
}

/* Listens on a port chosen by the kernel and prints the port. */
static int listen_on(const char *address)
{
	const int yes = 1;
	struct sockaddr_in name = {.sin_family = AF_INET};
	socklen_t length = sizeof name;
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	check(fd >= 0, "socket");
	check(inet_pton(AF_INET, address, &name.sin_addr) == 1, "not an IPv4 address");
	check(setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes) == 0, "TCP_NODELAY");
	check(bind(fd, (struct sockaddr *)&name, length) == 0, "bind");
	check(getsockname(fd, (struct sockaddr *)&name, &length) == 0, "getsockname");
	check(listen(fd, BACKLOG) == 0, "listen");
	printf("%u\n", ntohs(name.sin_port));
	fflush(stdout);
	return fd;
}

int main(int argc, char **argv)
{
	static struct epoll_event events[EVENTS_AT_ONCE];
	struct rlimit limit;

	if (argc != 4) {
		fputs("usage: tls_reference ADDRESS CERTIFICATE KEY\n", stderr);
		return 2;
	}
	check(getrlimit(RLIMIT_NOFILE, &limit) == 0, "RLIMIT_NOFILE");
	limit.rlim_cur = limit.rlim_max;
	check(setrlimit(RLIMIT_NOFILE, &limit) == 0, "RLIMIT_NOFILE");
	poller = epoll_create1(EPOLL_CLOEXEC);
	check(poller >= 0, "epoll_create1");
	make_context(argv[2], argv[3]);
	int listener = listen_on(argv[1]);
	watch(EPOLL_CTL_ADD, listener, EPOLLIN, NULL);
	for (;;) {
		int count = epoll_wait(poller, events, EVENTS_AT_ONCE, -1);
		check(count >= 0 || errno == EINTR, "epoll_wait");
		for (int i = 0; i < count; i++)
			if (events[i].data.ptr == NULL)
				on_acceptable(listener);
			else
				on_event(events[i].data.ptr);
	}
}
