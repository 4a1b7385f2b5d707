/* endpoint.c: the sockets of one transport, address and port. */
#include "net/endpoint.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/transport.h"
#include "net/port_set.h"

struct endpoint *endpoint_new(unsigned count)
{
	struct endpoint *endpoint = calloc(1, sizeof *endpoint + count * sizeof endpoint->fds[0]);
	if (endpoint == NULL)
		return NULL;
	endpoint->count = count;
	for (unsigned i = 0; i < count; i++)
		endpoint->fds[i] = -1;
	return endpoint;
}

void endpoint_free(struct endpoint *endpoint)
{
	if (endpoint == NULL)
		return;
	for (unsigned i = 0; i < endpoint->count; i++)
		if (endpoint->fds[i] >= 0)
			close(endpoint->fds[i]);
	free(endpoint->service);
	free(endpoint->handed_name);
	free(endpoint->groups);
	free(endpoint);
}

struct log_context endpoint_context(const struct config_endpoint *wanted)
{
	struct config_origin origin = config_service_origin(wanted->service, "port");
	return (struct log_context){
		.service = wanted->service->name,
		.transport = transport_name(wanted->transport),
		.config_file = origin.file,
		.config_line = origin.line,
	};
}

/* False: there is no such interface. */
static bool find_address(const struct config_endpoint *wanted, struct socket_address *address)
{
	return socket_address_set(address, wanted->address.family, &wanted->address.ip, wanted->address.zone,
				  wanted->port);
}

/* --- those that wait to be taken --- */

struct pooled {
	unsigned transport; /* these two are the endpoint's, which may be gone once it is taken */
	struct socket_address wanted;
	struct endpoint *endpoint;
	bool taken;
};

struct endpoint_pool {
	struct pooled *entries;
	size_t count, room;
	bool sorted;
};

struct endpoint_pool *endpoint_pool_new(void)
{
	return calloc(1, sizeof(struct endpoint_pool));
}

void endpoint_pool_free(struct endpoint_pool *pool, bool owns)
{
	if (pool == NULL)
		return;
	for (size_t i = 0; owns && i < pool->count; i++)
		if (!pool->entries[i].taken)
			endpoint_free(pool->entries[i].endpoint);
	free(pool->entries);
	free(pool);
}

bool endpoint_pool_add(struct endpoint_pool *pool, struct endpoint *endpoint)
{
	if (pool->count == pool->room) {
		size_t room = pool->room > 0 ? 2 * pool->room : 16;
		struct pooled *entries = realloc(pool->entries, room * sizeof *entries);
		if (entries == NULL)
			return false;
		pool->entries = entries;
		pool->room = room;
	}
	pool->entries[pool->count++] =
		(struct pooled){.transport = endpoint->transport, .wanted = endpoint->wanted, .endpoint = endpoint};
	pool->sorted = false;
	return true;
}

static unsigned scope_of(const struct socket_address *address)
{
	return address->any.sa_family == AF_INET6 ? address->v6.sin6_scope_id : 0;
}

static int compare_addresses(const struct socket_address *a, const struct socket_address *b)
{
	int order = a->any.sa_family - b->any.sa_family;
	if (order == 0)
		order = socket_address_port(a) - socket_address_port(b);
	if (order != 0)
		return order;
	struct in6_addr left = socket_address_ip(a), right = socket_address_ip(b);
	order = memcmp(&left, &right, sizeof left);
	if (order != 0 || scope_of(a) == scope_of(b))
		return order;
	return scope_of(a) < scope_of(b) ? -1 : 1;
}

static int compare_pooled(const void *left, const void *right)
{
	const struct pooled *a = left, *b = right;
	if (a->transport != b->transport)
		return a->transport < b->transport ? -1 : 1;
	return compare_addresses(&a->wanted, &b->wanted);
}

/* The first entry at or behind KEY's place. */
static size_t find_first(struct endpoint_pool *pool, const struct pooled *key)
{
	size_t from = 0, to = pool->count;

	if (!pool->sorted && pool->count > 0)
		qsort(pool->entries, pool->count, sizeof *pool->entries, compare_pooled);
	pool->sorted = true;
	while (from < to) {
		size_t middle = from + (to - from) / 2;
		if (compare_pooled(&pool->entries[middle], key) < 0)
			from = middle + 1;
		else
			to = middle;
	}
	return from;
}

