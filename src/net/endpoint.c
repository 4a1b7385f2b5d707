/* endpoint.c: the sockets of one transport, address and port. */
#include "net/endpoint.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/port_set.h"
#include "core/transport.h"

/* Returns an endpoint with the COUNT sockets FDS, or with none if that is NULL; NULL when out of memory. */
static struct endpoint *endpoint_new(const int *fds, unsigned count)
{
	struct endpoint *endpoint = calloc(1, sizeof *endpoint + count * sizeof endpoint->fds[0]);
	if (endpoint == NULL)
		return NULL;
	endpoint->count = count;
	for (unsigned i = 0; i < count; i++)
		endpoint->fds[i] = fds != NULL ? fds[i] : -1;
	return endpoint;
}

void endpoint_close(struct endpoint *endpoint, unsigned index)
{
	if (endpoint->fds[index] >= 0)
		close(endpoint->fds[index]);
	endpoint->fds[index] = -1;
}

void endpoint_free(struct endpoint *endpoint)
{
	if (endpoint == NULL)
		return;
	for (unsigned i = 0; i < endpoint->count; i++)
		endpoint_close(endpoint, i);
	free(endpoint->service);
	free(endpoint->socket_name);
	free(endpoint->groups);
	free(endpoint);
}

/* Frees ENDPOINT but leaves its sockets open. */
static void free_without_sockets(struct endpoint *endpoint)
{
	endpoint->count = 0;
	endpoint_free(endpoint);
}

/* Copies TEXT, which may be NULL, to *COPY. Returns false when out of memory. */
static bool copy_text(char **copy, const char *text)
{
	*copy = text != NULL ? strdup(text) : NULL;
	return text == NULL || *copy != NULL;
}

/* Sets the texts and groups of ENDPOINT. Returns false when out of memory. */
static bool copy_record(struct endpoint *endpoint, const struct endpoint_record *record)
{
	size_t count = record->group_count;
	if (!copy_text(&endpoint->service, record->service) || !copy_text(&endpoint->socket_name, record->socket_name))
		return false;
	if (count == 0)
		return true;
	endpoint->groups = malloc(count * sizeof *endpoint->groups);
	if (endpoint->groups == NULL)
		return false;
	memcpy(endpoint->groups, record->groups, count * sizeof *endpoint->groups);
	endpoint->group_count = endpoint->groups_in_force = count;
	return true;
}

static struct endpoint *new_shared(const int *fds, unsigned count, const struct socket_kind *kind,
				   const struct endpoint_record *record)
{
	struct endpoint *endpoint = endpoint_new(fds, count);
	if (endpoint == NULL)
		return NULL;
	endpoint->transport = kind->type == SOCK_STREAM ? TRANSPORT_TCP : TRANSPORT_UDP;
	endpoint->wanted = record->wanted;
	endpoint->address = kind->address;
	endpoint->dual_stack = kind->dual_stack;
	endpoint->from_listen_fds = record->from_listen_fds;
	endpoint->shared = true;
	if (record->interface != NULL)
		snprintf(endpoint->interface, sizeof endpoint->interface, "%s", record->interface);
	if (copy_record(endpoint, record))
		return endpoint;
	free_without_sockets(endpoint);
	return NULL;
}

struct endpoint *endpoint_from_listen_fds(int fd, const struct socket_kind *kind, const char *name)
{
	const struct endpoint_record record = {
		.wanted = kind->address, .from_listen_fds = true, .interface = kind->interface, .socket_name = name};
	return new_shared(&fd, 1, kind, &record);
}

struct endpoint *endpoint_from_parent(const int *fds, unsigned count, const struct socket_kind *kind,
				      const struct endpoint_record *record)
{
	struct endpoint *endpoint = new_shared(fds, count, kind, record);
	if (endpoint != NULL)
		endpoint->from_parent = true;
	return endpoint;
}

void endpoint_set_owner(struct endpoint *endpoint, void *owner)
{
	endpoint->owner = owner;
}

