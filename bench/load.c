/* load.c: load generator: runs a number of operations, checks every byte of the replies, prints the server's cost. */
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <netinet/tcp.h>
#include <netinet/udp.h>
#include <openssl/ssl.h>
#include <stdarg.h>
#include <stdbool.h>
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
	PATTERN_PERIOD = 65521, /* a prime, so that displaced data is detected */
	CHUNK = 256 * 1024,     /* upper limit of one send or receive */
	MESSAGE_MAX = 64 * 1024,
	DEPTH_MAX = 64, /* also the most segments of a GSO batch */
	DATAGRAM_MAX = 65507,
	RECEIVES_AT_ONCE = 16,
	EVENTS_AT_ONCE = 1024,
	SOURCES = 200,        /* addresses of 127.0.0.0/8, enough for the ports and the limits of a source */
	TIMEOUT_MS = 10000,   /* default for a reply on TCP */
	LOST_AFTER_MS = 1000, /* default for a reply on UDP */
	SILENCES_MAX = 5,     /* consecutive timeouts that end a run on UDP */
	SETTLE_MS = 20,       /* time for the work of the server after its last reply */
	LINE_MAX_BYTES = 256,
	BUCKETS_A_DOUBLING = 64, /* latencies are exact to 1/64 */
	BUCKETS = 64 * BUCKETS_A_DOUBLING,
};

struct mode {
	const char *name;
	uint64_t connections, size, depth, operations; /* defaults */
	void (*open)(void);
	void (*work)(void);
};

static struct {
	const struct mode *mode;
	struct sockaddr_in server;
	pid_t pid;
	uint64_t connections, size, depth, operations;
	int timeout_ms; /* for a reply; 0: the default */
	bool trains, steps, tls;
} options;

static struct {
	uint64_t opened, operations, sent_bytes, received_bytes, lost;
	uint64_t elapsed_ns, server_cpu_ns;
	uint64_t latency_max_ns, latencies[BUCKETS];
} results;

static char pattern[PATTERN_PERIOD + CHUNK];
static char buffer[RECEIVES_AT_ONCE][CHUNK];
static int poller;

__attribute__((format(printf, 1, 2), noreturn)) static void fail(const char *format, ...)
{
	va_list arguments;
	va_start(arguments, format);
	fputs("load: ", stderr);
	vfprintf(stderr, format, arguments);
	fputc('\n', stderr);
	va_end(arguments);
	exit(EXIT_FAILURE);
}

static void *allocate(size_t count, size_t size)
{
	void *memory = calloc(count, size);
	if (memory == NULL)
		fail("out of memory");
	return memory;
}

