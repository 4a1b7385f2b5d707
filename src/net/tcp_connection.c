/* tcp_connection.c: a connection from its start to its close: input, output, deadlines. */
#include "net/tcp_internal.h"

#include <errno.h>
#include <linux/sockios.h>
#include <netinet/tcp.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <syslog.h>
#include <time.h>
#include <unistd.h>

#include "core/clock.h"
#include "core/transport.h"
#include "net/admission.h"
#include "thread/worker.h"

/* --- the read event --- */

static void stop_reading(struct connection *connection)
{
	event_del(&connection->event);
	if (connection_has_tls(connection))
		event_del(&tls_connection_of(connection)->pending);
}

/* Schedules a read of data buffered by TLS, after the other ready connections. Returns false when out of memory. */
static bool add_pending(struct connection *connection)
{
	const struct timeval at_once = {0};
	return event_add(&tls_connection_of(connection)->pending, &at_once) == 0;
}

/* The same, if TLS has buffered data. */
static bool read_pending(struct connection *connection)
{
	return !connection->tls_active || !tls_has_pending(connection_tls(connection)) || add_pending(connection);
}

static bool resume_reading(struct connection *connection)
{
	return event_add(&connection->event, NULL) == 0 && read_pending(connection);
}

/* --- closing --- */

struct socket_address connection_peer(const struct connection *connection)
{
	return socket_address_from_ip(&connection->peer_ip, ntohs(connection->peer_port), connection->peer_scope);
}

static void log_closed(const struct connection *connection)
{
	struct socket_address peer = connection_peer(connection);
	const char *subject = connection_has_tls(connection) ? tls_client_subject(connection_tls(connection)) : NULL;
	instance_log(connection->instance, LOG_NOTICE, TRANSPORT_TCP, &peer,
		     "closed: %s, %.3f s, %llu bytes received, %llu sent%s%s", metrics_rows[connection->reason].reason,
		     (double)(clock_ms() - connection->began_ms) / 1000, (unsigned long long)connection->received,
		     (unsigned long long)connection->sent, subject != NULL ? ", certificate " : "",
		     subject != NULL ? subject : "");
}

static void unsent_free(struct connection *connection)
{
	struct unsent *unsent = connection->unsent;
	if (unsent == NULL)
		return;
	event_del(&unsent->event);
	connection->worker->unsent -= unsent->to - unsent->from;
	free(unsent);
	connection->unsent = NULL;
}

/* Closes and frees CONNECTION, and counts REASON. */
static void close_connection(struct connection *connection, enum metric reason)
{
	struct tcp_worker *worker = connection->worker;
	struct instance *instance = connection->instance;
	struct source_entry *source = connection->source;
	int fd = connection_fd(connection);

	connection_set_state(connection, CONNECTION_CLOSED);
	connection->reason = (uint8_t)reason;
	metrics_add(connection_counters(connection), reason, 1);
	if (instance->config->log_connections)
		log_closed(connection);
	unsent_free(connection);
	event_del(&connection->event);
	timer_wheel_remove(&connection->deadline);
	tcp_transport_free(connection);
	close(fd);
	admission_leave(instance, source);
	tcp_leave(worker->tcp, instance);
	instance_release(instance, worker->index);
}

