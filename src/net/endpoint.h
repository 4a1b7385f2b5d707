/* endpoint.h: the sockets of one transport, address and port. */
#ifndef SMALLSERVD_NET_ENDPOINT_H
#define SMALLSERVD_NET_ENDPOINT_H

#include <net/if.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "config/config.h"
#include "core/problems.h"
#include "net/socket.h"

/* Open sockets, and by what a configuration knows them again: they stay open from one to the next, also through a reload that
 * gives them to another service, and through an upgrade. All of this is for the main thread. */
struct endpoint {
	/* what makes it the same: a configuration that wants all of this wants this endpoint */
	unsigned transport;           /* TRANSPORT_TCP or TRANSPORT_UDP */
	struct socket_address wanted; /* as it was asked for: with port 0 where the kernel picked */
	char interface[IF_NAMESIZE];  /* empty: any */
	char *service;                /* whose it is: of importance where the port is 0; NULL: nobody's so far */
	char *handed_name; /* of a handed one: its FileDescriptorName, NULL for none; `socket_name` asks for it */

	struct socket_address address; /* as it is bound, with the port that the kernel picked */
	bool handed; /* by the service manager: one descriptor, which others have too, for all workers */
	bool shared; /* with another process, which may go on with it: it is never told to refuse clients */
	bool inherited; /* from a process of ours that has not let go of it yet: nothing is set on it meanwhile; shared, too */
	bool both_families; /* a handed [::] that IPv4 clients reach too: it is both endpoints of `*` */

	struct socket_request options; /* what has been set on its sockets; what was not asked for is zero or -1 */
	bool is_tuned;                 /* OPTIONS hold: else nobody knows what is set on a handed one */
	struct socket_group *groups;   /* that its first socket has joined: one member hears, or all would answer */
	size_t group_count, groups_in_force; /* those behind were joined for a configuration that is not in force yet */

	struct place *place; /* of serving.c: where it is in service; NULL: nowhere yet */
	unsigned count;      /* sockets: 1 where handed, else one a worker of the process that opened it */
	unsigned to_listen;  /* the last so many are streams that are only bound so far */
	int fds[];           /* owned; -1: closed before */
};

/* Room for COUNT sockets, all -1 and the rest zero. NULL when out of memory. */
struct endpoint *endpoint_new(unsigned count);

/* Closes what is open and frees. NULL is fine. */
void endpoint_free(struct endpoint *endpoint);

/* What a line of the log about WANTED is about. */
struct log_context endpoint_context(const struct config_endpoint *wanted);

/* --- endpoints that are open already and wait for whoever wants them --- */

struct endpoint_pool;

/* NULL when out of memory. */
struct endpoint_pool *endpoint_pool_new(void);

/* Frees the pool, and the endpoints too where OWNS: those that were not taken. NULL is fine. */
void endpoint_pool_free(struct endpoint_pool *pool, bool owns);

/* False when out of memory; the endpoint is the caller's still. */
bool endpoint_pool_add(struct endpoint_pool *pool, struct endpoint *endpoint);

/* Takes out the one that suits WANTED, or NULL. The same answers always come for the same pool and the same questions. */
struct endpoint *endpoint_pool_take(struct endpoint_pool *pool, const struct config_endpoint *wanted);

/* Whether WANTED is the IPv4 half of a `*` whose other half will be served by a socket of both families: then it needs none
 * of its own. Takes nothing. */
bool endpoint_pool_covers(struct endpoint_pool *pool, const struct config_endpoint *wanted);

/* The next one that nobody has taken, from *INDEX on (0 at first), which is set behind it; NULL: there are no more. */
struct endpoint *endpoint_pool_next(struct endpoint_pool *pool, size_t *index);

/* --- opening and tuning --- */

/* The ports that are open so far, by transport and family: a new socket must know what it overlaps. */
struct endpoint_ports;
struct endpoint_ports *endpoint_ports_new(void); /* NULL when out of memory */
/* LEAVES: it is about to be closed, and another may take its place before. */
void endpoint_ports_add(struct endpoint_ports *ports, const struct endpoint *endpoint, bool leaves);
bool endpoint_ports_overlap(const struct endpoint_ports *ports, const struct config_endpoint *wanted);

/* When to open WANTED: 0 before 1 before 2. The broader an address, the earlier its turn: a wildcard bound alone finds out
 * whether somebody else has any of its addresses, which one that joins a socket of ours could not. */
enum { ENDPOINT_TURNS = 3 };
unsigned endpoint_turn(const struct config_endpoint *wanted);

/* Opens COUNT sockets for WANTED that belong to OWNER ((uid_t)-1: as they are), and adds them to PORTS. Streams LISTEN, or wait for
 * endpoint_listen. NULL: PROBLEMS has been told; or, with no problem, this host lacks the family and WANTED is only the half of a `*`. */
struct endpoint *endpoint_open(const struct config_endpoint *wanted, unsigned count, uid_t owner, bool listen,
			       struct endpoint_ports *ports, struct problems *problems);

/* Has those listen that were opened to do so later; others do already. False: PROBLEMS has been told. */
bool endpoint_listen(struct endpoint *endpoint, const struct config_endpoint *wanted, struct problems *problems);

/* Opens further sockets for ENDPOINT, which nobody serves yet, up to COUNT, so that each worker has one; they belong to OWNER, as do the
 * others then. Streams among them wait for endpoint_listen. Returns it, elsewhere in memory; NULL: PROBLEMS has been told, and it is closed. */
struct endpoint *endpoint_widen(struct endpoint *endpoint, const struct config_endpoint *wanted, unsigned count,
				uid_t owner, struct problems *problems);

/* Joins the multicast groups of WANTED that ENDPOINT has not joined yet; while it is inherited it only finds out whether that can be
 * done, since nothing that a process does which fails must stay on the socket. False: PROBLEMS has been told. */
bool endpoint_join(struct endpoint *endpoint, const struct config_endpoint *wanted, struct problems *problems);

/* Leaves again what endpoint_join has joined since the last endpoint_give. */
void endpoint_unjoin(struct endpoint *endpoint);

/* Gives ENDPOINT to WANTED's service for good: sets on its sockets what that wants and they have not, leaves groups that it does not
 * name, and joins the others. What the kernel refuses is logged. While it is inherited nothing is set. */
void endpoint_give(struct endpoint *endpoint, const struct config_endpoint *wanted);

#endif
