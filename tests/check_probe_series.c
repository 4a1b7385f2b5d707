/* check_probe_series.c: tests of the outcomes of requests. */
#include "probe/series.h"

#include "check_run.h"

enum { WINDOW = 64 };

static struct series *series;

static void setup(void)
{
	series = series_new(WINDOW);
	ck_assert_ptr_nonnull(series);
}

static void teardown(void)
{
	series_free(series);
}

/* Sends COUNT requests, one a ns from 1000 on. */
static void send_some(unsigned count)
{
	for (unsigned i = 0; i < count; i++)
		series_send(series, 1000 + series_newest(series));
}

static struct series_reply receive(uint64_t sequence)
{
	struct series_reply reply = series_receive(series, sequence, 5000);
	ck_assert(reply.expected);
	return reply;
}

static void adds_up(void)
{
	struct series_counts counts = series_counts(series);
	ck_assert_uint_eq(counts.sent, counts.received + counts.lost + counts.in_flight);
}

START_TEST(requests_are_numbered_from_one)
{
	ck_assert_uint_eq(series_newest(series), 0);
	ck_assert_uint_eq(series_send(series, 7), 1);
	ck_assert_uint_eq(series_send(series, 8), 2);
	ck_assert_uint_eq(series_newest(series), 2);
	uint64_t sent_ns;
	ck_assert(series_sent_at(series, 2, &sent_ns));
	ck_assert_uint_eq(sent_ns, 8);
	ck_assert(!series_sent_at(series, 0, &sent_ns));
	ck_assert(!series_sent_at(series, 3, &sent_ns));
	adds_up();
}
END_TEST

START_TEST(reply_has_its_round_trip_time)
{
	series_send(series, 100);
	ck_assert_uint_eq(series_receive(series, 1, 350).rtt_ns, 250);
	ck_assert(series_is_answered(series, 1));
	adds_up();
}
END_TEST

START_TEST(backward_clock_gives_zero_round_trip)
{
	series_send(series, 100);
	ck_assert_uint_eq(series_receive(series, 1, 99).rtt_ns, 0);
}
END_TEST

START_TEST(replies_in_order_count_as_received_only)
{
	send_some(5);
	for (uint64_t i = 1; i <= 5; i++) {
		struct series_reply reply = receive(i);
		ck_assert(!reply.duplicated && !reply.late && !reply.reordered);
	}
	struct series_counts counts = series_counts(series);
	ck_assert_uint_eq(counts.received, 5);
	ck_assert_uint_eq(counts.in_flight + counts.lost + counts.reordered + counts.duplicated + counts.late, 0);
	adds_up();
}
END_TEST

START_TEST(reply_after_a_later_one_is_reordered)
{
	send_some(5);
	static const struct {
		uint64_t sequence;
		bool reordered;
	} replies[] = {{2, false}, {1, true}, {5, false}, {3, true}, {4, true}};
	for (size_t i = 0; i < 5; i++)
		ck_assert_int_eq(receive(replies[i].sequence).reordered, replies[i].reordered);
	ck_assert_uint_eq(series_counts(series).reordered, 3);
	adds_up();
}
END_TEST

START_TEST(gap_is_not_reordering)
{
	send_some(3);
	ck_assert(!receive(1).reordered);
	ck_assert(!receive(3).reordered);
	ck_assert_uint_eq(series_counts(series).reordered, 0);
	ck_assert_uint_eq(series_counts(series).in_flight, 1);
}
END_TEST

START_TEST(second_reply_counts_as_duplicate_only)
{
	send_some(3);
	receive(2);
	receive(3);
	ck_assert(receive(2).duplicated);
	ck_assert(!receive(2).reordered);
	struct series_counts counts = series_counts(series);
	ck_assert_uint_eq(counts.duplicated, 2);
	ck_assert_uint_eq(counts.received, 2);
	ck_assert_uint_eq(counts.reordered, 0);
	adds_up();
}
END_TEST

START_TEST(timeouts_take_the_oldest_unanswered_request)
{
	uint64_t sequence, sent_ns;
	ck_assert(!series_waiting(series, &sequence, &sent_ns));
	ck_assert(!series_time_out(series));
	send_some(4);
	receive(1);
	receive(3);
	ck_assert(series_waiting(series, &sequence, &sent_ns));
	ck_assert_uint_eq(sequence, 2);
	ck_assert_uint_eq(sent_ns, 1001);
	ck_assert(series_time_out(series));
	ck_assert(series_waiting(series, &sequence, &sent_ns));
	ck_assert_uint_eq(sequence, 4);
	ck_assert(series_time_out(series));
	ck_assert(!series_time_out(series));
	ck_assert_uint_eq(series_counts(series).lost, 2);
	adds_up();
}
END_TEST