static uint64_t now_ns(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

/* --- the pattern: each byte is a function of its connection and its offset --- */

static void pattern_fill(void)
{
	uint64_t state = 1;
	for (size_t i = 0; i < sizeof pattern; i++) {
		state = state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
		pattern[i] = i < PATTERN_PERIOD ? (char)(state >> 56) : pattern[i - PATTERN_PERIOD];
	}
}

static const char *pattern_at(uint64_t position)
{
	return pattern + position % PATTERN_PERIOD;
}

/* Returns the offset in the pattern where the stream of connection INDEX begins. */
static uint64_t pattern_first(uint64_t index)
{
	return index * 7919;
}

/* --- latencies --- */

static unsigned bucket_of(uint64_t value)
{
	if (value < BUCKETS_A_DOUBLING)
		return (unsigned)value;
	unsigned shift = 63 - 6 - (unsigned)__builtin_clzll(value);
	return (shift + 1) * BUCKETS_A_DOUBLING + (unsigned)((value >> shift) - BUCKETS_A_DOUBLING);
}

static uint64_t bucket_value(unsigned bucket)
{
	if (bucket < BUCKETS_A_DOUBLING)
		return bucket;
	unsigned shift = bucket / BUCKETS_A_DOUBLING - 1;
	return (UINT64_C(2 * BUCKETS_A_DOUBLING + 1) + 2 * (bucket % BUCKETS_A_DOUBLING)) << shift >> 1;
}

static void operation_done(uint64_t began_ns, uint64_t ended_ns)
{
	uint64_t latency = ended_ns - began_ns;
	results.operations++;
	results.latencies[bucket_of(latency)]++;
	if (latency > results.latency_max_ns)
		results.latency_max_ns = latency;
}

static uint64_t percentile(double part)
{
	uint64_t wanted = (uint64_t)(part * (double)results.operations), seen = 0;
	for (unsigned i = 0; i < BUCKETS; i++) {
		seen += results.latencies[i];
		if (seen > wanted)
			return bucket_value(i);
	}
	return results.latency_max_ns;
}

/* --- the server's processor time --- */

struct process {
	pid_t pid, parent;
	uint64_t children_ticks; /* of exited children */
	bool ours;
};

static bool process_read(pid_t pid, struct process *process)
{
	char path[64], text[1024];
	snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
	FILE *file = fopen(path, "re");
	if (file == NULL)
		return false;
	size_t length = fread(text, 1, sizeof text - 1, file);
	fclose(file);
	text[length] = '\0';

	int parent;
	uint64_t user, system;
	const char *rest = strrchr(text, ')'); /* a name may contain any character */
	if (rest == NULL || sscanf(rest,
				   ") %*c %d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u"
				   " %" SCNu64 " %" SCNu64,
				   &parent, &user, &system) != 3)
		return false;
	*process = (struct process){.pid = pid, .parent = parent, .children_ticks = user + system};
	return true;
}

/* Reads all processes into LIST, which the caller frees. */
static size_t processes_read(struct process **list)
{
	size_t count = 0, room = 0;
	DIR *directory = opendir("/proc");
	if (directory == NULL)
		fail("cannot read /proc: %s", strerror(errno));
	*list = NULL;
	for (struct dirent *entry; (entry = readdir(directory)) != NULL;) {
		pid_t pid = (pid_t)strtol(entry->d_name, NULL, 10);
		if (count == room) {
			room = room * 2 + 256;
			*list = realloc(*list, room * sizeof **list);
			if (*list == NULL)
				fail("out of memory");
		}
		if (pid > 0 && process_read(pid, *list + count))
			count++;
	}
	closedir(directory);
	return count;
}

/* Marks the server and its descendants. */
static void mark_ours(struct process *list, size_t count)
{
	bool found;
	do {
		found = false;
		for (size_t i = 0; i < count; i++) {
			bool ours = list[i].pid == options.pid;
			for (size_t j = 0; !ours && !list[i].ours && j < count; j++)
				ours = list[j].ours && list[j].pid == list[i].parent;
			found |= ours && !list[i].ours;
			list[i].ours |= ours;
		}
	} while (found);
}

/* Returns the processor time of the tasks of PID in ns, without exited threads. */
static uint64_t tasks_cpu_ns(pid_t pid)
{
	char path[sizeof "/proc//task//schedstat" + 300];
	uint64_t sum = 0, ns;
	snprintf(path, sizeof path, "/proc/%d/task", (int)pid);
	DIR *directory = opendir(path);
	if (directory == NULL)
		return 0;
	for (struct dirent *entry; (entry = readdir(directory)) != NULL;) {
		if (entry->d_name[0] == '.')
			continue;
		snprintf(path, sizeof path, "/proc/%d/task/%s/schedstat", (int)pid, entry->d_name);
		FILE *file = fopen(path, "re");
		if (file == NULL)
			continue;
		if (fscanf(file, "%" SCNu64, &ns) == 1)
			sum += ns;
		fclose(file);
	}
	closedir(directory);
	return sum;
}

/* Returns the processor time of the server and all its forked processes in ns. */
static uint64_t server_cpu_ns(void)
{
	struct process *list;
	uint64_t tick_ns = 1000000000 / (uint64_t)sysconf(_SC_CLK_TCK), sum = 0;
	size_t count = processes_read(&list);
	mark_ours(list, count);
	for (size_t i = 0; i < count; i++)
		if (list[i].ours)
			sum += tasks_cpu_ns(list[i].pid) + list[i].children_ticks * tick_ns;
	free(list);
	return sum;
}

/* --- sockets --- */

static void watch(int operation, int fd, uint32_t mask, void *context)
{
	struct epoll_event event = {.events = mask, .data.ptr = context};
	if (epoll_ctl(poller, operation, fd, &event) < 0)
		fail("epoll_ctl: %s", strerror(errno));
}

/* Returns a TCP socket bound to the next source address. */
static int tcp_socket(int flags)
{
	static uint32_t source;
	const int yes = 1;
	struct sockaddr_in address = {.sin_family = AF_INET};
	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK + source++ % SOURCES);

	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | flags, 0);
	if (fd < 0)
		fail("socket: %s", strerror(errno));
	if (setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes) < 0 ||
	    setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &yes, sizeof yes) < 0 ||
	    bind(fd, (struct sockaddr *)&address, sizeof address) < 0)
		fail("cannot prepare a socket: %s", strerror(errno));
	return fd;
}