/* Whether ENDPOINT, whose address is right, is WANTED's in all other respects too. */
static bool suits(const struct endpoint *endpoint, const struct config_endpoint *wanted)
{
	const struct config_service *service = wanted->service;

	if (wanted->port == 0 && (endpoint->service == NULL || strcmp(endpoint->service, service->name) != 0))
		return false;
	if (endpoint->both_families && !wanted->from_star)
		return false;
	if (service->interface != NULL ? strcmp(endpoint->interface, service->interface) != 0
				       : endpoint->interface[0] != '\0' && !endpoint->handed)
		return false;
	return !endpoint->handed || service->socket_name == NULL ||
	       (endpoint->handed_name != NULL && strcmp(endpoint->handed_name, service->socket_name) == 0);
}

static struct pooled *find(struct endpoint_pool *pool, const struct config_endpoint *wanted)
{
	struct pooled key = {.transport = wanted->transport};
	if (pool->count == 0 || !find_address(wanted, &key.wanted))
		return NULL;
	for (size_t i = find_first(pool, &key); i < pool->count; i++) {
		struct pooled *entry = &pool->entries[i];
		if (compare_pooled(entry, &key) != 0)
			return NULL;
		if (!entry->taken && suits(entry->endpoint, wanted))
			return entry;
	}
	return NULL;
}

struct endpoint *endpoint_pool_take(struct endpoint_pool *pool, const struct config_endpoint *wanted)
{
	struct pooled *entry = find(pool, wanted);
	if (entry == NULL)
		return NULL;
	entry->taken = true;
	return entry->endpoint;
}

bool endpoint_pool_covers(struct endpoint_pool *pool, const struct config_endpoint *wanted)
{
	struct config_endpoint other = *wanted;
	if (!wanted->from_star || wanted->address.family != AF_INET || wanted->port == 0)
		return false;
	other.address = (struct option_address){.family = AF_INET6, .ip.v6 = in6addr_any};
	const struct pooled *entry = find(pool, &other);
	return entry != NULL && entry->endpoint->both_families;
}

struct endpoint *endpoint_pool_next(struct endpoint_pool *pool, size_t *index)
{
	while (*index < pool->count) {
		struct pooled *entry = &pool->entries[(*index)++];
		if (!entry->taken)
			return entry->endpoint;
	}
	return NULL;
}

/* --- what overlaps --- */

struct endpoint_ports {
	struct port_set broad[2][2], any[2][2];
};

struct endpoint_ports *endpoint_ports_new(void)
{
	return calloc(1, sizeof(struct endpoint_ports));
}

/* A broad address can include others on the same port; one that leaves, its own successor. */
void endpoint_ports_add(struct endpoint_ports *ports, const struct endpoint *endpoint, bool leaves)
{
	uint16_t port = socket_address_port(&endpoint->address);
	int transport = endpoint->transport == TRANSPORT_UDP, family = endpoint->address.any.sa_family == AF_INET6;
	port_set_add(&ports->any[transport][family], port);
	if (leaves || socket_address_is_wildcard(&endpoint->address) || endpoint->interface[0] != '\0')
		port_set_add(&ports->broad[transport][family], port);
}

static bool is_wildcard(const struct option_address *address)
{
	static const struct in6_addr any;
	return memcmp(&address->ip, &any, address->family == AF_INET ? sizeof address->ip.v4 : sizeof any) == 0;
}

/* Whether a socket of ours has the same port on an address that includes this one, or is included: then the first of the
 * group cannot be bound alone. */
bool endpoint_ports_overlap(const struct endpoint_ports *ports, const struct config_endpoint *wanted)
{
	int transport = wanted->transport == TRANSPORT_UDP, family = wanted->address.family == AF_INET6;
	bool broad = is_wildcard(&wanted->address) || wanted->service->interface != NULL;
	return wanted->port != 0 && (port_set_has(&ports->broad[transport][family], wanted->port) ||
				     (broad && port_set_has(&ports->any[transport][family], wanted->port)));
}

unsigned endpoint_turn(const struct config_endpoint *wanted)
{
	if (!is_wildcard(&wanted->address))
		return 2;
	return wanted->service->interface != NULL ? 1 : 0;
}

/* --- opening --- */