START_TEST(reply_after_timeout_is_late_instead_of_lost)
{
	send_some(2);
	series_time_out(series);
	receive(2);
	struct series_reply reply = receive(1);
	ck_assert(reply.late && reply.reordered && !reply.duplicated);
	struct series_counts counts = series_counts(series);
	ck_assert_uint_eq(counts.late, 1);
	ck_assert_uint_eq(counts.lost, 0);
	ck_assert_uint_eq(counts.received, 2);
	ck_assert(receive(1).duplicated);
	adds_up();
}
END_TEST

START_TEST(reply_to_no_request_is_unexpected)
{
	send_some(2);
	ck_assert(!series_receive(series, 0, 1).expected);
	ck_assert(!series_receive(series, 3, 1).expected);
	ck_assert(!series_receive(series, UINT64_MAX, 1).expected);
	ck_assert_uint_eq(series_counts(series).unexpected, 3);
	ck_assert_uint_eq(series_counts(series).received, 0);
	adds_up();
}
END_TEST

START_TEST(request_leaving_the_window_in_flight_is_lost)
{
	send_some(WINDOW);
	ck_assert_uint_eq(series_counts(series).lost, 0);
	receive(2);
	ck_assert_uint_eq(series_oldest(series), 1);
	send_some(2); /* forgets 1, in flight, and 2, answered */
	ck_assert_uint_eq(series_oldest(series), 3);
	ck_assert_uint_eq(series_counts(series).lost, 1);
	ck_assert_uint_eq(series_counts(series).in_flight, WINDOW);
	ck_assert(!series_receive(series, 1, 5000).expected);
	receive(3);
	send_some(10 * WINDOW);
	ck_assert_uint_eq(series_counts(series).in_flight, WINDOW);
	ck_assert_uint_eq(series_counts(series).lost, 10 * WINDOW);
	adds_up();
}
END_TEST

START_TEST(unsent_request_is_taken_back)
{
	send_some(3);
	receive(1);
	series_take_back(series);
	ck_assert_uint_eq(series_newest(series), 2);
	ck_assert_uint_eq(series_counts(series).sent, 2);
	ck_assert(!series_receive(series, 3, 5000).expected);
	ck_assert(series_time_out(series));
	ck_assert(!series_time_out(series));
	ck_assert_uint_eq(series_send(series, 9), 3);
	uint64_t sequence, sent_ns;
	ck_assert(series_waiting(series, &sequence, &sent_ns));
	ck_assert_uint_eq(sequence, 3);
	series_take_back(series);
	ck_assert(!series_waiting(series, &sequence, &sent_ns));
	adds_up();
}
END_TEST

START_TEST(series_is_full_if_the_next_displaces_one_in_flight)
{
	ck_assert(!series_is_full(series));
	send_some(WINDOW);
	ck_assert(series_is_full(series));
	receive(2);
	ck_assert(series_is_full(series));
	receive(1);
	ck_assert(!series_is_full(series)); /* 3 is the oldest: 1 and 2 may be forgotten */
	series_send(series, 1);
	series_send(series, 1);
	ck_assert(series_is_full(series));
	ck_assert(series_time_out(series));
	ck_assert(!series_is_full(series));
	adds_up();
}
END_TEST

START_TEST(late_duplicate_of_evicted_request_is_not_counted)
{
	send_some(WINDOW);
	for (uint64_t sequence = 1; sequence <= WINDOW; sequence++)
		receive(sequence);
	series_send(series, 1);
	series_take_back(series);
	ck_assert(series_receive(series, 1, 5000).duplicated);
	ck_assert_uint_eq(series_counts(series).received, WINDOW);
	adds_up();
}
END_TEST

START_TEST(defects_and_sums_are_counted)
{
	send_some(3);
	receive(1);
	series_corrupted(series);
	series_wrong_source(series);
	series_wrong_source(series);
	struct series_counts sum = {.sent = 10, .received = 4, .lost = 4, .in_flight = 2, .late = 1, .unexpected = 9};
	struct series_counts counts = series_counts(series);
	series_counts_add(&sum, &counts);
	ck_assert_uint_eq(sum.sent, 13);
	ck_assert_uint_eq(sum.received, 5);
	ck_assert_uint_eq(sum.lost, 4);
	ck_assert_uint_eq(sum.in_flight, 4);
	ck_assert_uint_eq(sum.late, 1);
	ck_assert_uint_eq(sum.unexpected, 9);
	ck_assert_uint_eq(sum.corrupted, 1);
	ck_assert_uint_eq(sum.wrong_source, 2);
}
END_TEST

