/* check_timer_wheel.c: every entry fires, none too early, and many at once do not delay the loop. */
#include <event2/event.h>
#include <stdbool.h>
#include <string.h>

#include "check_clock.h"
#include "check_event.h"
#include "check_run.h"
#include "core/clock.h"
#include "core/timer_wheel.h"

enum {
	ENTRIES = 300,
	STEPS = 20000,
	HORIZON_MS = 100 * 1000, /* slightly below the horizon of the wheel */
	CROWD = 5000,
	START_MS = 1000 * 1000,
};

/* An entry and the test's expectation of it. */
struct item {
	struct timer_wheel_entry entry;
	bool set;
	uint64_t deadline_ms, set_at_ms;
	uint64_t lag_ms;   /* lag of the wheel when the entry was set */
	uint64_t fired_ms; /* when it fired; 0: not yet */
	uint64_t next_ms;  /* the deadline that its callback returns */
	unsigned early;    /* calls before the deadline */
};

static struct event_base *base;
static struct timer_wheel *wheel;
static struct item items[ENTRIES];
static uint64_t random_state = 88172645463325252;
static uint64_t leap_ms; /* jump of the clock between two turns of the loop */
static unsigned calls;

static uint64_t next_random(uint64_t below)
{
	random_state ^= random_state >> 12;
	random_state ^= random_state << 25;
	random_state ^= random_state >> 27;
	return (random_state * UINT64_C(2685821657736338717)) >> 8 % 64 ? random_state % below : 0;
}

static struct item *item_of(struct timer_wheel_entry *entry)
{
	return (struct item *)(void *)((char *)entry - offsetof(struct item, entry));
}

static uint64_t now(void)
{
	return (uint64_t)atomic_load(&clock_stands_ms);
}

/* The owner's callback, which checks the true deadline. */
static uint64_t on_due(struct timer_wheel_entry *entry, uint64_t now_ms)
{
	struct item *item = item_of(entry);
	calls++;
	ck_assert_msg(item->set, "an entry that is in no wheel was told of");
	ck_assert_ptr_null(entry->link.le_prev);
	ck_assert_uint_eq(now_ms, now());
	if (now_ms < item->deadline_ms) {
		/* beyond the horizon, as seen from the last visited tick when it was set */
		ck_assert_msg(item->deadline_ms - item->set_at_ms + item->lag_ms > HORIZON_MS,
			      "deadline %llu, set at %llu, was told of at %llu", (unsigned long long)item->deadline_ms,
			      (unsigned long long)item->set_at_ms, (unsigned long long)now_ms);
		item->early++;
		return item->deadline_ms;
	}
	item->fired_ms = now_ms;
	item->set = item->next_ms != 0;
	item->deadline_ms = item->next_ms > now_ms ? item->next_ms : now_ms + TIMER_WHEEL_TICK_MS;
	item->set_at_ms = now_ms;
	item->lag_ms = leap_ms;
	return item->next_ms;
}

static void setup(void)
{
	atomic_store(&clock_stands_ms, START_MS);
	base = event_base_new();
	wheel = timer_wheel_new(base, on_due);
	ck_assert_ptr_nonnull(wheel);
	memset(items, 0, sizeof items);
	leap_ms = calls = 0;
}

static void teardown(void)
{
	timer_wheel_free(wheel);
	event_base_free(base);
	atomic_store(&clock_stands_ms, 0);
}

static void loop_once(void)
{
	event_base_loop(base, EVLOOP_NONBLOCK);
}

/* Sets ITEM, which is expected to fire at DEADLINE_MS or later. */
static void expect(struct item *item, uint64_t deadline_ms)
{
	item->set = true;
	item->deadline_ms = deadline_ms;
	item->set_at_ms = now();
	item->lag_ms = 0;
	item->fired_ms = 0;
}

static void set(struct item *item, uint64_t deadline_ms)
{
	expect(item, deadline_ms);
	timer_wheel_set(wheel, &item->entry, deadline_ms);
}

static void set_soon(struct item *item)
{
	expect(item, now() + TIMER_WHEEL_SOON_MS);
	ck_assert(timer_wheel_set_soon(wheel, &item->entry));
}

static void forget(struct item *item)
{
	item->set = false;
	timer_wheel_remove(&item->entry);
}

static void advance(uint64_t ms)
{
	leap_ms = ms;
	atomic_fetch_add(&clock_stands_ms, (int64_t)ms);
	loop_once();
}

