/* server.c: start, reload, upgrade, drain, stop. */
#include "control/server.h"

#include <errno.h>
#include <event2/event.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "control/apply.h"
#include "control/notify.h"
#include "control/pid_file.h"
#include "control/sandbox.h"
#include "control/watchdog.h"
#include "core/clock.h"
#include "core/cpu_count.h"
#include "core/log.h"
#include "core/problems.h"
#include "core/transport.h"
#include "handoff/listen_fds.h"
#include "handoff/upgrade_child.h"
#include "handoff/upgrade_fds.h"
#include "handoff/upgrade_parent.h"

enum {
	UPGRADE_DEADLINE_MS = 30 * 1000, /* for the new process, until it has taken over */
	RELOAD_MOMENT_MS = 10,
	STOP_GRACE_MS = 1000, /* a worker that has not answered by then is not waited for */
	STOP_SPARE_MS = 5000, /* what a stop may take besides, as the service manager is told */
	REPORT_S = 60,
	COUNTERS_TEXT_SIZE = 1600, /* every reason of TCP at once */
	WORKERS_AUTO_MAX = 8,
};

struct server {
	struct event_base *base;
	struct task_queue *task_queue;
	struct event *reload_event, *stop_timer, *report_timer;
	struct config *started; /* by which it was started: what a reload cannot transaction stays as it is there */
	struct metrics *metrics;
	struct limit_gate gate; /* open connections over all services */
	struct sandbox_identity identity;
	bool becomes;         /* started as root: becomes identity */
	const char *pid_file; /* once it is written */
	struct worker **workers;
	unsigned worker_count;
	struct watchdog *watchdog; /* NULL: nobody asks for it */
	struct tcp *tcp;
	struct udp *udp;
	struct running_config *running;
	bool stopping, ending;              /* lets go of its sockets, and then of its connections */
	bool told_to_stop;                  /* by a signal; else it drains since another process has taken over */
	bool reload_wanted, upgrade_wanted; /* signals that nobody has looked at yet */
	bool switching;                     /* a reload whose workers have not all switched */
	struct upgrade_program program;     /* without a path: PROGRAM_ERROR is the errno */
	int program_error;
	struct upgrade *upgrade; /* to the process after this one */
	struct upgrade_fds *upgrade_fds;
	struct upgrade_child *upgrade_child; /* from the process before this one, until that has let go of all */
	bool has_taken_over;                 /* where there was one before: this process is the daemon */
	bool announced;                      /* the service manager knows this process */
	struct task idle, switched;
	struct server_reloads reloads;
	server_config_callback *on_config;
	void *on_config_argument;
};

static bool is_written(const struct config *config, const char *key)
{
	const struct option *option = option_find(config_daemon_options, config_daemon_option_count, key);
	return config->daemon.origins[option - config_daemon_options].line != 0;
}

/* --- who we are --- */