void endpoint_mark_shared(struct endpoint *endpoint)
{
	endpoint->shared = true;
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

bool endpoint_find_address(const struct config_endpoint *wanted, struct socket_address *address)
{
	return socket_address_set(address, wanted->address.family, &wanted->address.ip, wanted->address.zone,
				  wanted->port);
}

/* --- overlapping addresses --- */

struct endpoint_ports {
	struct port_set broad[2][2], any[2][2];
};

struct endpoint_ports *endpoint_ports_new(void)
{
	return calloc(1, sizeof(struct endpoint_ports));
}

/* A wildcard or an interface can include other addresses of the port; a leaving endpoint overlaps its own successor. */
void endpoint_ports_add(struct endpoint_ports *ports, const struct endpoint *endpoint, bool leaving)
{
	uint16_t port = socket_address_port(&endpoint->address);
	int transport = endpoint->transport == TRANSPORT_UDP, family = endpoint->address.any.sa_family == AF_INET6;
	port_set_add(&ports->any[transport][family], port);
	if (leaving || socket_address_is_wildcard(&endpoint->address) || endpoint->interface[0] != '\0')
		port_set_add(&ports->broad[transport][family], port);
}

/* An overlapping group cannot have its first socket bound alone. */
bool endpoint_ports_overlap(const struct endpoint_ports *ports, const struct config_endpoint *wanted)
{
	int transport = wanted->transport == TRANSPORT_UDP, family = wanted->address.family == AF_INET6;
	bool broad = ip_is_wildcard(wanted->address.family, &wanted->address.ip) || wanted->service->interface != NULL;
	return wanted->port != 0 && (port_set_has(&ports->broad[transport][family], wanted->port) ||
				     (broad && port_set_has(&ports->any[transport][family], wanted->port)));
}

unsigned endpoint_bind_order(const struct config_endpoint *wanted)
{
	if (!ip_is_wildcard(wanted->address.family, &wanted->address.ip))
		return 2;
	return wanted->service->interface != NULL ? 1 : 0;
}

/* --- opening --- */

/* Fills REQUEST with the options of WANTED. Returns false if its interface does not exist. */
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
	return endpoint_find_address(wanted, &request->address);
}

/* Whether WANTED is the IPv6 half of a `*` and ERROR says that this host lacks IPv6. */
static bool is_missing_family(const struct config_endpoint *wanted, int error)
{
	return wanted->from_star && wanted->address.family == AF_INET6 &&
	       (error == -EAFNOSUPPORT || error == -EADDRNOTAVAIL);
}

/* Logs a buffer that the kernel caps below SIZE: the default, not CONFIGURED, only once. */
static void report_buffer(const struct config_endpoint *wanted, int fd, int option, int size, bool configured)
{
	static bool default_logged;
	bool receives = option == SO_RCVBUF;
	int got = socket_buffer_size(fd, option);
	if (size == 0 || got < 0 || got >= size || (!configured && default_logged))
		return;
	default_logged |= !configured;
	struct log_context context = endpoint_context(wanted);
	log_write(configured ? LOG_WARNING : LOG_INFO, &context, "%s: %s: the kernel caps %d bytes at %d (net.core.%s)",
		  context.service, receives ? "receive_buffer" : "send_buffer", size, got,
		  receives ? "rmem_max" : "wmem_max");
}

static void report_buffers(const struct config_endpoint *wanted, int fd, const struct socket_request *was,
			   const struct socket_request *now)
{
	if (was->receive_buffer != now->receive_buffer)
		report_buffer(wanted, fd, SO_RCVBUF, now->receive_buffer, wanted->service->receive_buffer > 0);
	if (was->send_buffer != now->send_buffer)
		report_buffer(wanted, fd, SO_SNDBUF, now->send_buffer, true);
}

static bool set_service(struct endpoint *endpoint, const char *name)
{
	if (endpoint->service != NULL && strcmp(endpoint->service, name) == 0)
		return true;
	char *copy;
	if (!copy_text(&copy, name))
		return false;
	free(endpoint->service);
	endpoint->service = copy;
	return true;
}

static void report_open_error(const struct log_context *context, const char *address, int error,
			      struct diagnostics *diagnostics)
{
	diagnostics_log(diagnostics, context, "%s: cannot listen on %s %s: %s", context->service, context->transport,
			address, strerror(-error));
}

/* Notes that the sockets have the options of REQUEST. */
static void set_options(struct endpoint *endpoint, const struct socket_request *request)
{
	endpoint->options = *request;
	endpoint->options.interface = NULL; /* owned by the configuration, which may be freed earlier */
	endpoint->options_known = true;
}

