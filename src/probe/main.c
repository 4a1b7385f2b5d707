/* main.c: what the command line asked for, and the exit status. */
#include "config_build.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "probe/load.h"
#include "probe/options.h"
#include "probe/target.h"

static int refuse(const char *error, int status)
{
	fprintf(stderr, "smallprobe: %s\n", error);
	return status;
}

static int probe(struct options *options)
{
	char error[TARGET_ERROR_SIZE];
	struct target_address near;
	struct target target;

	if (!target_parse(options, &target, error) || (options->bind && !target_parse_bind(options, &near, error)))
		return refuse(error, EXIT_USAGE);
	if (!target_resolve(options, &target, error))
		return refuse(error, EXIT_NO_CONNECTION);

	const char *no_colour = getenv("NO_COLOR");

	options->colour = isatty(STDOUT_FILENO) && !options->json && !(no_colour && *no_colour);
	options->progress = isatty(STDERR_FILENO) && !options->json && !options->quiet;
	return options->load ? load_run(options, &target) : EXIT_RIGHT;
}

static int print(void (*write)(FILE *))
{
	write(stdout);
	return fflush(stdout) == 0 ? EXIT_RIGHT : EXIT_WRONG;
}

static void write_version(FILE *out)
{
	fprintf(out, "smallprobe %s\n", PACKAGE_VERSION);
}

int main(int argc, char **argv)
{
	struct options options = options_parse(argc, argv);

	/* a server that has gone is a result, not an end */
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