/* Handles events by CALLBACK until *OPEN is 0. */
static void loop(const uint64_t *open, void (*callback)(void *context, uint32_t events), int timeout_ms,
		 void (*on_silence)(void))
{
	static struct epoll_event events[EVENTS_AT_ONCE];
	while (*open > 0) {
		int count = epoll_wait(poller, events, EVENTS_AT_ONCE, timeout_ms);
		if (count < 0 && errno != EINTR)
			fail("epoll_wait: %s", strerror(errno));
		if (count == 0)
			on_silence();
		for (int i = 0; i < count; i++)
			callback(events[i].data.ptr, events[i].events);
	}
}

static int timeout_ms(int otherwise)
{
	return options.timeout_ms > 0 ? options.timeout_ms : otherwise;
}

static void no_answer(void)
{
	fail("no answer for %d ms after %" PRIu64 " operations", timeout_ms(TIMEOUT_MS), results.operations);
}

/* Returns the number of messages of connection INDEX. */
static uint64_t share(uint64_t index)
{
	return options.operations / options.connections + (index < options.operations % options.connections ? 1 : 0);
}

/* --- echo on TCP: persistent connections --- */

struct stream {
	int fd;
	SSL *tls;                       /* NULL without TLS */
	uint64_t first;                 /* offset of its first byte in the pattern */
	uint64_t sent, received, limit; /* bytes */
	uint64_t *began_ns;             /* start of each message in flight */
};
static struct stream *streams;
static uint64_t streams_open; /* connections with messages left */

static void check_bytes(const struct stream *stream, const char *bytes, size_t length)
{
	if (memcmp(bytes, pattern_at(stream->first + stream->received), length) != 0)
		fail("wrong bytes on connection %td near its byte %" PRIu64, stream - streams, stream->received);
}

/* Sends and receives as send(2) and recv(2) do, through TLS if the connection has it. */

static ssize_t stream_result(const struct stream *stream, int result)
{
	if (result > 0)
		return result;
	int error = SSL_get_error(stream->tls, result);
	if (error == SSL_ERROR_ZERO_RETURN)
		return 0;
	errno = error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE ? EAGAIN : EPROTO;
	return -1;
}

static ssize_t stream_write(const struct stream *stream, const char *bytes, size_t length)
{
	if (stream->tls == NULL)
		return send(stream->fd, bytes, length, MSG_NOSIGNAL | MSG_DONTWAIT);
	return stream_result(stream, SSL_write(stream->tls, bytes, (int)length));
}

static ssize_t stream_read(const struct stream *stream, char *bytes, size_t size)
{
	if (stream->tls == NULL)
		return recv(stream->fd, bytes, size, MSG_DONTWAIT);
	return stream_result(stream, SSL_read(stream->tls, bytes, (int)size));
}

/* Sends as much as may be in flight. The rest that does not fit the socket is sent when an echo arrives. */
static void stream_send(struct stream *stream)
{
	uint64_t window = (stream->received / options.size + options.depth) * options.size;
	if (window > stream->limit)
		window = stream->limit;
	while (stream->sent < window) {
		size_t length = window - stream->sent < CHUNK ? (size_t)(window - stream->sent) : CHUNK;
		uint64_t now = now_ns(), next = (stream->sent + options.size - 1) / options.size;
		for (; next * options.size < stream->sent + length; next++)
			stream->began_ns[next % options.depth] = now;

		ssize_t sent = stream_write(stream, pattern_at(stream->first + stream->sent), length);
		if (sent < 0 && errno == EAGAIN)
			return;
		if (sent < 0)
			fail("send: %s", strerror(errno));
		stream->sent += (uint64_t)sent;
		results.sent_bytes += (uint64_t)sent;
		if ((size_t)sent < length)
			return;
	}
}

/* Receives and checks data. Returns false if there was none. */
static bool stream_receive(struct stream *stream)
{
	ssize_t length = stream_read(stream, buffer[0], CHUNK);
	if (length < 0 && errno == EAGAIN)
		return false;
	if (length <= 0)
		fail("the server ended a connection: %s", length < 0 ? strerror(errno) : "end of stream");
	check_bytes(stream, buffer[0], (size_t)length);

	uint64_t now = now_ns(), message = stream->received / options.size;
	stream->received += (uint64_t)length;
	results.received_bytes += (uint64_t)length;
	for (; message < stream->received / options.size; message++)
		operation_done(stream->began_ns[message % options.depth], now);
	stream_send(stream);
	if (stream->received == stream->limit)
		streams_open--;
	return true;
}

static void on_stream(void *context, uint32_t events)
{
	const struct stream *stream = context;
	(void)events;
	while (stream_receive(context) && stream->tls != NULL && SSL_has_pending(stream->tls))
		;
}

