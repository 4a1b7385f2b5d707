/* options.h: the command line of smallprobe as a value. */
#ifndef SMALLSERVD_PROBE_OPTIONS_H
#define SMALLSERVD_PROBE_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

/* The exit statuses that are promised. */
enum exit_status {
	EXIT_RIGHT = 0,         /* all was answered, and right */
	EXIT_WRONG = 1,         /* something was lost or wrong */
	EXIT_USAGE = 2,         /* the command line is wrong */
	EXIT_NO_CONNECTION = 3, /* nobody was reached */
};

enum options_action {
	OPTIONS_PROBE,
	OPTIONS_VERSION,
	OPTIONS_HELP,
	OPTIONS_REFUSE, /* the command line is wrong, and stderr says how */
};

/* What is probed; the index of options_types. */
enum probe_type { TYPE_ECHO, TYPE_DISCARD, TYPE_DAYTIME, TYPE_QOTD, TYPE_CHARGEN, TYPE_TIME, TYPE_COUNT };

struct options_type {
	const char *name;
	uint16_t port; /* IANA's */
};
extern const struct options_type options_types[TYPE_COUNT];

enum { OPTIONS_DSCP_UNSET = -1, OPTIONS_ERROR_SIZE = 512 };

struct options {
	enum options_action action;
	enum probe_type type;
	const char *target; /* HOST[:PORT] as given */

	bool udp;
	int family;            /* AF_UNSPEC, AF_INET or AF_INET6 */
	const char *port;      /* a number or a service's name; NULL: the target's or IANA's */
	const char *bind;      /* ADDRESS[:PORT] or NULL */
	const char *interface; /* or NULL */
	unsigned ttl;          /* 0: the kernel's */
	int64_t dscp;          /* 0 to 63 or OPTIONS_DSCP_UNSET */

	uint64_t count; /* 0: without end */
	bool count_given;
	int64_t interval_us;
	unsigned size; /* bytes a request */
	bool size_given;
	int64_t timeout_ms;  /* for a reply or a connection */
	int64_t deadline_ms; /* for all; 0: none */
	int64_t wait_ms;     /* how long to wait until the service answers; 0: not at all */
	double max_loss;     /* in percent, up to which the exit status is 0 */

	bool tls, insecure;
	const char *cacert, *cert, *key, *server_name; /* or NULL */
	unsigned proxy;                                /* version of the PROXY header: 0 none, 1 or 2 */

	bool mtu, half_close, early, reconnect;

	bool load;            /* any of the following was given */
	unsigned connections; /* 1 unless given, so are the following */
	unsigned depth;       /* requests in flight a connection */
	unsigned threads;
	unsigned batch;      /* datagrams a system call */
	int64_t duration_ms; /* 10 s unless given */
	double rate;         /* requests a second over all connections; 0: as fast as it goes */

	bool json, quiet, timestamps;
	bool silent;   /* says nothing at all: an attempt of --wait, main says so */
	bool progress; /* stderr is a terminal that is watched: main says so */
	bool colour;   /* stdout is a terminal, and NO_COLOR does not forbid it: main says so */
};

/* Reads the command line. On OPTIONS_REFUSE the reason stands on stderr. The strings are those of ARGV. */
struct options options_parse(int argc, char **argv);

/* Writes what --help says. */
void options_print_help(FILE *out);

#endif