/* False: there is no such interface. */
static bool fill_request(const struct config_endpoint *wanted, uid_t owner, struct socket_request *request)
{
	const struct config_service *service = wanted->service;
	bool udp = wanted->transport == TRANSPORT_UDP;
	enum { UDP_RECEIVE_BUFFER = 1024 * 1024 };

	*request = (struct socket_request){
		.type = udp ? SOCK_DGRAM : SOCK_STREAM,
		.interface = service->interface,
		.free_bind = service->free_bind,
		.shared = udp && service->multicast_groups.count > 0,
		.dscp = service->dscp == DSCP_COPY ? -1 : (int)service->dscp,
		.wants_dscp = service->dscp == DSCP_COPY,
		.receive_buffer =
			(int)(service->receive_buffer == 0 && udp ? UDP_RECEIVE_BUFFER : service->receive_buffer),
		.send_buffer = (int)service->send_buffer,
		.backlog = (int)service->backlog,
		.keepalive_s = (int)(service->keepalive_ms / 1000),
		.owner = owner,
	};
	return find_address(wanted, &request->address);
}

/* The half of `*` that a host without IPv6 does not have. */
static bool is_missing_family(const struct config_endpoint *wanted, int error)
{
	return wanted->from_star && wanted->address.family == AF_INET6 &&
	       (error == EAFNOSUPPORT || error == EADDRNOTAVAIL);
}

/* WRITTEN: it is more than a default. */
static void tell_of_buffer(const struct config_endpoint *wanted, int fd, int option, int size, bool written)
{
	static bool told; /* of a default once is enough */
	bool receives = option == SO_RCVBUF;
	int got = socket_buffer_size(fd, option);
	if (size == 0 || got < 0 || got >= size || (!written && told))
		return;
	told |= !written;
	struct log_context context = endpoint_context(wanted);
	log_write(written ? LOG_WARNING : LOG_INFO, &context, "%s: %s: the kernel caps %d bytes at %d (net.core.%s)",
		  context.service, receives ? "receive_buffer" : "send_buffer", size, got,
		  receives ? "rmem_max" : "wmem_max");
}

static void tell_of_buffers(const struct config_endpoint *wanted, int fd, const struct socket_request *was,
			    const struct socket_request *now)
{
	if (was->receive_buffer != now->receive_buffer)
		tell_of_buffer(wanted, fd, SO_RCVBUF, now->receive_buffer, wanted->service->receive_buffer > 0);
	if (was->send_buffer != now->send_buffer)
		tell_of_buffer(wanted, fd, SO_SNDBUF, now->send_buffer, true);
}

static bool set_service(struct endpoint *endpoint, const char *name)
{
	if (endpoint->service != NULL && strcmp(endpoint->service, name) == 0)
		return true;
	char *copy = strdup(name);
	if (copy == NULL)
		return false;
	free(endpoint->service);
	endpoint->service = copy;
	return true;
}

/* TEXT is its address. */
static void tell_of_opening(const struct log_context *context, const char *text, int error, struct problems *problems)
{
	problems_add(problems, context, "%s: cannot listen on %s %s: %s", context->service, context->transport, text,
		     strerror(error));
}

struct endpoint *endpoint_open(const struct config_endpoint *wanted, unsigned count, uid_t owner, bool listen,
			       struct endpoint_ports *ports, struct problems *problems)
{
	static const struct socket_request nothing;
	struct log_context context = endpoint_context(wanted);
	struct endpoint *endpoint = endpoint_new(count);
	struct socket_request request;
	char text[SOCKET_TEXT_SIZE];

	if (endpoint == NULL || !set_service(endpoint, wanted->service->name)) {
		problems_add(problems, &context, "%s: out of memory", context.service);
		goto fail;
	}
	bool known = fill_request(wanted, owner, &request);
	endpoint->transport = wanted->transport;
	endpoint->wanted = request.address;
	request.overlaps = endpoint_ports_overlap(ports, wanted);
	request.listens_later = !listen && request.type == SOCK_STREAM;
	socket_address_print(&request.address, text);
	int error = known ? socket_open_group(&request, endpoint->fds, count) : ENODEV;
	if (error != 0 && is_missing_family(wanted, error)) {
		log_write(LOG_INFO, &context, "%s: not listening on %s %s: %s", context.service, context.transport,
			  text, strerror(error));
		goto fail;
	}
	if (error != 0) {
		tell_of_opening(&context, text, error, problems);
		goto fail;
	}
	endpoint->address = request.address;
	if (wanted->service->interface != NULL)
		memcpy(endpoint->interface, wanted->service->interface, strlen(wanted->service->interface) + 1);
	endpoint->options = request;
	endpoint->options.interface = NULL; /* that is the configuration's, which may go */
	endpoint->is_tuned = true;
	endpoint->to_listen = request.listens_later ? count : 0;
	endpoint_ports_add(ports, endpoint, false);
	tell_of_buffers(wanted, endpoint->fds[0], &nothing, &request);
	return endpoint;
fail:
	for (unsigned i = 0; endpoint != NULL && i < count; i++)
		endpoint->fds[i] = -1; /* socket_open_group left none open */
	endpoint_free(endpoint);
	return NULL;
}

