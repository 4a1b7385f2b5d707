/* server.c: creates, starts and frees the daemon. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "control/notify.h"
#include "control/pid_file.h"
#include "control/server.h"
#include "control/server_internal.h"
#include "core/array.h"
#include "core/cpu_count.h"
#include "core/log.h"
#include "handoff/listen_fds.h"

enum {
	REPORT_S = 60,
	WORKERS_AUTO_MAX = 8,
};

/* --- identity --- */

static bool is_configured(const struct config *config, const char *key)
{
	const struct option *option = option_find(config_daemon_options, config_daemon_option_count, key);
	return config->daemon.origins[option - config_daemon_options].line != 0;
}

static bool find_identity(struct server *server)
{
	const struct config_daemon *daemon = &server->started->daemon;
	char error[128];

	server->identity.uid = geteuid();
	server->drops_root = geteuid() == 0;
	if (!server->drops_root ||
	    sandbox_find_identity(daemon->user, daemon->group, &server->identity, error, sizeof error))
		return true;
	if (!is_configured(server->started, "user") && !is_configured(server->started, "group") &&
	    sandbox_find_identity("nobody", NULL, &server->identity, error, sizeof error)) {
		log_warning("there is no user %s: serving as nobody (see user in smallservd.conf(5))", daemon->user);
		return true;
	}
	log_error("%s", error);
	return false;
}

static int64_t raise_descriptor_limit(void)
{
	struct rlimit limit;
	if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
		return 1024;
	if (limit.rlim_cur < limit.rlim_max) {
		limit.rlim_cur = limit.rlim_max;
		if (setrlimit(RLIMIT_NOFILE, &limit) < 0)
			getrlimit(RLIMIT_NOFILE, &limit);
	}
	return limit.rlim_cur == RLIM_INFINITY ? INT32_MAX : (int64_t)limit.rlim_cur;
}

/* --- root --- */

bool server_write_pid_file(struct server *server, char *error, size_t size)
{
	const char *path = server->started->daemon.pid_file;
	if (path == NULL)
		return true;
	int result = pid_file_write(path, server->drops_root ? server->identity.uid : (uid_t)-1);
	if (result == 0)
		server->pid_file = path;
	else
		snprintf(error, size, "pid_file: cannot write %s: %s", path, strerror(-result));
	return result == 0;
}

/* Writes the pid file, unless the parent of an upgrade has to say when. */
static bool start_pid_file(struct server *server)
{
	char error[512];
	if (server->upgrade_child != NULL || server_write_pid_file(server, error, sizeof error))
		return true;
	log_error("%s", error);
	return false;
}

static bool give_up_root(struct server *server)
{
	char error[128];
	bool became = sandbox_become(&server->identity, error, sizeof error);
	if (!became)
		log_error("%s", error);
	return became;
}

static bool confine(const struct server *server)
{
	const struct config_daemon *daemon = &server->started->daemon;
	char error[128];
	if (daemon->sandbox == SANDBOX_OFF ||
	    sandbox_confine(daemon->sandbox == SANDBOX_ON, server->upgrade_child != NULL, error, sizeof error))
		return true;
	log_error("sandbox = on: %s", error);
	return false;
}

/* --- threads --- */

/* Starts the log's thread, which inherits the identity and the seccomp filter. */
static bool start_log(void)
{
	int error = log_start();
	if (error != 0)
		log_error("cannot start the thread of the log: %s", strerror(-error));
	return error == 0;
}

static bool create_workers(struct server *server)
{
	server->workers = calloc(server->worker_count, sizeof(struct worker *));
	if (server->workers == NULL)
		return false;
	for (unsigned i = 0; i < server->worker_count; i++) {
		server->workers[i] = worker_new(i);
		if (server->workers[i] == NULL)
			return false;
	}
	server->tcp = tcp_new(server->workers, server->worker_count, &server->gate);
	server->udp = udp_new(server->workers, server->worker_count);
	return server->tcp != NULL && server->udp != NULL;
}

