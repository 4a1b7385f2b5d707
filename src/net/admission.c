/* admission.c: the ACL, rate limits and source limit of a service, for connections and datagrams alike. */
#include "net/admission.h"

#include "core/clock.h"

struct admission_source admission_examine(const struct instance *instance, const struct in6_addr *ip)
{
	return (struct admission_source){
		.prefix = instance_source(instance, ip),
		.denied = instance->prefixes != NULL && !acl_allows(instance->prefixes, ip),
	};
}

/* Returns METRIC_COUNT, or the reason DENIED or RATE. */
static enum metric admit(const struct admission_source *source, struct limit_buckets *buckets, enum metric denied,
			 enum metric rate)
{
	if (source->denied)
		return denied;
	if (buckets != NULL && !limit_bucket_take(buckets, &source->prefix, clock_ms()))
		return rate;
	return METRIC_COUNT;
}

enum metric admission_of_datagram(const struct instance *instance, const struct admission_source *source)
{
	return admit(source, instance->datagram_buckets, METRIC_DROPPED_DENIED, METRIC_DROPPED_RATE);
}

enum metric admission_of_connection(const struct instance *instance, const struct in6_addr *ip,
				    struct limit_source **entry)
{
	struct admission_source source = admission_examine(instance, ip);
	enum metric reason = admit(&source, instance->connection_buckets, METRIC_REFUSED_DENIED, METRIC_REFUSED_RATE);

	*entry = NULL;
	if (reason != METRIC_COUNT || instance->sources == NULL)
		return reason;
	switch (limit_source_enter(instance->sources, &source.prefix, instance->source_maximum, entry)) {
	case LIMIT_TURN_AWAY:
		return METRIC_REFUSED_SOURCE_LIMIT;
	case LIMIT_NO_MEMORY:
		return METRIC_REFUSED_NO_MEMORY;
	default:
		return METRIC_COUNT;
	}
}

void admission_leave(const struct instance *instance, struct limit_source *entry)
{
	if (entry != NULL)
		limit_source_leave(instance->sources, entry);
}
