/* socket.h: sockets to the target, bound and tuned as the options say. */
#ifndef SMALLSERVD_PROBE_SOCKET_H
#define SMALLSERVD_PROBE_SOCKET_H

#include <stdbool.h>

#include "probe/options.h"
#include "probe/target.h"

/* Opens a socket for ADDRESS: non-blocking, close-on-exec, bound (-B, -I), with the TTL and DSCP of the options; TCP
 * with TCP_NODELAY; UDP receives the TTL and ICMP errors (IP_RECVERR). It is left unconnected, so that UDP receives
 * replies from a wrong address as well. Returns -1 with the reason in ERROR (TARGET_ERROR_SIZE bytes). Any thread. */
int socket_open(const struct options *options, const struct target_address *address, char *error);

#endif
