/* check_limit.c: a gate is exact under any number of threads, and loses no wake-up. */
#include <sched.h>
#include <semaphore.h>
#include <time.h>

#include "check_run.h"
#include "check_threads.h"
#include "net/limit.h"

enum { THREADS = 8, ROUNDS = 20000, TIMEOUT_S = 20, MEETINGS = 500000, MEETING_S = 2 };

START_TEST(gate_admits_up_to_its_maximum)
{
	struct limit_gate gate;
	limit_gate_init(&gate, 3);
	for (int i = 0; i < 3; i++)
		ck_assert(limit_gate_enter(&gate));
	ck_assert(!limit_gate_enter(&gate));
	limit_gate_leave(&gate);
	ck_assert(limit_gate_enter(&gate));
	ck_assert(!limit_gate_enter(&gate));
	ck_assert_int_eq(gate.taken, 3);
}
END_TEST

START_TEST(gate_without_slots_admits_none)
{
	struct limit_gate gate;
	limit_gate_init(&gate, 0);
	ck_assert(!limit_gate_enter(&gate));
	ck_assert_int_eq(gate.taken, 0);
}
END_TEST

START_TEST(leave_reports_a_failed_attempt_once)
{
	struct limit_gate gate;
	limit_gate_init(&gate, 2);
	ck_assert(limit_gate_enter(&gate));
	ck_assert(limit_gate_enter(&gate));
	ck_assert(!limit_gate_enter(&gate));
	ck_assert(limit_gate_leave(&gate));
	ck_assert(!limit_gate_leave(&gate));
}
END_TEST

START_TEST(leave_reports_nothing_if_no_attempt_failed)
{
	struct limit_gate gate;
	limit_gate_init(&gate, 2);
	ck_assert(limit_gate_enter(&gate));
	ck_assert(limit_gate_enter(&gate));
	ck_assert(!limit_gate_leave(&gate));
	ck_assert(!limit_gate_leave(&gate));
}
END_TEST

struct visitor {
	struct limit_gate *gate;
	_Atomic int64_t *inside;
	int64_t most, admitted;
};

static void *enter_and_leave(void *argument)
{
	struct visitor *visitor = argument;
	for (int i = 0; i < ROUNDS; i++) {
		if (!limit_gate_enter(visitor->gate))
			continue;
		int64_t now = atomic_fetch_add(visitor->inside, 1) + 1;
		visitor->most = now > visitor->most ? now : visitor->most;
		visitor->admitted++;
		atomic_fetch_sub(visitor->inside, 1);
		limit_gate_leave(visitor->gate);
	}
	return NULL;
}

START_TEST(gate_never_admits_more_than_its_maximum)
{
	enum { MAXIMUM = 3 };
	struct limit_gate gate;
	_Atomic int64_t inside = 0;
	struct visitor visitors[THREADS];
	struct threads threads;

	limit_gate_init(&gate, MAXIMUM);
	for (int i = 0; i < THREADS; i++)
		visitors[i] = (struct visitor){.gate = &gate, .inside = &inside};
	threads_start(&threads, THREADS, enter_and_leave, visitors, sizeof *visitors);
	threads_join(&threads);

	int64_t admitted = 0; /* by all threads: the scheduler may starve one of them */
	for (int i = 0; i < THREADS; i++) {
		ck_assert_int_le(visitors[i].most, MAXIMUM);
		admitted += visitors[i].admitted;
	}
	ck_assert_int_gt(admitted, 0);
	ck_assert_int_eq(gate.taken, 0);
}
END_TEST

/* Two threads and one slot: in each round one frees it at the moment at which the other tries to enter. */
struct meeting {
	struct limit_gate gate;
	atomic_int arrived; /* counts both threads, three times a round */
	atomic_bool over;
	int missed;
};

struct party {
	struct meeting *meeting;
	bool leaves;
	bool entered, wakes; /* in this round */
	struct party *other;
};

static void arrive(struct meeting *meeting, int number)
{
	atomic_fetch_add(&meeting->arrived, 1);
	while (atomic_load(&meeting->arrived) < 2 * number)
		sched_yield();
}

