/* exchange.h: services that are asked once a connection, or once a datagram. */
#ifndef SMALLSERVD_PROBE_EXCHANGE_H
#define SMALLSERVD_PROBE_EXCHANGE_H

#include "probe/run.h"

/* Asks as often as the options say, each time over a new connection or socket, judges and prints the answers, then the summary:
 * discard, daytime, qotd, chargen and time, and echo with --half-close. Returns the exit status. */
int exchange_run(struct run *run);

#endif
