/* source_limit.h: slots taken by each source. */
#ifndef SMALLSERVD_NET_SOURCE_LIMIT_H
#define SMALLSERVD_NET_SOURCE_LIMIT_H

#include <netinet/in.h>
#include <stdint.h>

/* A table of sources with the slots that each has taken. Its shards have locks, so its functions may be called by any
 * thread. */
struct limit_sources;

/* Returns an empty table; NULL when out of memory. */
struct limit_sources *limit_sources_new(void);
void limit_sources_free(struct limit_sources *sources);

/* A source in the table, as long as it has slots. */
struct limit_source;

enum limit_verdict { LIMIT_ADMIT, LIMIT_TURN_AWAY, LIMIT_NO_MEMORY };

/* Takes one of MAXIMUM slots for ADDRESS, a masked prefix. Stores its entry in SOURCE, for limit_source_leave. */
enum limit_verdict limit_source_enter(struct limit_sources *sources, const struct in6_addr *address, int64_t maximum,
				      struct limit_source **source);

/* Returns the count of slots taken at the moment. The caller has one of them. */
int64_t limit_source_taken(const struct limit_source *source);

/* Frees a slot. */
void limit_source_leave(struct limit_sources *sources, struct limit_source *source);

#endif
