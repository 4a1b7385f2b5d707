/* check_metrics.c: counters are added up without a loss and printed by name. */
#include <stdbool.h>
#include <string.h>

#include "check_run.h"
#include "check_threads.h"
#include "core/transport.h"
#include "net/metrics.h"
#include "option/option.h"

enum { WORKERS = 4, ROUNDS = 200000, SEQUENCES = 2000, TEXT_SIZE = 4096 };

/* A fixed sequence by xorshift64*. */
static uint64_t random_state = 88172645463325252;

static uint64_t next_random(void)
{
	random_state ^= random_state >> 12;
	random_state ^= random_state << 25;
	random_state ^= random_state >> 27;
	return random_state * UINT64_C(2685821657736338717);
}

START_TEST(blocks_start_at_zero_and_share_no_cache_line)
{
	struct metrics_block *blocks = metrics_new(WORKERS);
	for (int worker = 0; worker < WORKERS; worker++) {
		ck_assert_uint_eq((uintptr_t)&blocks[worker] % 64, 0);
		for (int i = 0; i < METRIC_COUNT; i++)
			ck_assert_uint_eq(blocks[worker].values[i], 0);
	}
	free(blocks);
}
END_TEST

START_TEST(sum_adds_the_blocks_of_all_workers)
{
	struct metrics_block *blocks = metrics_new(WORKERS);
	struct metrics_block *others = metrics_new(WORKERS);
	uint64_t expected[METRIC_COUNT] = {0};
	struct metrics_sums sums;

	for (int i = 0; i < SEQUENCES; i++) {
		enum metric metric = next_random() % METRIC_COUNT;
		uint64_t amount = next_random() % 100000;
		metrics_add(&blocks[next_random() % WORKERS], metric, amount);
		metrics_add(&others[next_random() % WORKERS], next_random() % METRIC_COUNT, 1);
		expected[metric] += amount;
	}
	metrics_sum(blocks, WORKERS, &sums);
	for (int i = 0; i < METRIC_COUNT; i++)
		ck_assert_uint_eq(sums.values[i], expected[i]);
	free(others);
	free(blocks);
}
END_TEST

START_TEST(range_sums_all_counters_from_first_to_last)
{
	struct metrics_sums sums;
	for (int i = 0; i < METRIC_COUNT; i++)
		sums.values[i] = next_random() % 1000;
	for (int first = 0; first < METRIC_COUNT; first++) {
		uint64_t expected = 0;
		for (int last = first; last < METRIC_COUNT; last++) {
			expected += sums.values[last];
			ck_assert_uint_eq(metrics_range(&sums, (enum metric)first, (enum metric)last), expected);
		}
	}
}
END_TEST

/* --- several threads --- */

static void *count_up(void *argument)
{
	for (int i = 0; i < ROUNDS; i++) {
		metrics_add(argument, METRIC_RECEIVED_BYTES, 3);
		metrics_add(argument, METRIC_ACCEPTED, 1);
	}
	return NULL;
}

START_TEST(sums_during_counting_never_decrease_and_end_exact)
{
	struct metrics_block *blocks = metrics_new(WORKERS);
	struct metrics_sums sums;
	struct threads threads;
	uint64_t before = 0;

	threads_start(&threads, WORKERS, count_up, blocks, sizeof *blocks);
	for (int i = 0; i < 10000; i++) {
		metrics_sum(blocks, WORKERS, &sums);
		ck_assert_uint_ge(sums.values[METRIC_ACCEPTED], before);
		before = sums.values[METRIC_ACCEPTED];
	}
	threads_join(&threads);

	metrics_sum(blocks, WORKERS, &sums);
	ck_assert_uint_eq(sums.values[METRIC_ACCEPTED], (uint64_t)WORKERS * ROUNDS);
	ck_assert_uint_eq(sums.values[METRIC_RECEIVED_BYTES], (uint64_t)WORKERS * ROUNDS * 3);
	free(blocks);
}
END_TEST

/* --- names and text --- */

static bool is_reason(int metric)
{
	return (metric >= METRIC_REFUSED_FIRST && metric <= METRIC_REFUSED_LAST) ||
	       (metric >= METRIC_CLOSED_FIRST && metric <= METRIC_CLOSED_LAST) ||
	       (metric >= METRIC_DROPPED_FIRST && metric <= METRIC_DROPPED_LAST);
}

START_TEST(each_counter_has_a_unique_name)
{
	for (int i = 0; i < METRIC_COUNT; i++) {
		const struct metrics_row *row = &metrics_rows[i];
		ck_assert_ptr_nonnull(row->family);
		ck_assert(row->transports != 0 && (row->transports & ~(unsigned)TRANSPORT_BOTH) == 0);
		ck_assert_msg((row->reason != NULL) == is_reason(i), "metric %d", i);
		for (int j = 0; j < i; j++) {
			bool same = strcmp(row->family, metrics_rows[j].family) == 0 &&
				    (row->reason == NULL || strcmp(row->reason, metrics_rows[j].reason) == 0);
			ck_assert_msg(!same, "metrics %d and %d have the same name", i, j);
		}
	}
}
END_TEST

