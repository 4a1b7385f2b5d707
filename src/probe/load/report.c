/* report.c: results and progress of a load, as text and JSON. */
#include "probe/load/report.h"

#include <inttypes.h>
#include <stddef.h>
#include <string.h>

#include "core/array.h"
#include "probe/json.h"

enum { BAR_WIDTH = 20 };

/* The counts by name, in the order of output. */
static const struct {
	const char *name, *text;
	size_t offset;
	bool always; /* printed as text also if 0 */
} rows[] = {
	{"sent", "sent", offsetof(struct load_stats, counts.sent), true},
	{"received", "received", offsetof(struct load_stats, counts.received), true},
	{"lost", "lost", offsetof(struct load_stats, counts.lost), true},
	{"in_flight", "in flight", offsetof(struct load_stats, counts.in_flight), false},
	{"late", "late", offsetof(struct load_stats, counts.late), false},
	{"reordered", "reordered", offsetof(struct load_stats, counts.reordered), false},
	{"duplicated", "duplicated", offsetof(struct load_stats, counts.duplicated), false},
	{"corrupted", "corrupted", offsetof(struct load_stats, counts.corrupted), false},
	{"wrong_source", "from a wrong source", offsetof(struct load_stats, counts.wrong_source), false},
	{"unexpected", "unexpected", offsetof(struct load_stats, counts.unexpected), false},
	{"behind", "due but not sent", offsetof(struct load_stats, behind), false},
	{"refused", "refused by the network", offsetof(struct load_stats, refused), false},
	{"stalls", "connections stalled", offsetof(struct load_stats, stalls), false},
	{"broken", "connections broken", offsetof(struct load_stats, broken), false},
};
enum { ROWS = COUNT_OF(rows) };

static uint64_t value_of(const struct load_stats *stats, size_t row)
{
	uint64_t value;

	memcpy(&value, (const char *)stats + rows[row].offset, sizeof value);
	return value;
}

static double seconds(uint64_t ns)
{
	return (double)ns / 1e9;
}

static double per_second(uint64_t count, uint64_t elapsed_ns)
{
	return elapsed_ns == 0 ? 0 : (double)count / seconds(elapsed_ns);
}

/* --- JSON --- */

static void json_plan(struct json *json, const struct options *options)
{
	json_begin_object(json, "load");
	json_uint(json, "connections", options->connections);
	json_uint(json, "depth", options->depth);
	json_uint(json, "threads", options->threads);
	json_uint(json, "batch", options->batch);
	json_uint(json, "size", options->size);
	json_number(json, "duration_s", (double)options->duration_ms / 1e3, 3);
	if (options->rate > 0)
		json_number(json, "rate", options->rate, 3);
	else
		json_null(json, "rate");
	json_end(json);
}

static void json_row(void *context, uint64_t from_ns, uint64_t count)
{
	struct json *json = context;

	json_begin_object(json, NULL);
	json_number(json, "from_ms", (double)from_ns / 1e6, 6);
	json_uint(json, "count", count);
	json_end(json);
}

static void json_histogram(struct json *json, const struct histogram *histogram)
{
	json_begin_array(json, "histogram");
	histogram_each(histogram, json_row, json);
	json_end(json);
}

static bool print_json(const struct load *load, const struct load_outcome *outcome)
{
	const struct load_stats *stats = outcome->stats;
	const struct rtt_summary rtt = rtt_summary(&stats->rtt);
	struct json json = {.file = stdout};

	json_begin_object(&json, NULL);
	json_string(&json, "type", options_types[load->options->type].name);
	json_string(&json, "transport", options_transport(load->options));
	json_string(&json, "host", load->target->host);
	json_uint(&json, "port", load->target->port);
	json_string(&json, "peer", outcome->status == EXIT_NO_CONNECTION ? NULL : load->peer);
	json_plan(&json, load->options);
	for (size_t i = 0; i < ROWS; i++)
		json_uint(&json, rows[i].name, value_of(stats, i));
	json_number(&json, "loss_percent", series_loss(&stats->counts), 4);
	json_uint(&json, "sent_bytes", stats->sent_bytes);
	json_uint(&json, "received_bytes", stats->received_bytes);
	json_number(&json, "elapsed_s", seconds(stats->elapsed_ns), 6);
	json_number(&json, "requests_per_second", per_second(stats->counts.received, stats->elapsed_ns), 1);
	rtt_write_json(&rtt, &json);
	json_histogram(&json, &stats->rtt.histogram);
	json_bool(&json, "interrupted", outcome->interrupted);
	json_string(&json, "error", outcome->error);
	json_int(&json, "exit_status", outcome->status);
	json_end(&json);
	return json_finish(&json);
}

