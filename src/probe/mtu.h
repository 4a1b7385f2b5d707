/* mtu.h: the largest datagram that passes to an echo server and back unfragmented. */
#ifndef SMALLSERVD_PROBE_MTU_H
#define SMALLSERVD_PROBE_MTU_H

#include "probe/run.h"

/* Finds it by bisection with DF set, prints the ICMP errors of the path and the summary. Returns the exit status. */
int mtu_run(struct run *run);

#endif
