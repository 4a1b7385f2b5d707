/* limit.h: a limit of slots that all workers share. */
#ifndef SMALLSERVD_NET_LIMIT_H
#define SMALLSERVD_NET_LIMIT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

/* An exact count of the slots in use, shared by all workers. Each service has a gate, and so has the daemon. */
struct limit_gate {
	_Atomic int64_t taken;
	_Atomic int64_t maximum;
	atomic_bool awaited; /* a listener has paused until a slot is free */
};

void limit_gate_init(struct limit_gate *gate, int64_t maximum);

/* Takes a slot. Returns false if all are taken; the next limit_gate_leave then returns true. Any thread. */
bool limit_gate_enter(struct limit_gate *gate);

/* Returns the count of free slots at the moment. Any thread. */
int64_t limit_gate_left(const struct limit_gate *gate);

/* Frees a slot. Returns true if an attempt to enter has failed since the last time: the caller resumes the paused
 * listeners. Any thread. */
bool limit_gate_leave(struct limit_gate *gate);

#endif