/* --- text --- */

static void print_counts(const struct load_stats *stats)
{
	for (size_t i = 0; i < ROWS; i++) {
		uint64_t value = value_of(stats, i);
		if (value == 0 && !rows[i].always)
			continue;
		printf("%s%" PRIu64 " %s", i > 0 ? ", " : "", value, rows[i].text);
		if (rows[i].offset == offsetof(struct load_stats, counts.lost))
			printf(" (%.3g%%)", series_loss(&stats->counts));
	}
	putchar('\n');
}

static void print_latency(const struct rtt *rtt)
{
	const struct rtt_summary all = rtt_summary(rtt);

	if (all.count == 0)
		return;
	printf("rtt min/avg/max/mdev = %.3f/%.3f/%.3f/%.3f ms\n", all.min / 1e6, all.avg / 1e6, all.max / 1e6,
	       all.mdev / 1e6);
	printf("median %.3f ms, p90 %.3f ms, p99 %.3f ms, p99.9 %.3f ms\n", all.median / 1e6, all.p90 / 1e6,
	       all.p99 / 1e6, all.p999 / 1e6);
	histogram_print(&rtt->histogram, stdout);
}

static bool print_text(const struct load *load, const struct load_outcome *outcome)
{
	const struct load_stats *stats = outcome->stats;
	const struct options *options = load->options;

	printf("--- %s %s load over %s: %u %s, %u in flight on each, %u bytes, %u thread%s ---\n", load->peer,
	       options_types[options->type].name, options_transport(options), options->connections,
	       options->udp ? "flows" : "connections", options->depth, options->size, options->threads,
	       options->threads > 1 ? "s" : "");
	print_counts(stats);
	printf("%.3f s%s, %.1f requests/s, %.2f MB/s sent, %.2f MB/s received\n", seconds(stats->elapsed_ns),
	       outcome->interrupted ? " (interrupted)" : "", per_second(stats->counts.received, stats->elapsed_ns),
	       per_second(stats->sent_bytes, stats->elapsed_ns) / 1e6,
	       per_second(stats->received_bytes, stats->elapsed_ns) / 1e6);
	print_latency(&stats->rtt);
	return fflush(stdout) == 0 && ferror(stdout) == 0;
}

bool load_report_print(const struct load *load, const struct load_outcome *outcome)
{
	return load->options->json ? print_json(load, outcome) : print_text(load, outcome);
}

/* --- progress --- */

/* Returns the 99th percentile of the values added to NOW since BEFORE, as text; empty without any. */
static const char *recent_p99(const struct rtt *now, const struct rtt *before, char *text)
{
	static struct histogram since;

	histogram_since(&now->histogram, &before->histogram, &since);
	return since.count == 0 ? "-" : histogram_time_text((double)histogram_percentile(&since, 0.99), text);
}

void load_report_progress(const struct load *load, const struct load_stats *now, const struct load_stats *before,
			  uint64_t elapsed_ns, uint64_t at_ns)
{
	char p99[HISTOGRAM_TIME_SIZE];
	uint64_t done = at_ns < load->duration_ns ? at_ns * BAR_WIDTH / load->duration_ns : BAR_WIDTH;

	fprintf(stderr, "\r\033[K[%.*s%*s] %.1f s  %.0f requests/s  lost %.3g%%  p99 %s", (int)done,
		"####################", (int)(BAR_WIDTH - done), "", seconds(at_ns),
		per_second(now->counts.received - before->counts.received, elapsed_ns), series_loss(&now->counts),
		recent_p99(&now->rtt, &before->rtt, p99));
	fflush(stderr);
}

void load_report_clear(const struct load *load)
{
	if (load->options->progress)
		fputs("\r\033[K", stderr);
}
