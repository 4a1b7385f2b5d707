/* admission.h: the ACL, rate limits and source limit of a service, for connections and datagrams alike. */
#ifndef SMALLSERVD_NET_ADMISSION_H
#define SMALLSERVD_NET_ADMISSION_H

#include "net/instance.h"

/* A source as the rules of a service see it. */
struct admission_source {
	struct in6_addr prefix; /* the limits count all addresses of this prefix as one source */
	bool denied;            /* by the ACL */
};

/* Returns whether admission has anything to check for datagrams of INSTANCE. */
static inline bool admission_limits_datagrams(const struct instance *instance)
{
	return instance->acl != NULL || instance->datagram_buckets != NULL;
}

/* Examines IP, IPv6 or mapped IPv4. */
struct admission_source admission_examine(const struct instance *instance, const struct in6_addr *ip);

/* Returns the reason to drop a datagram of SOURCE; METRIC_COUNT: it is admitted. Takes a token of the rate limit. Any
 * thread. */
enum metric admission_of_datagram(const struct instance *instance, const struct admission_source *source);

/* Returns the reason to refuse a connection from IP; METRIC_COUNT: it is admitted. Takes a token of the rate limit and
 * stores in ENTRY where the source limit counts its slot, for admission_leave; NULL: sources are not limited. Any
 * thread. */
enum metric admission_of_connection(const struct instance *instance, const struct in6_addr *ip,
				    struct source_entry **entry);

/* Frees the slot of an admitted connection. ENTRY may be NULL. Any thread. */
void admission_leave(const struct instance *instance, struct source_entry *entry);

#endif
