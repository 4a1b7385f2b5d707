/* stream.c: one connection over TCP or TLS, from connecting to its end. */
#include "probe/stream.h"

#include <errno.h>
#include <event2/buffer.h>
#include <openssl/err.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "probe/proxy_header.h"
#include "probe/run.h"
#include "probe/socket.h"
#include "probe/tls_client.h"

enum { STAGGER_MS = 250, READ_SIZE = 256 * 1024, PIECE_SIZE = 64 * 1024, REASONS_SIZE = 2048 };

/* An attempt to connect to one address. */
struct attempt {
	struct stream *stream;
	size_t index;
	int fd; /* -1: none */
	struct event *event;
};

struct stream {
	struct event_base *base;
	const struct options *options;
	const struct target *target;
	SSL_CTX *tls;
	struct stream_calls calls;
	void *context;

	struct attempt attempts[TARGET_ADDRESSES_MAX];
	size_t begun, pending; /* attempts begun, and pending */
	struct event *stagger, *timeout;

	int fd;
	SSL *session;
	bool open, shutting, shut;
	bool read_waits_to_write; /* TLS has to send before it can receive */
	struct event *readable, *writable;
	struct evbuffer *unsent;
	char peer[TARGET_TEXT_SIZE];
	char reasons[REASONS_SIZE];
};

static void drop_event(struct event **event)
{
	if (*event != NULL)
		event_free(*event);
	*event = NULL;
}

static void drop_attempt(struct attempt *attempt)
{
	if (attempt->fd < 0)
		return;
	drop_event(&attempt->event);
	close(attempt->fd);
	attempt->fd = -1;
	attempt->stream->pending--;
}

/* Ends the stream; its owner may free it in the callback. */
static void end(struct stream *stream, enum stream_end end, const char *reason)
{
	drop_event(&stream->stagger);
	drop_event(&stream->timeout);
	drop_event(&stream->readable);
	drop_event(&stream->writable);
	for (size_t i = 0; i < stream->begun; i++)
		drop_attempt(&stream->attempts[i]);
	stream->calls.on_end(stream->context, end, reason);
}

/* --- receiving --- */

static void end_by_tls(struct stream *stream, int result)
{
	char error[TARGET_ERROR_SIZE], reason[TARGET_ERROR_SIZE + TARGET_TEXT_SIZE + 2];
	bool closed = SSL_get_error(stream->session, result) == SSL_ERROR_ZERO_RETURN;

	tls_client_explain(stream->session, result, error);
	snprintf(reason, sizeof reason, "%s: %s", stream->peer, error);
	end(stream, closed ? STREAM_CLOSED : STREAM_BROKEN, reason);
}

static void end_by_errno(struct stream *stream, int error)
{
	char reason[TARGET_ERROR_SIZE];

	snprintf(reason, sizeof reason, "%s: %s", stream->peer, strerror(error));
	end(stream, STREAM_BROKEN, reason);
}

static void end_by_peer(struct stream *stream)
{
	char reason[TARGET_ERROR_SIZE];

	snprintf(reason, sizeof reason, "%s: closed by the server", stream->peer);
	end(stream, STREAM_CLOSED, reason);
}

/* Returns whether the TLS call has to be repeated once the socket is ready, and registers the event for it. */
static bool tls_waits(struct stream *stream, int result, bool reading)
{
	int kind = SSL_get_error(stream->session, result);

	if (kind == SSL_ERROR_WANT_WRITE)
		event_add(stream->writable, NULL);
	stream->read_waits_to_write = reading && kind == SSL_ERROR_WANT_WRITE;
	return kind == SSL_ERROR_WANT_READ || kind == SSL_ERROR_WANT_WRITE;
}

static void receive_tls(struct stream *stream, char *bytes)
{
	ERR_clear_error();
	errno = 0;
	int length = SSL_read(stream->session, bytes, READ_SIZE);

	if (length > 0) {
		/* data buffered in the session causes no event */
		if (SSL_has_pending(stream->session))
			event_active(stream->readable, EV_READ, 0);
		stream->calls.on_bytes(stream->context, bytes, (size_t)length);
	} else if (!tls_waits(stream, length, true)) {
		end_by_tls(stream, length);
	}
}

