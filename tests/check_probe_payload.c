/* check_probe_payload.c: what became of a datagram or a stream is found in its bytes. */
#include "probe/payload.h"

#include <string.h>

#include "check_run.h"
#include "probe/series.h"

enum { SENT = 2000, LARGEST = 65507 };

static struct series *series;
static struct payload payload;
static char bytes[LARGEST + 1];

static void setup(void)
{
	series = series_new(4096);
	ck_assert_ptr_nonnull(series);
	payload = (struct payload){.seed = 42, .size = 56};
	for (uint64_t i = 1; i <= SENT; i++)
		series_send(series, UINT64_C(1000000000000) + i * 1000);
}

static void teardown(void)
{
	series_free(series);
}

static void fill(uint64_t sequence)
{
	uint64_t sent_ns = 0;
	ck_assert(series_sent_at(series, sequence, &sent_ns));
	payload_fill(&payload, bytes, sequence, sent_ns);
}

static struct payload_match match(size_t length)
{
	return payload_match(&payload, series, bytes, length);
}

static const size_t sizes[] = {9, 12, 16, 20, 23, 24, 25, 31, 56, 64, 65, 1472, 9000, 65507};

START_TEST(a_datagram_of_any_size_is_recognised)
{
	for (payload.size = 1; payload.size <= 100; payload.size++) {
		uint64_t sequence = SENT - payload.size;
		fill(sequence);
		struct payload_match found = match(payload.size);
		/* one byte only tells 256 apart */
		ck_assert_uint_eq(found.sequence, sequence);
		ck_assert(found.differs_at == PAYLOAD_SAME);
	}
}
END_TEST

START_TEST(a_datagram_without_bytes_answers_the_oldest_in_flight)
{
	payload.size = 0;
	series_receive(series, 1, 0);
	ck_assert_uint_eq(match(0).sequence, 2);
	ck_assert(match(0).differs_at == PAYLOAD_SAME);
	ck_assert_uint_eq(match(3).sequence, 2);
	ck_assert_uint_eq(match(3).differs_at, 0);
	while (series_time_out(series))
		;
	ck_assert_uint_eq(match(0).sequence, 0);
}
END_TEST

START_TEST(every_flipped_byte_is_found_and_the_request_too)
{
	payload.size = sizes[_i];
	size_t step = payload.size / 100 + 1;
	for (size_t at = 0; at < payload.size; at += step) {
		fill(1500);
		bytes[at] ^= (char)(1 << at % 8);
		struct payload_match found = match(payload.size);
		ck_assert_msg(found.sequence == 1500, "size %zu, byte %zu: taken for %llu", payload.size, at,
			      (unsigned long long)found.sequence);
		ck_assert_uint_eq(found.differs_at, at);
	}
}
END_TEST

/* In the sequence number itself every bit, so that it becomes that of others, too. */
START_TEST(every_flipped_bit_of_the_number_is_corruption_and_not_another_request)
{
	payload.size = sizes[_i];
	for (unsigned bit = 0; bit < 64; bit++) {
		fill(1234);
		bytes[bit / 8] ^= (char)(1 << bit % 8);
		struct payload_match found = match(payload.size);
		ck_assert_uint_eq(found.sequence, 1234);
		ck_assert_uint_eq(found.differs_at, bit / 8);
	}
}
END_TEST

START_TEST(a_number_alone_that_was_never_sent_is_nobodys)
{
	payload.size = 8;
	fill(5);
	bytes[5] ^= 1;
	ck_assert_uint_eq(match(8).sequence, 0);
}
END_TEST

START_TEST(short_numbers_are_those_of_the_last_that_have_them)
{
	payload.size = 1;
	bytes[0] = (char)(SENT & 0xff);
	ck_assert_uint_eq(match(1).sequence, SENT);
	bytes[0] = (char)(SENT + 1);
	ck_assert_uint_eq(match(1).sequence, SENT + 1 - 256);
	struct series *young = series_new(16);
	series_send(young, 1);
	bytes[0] = 0;
	ck_assert_uint_eq(payload_match(&payload, young, bytes, 1).sequence, 0);
	series_free(young);
}
END_TEST

START_TEST(cut_and_lengthened_datagrams_differ_where_the_shorter_ends)
{
	for (size_t length = 9; length < 56; length++) {
		fill(77 + SENT / 2);
		ck_assert_uint_eq(match(length).sequence, 77 + SENT / 2);
		ck_assert_uint_eq(match(length).differs_at, length);
	}
	fill(1900);
	ck_assert_uint_eq(match(57).sequence, 1900);
	ck_assert_uint_eq(match(57).differs_at, 56);
	ck_assert_uint_eq(match(0).differs_at, 0);
}
END_TEST

START_TEST(datagrams_of_another_run_or_of_chance_are_nobodys)
{
	for (size_t i = 4; i < sizeof sizes / sizeof *sizes; i++) {
		struct payload foreign = {.seed = 43, .size = sizes[i]};
		payload.size = sizes[i];
		payload_fill(&foreign, bytes, 1500, 12345);
		if (sizes[i] > 31)
			ck_assert_uint_eq(match(payload.size).sequence, 0);
		memset(bytes, 0x5a, payload.size);
		ck_assert_uint_eq(match(payload.size).sequence, 0);
	}
}
END_TEST

