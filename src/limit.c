/* limit.c: who is let in: ADMIT, TURN_AWAY or PAUSE. */
#include "limit.h"

void limit_gate_init(struct limit_gate *gate, int64_t maximum)
{
	atomic_init(&gate->taken, 0);
	atomic_init(&gate->maximum, maximum);
	atomic_init(&gate->awaited, false);
}

static bool try_enter(struct limit_gate *gate)
{
	int64_t taken = atomic_load(&gate->taken);
	do {
		if (taken >= atomic_load_explicit(&gate->maximum, memory_order_relaxed))
			return false;
	} while (!atomic_compare_exchange_weak(&gate->taken, &taken, taken + 1));
	return true;
}

bool limit_gate_enter(struct limit_gate *gate)
{
	if (try_enter(gate))
		return true;
	/* a place that was given back between the look and the flag would wake nobody: so flag, then look again */
	atomic_store(&gate->awaited, true);
	return try_enter(gate);
}

bool limit_gate_leave(struct limit_gate *gate)
{
	atomic_fetch_sub(&gate->taken, 1);
	return atomic_load(&gate->awaited) && atomic_exchange(&gate->awaited, false);
}
