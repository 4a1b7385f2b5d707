/* run.h: one run of the probe: event loop, counters, end and summary. */
#ifndef SMALLSERVD_PROBE_RUN_H
#define SMALLSERVD_PROBE_RUN_H

#include <event2/event.h>
#include <openssl/ssl.h>
#include <stdbool.h>
#include <stdint.h>

#include "probe/json.h"
#include "probe/options.h"
#include "probe/rtt.h"
#include "probe/series.h"
#include "probe/target.h"

enum { RUN_FAILURE_SIZE = 2304 };

struct run {
	const struct options *options;
	const struct target *target;
	struct event_base *base;
	SSL_CTX *tls; /* NULL: plain TCP */
	struct series *series;
	struct rtt rtt;
	char peer[TARGET_TEXT_SIZE];    /* address of the peer; empty: not known yet */
	char failure[RUN_FAILURE_SIZE]; /* the last error; empty: none */
	bool reached;                   /* the target was reached */
	bool wrong;                     /* a reply was wrong in a way that the series does not count */
	bool stopped;
	bool interrupted; /* by a signal */
	bool failed;      /* the probe itself failed */

	/* Adds to the summary: as JSON, or as text if JSON is NULL. NULL: no addition. */
	void (*summarize)(void *context, struct json *json);
	void *context;

	struct event *ends[3]; /* signals and the deadline */
};

/* Creates a run on TARGET. The options and the target have to outlive it. Returns NULL with the reason in ERROR
 * (TARGET_ERROR_SIZE bytes). */
struct run *run_new(const struct options *options, const struct target *target, char *error);
void run_free(struct run *run);

/* Runs the loop until run_stop (which may have been called before), SIGINT, SIGTERM or the deadline. */
void run_loop(struct run *run);
void run_stop(struct run *run);

/* Records an error of the probe and prints it to stderr. */
void run_fail(struct run *run, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Records why the target was unreachable: printed at the end if no connection succeeded. */
void run_note_unreached(struct run *run, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Prints the summary. Returns the exit status. */
int run_finish(struct run *run);

/* The nanoseconds of a millisecond. */
#define MS_NS INT64_C(1000000)

/* Returns a monotonic clock, in ns. Any thread. */
uint64_t run_now(void);

/* Converts a delay for libevent; a negative one is 0. */
struct timeval run_delay(int64_t ns);

#endif
