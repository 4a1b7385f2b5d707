/* ping.h: echo in the manner of ping: a request each interval, a line each reply. */
#ifndef SMALLSERVD_PROBE_PING_H
#define SMALLSERVD_PROBE_PING_H

#include "probe/run.h"

/* Asks until the count, the deadline or a signal ends it, and prints the summary. Returns the exit status. */
int ping_run(struct run *run);

#endif