/* Returns a TLS context for clients that does not verify certificates. */
static void stream_secure(struct stream *stream)
{
	static SSL_CTX *context;
	if (context == NULL) {
		context = SSL_CTX_new(TLS_client_method());
		if (context == NULL)
			fail("out of memory");
		SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
						  SSL_MODE_RELEASE_BUFFERS);
	}
	stream->tls = SSL_new(context);
	if (stream->tls == NULL || SSL_set_fd(stream->tls, stream->fd) != 1)
		fail("out of memory");
	if (SSL_connect(stream->tls) != 1)
		fail("no TLS on a new connection");
}

/* Sends a message and waits for its echo. */
static ssize_t stream_exchange(struct stream *stream)
{
	const char *message = pattern_at(stream->first);
	ssize_t received = 0;

	if (stream->tls == NULL) {
		if (send(stream->fd, message, options.size, MSG_NOSIGNAL) != (ssize_t)options.size)
			fail("cannot send to a new connection: %s", strerror(errno));
		return recv(stream->fd, buffer[0], options.size, MSG_WAITALL);
	}
	for (size_t sent = 0; sent < options.size;) {
		ssize_t length = stream_write(stream, message + sent, options.size - sent);
		if (length <= 0)
			fail("cannot send to a new connection");
		sent += (size_t)length;
	}
	while (received < (ssize_t)options.size) {
		ssize_t length = stream_read(stream, buffer[0] + received, options.size - (size_t)received);
		if (length <= 0)
			return length;
		received += length;
	}
	if (fcntl(stream->fd, F_SETFL, O_NONBLOCK) < 0)
		fail("O_NONBLOCK: %s", strerror(errno));
	return received;
}

/* Exchanges one message, so that the server has accepted the connection and is in its steady state. */
static void stream_greet(struct stream *stream)
{
	const struct timeval timeout = {.tv_sec = timeout_ms(TIMEOUT_MS) / 1000};
	if (setsockopt(stream->fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout) < 0)
		fail("SO_RCVTIMEO: %s", strerror(errno));
	if (connect(stream->fd, (struct sockaddr *)&options.server, sizeof options.server) < 0)
		fail("connect: %s", strerror(errno));
	if (options.tls)
		stream_secure(stream);
	ssize_t received = stream_exchange(stream);
	if (received != (ssize_t)options.size)
		fail("no echo on a new connection: %s", received < 0 ? strerror(errno) : "end of stream");
	check_bytes(stream, buffer[0], options.size);
	stream->first += options.size;
	results.opened++;
}

static void streams_prepare(void)
{
	streams = allocate(options.connections, sizeof *streams);
	for (uint64_t i = 0; i < options.connections; i++) {
		struct stream *stream = &streams[i];
		stream->fd = tcp_socket(0);
		stream->first = pattern_first(i);
		stream->limit = share(i) * options.size;
		stream->began_ns = allocate(options.depth, sizeof *stream->began_ns);
		stream_greet(stream);
		streams_open += stream->limit > 0;
		watch(EPOLL_CTL_ADD, stream->fd, EPOLLIN, stream);
	}
}

static void streams_work(void)
{
	for (uint64_t i = 0; i < options.connections; i++)
		stream_send(&streams[i]);
	loop(&streams_open, on_stream, timeout_ms(TIMEOUT_MS), no_answer);
}

/* --- connect, exchange, close on TCP --- */

/* A slot with one connection at a time. */
struct visit {
	int fd;
	uint64_t first, received, began_ns;
	char line[LINE_MAX_BYTES];
};
static uint64_t visits_open, visits_begun;

static void visit_begin(struct visit *visit, uint32_t events)
{
	if (visits_begun == options.operations) {
		visits_open--;
		return;
	}
	visit->fd = tcp_socket(SOCK_NONBLOCK);
	visit->first = pattern_first(visits_begun++);
	visit->received = 0;
	visit->began_ns = now_ns();
	if (connect(visit->fd, (struct sockaddr *)&options.server, sizeof options.server) < 0 && errno != EINPROGRESS)
		fail("connect: %s", strerror(errno));
	watch(EPOLL_CTL_ADD, visit->fd, events, visit);
}

static void visit_end(struct visit *visit, uint32_t events)
{
	close(visit->fd);
	results.opened++;
	operation_done(visit->began_ns, now_ns());
	visit_begin(visit, events);
}