static void receive(struct stream *stream)
{
	static char bytes[READ_SIZE]; /* this part of the probe has one thread */

	if (stream->session != NULL) {
		receive_tls(stream, bytes);
		return;
	}

	ssize_t length = recv(stream->fd, bytes, sizeof bytes, 0);

	if (length > 0)
		stream->calls.on_bytes(stream->context, bytes, (size_t)length);
	else if (length == 0)
		end_by_peer(stream);
	else if (errno != EAGAIN && errno != EINTR)
		end_by_errno(stream, errno);
}

/* --- sending --- */

static void shut_now(struct stream *stream)
{
	if (stream->shut)
		return;
	stream->shut = true;
	/* a lost connection is reported by reading */
	if (stream->session != NULL) {
		ERR_clear_error();
		SSL_shutdown(stream->session);
		ERR_clear_error();
	}
	shutdown(stream->fd, SHUT_WR);
}

/* Sends a piece of LENGTH bytes. Returns how many were taken, 0: none now, -1: the connection is broken. The receiving
 * side reports the reason, after the data that came before it. */
static ssize_t send_piece(struct stream *stream, const void *bytes, size_t length)
{
	if (stream->session == NULL) {
		ssize_t sent = send(stream->fd, bytes, length, MSG_NOSIGNAL);

		return sent >= 0 ? sent : errno == EAGAIN || errno == EINTR ? 0 : -1;
	}
	ERR_clear_error();
	int sent = SSL_write(stream->session, bytes, (int)length);

	if (sent > 0)
		return sent;
	int kind = SSL_get_error(stream->session, sent);

	ERR_clear_error();
	return kind == SSL_ERROR_WANT_READ || kind == SSL_ERROR_WANT_WRITE ? 0 : -1;
}

static void flush(struct stream *stream)
{
	size_t left;

	while ((left = evbuffer_get_length(stream->unsent)) > 0) {
		size_t piece = left < PIECE_SIZE ? left : PIECE_SIZE;
		const void *bytes = evbuffer_pullup(stream->unsent, (ev_ssize_t)piece);
		ssize_t sent = bytes != NULL ? send_piece(stream, bytes, piece) : -1;

		if (sent < 0)
			evbuffer_drain(stream->unsent, left);
		if (sent == 0) {
			event_add(stream->writable, NULL);
			return;
		}
		if (sent > 0)
			evbuffer_drain(stream->unsent, (size_t)sent);
	}
	if (stream->shutting)
		shut_now(stream);
}

bool stream_send(struct stream *stream, const void *bytes, size_t length)
{
	if (evbuffer_add(stream->unsent, bytes, length) < 0)
		return false;
	flush(stream);
	return true;
}

void stream_shut(struct stream *stream)
{
	stream->shutting = true;
	flush(stream);
}

size_t stream_unsent(const struct stream *stream)
{
	return evbuffer_get_length(stream->unsent);
}

const char *stream_peer(const struct stream *stream)
{
	return stream->peer;
}

/* --- opening --- */

static void note_failure(struct attempt *attempt, const char *what, const char *reason)
{
	struct stream *stream = attempt->stream;
	size_t used = strlen(stream->reasons);
	char text[TARGET_TEXT_SIZE];

	target_print((const struct sockaddr *)&stream->target->addresses[attempt->index].address, text);
	if (used + 1 < sizeof stream->reasons)
		snprintf(stream->reasons + used, sizeof stream->reasons - used, "%s%s%s: %s", used ? "; " : "", what,
			 text, reason);
}

