/* check_probe_payload.c: tests of the contents of datagrams and streams. */
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

START_TEST(datagram_of_any_size_is_matched)
{
	for (payload.size = 1; payload.size <= 100; payload.size++) {
		uint64_t sequence = SENT - payload.size;
		fill(sequence);
		struct payload_match found = match(payload.size);
		/* one byte distinguishes 256 numbers */
		ck_assert_uint_eq(found.sequence, sequence);
		ck_assert(found.differs_at == PAYLOAD_SAME);
	}
}
END_TEST

START_TEST(empty_datagram_answers_the_oldest_in_flight)
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

START_TEST(flipped_byte_is_found_and_the_request_matched)
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

/* Flips every bit of the sequence number, which makes it that of other requests. */
START_TEST(flipped_bit_in_the_sequence_number_is_corruption)
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

START_TEST(bare_number_never_sent_matches_no_request)
{
	payload.size = 8;
	fill(5);
	bytes[5] ^= 1;
	ck_assert_uint_eq(match(8).sequence, 0);
}
END_TEST

START_TEST(truncated_number_matches_the_latest_request)
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

START_TEST(wrong_length_differs_at_the_end_of_the_shorter)
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

START_TEST(foreign_and_random_datagrams_match_no_request)
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

START_TEST(datagrams_differ_by_number_and_seed)
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

START_TEST(fill_writes_exactly_its_size)
{
	for (payload.size = 0; payload.size <= 80; payload.size++) {
		memset(bytes, 'x', 100);
		fill(3);
		for (size_t i = payload.size; i < 100; i++)
			ck_assert_int_eq(bytes[i], 'x');
	}
}
END_TEST

START_TEST(new_seeds_differ)
{
	ck_assert_uint_ne(payload_new_seed(), payload_new_seed());
}
END_TEST

/* --- the stream --- */

START_TEST(stream_is_independent_of_its_segments)
{
	uint64_t position = UINT64_C(1) << 40;
	const char *whole = payload_stream(7, position);
	for (unsigned i = 0; i < PAYLOAD_STREAM_AHEAD; i += 1 + i / 7)
		ck_assert_int_eq(*payload_stream(7, position + i), whole[i]);
	ck_assert(payload_stream_difference(7, position, whole, PAYLOAD_STREAM_AHEAD) == PAYLOAD_SAME);
	ck_assert(payload_stream_difference(7, position, whole, 0) == PAYLOAD_SAME);
}
END_TEST

START_TEST(long_segment_is_checked_to_its_end)
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

START_TEST(shifted_stream_differs)
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
	tcase_add_test(datagrams, datagram_of_any_size_is_matched);
	tcase_add_test(datagrams, empty_datagram_answers_the_oldest_in_flight);
	tcase_add_loop_test(datagrams, flipped_byte_is_found_and_the_request_matched, 2, count);
	tcase_add_loop_test(datagrams, flipped_bit_in_the_sequence_number_is_corruption, 2, count);
	tcase_add_test(datagrams, bare_number_never_sent_matches_no_request);
	tcase_add_test(datagrams, truncated_number_matches_the_latest_request);
	tcase_add_test(datagrams, wrong_length_differs_at_the_end_of_the_shorter);
	tcase_add_test(datagrams, foreign_and_random_datagrams_match_no_request);
	tcase_add_test(datagrams, datagrams_differ_by_number_and_seed);
	tcase_add_test(datagrams, fill_writes_exactly_its_size);
	tcase_add_test(datagrams, new_seeds_differ);
	suite_add_tcase(suite, datagrams);
	tcase_add_test(streams, stream_is_independent_of_its_segments);
	tcase_add_test(streams, long_segment_is_checked_to_its_end);
	tcase_add_test(streams, shifted_stream_differs);
	tcase_add_test(streams, streams_of_two_connections_differ);
	suite_add_tcase(suite, streams);
	return suite;
}

int main(void)
{
	return check_run(suite());
}