static void on_echo_visit(void *context, uint32_t events)
{
	struct visit *visit = context;
	if (visit->received == 0 && events & EPOLLOUT) {
		if (send(visit->fd, pattern_at(visit->first), options.size, MSG_NOSIGNAL) != (ssize_t)options.size)
			fail("cannot send %" PRIu64 " bytes at once: %s", options.size, strerror(errno));
		results.sent_bytes += options.size;
		watch(EPOLL_CTL_MOD, visit->fd, EPOLLIN, visit);
		return;
	}
	ssize_t length = recv(visit->fd, buffer[0], CHUNK, 0);
	if (length <= 0)
		fail("no echo: %s", length < 0 ? strerror(errno) : "end of stream");
	if (visit->received + (uint64_t)length > options.size ||
	    memcmp(buffer[0], pattern_at(visit->first + visit->received), (size_t)length) != 0)
		fail("wrong bytes on visit %" PRIu64, visits_begun);
	visit->received += (uint64_t)length;
	results.received_bytes += (uint64_t)length;
	if (visit->received == options.size)
		visit_end(visit, EPOLLOUT);
}

/* Checks that a reply is one line of printable characters with a time. */
static bool is_daytime(const char *line, size_t length)
{
	bool clock = false;
	if (length < 3 || memcmp(line + length - 2, "\r\n", 2) != 0)
		return false;
	for (size_t i = 0; i < length - 2; i++) {
		if (line[i] < ' ' || line[i] > '~')
			return false;
		clock |= line[i] == ':' && i >= 2 && i + 2 < length;
	}
	return clock;
}

static void on_daytime_visit(void *context, uint32_t events)
{
	struct visit *visit = context;
	(void)events;
	ssize_t length = recv(visit->fd, visit->line + visit->received, sizeof visit->line - visit->received, 0);
	if (length < 0)
		fail("no daytime: %s", strerror(errno));
	visit->received += (uint64_t)length;
	results.received_bytes += (uint64_t)length;
	if (length > 0 && visit->received < sizeof visit->line)
		return;
	if (!is_daytime(visit->line, visit->received))
		fail("not a daytime: \"%.*s\"", (int)visit->received, visit->line);
	visit_end(visit, EPOLLIN);
}

static void visits_work(uint32_t first_event, void (*callback)(void *context, uint32_t events))
{
	struct visit *visits = allocate(options.connections, sizeof *visits);
	visits_open = options.connections;
	for (uint64_t i = 0; i < options.connections; i++)
		visit_begin(&visits[i], first_event);
	loop(&visits_open, callback, timeout_ms(TIMEOUT_MS), no_answer);
	free(visits);
}

static void echo_visits_work(void)
{
	visits_work(EPOLLOUT, on_echo_visit);
}

static void daytime_visits_work(void)
{
	visits_work(EPOLLIN, on_daytime_visit);
}

static void prepare_none(void)
{
}

/* --- echo on UDP: flows, each a socket of its own --- */

/* A datagram is its number in its flow, a uint64_t, followed by the pattern at that offset. */
struct flow {
	int fd;
	uint64_t first;
	uint64_t sent, received, limit; /* datagrams; RECEIVED includes the lost ones */
	uint64_t *began_ns;
};
static struct flow *flows;
static uint64_t flows_open;

static const char *datagram_rest(const struct flow *flow, uint64_t number)
{
	return pattern_at(flow->first + number * options.size);
}

/* Sends COUNT datagrams as one GSO batch. */
static int send_train(int fd, struct iovec *parts, unsigned count)
{
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(sizeof(uint16_t))];
	} control = {0};
	struct msghdr message = {.msg_iov = parts,
				 .msg_iovlen = 2 * count,
				 .msg_control = control.bytes,
				 .msg_controllen = sizeof control.bytes};
	uint16_t size = (uint16_t)options.size;
	struct cmsghdr *part = CMSG_FIRSTHDR(&message);
	part->cmsg_level = SOL_UDP;
	part->cmsg_type = UDP_SEGMENT;
	part->cmsg_len = CMSG_LEN(sizeof size);
	memcpy(CMSG_DATA(part), &size, sizeof size);
	return sendmsg(fd, &message, 0) < 0 ? -1 : (int)count;
}

static int send_singly(int fd, struct iovec *parts, unsigned count)
{
	struct mmsghdr messages[DEPTH_MAX];
	for (unsigned i = 0; i < count; i++)
		messages[i] = (struct mmsghdr){.msg_hdr = {.msg_iov = &parts[2 * (size_t)i], .msg_iovlen = 2}};
	return sendmmsg(fd, messages, count, 0);
}