static void on_timeout(evutil_socket_t fd, short what, void *context)
{
	struct stream *stream = context;
	char reason[TARGET_ERROR_SIZE];

	(void)fd;
	(void)what;
	if (stream->fd >= 0) {
		snprintf(reason, sizeof reason, "%s: the TLS handshake takes longer than the timeout", stream->peer);
		end(stream, STREAM_BROKEN, reason);
		return;
	}
	for (size_t i = 0; i < stream->begun; i++)
		if (stream->attempts[i].fd >= 0)
			note_failure(&stream->attempts[i], "connect to ", strerror(ETIMEDOUT));
	end(stream, STREAM_UNREACHED, stream->reasons);
}

static void opened(struct stream *stream)
{
	stream->open = true;
	drop_event(&stream->timeout);
	stream->calls.on_open(stream->context);
}

static void shake_hands(struct stream *stream)
{
	ERR_clear_error();
	errno = 0;
	int result = SSL_connect(stream->session);

	if (result == 1)
		opened(stream);
	else if (!tls_waits(stream, result, false))
		end_by_tls(stream, result);
}

static void on_readable(evutil_socket_t fd, short what, void *context)
{
	struct stream *stream = context;

	(void)fd;
	(void)what;
	if (stream->open)
		receive(stream);
	else
		shake_hands(stream);
}

static void on_writable(evutil_socket_t fd, short what, void *context)
{
	struct stream *stream = context;

	(void)fd;
	(void)what;
	if (!stream->open) {
		shake_hands(stream);
		return;
	}
	flush(stream);
	if (stream->read_waits_to_write)
		receive(stream);
}

/* Sends the PROXY header, before TLS. A new socket has room for it. */
static bool send_proxy_header(struct stream *stream)
{
	struct sockaddr_storage near, far;
	socklen_t near_length = sizeof near, far_length = sizeof far;
	char bytes[PROXY_HEADER_MAX + 1];

	if (!stream->options->proxy)
		return true;
	if (getsockname(stream->fd, (struct sockaddr *)&near, &near_length) < 0 ||
	    getpeername(stream->fd, (struct sockaddr *)&far, &far_length) < 0)
		return false;
	size_t length = proxy_header_write(stream->options->proxy, (const struct sockaddr *)&near,
					   (const struct sockaddr *)&far, bytes);

	return send(stream->fd, bytes, length, MSG_NOSIGNAL) == (ssize_t)length;
}

static void begin_session(struct stream *stream)
{
	char error[TARGET_ERROR_SIZE], reason[TARGET_ERROR_SIZE + TARGET_TEXT_SIZE + 2];

	if (stream->tls == NULL) {
		opened(stream);
		return;
	}
	stream->session = tls_client_session(stream->tls, stream->options, stream->target, stream->fd, error);
	if (stream->session != NULL) {
		shake_hands(stream);
		return;
	}
	snprintf(reason, sizeof reason, "%s: %s", stream->peer, error);
	end(stream, STREAM_BROKEN, reason);
}

/* Keeps the connection of ATTEMPT and drops the others. */
static void take(struct attempt *attempt)
{
	struct stream *stream = attempt->stream;

	drop_event(&stream->stagger);
	drop_event(&attempt->event);
	stream->fd = attempt->fd;
	attempt->fd = -1;
	stream->pending--;
	for (size_t i = 0; i < stream->begun; i++)
		drop_attempt(&stream->attempts[i]);
	target_print((const struct sockaddr *)&stream->target->addresses[attempt->index].address, stream->peer);

	stream->readable = event_new(stream->base, stream->fd, EV_READ | EV_PERSIST, on_readable, stream);
	stream->writable = event_new(stream->base, stream->fd, EV_WRITE, on_writable, stream);
	if (stream->readable == NULL || stream->writable == NULL || event_add(stream->readable, NULL) < 0)
		end_by_errno(stream, ENOMEM);
	else if (!send_proxy_header(stream))
		end_by_errno(stream, errno);
	else
		begin_session(stream);
}

static void begin_next(struct stream *stream);

