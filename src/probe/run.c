/* run.c: one run of the probe: event loop, counters, end and summary. */
#include "probe/run.h"

#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/array.h"
#include "probe/report.h"
#include "probe/tls_client.h"

enum { SERIES_WINDOW = 65536, NS_PER_US = 1000, US_PER_S = 1000000 };

uint64_t run_now(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000U + (uint64_t)now.tv_nsec;
}

struct timeval run_delay(int64_t ns)
{
	int64_t us = ns > 0 ? (ns + NS_PER_US - 1) / NS_PER_US : 0;

	return (struct timeval){.tv_sec = us / US_PER_S, .tv_usec = us % US_PER_S};
}

static void on_end(evutil_socket_t fd, short what, void *context)
{
	struct run *run = context;

	(void)fd;
	run->interrupted = what == EV_SIGNAL;
	run_stop(run);
}

/* Creates an event base with timers accurate to the microsecond, for short intervals. */
static struct event_base *new_base(void)
{
	struct event_config *config = event_config_new();

	if (config == NULL)
		return NULL;
	struct event_base *base = NULL;

	if (event_config_set_flag(config, EVENT_BASE_FLAG_PRECISE_TIMER | EVENT_BASE_FLAG_NOLOCK) == 0)
		base = event_base_new_with_config(config);
	event_config_free(config);
	return base;
}

static bool watch_for_end(struct run *run)
{
	struct timeval deadline = run_delay(run->options->deadline_ms * MS_NS);

	run->ends[0] = evsignal_new(run->base, SIGINT, on_end, run);
	run->ends[1] = evsignal_new(run->base, SIGTERM, on_end, run);
	if (run->ends[0] == NULL || run->ends[1] == NULL || event_add(run->ends[0], NULL) < 0 ||
	    event_add(run->ends[1], NULL) < 0)
		return false;
	if (!run->options->deadline_ms)
		return true;
	run->ends[2] = evtimer_new(run->base, on_end, run);
	return run->ends[2] != NULL && event_add(run->ends[2], &deadline) == 0;
}

struct run *run_new(const struct options *options, const struct target *target, char *error)
{
	struct run *run = calloc(1, sizeof *run);

	snprintf(error, TARGET_ERROR_SIZE, "%s", strerror(ENOMEM));
	if (run == NULL)
		return NULL;
	run->options = options;
	run->target = target;
	run->base = new_base();
	run->series = series_new(SERIES_WINDOW);
	if (run->base == NULL || run->series == NULL || !watch_for_end(run))
		goto fail;
	if (options->tls)
		run->tls = tls_client_context(options, error);
	if (!options->tls || run->tls != NULL)
		return run;
fail:
	run_free(run);
	return NULL;
}

void run_free(struct run *run)
{
	if (run == NULL)
		return;
	SSL_CTX_free(run->tls);
	for (size_t i = 0; i < COUNT_OF(run->ends); i++)
		if (run->ends[i] != NULL)
			event_free(run->ends[i]);
	series_free(run->series);
	if (run->base != NULL)
		event_base_free(run->base);
	free(run);
}

void run_loop(struct run *run)
{
	if (!run->stopped && event_base_dispatch(run->base) < 0)
		run_fail(run, "the event loop failed");
}

void run_stop(struct run *run)
{
	run->stopped = true;
	event_base_loopbreak(run->base);
}

void run_fail(struct run *run, const char *format, ...)
{
	va_list values;

	va_start(values, format);
	vsnprintf(run->failure, sizeof run->failure, format, values);
	va_end(values);
	run->failed = true;
	if (!run->options->silent)
		report_error("%s", run->failure);
}

void run_note_unreached(struct run *run, const char *format, ...)
{
	va_list values;

	va_start(values, format);
	vsnprintf(run->failure, sizeof run->failure, format, values);
	va_end(values);
}

/* Returns the exit status. Requests in flight at the end are neither lost nor answered; a run without any reply is no
 * success. */
static int exit_status(const struct run *run, const struct series_counts *counts)
{
	const struct options *options = run->options;

	if (!run->reached && (run->failure[0] != '\0' || !options->udp))
		return EXIT_NO_CONNECTION;
	if (run->failed || run->wrong || counts->corrupted || counts->wrong_source || counts->unexpected)
		return EXIT_WRONG;
	if (counts->received == 0 && options->max_loss < 100)
		return EXIT_WRONG;
	return series_loss(counts) > options->max_loss ? EXIT_WRONG : EXIT_OK;
}

