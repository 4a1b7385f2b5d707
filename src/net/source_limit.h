/* source_limit.h: slots taken by each source. */
#ifndef SMALLSERVD_NET_SOURCE_LIMIT_H
#define SMALLSERVD_NET_SOURCE_LIMIT_H

#include <netinet/in.h>
#include <stdint.h>

/* A table of sources with the slots that each has taken. Its shards have locks, so its functions may be called by any
 * thread. */
struct source_limit;

/* Returns an empty table; NULL when out of memory. */
struct source_limit *source_limit_new(void);
void source_limit_free(struct source_limit *limit);

/* A source in the table, as long as it has slots. */
struct source_entry;

/* Takes one of MAXIMUM slots for ADDRESS, a masked prefix, and stores its ENTRY for source_limit_leave. Returns 0,
 * -EAGAIN if all slots are taken, or -ENOMEM; ENTRY is NULL then. */
int source_limit_enter(struct source_limit *limit, const struct in6_addr *address, int64_t maximum,
		       struct source_entry **entry);

/* Returns the count of slots taken at the moment. The caller has one of them. */
int64_t source_limit_taken(const struct source_entry *entry);

/* Frees a slot. */
void source_limit_leave(struct source_limit *limit, struct source_entry *entry);

#endif
