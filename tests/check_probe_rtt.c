/* check_probe_rtt.c: statistics of round trips against a naive computation. */
#include "probe/rtt.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "check_run.h"

enum { MANY = 10000 };

static struct rtt rtt, other;
static uint64_t values[MANY];
static uint64_t random_state;

static void setup(void)
{
	memset(&rtt, 0, sizeof rtt);
	memset(&other, 0, sizeof other);
	random_state = 88172645463325252;
}

static uint64_t next_random(void)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return random_state;
}

static int compare(const void *a, const void *b)
{
	uint64_t x, y;
	memcpy(&x, a, sizeof x);
	memcpy(&y, b, sizeof y);
	return (x > y) - (x < y);
}

START_TEST(empty_statistics_are_zero)
{
	struct rtt_summary summary = rtt_summary(&rtt), zero = {0};
	ck_assert_uint_eq(summary.count, 0);
	ck_assert_mem_eq(&summary.mdev, &zero.mdev, sizeof summary.mdev);
	ck_assert_double_eq(summary.median, 0);
	ck_assert_uint_eq(histogram_percentile(&rtt.histogram, 0.5), 0);
}
END_TEST

START_TEST(single_value_is_every_percentile)
{
	rtt_add(&rtt, 1234567);
	struct rtt_summary summary = rtt_summary(&rtt);
	ck_assert_double_eq(summary.min, 1234567);
	ck_assert_double_eq(summary.avg, 1234567);
	ck_assert_double_eq(summary.max, 1234567);
	ck_assert_double_eq(summary.median, 1234567);
	ck_assert_double_eq(summary.p999, 1234567);
	ck_assert_double_eq(summary.mdev, 0);
	ck_assert_double_eq(summary.jitter, 0);
}
END_TEST

START_TEST(known_values_give_known_statistics)
{
	static const uint64_t known[] = {2, 4, 4, 4, 5, 5, 7, 9};
	for (size_t i = 0; i < 8; i++)
		rtt_add(&rtt, known[i]);
	struct rtt_summary summary = rtt_summary(&rtt);
	ck_assert_double_eq(summary.avg, 5);
	ck_assert_double_eq(summary.mdev, 2);
	ck_assert_double_eq(summary.jitter, 1); /* 2 0 0 1 0 2 2: 7 of 7 */
	ck_assert_double_eq(summary.median, 4);
	ck_assert_double_eq(summary.p90, 9);
}
END_TEST

/* A day of round trips of a minute that differ by ns: sums of squares would lose the deviation. */
START_TEST(deviation_is_exact_for_large_similar_values)
{
	for (int i = 0; i < MANY; i++)
		rtt_add(&rtt, UINT64_C(60000000000) + (i % 2 ? 3 : 1));
	struct rtt_summary summary = rtt_summary(&rtt);
	ck_assert_double_eq_tol(summary.mdev, 1, 1e-3);
	ck_assert_double_eq_tol(summary.jitter, 2, 1e-9);
}
END_TEST

static const double parts[] = {0, 0.001, 0.01, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999, 0.9999, 1};

/* Distributions: uniform, log-uniform, few distinct values, growing. */
static uint64_t value_of(int shape, unsigned i)
{
	switch (shape) {
	case 0:
		return next_random() % 1000000;
	case 1:
		return next_random() >> (next_random() % 64);
	case 2:
		return 100 + next_random() % 3 * 50000;
	default:
		return UINT64_C(977) * i * i;
	}
}

