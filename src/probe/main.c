/* main.c: the command line, the runs, and the exit status. */
#include "config_build.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "probe/load/load.h"
#include "probe/mtu.h"
#include "probe/options.h"
#include "probe/ping.h"
#include "probe/request.h"
#include "probe/run.h"
#include "probe/target.h"

enum { RETRY_MS = 100, DATAGRAM_MAX_V4 = 65507 };

/* whether a signal or the deadline ended the last run */
static bool interrupted;

static int64_t now_ms(void)
{
	return (int64_t)(run_now() / 1000000);
}

static int refuse(const char *error, int status)
{
	fprintf(stderr, "smallprobe: %s\n", error);
	return status;
}

/* Reports WHY no run took place, also as JSON. STATUS: EXIT_WRONG or EXIT_NO_CONNECTION. */
static int conclude(const struct options *options, const struct target *target, const char *why, int status)
{
	char error[TARGET_ERROR_SIZE];
	struct run *run = run_new(options, target, error);

	if (run == NULL)
		return refuse(error, EXIT_USAGE);
	run->reached = status != EXIT_NO_CONNECTION;
	run_fail(run, "%s", why);
	status = run_finish(run);
	run_free(run);
	return status;
}

/* Runs OPTIONS once on TARGET, which is resolved. WHY receives the reason of a failure, RUN_FAILURE_SIZE bytes. */
static int run_found(const struct options *options, struct target *target, char *why)
{
	char error[TARGET_ERROR_SIZE];

	if (options->udp && options->size > DATAGRAM_MAX_V4 && target->addresses[0].address.ss_family == AF_INET)
		return refuse("a datagram over IPv4 has 65507 bytes at most", EXIT_USAGE);
	if (options->load && !options->silent)
		return load_run(options, target);

	struct run *run = run_new(options, target, error);

	if (run == NULL)
		return refuse(error, EXIT_USAGE);
	int status = options->mtu                                         ? mtu_run(run)
		     : options->type == TYPE_ECHO && !options->half_close ? ping_run(run)
									  : request_run(run);

	snprintf(why, RUN_FAILURE_SIZE, "%s", run->failure[0] ? run->failure : "no right answer");
	interrupted = run->interrupted;
	run_free(run);
	return status;
}

/* Resolves TARGET and runs once; the time of the lookup counts for the deadline. */
static int run_once(const struct options *options, struct target *target, char *why)
{
	struct options left = *options;
	char error[TARGET_ERROR_SIZE];
	int64_t began_ms = now_ms();

	if (!target_resolve(options, target, error)) {
		snprintf(why, RUN_FAILURE_SIZE, "%s", error);
		return conclude(options, target, error, EXIT_NO_CONNECTION);
	}
	if (options->deadline_ms > 0) {
		left.deadline_ms -= now_ms() - began_ms;
		left.deadline_ms = left.deadline_ms > 0 ? left.deadline_ms : 1;
	}
	return run_found(&left, target, why);
}

static void rest(int64_t ms)
{
	struct timespec time = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};

	nanosleep(&time, NULL);
}

/* Repeats silent runs until the service answers correctly. Returns the last exit status. */
static int wait_for_service(const struct options *options, struct target *target)
{
	struct options attempt = *options;
	char why[RUN_FAILURE_SIZE] = "no time to ask", told[2 * RUN_FAILURE_SIZE];
	int64_t ends_ms = now_ms() + options->wait_ms, left_ms;
	int status = EXIT_NO_CONNECTION;

	attempt.silent = true;
	attempt.count = 1;
	attempt.mtu = attempt.reconnect = false;
	attempt.max_loss = 0;
	while ((left_ms = ends_ms - now_ms()) > 0) {
		attempt.deadline_ms = left_ms;
		attempt.timeout_ms = options->timeout_ms < left_ms ? options->timeout_ms : left_ms;
		status = run_once(&attempt, target, why);
		if (status == EXIT_OK || status == EXIT_USAGE || interrupted)
			return status;
		rest(RETRY_MS);
	}
	snprintf(told, sizeof told, "%s did not answer within %.10g s: %s", options->target,
		 (double)options->wait_ms / 1000, why);
	return conclude(options, target, told, status);
}

/* Checks all that can be checked before a packet is sent. */
static bool is_possible(struct options *options, struct target *target, char *error)
{
	struct target_address near;

	if (!target_parse(options, target, error))
		return false;
	if (options->bind == NULL)
		return true;
	if (!target_parse_bind(options, &near, error))
		return false;
	/* the target has to be of the same family */
	if (options->family == AF_UNSPEC)
		options->family = near.address.ss_family;
	return true;
}

static int probe(struct options *options)
{
	char why[RUN_FAILURE_SIZE];
	struct target target;
	const char *no_colour = getenv("NO_COLOR");

	if (!is_possible(options, &target, why))
		return refuse(why, EXIT_USAGE);
	options->colour = isatty(STDOUT_FILENO) && !options->json && !(no_colour != NULL && *no_colour);
	options->progress = isatty(STDERR_FILENO) && !options->json && !options->quiet;

	int status = options->wait_ms ? wait_for_service(options, &target) : EXIT_OK;

	return status == EXIT_OK ? run_once(options, &target, why) : status;
}

static int print(void (*write)(FILE *))
{
	write(stdout);
	return fflush(stdout) == 0 && !ferror(stdout) ? EXIT_OK : refuse("cannot write to standard output", EXIT_WRONG);
}

static void write_version(FILE *out)
{
	fprintf(out, "smallprobe %s\n", PACKAGE_VERSION);
}

int main(int argc, char **argv)
{
	struct options options = options_parse(argc, argv);

	/* a closed connection is a result, not an end of the process */
	signal(SIGPIPE, SIG_IGN);
	switch (options.action) {
	case OPTIONS_HELP:
		return print(options_print_help);
	case OPTIONS_VERSION:
		return print(write_version);
	case OPTIONS_REFUSE:
		return EXIT_USAGE;
	case OPTIONS_PROBE:
		break;
	}
	return probe(&options);
}