START_TEST(entry_fires_in_the_tick_after_its_deadline)
{
	for (uint64_t wait = 1; wait <= 3 * TIMER_WHEEL_TICK_MS; wait++) {
		uint64_t deadline = now() + wait;
		set(&items[0], deadline);
		while (items[0].fired_ms == 0)
			advance(1);
		ck_assert_uint_ge(items[0].fired_ms, deadline);
		ck_assert_uint_le(items[0].fired_ms, deadline + TIMER_WHEEL_TICK_MS);
	}
}
END_TEST

START_TEST(past_deadline_fires_at_the_next_tick)
{
	set(&items[0], now() - 5000);
	set(&items[1], 0);
	advance(2 * TIMER_WHEEL_TICK_MS);
	ck_assert_uint_ne(items[0].fired_ms, 0);
	ck_assert_uint_ne(items[1].fired_ms, 0);
}
END_TEST

START_TEST(moved_entry_fires_only_at_its_last_deadline)
{
	uint64_t deadline = now() + 5000;
	set(&items[0], now() + 1000);
	set(&items[0], deadline);
	advance(4000);
	ck_assert_uint_eq(calls, 0);
	advance(1000 + TIMER_WHEEL_TICK_MS);
	ck_assert_uint_eq(calls, 1);

	set(&items[0], now() + 50000);
	set(&items[0], now() + 1000);
	advance(1000 + TIMER_WHEEL_TICK_MS);
	ck_assert_uint_eq(calls, 2);
}
END_TEST

START_TEST(removed_entry_does_not_fire)
{
	set(&items[0], now() + 100);
	set(&items[1], now() + 100);
	forget(&items[0]);
	forget(&items[0]);
	advance(1000);
	ck_assert_uint_eq(items[0].fired_ms, 0);
	ck_assert_uint_ne(items[1].fired_ms, 0);
}
END_TEST

START_TEST(returned_deadline_is_the_next_one)
{
	uint64_t period = 300;
	set(&items[0], now() + period);
	for (int i = 0; i < 100; i++) {
		items[0].next_ms = now() + 2 * period;
		items[0].fired_ms = 0;
		advance(period);
		advance(TIMER_WHEEL_TICK_MS);
		ck_assert_uint_ne(items[0].fired_ms, 0);
		period += 11;
		set(&items[0], now() + period);
	}
}
END_TEST

START_TEST(returned_past_deadline_fires_in_a_later_tick)
{
	set(&items[0], now() + 100);
	items[0].next_ms = 1;
	advance(200);
	ck_assert_uint_eq(calls, 1);
	items[0].next_ms = 0;
	advance(2 * TIMER_WHEEL_TICK_MS);
	ck_assert_uint_eq(calls, 2);
}
END_TEST

START_TEST(entry_beyond_the_horizon_fires_at_its_deadline)
{
	const uint64_t day = 24 * 60 * 60 * 1000, deadline = now() + day;
	set(&items[0], deadline);
	while (now() < deadline) {
		advance(60 * 1000);
		ck_assert(items[0].fired_ms == 0 || items[0].fired_ms >= deadline);
	}
	advance(TIMER_WHEEL_TICK_MS);
	ck_assert_uint_ne(items[0].fired_ms, 0);
	ck_assert_uint_le(items[0].early, day / HORIZON_MS + 1);
}
END_TEST

START_TEST(entry_without_deadline_never_fires_but_can_be_rescheduled)
{
	set(&items[0], TIMER_WHEEL_NEVER);
	for (int i = 0; i < 100; i++)
		advance(60 * 1000);
	ck_assert_uint_eq(items[0].fired_ms, 0);
	set(&items[0], now() + 100);
	advance(200);
	ck_assert_uint_ne(items[0].fired_ms, 0);
}
END_TEST

START_TEST(empty_wheel_sets_no_timer)
{
	ck_assert_int_eq(event_base_get_num_events(base, EVENT_BASE_COUNT_ADDED), 0);
	set(&items[0], now() + 100);
	ck_assert_int_eq(event_base_get_num_events(base, EVENT_BASE_COUNT_ADDED), 1);
	advance(200);
	ck_assert_int_eq(event_base_get_num_events(base, EVENT_BASE_COUNT_ADDED), 0);
}
END_TEST

START_TEST(soon_entry_fires_after_one_to_two_periods)
{
	for (int start_ms = 0; start_ms < TIMER_WHEEL_SOON_MS; start_ms++) {
		set_soon(&items[0]); /* starts the ticks */
		advance((uint64_t)start_ms);
		set_soon(&items[1]);
		uint64_t set_ms = now();
		while (items[1].fired_ms == 0) {
			advance(1);
			ck_assert_uint_le(now(), set_ms + 2 * TIMER_WHEEL_SOON_MS);
		}
		ck_assert_uint_ge(now(), set_ms + TIMER_WHEEL_SOON_MS);
		ck_assert_uint_ne(items[0].fired_ms, 0);
	}
	ck_assert_uint_eq(calls, 2 * TIMER_WHEEL_SOON_MS);
	ck_assert_int_eq(event_base_get_num_events(base, EVENT_BASE_COUNT_ADDED), 0);
}
END_TEST

