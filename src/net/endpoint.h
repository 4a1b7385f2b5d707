/* endpoint.h: the sockets of one transport, address and port. Main thread only. */
#ifndef SMALLSERVD_NET_ENDPOINT_H
#define SMALLSERVD_NET_ENDPOINT_H

#include <net/if.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "config/config.h"
#include "core/diagnostics.h"
#include "net/socket.h"

/* Open sockets and the key by which a reload or an upgrade finds them again. Other files read the fields and change
 * them by the functions below. */
struct endpoint {
	/* the key: a configured endpoint that is equal in all of this uses these sockets */
	unsigned transport;           /* TRANSPORT_TCP or TRANSPORT_UDP */
	struct socket_address wanted; /* as configured: with port 0 where the kernel picked the port */
	char interface[IF_NAMESIZE];  /* empty: any */
	char *service;                /* name of the service; part of the key where the port is 0; NULL: none yet */
	char *socket_name;            /* FileDescriptorName of a socket from LISTEN_FDS, for `socket_name`; or NULL */

	struct socket_address address; /* as bound, with the port that the kernel picked */
	bool from_listen_fds;          /* one socket for all workers, which the service manager has open too */
	bool from_parent;              /* the parent of an upgrade still serves it: no option is set meanwhile */
	bool shared;     /* another process has the sockets open and may go on: they are never made to refuse clients */
	bool dual_stack; /* an IPv6 wildcard that accepts IPv4, from LISTEN_FDS: both endpoints of `*` */

	struct socket_request options; /* options set on the sockets */
	bool options_known;            /* false: another process has set them */
	struct socket_group *groups;   /* multicast groups of the first socket; otherwise every worker would reply */
	size_t group_count,
		groups_in_force; /* groups from groups_in_force on belong to a reload that is not committed */

	void *owner;    /* see endpoint_set_owner; NULL at first */
	unsigned count; /* sockets: 1 from LISTEN_FDS, else at least one a worker of the process that opened them */
	unsigned pending_listen; /* the last so many sockets wait for endpoint_listen */
	int fds[];               /* owned; -1: closed */
};

/* --- constructors; the fourth, endpoint_open, is below --- */

/* Makes an endpoint of socket FD, which the service manager calls NAME (NULL: no name). KIND is the result of
 * socket_examine. Owns FD on success. Returns NULL when out of memory. */
struct endpoint *endpoint_from_listen_fds(int fd, const struct socket_kind *kind, const char *name);

/* Properties of an endpoint that its sockets do not tell. Texts and groups are the caller's; NULL for none. */
struct endpoint_record {
	struct socket_address wanted; /* as configured */
	bool from_listen_fds;
	const char *interface, *service, *socket_name;
	const struct socket_group *groups;
	size_t group_count;
};

/* Makes an endpoint of COUNT sockets FDS, all of KIND, that the parent of an upgrade serves, too. Owns FDS on success.
 * Returns NULL when out of memory. */
struct endpoint *endpoint_from_parent(const int *fds, unsigned count, const struct socket_kind *kind,
				      const struct endpoint_record *record);

/* Closes the sockets and frees ENDPOINT, which may be NULL. */
void endpoint_free(struct endpoint *endpoint);

/* Sets the owner: the caller's object that serves ENDPOINT. */
void endpoint_set_owner(struct endpoint *endpoint, void *owner);

/* Notes that another process goes on with the sockets. */
void endpoint_mark_shared(struct endpoint *endpoint);

/* Closes socket INDEX. */
void endpoint_close(struct endpoint *endpoint, unsigned index);

/* Returns the context of log lines about WANTED. */
struct log_context endpoint_context(const struct config_endpoint *wanted);

/* Fills ADDRESS with the address and port of WANTED. Returns false if the interface of its zone does not exist. */
bool endpoint_find_address(const struct config_endpoint *wanted, struct socket_address *address);

/* --- opening --- */

/* The open ports by transport and family, from which the overlap of a new socket follows. */
struct endpoint_ports;
struct endpoint_ports *endpoint_ports_new(void); /* NULL when out of memory; free with free() */
/* LEAVING: it is about to be closed, and its successor may be bound before that. */
void endpoint_ports_add(struct endpoint_ports *ports, const struct endpoint *endpoint, bool leaving);
bool endpoint_ports_overlap(const struct endpoint_ports *ports, const struct config_endpoint *wanted);

/* Returns the phase in which to open WANTED, from 0. Broad addresses come first: only a wildcard that is bound alone
 * detects another program on any of its addresses. */
enum { ENDPOINT_BIND_PHASES = 3 };
unsigned endpoint_bind_order(const struct config_endpoint *wanted);

/* Opens COUNT sockets for WANTED that belong to user OWNER ((uid_t)-1: unchanged), and adds them to PORTS. With LISTEN,
 * TCP sockets listen at once, else at endpoint_listen. Returns NULL and a problem; or NULL and no problem if this host
 * lacks IPv6 and WANTED is the IPv6 half of a `*`. */
struct endpoint *endpoint_open(const struct config_endpoint *wanted, unsigned count, uid_t owner, bool listen,
			       struct endpoint_ports *ports, struct diagnostics *diagnostics);

/* Calls listen(2) on the sockets for which that is pending. Returns false and a problem. */
bool endpoint_listen(struct endpoint *endpoint, const struct config_endpoint *wanted, struct diagnostics *diagnostics);

/* Opens further sockets for ENDPOINT, which is not served yet, up to COUNT, one a worker; they and the others then
 * belong to user OWNER. New TCP sockets wait for endpoint_listen. Returns ENDPOINT, moved in memory; or NULL and a
 * problem, and ENDPOINT is freed. */
struct endpoint *endpoint_add_sockets(struct endpoint *endpoint, const struct config_endpoint *wanted, unsigned count,
				      uid_t owner, struct diagnostics *diagnostics);

/* --- options and multicast groups --- */

/* Joins the multicast groups of WANTED that ENDPOINT has not joined yet. While it is the parent's, only checks on a
 * socket of its own that they can be joined: a failed upgrade leaves the parent's socket as it was. Returns false and a
 * problem. */
bool endpoint_join(struct endpoint *endpoint, const struct config_endpoint *wanted, struct diagnostics *diagnostics);

/* Leaves the groups joined since the last endpoint_apply. */
void endpoint_unjoin(struct endpoint *endpoint);

/* Puts WANTED in force on ENDPOINT: sets the options that differ, leaves groups that WANTED does not name, joins the
 * others. Logs what the kernel refuses. Sets nothing while the sockets are the parent's. */
void endpoint_apply(struct endpoint *endpoint, const struct config_endpoint *wanted);

/* The parent has closed the sockets: puts WANTED in force on them. */
void endpoint_parent_released(struct endpoint *endpoint, const struct config_endpoint *wanted);

#endif
