/* transport.h: TCP and UDP as bits, and their names. */
#ifndef SMALLSERVD_CORE_TRANSPORT_H
#define SMALLSERVD_CORE_TRANSPORT_H

enum {
	TRANSPORT_TCP = 1,
	TRANSPORT_UDP = 2,
	TRANSPORT_BOTH = TRANSPORT_TCP | TRANSPORT_UDP,
};

/* Returns the name of TRANSPORT, one bit, as options, the log and the counters write it. */
static inline const char *transport_name(unsigned transport)
{
	return transport == TRANSPORT_TCP ? "tcp" : "udp";
}

#endif
