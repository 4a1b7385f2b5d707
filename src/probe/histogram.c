/* histogram.c: durations counted in log-linear buckets, for percentiles. */
#include "probe/histogram.h"

#include <inttypes.h>
#include <math.h>

enum {
	A_DOUBLING = HISTOGRAM_BUCKETS_A_DOUBLING,
	A_DOUBLING_BITS = 6,
	ROWS_MAX = 24, /* the target, before a row stands for more than a power of two */
	BAR_WIDTH = 40,
};
_Static_assert(1 << A_DOUBLING_BITS == A_DOUBLING, "a doubling has 2^6 buckets");

static unsigned bucket_of(uint64_t value)
{
	if (value < A_DOUBLING)
		return (unsigned)value;
	unsigned shift = 63 - A_DOUBLING_BITS - (unsigned)__builtin_clzll(value);
	return (shift + 1) * A_DOUBLING + (unsigned)((value >> shift) - A_DOUBLING);
}

/* Returns the smallest value of BUCKET. */
static uint64_t bucket_start(unsigned bucket)
{
	if (bucket < A_DOUBLING)
		return bucket;
	return (uint64_t)(A_DOUBLING + bucket % A_DOUBLING) << (bucket / A_DOUBLING - 1);
}

static uint64_t bucket_middle(unsigned bucket)
{
	if (bucket < 2 * A_DOUBLING)
		return bucket_start(bucket);
	return bucket_start(bucket) + (UINT64_C(1) << (bucket / A_DOUBLING - 1)) / 2;
}

void histogram_add(struct histogram *histogram, uint64_t value_ns)
{
	if (histogram->count == 0 || value_ns < histogram->minimum_ns)
		histogram->minimum_ns = value_ns;
	if (value_ns > histogram->maximum_ns)
		histogram->maximum_ns = value_ns;
	histogram->count++;
	histogram->buckets[bucket_of(value_ns)]++;
}

void histogram_merge(struct histogram *histogram, const struct histogram *other)
{
	if (other->count == 0)
		return;
	if (histogram->count == 0 || other->minimum_ns < histogram->minimum_ns)
		histogram->minimum_ns = other->minimum_ns;
	if (other->maximum_ns > histogram->maximum_ns)
		histogram->maximum_ns = other->maximum_ns;
	histogram->count += other->count;
	for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++)
		histogram->buckets[i] += other->buckets[i];
}

void histogram_since(const struct histogram *histogram, const struct histogram *before, struct histogram *since)
{
	*since = (struct histogram){0};
	for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++) {
		uint64_t here = since->buckets[i] = histogram->buckets[i] - before->buckets[i];
		if (here == 0)
			continue;
		since->minimum_ns = since->count == 0 ? bucket_middle(i) : since->minimum_ns;
		since->maximum_ns = bucket_middle(i);
		since->count += here;
	}
}

uint64_t histogram_percentile(const struct histogram *histogram, double part)
{
	double wanted = ceil(part * (double)histogram->count);
	if (wanted <= 1)
		return histogram->minimum_ns;
	if (wanted >= (double)histogram->count)
		return histogram->maximum_ns;
	uint64_t rank = (uint64_t)wanted, seen = 0;
	unsigned bucket = 0;
	while ((seen += histogram->buckets[bucket]) < rank)
		bucket++;
	/* the middle of the first or last bucket can lie outside the extremes */
	uint64_t value = bucket_middle(bucket);
	if (value < histogram->minimum_ns)
		return histogram->minimum_ns;
	return value > histogram->maximum_ns ? histogram->maximum_ns : value;
}

char *histogram_time_text(double value_ns, char *text)
{
	static const struct {
		double ns;
		const char *name;
	} units[] = {{1e9, "s"}, {1e6, "ms"}, {1e3, "us"}, {1, "ns"}};
	unsigned unit = 0;
	while (unit < 3 && value_ns < units[unit].ns * 0.9995)
		unit++;
	double value = value_ns / units[unit].ns;
	int decimals = value >= 99.95 ? 0 : value >= 9.995 ? 1 : 2;
	snprintf(text, HISTOGRAM_TIME_SIZE, "%.*f %s", unit == 3 ? 0 : decimals, value, units[unit].name);
	return text;
}

void histogram_each(const struct histogram *histogram, void (*each)(void *context, uint64_t from_ns, uint64_t count),
		    void *context)
{
	if (histogram->count == 0)
		return;
	unsigned first = bucket_of(histogram->minimum_ns), last = bucket_of(histogram->maximum_ns), a_row = 1;
	while (a_row < A_DOUBLING && last / a_row - first / a_row >= ROWS_MAX)
		a_row *= 2;
	for (unsigned row = first / a_row; row <= last / a_row; row++) {
		uint64_t here = 0;
		for (unsigned i = row * a_row; i < (row + 1) * a_row; i++)
			here += histogram->buckets[i];
		if (here > 0)
			each(context, bucket_start(row * a_row), here);
	}
}

struct drawing {
	FILE *file;
	uint64_t all, largest, below;
};

static void measure_row(void *context, uint64_t from_ns, uint64_t count)
{
	struct drawing *drawing = context;

	(void)from_ns;
	drawing->largest = count > drawing->largest ? count : drawing->largest;
}

static void draw_row(void *context, uint64_t from_ns, uint64_t count)
{
	struct drawing *drawing = context;
	char from[HISTOGRAM_TIME_SIZE];
	int bar = (int)((double)count / (double)drawing->largest * BAR_WIDTH + 0.5);

	drawing->below += count;
	fprintf(drawing->file, "  from %9s %12" PRIu64 " %7.3f%% %.*s\n", histogram_time_text((double)from_ns, from),
		count, 100 * (double)drawing->below / (double)drawing->all, bar > 0 ? bar : 1,
		"########################################");
}

void histogram_print(const struct histogram *histogram, FILE *file)
{
	struct drawing drawing = {.file = file, .all = histogram->count};

	histogram_each(histogram, measure_row, &drawing);
	histogram_each(histogram, draw_row, &drawing);
}
