/* main.c: arguments, signals, exit status. */
#include "config_build.h"

#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "arguments.h"
#include "config/config.h"
#include "control/server.h"
#include "core/array.h"
#include "core/log.h"
#include "core/transport.h"
#include "handoff/upgrade_parent.h"
#include "service/service.h"

/* The exit statuses of smallservd(8). */
enum { EXIT_AT_RUN_TIME = 1, EXIT_CONFIGURATION = 2 };

static int finish_output(void)
{
	if (fflush(stdout) == 0 && !ferror(stdout))
		return EXIT_SUCCESS;
	fprintf(stderr, "smallservd: cannot write: %s\n", strerror(errno));
	return EXIT_AT_RUN_TIME;
}

static int print_help(void)
{
	fputs(arguments_usage, stdout);
	return finish_output();
}

static int print_version(void)
{
	puts("smallservd " PACKAGE_VERSION);
	return finish_output();
}

static int list_types(void)
{
	static const char *const transports[] = {
		[TRANSPORT_TCP] = "tcp",
		[TRANSPORT_UDP] = "udp",
		[TRANSPORT_BOTH] = "tcp, udp",
	};
	printf("%-8s  %4s  %-8s  %s\n", "TYPE", "PORT", "PROTOCOL", "RFC");
	for (size_t i = 0; i < service_count; i++) {
		const struct service *service = service_table[i];
		printf("%-8s  %4u  %-8s  %u\n", service->name, (unsigned)service->port, transports[service->transports],
		       service->rfc);
	}
	return finish_output();
}

static void print_messages(const struct diagnostics *diagnostics)
{
	for (size_t i = 0; i < diagnostics->count; i++)
		fprintf(stderr, "%s\n", diagnostics->messages[i].text);
}

static void open_log(const struct config *config, int verbose)
{
	static const enum log_target targets[] = {
		[LOG_TARGET_STDERR] = LOG_TO_STDERR,
		[LOG_TARGET_SYSLOG] = LOG_TO_SYSLOG,
		[LOG_TARGET_JOURNAL] = LOG_TO_JOURNAL,
	};
	int level = config_log_level(config) + verbose;
	enum log_target target = LOG_TO_STDERR;

	if (config->daemon.log_target != LOG_TARGET_AUTO)
		target = targets[config->daemon.log_target];
	else if (log_stderr_is_journal() && log_has_journal())
		target = LOG_TO_JOURNAL;
	log_open(target, level < LOG_DEBUG ? level : LOG_DEBUG, config_syslog_facility(config));
	if (target == LOG_TO_JOURNAL && !log_has_journal())
		log_warning("log_target: this build has no journal, so lines go to stderr");
}

static void on_config(const struct config *config, void *verbose)
{
	open_log(config, *(const int *)verbose);
}

/* --- signals --- */

static void on_stop(evutil_socket_t signal, short what, void *server)
{
	(void)signal, (void)what;
	server_stop(server);
}

static void on_reload(evutil_socket_t signal, short what, void *server)
{
	(void)signal, (void)what;
	server_reload(server);
}

static void on_upgrade(evutil_socket_t signal, short what, void *server)
{
	(void)signal, (void)what;
	server_upgrade(server);
}

static void on_counters(evutil_socket_t signal, short what, void *server)
{
	(void)signal, (void)what;
	server_log_counters(server);
}

static const struct {
	int number;
	event_callback_fn on_signal;
} signals[] = {
	{SIGTERM, on_stop}, {SIGINT, on_stop}, {SIGHUP, on_reload}, {SIGUSR1, on_counters}, {SIGUSR2, on_upgrade},
};
enum { SIGNAL_COUNT = COUNT_OF(signals) };

static bool watch_signals(struct server *server, struct event *events[SIGNAL_COUNT])
{
	bool watched = true;
	for (int i = 0; i < SIGNAL_COUNT; i++) {
		events[i] = evsignal_new(server_base(server), signals[i].number, signals[i].on_signal, server);
		watched &= events[i] != NULL && event_add(events[i], NULL) == 0;
	}
	if (!watched)
		log_error("cannot watch signals: %s", strerror(errno));
	return watched;
}

static void forget_signals(struct event *events[SIGNAL_COUNT])
{
	for (int i = 0; i < SIGNAL_COUNT; i++)
		if (events[i] != NULL)
			event_free(events[i]);
}

/* Blocks or unblocks the handled signals: one that comes before or after they are watched stays pending. */
static void block_signals(int how)
{
	sigset_t set;
	sigemptyset(&set);
	for (int i = 0; i < SIGNAL_COUNT; i++)
		sigaddset(&set, signals[i].number);
	sigprocmask(how, &set, NULL);
}

static int serve(struct config *config, struct diagnostics *diagnostics, int verbose, char *const *argv)
{
	struct event *events[SIGNAL_COUNT] = {0};

	block_signals(SIG_BLOCK);
	signal(SIGPIPE, SIG_IGN);
	open_log(config, verbose);
	diagnostics_log_collected(diagnostics);
	struct server *server = server_new(config);
	if (server != NULL) {
		server_on_config(server, on_config, &verbose);
		server_set_program(server, upgrade_find_path(), argv);
	}
	bool served = server != NULL && watch_signals(server, events);
	block_signals(SIG_UNBLOCK);
	served = served && server_start(server) && server_run(server);
	block_signals(SIG_BLOCK);
	forget_signals(events);
	server_free(server);
	if (served)
		log_notice("stopped");
	log_close();
	return served ? EXIT_SUCCESS : EXIT_AT_RUN_TIME;
}

static int act_on_config(const struct arguments *arguments, char *const *argv)
{
	struct diagnostics diagnostics = {0};
	struct config *config = config_load(arguments->config, &diagnostics);
	int status = config != NULL ? EXIT_SUCCESS : EXIT_CONFIGURATION;

	if (config == NULL || arguments->action != ACTION_SERVE)
		print_messages(&diagnostics);
	if (config != NULL && arguments->action == ACTION_DUMP) {
		config_dump(config, stdout);
		status = finish_output();
	} else if (config != NULL && arguments->action == ACTION_SERVE) {
		status = serve(config, &diagnostics, arguments->verbose, argv);
	}
	diagnostics_free(&diagnostics);
	config_unref(config);
	return status;
}

/* Opens /dev/null in place of closed standard descriptors, which sockets would occupy otherwise. */
static bool open_standard_descriptors(void)
{
	int fd;
	do
		fd = open("/dev/null", O_RDWR);
	while (fd >= 0 && fd <= STDERR_FILENO);
	if (fd > STDERR_FILENO)
		close(fd);
	return fd >= 0;
}

int main(int argc, char **argv)
{
	if (!open_standard_descriptors())
		return EXIT_AT_RUN_TIME;

	struct arguments arguments = arguments_parse(argc, argv);
	switch (arguments.action) {
	case ACTION_REFUSE:
		return EXIT_CONFIGURATION;
	case ACTION_HELP:
		return print_help();
	case ACTION_VERSION:
		return print_version();
	case ACTION_LIST_TYPES:
		return list_types();
	default:
		return act_on_config(&arguments, argv);
	}
}
