/* dial.h: sockets towards the target, bound and tuned as the options say. */
#ifndef SMALLSERVD_PROBE_DIAL_H
#define SMALLSERVD_PROBE_DIAL_H

#include <stdbool.h>

#include "probe/options.h"
#include "probe/target.h"

/* A new socket for ADDRESS: non-blocking, closed on exec, bound (-B, -I), with the TTL and DSCP that were asked for;
 * TCP without Nagle's delay; UDP tells the TTL and the true source of what arrives, and why a datagram was refused
 * (IP_RECVERR). It is not connected yet, so that UDP hears a reply from a wrong address, too. -1: the reason is in
 * ERROR (TARGET_ERROR_SIZE bytes). The near end was checked by target_parse_bind: may be called from any thread. */
int dial_socket(const struct options *options, const struct target_address *address, char *error);

#endif