START_TEST(datagrams_of_each_number_and_seed_have_other_bytes)
{
	static char next[LARGEST];
	payload.size = 1400;
	fill(10);
	uint64_t sent_ns = 0;
	series_sent_at(series, 10, &sent_ns);
	ck_assert_uint_eq(payload_difference(&payload, bytes, 1400, 11, sent_ns), 0);
	payload_fill(&payload, next, 11, sent_ns);
	ck_assert_mem_ne(bytes + PAYLOAD_HEADER, next + PAYLOAD_HEADER, 16);
	payload.seed++;
	payload_fill(&payload, next, 10, sent_ns);
	ck_assert_mem_ne(bytes + PAYLOAD_HEADER, next + PAYLOAD_HEADER, 16);
}
END_TEST

START_TEST(a_fill_writes_its_size_and_not_a_byte_more)
{
	for (payload.size = 0; payload.size <= 80; payload.size++) {
		memset(bytes, 'x', 100);
		fill(3);
		for (size_t i = payload.size; i < 100; i++)
			ck_assert_int_eq(bytes[i], 'x');
	}
}
END_TEST

START_TEST(two_runs_have_two_seeds)
{
	ck_assert_uint_ne(payload_new_seed(), payload_new_seed());
}
END_TEST

/* --- the stream --- */

START_TEST(a_stream_is_the_same_however_it_is_cut)
{
	uint64_t position = UINT64_C(1) << 40;
	const char *whole = payload_stream(7, position);
	for (unsigned i = 0; i < PAYLOAD_STREAM_AHEAD; i += 1 + i / 7)
		ck_assert_int_eq(*payload_stream(7, position + i), whole[i]);
	ck_assert(payload_stream_difference(7, position, whole, PAYLOAD_STREAM_AHEAD) == PAYLOAD_SAME);
	ck_assert(payload_stream_difference(7, position, whole, 0) == PAYLOAD_SAME);
}
END_TEST

START_TEST(a_long_stretch_of_a_stream_is_checked_to_its_end)
{
	static char stretch[3 * PAYLOAD_STREAM_AHEAD + 5];
	for (size_t i = 0; i < sizeof stretch; i++)
		stretch[i] = *payload_stream(9, 100 + i);
	ck_assert(payload_stream_difference(9, 100, stretch, sizeof stretch) == PAYLOAD_SAME);
	for (size_t at = sizeof stretch - 1; at > 3; at /= 2) {
		stretch[at] ^= 4;
		ck_assert_uint_eq(payload_stream_difference(9, 100, stretch, sizeof stretch), at);
	}
}
END_TEST

START_TEST(a_stream_that_lost_or_gained_bytes_differs)
{
	for (unsigned shift = 1; shift < PAYLOAD_STREAM_PERIOD; shift += 1 + shift / 3) {
		const char *shifted = payload_stream(1, 5000 + shift);
		ck_assert_uint_lt(payload_stream_difference(1, 5000, shifted, 64), 8);
	}
}
END_TEST

START_TEST(streams_of_two_connections_differ)
{
	for (uint64_t seed = 1; seed < 200; seed++)
		ck_assert_mem_ne(payload_stream(0, 0), payload_stream(seed, 0), 16);
}
END_TEST

static Suite *suite(void)
{
	const int count = sizeof sizes / sizeof *sizes;
	Suite *suite = suite_create("probe payload");
	TCase *datagrams = tcase_create("datagrams"), *streams = tcase_create("streams");
	tcase_add_checked_fixture(datagrams, setup, teardown);
	tcase_add_test(datagrams, a_datagram_of_any_size_is_recognised);
	tcase_add_test(datagrams, a_datagram_without_bytes_answers_the_oldest_in_flight);
	tcase_add_loop_test(datagrams, every_flipped_byte_is_found_and_the_request_too, 2, count);
	tcase_add_loop_test(datagrams, every_flipped_bit_of_the_number_is_corruption_and_not_another_request, 2, count);
	tcase_add_test(datagrams, a_number_alone_that_was_never_sent_is_nobodys);
	tcase_add_test(datagrams, short_numbers_are_those_of_the_last_that_have_them);
	tcase_add_test(datagrams, cut_and_lengthened_datagrams_differ_where_the_shorter_ends);
	tcase_add_test(datagrams, datagrams_of_another_run_or_of_chance_are_nobodys);
	tcase_add_test(datagrams, datagrams_of_each_number_and_seed_have_other_bytes);
	tcase_add_test(datagrams, a_fill_writes_its_size_and_not_a_byte_more);
	tcase_add_test(datagrams, two_runs_have_two_seeds);
	suite_add_tcase(suite, datagrams);
	tcase_add_test(streams, a_stream_is_the_same_however_it_is_cut);
	tcase_add_test(streams, a_long_stretch_of_a_stream_is_checked_to_its_end);
	tcase_add_test(streams, a_stream_that_lost_or_gained_bytes_differs);
	tcase_add_test(streams, streams_of_two_connections_differ);
	suite_add_tcase(suite, streams);
	return suite;
}

int main(void)
{
	return check_run(suite());
}