START_TEST(loss_excludes_requests_in_flight)
{
	ck_assert_double_eq(series_loss(&(struct series_counts){.in_flight = 5}), 0);
	ck_assert_double_eq(series_loss(&(struct series_counts){.received = 3, .lost = 1, .in_flight = 100}), 25);
	ck_assert_double_eq(series_loss(&(struct series_counts){.lost = 2}), 100);
}
END_TEST

/* --- random sequences against a naive model --- */

enum { MANY = 20000, NEAR = 40 };

static uint64_t random_state = 88172645463325252;

static unsigned below(unsigned bound)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return (unsigned)(random_state >> 16) % bound;
}

/* Drops each request, or answers it at once, twice, or some requests later; compares with the model. */
START_TEST(random_sequences_match_a_naive_model)
{
	static unsigned due_at[MANY + NEAR + 1][NEAR + 2], due[MANY + NEAR + 1], answers[MANY + 1];
	struct series_counts book = {.sent = MANY};
	uint64_t newest = 0;

	for (unsigned turn = 1; turn <= MANY + NEAR; turn++) {
		if (turn <= MANY) {
			series_send(series, turn);
			unsigned replies = below(10) == 0 ? 0 : 1 + (below(20) == 0);
			while (replies-- > 0) {
				unsigned when = turn + (below(4) == 0 ? below(NEAR) : 0);
				if (due[when] < NEAR + 2)
					due_at[when][due[when]++] = turn;
			}
		}
		for (unsigned i = 0; i < due[turn]; i++) {
			unsigned sequence = due_at[turn][i];
			series_receive(series, sequence, turn);
			book.duplicated += answers[sequence] > 0;
			if (answers[sequence]++ > 0)
				continue;
			book.received++;
			book.reordered += sequence < newest;
			newest = sequence > newest ? sequence : newest;
		}
	}
	while (series_time_out(series))
		;
	struct series_counts counts = series_counts(series);
	ck_assert_uint_eq(counts.sent, book.sent);
	ck_assert_uint_eq(counts.received, book.received);
	ck_assert_uint_eq(counts.lost, MANY - book.received);
	ck_assert_uint_eq(counts.duplicated, book.duplicated);
	ck_assert_uint_eq(counts.reordered, book.reordered);
	ck_assert_uint_gt(counts.lost, MANY / 20);
	ck_assert_uint_gt(counts.duplicated, MANY / 50);
	ck_assert_uint_gt(counts.reordered, MANY / 20);
	ck_assert_uint_eq(counts.unexpected, 0);
	adds_up();
}
END_TEST

static Suite *suite(void)
{
	Suite *suite = suite_create("probe series");
	TCase *counts = tcase_create("counts");
	tcase_add_checked_fixture(counts, setup, teardown);
	tcase_add_test(counts, requests_are_numbered_from_one);
	tcase_add_test(counts, reply_has_its_round_trip_time);
	tcase_add_test(counts, backward_clock_gives_zero_round_trip);
	tcase_add_test(counts, replies_in_order_count_as_received_only);
	tcase_add_test(counts, reply_after_a_later_one_is_reordered);
	tcase_add_test(counts, gap_is_not_reordering);
	tcase_add_test(counts, second_reply_counts_as_duplicate_only);
	tcase_add_test(counts, timeouts_take_the_oldest_unanswered_request);
	tcase_add_test(counts, reply_after_timeout_is_late_instead_of_lost);
	tcase_add_test(counts, reply_to_no_request_is_unexpected);
	tcase_add_test(counts, request_leaving_the_window_in_flight_is_lost);
	tcase_add_test(counts, unsent_request_is_taken_back);
	tcase_add_test(counts, series_is_full_if_the_next_displaces_one_in_flight);
	tcase_add_test(counts, late_duplicate_of_evicted_request_is_not_counted);
	tcase_add_test(counts, defects_and_sums_are_counted);
	tcase_add_test(counts, loss_excludes_requests_in_flight);
	tcase_add_test(counts, random_sequences_match_a_naive_model);
	suite_add_tcase(suite, counts);
	return suite;
}

int main(void)
{
	return check_run(suite());
}
