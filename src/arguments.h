/* arguments.h: the command line as a value. */
#ifndef SMALLSERVD_ARGUMENTS_H
#define SMALLSERVD_ARGUMENTS_H

enum action {
	ACTION_SERVE,
	ACTION_CHECK,
	ACTION_DUMP,
	ACTION_LIST_TYPES,
	ACTION_VERSION,
	ACTION_HELP,
	ACTION_REFUSE, /* the command line is invalid; the reason is on stderr */
};

struct arguments {
	enum action action;
	const char *config; /* a path, or `-` */
	int verbose;        /* number of -v */
};

extern const char arguments_usage[];

struct arguments arguments_parse(int argc, char **argv);

#endif
