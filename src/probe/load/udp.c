/* udp.c: a load over UDP: each flow is a socket, each datagram names its request. */
#include <errno.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "probe/load/thread.h"
#include "probe/socket.h"

/* The requests that a flow remembers, for late and duplicated replies. */
enum {
	WINDOW_MIN = 256,
	WINDOW_MAX = 1 << 16, /* beyond the depth */
	WINDOWS_IN_ALL = 1 << 20,
	DEPTHS_REMEMBERED = 4,
	ALIGNMENT = 64,
};

struct flow {
	struct load_conn conn;
	struct payload payload;
	struct series *series;
	uint64_t *due_ns; /* of the remembered requests, a ring */
};

/* The batches of a thread, with constant buffers and headers. */
struct batches {
	struct mmsghdr *in, *out;
	struct iovec *in_parts, *out_parts;
	char *in_bytes, *out_bytes;
	size_t slot;   /* bytes from one datagram to the next */
	unsigned mask; /* of the remembered requests */
};

static struct flow *flow_of(struct load_conn *conn)
{
	return (struct flow *)conn;
}

static unsigned window_of(const struct options *options)
{
	unsigned window = WINDOW_MIN, share = WINDOWS_IN_ALL / options->connections;

	while (window < DEPTHS_REMEMBERED * options->depth)
		window *= 2;
	/* with a depth of 1 a flow waits for its reply */
	while (options->depth > 1 && window < WINDOW_MAX && 2 * window <= share)
		window *= 2;
	return window;
}

static void release(struct load_thread *thread)
{
	struct batches *batches = thread->scratch;

	if (batches == NULL)
		return;
	free(batches->in);
	free(batches->out);
	free(batches->in_parts);
	free(batches->out_parts);
	free(batches->in_bytes);
	free(batches->out_bytes);
	free(batches);
}

