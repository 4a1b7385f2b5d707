/* limit.c: a limit of slots that all workers share. */
#include "net/limit.h"

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
	/* try again after setting the flag: a slot freed before it was set has resumed no listener */
	atomic_store(&gate->awaited, true);
	return try_enter(gate);
}

int64_t limit_gate_left(const struct limit_gate *gate)
{
	return atomic_load_explicit(&gate->maximum, memory_order_relaxed) -
	       atomic_load_explicit(&gate->taken, memory_order_relaxed);
}

bool limit_gate_leave(struct limit_gate *gate)
{
	atomic_fetch_sub(&gate->taken, 1);
	return atomic_load(&gate->awaited) && atomic_exchange(&gate->awaited, false);
}