struct endpoint *endpoint_open(const struct config_endpoint *wanted, unsigned count, uid_t owner, bool listen,
			       struct endpoint_ports *ports, struct diagnostics *diagnostics)
{
	static const struct socket_request nothing;
	struct log_context context = endpoint_context(wanted);
	struct endpoint *endpoint = endpoint_new(NULL, count);
	struct socket_request request;
	char text[SOCKET_TEXT_SIZE];

	if (endpoint == NULL || !set_service(endpoint, wanted->service->name)) {
		diagnostics_log(diagnostics, &context, "%s: out of memory", context.service);
		goto fail;
	}
	bool address_known = fill_request(wanted, owner, &request);
	endpoint->transport = wanted->transport;
	endpoint->wanted = request.address;
	request.overlaps = endpoint_ports_overlap(ports, wanted);
	request.defer_listen = !listen && request.type == SOCK_STREAM;
	socket_address_print(&request.address, text);
	int error = address_known ? socket_open_group(&request, endpoint->fds, count) : -ENODEV;
	if (error != 0 && is_missing_family(wanted, error)) {
		log_write(LOG_INFO, &context, "%s: not listening on %s %s: %s", context.service, context.transport,
			  text, strerror(-error));
		goto fail;
	}
	if (error != 0) {
		report_open_error(&context, text, error, diagnostics);
		goto fail;
	}
	endpoint->address = request.address;
	if (wanted->service->interface != NULL)
		memcpy(endpoint->interface, wanted->service->interface, strlen(wanted->service->interface) + 1);
	set_options(endpoint, &request);
	endpoint->pending_listen = request.defer_listen ? count : 0;
	endpoint_ports_add(ports, endpoint, false);
	report_buffers(wanted, endpoint->fds[0], &nothing, &request);
	return endpoint;
fail: /* socket_open_group has left no socket open */
	if (endpoint != NULL)
		free_without_sockets(endpoint);
	return NULL;
}

bool endpoint_listen(struct endpoint *endpoint, const struct config_endpoint *wanted, struct diagnostics *diagnostics)
{
	struct log_context context = endpoint_context(wanted);
	char text[SOCKET_TEXT_SIZE];

	unsigned first = endpoint->count - endpoint->pending_listen;
	int error = socket_listen(&endpoint->fds[first], endpoint->pending_listen, endpoint->options.backlog);
	if (error == 0) {
		endpoint->pending_listen = 0;
		return true;
	}
	socket_address_print(&endpoint->address, text);
	report_open_error(&context, text, error, diagnostics);
	return false;
}

/* Gives the sockets to user OWNER: SO_REUSEPORT groups have one owner. */
static void change_owner(const struct endpoint *endpoint, uid_t owner)
{
	for (unsigned i = 0; owner != (uid_t)-1 && i < endpoint->count; i++)
		if (fchown(endpoint->fds[i], owner, (gid_t)-1) < 0)
			log_info("socket: cannot change the owner: %s", strerror(errno));
}

struct endpoint *endpoint_add_sockets(struct endpoint *endpoint, const struct config_endpoint *wanted, unsigned count,
				      uid_t owner, struct diagnostics *diagnostics)
{
	struct log_context context = endpoint_context(wanted);
	unsigned before = endpoint->count;
	struct socket_request request;
	char text[SOCKET_TEXT_SIZE];

	if (before >= count)
		return endpoint;
	struct endpoint *larger = realloc(endpoint, sizeof *endpoint + count * sizeof endpoint->fds[0]);
	int error = larger != NULL ? 0 : -ENOMEM;
	if (larger != NULL) {
		endpoint = larger;
		change_owner(endpoint, owner);
		error = fill_request(wanted, owner, &request) ? 0 : -ENODEV;
		request.address = endpoint->address;
		request.overlaps = true;
		request.defer_listen = request.type == SOCK_STREAM;
	}
	if (error == 0)
		error = socket_open_group(&request, &endpoint->fds[before], count - before);
	if (error == 0) {
		endpoint->count = count;
		endpoint->options.backlog = request.backlog;
		endpoint->pending_listen = request.defer_listen ? count - before : 0;
		return endpoint;
	}
	socket_address_print(&endpoint->address, text);
	diagnostics_log(diagnostics, &context, "%s: cannot listen on %s %s with more workers: %s", context.service,
			context.transport, text, strerror(-error));
	endpoint_free(endpoint);
	return NULL;
}

/* --- multicast groups --- */

