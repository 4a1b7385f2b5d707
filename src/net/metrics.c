/* metrics.c: the counters of services: names, per-worker blocks, sums, text. */
#include "net/metrics.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define METRIC_ROW(name, family, reason, transports) {family, reason, transports},
const struct metrics_row metrics_rows[METRIC_COUNT] = {METRICS(METRIC_ROW)};
#undef METRIC_ROW

struct metrics_block *metrics_new(unsigned workers)
{
	struct metrics_block *blocks = aligned_alloc(_Alignof(struct metrics_block), workers * sizeof *blocks);
	if (blocks != NULL)
		memset(blocks, 0, workers * sizeof *blocks);
	return blocks;
}

void metrics_sum(const struct metrics_block *blocks, unsigned workers, struct metrics_sums *sums)
{
	*sums = (struct metrics_sums){0};
	for (unsigned worker = 0; worker < workers; worker++)
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