bool endpoint_listen(struct endpoint *endpoint, const struct config_endpoint *wanted, struct problems *problems)
{
	struct log_context context = endpoint_context(wanted);
	char text[SOCKET_TEXT_SIZE];

	unsigned first = endpoint->count - endpoint->to_listen;
	int error = socket_listen(&endpoint->fds[first], endpoint->to_listen, endpoint->options.backlog);
	if (error == 0) {
		endpoint->to_listen = 0;
		return true;
	}
	socket_address_print(&endpoint->address, text);
	tell_of_opening(&context, text, error, problems);
	return false;
}

/* Whoever joins a group must be of its owner. */
static void own_sockets(const struct endpoint *endpoint, uid_t owner)
{
	for (unsigned i = 0; owner != (uid_t)-1 && i < endpoint->count; i++)
		if (fchown(endpoint->fds[i], owner, (gid_t)-1) < 0)
			log_info("cannot give a socket away: %s", strerror(errno));
}

struct endpoint *endpoint_widen(struct endpoint *endpoint, const struct config_endpoint *wanted, unsigned count,
				uid_t owner, struct problems *problems)
{
	struct log_context context = endpoint_context(wanted);
	unsigned before = endpoint->count;
	struct socket_request request;
	char text[SOCKET_TEXT_SIZE];

	if (before >= count)
		return endpoint;
	struct endpoint *wider = realloc(endpoint, sizeof *endpoint + count * sizeof endpoint->fds[0]);
	int error = wider != NULL ? 0 : ENOMEM;
	if (wider != NULL) {
		endpoint = wider;
		own_sockets(endpoint, owner);
		error = fill_request(wanted, owner, &request) ? 0 : ENODEV;
		request.address = endpoint->address;
		request.overlaps = true;
		request.listens_later = request.type == SOCK_STREAM;
	}
	if (error == 0)
		error = socket_open_group(&request, &endpoint->fds[before], count - before);
	if (error == 0) {
		endpoint->count = count;
		endpoint->options.backlog = request.backlog;
		endpoint->to_listen = request.listens_later ? count - before : 0;
		return endpoint;
	}
	socket_address_print(&endpoint->address, text);
	problems_add(problems, &context, "%s: cannot listen on %s %s with more workers: %s", context.service,
		     context.transport, text, strerror(error));
	endpoint_free(endpoint);
	return NULL;
}

/* --- multicast groups --- */

/* False: its interface is not there. */
static bool find_group(const struct config_endpoint *wanted, const struct option_address *listed,
		       struct socket_group *group)
{
	const char *interface = listed->zone[0] != '\0' ? listed->zone : wanted->service->interface;
	socket_address_set(&group->address, listed->family, &listed->ip, "", 0);
	return socket_find_interface(interface != NULL ? interface : "", &group->interface);
}

static bool has_joined(const struct endpoint *endpoint, const struct socket_group *group)
{
	for (size_t i = 0; i < endpoint->group_count; i++)
		if (socket_group_equals(&endpoint->groups[i], group))
			return true;
	return false;
}

/* Returns 0 or an errno. */
static int join(struct endpoint *endpoint, const struct socket_group *group)
{
	if (has_joined(endpoint, group))
		return 0;
	if (endpoint->inherited)
		return socket_try_to_join(group);
	struct socket_group *groups = realloc(endpoint->groups, (endpoint->group_count + 1) * sizeof *groups);
	if (groups == NULL)
		return ENOMEM;
	endpoint->groups = groups;
	int error = socket_join(endpoint->fds[0], group);
	if (error == 0)
		groups[endpoint->group_count++] = *group;
	return error;
}