/* Sends as much as may be in flight; a GSO batch only after all replies to the last one. */
static void flow_send(struct flow *flow)
{
	uint64_t numbers[DEPTH_MAX], in_flight = flow->sent - flow->received, now = now_ns();
	struct iovec parts[2 * DEPTH_MAX];
	unsigned count = 0;

	if (options.trains && in_flight > 0)
		return;
	for (; count + in_flight < options.depth && flow->sent + count < flow->limit; count++) {
		uint64_t number = numbers[count] = flow->sent + count;
		flow->began_ns[number % options.depth] = now;
		parts[2 * count] = (struct iovec){&numbers[count], sizeof *numbers};
		parts[2 * count + 1] =
			(struct iovec){(void *)(uintptr_t)datagram_rest(flow, number), options.size - sizeof *numbers};
	}
	if (count == 0)
		return;
	int sent = (options.trains ? send_train : send_singly)(flow->fd, parts, count);
	if (sent != (int)count)
		fail("cannot send %u datagrams: %s", count, sent < 0 ? strerror(errno) : "the socket is full");
	flow->sent += count;
	results.sent_bytes += count * options.size;
}

static void check_datagram(struct flow *flow, const char *bytes, size_t length, uint64_t now)
{
	uint64_t number;
	if (length != options.size)
		fail("a datagram of %zu bytes came back for %" PRIu64, length, options.size);
	memcpy(&number, bytes, sizeof number);
	if (number < flow->received || number >= flow->sent)
		fail("datagram %" PRIu64 " came back where %" PRIu64 " was next", number, flow->received);
	if (memcmp(bytes + sizeof number, datagram_rest(flow, number), length - sizeof number) != 0)
		fail("wrong bytes in datagram %" PRIu64, number);
	results.lost += number - flow->received;
	results.received_bytes += length;
	flow->received = number + 1;
	operation_done(flow->began_ns[number % options.depth], now);
}

/* Returns the length of each datagram in MESSAGE; the last may be shorter. */
static size_t segment_size(struct msghdr *message, size_t length)
{
	for (struct cmsghdr *part = CMSG_FIRSTHDR(message); part != NULL; part = CMSG_NXTHDR(message, part)) {
		int size;
		if (part->cmsg_level != SOL_UDP || part->cmsg_type != UDP_GRO)
			continue;
		memcpy(&size, CMSG_DATA(part), sizeof size);
		return (size_t)size;
	}
	return length;
}

static void flow_go_on(struct flow *flow)
{
	flow_send(flow);
	if (flow->received == flow->limit)
		flows_open--;
}

static void on_flow(void *context, uint32_t events)
{
	struct flow *flow = context;
	struct mmsghdr messages[RECEIVES_AT_ONCE];
	struct iovec parts[RECEIVES_AT_ONCE];
	_Alignas(struct cmsghdr) char control[RECEIVES_AT_ONCE][CMSG_SPACE(sizeof(int))];

	(void)events;
	for (unsigned i = 0; i < RECEIVES_AT_ONCE; i++) {
		parts[i] = (struct iovec){buffer[i], CHUNK};
		messages[i] = (struct mmsghdr){.msg_hdr = {.msg_iov = &parts[i],
							   .msg_iovlen = 1,
							   .msg_control = control[i],
							   .msg_controllen = sizeof control[i]}};
	}
	int count = recvmmsg(flow->fd, messages, RECEIVES_AT_ONCE, MSG_DONTWAIT, NULL);
	if (count < 0)
		fail("recvmmsg: %s", strerror(errno));
	uint64_t now = now_ns();
	for (int i = 0; i < count; i++) {
		size_t length = messages[i].msg_len, step = segment_size(&messages[i].msg_hdr, length);
		for (size_t at = 0; at < length; at += step)
			check_datagram(flow, buffer[i] + at, length - at < step ? length - at : step, now);
	}
	flow_go_on(flow);
}

/* Counts datagrams that are in flight for too long as lost. */
static void on_lost(void)
{
	static unsigned silences;
	if (tasks_cpu_ns(options.pid) == 0)
		fail("the server has ended");
	if (silences++ == SILENCES_MAX)
		fail("too many datagrams lost: %" PRIu64 " of %" PRIu64, results.lost,
		     results.lost + results.operations);
	for (uint64_t i = 0; i < options.connections; i++) {
		struct flow *flow = &flows[i];
		if (flow->received == flow->limit)
			continue;
		results.lost += flow->sent - flow->received;
		flow->received = flow->sent;
		flow_go_on(flow);
	}
}