static void print_counts(const struct run *run, const struct series_counts *counts, int status)
{
	const struct options *options = run->options;

	report_summary(options, REPORT_PLAIN, "--- %s %s%s%s%s over %s ---", options_types[options->type].name,
		       run->target->host, run->peer[0] ? " (" : "", run->peer, run->peer[0] ? ")" : "",
		       options_transport(options));
	report_summary(
		options, status == EXIT_OK ? REPORT_GOOD : REPORT_BAD,
		"%llu sent, %llu received, %.4g%% lost, %llu duplicated, %llu reordered, %llu late, %llu corrupted, "
		"%llu wrong source",
		(unsigned long long)counts->sent, (unsigned long long)counts->received, series_loss(counts),
		(unsigned long long)counts->duplicated, (unsigned long long)counts->reordered,
		(unsigned long long)counts->late, (unsigned long long)counts->corrupted,
		(unsigned long long)counts->wrong_source);
	if (counts->unexpected)
		report_summary(options, REPORT_BAD, "%llu unexpected", (unsigned long long)counts->unexpected);
}

static double ms(double ns)
{
	return ns / 1e6;
}

static void print_times(const struct run *run, const struct rtt_summary *rtt)
{
	if (rtt->count == 0)
		return;
	report_summary(run->options, REPORT_PLAIN, "rtt min/avg/max/mdev = %.3f/%.3f/%.3f/%.3f ms", ms(rtt->min),
		       ms(rtt->avg), ms(rtt->max), ms(rtt->mdev));
	report_summary(run->options, REPORT_PLAIN,
		       "median %.3f ms, p90 %.3f ms, p99 %.3f ms, p99.9 %.3f ms, jitter %.3f ms", ms(rtt->median),
		       ms(rtt->p90), ms(rtt->p99), ms(rtt->p999), ms(rtt->jitter));
}

static bool write_json(const struct run *run, const struct series_counts *counts, const struct rtt_summary *rtt,
		       int status)
{
	const struct options *options = run->options;
	struct json json = {.file = stdout};

	json_begin_object(&json, NULL);
	json_string(&json, "type", options_types[options->type].name);
	json_string(&json, "transport", options_transport(options));
	json_string(&json, "host", run->target->host);
	json_uint(&json, "port", run->target->port);
	json_string(&json, "peer", run->peer[0] ? run->peer : NULL);
	json_uint(&json, "sent", counts->sent);
	json_uint(&json, "received", counts->received);
	json_uint(&json, "lost", counts->lost);
	json_uint(&json, "in_flight", counts->in_flight);
	json_number(&json, "loss_percent", series_loss(counts), 4);
	json_uint(&json, "duplicated", counts->duplicated);
	json_uint(&json, "reordered", counts->reordered);
	json_uint(&json, "late", counts->late);
	json_uint(&json, "corrupted", counts->corrupted);
	json_uint(&json, "wrong_source", counts->wrong_source);
	json_uint(&json, "unexpected", counts->unexpected);
	rtt_write_json(rtt, &json);
	if (run->summarize != NULL)
		run->summarize(run->context, &json);
	json_string(&json, "error", run->failure[0] ? run->failure : NULL);
	json_int(&json, "exit_status", status);
	json_end(&json);
	return json_finish(&json);
}

/* Returns STATUS, unless output was lost. */
static int status_after_output(int status, bool told)
{
	if (told)
		return status;
	report_error("cannot write to standard output");
	return EXIT_WRONG;
}

int run_finish(struct run *run)
{
	struct series_counts counts = series_counts(run->series);

	if (!run->reached && !run->options->udp && run->failure[0] == '\0')
		run_note_unreached(run, "connect to %s port %u: not done at the end", run->target->host,
				   (unsigned)run->target->port);
	struct rtt_summary rtt = rtt_summary(&run->rtt);
	int status = exit_status(run, &counts);

	if (run->options->silent)
		return status;
	if (status == EXIT_NO_CONNECTION && !run->failed)
		report_error("%s", run->failure);
	if (run->options->json)
		return status_after_output(status, write_json(run, &counts, &rtt, status));
	if (counts.sent > 0 && (status != EXIT_NO_CONNECTION || run->options->udp)) {
		print_counts(run, &counts, status);
		print_times(run, &rtt);
		if (run->summarize != NULL)
			run->summarize(run->context, NULL);
	}
	return status_after_output(status, !report_is_lost());
}