static void on_connected(evutil_socket_t fd, short what, void *context)
{
	struct attempt *attempt = context;
	struct stream *stream = attempt->stream;
	int error = 0;
	socklen_t length = sizeof error;

	(void)what;
	if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length) < 0)
		error = errno;
	if (error == 0) {
		take(attempt);
		return;
	}
	if (error == ECONNRESET) { /* there was a connection, else the error would be ECONNREFUSED */
		target_print((const struct sockaddr *)&stream->target->addresses[attempt->index].address, stream->peer);
		end_by_errno(stream, error);
		return;
	}
	note_failure(attempt, "connect to ", strerror(error));
	drop_attempt(attempt);
	begin_next(stream);
}

/* Starts an attempt. Returns false if the address failed at once; the reason is recorded. */
static bool begin(struct attempt *attempt)
{
	struct stream *stream = attempt->stream;
	const struct target_address *address = &stream->target->addresses[attempt->index];
	char error[TARGET_ERROR_SIZE];
	int fd = socket_open(stream->options, address, error);

	if (fd < 0) {
		note_failure(attempt, "", error);
		return false;
	}
	attempt->fd = fd;
	stream->pending++;
	if (connect(fd, (const struct sockaddr *)&address->address, address->length) < 0 && errno != EINPROGRESS) {
		note_failure(attempt, "connect to ", strerror(errno));
		drop_attempt(attempt);
		return false;
	}
	attempt->event = event_new(stream->base, fd, EV_WRITE, on_connected, attempt);
	if (attempt->event != NULL && event_add(attempt->event, NULL) == 0)
		return true;
	note_failure(attempt, "", strerror(ENOMEM));
	drop_attempt(attempt);
	return false;
}

/* Starts an attempt with the next address that does not fail at once. */
static void begin_next(struct stream *stream)
{
	struct timeval stagger = run_delay(STAGGER_MS * MS_NS);

	while (stream->begun < stream->target->count) {
		struct attempt *attempt = &stream->attempts[stream->begun];

		*attempt = (struct attempt){.stream = stream, .index = stream->begun++, .fd = -1};
		if (begin(attempt)) {
			event_add(stream->stagger, &stagger);
			return;
		}
	}
	if (stream->pending == 0)
		end(stream, STREAM_UNREACHED, stream->reasons);
}

static void on_stagger(evutil_socket_t fd, short what, void *context)
{
	(void)fd;
	(void)what;
	begin_next(context);
}

struct stream *stream_open(struct event_base *base, const struct options *options, const struct target *target,
			   SSL_CTX *tls, const struct stream_calls *calls, void *context)
{
	struct stream *stream = calloc(1, sizeof *stream);
	struct timeval timeout = run_delay(options->timeout_ms * MS_NS), at_once = {0};

	if (stream == NULL)
		return NULL;
	*stream = (struct stream){
		.base = base,
		.options = options,
		.target = target,
		.tls = tls,
		.calls = *calls,
		.context = context,
		.fd = -1,
		.unsent = evbuffer_new(),
		.stagger = evtimer_new(base, on_stagger, stream),
		.timeout = evtimer_new(base, on_timeout, stream),
	};
	if (stream->unsent != NULL && stream->stagger != NULL && stream->timeout != NULL &&
	    event_add(stream->timeout, &timeout) == 0 && event_add(stream->stagger, &at_once) == 0)
		return stream;
	stream_free(stream);
	return NULL;
}

void stream_free(struct stream *stream)
{
	if (stream == NULL)
		return;
	drop_event(&stream->stagger);
	drop_event(&stream->timeout);
	drop_event(&stream->readable);
	drop_event(&stream->writable);
	for (size_t i = 0; i < stream->begun; i++)
		drop_attempt(&stream->attempts[i]);
	if (stream->session != NULL && stream->open && !stream->shut) {
		SSL_shutdown(stream->session); /* close_notify; a failure to send it is no loss */
		ERR_clear_error();
	}
	SSL_free(stream->session);
	if (stream->fd >= 0)
		close(stream->fd);
	if (stream->unsent != NULL)
		evbuffer_free(stream->unsent);
	free(stream);
}
