/* limit.h: who is let in: ADMIT, TURN_AWAY or PAUSE. */
#ifndef SMALLSERVD_LIMIT_H
#define SMALLSERVD_LIMIT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

/* An exact count of places shared by all workers: one a service, one for the daemon. */
struct limit_gate {
	_Atomic int64_t taken;
	_Atomic int64_t maximum;
	atomic_bool awaited; /* somebody paused for want of a place */
};

void limit_gate_init(struct limit_gate *gate, int64_t maximum);

/* Takes a place. False: all are taken, and the next limit_gate_leave says that somebody waits. Any thread. */
bool limit_gate_enter(struct limit_gate *gate);

/* Gives a place back. True: somebody waits for it, and the caller has to wake them. Any thread. */
bool limit_gate_leave(struct limit_gate *gate);

#endif