START_TEST(soon_entry_can_be_removed_or_get_a_deadline)
{
	set_soon(&items[0]);
	set_soon(&items[1]);
	set_soon(&items[2]);
	set_soon(&items[3]);
	set_soon(&items[4]);
	forget(&items[1]);
	set(&items[2], now() + 1000);
	advance(TIMER_WHEEL_SOON_MS - 1);
	forget(&items[0]);
	set(&items[4], now() + 1000);
	items[3].next_ms = now() + 1000;
	advance(1);
	ck_assert_uint_eq(calls, 0);
	advance(TIMER_WHEEL_SOON_MS);
	ck_assert_uint_eq(calls, 1);
	ck_assert_uint_eq(items[3].fired_ms, now());
	items[3].next_ms = 0;
	advance(1000 + TIMER_WHEEL_TICK_MS);
	ck_assert_uint_eq(calls, 4);
	ck_assert_uint_eq(items[0].fired_ms + items[1].fired_ms, 0);
}
END_TEST

START_TEST(failed_timer_is_retried_by_the_next_set)
{
	atomic_store(&events_without_memory, EV_TIMEOUT);
	set(&items[0], now() + 100);
	ck_assert(!timer_wheel_set_soon(wheel, &items[1].entry));
	ck_assert_ptr_null(items[1].entry.link.le_prev);
	atomic_store(&events_without_memory, 0);
	advance(50);
	ck_assert_int_eq(event_base_get_num_events(base, EVENT_BASE_COUNT_ADDED), 0);
	set(&items[2], now() + 10000);
	advance(50 + TIMER_WHEEL_TICK_MS);
	ck_assert_uint_ne(items[0].fired_ms, 0);
	set_soon(&items[1]);
	advance(TIMER_WHEEL_SOON_MS);
	ck_assert_uint_ne(items[1].fired_ms, 0);
}
END_TEST

/* Another timer of the loop, due in each turn. */
static struct event *other;
static unsigned turns;

static void on_turn(evutil_socket_t fd, short what, void *argument)
{
	const struct timeval at_once = {0};
	(void)fd, (void)what, (void)argument;
	turns++;
	if (calls < CROWD)
		event_add(other, &at_once);
}

START_TEST(many_due_entries_do_not_delay_the_loop)
{
	static struct item crowd[CROWD];
	other = evtimer_new(base, on_turn, NULL);
	for (int i = 0; i < CROWD; i++)
		set(&crowd[i], now() + 100);
	on_turn(-1, 0, NULL);
	advance(200);
	ck_assert_uint_eq(calls, CROWD);
	ck_assert_uint_ge(turns, 4);
	event_free(other);
}
END_TEST

static unsigned visits[ENTRIES];

static void visit_all(struct timer_wheel_entry *entry)
{
	visits[item_of(entry) - items]++;
}

static void visit_and_remove(struct timer_wheel_entry *entry)
{
	visit_all(entry);
	forget(item_of(entry));
}

START_TEST(each_visits_every_entry_once_and_allows_removal)
{
	for (int i = 0; i < ENTRIES; i++)
		set(&items[i], i % 3 == 0 ? TIMER_WHEEL_NEVER : now() + next_random(2 * HORIZON_MS));
	for (int i = 10; i < 20; i++) {
		set_soon(&items[i]);
		if (i == 15)
			advance(TIMER_WHEEL_SOON_MS - 1);
	}
	forget(&items[7]);
	timer_wheel_each(wheel, visit_all);
	timer_wheel_each(wheel, visit_and_remove);
	for (int i = 0; i < ENTRIES; i++)
		ck_assert_uint_eq(visits[i], i == 7 ? 0 : 2);
	timer_wheel_each(wheel, visit_all);
	ck_assert_uint_eq(visits[0], 2);
	advance(3 * HORIZON_MS);
	ck_assert_uint_eq(calls, 0);
}
END_TEST

/* --- against a naive model: a list that is searched linearly --- */

static uint64_t random_wait(void)
{
	switch (next_random(5)) {
	case 0:
		return next_random(200);
	case 1:
		return next_random(HORIZON_MS);
	case 2:
		return next_random(10 * HORIZON_MS);
	default:
		return next_random(20000);
	}
}