/* Fills GROUP with the group LISTED by WANTED. Returns false if its interface does not exist. */
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

/* Joins GROUP, or only checks that it can be joined. Returns 0 or -errno. */
static int join(struct endpoint *endpoint, const struct socket_group *group)
{
	if (has_joined(endpoint, group))
		return 0;
	if (endpoint->from_parent)
		return socket_try_join(group);
	struct socket_group *groups = realloc(endpoint->groups, (endpoint->group_count + 1) * sizeof *groups);
	if (groups == NULL)
		return -ENOMEM;
	endpoint->groups = groups;
	int error = socket_join(endpoint->fds[0], group);
	if (error == 0)
		groups[endpoint->group_count++] = *group;
	return error;
}

bool endpoint_join(struct endpoint *endpoint, const struct config_endpoint *wanted, struct diagnostics *diagnostics)
{
	const struct option_addresses *groups = &wanted->service->multicast_groups;
	struct log_context context = endpoint_context(wanted);
	bool joined = true;

	for (size_t i = 0; wanted->transport == TRANSPORT_UDP && i < groups->count; i++) {
		const struct option_address *listed = &groups->list[i];
		struct socket_group group = {0};
		char text[INET6_ADDRSTRLEN + IF_NAMESIZE];
		if (listed->family != wanted->address.family && !endpoint->dual_stack)
			continue;
		int error = find_group(wanted, listed, &group) ? join(endpoint, &group) : -ENODEV;
		if (error == 0)
			continue;
		option_print_address(listed, text);
		diagnostics_log(diagnostics, &context, "%s: cannot join %s: %s", context.service, text,
				strerror(-error));
		joined = false;
	}
	return joined;
}

void endpoint_unjoin(struct endpoint *endpoint)
{
	while (endpoint->group_count > endpoint->groups_in_force) {
		const struct socket_group *group = &endpoint->groups[--endpoint->group_count];
		int error = socket_leave(endpoint->fds[0], group);
		if (error != 0 && error != -EADDRNOTAVAIL && error != -ENODEV)
			log_warning("multicast group: cannot leave: %s", strerror(-error));
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

/* Leaves and joins groups until they are those of WANTED. A new one is joined only here if the socket was the parent's
 * before. */
static void apply_groups(struct endpoint *endpoint, const struct config_endpoint *wanted)
{
	struct diagnostics logged = {0};

	leave_unwanted(endpoint, wanted);
	endpoint_join(endpoint, wanted, &logged);
	endpoint->groups_in_force = endpoint->group_count;
}

/* --- options --- */

/* Returns a request that differs from NOW in every option that can be set again, so that socket_retune sets them all. A
 * buffer size that is not configured stays as it is. */
static struct socket_request differing_request(const struct socket_request *now)
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

/* Sets the options of REQUEST on socket FD. Returns 0 or -errno. */
static int apply_options(const struct endpoint *endpoint, int fd, const struct socket_request *request)
{
	const struct socket_request before = differing_request(request);
	if (endpoint->options_known)
		return socket_retune(fd, &endpoint->options, request);
	return endpoint->from_listen_fds ? socket_adopt(fd, request) : socket_retune(fd, &before, request);
}

void endpoint_apply(struct endpoint *endpoint, const struct config_endpoint *wanted)
{
	struct log_context context = endpoint_context(wanted);
	struct socket_request request;

	if (!set_service(endpoint, wanted->service->name))
		log_write(LOG_ERR, &context, "%s: out of memory", context.service);
	if (endpoint->from_parent)
		return;
	apply_groups(endpoint, wanted);
	fill_request(wanted, (uid_t)-1, &request);
	request.address = endpoint->address;
	request.dual_stack = endpoint->dual_stack;
	for (unsigned i = 0; i < endpoint->count; i++) {
		int error = apply_options(endpoint, endpoint->fds[i], &request);
		if (error != 0)
			log_write(LOG_WARNING, &context, "%s: cannot set an option of its %s socket: %s",
				  context.service, context.transport, strerror(-error));
	}
	report_buffers(wanted, endpoint->fds[0], &endpoint->options, &request);
	set_options(endpoint, &request);
}

void endpoint_parent_released(struct endpoint *endpoint, const struct config_endpoint *wanted)
{
	endpoint->from_parent = false;
	endpoint->shared = endpoint->from_listen_fds;
	endpoint_apply(endpoint, wanted);
}
