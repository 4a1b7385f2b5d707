/* tcp.c: a load over TCP and TLS: each connection carries an endless pattern, cut into requests. */
#include <errno.h>
#include <inttypes.h>
#include <openssl/err.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "probe/load/thread.h"
#include "probe/proxy_header.h"
#include "probe/socket.h"
#include "probe/tls_client.h"

enum { BUFFER = PAYLOAD_STREAM_AHEAD };

struct stream {
	struct load_conn conn;
	bool connected; /* connected, and not open yet */
	SSL *session;   /* or NULL */
	bool failed;    /* the session failed: it may not be shut down */
	uint64_t seed;
	uint64_t issued;         /* requests */
	uint64_t sent, received; /* bytes */
	uint64_t corrupted;      /* number of the last corrupted request, from 1 */
	uint64_t *due_ns;        /* of the requests in flight, a ring */
};

static struct stream *stream_of(struct load_conn *conn)
{
	return (struct stream *)conn;
}

static bool prepare(struct load_thread *thread)
{
	thread->buffer = malloc(BUFFER);
	thread->scratch = calloc(thread->conn_count, sizeof(uint64_t) * thread->load->options->depth);
	if (thread->buffer != NULL && thread->scratch != NULL)
		return true;
	snprintf(thread->error, sizeof thread->error, "%u requests in flight on each of %u connections: %s",
		 thread->load->options->depth, thread->conn_count, strerror(ENOMEM));
	return false;
}

static void release(struct load_thread *thread)
{
	free(thread->buffer);
	free(thread->scratch);
}

static bool open_stream(struct load_conn *conn)
{
	struct stream *stream = stream_of(conn);
	struct load_thread *thread = conn->owner;
	const struct load *load = thread->load;
	const struct target_address *address = load->address;

	stream->seed = payload_new_seed();
	stream->due_ns =
		(uint64_t *)thread->scratch + (size_t)(conn->number - thread->first_number) * load->options->depth;
	conn->fd = socket_open(load->options, address, thread->error);
	if (conn->fd < 0)
		return false;
	if (connect(conn->fd, (const struct sockaddr *)&address->address, address->length) == 0 || errno == EINPROGRESS)
		return true;
	snprintf(thread->error, sizeof thread->error, "connect to %s: %s", load->peer, strerror(errno));
	close(conn->fd);
	return false;
}

static void close_stream(struct load_conn *conn)
{
	struct stream *stream = stream_of(conn);

	/* close_notify marks the end of the data */
	if (stream->session != NULL && SSL_is_init_finished(stream->session) && !stream->failed)
		SSL_shutdown(stream->session);
	SSL_free(stream->session);
	stream->session = NULL;
}

/* --- opening --- */

static void shake_hands(struct stream *stream)
{
	struct load_conn *conn = &stream->conn;
	char error[TARGET_ERROR_SIZE];

	ERR_clear_error();
	int result = SSL_do_handshake(stream->session);
	if (result == 1) {
		load_conn_opened(conn);
		load_conn_watch(conn, false);
		return;
	}
	int wants = SSL_get_error(stream->session, result);
	if (wants == SSL_ERROR_WANT_READ || wants == SSL_ERROR_WANT_WRITE) {
		load_conn_watch(conn, wants == SSL_ERROR_WANT_WRITE);
		return;
	}
	tls_client_explain(stream->session, result, error);
	load_conn_break(conn, error);
}

/* Sends the PROXY header. A new socket has room for it. */
static bool introduce(const struct stream *stream)
{
	const struct load *load = stream->conn.owner->load;
	struct sockaddr_storage near;
	socklen_t length = sizeof near;
	char header[PROXY_HEADER_MAX + 1];

	if (load->options->proxy == 0)
		return true;
	if (getsockname(stream->conn.fd, (struct sockaddr *)&near, &length) < 0)
		return false;
	size_t size = proxy_header_write(load->options->proxy, (const struct sockaddr *)&near,
					 (const struct sockaddr *)&load->address->address, header);
	return send(stream->conn.fd, header, size, MSG_NOSIGNAL) == (ssize_t)size;
}