START_TEST(percentiles_match_a_sorted_list_within_the_error)
{
	for (unsigned count = 1; count <= MANY; count = count * 3 + 1) {
		setup();
		for (unsigned i = 0; i < count; i++)
			histogram_add(&rtt.histogram, values[i] = value_of(_i, i));
		qsort(values, count, sizeof *values, compare);
		for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
			double rank = ceil(parts[i] * count);
			uint64_t exact = values[rank < 1 ? 0 : (unsigned)rank - 1];
			uint64_t told = histogram_percentile(&rtt.histogram, parts[i]);
			double error = fabs((double)told - (double)exact);
			ck_assert_msg(exact < 128 ? told == exact : error <= (double)exact / 128,
				      "shape %d, %u values, part %g: %llu, not %llu", _i, count, parts[i],
				      (unsigned long long)told, (unsigned long long)exact);
		}
		ck_assert_uint_eq(histogram_percentile(&rtt.histogram, 0), values[0]);
		ck_assert_uint_eq(histogram_percentile(&rtt.histogram, 1), values[count - 1]);
	}
}
END_TEST

START_TEST(mean_deviation_and_jitter_match_a_naive_computation)
{
	double sum = 0, squares = 0, differences = 0;
	for (unsigned i = 0; i < MANY; i++) {
		rtt_add(&rtt, values[i] = value_of(_i, i) >> 16);
		sum += (double)values[i];
		differences += i > 0 ? fabs((double)values[i] - (double)values[i - 1]) : 0;
	}
	for (unsigned i = 0; i < MANY; i++)
		squares += ((double)values[i] - sum / MANY) * ((double)values[i] - sum / MANY);
	struct rtt_summary summary = rtt_summary(&rtt);
	ck_assert_double_eq_tol(summary.avg, sum / MANY, sum / MANY * 1e-9);
	ck_assert_double_eq_tol(summary.mdev, sqrt(squares / MANY), sqrt(squares / MANY) * 1e-9);
	ck_assert_double_eq_tol(summary.jitter, differences / (MANY - 1), differences / MANY * 1e-9 + 1e-9);
}
END_TEST

START_TEST(merged_parts_equal_the_whole)
{
	static struct rtt whole, empty;
	memset(&whole, 0, sizeof whole);
	for (unsigned i = 0; i < MANY; i++) {
		uint64_t value = value_of(0, i);
		rtt_add(i < MANY / 3 ? &rtt : &other, value);
		rtt_add(&whole, value);
	}
	rtt_merge(&rtt, &empty);
	rtt_merge(&rtt, &other);
	rtt_merge(&empty, &rtt);
	struct rtt_summary merged = rtt_summary(&empty), at_once = rtt_summary(&whole);
	ck_assert_uint_eq(merged.count, MANY);
	ck_assert_double_eq(merged.min, at_once.min);
	ck_assert_double_eq(merged.max, at_once.max);
	ck_assert_double_eq(merged.p99, at_once.p99);
	ck_assert_double_eq_tol(merged.avg, at_once.avg, 1e-3);
	ck_assert_double_eq_tol(merged.mdev, at_once.mdev, 1e-3);
	ck_assert_double_eq_tol(merged.jitter, at_once.jitter, at_once.jitter * 1e-3);
	memset(&empty, 0, sizeof empty);
}
END_TEST

START_TEST(printed_rows_cover_every_value_once)
{
	static const uint64_t some[] = {900, 1000, 1100, 50000, 51000, 2000000000};
	for (size_t i = 0; i < 6; i++)
		histogram_add(&rtt.histogram, some[i]);
	char *text = NULL;
	size_t length = 0;
	FILE *file = open_memstream(&text, &length);
	ck_assert_ptr_nonnull(file);
	histogram_print(&rtt.histogram, file);
	ck_assert_int_eq(fclose(file), 0);
	unsigned long long sum = 0;
	unsigned rows = 0;
	for (char *line = strtok(text, "\n"); line != NULL; line = strtok(NULL, "\n")) {
		double from;
		char unit[3];
		unsigned long long count;
		ck_assert_int_eq(sscanf(line, "  from %lf %2s %llu", &from, unit, &count), 3);
		ck_assert_uint_gt(count, 0);
		sum += count;
		rows++;
		if (sum == 6)
			ck_assert_ptr_nonnull(strstr(line, "100.000%"));
	}
	ck_assert_uint_eq(sum, 6);
	ck_assert_uint_ge(rows, 3);
	ck_assert_uint_le(rows, 60);
	free(text);
}
END_TEST

