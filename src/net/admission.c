/* admission.c: the ACL, rate limits and source limit of a service, for connections and datagrams alike. */
#include "net/admission.h"

#include <errno.h>

#include "core/clock.h"

struct admission_source admission_examine(const struct instance *instance, const struct in6_addr *ip)
{
	const struct option_source_prefix *length = &instance->config->source_prefix;
	return (struct admission_source){
		.prefix = acl_mask(ip, IN6_IS_ADDR_V4MAPPED(ip) ? 96 + length->v4 : length->v6),
		.denied = instance->acl != NULL && !acl_allows(instance->acl, ip),
	};
}

/* Returns METRIC_COUNT, or the reason DENIED or RATE. */
static enum metric admit(const struct admission_source *source, struct token_buckets *buckets, enum metric denied,
			 enum metric rate)
{
	if (source->denied)
		return denied;
	if (buckets != NULL && !token_bucket_take(buckets, &source->prefix, clock_ms()))
		return rate;
	return METRIC_COUNT;
}

enum metric admission_of_datagram(const struct instance *instance, const struct admission_source *source)
{
	return admit(source, instance->datagram_buckets, METRIC_DROPPED_DENIED, METRIC_DROPPED_RATE);
}

enum metric admission_of_connection(const struct instance *instance, const struct in6_addr *ip,
				    struct source_entry **entry)
{
	struct admission_source source = admission_examine(instance, ip);
	enum metric reason = admit(&source, instance->connection_buckets, METRIC_REFUSED_DENIED, METRIC_REFUSED_RATE);

	*entry = NULL;
	if (reason != METRIC_COUNT || instance->sources == NULL)
		return reason;
	switch (source_limit_enter(instance->sources, &source.prefix, instance->source_maximum, entry)) {
	case 0:
		return METRIC_COUNT;
	case -EAGAIN:
		return METRIC_REFUSED_SOURCE_LIMIT;
	default:
		return METRIC_REFUSED_NO_MEMORY;
	}
}

void admission_leave(const struct instance *instance, struct source_entry *entry)
{
	if (entry != NULL)
		source_limit_leave(instance->sources, entry);
}
