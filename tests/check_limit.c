/* check_limit.c: a gate is exact under any number of threads, and whoever waits at it is told. */
#include <sched.h>
#include <semaphore.h>
#include <time.h>

#include "check_run.h"
#include "check_threads.h"
#include "net/limit.h"

enum { THREADS = 8, ROUNDS = 20000, PATIENCE_S = 20, MEETINGS = 500000, MEETING_S = 2 };

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

START_TEST(gate_without_places_admits_nobody)
{
	struct limit_gate gate;
	limit_gate_init(&gate, 0);
	ck_assert(!limit_gate_enter(&gate));
	ck_assert_int_eq(gate.taken, 0);
}
END_TEST

START_TEST(leaving_tells_of_a_waiter_once)
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

START_TEST(leaving_wakes_nobody_where_nobody_was_refused)
{
	struct limit_gate gate;
	limit_gate_init(&gate, 2);
	ck_assert(limit_gate_enter(&gate));
	ck_assert(limit_gate_enter(&gate));
	ck_assert(!limit_gate_leave(&gate));
	ck_assert(!limit_gate_leave(&gate));
}
END_TEST

struct crowd {
	struct limit_gate *gate;
	_Atomic int64_t *inside;
	int64_t most, admitted;
};

static void *come_and_go(void *argument)
{
	struct crowd *crowd = argument;
	for (int i = 0; i < ROUNDS; i++) {
		if (!limit_gate_enter(crowd->gate))
			continue;
		int64_t now = atomic_fetch_add(crowd->inside, 1) + 1;
		crowd->most = now > crowd->most ? now : crowd->most;
		crowd->admitted++;
		atomic_fetch_sub(crowd->inside, 1);
		limit_gate_leave(crowd->gate);
	}
	return NULL;
}

START_TEST(gate_never_admits_more_than_its_maximum)
{
	enum { MAXIMUM = 3 };
	struct limit_gate gate;
	_Atomic int64_t inside = 0;
	struct crowd crowds[THREADS];
	struct threads threads;

	limit_gate_init(&gate, MAXIMUM);
	for (int i = 0; i < THREADS; i++)
		crowds[i] = (struct crowd){.gate = &gate, .inside = &inside};
	threads_start(&threads, THREADS, come_and_go, crowds, sizeof *crowds);
	threads_join(&threads);

	int64_t admitted = 0; /* of all: which thread gets its turn is the scheduler's business */
	for (int i = 0; i < THREADS; i++) {
		ck_assert_int_le(crowds[i].most, MAXIMUM);
		admitted += crowds[i].admitted;
	}
	ck_assert_int_gt(admitted, 0);
	ck_assert_int_eq(gate.taken, 0);
}
END_TEST

/* Two threads that meet at one place: one gives it back at the moment the other asks for it. */
struct meeting {
	struct limit_gate gate;
	atomic_int arrived; /* both, three times a round */
	atomic_bool over;
	int missed;
};

struct party {
	struct meeting *meeting;
	bool leaves;
	bool entered, told; /* in this round */
	struct party *other;
};

static void arrive(struct meeting *meeting, int number)
{
	atomic_fetch_add(&meeting->arrived, 1);
	while (atomic_load(&meeting->arrived) < 2 * number)
		sched_yield();
}

/* Who was refused must have been promised a wake-up: nobody else comes by who could give it. */
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
			party->told = limit_gate_leave(&meeting->gate);
		else
			party->entered = limit_gate_enter(&meeting->gate);
		arrive(meeting, 3 * round + 2);
		if (party->leaves) {
			atomic_store(&meeting->over, round == MEETINGS || time(NULL) > end);
		} else {
			meeting->missed += !party->entered && !party->other->told;
			if (party->entered || limit_gate_enter(&meeting->gate))
				limit_gate_leave(&meeting->gate);
		}
		arrive(meeting, 3 * round + 3);
	}
	return NULL;
}

START_TEST(whoever_is_refused_while_the_last_place_is_given_back_is_told_of_it)
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

struct patient {
	struct limit_gate *gate;
	struct patient *all;
	sem_t woken;
	int served;
};

/* What was told before the attempt that failed is of no use to it. */
static void forget_old_news(struct patient *patient)
{
	while (sem_trywait(&patient->woken) == 0)
		;
}

static bool enter_or_wait(struct patient *patient)
{
	struct timespec deadline;
	clock_gettime(CLOCK_REALTIME, &deadline);
	deadline.tv_sec += PATIENCE_S;
	for (;;) {
		forget_old_news(patient);
		if (limit_gate_enter(patient->gate))
			return true;
		if (sem_timedwait(&patient->woken, &deadline) < 0)
			return false;
	}
}

static void *wait_for_places(void *argument)
{
	struct patient *patient = argument;
	while (patient->served < ROUNDS / 4 && enter_or_wait(patient)) {
		patient->served++;
		if (!limit_gate_leave(patient->gate))
			continue;
		for (int i = 0; i < THREADS; i++)
			sem_post(&patient->all[i].woken);
	}
	return NULL;
}

/* One place for many: a wake-up that is lost leaves a thread waiting for ever. */
START_TEST(no_freed_place_goes_unnoticed_by_those_who_wait)
{
	struct limit_gate gate;
	struct patient patients[THREADS] = {0};
	struct threads threads;

	limit_gate_init(&gate, 1);
	for (int i = 0; i < THREADS; i++) {
		patients[i].gate = &gate;
		patients[i].all = patients;
		sem_init(&patients[i].woken, 0, 0);
	}
	threads_start(&threads, THREADS, wait_for_places, patients, sizeof *patients);
	threads_join(&threads);

	for (int i = 0; i < THREADS; i++) {
		ck_assert_int_eq(patients[i].served, ROUNDS / 4);
		sem_destroy(&patients[i].woken);
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
	tcase_add_test(gate, gate_without_places_admits_nobody);
	tcase_add_test(gate, leaving_tells_of_a_waiter_once);
	tcase_add_test(gate, leaving_wakes_nobody_where_nobody_was_refused);
	tcase_add_test(gate, gate_never_admits_more_than_its_maximum);
	tcase_add_test(gate, whoever_is_refused_while_the_last_place_is_given_back_is_told_of_it);
	tcase_add_test(gate, no_freed_place_goes_unnoticed_by_those_who_wait);
	suite_add_tcase(suite, gate);
	return suite;
}

int main(void)
{
	return check_run(suite());
}
