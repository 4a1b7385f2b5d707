/* ping.h: echo as ping(8) does it: a request each interval, a line each reply. */
#ifndef SMALLSERVD_PROBE_PING_H
#define SMALLSERVD_PROBE_PING_H

#include "probe/run.h"

/* Sends requests until the count, the deadline or a signal ends the run, and prints the summary. Returns the exit
 * status. */
int ping_run(struct run *run);

#endif
