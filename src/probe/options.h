/* options.h: the command line of smallprobe as a value. */
#ifndef SMALLSERVD_PROBE_OPTIONS_H
#define SMALLSERVD_PROBE_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

/* The documented exit statuses. */
enum exit_status {
	EXIT_OK = 0,            /* every reply arrived and was correct */
	EXIT_WRONG = 1,         /* a reply was lost or wrong */
	EXIT_USAGE = 2,         /* the command line is wrong */
	EXIT_NO_CONNECTION = 3, /* no connection to the target */
};

enum options_action {
	OPTIONS_PROBE,
	OPTIONS_VERSION,
	OPTIONS_HELP,
	OPTIONS_REFUSE, /* the command line is wrong; stderr has the reason */
};

/* The service that is probed; the index of options_types. */
enum probe_type { TYPE_ECHO, TYPE_DISCARD, TYPE_DAYTIME, TYPE_QOTD, TYPE_CHARGEN, TYPE_TIME, TYPE_COUNT };

struct options_type {
	const char *name;
	uint16_t port; /* assigned by IANA */
};
extern const struct options_type options_types[TYPE_COUNT];

enum { OPTIONS_DSCP_UNSET = -1, OPTIONS_ERROR_SIZE = 512 };

struct options {
	enum options_action action;
	enum probe_type type;
	const char *target; /* HOST[:PORT] as given */

	bool udp;
	int family;            /* AF_UNSPEC, AF_INET or AF_INET6 */
	const char *port;      /* a number or the name of a service; NULL: the target's or IANA's */
	const char *bind;      /* ADDRESS[:PORT] or NULL */
	const char *interface; /* or NULL */
	unsigned ttl;          /* 0: the kernel's default */
	int64_t dscp;          /* 0 to 63 or OPTIONS_DSCP_UNSET */

	uint64_t count; /* 0: unlimited */
	bool count_given;
	int64_t interval_us;
	unsigned size; /* bytes per request */
	bool size_given;
	int64_t timeout_ms;  /* for a reply or a connection */
	int64_t deadline_ms; /* for the whole run; 0: none */
	int64_t wait_ms;     /* time to wait for the service to come up; 0: none */
	double max_loss;     /* percentage of loss up to which the exit status is 0 */

	bool tls, insecure;
	const char *cacert, *cert, *key, *server_name; /* or NULL */
	unsigned proxy;                                /* version of the PROXY header: 0 none, 1 or 2 */

	bool mtu, half_close, early, reconnect;

	bool load;            /* any of the following options was given */
	unsigned connections; /* default 1, as the following */
	unsigned depth;       /* requests in flight per connection */
	unsigned threads;
	unsigned batch;      /* datagrams per system call */
	int64_t duration_ms; /* default 10 s */
	double rate;         /* requests per second over all connections; 0: as fast as replies arrive */

	bool json, quiet, timestamps;
	bool silent;   /* prints no output: an attempt of --wait; set by main */
	bool progress; /* stderr is an interactive terminal; set by main */
	bool colour;   /* stdout is a terminal and NO_COLOR is unset; set by main */
};

/* Parses the command line. After OPTIONS_REFUSE the reason is on stderr. Strings point into ARGV. */
struct options options_parse(int argc, char **argv);

/* Returns the name of the transport, as in JSON: tcp, tls or udp. */
const char *options_transport(const struct options *options);

/* Writes the output of --help. */
void options_print_help(FILE *out);

#endif
