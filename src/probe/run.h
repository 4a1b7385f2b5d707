/* run.h: one run of the probe: its loop, what it counts, its end and its summary. */
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
	SSL_CTX *tls; /* NULL: plain */
	struct series *series;
	struct rtt rtt;
	char peer[TARGET_TEXT_SIZE];    /* who answers, or is asked; empty: not known yet */
	char failure[RUN_FAILURE_SIZE]; /* the last that went wrong; empty: nothing did */
	bool reached;                   /* there is somebody */
	bool wrong;                     /* an answer was, in a way that the series does not count */
	bool stopped;
	bool interrupted; /* by a signal */
	bool failed;      /* we ourselves could not go on */

	/* Adds to the summary: to JSON, or to people when JSON is NULL. NULL: nothing to add. */
	void (*summarize)(void *context, struct json *json);
	void *context;

	struct event *ends[3]; /* signals and the deadline */
};

/* Everything for a run on TARGET. The options and the target have to outlive it. NULL: the reason is in ERROR
 * (TARGET_ERROR_SIZE bytes). */
struct run *run_new(const struct options *options, const struct target *target, char *error);
void run_free(struct run *run);

/* Runs the loop until run_stop (which may have been called before), SIGINT, SIGTERM or the deadline. */
void run_loop(struct run *run);
void run_stop(struct run *run);

/* Notes what went wrong and prints it to stderr. */
void run_fail(struct run *run, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Notes what the connection with the target failed of: printed at the end, when nobody was reached. */
void run_note_unreached(struct run *run, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Prints the summary. Returns the exit status. */
int run_finish(struct run *run);

/* A monotonic clock, in ns. */
uint64_t run_now(void);

/* A delay as libevent takes it; what is past is 0. */
struct timeval run_delay(int64_t ns);

#endif