/* Closes with RST: a truncated stream must not look complete, nor its rest stay in the kernel for minutes. */
static void close_rst(struct connection *connection, enum metric reason)
{
	struct linger reset = {.l_onoff = 1};
	setsockopt(connection_fd(connection), SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
	close_connection(connection, reason);
}

static void close_no_memory(struct connection *connection)
{
	close_rst(connection, METRIC_CLOSED_NO_MEMORY);
}

/* Sends close_notify if the socket accepts it, then closes. */
static void close_notify(struct connection *connection, enum metric reason)
{
	if (connection->tls_active && connection->state != CONNECTION_HANDSHAKE)
		(void)tls_shutdown(connection_tls(connection));
	close_connection(connection, reason);
}

/* Returns whether output is incomplete: queued bytes, or a TLS record. */
static bool holds_unsent(const struct connection *connection)
{
	if (connection->tls_active && tls_has_unfinished_write(connection_tls(connection)))
		return true;
	return connection->unsent != NULL && connection->unsent->to > connection->unsent->from;
}

/* Returns whether the client has not acknowledged all output. */
static bool holds_unacknowledged(const struct connection *connection)
{
	int bytes;
	return holds_unsent(connection) || (ioctl(connection_fd(connection), SIOCOUTQ, &bytes) == 0 && bytes > 0);
}

/* Closes a timed-out connection: RST if unacknowledged data is left, else FIN. */
static void close_timed_out(struct connection *connection, enum metric reason)
{
	if (holds_unacknowledged(connection))
		close_rst(connection, reason);
	else
		close_notify(connection, reason);
}

/* Waits for FIN by an event, for TCP_LINGER_MS at most. May close the connection. */
static void await_fin(struct connection *connection)
{
	if (!tcp_watch_level(connection) || !resume_reading(connection)) {
		close_connection(connection, connection->reason);
		return;
	}
	timer_wheel_set(connection->worker->wheel, &connection->deadline, clock_ms() + TCP_LINGER_MS);
}

/* Closes after a failure of the TLS session; lingers if OpenSSL has sent an alert, so that the client can read it. */
static void close_tls_failed(struct connection *connection)
{
	bool alert_sent = errno == EPROTO;
	enum metric reason = tcp_transport_failure(connection);

	unsent_free(connection);
	stop_reading(connection);
	connection->tls_active = false;
	connection->reason = (uint8_t)reason;
	if (!alert_sent || tcp_transport_shutdown(connection) < 0) {
		close_connection(connection, reason);
		return;
	}
	connection_set_state(connection, CONNECTION_LINGERING);
	connection->linger_left = TCP_LINGER_BYTES;
	await_fin(connection);
}

/* Closes after an operation that has failed, by errno. */
static void close_failed(struct connection *connection)
{
	bool reset = errno == ECONNRESET || errno == EPIPE || errno == ENOTCONN;
	if (connection->state == CONNECTION_LINGERING) /* all output was sent before */
		close_connection(connection, connection->reason);
	else if (connection->tls_active && (connection->state == CONNECTION_HANDSHAKE || errno == EPROTO))
		close_tls_failed(connection);
	else
		close_connection(connection, reset ? METRIC_CLOSED_RESET : METRIC_CLOSED_ERROR);
}

/* --- backpressure --- */

static void on_writable(evutil_socket_t fd, short events, void *argument);

/* Queues LENGTH BYTES, maybe none, and waits until the socket is writable. Returns false when out of memory. */
static bool wait_writable(struct connection *connection, const char *bytes, size_t length)
{
	struct unsent *unsent = malloc(sizeof *unsent + length);
	if (unsent == NULL)
		return false;
	unsent->from = 0;
	unsent->to = length;
	if (length > 0)
		memcpy(unsent->bytes, bytes, length);
	event_assign(&unsent->event, worker_base(connection->worker->worker), connection_fd(connection),
		     EV_WRITE | EV_PERSIST, on_writable, connection);
	if (!tcp_watch_level(connection) || event_add(&unsent->event, NULL) < 0) {
		free(unsent);
		return false;
	}
	connection->unsent = unsent;
	connection->worker->unsent += length;
	return true;
}

/* --- lingering close --- */

/* Counts LENGTH discarded bytes. Returns false if they were too many, and the connection is closed. */
static bool count_discarded(struct connection *connection, size_t length)
{
	if (connection->linger_left > length) {
		connection->linger_left -= length;
		return true;
	}
	close_connection(connection, connection->reason);
	return false;
}

static void count_received(struct connection *connection, size_t length)
{
	connection->received += length;
	metrics_add(connection_counters(connection), METRIC_RECEIVED_BYTES, length);
}

/* Receives and discards input of a LINGERING connection. Returns false if the connection was closed. */
static bool discard(struct connection *connection)
{
	ssize_t length = tcp_transport_read(connection, connection->worker->scratch, TCP_SCRATCH_SIZE);
	if (length == 0 || (length < 0 && errno != EAGAIN && errno != EINTR)) {
		close_connection(connection, connection->reason);
		return false;
	}
	if (length < 0)
		return true;
	count_received(connection, (size_t)length);
	return count_discarded(connection, (size_t)length);
}

/* Waits until the socket is writable, to send close_notify. */
static void linger_blocked(struct connection *connection)
{
	connection_set_state(connection, CONNECTION_FLUSHING);
	stop_reading(connection);
	if (!wait_writable(connection, NULL, 0))
		close_no_memory(connection);
}

/* Shuts down the sending side, and closes after the client's FIN: close(2) with unread input sends RST, which destroys
 * output that the client has not read yet. */
static void linger(struct connection *connection, enum metric reason)
{
	if (connection->state == CONNECTION_HANDSHAKE) /* there is no session to shut down */
		connection->tls_active = false;
	if (connection->input_ended && !connection->tls_active) {
		close_connection(connection, reason);
		return;
	}
	connection->reason = (uint8_t)reason;
	if (tcp_transport_shutdown(connection) < 0) {
		if (errno == EAGAIN)
			linger_blocked(connection);
		else if (connection->input_ended) /* all output was sent: a failed close_notify is no loss */
			close_connection(connection, reason);
		else
			close_failed(connection);
		return;
	}
	if (connection->input_ended) {
		close_connection(connection, reason);
		return;
	}
	connection_set_state(connection, CONNECTION_LINGERING);
	connection->linger_left = TCP_LINGER_BYTES;
	if (!tcp_watch_poll_fin(connection))
		await_fin(connection);
}

/* Closes a connection that may be in the middle of an exchange: RST if output is unsent, else a lingering close. */
static void close_graceful(struct connection *connection, enum metric reason)
{
	if (holds_unsent(connection)) {
		close_rst(connection, reason);
		return;
	}
	unsent_free(connection);
	/* also bounds the wait until close_notify is sent */
	timer_wheel_set(connection->worker->wheel, &connection->deadline, clock_ms() + TCP_LINGER_MS);
	linger(connection, reason);
}

/* --- output --- */

/* Sends as much of BYTES as the socket takes; LAST: no output follows. Returns the count, or -1 with errno. */
static ssize_t send_some(struct connection *connection, const char *bytes, size_t length, bool last)
{
	ssize_t sent = tcp_transport_write(connection, bytes, length, last);
	if (sent < 0)
		return errno == EAGAIN || errno == EINTR ? 0 : -1;
	connection->sent += (size_t)sent;
	metrics_add(connection_counters(connection), METRIC_SENT_BYTES, (uint64_t)sent);
	return sent;
}

static bool speaks_first(const struct connection *connection)
{
	return connection->instance->service->tcp_output != NULL;
}

static struct service_output next_output(struct connection *connection)
{
	struct tcp_worker *worker = connection->worker;
	struct service_context context = {
		.settings = connection->instance->settings,
		.random = worker_random(worker->worker),
		.memo = instance_memo(connection->instance, worker->index),
	};
	clock_gettime(CLOCK_REALTIME, &context.now);
	return connection->instance->service->tcp_output(&context, connection->sent, worker->scratch, TCP_SCRATCH_SIZE);
}

/* Sends one chunk of the service's output: one only, so that other connections get their turn. Returns false if the
 * connection is lingering or closed. */
static bool write_output(struct connection *connection)
{
	const char *scratch = connection->worker->scratch;
	struct service_output output = next_output(connection);
	bool done = output.done || output.length == 0;
	ssize_t sent = send_some(connection, output.bytes, output.length, done);
	if (sent < 0) {
		close_failed(connection);
		return false;
	}
	if (sent > 0)
		connection->active_ms = clock_ms();
	const char *rest = output.bytes + sent;
	size_t left = output.length - (size_t)sent;
	if (left == 0 && done) {
		unsent_free(connection);
		linger(connection, METRIC_CLOSED_DONE);
		return false;
	}
	if (rest < scratch || rest >= scratch + TCP_SCRATCH_SIZE) {
		left = 0; /* static memory: the next call returns the rest again */
	} else if (done) {
		connection_set_state(connection, CONNECTION_FLUSHING);
		connection->reason = METRIC_CLOSED_DONE;
	}
	if (left == 0 && connection->unsent != NULL)
		return true;
	unsent_free(connection);
	if (wait_writable(connection, rest, left))
		return true;
	close_no_memory(connection);
	return false;
}

static void continue_handshake(struct connection *connection);

/* Continues after all queued bytes were sent. May close the connection. Reading resumes before the block with the write
 * event is freed: libevent needs no memory to add the read event then. */
static void on_flushed(struct connection *connection)
{
	if (connection->state == CONNECTION_HANDSHAKE) {
		(void)resume_reading(connection);
		unsent_free(connection);
		continue_handshake(connection);
		return;
	}
	if (connection->read_blocked) {
		connection->read_blocked = false;
		if (event_add(&connection->event, NULL) < 0 || !add_pending(connection)) {
			close_no_memory(connection);
			return;
		}
	}
	if (connection->state == CONNECTION_FLUSHING) {
		unsent_free(connection);
		linger(connection, connection->reason);
	} else if (connection->state == CONNECTION_OPEN && speaks_first(connection)) {
		write_output(connection);
	} else {
		bool resumed = resume_reading(connection);
		unsent_free(connection);
		if (!resumed)
			close_no_memory(connection);
	}
}

static void on_writable(evutil_socket_t fd, short events, void *argument)
{
	struct connection *connection = argument;
	struct unsent *unsent = connection->unsent;

	(void)fd, (void)events;
	if (unsent->to > unsent->from) {
		ssize_t sent = send_some(connection, unsent->bytes + unsent->from, unsent->to - unsent->from,
					 connection->state == CONNECTION_FLUSHING);
		if (sent < 0) {
			close_failed(connection);
			return;
		}
		if (sent > 0)
			connection->active_ms = clock_ms();
		unsent->from += (size_t)sent;
		connection->worker->unsent -= (size_t)sent;
		if (unsent->from < unsent->to)
			return;
	}
	on_flushed(connection);
}

/* --- input --- */

/* Passes LENGTH bytes of input to the service and sends its reply. May close the connection. */
static void process_input(struct connection *connection, char *bytes, size_t length)
{
	const struct service *service = connection->instance->service;

	if (service->tcp_input == NULL)
		return;
	length = service->tcp_input(connection->instance->settings, bytes, length);
	if (length == 0)
		return;

	ssize_t sent = send_some(connection, bytes, length, false);
	if (sent < 0) {
		close_failed(connection);
		return;
	}
	if ((size_t)sent == length)
		return;
	/* backpressure: stops reading until the client reads, which bounds the memory of a connection */
	stop_reading(connection);
	if (!wait_writable(connection, bytes + sent, length - (size_t)sent))
		close_no_memory(connection);
}

/* Handles FIN or close_notify. May close the connection. */
static void on_input_ended(struct connection *connection)
{
	bool truncated = connection->tls_active && tls_was_truncated(connection_tls(connection));
	connection->input_ended = true;
	if (connection->state == CONNECTION_LINGERING)
		close_connection(connection, connection->reason);
	else if (connection->unsent == NULL)
		linger(connection, truncated ? METRIC_CLOSED_TLS_TRUNCATED : METRIC_CLOSED_CLIENT);
	else
		stop_reading(connection); /* half-closed: the unsent rest is still sent */
}

/* Handles a read that returned no data. May close the connection. */
static void on_read_failed(struct connection *connection)
{
	if (errno != EAGAIN && errno != EINTR) {
		close_failed(connection);
		return;
	}
	if (!connection->tls_active || !tls_wants_write(connection_tls(connection)))
		return;
	connection->read_blocked = true;
	stop_reading(connection);
	if (connection->unsent == NULL && !wait_writable(connection, NULL, 0))
		close_no_memory(connection);
}

void connection_receive(struct connection *connection, short events)
{
	struct tcp_worker *worker = connection->worker;
	size_t size = worker->unsent > TCP_UNSENT_HIGH ? TCP_READ_SMALL : TCP_SCRATCH_SIZE;

	ssize_t length = tcp_transport_read(connection, worker->scratch, size);
	if (length == 0) {
		on_input_ended(connection);
		return;
	}
	if (length < 0) {
		on_read_failed(connection);
		return;
	}
	bool lingers = connection->state == CONNECTION_LINGERING;
	if (!lingers)
		connection->active_ms = clock_ms();
	if (!tcp_watch_after_read(connection, events, (size_t)length == size) || !read_pending(connection)) {
		close_no_memory(connection);
		return;
	}
	count_received(connection, (size_t)length);
	if (lingers)
		count_discarded(connection, (size_t)length);
	else
		process_input(connection, worker->scratch, (size_t)length);
}

void connection_on_readable(evutil_socket_t fd, short events, void *argument)
{
	struct connection *connection = argument;

	(void)fd;
	if (connection->state == CONNECTION_HANDSHAKE)
		continue_handshake(connection);
	else
		connection_receive(connection, events);
}

/* --- TLS handshake --- */

static void on_handshake_done(struct connection *connection)
{
	const int yes = 1;
	connection_set_state(connection, CONNECTION_OPEN);
	connection->active_ms = clock_ms();
	timer_wheel_set(connection->worker->wheel, &connection->deadline, connection_deadline(connection));
	/* the client's first data waits for the ACK of its last flight, which no output of ours can carry */
	setsockopt(connection_fd(connection), IPPROTO_TCP, TCP_QUICKACK, &yes, sizeof yes);
	if (!read_pending(connection))
		close_no_memory(connection);
	else if (speaks_first(connection))
		write_output(connection);
}

/* Continues the handshake. May close the connection. */
static void continue_handshake(struct connection *connection)
{
	if (tls_handshake(connection_tls(connection)) == 0) {
		on_handshake_done(connection);
		return;
	}
	if (errno != EAGAIN) {
		close_failed(connection);
		return;
	}
	if (!tls_wants_write(connection_tls(connection)))
		return;
	stop_reading(connection);
	if (!wait_writable(connection, NULL, 0))
		close_no_memory(connection);
}

/* --- start --- */

bool connection_start(struct tcp_worker *worker, struct instance *instance, int fd, const struct socket_address *peer,
		      struct source_entry *source, uint64_t accepted_ms)
{
	bool has_tls = instance->config->tls_context != NULL;
	struct connection *connection = tcp_transport_alloc(worker, instance, fd);
	if (connection == NULL)
		return false;
	metrics_add(&instance->tcp[worker->index], METRIC_ACCEPTED, 1);
	instance_hold(instance, worker->index);
	*connection = (struct connection){
		.worker = worker,
		.instance = instance,
		.tls_active = has_tls,
		.state = has_tls ? CONNECTION_HANDSHAKE : CONNECTION_OPEN,
		.source = source,
		.peer_ip = socket_address_ip(peer),
		.peer_port = htons(socket_address_port(peer)),
		.peer_scope = peer->any.sa_family == AF_INET6 ? peer->v6.sin6_scope_id : 0,
		.began_ms = accepted_ms,
		.active_ms = clock_ms(), /* a PROXY header came after the accept */
	};
	tcp_watch_init(connection, fd);
	if (speaks_first(connection) && connection->state == CONNECTION_OPEN && !write_output(connection))
		return true;
	timer_wheel_set(worker->wheel, &connection->deadline, connection_deadline(connection));
	if (event_add(&connection->event, NULL) < 0)
		close_no_memory(connection);
	return true;
}

/* --- deadlines --- */

static struct connection *connection_of(struct timer_wheel_entry *entry)
{
	return (struct connection *)(void *)((char *)entry - offsetof(struct connection, deadline));
}

uint64_t connection_deadline(const struct connection *connection)
{
	const struct config_service *config = connection->instance->config;
	uint64_t deadline = TIMER_WHEEL_NEVER;
	if (connection->state == CONNECTION_HANDSHAKE)
		return connection->began_ms + (uint64_t)config->handshake_timeout_ms;
	if (config->idle_timeout_ms > 0)
		deadline = connection->active_ms + (uint64_t)config->idle_timeout_ms;
	if (config->lifetime_ms > 0 && connection->began_ms + (uint64_t)config->lifetime_ms < deadline)
		deadline = connection->began_ms + (uint64_t)config->lifetime_ms;
	/* a connection accepted around the end of its removed service is missed by connection_close_if_removed */
	uint64_t ends_at_ms = atomic_load(&connection->instance->state->ends_at_ms);
	return ends_at_ms != 0 && ends_at_ms < deadline ? ends_at_ms : deadline;
}

bool connection_instance_expired(const struct instance *instance)
{
	uint64_t ends_at_ms = atomic_load(&instance->state->ends_at_ms);
	return ends_at_ms != 0 && clock_ms() >= ends_at_ms;
}

/* Returns whether close_graceful has set the last deadline, and close_notify is still unsent. */
static bool is_closing_gracefully(const struct connection *connection)
{
	return connection->state == CONNECTION_FLUSHING &&
	       (connection->reason == METRIC_CLOSED_LIFETIME || connection->reason == METRIC_CLOSED_STOP);
}

static void on_linger_timeout(struct connection *connection)
{
	if (tcp_watch_is_polling(connection)) {
		if (discard(connection))
			await_fin(connection);
		return;
	}
	if (connection->reason == METRIC_CLOSED_DONE)
		close_connection(connection, METRIC_CLOSED_DONE); /* a reply on its way may still arrive */
	else
		close_timed_out(connection, connection->reason);
}

/* Closes an OPEN or FLUSHING connection at its DEADLINE. Returns as connection_on_deadline. */
static uint64_t on_timeout(struct connection *connection, uint64_t now_ms, uint64_t deadline)
{
	uint64_t lifetime_ms = (uint64_t)connection->instance->config->lifetime_ms;

	if (connection_instance_expired(connection->instance)) {
		close_graceful(connection, METRIC_CLOSED_STOP);
	} else if (lifetime_ms == 0 || now_ms - connection->began_ms < lifetime_ms) {
		if (tcp_watch_is_unchecked(connection)) /* there may be input left */
			return tcp_watch_recheck(connection, now_ms, deadline);
		close_timed_out(connection, METRIC_CLOSED_IDLE_TIMEOUT);
	} else {
		close_graceful(connection, METRIC_CLOSED_LIFETIME);
	}
	return 0;
}

uint64_t connection_on_deadline(struct timer_wheel_entry *entry, uint64_t now_ms)
{
	struct connection *connection = connection_of(entry);

	if (connection->state == CONNECTION_LINGERING) {
		on_linger_timeout(connection);
		return 0;
	}
	if (is_closing_gracefully(connection)) {
		close_timed_out(connection, connection->reason);
		return 0;
	}
	uint64_t deadline = connection_deadline(connection);
	if (now_ms < deadline)
		return tcp_watch_recheck(connection, now_ms, deadline);
	if (connection->state != CONNECTION_HANDSHAKE)
		return on_timeout(connection, now_ms, deadline);
	close_connection(connection, METRIC_CLOSED_HANDSHAKE_TIMEOUT);
	return 0;
}

void connection_close_now(struct timer_wheel_entry *entry)
{
	struct connection *connection = connection_of(entry);
	enum metric reason = connection->state == CONNECTION_LINGERING ? connection->reason : METRIC_CLOSED_STOP;

	if (holds_unsent(connection)) {
		close_rst(connection, reason);
		return;
	}
	if (connection->state == CONNECTION_HANDSHAKE)
		connection->tls_active = false;
	for (int i = 0; i < 2; i++) /* unread input would turn FIN into RST */
		if (tcp_transport_read(connection, connection->worker->scratch, TCP_SCRATCH_SIZE) <= 0)
			break;
	close_notify(connection, reason);
}

void connection_close_if_removed(struct timer_wheel_entry *entry)
{
	struct connection *connection = connection_of(entry);
	if (connection_instance_expired(connection->instance) && connection->state != CONNECTION_LINGERING)
		close_graceful(connection, METRIC_CLOSED_STOP);
}