static bool start_workers(struct server *server)
{
	for (unsigned i = 0; i < server->worker_count; i++) {
		int error = worker_start(server->workers[i]);
		if (error != 0) {
			log_error("cannot start worker %u: %s", i, strerror(error));
			return false;
		}
	}
	return true;
}

bool server_start_watchdog(struct server *server)
{
	uint64_t interval_us = notify_watchdog_interval_us();
	if (interval_us == 0)
		return true;
	server->watchdog =
		watchdog_new(server->base, server->tasks, server->workers, server->worker_count, interval_us);
	if (server->watchdog == NULL)
		log_error("cannot watch the workers: out of memory");
	return server->watchdog != NULL;
}

static bool create_running_config(struct server *server)
{
	limit_gate_init(&server->gate, 0); /* apply_commit sets the limit */
	if (!create_workers(server))
		return false;
	const struct running_env env = {
		.base = server->base,
		.tasks = server->tasks,
		.workers = server->workers,
		.worker_count = server->worker_count,
		.tcp = server->tcp,
		.udp = server->udp,
		.gate = &server->gate,
		.owner = server->drops_root ? server->identity.uid : (uid_t)-1,
		.descriptors = raise_descriptor_limit(),
		.on_closed = stop_on_closed,
		.argument = server,
	};
	server->running = running_config_new(&env);
	return server->running != NULL;
}

/* --- creation --- */

static bool create_loop(struct server *server)
{
	server->idle = (struct task){.run = stop_on_idle, .argument = server};
	server->committed = (struct task){.run = reload_on_committed, .argument = server};
	server->base = event_base_new();
	if (server->base == NULL)
		return false;
	server->tasks = task_queue_new(server->base);
	server->reload_event = evtimer_new(server->base, reload_on_timer, server);
	server->stop_timer = evtimer_new(server->base, stop_on_timeout, server);
	server->report_timer = event_new(server->base, -1, EV_PERSIST, report_on_timer, server);
	if (server->tasks == NULL || server->reload_event == NULL || server->stop_timer == NULL ||
	    server->report_timer == NULL)
		return false;
	return true;
}

struct server *server_new(struct config *config)
{
	struct server *server = calloc(1, sizeof *server);
	if (server != NULL) {
		server->started = config_ref(config);
		if (create_loop(server))
			return server;
	}
	log_error("cannot create the event loop: %s", strerror(errno));
	server_free(server);
	return NULL;
}

/* --- start --- */

static void report_ready(struct server *server)
{
	char summary[SUMMARY_SIZE];
	server_summarise(server, summary);
	log_notice("ready: %s, %u workers", summary, server->worker_count);
	if (server->upgrade_child != NULL)
		upgrade_child_send_ready(server->upgrade_child);
	else
		server_announce(server);
}

static unsigned automatic_workers(void)
{
	unsigned processors = cpu_count();
	return processors < WORKERS_AUTO_MAX ? processors : WORKERS_AUTO_MAX;
}

/* Prepares with the sockets of LISTEN_FDS, all of which have to match an endpoint. */
static struct transaction *prepare_listen_fds(struct server *server, struct endpoint_pool *pool,
					      struct diagnostics *diagnostics)
{
	struct transaction *transaction = NULL;
	if (listen_fds_take(pool, diagnostics)) {
		transaction = apply_prepare(server->running, server->started, pool, diagnostics);
		listen_fds_check_unused(pool, diagnostics);
	}
	if (diagnostics->errors == 0)
		return transaction;
	apply_rollback(transaction);
	return NULL;
}

/* Prepares with the endpoints of the parent of an upgrade, which keeps those that are not configured. */
static struct transaction *prepare_upgrade(struct server *server, struct endpoint_pool *pool,
					   struct diagnostics *diagnostics)
{
	struct transaction *transaction = NULL;
	int writing = upgrade_fds_find(diagnostics);