bool endpoint_join(struct endpoint *endpoint, const struct config_endpoint *wanted, struct problems *problems)
{
	const struct option_addresses *groups = &wanted->service->multicast_groups;
	struct log_context context = endpoint_context(wanted);
	bool joined = true;

	for (size_t i = 0; wanted->transport == TRANSPORT_UDP && i < groups->count; i++) {
		const struct option_address *listed = &groups->list[i];
		struct socket_group group = {0};
		char text[INET6_ADDRSTRLEN + IF_NAMESIZE];
		if (listed->family != wanted->address.family && !endpoint->both_families)
			continue;
		int error = find_group(wanted, listed, &group) ? join(endpoint, &group) : ENODEV;
		if (error == 0)
			continue;
		option_print_address(listed, text);
		problems_add(problems, &context, "%s: cannot join %s: %s", context.service, text, strerror(error));
		joined = false;
	}
	return joined;
}

void endpoint_unjoin(struct endpoint *endpoint)
{
	while (endpoint->group_count > endpoint->groups_in_force) {
		const struct socket_group *group = &endpoint->groups[--endpoint->group_count];
		int error = socket_leave(endpoint->fds[0], group);
		if (error != 0 && error != EADDRNOTAVAIL && error != ENODEV)
			log_warning("cannot leave a multicast group: %s", strerror(error));
	}
}

static bool is_wanted(const struct config_endpoint *wanted, const struct socket_group *group)
{
	const struct option_addresses *groups = &wanted->service->multicast_groups;
	struct socket_group other;
	for (size_t i = 0; i < groups->count; i++)
		if (find_group(wanted, &groups->list[i], &other) && socket_group_equals(&other, group))
			return true;
	return false;
}

static void leave_unwanted(struct endpoint *endpoint, const struct config_endpoint *wanted)
{
	size_t kept = 0;
	for (size_t i = 0; i < endpoint->group_count; i++)
		if (is_wanted(wanted, &endpoint->groups[i])) {
			struct socket_group group = endpoint->groups[i];
			endpoint->groups[i] = endpoint->groups[kept];
			endpoint->groups[kept++] = group;
		}
	endpoint->groups_in_force = kept;
	endpoint_unjoin(endpoint);
}

/* What was joined before, or is only now: by a process that has the socket to itself at last. */
static void settle_groups(struct endpoint *endpoint, const struct config_endpoint *wanted)
{
	struct problems told = {0};

	leave_unwanted(endpoint, wanted);
	endpoint_join(endpoint, wanted, &told);
	endpoint->groups_in_force = endpoint->group_count;
}

/* --- a new owner, or a new configuration of the same --- */

/* What differs from NOW in all that can be set again: how a process of ours before this one has set it nobody knows. A size of a
 * buffer that is not asked for stays as it is. */
static struct socket_request unlike(const struct socket_request *now)
{
	struct socket_request was = *now;
	was.dscp = now->dscp == -1 ? 0 : -1;
	was.wants_dscp = !now->wants_dscp;
	was.shared = !now->shared;
	was.receive_buffer = was.send_buffer = 0;
	was.keepalive_s++;
	was.backlog++;
	return was;
}

static int tune(struct endpoint *endpoint, int fd, const struct socket_request *request)
{
	const struct socket_request before = unlike(request);
	if (endpoint->is_tuned)
		return socket_retune(fd, &endpoint->options, request);
	return endpoint->handed ? socket_adopt(fd, request) : socket_retune(fd, &before, request);
}

void endpoint_give(struct endpoint *endpoint, const struct config_endpoint *wanted)
{
	struct log_context context = endpoint_context(wanted);
	struct socket_request request;

	if (!set_service(endpoint, wanted->service->name))
		log_write(LOG_ERR, &context, "%s: out of memory", context.service);
	if (endpoint->inherited)
		return;
	settle_groups(endpoint, wanted);
	fill_request(wanted, (uid_t)-1, &request);
	request.address = endpoint->address;
	request.both_families = endpoint->both_families;
	for (unsigned i = 0; i < endpoint->count; i++) {
		int error = tune(endpoint, endpoint->fds[i], &request);
		if (error != 0)
			log_write(LOG_WARNING, &context, "%s: cannot set an option of its %s socket: %s",
				  context.service, context.transport, strerror(error));
	}
	tell_of_buffers(wanted, endpoint->fds[0], &endpoint->options, &request);
	endpoint->options = request;
	endpoint->options.interface = NULL;
	endpoint->is_tuned = true;
}