static void set_at_random(struct item *item)
{
	uint64_t wait = random_wait();
	item->next_ms = next_random(4) == 0 ? now() + 2 * wait + 1 : 0;
	set(item, next_random(20) == 0 ? TIMER_WHEEL_NEVER : now() + wait);
}

static uint64_t random_step(void)
{
	if (next_random(1000) == 0)
		return next_random(4 * HORIZON_MS); /* as after a suspend */
	return next_random(10) == 0 ? next_random(5000) : next_random(120);
}

/* Checks that ITEM fired in the tick after its deadline, or after it was set where the deadline had passed. */
static bool is_right(const struct item *before, const struct item *after)
{
	uint64_t last_ms = before->deadline_ms > before->set_at_ms ? before->deadline_ms : before->set_at_ms;
	bool due = before->set && last_ms / TIMER_WHEEL_TICK_MS < now() / TIMER_WHEEL_TICK_MS;
	bool told = after->fired_ms == now() && after->fired_ms != before->fired_ms;
	return due == told;
}

static void advance_and_compare(void)
{
	static struct item before[ENTRIES];
	int right = 0;
	memcpy(before, items, sizeof items);
	advance(random_step() + 1);
	while (right < ENTRIES && is_right(&before[right], &items[right]))
		right++;
	if (right == ENTRIES)
		return;
	ck_abort_msg("entry %d, deadline %llu, set at %llu: %s at %llu", right,
		     (unsigned long long)before[right].deadline_ms, (unsigned long long)before[right].set_at_ms,
		     items[right].fired_ms == now() ? "told of" : "not told of", (unsigned long long)now());
}

START_TEST(entries_fire_as_in_a_naive_model)
{
	for (int step = 0; step < STEPS; step++) {
		struct item *item = &items[next_random(ENTRIES)];
		switch (next_random(4)) {
		case 0:
			forget(item);
			break;
		case 1:
			advance_and_compare();
			break;
		default:
			set_at_random(item);
		}
	}
	ck_assert_uint_gt(calls, STEPS / 100);
}
END_TEST

START_TEST(clock_timeval_converts_milliseconds)
{
	static const struct {
		int64_t ms;
		struct timeval timeval;
	} cases[] = {
		{0, {0, 0}},
		{1, {0, 1000}},
		{999, {0, 999000}},
		{1000, {1, 0}},
		{90 * 1000 + 50, {90, 50000}},
		{INT64_C(365) * 24 * 60 * 60 * 1000 + 1, {365 * 24 * 60 * 60, 1000}},
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct timeval timeval = clock_timeval(cases[i].ms);
		ck_assert_int_eq(timeval.tv_sec, cases[i].timeval.tv_sec);
		ck_assert_int_eq(timeval.tv_usec, cases[i].timeval.tv_usec);
	}
}
END_TEST

static Suite *suite(void)
{
	Suite *suite = suite_create("timer_wheel");
	TCase *deadlines = tcase_create("deadlines");
	tcase_add_checked_fixture(deadlines, setup, teardown);
	tcase_set_timeout(deadlines, 60);
	tcase_add_test(deadlines, entry_fires_in_the_tick_after_its_deadline);
	tcase_add_test(deadlines, past_deadline_fires_at_the_next_tick);
	tcase_add_test(deadlines, moved_entry_fires_only_at_its_last_deadline);
	tcase_add_test(deadlines, removed_entry_does_not_fire);
	tcase_add_test(deadlines, returned_deadline_is_the_next_one);
	tcase_add_test(deadlines, returned_past_deadline_fires_in_a_later_tick);
	tcase_add_test(deadlines, entry_beyond_the_horizon_fires_at_its_deadline);
	tcase_add_test(deadlines, entry_without_deadline_never_fires_but_can_be_rescheduled);
	tcase_add_test(deadlines, empty_wheel_sets_no_timer);
	tcase_add_test(deadlines, soon_entry_fires_after_one_to_two_periods);
	tcase_add_test(deadlines, failed_timer_is_retried_by_the_next_set);
	tcase_add_test(deadlines, soon_entry_can_be_removed_or_get_a_deadline);
	tcase_add_test(deadlines, many_due_entries_do_not_delay_the_loop);
	tcase_add_test(deadlines, each_visits_every_entry_once_and_allows_removal);
	tcase_add_test(deadlines, clock_timeval_converts_milliseconds);
	tcase_add_test(deadlines, entries_fire_as_in_a_naive_model);
	suite_add_tcase(suite, deadlines);
	return suite;
}

int main(void)
{
	return check_run(suite());
}