static void go_on_opening(struct stream *stream)
{
	struct load_conn *conn = &stream->conn;
	struct load *load = conn->owner->load;
	char text[TARGET_ERROR_SIZE];
	int error = 0;
	socklen_t length = sizeof error;

	if (!stream->connected && (getsockopt(conn->fd, SOL_SOCKET, SO_ERROR, &error, &length) < 0 || error != 0)) {
		load_conn_break(conn, strerror(error != 0 ? error : errno));
		return;
	}
	atomic_store_explicit(&load->reached, true, memory_order_relaxed);
	if (!stream->connected && !introduce(stream)) {
		load_conn_break(conn, strerror(errno));
		return;
	}
	if (!stream->connected && load->tls != NULL) {
		stream->session = tls_client_session(load->tls, load->options, load->target, conn->fd, text);
		if (stream->session == NULL) {
			load_conn_break(conn, text);
			return;
		}
	}
	stream->connected = true;
	if (stream->session != NULL) {
		shake_hands(stream);
		return;
	}
	load_conn_opened(conn);
	load_conn_watch(conn, false);
}

/* --- transports: the result is the number of bytes, 0 for none now, -1 with the reason why the connection ends --- */

static ssize_t secure_result(struct stream *stream, int result, char *reason)
{
	if (result > 0)
		return result;
	int wants = SSL_get_error(stream->session, result);
	if (wants == SSL_ERROR_WANT_READ || wants == SSL_ERROR_WANT_WRITE)
		return 0;
	stream->failed = true;
	tls_client_explain(stream->session, result, reason);
	return -1;
}

static ssize_t plain_result(ssize_t result, char *reason)
{
	if (result > 0)
		return result;
	if (result < 0 && (errno == EAGAIN || errno == EINTR))
		return 0;
	snprintf(reason, TARGET_ERROR_SIZE, "%s", result == 0 ? "closed by the server" : strerror(errno));
	return -1;
}

static ssize_t put(struct stream *stream, const void *bytes, size_t length, char *reason)
{
	if (stream->session == NULL)
		return plain_result(send(stream->conn.fd, bytes, length, MSG_NOSIGNAL), reason);
	ERR_clear_error();
	return secure_result(stream, SSL_write(stream->session, bytes, (int)length), reason);
}

static ssize_t get(struct stream *stream, void *bytes, size_t length, char *reason)
{
	if (stream->session == NULL)
		return plain_result(recv(stream->conn.fd, bytes, length, 0), reason);
	ERR_clear_error();
	return secure_result(stream, SSL_read(stream->session, bytes, (int)length), reason);
}

/* --- requests --- */

static void send_issued(struct stream *stream)
{
	struct load_conn *conn = &stream->conn;
	uint64_t wanted = stream->issued * conn->owner->load->options->size;
	char reason[TARGET_ERROR_SIZE];

	while (stream->sent < wanted) {
		uint64_t length = wanted - stream->sent;
		length = length < PAYLOAD_STREAM_AHEAD ? length : PAYLOAD_STREAM_AHEAD;
		ssize_t sent = put(stream, payload_stream(stream->seed, stream->sent), (size_t)length, reason);
		if (sent < 0) {
			load_conn_break(conn, reason);
			return;
		}
		stream->sent += (uint64_t)sent;
		conn->owner->stats.sent_bytes += (uint64_t)sent;
		/* TLS takes a record at a time, a socket as much as it has room for */
		if (sent == 0 || (stream->session == NULL && (uint64_t)sent < length))
			break;
	}
	load_conn_watch(conn, stream->sent < wanted);
}

static void issue(struct load_conn *conn, unsigned most)
{
	struct stream *stream = stream_of(conn);
	const unsigned depth = conn->owner->load->options->depth, room = depth - conn->in_flight;
	unsigned count = 0;
	uint64_t due_ns;

	while (count < most && count < room && load_thread_next(conn->owner, &due_ns)) {
		stream->due_ns[stream->issued++ % depth] = due_ns;
		count++;
	}
	if (count == 0)
		return;
	load_conn_busy(conn, count);
	/* a full socket: the rest follows once it is writable */
	if (!conn->watches_output)
		send_issued(stream);
}

static void note_corruption(struct stream *stream, uint64_t position)
{
	struct load_conn *conn = &stream->conn;
	struct load_thread *thread = conn->owner;
	uint64_t number = position / thread->load->options->size + 1;

	if (stream->corrupted == number)
		return;
	stream->corrupted = number;
	thread->stats.counts.corrupted++;
	load_notice(thread->load, "connection %u to %s: byte %" PRIu64 " of reply %" PRIu64 " is wrong", conn->number,
		    thread->load->peer, position % thread->load->options->size + 1, number);
}

