/* arguments.c: the command line as a value. */
#include "arguments.h"

#include <getopt.h>
#include <stddef.h>
#include <stdio.h>

#define DEFAULT_CONFIG SYSCONFDIR "/smallservd/smallservd.conf"

const char arguments_usage[] = "usage: smallservd [-c FILE] [-t | -T | -l] [-v] [-V] [-h]\n"
			       "Hosts the small network services, echo, daytime and their kin, over TCP and UDP.\n"
			       "\n"
			       "  -c, --config FILE  the configuration; - is standard input\n"
			       "                     (default " DEFAULT_CONFIG ")\n"
			       "  -t, --check        check the configuration and do nothing else\n"
			       "  -T, --dump         print the effective configuration\n"
			       "  -l, --list-types   list the service types\n"
			       "  -v, --verbose      log one level more; may be repeated\n"
			       "  -V, --version      print the version\n"
			       "  -h, --help         print this\n"
			       "\n"
			       "See smallservd(8) and smallservd.conf(5).\n";

static const struct option options[] = {
	{"config", required_argument, NULL, 'c'}, {"check", no_argument, NULL, 't'},
	{"dump", no_argument, NULL, 'T'},         {"list-types", no_argument, NULL, 'l'},
	{"verbose", no_argument, NULL, 'v'},      {"version", no_argument, NULL, 'V'},
	{"help", no_argument, NULL, 'h'},         {NULL, 0, NULL, 0},
};

static const enum action actions[] = {
	['t'] = ACTION_CHECK,   ['T'] = ACTION_DUMP, ['l'] = ACTION_LIST_TYPES,
	['V'] = ACTION_VERSION, ['h'] = ACTION_HELP, ['?'] = ACTION_REFUSE,
};

static struct arguments refuse(struct arguments arguments)
{
	fputs("Try 'smallservd --help'.\n", stderr);
	arguments.action = ACTION_REFUSE;
	return arguments;
}

struct arguments arguments_parse(int argc, char **argv)
{
	struct arguments arguments = {.action = ACTION_SERVE, .config = DEFAULT_CONFIG};
	int letter;

	while ((letter = getopt_long(argc, argv, "c:tTlvVh", options, NULL)) != -1) {
		if (letter == '?')
			return refuse(arguments);
		if (letter == 'c') {
			arguments.config = optarg;
		} else if (letter == 'v') {
			arguments.verbose++;
		} else if (arguments.action == ACTION_SERVE || arguments.action == actions[letter]) {
			arguments.action = actions[letter];
		} else {
			fputs("smallservd: these options exclude each other\n", stderr);
			return refuse(arguments);
		}
	}
	if (optind < argc) {
		fprintf(stderr, "smallservd: unexpected argument '%s'\n", argv[optind]);
		return refuse(arguments);
	}
	return arguments;
}
