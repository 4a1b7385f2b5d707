/* metrics.c: the counters of services: names, per-worker blocks, sums, text. */
#include "net/metrics.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#define METRIC_ROW(name, family, reason, transports) {family, reason, transports},
const struct metrics_row metrics_rows[METRIC_COUNT] = {METRICS(METRIC_ROW)};
#undef METRIC_ROW

/* The blocks of one service on one transport. */
struct series {
	SLIST_ENTRY(series) link;
	char *name;
	unsigned transport;
	struct metrics_block *blocks;
};

struct metrics {
	unsigned workers;
	SLIST_HEAD(, series) series;
};

struct metrics *metrics_new(unsigned workers)
{
	struct metrics *metrics = calloc(1, sizeof *metrics);
	if (metrics != NULL)
		metrics->workers = workers;
	return metrics;
}

static void series_free(struct series *series)
{
	if (series == NULL)
		return;
	free(series->name);
	free(series->blocks);
	free(series);
}

void metrics_free(struct metrics *metrics)
{
	if (metrics == NULL)
		return;
	while (!SLIST_EMPTY(&metrics->series)) {
		struct series *series = SLIST_FIRST(&metrics->series);
		SLIST_REMOVE_HEAD(&metrics->series, link);
		series_free(series);
	}
	free(metrics);
}

static struct series *series_new(const char *name, unsigned transport, unsigned workers)
{
	struct series *series = calloc(1, sizeof *series);
	if (series == NULL)
		return NULL;
	series->name = strdup(name);
	series->transport = transport;
	series->blocks = aligned_alloc(_Alignof(struct metrics_block), workers * sizeof *series->blocks);
	if (series->name == NULL || series->blocks == NULL) {
		series_free(series);
		return NULL;
	}
	memset(series->blocks, 0, workers * sizeof *series->blocks);
	return series;
}

struct metrics_block *metrics_blocks(struct metrics *metrics, const char *name, unsigned transport)
{
	struct series *series;
	SLIST_FOREACH(series, &metrics->series, link)
		if (series->transport == transport && strcmp(series->name, name) == 0)
			return series->blocks;

	series = series_new(name, transport, metrics->workers);
	if (series == NULL)
		return NULL;
	SLIST_INSERT_HEAD(&metrics->series, series, link);
	return series->blocks;
}

void metrics_sum(const struct metrics *metrics, const struct metrics_block *blocks, struct metrics_sums *sums)
{
	*sums = (struct metrics_sums){0};
	for (unsigned worker = 0; worker < metrics->workers; worker++)
		for (int i = 0; i < METRIC_COUNT; i++)
			sums->values[i] += atomic_load_explicit(&blocks[worker].values[i], memory_order_relaxed);
}

uint64_t metrics_range(const struct metrics_sums *sums, enum metric first, enum metric last)
{
	uint64_t sum = 0;
	for (enum metric i = first; i <= last; i++)
		sum += sums->values[i];
	return sum;
}

void metrics_print(const struct metrics_sums *sums, unsigned transport, char *text, size_t size)
{
	size_t used = 0;
	if (size > 0)
		text[0] = '\0';
	for (int i = 0; i < METRIC_COUNT && used < size; i++) {
		const struct metrics_row *row = &metrics_rows[i];
		unsigned long long value = sums->values[i];
		const char *space = used > 0 ? " " : "";
		if (!(row->transports & transport) || (row->reason != NULL && value == 0))
			continue;
		int length = row->reason == NULL
				     ? snprintf(text + used, size - used, "%s%s=%llu", space, row->family, value)
				     : snprintf(text + used, size - used, "%s%s{%s}=%llu", space, row->family,
						row->reason, value);
		used += (size_t)length;
	}
}