static void expect_print(const struct metrics_sums *sums, unsigned transport, char *text)
{
	FILE *out = fmemopen(text, TEXT_SIZE, "w");
	const char *space = "";
	for (int i = 0; i < METRIC_COUNT; i++) {
		const struct metrics_row *row = &metrics_rows[i];
		if ((row->transports & transport) == 0)
			continue;
		if (row->reason != NULL && sums->values[i] == 0)
			continue;
		fprintf(out, "%s%s", space, row->family);
		if (row->reason != NULL)
			fprintf(out, "{%s}", row->reason);
		fprintf(out, "=%llu", (unsigned long long)sums->values[i]);
		space = " ";
	}
	fclose(out);
}

/* Fills in values of any length, half of them zero. */
static void fill_random(struct metrics_sums *sums)
{
	for (int i = 0; i < METRIC_COUNT; i++) {
		uint64_t value = next_random();
		sums->values[i] = value % 2 == 0 ? 0 : next_random() >> (value >> 8) % 64;
	}
}

START_TEST(print_writes_the_same_as_a_naive_model)
{
	char expected[TEXT_SIZE], text[TEXT_SIZE];
	struct metrics_sums sums;
	for (int i = 0; i < SEQUENCES; i++) {
		unsigned transport = i % 2 == 0 ? TRANSPORT_TCP : TRANSPORT_UDP;
		fill_random(&sums);
		expect_print(&sums, transport, expected);
		metrics_print(&sums, transport, text, sizeof text);
		ck_assert_str_eq(text, expected);
	}
}
END_TEST

START_TEST(log_line_has_space_for_all_counters_at_a_million)
{
	struct metrics_sums sums;
	char text[1600]; /* as in server.c; a log line is longer */
	for (int i = 0; i < METRIC_COUNT; i++)
		sums.values[i] = 1000000;
	metrics_print(&sums, 1, text, sizeof text);
	ck_assert_uint_lt(strlen(text), sizeof text - 1);
	ck_assert_ptr_nonnull(strstr(text, "closed{tls_truncated}=1000000"));
	metrics_print(&sums, 2, text, sizeof text);
	ck_assert_uint_lt(strlen(text), sizeof text - 1);
}
END_TEST

START_TEST(print_of_zeros_has_no_reasons)
{
	const struct metrics_sums sums = {0};
	char text[TEXT_SIZE];
	metrics_print(&sums, TRANSPORT_TCP, text, sizeof text);
	ck_assert_str_eq(text, "received_bytes=0 sent_bytes=0 accepted=0");
	metrics_print(&sums, TRANSPORT_UDP, text, sizeof text);
	ck_assert_str_eq(text, "received_bytes=0 sent_bytes=0 datagrams_received=0 datagrams_sent=0");
}
END_TEST

/* Each text has a heap block of its size, so that a sanitizer detects an overflow. */
START_TEST(print_never_exceeds_its_buffer)
{
	char expected[TEXT_SIZE];
	struct metrics_sums sums;
	fill_random(&sums);
	expect_print(&sums, TRANSPORT_UDP, expected);
	size_t whole = strlen(expected);
	metrics_print(&sums, TRANSPORT_UDP, NULL, 0);
	for (size_t size = 1; size <= whole + 2; size++) {
		size_t length = size - 1 < whole ? size - 1 : whole;
		char *text = malloc(size);
		metrics_print(&sums, TRANSPORT_UDP, text, size);
		ck_assert_uint_eq(strlen(text), length);
		ck_assert_int_eq(strncmp(text, expected, length), 0);
		free(text);
	}
}
END_TEST

static Suite *suite(void)
{
	Suite *suite = suite_create("metrics");
	TCase *blocks = tcase_create("blocks");
	tcase_set_timeout(blocks, 60);
	tcase_add_test(blocks, blocks_start_at_zero_and_share_no_cache_line);
	tcase_add_test(blocks, sum_adds_the_blocks_of_all_workers);
	tcase_add_test(blocks, range_sums_all_counters_from_first_to_last);
	tcase_add_test(blocks, sums_during_counting_never_decrease_and_end_exact);
	suite_add_tcase(suite, blocks);

	TCase *print = tcase_create("print");
	tcase_set_timeout(print, 60);
	tcase_add_test(print, each_counter_has_a_unique_name);
	tcase_add_test(print, print_writes_the_same_as_a_naive_model);
	tcase_add_test(print, log_line_has_space_for_all_counters_at_a_million);
	tcase_add_test(print, print_of_zeros_has_no_reasons);
	tcase_add_test(print, print_never_exceeds_its_buffer);
	suite_add_tcase(suite, print);
	return suite;
}

int main(void)
{
	return check_run(suite());
}
