/* reload.c: reloads the configuration. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "control/notify.h"
#include "control/server.h"
#include "control/server_internal.h"
#include "core/clock.h"
#include "core/log.h"

enum { RELOAD_DELAY_MS = 10 };

void server_on_config(struct server *server, server_config_callback *on_config, void *argument)
{
	server->on_config = on_config;
	server->on_config_argument = argument;
}

/* Returns the value as --dump prints it, for the caller to free; NULL when out of memory. */
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

static void log_restart_key(const struct server *server, const struct config *config, size_t row)
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

static void log_restart_keys(const struct server *server, const struct config *config)
{
	for (size_t i = 0; i < config_daemon_option_count; i++)
		if (config_daemon_options[i].restart)
			log_restart_key(server, config, i);
}

/* Loads the configuration file again, and logs the messages. Returns NULL after an error. */
static struct config *load_config(const struct server *server, struct diagnostics *diagnostics)
{
	const char *file = server->started->file;

	if (strcmp(file, "-") == 0) {
		diagnostics_log(diagnostics, NULL, "standard input cannot be read again");
		return NULL;
	}
	struct config *config = config_load_again(file, diagnostics);
	diagnostics_log_collected(diagnostics);
	diagnostics_free(diagnostics);
	return config;
}

static void reload_failed(struct server *server, const struct diagnostics *diagnostics)
{
	log_error("reload failed, the running configuration stays: %s", diagnostics->first);
	server_announce(server);
}

static void reload(struct server *server)
{
	struct diagnostics diagnostics = {.keep_first = true};

	notify_reloading();
	struct config *config = load_config(server, &diagnostics);
	struct transaction *transaction =
		config != NULL ? apply_prepare(server->running, config, NULL, &diagnostics) : NULL;
	if (transaction == NULL || !apply_listen(transaction, &diagnostics)) {
		apply_rollback(transaction);
		reload_failed(server, &diagnostics);
	} else {
		if (server->on_config != NULL)
			server->on_config(config, server->on_config_argument);
		log_restart_keys(server, config);
		server->committing = true;
		apply_commit(transaction, &server->committed);
	}
	config_unref(config);
}

/* Delays the reload by a moment, in which several signals become one. */
void reload_schedule(struct server *server)
{
	const struct timeval moment = clock_timeval(RELOAD_DELAY_MS);
	event_add(server->reload_event, &moment);
}

/* Reloads. Signals that arrive meanwhile cause one more reload, so that the last version of the file is read. */
void reload_on_timer(evutil_socket_t fd, short what, void *argument)
{
	struct server *server = argument;
	(void)fd, (void)what;
	if (server->committing || server->stopping || server->upgrade != NULL || server->upgrade_child != NULL)
		return;
	server->reload_pending = false;
	reload(server);
	succession_begin_pending(server);
}

void reload_on_committed(void *argument)
{
	struct server *server = argument;
	char summary[SUMMARY_SIZE];

	server->committing = false;
	if (server->stopping) {
		log_notice("reloaded, and stopping");
		return;
	}
	server_summarise(server, summary);
	log_notice("reloaded: %s", summary);
	server_announce(server);
	succession_run_pending(server);
}

void server_reload(struct server *server)
{
	if (succession_forward(server, SIGHUP))
		return;
	if (server->stopping) {
		log_notice("reload ignored: this process is stopping");
		return;
	}
	if (server->reload_pending)
		return;
	server->reload_pending = true;
	if (server->upgrade != NULL || server->upgrade_child != NULL)
		log_notice("reload deferred until the upgrade has ended");
	else if (!server->committing)
		reload_schedule(server);
}