START_TEST(difference_excludes_earlier_values)
{
	static struct histogram since;

	histogram_add(&rtt.histogram, 5);
	histogram_add(&rtt.histogram, 1000000000);
	other = rtt;
	histogram_since(&rtt.histogram, &other.histogram, &since);
	ck_assert_uint_eq(since.count, 0);
	ck_assert_uint_eq(histogram_percentile(&since, 0.99), 0);
	histogram_add(&rtt.histogram, 100);
	histogram_add(&rtt.histogram, 120);
	histogram_since(&rtt.histogram, &other.histogram, &since);
	ck_assert_uint_eq(since.count, 2);
	ck_assert_uint_eq(histogram_percentile(&since, 0), 100);
	ck_assert_uint_eq(histogram_percentile(&since, 0.99), 120);
}
END_TEST

START_TEST(durations_are_printed_in_a_fitting_unit)
{
	static const struct {
		double ns;
		const char *text;
	} known[] = {{0, "0 ns"},           {999, "999 ns"},    {999.9, "1.00 us"},
		     {1000, "1.00 us"},     {12345, "12.3 us"}, {999949, "1.00 ms"},
		     {123456789, "123 ms"}, {1.5e9, "1.50 s"},  {123e9, "123 s"}};
	char text[HISTOGRAM_TIME_SIZE];
	for (size_t i = 0; i < sizeof known / sizeof *known; i++)
		ck_assert_str_eq(histogram_time_text(known[i].ns, text), known[i].text);
}
END_TEST

START_TEST(summary_is_written_in_ms_or_as_null)
{
	const struct rtt_summary summary = {.count = 1, .min = 1e6, .avg = 1.5e6, .p999 = 2}, none = {0};
	char *text = NULL;
	size_t length = 0;
	struct json json = {.file = open_memstream(&text, &length)};
	ck_assert_ptr_nonnull(json.file);
	json_begin_object(&json, NULL);
	rtt_write_json(&summary, &json);
	json_end(&json);
	json_begin_object(&json, NULL);
	rtt_write_json(&none, &json);
	json_end(&json);
	ck_assert_int_eq(fclose(json.file), 0);
	ck_assert_str_eq(text, "{\"rtt_ms\": {\"min\": 1.000000, \"avg\": 1.500000, \"max\": 0.000000, "
			       "\"mdev\": 0.000000, \"median\": 0.000000, \"p90\": 0.000000, "
			       "\"p99\": 0.000000, \"p999\": 0.000002, \"jitter\": 0.000000}}\n{\"rtt_ms\": null}\n");
	free(text);
}
END_TEST

static Suite *suite(void)
{
	Suite *suite = suite_create("probe rtt");
	TCase *figures = tcase_create("figures");
	tcase_add_checked_fixture(figures, setup, NULL);
	tcase_add_test(figures, empty_statistics_are_zero);
	tcase_add_test(figures, single_value_is_every_percentile);
	tcase_add_test(figures, known_values_give_known_statistics);
	tcase_add_test(figures, deviation_is_exact_for_large_similar_values);
	tcase_add_loop_test(figures, percentiles_match_a_sorted_list_within_the_error, 0, 4);
	tcase_add_loop_test(figures, mean_deviation_and_jitter_match_a_naive_computation, 0, 4);
	tcase_add_test(figures, merged_parts_equal_the_whole);
	tcase_add_test(figures, printed_rows_cover_every_value_once);
	tcase_add_test(figures, difference_excludes_earlier_values);
	tcase_add_test(figures, durations_are_printed_in_a_fitting_unit);
	tcase_add_test(figures, summary_is_written_in_ms_or_as_null);
	suite_add_tcase(suite, figures);
	return suite;
}

int main(void)
{
	return check_run(suite());
}
