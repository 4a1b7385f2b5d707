/* proxied.c: sockets of proxies, until their PROXY header has told who the client is. */
#include "proxied.h"

#include <errno.h>
#include <event2/event.h>
#include <event2/event_struct.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "wheel.h"

struct proxied {
	struct event_base *base;
	struct wheel *wheel;
	proxied_callback *tell;
	void *context;
	bool (*stop)(const struct proxied_socket *socket); /* while proxied_stop runs; NULL: all */
	char bytes[PROXY_HEADER_MAX];                      /* used by one callback at a time */
};

struct waiting {
	struct event event; /* the socket is readable */
	struct wheel_entry entry;
	uint64_t deadline_ms;
	struct proxied *proxied;
	struct proxied_socket socket;
	char *bytes; /* of the header that have come so far; NULL: none */
	size_t length;
};

static void waiting_free(struct waiting *waiting)
{
	event_del(&waiting->event);
	wheel_remove(&waiting->entry);
	free(waiting->bytes);
	free(waiting);
}

static void finish(struct waiting *waiting, enum proxied_result result, const struct proxy_header *header)
{
	struct proxied *proxied = waiting->proxied;
	struct proxied_socket socket = waiting->socket;
	int error = errno;

	waiting_free(waiting);
	errno = error;
	proxied->tell(proxied->context, &socket, result, header);
}

/* Takes from the socket what was peeked at: COUNT bytes that are there. */
static bool consume(const struct waiting *waiting, char *bytes, size_t count)
{
	ssize_t taken = recv(waiting->socket.fd, bytes, count, 0);
	if (taken >= 0 && (size_t)taken != count)
		errno = EIO;
	return taken >= 0 && (size_t)taken == count;
}

/* Keeps LENGTH BYTES, all of the header that has come. */
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

/* Looks at what has come, and takes only what belongs to the header: the rest is for TLS or for the service. */
static void look(struct waiting *waiting)
{
	char *bytes = waiting->proxied->bytes;
	struct proxy_header header = {.length = 0};

	if (waiting->length > 0)
		memcpy(bytes, waiting->bytes, waiting->length);
	ssize_t seen = recv(waiting->socket.fd, bytes + waiting->length, PROXY_HEADER_MAX - waiting->length, MSG_PEEK);
	if (seen < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (seen <= 0) {
		finish(waiting, seen == 0 ? PROXIED_ENDED : PROXIED_FAILED, &header);
		return;
	}
	size_t length = waiting->length + (size_t)seen;
	enum proxy_result result = proxy_parse(bytes, length, &header);
	if (result == PROXY_BAD) {
		finish(waiting, PROXIED_BAD, &header);
		return;
	}
	size_t own = result == PROXY_DONE ? header.length : length;
	if (!consume(waiting, bytes + waiting->length, own - waiting->length))
		finish(waiting, PROXIED_FAILED, &header);
	else if (result == PROXY_DONE)
		finish(waiting, PROXIED_DONE, &header);
	else if (!keep(waiting, bytes, length))
		finish(waiting, PROXIED_FAILED, &header);
}

static void on_readable(evutil_socket_t fd, short what, void *argument)
{
	(void)fd, (void)what;
	look(argument);
}

static struct waiting *waiting_of(struct wheel_entry *entry)
{
	return (struct waiting *)(void *)((char *)entry - offsetof(struct waiting, entry));
}

static uint64_t on_due(struct wheel_entry *entry, uint64_t now_ms)
{
	const struct proxy_header none = {.length = 0};
	struct waiting *waiting = waiting_of(entry);
	if (now_ms < waiting->deadline_ms)
		return waiting->deadline_ms;
	finish(waiting, PROXIED_LATE, &none);
	return 0;
}

static void stop(struct wheel_entry *entry)
{
	const struct proxy_header none = {.length = 0};
	struct waiting *waiting = waiting_of(entry);
	bool (*stops)(const struct proxied_socket *) = waiting->proxied->stop;
	if (stops == NULL || stops(&waiting->socket))
		finish(waiting, PROXIED_STOPPED, &none);
}

struct proxied *proxied_new(struct event_base *base, proxied_callback *tell, void *context)
{
	struct proxied *proxied = calloc(1, sizeof *proxied);
	if (proxied == NULL)
		return NULL;
	proxied->base = base;
	proxied->tell = tell;
	proxied->context = context;
	proxied->wheel = wheel_new(base, on_due);
	if (proxied->wheel == NULL) {
		free(proxied);
		return NULL;
	}
	return proxied;
}

void proxied_stop(struct proxied *proxied, bool (*stops)(const struct proxied_socket *socket))
{
	proxied->stop = stops;
	wheel_each(proxied->wheel, stop);
}

void proxied_free(struct proxied *proxied)
{
	if (proxied == NULL)
		return;
	wheel_free(proxied->wheel);
	free(proxied);
}

bool proxied_wait(struct proxied *proxied, const struct proxied_socket *socket, uint64_t deadline_ms)
{
	struct waiting *waiting = calloc(1, sizeof *waiting);
	if (waiting == NULL)
		return false;
	waiting->proxied = proxied;
	waiting->socket = *socket;
	waiting->deadline_ms = deadline_ms;
	event_assign(&waiting->event, proxied->base, socket->fd, EV_READ | EV_PERSIST, on_readable, waiting);
	if (event_add(&waiting->event, NULL) < 0) {
		free(waiting);
		return false;
	}
	wheel_set(proxied->wheel, &waiting->entry, deadline_ms);
	look(waiting); /* proxies send it at once: it is often there by now */
	return true;
}