	if (writing < 0 && diagnostics->errors == 0)
		diagnostics_log(diagnostics, NULL, UPGRADE_FDS_VARIABLE " is missing");
	if (writing >= 0 && upgrade_fds_read(writing, pool, diagnostics))
		transaction = apply_prepare(server->running, server->started, pool, diagnostics);
	if (transaction != NULL && !upgrade_fds_mark_unused(writing, pool)) {
		diagnostics_log(diagnostics, NULL, "upgrade: cannot leave endpoints to the parent process: %s",
				strerror(errno));
		apply_rollback(transaction);
		transaction = NULL;
	}
	if (writing >= 0)
		close(writing);
	return transaction;
}

static struct transaction *prepare_start(struct server *server)
{
	struct diagnostics diagnostics = {0};
	struct transaction *transaction = NULL;
	struct endpoint_pool *pool = endpoint_pool_new();

	if (pool == NULL)
		log_error("out of memory");
	else if (server->upgrade_child != NULL)
		transaction = prepare_upgrade(server, pool, &diagnostics);
	else
		transaction = prepare_listen_fds(server, pool, &diagnostics);
	endpoint_pool_free(pool, true);
	return transaction;
}

static bool listen_all(struct transaction *transaction)
{
	struct diagnostics diagnostics = {0};
	return apply_listen(transaction, &diagnostics);
}

bool server_start(struct server *server)
{
	const struct timeval minute = {.tv_sec = REPORT_S};
	int64_t wanted = server->started->daemon.workers;

	server->worker_count = wanted > 0 ? (unsigned)wanted : automatic_workers();
	if (!succession_find_parent(server) || !find_identity(server))
		return false;
	if (!create_running_config(server)) {
		log_error("cannot prepare %u workers: %s", server->worker_count, strerror(errno));
		return false;
	}
	struct transaction *transaction = prepare_start(server);
	if (transaction == NULL)
		return false;
	if (!start_pid_file(server) || !give_up_root(server) || !confine(server) || !start_log() ||
	    !start_workers(server) || !listen_all(transaction) ||
	    !(server->upgrade_child != NULL || server_start_watchdog(server)) ||
	    event_add(server->report_timer, &minute) < 0) {
		apply_rollback(transaction);
		return false;
	}
	apply_commit(transaction, NULL);
	report_ready(server);
	return true;
}

struct event_base *server_base(const struct server *server)
{
	return server->base;
}

bool server_run(struct server *server)
{
	if (event_base_dispatch(server->base) >= 0)
		return true;
	log_error("the event loop failed: %s", strerror(errno));
	return false;
}

/* --- end, in the reverse order --- */

static void free_workers(struct server *server)
{
	for (unsigned i = 0; server->workers != NULL && i < server->worker_count; i++)
		if (server->workers[i] != NULL)
			worker_stop(server->workers[i]);
	watchdog_free(server->watchdog);
	tcp_free(server->tcp);
	pid_file_remove(server->pid_file); /* before the ports are free for another daemon */
	running_config_free(server->running);
	udp_free(server->udp);
	for (unsigned i = 0; server->workers != NULL && i < server->worker_count; i++)
		worker_free(server->workers[i]);
	free(server->workers);
}

static void free_loop(struct server *server)
{
	struct event *const events[] = {server->reload_event, server->stop_timer, server->report_timer};
	for (size_t i = 0; i < COUNT_OF(events); i++)
		if (events[i] != NULL)
			event_free(events[i]);
	task_queue_free(server->tasks);
	if (server->base != NULL)
		event_base_free(server->base);
}

void server_free(struct server *server)
{
	if (server == NULL)
		return;
	upgrade_free(server->upgrade);
	free_workers(server);
	upgrade_child_free(server->upgrade_child);
	upgrade_fds_free(server->upgrade_fds);
	free(server->program.path);
	free_loop(server);
	config_unref(server->started);
	free(server);
}
