/* request.h: services that take one request a connection or a datagram. */
#ifndef SMALLSERVD_PROBE_REQUEST_H
#define SMALLSERVD_PROBE_REQUEST_H

#include "probe/run.h"

/* Sends as many requests as the options say, each over a new connection or socket, checks and prints the replies, then
 * the summary: discard, daytime, qotd, chargen and time, and echo with --half-close. Returns the exit status. */
int request_run(struct run *run);

#endif
