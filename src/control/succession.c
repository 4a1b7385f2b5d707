/* succession.c: both sides of an upgrade, as the daemon sees them. */
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "control/notify.h"
#include "control/pid_file.h"
#include "control/server.h"
#include "control/server_internal.h"
#include "core/log.h"
#include "handoff/upgrade_channel.h"

enum { UPGRADE_DEADLINE_MS = 30 * 1000 }; /* for the new process, until it has taken over */

/* --- signals --- */

bool succession_forward(const struct server *server, int signal)
{
	bool forwarded = server->stopping && server->upgrade != NULL && upgrade_signal(server->upgrade, signal);
	if (forwarded)
		log_notice("%s: forwarded to process %ld", signal == SIGHUP ? "reload" : "upgrade",
			   (long)upgrade_pid(server->upgrade));
	return forwarded;
}

/* --- the parent --- */

/* Lists the endpoints in force for the new process. Returns NULL with errno. */
static struct upgrade_fds *list_endpoints(const struct server *server)
{
	size_t count;
	struct endpoint **endpoints = running_config_list_endpoints(server->running, &count);
	return endpoints != NULL ? upgrade_fds_new(endpoints, count) : NULL;
}

static void free_upgrade_fds(struct server *server)
{
	upgrade_fds_free(server->upgrade_fds);
	server->upgrade_fds = NULL;
}

/* The new process has taken over: stops serving. No notification to the service manager follows from this process. */
static void complete_upgrade(struct server *server)
{
	log_notice("upgraded: process %ld serves", (long)upgrade_pid(server->upgrade));
	if (server->watchdog != NULL)
		watchdog_stop(server->watchdog);
	notify_main_process(upgrade_pid(server->upgrade));
	if (!upgrade_confirm(server->upgrade))
		log_warning("upgrade: cannot confirm to the new process: %s", strerror(errno));
	if (server->reload_pending && !upgrade_signal(server->upgrade, SIGHUP))
		log_warning("upgrade: cannot forward the reload to the new process: %s", strerror(errno));
	upgrade_fds_mark_shared(server->upgrade_fds); /* the others are closed, as by a reload that removes them */
	free_upgrade_fds(server);
	log_notice("draining: %" PRId64 " open connections", atomic_load(&server->gate.taken));
	stop_serving(server, running_config_value(server->running)->daemon.drain_timeout_ms);
}

static void upgrade_failed(struct server *server, const char *reason)
{
	log_error("upgrade failed, this process goes on: %s", reason);
	free_upgrade_fds(server);
	succession_run_pending(server);
}

static void on_upgrade_ended(struct upgrade *upgrade, const char *failure, void *argument)
{
	struct server *server = argument;
	if (failure == NULL) {
		complete_upgrade(server);
		return;
	}
	pid_file_restore(server->pid_file, upgrade_pid(upgrade));
	server->upgrade = NULL;
	upgrade_failed(server, failure);
	upgrade_free(upgrade);
}

static void begin_upgrade(struct server *server)
{
	char error[256];

	if (server->program.path == NULL) {
		snprintf(error, sizeof error, "the path of the program is not known: %s",
			 strerror(server->program_error));
		upgrade_failed(server, error);
		return;
	}
	if (strcmp(server->started->file, "-") == 0) {
		upgrade_failed(server, "standard input cannot be read again");
		return;
	}
	server->upgrade_fds = list_endpoints(server);
	if (server->upgrade_fds == NULL) {
		snprintf(error, sizeof error, "cannot list the endpoints: %s", strerror(errno));
		upgrade_failed(server, error);
		return;
	}
	server->upgrade = upgrade_start(server->base, &server->program, server->upgrade_fds, UPGRADE_DEADLINE_MS,
					on_upgrade_ended, server);
	if (server->upgrade != NULL) {
		log_notice("upgrade: running %s", server->program.path);
		return;
	}
	snprintf(error, sizeof error, "cannot start a process: %s", strerror(errno));
	upgrade_failed(server, error);
}

void succession_begin_pending(struct server *server)
{
	if (!server->upgrade_pending || server->committing || server->upgrade_child != NULL)
		return;
	server->upgrade_pending = false;
	begin_upgrade(server);
}

void succession_run_pending(struct server *server)
{
	if (server->stopping)
		return;
	succession_begin_pending(server);
	if (server->reload_pending && server->upgrade == NULL)
		reload_schedule(server);
}

void server_set_program(struct server *server, char *path, char *const *arguments)
{
	server->program_error = errno;
	server->program = (struct upgrade_program){.path = path, .arguments = arguments};
}

void server_upgrade(struct server *server)
{
	if (succession_forward(server, SIGUSR2))
		return;
	if (server->stopping)
		log_notice("upgrade ignored: this process is stopping");
	else if (server->upgrade != NULL || server->upgrade_pending)
		log_notice("upgrade ignored: an upgrade is in progress");
	else
		server->upgrade_pending = true;
	if (!server->reload_pending) /* the reload was requested first */
		succession_begin_pending(server);
}

/* --- the new process --- */

static bool take_over(void *argument, char *error, size_t size)
{
	struct server *server = argument;
	server->took_over = server_write_pid_file(server, error, size);
	return server->took_over;
}

static void on_cancelled(void *argument)
{
	struct server *server = argument;
	if (!server->stopping)
		stop_begin(server);
}

/* The service manager knows this process, and accepts its notifications from now on. */
static void on_confirmed(void *argument)
{
	struct server *server = argument;
	if (server->announced || server->stopping)
		return;
	server_announce(server);
	server_start_watchdog(server);
}

/* The parent has closed the sockets, or exited. */
static void on_released(void *argument, bool took_over)
{
	struct server *server = argument;
	char error[512];

	upgrade_child_free(server->upgrade_child);
	server->upgrade_child = NULL;
	running_config_parent_released(server->running);
	if (!took_over && !server->stopping) {
		log_warning("upgrade: parent exited before handover; continuing as the daemon");
		if (!server_write_pid_file(server, error, sizeof error))
			log_error("%s", error);
	}
	on_confirmed(server);
	if (server->stop_requested && !server->stopping)
		stop_begin(server);
	else
		succession_run_pending(server);
}

bool succession_find_parent(struct server *server)
{
	static const struct upgrade_child_events events = {
		.take_over = take_over, .cancelled = on_cancelled, .confirmed = on_confirmed, .released = on_released};
	struct diagnostics diagnostics = {0};
	int fd = upgrade_child_find(&diagnostics);

	if (fd < 0 && diagnostics.errors == 0 && getenv(UPGRADE_FDS_VARIABLE) == NULL)
		return true;
	if (fd < 0) {
		if (diagnostics.errors == 0)
			log_error(UPGRADE_FDS_VARIABLE " is set, but not " UPGRADE_VARIABLE);
		return false;
	}
	server->upgrade_child = upgrade_child_new(server->base, fd, &events, server);
	if (server->upgrade_child == NULL)
		log_error("upgrade: cannot watch the parent process: %s", strerror(errno));
	notify_become_watched();
	return server->upgrade_child != NULL;
}