/* A failed attempt must make the other thread's leave return true: no later leave would. */
static void *meet(void *argument)
{
	struct party *party = argument;
	struct meeting *meeting = party->meeting;
	time_t end = time(NULL) + MEETING_S;
	for (int round = 0; !atomic_load(&meeting->over); round++) {
		if (party->leaves)
			limit_gate_enter(&meeting->gate);
		arrive(meeting, 3 * round + 1);
		for (volatile int delay = round % 61 * (party->leaves ? 1 : round % 3); delay > 0; delay--)
			;
		if (party->leaves)
			party->wakes = limit_gate_leave(&meeting->gate);
		else
			party->entered = limit_gate_enter(&meeting->gate);
		arrive(meeting, 3 * round + 2);
		if (party->leaves) {
			atomic_store(&meeting->over, round == MEETINGS || time(NULL) > end);
		} else {
			meeting->missed += !party->entered && !party->other->wakes;
			if (party->entered || limit_gate_enter(&meeting->gate))
				limit_gate_leave(&meeting->gate);
		}
		arrive(meeting, 3 * round + 3);
	}
	return NULL;
}

START_TEST(attempt_that_fails_during_a_leave_is_reported_by_it)
{
	struct meeting meeting = {0};
	struct party parties[2] = {{.meeting = &meeting, .leaves = true, .other = &parties[1]},
				   {.meeting = &meeting, .other = &parties[0]}};
	struct threads threads;

	limit_gate_init(&meeting.gate, 1);
	threads_start(&threads, 2, meet, parties, sizeof *parties);
	threads_join(&threads);
	ck_assert_int_eq(meeting.missed, 0);
	ck_assert_int_eq(meeting.gate.taken, 0);
}
END_TEST

struct waiter {
	struct limit_gate *gate;
	struct waiter *all;
	sem_t woken;
	int served;
};

/* Discards wake-ups from before the attempt. */
static void discard_wakeups(struct waiter *waiter)
{
	while (sem_trywait(&waiter->woken) == 0)
		;
}

static bool enter_or_wait(struct waiter *waiter)
{
	struct timespec deadline;
	clock_gettime(CLOCK_REALTIME, &deadline);
	deadline.tv_sec += TIMEOUT_S;
	for (;;) {
		discard_wakeups(waiter);
		if (limit_gate_enter(waiter->gate))
			return true;
		if (sem_timedwait(&waiter->woken, &deadline) < 0)
			return false;
	}
}

static void *wait_for_slots(void *argument)
{
	struct waiter *waiter = argument;
	while (waiter->served < ROUNDS / 4 && enter_or_wait(waiter)) {
		waiter->served++;
		if (!limit_gate_leave(waiter->gate))
			continue;
		for (int i = 0; i < THREADS; i++)
			sem_post(&waiter->all[i].woken);
	}
	return NULL;
}

/* One slot for all threads: a lost wake-up leaves a thread waiting until its deadline. */
START_TEST(waiters_of_a_freed_slot_are_woken)
{
	struct limit_gate gate;
	struct waiter waiters[THREADS] = {0};
	struct threads threads;

	limit_gate_init(&gate, 1);
	for (int i = 0; i < THREADS; i++) {
		waiters[i].gate = &gate;
		waiters[i].all = waiters;
		sem_init(&waiters[i].woken, 0, 0);
	}
	threads_start(&threads, THREADS, wait_for_slots, waiters, sizeof *waiters);
	threads_join(&threads);

	for (int i = 0; i < THREADS; i++) {
		ck_assert_int_eq(waiters[i].served, ROUNDS / 4);
		sem_destroy(&waiters[i].woken);
	}
	ck_assert_int_eq(gate.taken, 0);
}
END_TEST

static Suite *suite(void)
{
	Suite *suite = suite_create("limit");
	TCase *gate = tcase_create("gate");
	tcase_set_timeout(gate, 60);
	tcase_add_test(gate, gate_admits_up_to_its_maximum);
	tcase_add_test(gate, gate_without_slots_admits_none);
	tcase_add_test(gate, leave_reports_a_failed_attempt_once);
	tcase_add_test(gate, leave_reports_nothing_if_no_attempt_failed);
	tcase_add_test(gate, gate_never_admits_more_than_its_maximum);
	tcase_add_test(gate, attempt_that_fails_during_a_leave_is_reported_by_it);
	tcase_add_test(gate, waiters_of_a_freed_slot_are_woken);
	suite_add_tcase(suite, gate);
	return suite;
}

int main(void)
{
	return check_run(suite());
}
