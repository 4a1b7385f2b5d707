/* check_tcp_states.c: the states of a TCP connection and the transitions between them. */
#undef NDEBUG /* the assertion of connection_set_state is under test */
#include "net/tcp_internal.h"

#include <signal.h>

#include "check_run.h"
#include "core/array.h"

/* --- the table against the transitions that the code makes --- */

static const struct transition {
	enum connection_state from, to;
} transitions[] = {
	{CONNECTION_HANDSHAKE, CONNECTION_OPEN},      /* the handshake is complete */
	{CONNECTION_HANDSHAKE, CONNECTION_LINGERING}, /* a failed handshake has sent an alert; a removed service ends */
	{CONNECTION_HANDSHAKE, CONNECTION_CLOSED},    /* handshake_timeout, reset, stop */
	{CONNECTION_OPEN, CONNECTION_FLUSHING},       /* the last output, or close_notify, does not fit the socket */
	{CONNECTION_OPEN, CONNECTION_LINGERING},      /* all output is sent */
	{CONNECTION_OPEN, CONNECTION_CLOSED},         /* FIN received, reset, idle_timeout, stop */
	{CONNECTION_FLUSHING, CONNECTION_FLUSHING},   /* the rest is sent, and close_notify does not fit */
	{CONNECTION_FLUSHING, CONNECTION_LINGERING},  /* the rest is sent */
	{CONNECTION_FLUSHING, CONNECTION_CLOSED},     /* reset, idle_timeout, lifetime, stop */
	{CONNECTION_LINGERING, CONNECTION_CLOSED},    /* FIN received, TCP_LINGER_MS, TCP_LINGER_BYTES, stop */
};

/* The states of a new connection: over TLS, or plain. */
static const unsigned initial_states = 1u << CONNECTION_HANDSHAKE | 1u << CONNECTION_OPEN;

static const unsigned all_states = (1u << CONNECTION_STATE_COUNT) - 1;

static bool is_allowed(unsigned from, unsigned to)
{
	return connection_transitions[from] & (1u << to);
}

/* Returns the set of states that any number of transitions reaches from the set STATES, itself included. */
static unsigned reachable(unsigned states)
{
	for (unsigned before = 0; before != states;) {
		before = states;
		for (unsigned from = 0; from < CONNECTION_STATE_COUNT; from++)
			if (before & (1u << from))
				states |= connection_transitions[from];
	}
	return states;
}

START_TEST(transition_table_equals_transitions_of_code)
{
	uint8_t expected[CONNECTION_STATE_COUNT] = {0};
	for (size_t i = 0; i < COUNT_OF(transitions); i++)
		expected[transitions[i].from] |= (uint8_t)(1u << transitions[i].to);
	for (unsigned from = 0; from < CONNECTION_STATE_COUNT; from++)
		ck_assert_msg(connection_transitions[from] == expected[from], "state %u: %#x instead of %#x", from,
			      connection_transitions[from], expected[from]);
}
END_TEST

START_TEST(every_state_is_reachable_from_initial_states)
{
	ck_assert_uint_eq(reachable(initial_states), all_states);
}
END_TEST

START_TEST(closed_is_reachable_from_every_state)
{
	for (unsigned from = 0; from < CONNECTION_STATE_COUNT; from++)
		ck_assert_msg(reachable(1u << from) & (1u << CONNECTION_CLOSED), "state %u never ends", from);
}
END_TEST

START_TEST(closed_has_no_successor)
{
	ck_assert_uint_eq(connection_transitions[CONNECTION_CLOSED], 0);
}
END_TEST

/* --- connection_set_state: each test runs for one pair of states --- */

enum { PAIRS = CONNECTION_STATE_COUNT * CONNECTION_STATE_COUNT };

static void change_state(unsigned from, unsigned to)
{
	struct connection connection = {.state = (uint8_t)from};
	connection_set_state(&connection, (enum connection_state)to);
	ck_assert_uint_eq(connection.state, to);
}

START_TEST(allowed_transition_sets_state)
{
	change_state(transitions[_i].from, transitions[_i].to);
}
END_TEST

START_TEST(forbidden_transition_aborts)
{
	unsigned from = (unsigned)_i / CONNECTION_STATE_COUNT, to = (unsigned)_i % CONNECTION_STATE_COUNT;
	change_state(from, to);
}
END_TEST

static Suite *suite(void)
{
	Suite *suite = suite_create("tcp_states");
	TCase *table = tcase_create("table");
	tcase_add_test(table, transition_table_equals_transitions_of_code);
	tcase_add_test(table, every_state_is_reachable_from_initial_states);
	tcase_add_test(table, closed_is_reachable_from_every_state);
	tcase_add_test(table, closed_has_no_successor);
	suite_add_tcase(suite, table);

	TCase *changes = tcase_create("changes");
	tcase_add_loop_test(changes, allowed_transition_sets_state, 0, (int)COUNT_OF(transitions));
	for (int i = 0; i < PAIRS; i++)
		if (!is_allowed((unsigned)i / CONNECTION_STATE_COUNT, (unsigned)i % CONNECTION_STATE_COUNT))
			tcase_add_loop_test_raise_signal(changes, forbidden_transition_aborts, SIGABRT, i, i + 1);
	suite_add_tcase(suite, changes);
	return suite;
}

int main(void)
{
	return check_run(suite());
}