static void check(struct stream *stream, const char *bytes, size_t length)
{
	const uint64_t size = stream->conn.owner->load->options->size;

	for (size_t from = 0; from < length;) {
		size_t at =
			payload_stream_difference(stream->seed, stream->received + from, bytes + from, length - from);
		if (at == PAYLOAD_SAME)
			return;
		uint64_t position = stream->received + from + at;
		note_corruption(stream, position);
		/* continue with the next request */
		from = (size_t)((position / size + 1) * size - stream->received);
	}
}

static void heard(struct load_conn *conn)
{
	struct load_thread *thread = conn->owner;
	char text[HISTOGRAM_TIME_SIZE];

	if (conn->stalled)
		load_notice(thread->load, "connection %u to %s: goes on after %s", conn->number, thread->load->peer,
			    histogram_time_text((double)(thread->now_ns - conn->heard_ns), text));
	conn->stalled = false;
	conn->heard_ns = thread->now_ns;
}

static void take(struct stream *stream, const char *bytes, size_t length)
{
	struct load_conn *conn = &stream->conn;
	struct load_thread *thread = conn->owner;
	const struct options *options = thread->load->options;

	if (stream->received + length > stream->sent) {
		thread->stats.counts.unexpected++;
		load_conn_break(conn, "more came back than was sent");
		return;
	}
	check(stream, bytes, length);
	heard(conn);
	uint64_t reply = stream->received / options->size, replies;
	stream->received += length;
	thread->stats.received_bytes += length;
	replies = stream->received / options->size - reply;
	for (uint64_t i = 0; i < replies; i++, reply++) {
		uint64_t due_ns = stream->due_ns[reply % options->depth];
		thread->stats.counts.late += thread->now_ns - due_ns > thread->load->timeout_ns;
		load_thread_replied(thread, due_ns);
	}
	thread->stats.counts.received += replies;
	thread->stats.counts.in_flight -= replies;
	load_conn_busy(conn, -(int64_t)replies);
}

static void receive(struct stream *stream)
{
	struct load_conn *conn = &stream->conn;
	char *buffer = conn->owner->buffer;
	char reason[TARGET_ERROR_SIZE];

	do {
		ssize_t length = get(stream, buffer, BUFFER, reason);
		if (length == 0)
			return;
		if (length < 0) {
			load_conn_break(conn, reason);
			return;
		}
		take(stream, buffer, (size_t)length);
	} while (conn->state == LOAD_CONN_OPEN && stream->session != NULL && SSL_has_pending(stream->session));
}

static void on_event(struct load_conn *conn, uint32_t events)
{
	struct stream *stream = stream_of(conn);

	if (conn->state == LOAD_CONN_OPENING) {
		go_on_opening(stream);
		return;
	}
	if (events & (EPOLLIN | EPOLLHUP | EPOLLERR))
		receive(stream);
	if (conn->state == LOAD_CONN_OPEN && conn->watches_output)
		send_issued(stream);
	if (conn->state == LOAD_CONN_OPEN && conn->owner->interval_ns == 0)
		issue(conn, conn->owner->load->options->depth);
}

/* Reports a silent connection; its requests stay in flight. */
static void sweep(struct load_conn *conn)
{
	struct load_thread *thread = conn->owner;
	uint64_t silent_ns = thread->now_ns - conn->heard_ns;
	char text[HISTOGRAM_TIME_SIZE];

	if (conn->stalled || conn->in_flight == 0 || silent_ns < thread->load->timeout_ns)
		return;
	conn->stalled = true;
	thread->stats.stalls++;
	load_notice(thread->load, "connection %u to %s: no byte for %s, %u requests in flight", conn->number,
		    thread->load->peer, histogram_time_text((double)silent_ns, text), conn->in_flight);
}

const struct load_transport load_tcp = {
	.conn_size = sizeof(struct stream),
	.prepare = prepare,
	.release = release,
	.open = open_stream,
	.close = close_stream,
	.on_event = on_event,
	.issue = issue,
	.sweep = sweep,
};