static bool find_identity(struct server *server)
{
	const struct config_daemon *daemon = &server->started->daemon;
	char error[128];

	server->identity.uid = geteuid();
	server->becomes = geteuid() == 0;
	if (!server->becomes ||
	    sandbox_find_identity(daemon->user, daemon->group, &server->identity, error, sizeof error))
		return true;
	if (!is_written(server->started, "user") && !is_written(server->started, "group") &&
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

/* --- leaving root behind --- */

/* False: ERROR says why. */
static bool write_pid_file(struct server *server, char *error, size_t size)
{
	const char *path = server->started->daemon.pid_file;
	if (path == NULL)
		return true;
	int result = pid_file_write(path, server->becomes ? server->identity.uid : (uid_t)-1);
	if (result == 0)
		server->pid_file = path;
	else
		snprintf(error, size, "pid_file: cannot write %s: %s", path, strerror(-result));
	return result == 0;
}

/* With a process before this one, it is written when that says so. */
static bool begin_pid_file(struct server *server)
{
	char error[512];
	if (server->upgrade_child != NULL || write_pid_file(server, error, sizeof error))
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
	if (daemon->sandbox == SANDBOX_OFF || sandbox_confine(daemon->sandbox == SANDBOX_ON, error, sizeof error))
		return true;
	log_error("sandbox = on: %s", error);
	return false;
}

/* --- threads --- */

/* Starts the log's thread. With the identity of the daemon, and confined: the thread inherits both. False: logged. */
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

/* False: logged. */
static bool hand_over_sockets(struct transaction *transaction)
{
	struct problems problems = {0};
	return apply_listen(transaction, &problems);
}

static bool start_watchdog(struct server *server)
{
	uint64_t interval_us = notify_watchdog_interval_us();
	if (interval_us == 0)
		return true;
	server->watchdog =
		watchdog_new(server->base, server->task_queue, server->workers, server->worker_count, interval_us);
	if (server->watchdog == NULL)
		log_error("cannot watch the workers: out of memory");
	return server->watchdog != NULL;
}

static void on_left(void *argument);

static bool create_serving(struct server *server)
{
	limit_gate_init(&server->gate, 0); /* serving_switch says how many */
	server->metrics = metrics_new(server->worker_count);
	if (server->metrics == NULL || !create_workers(server))
		return false;
	const struct running_env env = {
		.base = server->base,
		.tasks = server->task_queue,
		.workers = server->workers,
		.worker_count = server->worker_count,
		.tcp = server->tcp,
		.udp = server->udp,
		.metrics = server->metrics,
		.gate = &server->gate,
		.owner = server->becomes ? server->identity.uid : (uid_t)-1,
		.descriptors = raise_descriptor_limit(),
		.on_closed = on_left,
		.argument = server,
	};
	server->running = running_config_new(&env);
	return server->running != NULL;
}

/* --- events of the main thread --- */

/* Refused datagrams in sum, where the service's connections are logged too. */
static void report_refused(const struct server *server, struct instance *instance)
{
	struct metrics_sums sums;
	if (instance->udp == NULL || !instance->config->log_connections)
		return;
	metrics_sum(server->metrics, instance->udp, &sums);
	uint64_t refused = metrics_range(&sums, METRIC_DROPPED_FIRST, METRIC_DROPPED_LAST_REFUSED);
	uint64_t *told = &instance->state->refused_told;
	struct log_context context = {.service = instance->config->name, .transport = "udp"};
	if (refused != *told)
		log_write(LOG_NOTICE, &context, "%s: udp: %" PRIu64 " datagrams dropped in the last minute",
			  context.service, refused - *told);
	*told = refused;
}

static void on_report(evutil_socket_t fd, short what, void *argument)
{
	struct server *server = argument;
	const struct generation *generation = server->running->generation;

	(void)fd, (void)what;
	for (size_t i = 0; i < generation->config->service_count; i++) {
		struct instance *instance = &generation->instances[i];
		report_refused(server, instance);
		/* what was not logged line by line, in sum */
		log_report_suppressed(&instance->refused_bound, instance->config->name);
		log_report_suppressed(&instance->full_bound, instance->config->name);
		log_report_suppressed(&instance->failed_bound, instance->config->name);
	}
}

static void on_idle(void *argument);
static void on_switched(void *argument);
static void on_reload(evutil_socket_t fd, short what, void *argument);
static void on_stop_timeout(evutil_socket_t fd, short what, void *argument);

static bool create_loop(struct server *server)
{
	server->idle = (struct task){.run = on_idle, .argument = server};
	server->switched = (struct task){.run = on_switched, .argument = server};
	server->base = event_base_new();
	if (server->base == NULL)
		return false;
	server->task_queue = task_queue_new(server->base);
	server->reload_event = evtimer_new(server->base, on_reload, server);
	server->stop_timer = evtimer_new(server->base, on_stop_timeout, server);
	server->report_timer = event_new(server->base, -1, EV_PERSIST, on_report, server);
	if (server->task_queue == NULL || server->reload_event == NULL || server->stop_timer == NULL ||
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

/* --- starting --- */

static size_t count_enabled(const struct config *config)
{
	size_t count = 0;
	for (size_t i = 0; i < config->service_count; i++)
		count += config->services[i].enabled;
	return count;
}

/* `N services, M endpoints`, as lines and the service manager are told. */
enum { SUMMARY_SIZE = 64 };
static void summarise(const struct server *server, char text[SUMMARY_SIZE])
{
	snprintf(text, SUMMARY_SIZE, "%zu services, %zu endpoints",
		 count_enabled(running_config_value(server->running)), server->running->endpoint_count);
}

/* The service manager is told by a process that it knows, or is about to. */
static void announce(struct server *server)
{
	char summary[SUMMARY_SIZE], status[2 * SUMMARY_SIZE];
	summarise(server, summary);
	snprintf(status, sizeof status, "%s, %u workers", summary, server->worker_count);
	notify_ready(status);
	server->announced = true;
}

static void tell_ready(struct server *server)
{
	char summary[SUMMARY_SIZE];
	summarise(server, summary);
	log_notice("ready: %s, %u workers", summary, server->worker_count);
	if (server->upgrade_child != NULL)
		upgrade_child_send_ready(server->upgrade_child);
	else
		announce(server);
}

static unsigned automatic_workers(void)
{
	unsigned processors = cpu_count();
	return processors < WORKERS_AUTO_MAX ? processors : WORKERS_AUTO_MAX;
}

static bool take_over(void *argument, char *error, size_t size);
static void on_sent_away(void *argument);
static void on_named(void *argument);
static void on_alone(void *argument, bool taken);

/* The process that started this one for an upgrade, if one did. False: logged. */
static bool find_predecessor(struct server *server)
{
	static const struct upgrade_child_events events = {
		.take_over = take_over, .cancelled = on_sent_away, .confirmed = on_named, .released = on_alone};
	struct problems problems = {0};
	int fd = upgrade_child_find(&problems);

	if (fd < 0 && problems.count == 0 && getenv(UPGRADE_FDS_VARIABLE) == NULL)
		return true;
	if (fd < 0) {
		if (problems.count == 0)
			log_error(UPGRADE_FDS_VARIABLE " is set, but not " UPGRADE_VARIABLE);
		return false;
	}
	server->upgrade_child = upgrade_child_new(server->base, fd, &events, server);
	if (server->upgrade_child == NULL)
		log_error("cannot watch the process before this one: %s", strerror(errno));
	notify_become_watched();
	return server->upgrade_child != NULL;
}

/* What the service manager has handed over. All of it has to be wanted. */
static struct transaction *prepare_handed(struct server *server, struct endpoint_pool *pool, struct problems *problems)
{
	struct transaction *transaction = NULL;
	if (listen_fds_take(pool, problems)) {
		transaction = apply_prepare(server->running, server->started, pool, problems);
		listen_fds_check_unused(pool, problems);
	}
	if (problems->count == 0)
		return transaction;
	apply_rollback(transaction);
	return NULL;
}

/* What the process before this one has written down. What is not wanted stays with that. */
static struct transaction *prepare_inherited(struct server *server, struct endpoint_pool *pool,
					     struct problems *problems)
{
	unsigned before = problems->count;
	struct transaction *transaction = NULL;
	int writing = upgrade_fds_find(problems);

	if (writing < 0 && problems->count == before)
		problems_add(problems, NULL, UPGRADE_FDS_VARIABLE " is missing");
	if (writing >= 0 && upgrade_fds_read(writing, pool, problems))
		transaction = apply_prepare(server->running, server->started, pool, problems);
	if (transaction != NULL && !upgrade_fds_mark_unused(writing, pool)) {
		problems_add(problems, NULL, "cannot leave endpoints to the process before: %s", strerror(errno));
		apply_rollback(transaction);
		transaction = NULL;
	}
	if (writing >= 0)
		close(writing);
	return transaction;
}

/* What it is started with, and what it opens itself. NULL: logged. */
static struct transaction *prepare_start(struct server *server)
{
	struct problems problems = {0};
	struct transaction *transaction = NULL;
	struct endpoint_pool *pool = endpoint_pool_new();

	if (pool == NULL)
		log_error("out of memory");
	else if (server->upgrade_child != NULL)
		transaction = prepare_inherited(server, pool, &problems);
	else
		transaction = prepare_handed(server, pool, &problems);
	endpoint_pool_free(pool, true);
	return transaction;
}

bool server_start(struct server *server)
{
	const struct timeval minute = {.tv_sec = REPORT_S};
	int64_t wanted = server->started->daemon.workers;

	server->worker_count = wanted > 0 ? (unsigned)wanted : automatic_workers();
	if (!find_predecessor(server) || !find_identity(server))
		return false;
	if (!create_serving(server)) {
		log_error("cannot prepare %u workers: %s", server->worker_count, strerror(errno));
		return false;
	}
	struct transaction *transaction = prepare_start(server);
	if (transaction == NULL)
		return false;
	if (!begin_pid_file(server) || !give_up_root(server) || !confine(server) || !start_log() ||
	    !start_workers(server) || !hand_over_sockets(transaction) ||
	    !(server->upgrade_child != NULL || start_watchdog(server)) ||
	    event_add(server->report_timer, &minute) < 0) {
		apply_rollback(transaction);
		return false;
	}
	apply_commit(transaction, NULL);
	server->reloads.last_success = time(NULL);
	server->reloads.last_succeeded = true;
	tell_ready(server);
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

static void begin_upgrade_if_wanted(struct server *server);
static void do_what_waits(struct server *server);
static void begin_stop(struct server *server);

/* --- reloading --- */

void server_on_config(struct server *server, server_config_callback *on_config, void *argument)
{
	server->on_config = on_config;
	server->on_config_argument = argument;
}

const struct server_reloads *server_reloads(const struct server *server)
{
	return &server->reloads;
}

/* The value as --dump prints it; NULL when out of memory. The caller frees it. */
static char *print_value(const struct option *option, const struct config_daemon *daemon)
{
	char *text = NULL;
	size_t size;
	FILE *out = open_memstream(&text, &size);
	if (out == NULL)
		return NULL;
	option->type->print(option, option_field_const(option, daemon), out);
	if (fclose(out) == 0)
		return text;
	free(text);
	return NULL;
}

static void tell_of_restart_key(const struct server *server, const struct config *config, size_t row)
{
	const struct option *option = &config_daemon_options[row];
	struct config_origin origin = config->daemon.origins[row];
	struct log_context context = {.config_file = origin.file, .config_line = origin.line};
	char *before = print_value(option, &server->started->daemon), *after = print_value(option, &config->daemon);

	if (before != NULL && after != NULL && strcmp(before, after) != 0)
		log_write(LOG_WARNING, &context, "[daemon] %s changed: takes effect at a restart", option->key);
	free(before);
	free(after);
}

static void tell_of_restart_keys(const struct server *server, const struct config *config)
{
	for (size_t i = 0; i < config_daemon_option_count; i++)
		if (config_daemon_options[i].restart)
			tell_of_restart_key(server, config, i);
}

static void tell_of_messages(const struct config_report *report, struct problems *problems)
{
	for (size_t i = 0; i < report->count; i++) {
		const struct config_message *message = &report->messages[i];
		struct log_context context = {.config_file = message->file, .config_line = message->line};
		if (message->warning)
			log_write(LOG_WARNING, &context, "%s", message->text);
		else
			problems_add(problems, NULL, "%s", message->text);
	}
}

/* NULL: PROBLEMS has been told. */
static struct config *load_again(const struct server *server, struct problems *problems)
{
	const char *file = server->started->file;
	struct config_report report = {0};

	if (strcmp(file, "-") == 0) {
		problems_add(problems, NULL, "standard input cannot be read again");
		return NULL;
	}
	struct config *config = config_load_again(file, &report);
	tell_of_messages(&report, problems);
	config_report_free(&report);
	return config;
}

static void reload_failed(struct server *server, const struct problems *problems)
{
	server->reloads.failed++;
	server->reloads.last_succeeded = false;
	log_error("reload failed, the running configuration stays: %s", problems->first);
	announce(server);
}

static void reload(struct server *server)
{
	struct problems problems = {.reloads = true};

	notify_reloading();
	struct config *config = load_again(server, &problems);
	struct transaction *transaction =
		config != NULL ? apply_prepare(server->running, config, NULL, &problems) : NULL;
	if (transaction == NULL || !apply_listen(transaction, &problems)) {
		apply_rollback(transaction);
		reload_failed(server, &problems);
	} else {
		if (server->on_config != NULL)
			server->on_config(config, server->on_config_argument);
		tell_of_restart_keys(server, config);
		server->switching = true;
		apply_commit(transaction, &server->switched);
	}
	config_unref(config);
}

/* After a moment in which a storm of signals becomes one. */
static void reload_soon(struct server *server)
{
	const struct timeval moment = clock_timeval(RELOAD_MOMENT_MS);
	event_add(server->reload_event, &moment);
}

/* A storm of signals comes here once, and once more for those that came meanwhile: the last file is the one that is read. */
static void on_reload(evutil_socket_t fd, short what, void *argument)
{
	struct server *server = argument;
	(void)fd, (void)what;
	if (server->switching || server->stopping || server->upgrade != NULL || server->upgrade_child != NULL)
		return;
	server->reload_wanted = false;
	reload(server);
	begin_upgrade_if_wanted(server);
}

static void on_switched(void *argument)
{
	struct server *server = argument;
	char summary[SUMMARY_SIZE];

	server->switching = false;
	server->reloads.succeeded++;
	server->reloads.last_succeeded = true;
	server->reloads.last_success = time(NULL);
	if (server->stopping) {
		log_notice("reloaded, and stopping");
		return;
	}
	summarise(server, summary);
	log_notice("reloaded: %s", summary);
	announce(server);
	do_what_waits(server);
}

/* A signal for a process that has handed over already is for the next one. */
static bool pass_on(const struct server *server, int signal)
{
	bool passed = server->stopping && server->upgrade != NULL && upgrade_signal(server->upgrade, signal);
	if (passed)
		log_notice("%s: passed on to process %ld", signal == SIGHUP ? "reload" : "upgrade",
			   (long)upgrade_pid(server->upgrade));
	return passed;
}

void server_reload(struct server *server)
{
	if (pass_on(server, SIGHUP))
		return;
	if (server->stopping) {
		log_notice("not reloading: this process stops");
		return;
	}
	if (server->reload_wanted)
		return;
	server->reload_wanted = true;
	if (server->upgrade != NULL || server->upgrade_child != NULL)
		log_notice("the reload waits for the upgrade");
	else if (!server->switching)
		reload_soon(server);
}

/* --- upgrading: the old process --- */

/* Lists the endpoints in force for the new process. Returns NULL with errno. */
static struct upgrade_fds *list_endpoints(const struct server *server)
{
	struct endpoint *endpoint;
	size_t count = 0;

	for (size_t i = 0; running_config_next_endpoint(server->running, &i) != NULL;)
		count++;
	struct endpoint **endpoints = calloc(count + 1, sizeof(struct endpoint *));
	if (endpoints == NULL)
		return NULL;
	count = 0;
	for (size_t i = 0; (endpoint = running_config_next_endpoint(server->running, &i)) != NULL;)
		endpoints[count++] = endpoint;
	return upgrade_fds_new(endpoints, count);
}

static void free_upgrade_fds(struct server *server)
{
	upgrade_fds_free(server->upgrade_fds);
	server->upgrade_fds = NULL;
}

static void stop_serving(struct server *server, int64_t timeout_ms);

/* From here on the new process is the daemon: nothing that this one does is told to the service manager any more. */
static void hand_over(struct server *server)
{
	log_notice("upgraded: process %ld serves", (long)upgrade_pid(server->upgrade));
	if (server->watchdog != NULL)
		watchdog_stop(server->watchdog);
	notify_main_process(upgrade_pid(server->upgrade));
	if (!upgrade_confirm(server->upgrade))
		log_warning("the new process cannot be told that it is known: %s", strerror(errno));
	if (server->reload_wanted && !upgrade_signal(server->upgrade, SIGHUP))
		log_warning("the new process cannot be told to reload: %s", strerror(errno));
	upgrade_fds_mark_shared(server->upgrade_fds); /* the others are closed as in a reload that removes them */
	free_upgrade_fds(server);
	log_notice("draining: %" PRId64 " open connections", atomic_load(&server->gate.taken));
	stop_serving(server, running_config_value(server->running)->daemon.drain_timeout_ms);
}

static void upgrade_failed(struct server *server, const char *reason)
{
	log_error("upgrade failed, this process goes on: %s", reason);
	free_upgrade_fds(server);
	do_what_waits(server);
}

static void on_upgrade_ended(struct upgrade *upgrade, const char *failure, void *argument)
{
	struct server *server = argument;
	if (failure == NULL) {
		hand_over(server);
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

/* After a reload that is under way, and after this process has its sockets to itself. */
static void begin_upgrade_if_wanted(struct server *server)
{
	if (!server->upgrade_wanted || server->switching || server->upgrade_child != NULL)
		return;
	server->upgrade_wanted = false;
	begin_upgrade(server);
}

/* Signals that came when their time had not. The upgrade comes first: reloads without end must not put it off, and the next process
 * reads the last file anyway. */
static void do_what_waits(struct server *server)
{
	if (server->stopping)
		return;
	begin_upgrade_if_wanted(server);
	if (server->reload_wanted && server->upgrade == NULL)
		reload_soon(server);
}

void server_set_program(struct server *server, char *path, char *const *arguments)
{
	server->program_error = errno;
	server->program = (struct upgrade_program){.path = path, .arguments = arguments};
}

void server_upgrade(struct server *server)
{
	if (pass_on(server, SIGUSR2))
		return;
	if (server->stopping)
		log_notice("no upgrade: this process stops");
	else if (server->upgrade != NULL || server->upgrade_wanted)
		log_notice("an upgrade is under way already");
	else
		server->upgrade_wanted = true;
	if (!server->reload_wanted) /* which was asked for before */
		begin_upgrade_if_wanted(server);
}

/* --- upgrading: the new process --- */

static bool take_over(void *argument, char *error, size_t size)
{
	struct server *server = argument;
	server->has_taken_over = write_pid_file(server, error, size);
	return server->has_taken_over;
}

static void on_sent_away(void *argument)
{
	struct server *server = argument;
	if (!server->stopping)
		begin_stop(server);
}

/* What the service manager would not have listened to before: for it, until now, this process was nobody. */
static void on_named(void *argument)
{
	struct server *server = argument;
	if (server->announced || server->stopping)
		return;
	announce(server);
	start_watchdog(server);
}

/* The one before has let go of the sockets, or died. */
static void on_alone(void *argument, bool taken)
{
	struct server *server = argument;
	char error[512];

	upgrade_child_free(server->upgrade_child);
	server->upgrade_child = NULL;
	running_config_parent_released(server->running);
	if (!taken && !server->stopping) {
		log_warning("the process before this one ended before it handed over: this one serves");
		if (!write_pid_file(server, error, sizeof error))
			log_error("%s", error);
	}
	on_named(server);
	if (server->told_to_stop && !server->stopping)
		begin_stop(server);
	else
		do_what_waits(server);
}

/* --- stopping --- */

static void finish_if_done(struct server *server)
{
	if (server->stopping && running_config_is_closed(server->running) && atomic_load(&server->gate.taken) == 0)
		event_base_loopbreak(server->base);
}

static void on_left(void *argument)
{
	struct server *server = argument;
	if (server->stopping && server->upgrade != NULL && running_config_is_closed(server->running))
		upgrade_release(server->upgrade); /* to whom the sockets belong alone now */
	finish_if_done(server);
}

static void on_idle(void *argument)
{
	finish_if_done(argument);
}

/* The first time it ends the connections; the second time it waits no longer for workers that do not answer. */
static void on_stop_timeout(evutil_socket_t fd, short what, void *argument)
{
	struct server *server = argument;
	struct timeval grace = clock_timeval(STOP_GRACE_MS);

	(void)fd, (void)what;
	if (server->ending) {
		event_base_loopbreak(server->base);
		return;
	}
	server->ending = true;
	running_config_stop_now(server->running);
	log_notice("%s: ending %" PRId64 " open connections",
		   server->upgrade != NULL && !server->told_to_stop ? "drain_timeout" : "stop_timeout",
		   atomic_load(&server->gate.taken));
	tcp_end_all(server->tcp);
	evtimer_add(server->stop_timer, &grace);
}

/* Lets go of the sockets, and waits for open connections. */
static void stop_serving(struct server *server, int64_t timeout_ms)
{
	struct timeval timeout = clock_timeval(timeout_ms);
	server->stopping = true;
	evtimer_add(server->stop_timer, &timeout);
	on_report(-1, EV_TIMEOUT, server);
	running_config_stop(server->running);
	tcp_drain(server->tcp, server->task_queue, &server->idle);
	finish_if_done(server);
}

static int64_t stop_timeout_ms(const struct server *server)
{
	return running_config_value(server->running)->daemon.stop_timeout_ms;
}

static void begin_stop(struct server *server)
{
	upgrade_free(server->upgrade); /* whoever is on the way goes with us */
	server->upgrade = NULL;
	log_notice("stopping: %" PRId64 " open connections", atomic_load(&server->gate.taken));
	if (server->announced)
		notify_stopping("draining", stop_timeout_ms(server) + STOP_GRACE_MS + STOP_SPARE_MS);
	stop_serving(server, stop_timeout_ms(server));
}

/* A stop of a process that drains since another has taken over: that one is the daemon, here only the time gets shorter. */
static void hurry(struct server *server)
{
	struct timeval timeout = clock_timeval(stop_timeout_ms(server));
	log_notice("stopping: %" PRId64 " open connections", atomic_load(&server->gate.taken));
	if (!server->ending && stop_timeout_ms(server) < running_config_value(server->running)->daemon.drain_timeout_ms)
		evtimer_add(server->stop_timer, &timeout);
}

void server_stop(struct server *server)
{
	if (server->told_to_stop) {
		log_notice("stopping at once");
		event_base_loopbreak(server->base);
		return;
	}
	server->told_to_stop = true;
	if (server->stopping)
		hurry(server);
	else if (server->upgrade_child == NULL || !server->has_taken_over)
		begin_stop(server);
	else
		log_notice("the stop waits for the process before this one"); /* which still closes the same sockets */
}

/* --- telling --- */

static void log_sums(const struct server *server, const struct instance *instance, unsigned transport)
{
	const struct metrics_block *blocks = transport == TRANSPORT_TCP ? instance->tcp : instance->udp;
	struct log_context context = {.service = instance->config->name, .transport = transport_name(transport)};
	char text[COUNTERS_TEXT_SIZE], open[32] = "";
	struct metrics_sums sums;

	if (blocks == NULL)
		return;
	metrics_sum(server->metrics, blocks, &sums);
	if (transport == TRANSPORT_TCP)
		snprintf(open, sizeof open, "open=%" PRIu64 " ",
			 sums.values[METRIC_ACCEPTED] - metrics_range(&sums, METRIC_CLOSED_FIRST, METRIC_CLOSED_LAST));
	metrics_print(&sums, transport, text, sizeof text);
	log_write(LOG_NOTICE, &context, "%s: %s: %s%s", context.service, context.transport, open, text);
}

void server_log_counters(const struct server *server)
{
	for (size_t i = 0; i < running_config_value(server->running)->service_count; i++) {
		const struct instance *instance = &server->running->generation->instances[i];
		if (!instance->config->enabled)
			continue;
		log_sums(server, instance, TRANSPORT_TCP);
		log_sums(server, instance, TRANSPORT_UDP);
	}
}

/* --- the end: the lists of server_start and server_new, backwards --- */

static void free_workers(struct server *server)
{
	for (unsigned i = 0; server->workers != NULL && i < server->worker_count; i++)
		if (server->workers[i] != NULL)
			worker_stop(server->workers[i]);
	watchdog_free(server->watchdog);
	tcp_free(server->tcp);
	pid_file_remove(server->pid_file); /* before a port is free for the next one */
	running_config_free(server->running);
	udp_free(server->udp);
	for (unsigned i = 0; server->workers != NULL && i < server->worker_count; i++)
		worker_free(server->workers[i]);
	free(server->workers);
}

static void free_loop(struct server *server)
{
	struct event *const events[] = {server->reload_event, server->stop_timer, server->report_timer};
	for (size_t i = 0; i < sizeof events / sizeof *events; i++)
		if (events[i] != NULL)
			event_free(events[i]);
	task_queue_free(server->task_queue);
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
	free_upgrade_fds(server);
	free(server->program.path);
	free_loop(server);
	metrics_free(server->metrics);
	config_unref(server->started);
	free(server);
}