static void flows_prepare(void)
{
	const int yes = 1;
	flows = allocate(options.connections, sizeof *flows);
	for (uint64_t i = 0; i < options.connections; i++) {
		struct flow *flow = &flows[i];
		flow->fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
		if (flow->fd < 0 || connect(flow->fd, (struct sockaddr *)&options.server, sizeof options.server) < 0)
			fail("cannot prepare a socket: %s", strerror(errno));
		if (options.trains && setsockopt(flow->fd, SOL_UDP, UDP_GRO, &yes, sizeof yes) < 0)
			fail("UDP_GRO: %s", strerror(errno));
		flow->first = pattern_first(i);
		flow->limit = share(i);
		flow->began_ns = allocate(options.depth, sizeof *flow->began_ns);
		flows_open += flow->limit > 0;
		watch(EPOLL_CTL_ADD, flow->fd, EPOLLIN, flow);
		results.opened++;
	}
}

static void flows_work(void)
{
	for (uint64_t i = 0; i < options.connections; i++)
		flow_send(&flows[i]);
	loop(&flows_open, on_flow, timeout_ms(LOST_AFTER_MS), on_lost);
}

/* --- modes and options --- */

static const struct mode modes[] = {
	{"tcp-echo", 50, 64, 1, 100000, streams_prepare, streams_work},
	{"tcp-bulk", 4, 64 * 1024, 8, 16384, streams_prepare, streams_work},
	{"connect-echo-close", 16, 64, 1, 10000, prepare_none, echo_visits_work},
	{"connect-daytime-close", 16, 0, 1, 10000, prepare_none, daytime_visits_work},
	{"udp-echo", 50, 64, 16, 100000, flows_prepare, flows_work},
};

static const char usage[] =
	"usage: load [OPTION...] MODE ADDRESS:PORT\n"
	"MODE: tcp-echo, tcp-bulk, connect-echo-close, connect-daytime-close or udp-echo\n"
	"  -p, --pid PID          server process, for its processor time\n"
	"  -c, --connections N    connections or flows; for connect-*, concurrent ones\n"
	"  -s, --size BYTES       size of a message\n"
	"  -d, --depth N          messages in flight on each connection\n"
	"  -o, --operations N     number of echoed messages, or of connections\n"
	"  -e, --tls              TLS, for tcp-echo and tcp-bulk\n"
	"  -g, --trains           UDP: send with UDP_SEGMENT, receive with UDP_GRO\n"
	"      --timeout SECONDS  for a reply; default 10 on TCP, 1 on UDP\n"
	"      --steps            print `ready` and wait for a line before the run, wait for another after the result\n"
	"The result is one line of JSON.\n";

static uint64_t parse_number(const char *text, uint64_t maximum)
{
	char *end;
	errno = 0;
	unsigned long long value = strtoull(text, &end, 10);
	if (errno != 0 || end == text || *end != '\0' || value > maximum)
		fail("not a number up to %" PRIu64 ": %s", maximum, text);
	return value;
}

static void parse_server(char *text)
{
	char *colon = strrchr(text, ':');
	if (colon == NULL)
		fail("not ADDRESS:PORT: %s", text);
	*colon = '\0';
	options.server.sin_family = AF_INET;
	options.server.sin_port = htons((uint16_t)parse_number(colon + 1, UINT16_MAX));
	if (inet_pton(AF_INET, text, &options.server.sin_addr) != 1)
		fail("not an IPv4 address: %s", text);
	if ((ntohl(options.server.sin_addr.s_addr) >> 24) != IN_LOOPBACKNET)
		fail("only a server on the loopback network is put under load, not %s", text);
}

static void parse_mode(const char *name)
{
	for (size_t i = 0; i < sizeof modes / sizeof *modes; i++)
		if (strcmp(name, modes[i].name) == 0)
			options.mode = &modes[i];
	if (options.mode == NULL)
		fail("unknown mode %s\n%s", name, usage);
	options.connections = options.mode->connections;
	options.size = options.mode->size;
	options.depth = options.mode->depth;
	options.operations = options.mode->operations;
}

static void parse_option(int letter, const char *value)
{
	switch (letter) {
	case 'p':
		options.pid = (pid_t)parse_number(value, INT32_MAX);
		break;
	case 'c':
		options.connections = parse_number(value, 1000000);
		break;
	case 's':
		options.size = parse_number(value, MESSAGE_MAX);
		break;
	case 'd':
		options.depth = parse_number(value, DEPTH_MAX);
		break;
	case 'o':
		options.operations = parse_number(value, UINT32_MAX);
		break;
	case 'e':
		options.tls = true;
		break;
	case 'g':
		options.trains = true;
		break;
	case 'a':
		options.timeout_ms = (int)parse_number(value, 3600) * 1000;
		break;
	case 'w':
		options.steps = true;
		break;
	default:
		fputs(usage, stderr);
		exit(2);
	}
}

