/* mtu.h: the largest datagram that an echo server gets and returns unfragmented. */
#ifndef SMALLSERVD_PROBE_MTU_H
#define SMALLSERVD_PROBE_MTU_H

#include "probe/run.h"

/* Looks for it by bisection, with fragments forbidden, prints what the path answered and the summary. Returns the exit status. */
int mtu_run(struct run *run);

#endif
