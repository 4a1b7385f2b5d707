/* tcp_watch.c: edge-triggered reading, and polling for FIN.
 *
 * Edge-triggered reading (EPOLLET) saves the kernel a check of the socket in each epoll_wait: 2.7 % of the server's
 * CPU time of a 64-byte message. Polling for FIN after a one-shot reply saves an event, two system calls and a
 * wake-up: 11 % of connect-daytime-close. See doc/design/edge-triggered.md and doc/design/lingering-close.md. */
#include "net/tcp_internal.h"

#include "thread/worker.h"

/* --- edge-triggered reading --- */

/* Only plain connections of services that reply are edge-triggered: the kernel reports a reset behind data as data
 * alone, and only sending the reply detects it. TLS and services that never reply (discard) are level-triggered. */
static short initial_flags(const struct connection *connection)
{
	const struct service *service = connection->instance->service;
	bool replies = service->tcp_input != NULL || service->tcp_output != NULL;
	return replies && !connection->tls_active ? EV_ET | EV_CLOSED : 0;
}

static void assign(struct connection *connection, int fd, short flags)
{
	event_assign(&connection->event, worker_base(connection->worker->worker), fd,
		     (short)(EV_READ | EV_PERSIST | flags), connection_on_readable, connection);
}

void tcp_watch_init(struct connection *connection, int fd)
{
	assign(connection, fd, initial_flags(connection));
}

bool tcp_watch_level(struct connection *connection)
{
	if (!tcp_watch_is_edge(connection))
		return true;
	bool added = event_pending(&connection->event, EV_READ, NULL);
	event_del(&connection->event);
	assign(connection, connection_fd(connection), 0);
	return !added || event_add(&connection->event, NULL) == 0;
}

static uint64_t recheck_time(const struct connection *connection)
{
	uint64_t recheck_ms = connection->active_ms + TCP_RECHECK_MS, deadline = connection_deadline(connection);
	return recheck_ms < deadline ? recheck_ms : deadline;
}

/* No edge reports input that a read has left. A full buffer falls back to level-triggered; after FIN that came with
 * data another read is scheduled, behind the other ready connections. */
bool tcp_watch_expect_rest(struct connection *connection, short events, bool full)
{
	if (full || (events & EV_TIMEOUT))
		return tcp_watch_level(connection);
	if (events & EV_CLOSED) {
		event_active(&connection->event, EV_READ | EV_CLOSED, 0);
		return true;
	}
	if (connection->recheck_pending)
		return true;
	connection->recheck_pending = true;
	timer_wheel_set(connection->worker->wheel, &connection->deadline, recheck_time(connection));
	return true;
}

/* A read ends at the mark of urgent data, short of the data behind it, and no event follows. So a pause of the client
 * is followed by one more read. */
uint64_t tcp_watch_recheck(struct connection *connection, uint64_t now_ms, uint64_t deadline)
{
	if (!connection->recheck_pending)
		return deadline;
	if (now_ms < recheck_time(connection))
		return recheck_time(connection);
	connection->recheck_pending = false;
	if (deadline <= now_ms)
		deadline = now_ms + TIMER_WHEEL_TICK_MS;
	if (!tcp_watch_is_edge(connection) || !event_pending(&connection->event, EV_READ, NULL))
		return deadline;
	timer_wheel_set(connection->worker->wheel, &connection->deadline, deadline);
	connection_receive(connection, EV_TIMEOUT);
	return 0;
}

/* --- polling for FIN --- */

/* Returns whether enough slots are free to keep those of CONNECTION a few ms longer. */
static bool has_spare_slots(const struct connection *connection)
{
	const struct instance *instance = connection->instance;
	return limit_gate_left(instance->gate) >= TCP_SPARE_SLOTS_MIN &&
	       limit_gate_left(instance->daemon_gate) >= TCP_SPARE_SLOTS_MIN &&
	       (connection->source == NULL ||
		instance->source_maximum - source_limit_taken(connection->source) >= TCP_SPARE_SLOTS_MIN);
}

/* Only a new connection polls, as it has no event yet. The flag EV_ET marks it: other LINGERING connections are
 * level-triggered. With log_connections the poll would lengthen the logged duration. */
bool tcp_watch_poll_fin(struct connection *connection)
{
	bool is_new = tcp_watch_is_edge(connection) && !event_pending(&connection->event, EV_READ, NULL);
	return is_new && !connection->instance->config->log_connections && has_spare_slots(connection) &&
	       timer_wheel_set_soon(connection->worker->wheel, &connection->deadline);
}