static void check_options(void)
{
	bool udp = options.mode->work == flows_work;
	if (options.pid == 0 || tasks_cpu_ns(options.pid) == 0)
		fail("no processor time of --pid %d in /proc", (int)options.pid);
	if (options.connections == 0 || options.depth == 0)
		fail("at least one connection, and one message in flight");
	if (options.mode->size > 0 && options.size < sizeof(uint64_t))
		fail("a message has at least %zu bytes", sizeof(uint64_t));
	if (udp && (options.trains ? options.size * options.depth : options.size) > DATAGRAM_MAX)
		fail("more than %d bytes do not fit", DATAGRAM_MAX);
	if (options.trains && !udp)
		fail("--trains is for udp-echo");
	if (options.tls && options.mode->work != streams_work)
		fail("--tls is for tcp-echo and tcp-bulk");
}

static void parse_arguments(int count, char **arguments)
{
	static const struct option names[] = {
		{"pid", required_argument, NULL, 'p'},
		{"connections", required_argument, NULL, 'c'},
		{"size", required_argument, NULL, 's'},
		{"depth", required_argument, NULL, 'd'},
		{"operations", required_argument, NULL, 'o'},
		{"tls", no_argument, NULL, 'e'},
		{"trains", no_argument, NULL, 'g'},
		{"timeout", required_argument, NULL, 'a'},
		{"steps", no_argument, NULL, 'w'},
		{"help", no_argument, NULL, 'h'},
		{NULL, 0, NULL, 0},
	};
	const char *letters = "p:c:s:d:o:egh";

	/* the mode is applied first, because options override its defaults */
	while (getopt_long(count, arguments, letters, names, NULL) >= 0)
		;
	if (count - optind != 2) {
		fputs(usage, stderr);
		exit(2);
	}
	parse_mode(arguments[optind]);
	parse_server(arguments[optind + 1]);
	optind = 0;
	for (int letter; (letter = getopt_long(count, arguments, letters, names, NULL)) >= 0;)
		parse_option(letter, optarg);
	check_options();
}

static void raise_descriptor_limit(void)
{
	struct rlimit limit;
	if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
		fail("RLIMIT_NOFILE: %s", strerror(errno));
	limit.rlim_cur = limit.rlim_max;
	if (setrlimit(RLIMIT_NOFILE, &limit) < 0)
		fail("RLIMIT_NOFILE: %s", strerror(errno));
}

static void wait_for_line(void)
{
	fflush(stdout);
	for (int c; (c = getchar()) != '\n';)
		if (c == EOF)
			exit(EXIT_SUCCESS);
}

static void measure(void)
{
	const struct timespec settle = {.tv_nsec = SETTLE_MS * 1000000};
	nanosleep(&settle, NULL);
	uint64_t cpu_ns = server_cpu_ns(), began_ns = now_ns();
	options.mode->work();
	results.elapsed_ns = now_ns() - began_ns;
	nanosleep(&settle, NULL);
	results.server_cpu_ns = server_cpu_ns() - cpu_ns;
}

static void print_results(void)
{
	printf("{\"mode\": \"%s\", \"connections\": %" PRIu64 ", \"size\": %" PRIu64 ", \"depth\": %" PRIu64
	       ", \"trains\": %s, \"opened\": %" PRIu64 ", \"operations\": %" PRIu64 ", \"sent_bytes\": %" PRIu64
	       ", \"received_bytes\": %" PRIu64 ", \"lost\": %" PRIu64 ", \"elapsed_ns\": %" PRIu64
	       ", \"server_cpu_ns\": %" PRIu64,
	       options.mode->name, options.connections, options.size, options.depth, options.trains ? "true" : "false",
	       results.opened, results.operations, results.sent_bytes, results.received_bytes, results.lost,
	       results.elapsed_ns, results.server_cpu_ns);
	printf(", \"latency_ns\": {\"p50\": %" PRIu64 ", \"p90\": %" PRIu64 ", \"p99\": %" PRIu64 ", \"p999\": %" PRIu64
	       ", \"max\": %" PRIu64 "}}\n",
	       percentile(0.50), percentile(0.90), percentile(0.99), percentile(0.999), results.latency_max_ns);
}

int main(int argc, char **argv)
{
	parse_arguments(argc, argv);
	raise_descriptor_limit();
	pattern_fill();
	poller = epoll_create1(EPOLL_CLOEXEC);
	if (poller < 0)
		fail("epoll_create1: %s", strerror(errno));

	options.mode->open();
	if (options.steps) {
		puts("ready");
		wait_for_line();
	}
	measure();
	print_results();
	if (options.steps)
		wait_for_line();
	return fflush(stdout) == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
