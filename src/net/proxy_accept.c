/* proxy_accept.c: accepted sockets of proxies, until their PROXY header is read. */
#include "net/proxy_accept.h"

#include <errno.h>
#include <event2/event.h>
#include <event2/event_struct.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "core/timer_wheel.h"

struct proxy_accept {
	struct event_base *base;
	struct timer_wheel *wheel;
	proxy_accept_callback *callback;
	void *context;
	bool (*stop)(const struct proxy_socket *socket); /* the argument of proxy_accept_stop */
	char bytes[PROXY_HEADER_MAX];                    /* used by one callback at a time */
};

struct waiting {
	struct event event; /* the socket is readable */
	struct timer_wheel_entry entry;
	uint64_t deadline_ms;
	struct proxy_accept *proxy_accept;
	struct proxy_socket socket;
	char *bytes; /* of the header, received so far; NULL: none */
	size_t length;
};

static void waiting_free(struct waiting *waiting)
{
	event_del(&waiting->event);
	timer_wheel_remove(&waiting->entry);
	free(waiting->bytes);
	free(waiting);
}

/* Ends the wait, and calls back with the same arguments. */
static void finish(struct waiting *waiting, const struct proxy_header *header, enum metric reason, const char *detail)
{
	struct proxy_accept *proxy_accept = waiting->proxy_accept;
	struct proxy_socket socket = waiting->socket;

	waiting_free(waiting);
	proxy_accept->callback(proxy_accept->context, &socket, header, reason, detail);
}

/* Refuses a socket without a valid header. */
static void refuse(struct waiting *waiting, const char *detail)
{
	finish(waiting, NULL, METRIC_REFUSED_PROXY_HEADER, detail);
}

/* Receives COUNT bytes that a peek has seen. Returns false with errno. */
static bool consume(const struct waiting *waiting, char *bytes, size_t count)
{
	ssize_t taken = recv(waiting->socket.fd, bytes, count, 0);
	if (taken >= 0 && (size_t)taken != count)
		errno = EIO;
	return taken >= 0 && (size_t)taken == count;
}

/* Keeps the LENGTH bytes of the header received so far. */
static bool keep(struct waiting *waiting, const char *bytes, size_t length)
{
	char *kept = realloc(waiting->bytes, length);
	if (kept == NULL)
		return false;
	memcpy(kept + waiting->length, bytes + waiting->length, length - waiting->length);
	waiting->bytes = kept;
	waiting->length = length;
	return true;
}

/* Peeks at the input and consumes the bytes of the header. The bytes after it are for TLS or the service. */
static void read_header(struct waiting *waiting)
{
	char *bytes = waiting->proxy_accept->bytes;
	struct proxy_header header;

	if (waiting->length > 0)
		memcpy(bytes, waiting->bytes, waiting->length);
	ssize_t seen = recv(waiting->socket.fd, bytes + waiting->length, PROXY_HEADER_MAX - waiting->length, MSG_PEEK);
	if (seen < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (seen <= 0) {
		refuse(waiting, seen == 0 ? "connection closed by the proxy" : strerror(errno));
		return;
	}
	size_t length = waiting->length + (size_t)seen;
	enum proxy_result result = proxy_parse(bytes, length, &header);
	if (result == PROXY_BAD) {
		refuse(waiting, header.error);
		return;
	}
	size_t own = result == PROXY_DONE ? header.length : length;
	if (!consume(waiting, bytes + waiting->length, own - waiting->length))
		refuse(waiting, strerror(errno));
	else if (result == PROXY_DONE)
		finish(waiting, &header, METRIC_COUNT, NULL);
	else if (!keep(waiting, bytes, length))
		refuse(waiting, strerror(errno));
}

static void on_readable(evutil_socket_t fd, short events, void *argument)
{
	(void)fd, (void)events;
	read_header(argument);
}

static struct waiting *waiting_of(struct timer_wheel_entry *entry)
{
	return (struct waiting *)(void *)((char *)entry - offsetof(struct waiting, entry));
}

static uint64_t on_due(struct timer_wheel_entry *entry, uint64_t now_ms)
{
	struct waiting *waiting = waiting_of(entry);
	if (now_ms < waiting->deadline_ms)
		return waiting->deadline_ms;
	finish(waiting, NULL, METRIC_REFUSED_HANDSHAKE_TIMEOUT, NULL);
	return 0;
}

static void stop(struct timer_wheel_entry *entry)
{
	struct waiting *waiting = waiting_of(entry);
	bool (*stops)(const struct proxy_socket *) = waiting->proxy_accept->stop;
	if (stops == NULL || stops(&waiting->socket))
		finish(waiting, NULL, METRIC_REFUSED_STOP, NULL);
}

struct proxy_accept *proxy_accept_new(struct event_base *base, proxy_accept_callback *callback, void *context)
{
	struct proxy_accept *proxy_accept = calloc(1, sizeof *proxy_accept);
	if (proxy_accept == NULL)
		return NULL;
	proxy_accept->base = base;
	proxy_accept->callback = callback;
	proxy_accept->context = context;
	proxy_accept->wheel = timer_wheel_new(base, on_due);
	if (proxy_accept->wheel == NULL) {
		free(proxy_accept);
		return NULL;
	}
	return proxy_accept;
}

void proxy_accept_stop(struct proxy_accept *proxy_accept, bool (*stops)(const struct proxy_socket *socket))
{
	proxy_accept->stop = stops;
	timer_wheel_each(proxy_accept->wheel, stop);
}

void proxy_accept_free(struct proxy_accept *proxy_accept)
{
	if (proxy_accept == NULL)
		return;
	timer_wheel_free(proxy_accept->wheel);
	free(proxy_accept);
}

bool proxy_accept_wait(struct proxy_accept *proxy_accept, const struct proxy_socket *socket, uint64_t deadline_ms)
{
	struct waiting *waiting = calloc(1, sizeof *waiting);
	if (waiting == NULL)
		return false;
	waiting->proxy_accept = proxy_accept;
	waiting->socket = *socket;
	waiting->deadline_ms = deadline_ms;
	event_assign(&waiting->event, proxy_accept->base, socket->fd, EV_READ | EV_PERSIST, on_readable, waiting);
	if (event_add(&waiting->event, NULL) < 0) {
		free(waiting);
		return false;
	}
	timer_wheel_set(proxy_accept->wheel, &waiting->entry, deadline_ms);
	read_header(waiting); /* proxies send the header at once: it has often arrived */
	return true;
}