static bool prepare(struct load_thread *thread)
{
	const struct options *options = thread->load->options;
	struct batches *batches = thread->scratch = calloc(1, sizeof *batches);
	const unsigned count = thread->batch;

	if (batches == NULL)
		goto fail;
	batches->mask = window_of(options) - 1;
	/* one byte more than was sent, to detect an overlong reply */
	batches->slot = (options->size + 1 + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
	batches->in = calloc(count, sizeof *batches->in);
	batches->out = calloc(count, sizeof *batches->out);
	batches->in_parts = calloc(count, sizeof *batches->in_parts);
	batches->out_parts = calloc(count, sizeof *batches->out_parts);
	batches->in_bytes = calloc(count, batches->slot);
	batches->out_bytes = calloc(count, batches->slot);
	if (batches->in == NULL || batches->out == NULL || batches->in_parts == NULL || batches->out_parts == NULL ||
	    batches->in_bytes == NULL || batches->out_bytes == NULL)
		goto fail;
	for (unsigned i = 0; i < count; i++) {
		batches->in_parts[i] = (struct iovec){batches->in_bytes + i * batches->slot, batches->slot};
		batches->out_parts[i] = (struct iovec){batches->out_bytes + i * batches->slot, options->size};
		batches->in[i].msg_hdr = (struct msghdr){.msg_iov = &batches->in_parts[i], .msg_iovlen = 1};
		batches->out[i].msg_hdr = (struct msghdr){.msg_iov = &batches->out_parts[i], .msg_iovlen = 1};
	}
	return true;

fail:
	snprintf(thread->error, sizeof thread->error, "batches of %u datagrams: %s", count, strerror(ENOMEM));
	return false;
}

/* Disables the reception of errors and TTLs, which would have to be read. */
static bool ask_for_less(int fd, int family)
{
	const int no = 0;
	const int level = family == AF_INET6 ? IPPROTO_IPV6 : IPPROTO_IP;

	return setsockopt(fd, level, family == AF_INET6 ? IPV6_RECVERR : IP_RECVERR, &no, sizeof no) == 0 &&
	       setsockopt(fd, level, family == AF_INET6 ? IPV6_RECVHOPLIMIT : IP_RECVTTL, &no, sizeof no) == 0;
}

static bool open_flow(struct load_conn *conn)
{
	struct flow *flow = flow_of(conn);
	struct load_thread *thread = conn->owner;
	const struct load *load = thread->load;
	const struct target_address *address = load->address;
	const unsigned window = window_of(load->options);

	conn->fd = socket_open(load->options, address, thread->error);
	if (conn->fd < 0)
		return false;
	flow->payload = (struct payload){.seed = payload_new_seed(), .size = load->options->size};
	flow->series = series_new(window);
	flow->due_ns = calloc(window, sizeof *flow->due_ns);
	errno = ENOMEM;
	if (flow->series != NULL && flow->due_ns != NULL && ask_for_less(conn->fd, address->address.ss_family) &&
	    connect(conn->fd, (const struct sockaddr *)&address->address, address->length) == 0) {
		load_conn_opened(conn);
		return true;
	}
	snprintf(thread->error, sizeof thread->error, "connect to %s: %s", load->peer, strerror(errno));
	series_free(flow->series);
	free(flow->due_ns);
	close(conn->fd);
	return false;
}

static void close_flow(struct load_conn *conn)
{
	series_free(flow_of(conn)->series);
	free(flow_of(conn)->due_ns);
}

/* Returns whether ERROR is an ICMP error, as `port unreachable`: the request times out. */
static bool is_answer_of_network(int error)
{
	return error == ECONNREFUSED || error == EHOSTUNREACH || error == ENETUNREACH || error == EHOSTDOWN;
}

/* --- requests --- */

/* Counts the oldest request in flight as lost; another takes its slot. */
static void give_up_oldest(struct flow *flow)
{
	struct load_thread *thread = flow->conn.owner;

	series_time_out(flow->series);
	thread->stats.counts.lost++;
	thread->stats.counts.in_flight--;
	load_conn_busy(&flow->conn, -1);
}

static unsigned make_batch(struct flow *flow, unsigned most)
{
	struct load_thread *thread = flow->conn.owner;
	const struct batches *batches = thread->scratch;
	unsigned count = 0;
	uint64_t due_ns;

	while (count < most && load_thread_next(thread, &due_ns)) {
		if (series_is_full(flow->series))
			give_up_oldest(flow);
		uint64_t sequence = series_send(flow->series, thread->now_ns);
		flow->due_ns[sequence & batches->mask] = due_ns;
		payload_fill(&flow->payload, batches->out_parts[count++].iov_base, sequence, thread->now_ns);
	}
	return count;
}

static int send_batch(const struct flow *flow, unsigned count)
{
	const struct batches *batches = flow->conn.owner->scratch;

	if (count > 1)
		return sendmmsg(flow->conn.fd, batches->out, count, 0);
	ssize_t sent = send(flow->conn.fd, batches->out_bytes, flow->payload.size, 0);
	return sent < 0 ? -1 : 1;
}

static void on_unsent(struct flow *flow, int error)
{
	struct load_thread *thread = flow->conn.owner;

	if (is_answer_of_network(error))
		thread->stats.refused++;
	else if (error == EAGAIN)
		load_conn_watch(&flow->conn, true);
	else if (error != ENOBUFS && error != EINTR && thread->error[0] == '\0') /* retried by the sweep */
		snprintf(thread->error, sizeof thread->error, "send to %s: %s", thread->load->peer, strerror(error));
}

static void take_back(struct flow *flow, unsigned count)
{
	struct load_thread *thread = flow->conn.owner;

	thread->issued -= count;
	thread->stats.counts.sent -= count;
	thread->stats.counts.in_flight -= count;
	while (count-- > 0)
		series_take_back(flow->series);
}

static void issue(struct load_conn *conn, unsigned most)
{
	struct flow *flow = flow_of(conn);
	struct load_thread *thread = conn->owner;
	const unsigned room = thread->load->options->depth - conn->in_flight;

	most = most < room ? most : room;
	while (most > 0) {
		unsigned count = make_batch(flow, most < thread->batch ? most : thread->batch);
		if (count == 0)
			return;
		int sent = send_batch(flow, count);
		int error = errno;
		if (sent < 0 && is_answer_of_network(error)) { /* an error of an earlier datagram, reported once */
			thread->stats.refused++;
			sent = send_batch(flow, count);
			error = errno;
		}
		unsigned done = sent < 0 ? 0 : (unsigned)sent;
		load_conn_busy(conn, done);
		thread->stats.sent_bytes += (uint64_t)done * flow->payload.size;
		take_back(flow, count - done);
		if (sent < 0) {
			on_unsent(flow, error);
			return;
		}
		most -= done;
	}
}

static void note_corruption(const struct flow *flow, const struct payload_match *match, size_t length)
{
	struct load_thread *thread = flow->conn.owner;

	thread->stats.counts.corrupted++;
	if (length == flow->payload.size)
		load_notice(thread->load, "flow %u to %s: byte %zu of reply %" PRIu64 " is wrong", flow->conn.number,
			    thread->load->peer, match->differs_at + 1, match->sequence);
	else
		load_notice(thread->load, "flow %u to %s: reply %" PRIu64 " has %zu bytes, not %zu", flow->conn.number,
			    thread->load->peer, match->sequence, length, flow->payload.size);
}

static void on_reply(struct flow *flow, const char *bytes, size_t length)
{
	struct load_conn *conn = &flow->conn;
	struct load_thread *thread = conn->owner;
	const struct batches *batches = thread->scratch;
	struct series_counts *counts = &thread->stats.counts;
	struct payload_match match = payload_match(&flow->payload, flow->series, bytes, length);

	thread->stats.received_bytes += length;
	if (match.sequence == 0) {
		counts->unexpected++;
		return;
	}
	struct series_reply reply = series_receive(flow->series, match.sequence, thread->now_ns);
	if (match.differs_at != PAYLOAD_SAME)
		note_corruption(flow, &match, length);
	counts->duplicated += reply.duplicated;
	if (reply.duplicated)
		return;
	counts->received++;
	counts->reordered += reply.reordered;
	counts->late += reply.late;
	counts->lost -= reply.late;
	counts->in_flight -= !reply.late;
	if (!reply.late)
		load_conn_busy(conn, -1);
	conn->heard_ns = thread->now_ns;
	load_thread_replied(thread, flow->due_ns[match.sequence & batches->mask]);
}

static int receive_batch(const struct flow *flow)
{
	const struct load_thread *thread = flow->conn.owner;
	struct batches *batches = thread->scratch;

	/* for one expected datagram a single call is cheaper */
	if (flow->conn.in_flight > 1 && thread->batch > 1)
		return recvmmsg(flow->conn.fd, batches->in, thread->batch, MSG_DONTWAIT, NULL);
	ssize_t length = recv(flow->conn.fd, batches->in_bytes, batches->slot, 0);
	if (length < 0)
		return -1;
	batches->in[0].msg_len = (unsigned)length;
	return 1;
}

static void receive(struct flow *flow)
{
	struct load_thread *thread = flow->conn.owner;
	const struct batches *batches = thread->scratch;
	int count = receive_batch(flow);

	if (count < 0 && is_answer_of_network(errno))
		thread->stats.refused++;
	else if (count < 0 && errno != EAGAIN && errno != EINTR && thread->error[0] == '\0')
		snprintf(thread->error, sizeof thread->error, "receive from %s: %s", thread->load->peer,
			 strerror(errno));
	for (int i = 0; i < count; i++)
		on_reply(flow, batches->in_parts[i].iov_base, batches->in[i].msg_len);
}

static void on_event(struct load_conn *conn, uint32_t events)
{
	if (events & (EPOLLIN | EPOLLERR | EPOLLHUP))
		receive(flow_of(conn));
	if (events & EPOLLOUT)
		load_conn_watch(conn, false);
	if (conn->owner->interval_ns == 0)
		issue(conn, conn->owner->load->options->depth);
}

static void sweep(struct load_conn *conn)
{
	struct flow *flow = flow_of(conn);
	struct load_thread *thread = conn->owner;
	uint64_t sequence, sent_ns;

	while (series_waiting(flow->series, &sequence, &sent_ns) &&
	       thread->now_ns - sent_ns >= thread->load->timeout_ns)
		give_up_oldest(flow);
	/* only ICMP errors so far: no reply to wait for */
	if (thread->stats.refused > 0 && thread->stats.counts.received == 0 && thread->error[0] == '\0')
		snprintf(thread->error, sizeof thread->error, "connect to %s: %s", thread->load->peer,
			 strerror(ECONNREFUSED));
	if (thread->interval_ns == 0 && !conn->watches_output)
		issue(conn, thread->load->options->depth);
}

const struct load_transport load_udp = {
	.conn_size = sizeof(struct flow),
	.prepare = prepare,
	.release = release,
	.open = open_flow,
	.close = close_flow,
	.on_event = on_event,
	.issue = issue,
	.sweep = sweep,
};
