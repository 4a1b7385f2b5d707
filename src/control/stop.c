/* stop.c: stops gracefully, by a signal or after an upgrade. */
#include <inttypes.h>

#include "control/notify.h"
#include "control/server.h"
#include "control/server_internal.h"
#include "core/clock.h"
#include "core/log.h"

enum {
	STOP_GRACE_MS = 1000, /* for workers that do not respond */
	STOP_SPARE_MS = 5000, /* further time that the service manager is asked for */
};

static void finish_if_done(struct server *server)
{
	if (server->stopping && running_config_is_closed(server->running) && atomic_load(&server->gate.taken) == 0)
		event_base_loopbreak(server->base);
}

void stop_on_closed(void *argument)
{
	struct server *server = argument;
	if (server->stopping && server->upgrade != NULL && running_config_is_closed(server->running))
		upgrade_release(server->upgrade); /* the sockets belong to the new process alone */
	finish_if_done(server);
}

void stop_on_idle(void *argument)
{
	finish_if_done(argument);
}

/* Closes the connections at the first timeout; at the second one stops waiting for workers that do not respond. */
void stop_on_timeout(evutil_socket_t fd, short what, void *argument)
{
	struct server *server = argument;
	struct timeval grace = clock_timeval(STOP_GRACE_MS);

	(void)fd, (void)what;
	if (server->closing) {
		event_base_loopbreak(server->base);
		return;
	}
	server->closing = true;
	running_config_stop_now(server->running);
	log_notice("%s: ending %" PRId64 " open connections",
		   server->upgrade != NULL && !server->stop_requested ? "drain_timeout" : "stop_timeout",
		   atomic_load(&server->gate.taken));
	tcp_end_all(server->tcp);
	evtimer_add(server->stop_timer, &grace);
}

void stop_serving(struct server *server, int64_t timeout_ms)
{
	struct timeval timeout = clock_timeval(timeout_ms);
	server->stopping = true;
	evtimer_add(server->stop_timer, &timeout);
	report_on_timer(-1, EV_TIMEOUT, server);
	running_config_stop(server->running);
	tcp_drain(server->tcp, server->tasks, &server->idle);
	finish_if_done(server);
}

static int64_t stop_timeout_ms(const struct server *server)
{
	return running_config_value(server->running)->daemon.stop_timeout_ms;
}

void stop_begin(struct server *server)
{
	upgrade_free(server->upgrade); /* a new process that has not taken over stops, too */
	server->upgrade = NULL;
	log_notice("stopping: %" PRId64 " open connections", atomic_load(&server->gate.taken));
	if (server->announced)
		notify_stopping("draining", stop_timeout_ms(server) + STOP_GRACE_MS + STOP_SPARE_MS);
	stop_serving(server, stop_timeout_ms(server));
}

/* Shortens the drain after an upgrade: the new process is the daemon. */
static void shorten_stop(struct server *server)
{
	struct timeval timeout = clock_timeval(stop_timeout_ms(server));
	log_notice("stopping: %" PRId64 " open connections", atomic_load(&server->gate.taken));
	if (!server->closing &&
	    stop_timeout_ms(server) < running_config_value(server->running)->daemon.drain_timeout_ms)
		evtimer_add(server->stop_timer, &timeout);
}

void server_stop(struct server *server)
{
	if (server->stop_requested) {
		log_notice("stopping at once");
		event_base_loopbreak(server->base);
		return;
	}
	server->stop_requested = true;
	if (server->stopping)
		shorten_stop(server);
	else if (server->upgrade_child == NULL || !server->took_over)
		stop_begin(server);
	else
		log_notice("stop deferred until the parent has released the sockets");
}
