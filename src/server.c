/* server.c: start, apply a configuration, drain, stop; owns every socket for life. */
#include "server.h"

#include <errno.h>
#include <event2/event.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "log.h"
#include "notify.h"
#include "pid_file.h"
#include "processors.h"
#include "runtime.h"
#include "sandbox.h"
#include "socket.h"
#include "tcp.h"
#include "udp.h"
#include "watchdog.h"
#include "worker.h"

enum {
	DESCRIPTORS_A_WORKER = 4,
	DESCRIPTORS_RESERVED = 64, /* logs, files, status and whatever libraries open */
	DRAIN_ACCEPT_MS = 50,      /* for handshakes under way when a stop begins */
	STOP_GRACE_MS = 1000,      /* a worker that has not answered by then is not waited for */
	REPORT_S = 60,
	COUNTERS_TEXT_SIZE = 800,
	WORKERS_MAX = 256, /* as the option's row says */
	WORKERS_AUTO_MAX = 8,
};

/* One socket of one worker on one endpoint. */
struct listener {
	struct server *server;
	const struct config_endpoint *endpoint;
	int fd;
	struct socket_address address; /* with the port that the kernel picked */
	struct tcp_listener *tcp;
	struct udp_socket *udp;
	struct mail stopped;
};

/* The ports that are open so far, a bit each, by transport and family. */
struct ports_seen {
	uint64_t broad[2][2][1024], any[2][2][1024];
};

struct server {
	struct event_base *base;
	struct mailbox *mailbox;
	struct event *log_event, *drain_timer, *stop_timer, *report_timer;
	struct config *config;
	struct generation *generation;
	struct metrics *metrics;
	struct limit_gate gate; /* open connections over all services */
	struct sandbox_identity identity;
	bool becomes; /* started as root: becomes identity */
	struct pid_file *pid_file;
	struct worker **workers;
	unsigned worker_count;
	struct watchdog *watchdog; /* NULL: nobody asks for it */
	struct tcp *tcp;
	struct udp *udp;
	struct listener *listeners;
	size_t listener_count, stopped_count;
	size_t endpoint_count; /* that could be opened */
	bool told_of_buffers, stopping, ending;
	struct mail idle;
	uint64_t *refused_told; /* datagrams, one an entry of config->services */
};

static const char *transport_name(unsigned transport)
{
	return transport == TRANSPORT_TCP ? "tcp" : "udp";
}

static bool is_written(const struct config *config, const char *key)
{
	const struct option *option = option_find(config_daemon_options, config_daemon_option_count, key);
	return config->daemon.origins[option - config_daemon_options].line != 0;
}

/* --- who we are --- */

static bool find_identity(struct server *server)
{
	const struct config_daemon *daemon = &server->config->daemon;
	char error[128];

	server->identity.uid = geteuid();
	server->becomes = geteuid() == 0;
	if (!server->becomes ||
	    sandbox_find_identity(daemon->user, daemon->group, &server->identity, error, sizeof error))
		return true;
	if (!is_written(server->config, "user") && !is_written(server->config, "group") &&
	    sandbox_find_identity("nobody", NULL, &server->identity, error, sizeof error)) {
		log_warning("there is no user %s: serving as nobody (see user in smallservd.conf(5))", daemon->user);
		return true;
	}
	log_error("%s", error);
	return false;
}

/* --- descriptors and connections --- */

static int64_t raise_descriptor_limit(void)
{
	struct rlimit limit;
	if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
		return 1024;
	if (limit.rlim_cur < limit.rlim_max) {
		limit.rlim_cur = limit.rlim_max;
		if (setrlimit(RLIMIT_NOFILE, &limit) < 0)
			getrlimit(RLIMIT_NOFILE, &limit);
	}
	return limit.rlim_cur == RLIM_INFINITY ? INT32_MAX : (int64_t)limit.rlim_cur;
}

/* False: nothing is left for connections, which has been logged. */
static bool limit_connections(struct server *server, int64_t descriptors)
{
	int64_t own = (int64_t)server->listener_count + server->worker_count * DESCRIPTORS_A_WORKER;
	int64_t available = descriptors - own - DESCRIPTORS_RESERVED;
	int64_t wanted = server->config->daemon.max_connections;

	if (available < 1) {
		log_error("RLIMIT_NOFILE = %" PRId64 " does not suffice for %zu endpoints and %u workers", descriptors,
			  server->endpoint_count, server->worker_count);
		return false;
	}
	if (wanted > available)
		log_warning("max_connections = %" PRId64 ", but the descriptors suffice for %" PRId64
			    " (RLIMIT_NOFILE is %" PRId64 ")",
			    wanted, available, descriptors);
	limit_gate_init(&server->gate, wanted > 0 && wanted < available ? wanted : available);
	return true;
}

/* --- sockets --- */

static bool has_port(const uint64_t *bits, uint16_t port)
{
	return (bits[port / 64] >> (port % 64)) & 1;
}

static void add_port(uint64_t *bits, uint16_t port)
{
	bits[port / 64] |= UINT64_C(1) << (port % 64);
}

/* Whether its address can include others on the same port. */
static bool is_broad(const struct socket_request *request)
{
	return socket_address_is_wildcard(&request->address) || request->interface != NULL;
}

/* Whether a socket of ours that is open has the same port on an address that includes this one, or is included: then
 * the first of the group cannot be bound alone. */
static bool overlaps(const struct ports_seen *seen, const struct socket_request *request)
{
	uint16_t port = socket_address_port(&request->address);
	int transport = request->type == SOCK_DGRAM, family = request->address.any.sa_family == AF_INET6;
	return has_port(seen->broad[transport][family], port) ||
	       (is_broad(request) && has_port(seen->any[transport][family], port));
}

static void remember_port(struct ports_seen *seen, const struct socket_request *request)
{
	uint16_t port = socket_address_port(&request->address);
	int transport = request->type == SOCK_DGRAM, family = request->address.any.sa_family == AF_INET6;
	add_port(seen->any[transport][family], port);
	if (is_broad(request))
		add_port(seen->broad[transport][family], port);
}

static bool fill_request(const struct server *server, const struct config_endpoint *endpoint,
			 struct socket_request *request)
{
	const struct config_service *service = endpoint->service;
	bool udp = endpoint->transport == TRANSPORT_UDP;
	enum { UDP_RECEIVE_BUFFER = 1024 * 1024 };

	*request = (struct socket_request){
		.type = udp ? SOCK_DGRAM : SOCK_STREAM,
		.interface = service->interface,
		.free_bind = service->free_bind,
		.shared = service->multicast_groups.count > 0,
		.dscp = service->dscp == DSCP_COPY ? -1 : (int)service->dscp,
		.wants_dscp = service->dscp == DSCP_COPY,
		.receive_buffer =
			(int)(service->receive_buffer == 0 && udp ? UDP_RECEIVE_BUFFER : service->receive_buffer),
		.send_buffer = (int)service->send_buffer,
		.backlog = (int)service->backlog,
		.keepalive_s = (int)(service->keepalive_ms / 1000),
		.owner = server->becomes ? server->identity.uid : (uid_t)-1,
	};
	return socket_address_set(&request->address, endpoint->address.family, &endpoint->address.ip,
				  endpoint->address.zone, endpoint->port);
}

/* The half of `*` that a host without IPv6 does not have. */
static bool is_missing_family(const struct config_endpoint *endpoint, int error)
{
	return endpoint->from_star && endpoint->address.family == AF_INET6 &&
	       (error == EAFNOSUPPORT || error == EADDRNOTAVAIL);
}

static struct log_context endpoint_context(const struct config_endpoint *endpoint)
{
	struct config_origin origin = config_service_origin(endpoint->service, "port");
	return (struct log_context){
		.service = endpoint->service->name,
		.transport = transport_name(endpoint->transport),
		.config_file = origin.file,
		.config_line = origin.line,
	};
}

/* WANTED is what the configuration says, WRITTEN whether it is more than a default. */
static void tell_of_buffer(struct server *server, const struct config_endpoint *endpoint, int fd, int option,
			   int wanted, bool written)
{
	bool receives = option == SO_RCVBUF;
	int got = socket_buffer_size(fd, option);
	if (wanted == 0 || got < 0 || got >= wanted || (!written && server->told_of_buffers))
		return;
	server->told_of_buffers |= !written; /* of the default once is enough */
	struct log_context context = endpoint_context(endpoint);
	log_write(written ? LOG_WARNING : LOG_INFO, &context, "%s: %s: the kernel caps %d bytes at %d (net.core.%s)",
		  context.service, receives ? "receive_buffer" : "send_buffer", wanted, got,
		  receives ? "rmem_max" : "wmem_max");
}

static void tell_of_buffers(struct server *server, const struct config_endpoint *endpoint, int fd,
			    const struct socket_request *request)
{
	bool written = endpoint->service->receive_buffer > 0;
	tell_of_buffer(server, endpoint, fd, SO_RCVBUF, request->receive_buffer, written);
	tell_of_buffer(server, endpoint, fd, SO_SNDBUF, request->send_buffer, true);
}

static bool join_groups(const struct config_endpoint *endpoint, int fd)
{
	const struct option_addresses *groups = &endpoint->service->multicast_groups;
	struct log_context context = endpoint_context(endpoint);
	bool joined = true;

	for (size_t i = 0; endpoint->transport == TRANSPORT_UDP && i < groups->count; i++) {
		const struct option_address *wanted = &groups->list[i];
		struct socket_group group = {0};
		char text[INET6_ADDRSTRLEN + IF_NAMESIZE];
		if (wanted->family != endpoint->address.family)
			continue;
		socket_address_set(&group.address, wanted->family, &wanted->ip, "", 0);
		const char *interface = wanted->zone[0] != '\0' ? wanted->zone : endpoint->service->interface;
		bool found = socket_find_interface(interface != NULL ? interface : "", &group.interface);
		int error = found ? socket_join(fd, &group) : ENODEV;
		if (error == 0)
			continue;
		option_print_address(wanted, text);
		log_write(LOG_ERR, &context, "%s: cannot join %s: %s", context.service, text, strerror(error));
		joined = false;
	}
	return joined;
}

/* Adds the sockets of ENDPOINT, one a worker. False: it cannot be had, which has been logged. */
static bool open_endpoint(struct server *server, const struct config_endpoint *endpoint, struct ports_seen *seen)
{
	struct log_context context = endpoint_context(endpoint);
	struct socket_request request;
	int fds[WORKERS_MAX];
	char text[SOCKET_TEXT_SIZE];

	bool known = fill_request(server, endpoint, &request);
	request.overlaps = overlaps(seen, &request);
	socket_address_print(&request.address, text);
	int error = known ? socket_open_group(&request, fds, server->worker_count) : ENODEV;
	if (error != 0 && is_missing_family(endpoint, error)) {
		log_write(LOG_INFO, &context, "%s: not listening on %s %s: %s", context.service, context.transport,
			  text, strerror(error));
		return true;
	}
	if (error != 0) {
		log_write(LOG_ERR, &context, "%s: cannot listen on %s %s: %s", context.service, context.transport, text,
			  strerror(error));
		return false;
	}
	for (unsigned i = 0; i < server->worker_count; i++)
		server->listeners[server->listener_count++] = (struct listener){
			.server = server, .endpoint = endpoint, .fd = fds[i], .address = request.address};
	server->endpoint_count++;
	remember_port(seen, &request);
	tell_of_buffers(server, endpoint, fds[0], &request);
	return join_groups(endpoint, fds[0]); /* one member hears them, or each datagram would be answered by all */
}

/* The broader an address, the earlier its turn: a wildcard bound alone finds out whether somebody else has any of its
 * addresses, which one that joins a socket of ours could not. */
static unsigned turn_of(const struct config_endpoint *endpoint)
{
	struct socket_address address;
	socket_address_set(&address, endpoint->address.family, &endpoint->address.ip, "", 0);
	if (!socket_address_is_wildcard(&address))
		return 2;
	return endpoint->service->interface != NULL ? 1 : 0;
}

static int compare_listeners(const void *a, const void *b)
{
	const struct listener *left = a, *right = b;
	if (left->endpoint != right->endpoint)
		return left->endpoint < right->endpoint ? -1 : 1;
	return left->fd - right->fd;
}

/* Every endpoint that cannot be had is told of, not the first alone. */
static bool open_sockets(struct server *server)
{
	const struct config *config = server->config;
	struct ports_seen *seen = calloc(1, sizeof *seen);
	server->listeners = calloc(config->endpoint_count * server->worker_count, sizeof *server->listeners);
	if (seen == NULL || server->listeners == NULL) {
		log_error("out of memory");
		free(seen);
		return false;
	}
	bool opened = true;
	for (unsigned turn = 0; turn <= 2; turn++)
		for (size_t i = 0; i < config->endpoint_count; i++)
			if (turn_of(&config->endpoints[i]) == turn)
				opened &= open_endpoint(server, &config->endpoints[i], seen);
	free(seen);
	qsort(server->listeners, server->listener_count, sizeof *server->listeners, compare_listeners);
	return opened;
}

/* --- leaving root behind --- */

static bool write_pid_file(struct server *server)
{
	const char *path = server->config->daemon.pid_file;
	if (path == NULL)
		return true;
	server->pid_file = pid_file_write(path, server->becomes ? server->identity.uid : (uid_t)-1);
	if (server->pid_file == NULL)
		log_error("pid_file: cannot write %s: %s", path, strerror(errno));
	return server->pid_file != NULL;
}

static bool give_up_root(struct server *server)
{
	char error[128];
	bool became = sandbox_become(&server->identity, error, sizeof error);
	if (!became)
		log_error("%s", error);
	return became;
}

static bool confine(const struct server *server)
{
	const struct config_daemon *daemon = &server->config->daemon;
	char error[128];
	if (daemon->sandbox == SANDBOX_OFF || sandbox_confine(daemon->sandbox == SANDBOX_ON, error, sizeof error))
		return true;
	log_error("sandbox = on: %s", error);
	return false;
}

/* --- workers --- */

static bool create_workers(struct server *server)
{
	server->workers = calloc(server->worker_count, sizeof(struct worker *));
	if (server->workers == NULL)
		return false;
	for (unsigned i = 0; i < server->worker_count; i++) {
		server->workers[i] = worker_new(i);
		if (server->workers[i] == NULL)
			return false;
	}
	server->tcp = tcp_new(server->workers, server->worker_count, &server->gate);
	server->udp = udp_new(server->workers, server->worker_count);
	return server->tcp != NULL && server->udp != NULL;
}

static void on_listener_stopped(void *argument);

static bool attach_listener(struct server *server, struct listener *listener, unsigned worker)
{
	struct runtime *runtime = generation_runtime(server->generation, listener->endpoint->service);
	listener->stopped = (struct mail){.run = on_listener_stopped, .argument = listener};
	if (listener->endpoint->transport == TRANSPORT_TCP)
		listener->tcp = tcp_listener_new(server->tcp, worker, listener->fd, runtime);
	else
		listener->udp = udp_socket_new(server->udp, worker, listener->fd, &listener->address, runtime);
	return listener->tcp != NULL || listener->udp != NULL;
}

/* What comes from a port that we serve over UDP would be answered there, and so could go round for ever. */
static bool refuse_served_ports(struct server *server)
{
	struct runtime_ports *served = calloc(1, sizeof *served);
	if (served == NULL)
		return false;
	for (size_t i = 0; i < server->listener_count; i++)
		if (server->listeners[i].endpoint->transport == TRANSPORT_UDP)
			runtime_ports_add(served, socket_address_port(&server->listeners[i].address));
	generation_refuse_ports(server->generation, served);
	free(served);
	return true;
}

static bool prepare_service(struct server *server)
{
	server->metrics = metrics_new(server->worker_count);
	server->refused_told = calloc(server->config->service_count, sizeof *server->refused_told);
	if (server->metrics == NULL || server->refused_told == NULL)
		return false;
	server->generation = generation_new(server->config, server->metrics, &server->gate);
	if (server->generation == NULL || !refuse_served_ports(server) || !create_workers(server))
		return false;
	for (size_t i = 0; i < server->listener_count; i++)
		if (!attach_listener(server, &server->listeners[i], (unsigned)(i % server->worker_count)))
			return false;
	return true;
}

static bool start_workers(struct server *server)
{
	for (unsigned i = 0; i < server->worker_count; i++) {
		int error = worker_start(server->workers[i]);
		if (error != 0) {
			log_error("cannot start worker %u: %s", i, strerror(error));
			return false;
		}
	}
	for (size_t i = 0; i < server->listener_count; i++) {
		struct listener *listener = &server->listeners[i];
		if (listener->tcp != NULL)
			tcp_listener_start(listener->tcp);
		else
			udp_socket_start(listener->udp);
	}
	return true;
}

static bool start_watchdog(struct server *server)
{
	uint64_t interval_us = notify_watchdog_interval_us();
	if (interval_us == 0)
		return true;
	server->watchdog =
		watchdog_new(server->base, server->mailbox, server->workers, server->worker_count, interval_us);
	if (server->watchdog == NULL)
		log_error("cannot watch the workers: out of memory");
	return server->watchdog != NULL;
}

/* --- events of the main thread --- */

static void on_log_queued(evutil_socket_t fd, short what, void *argument)
{
	(void)fd, (void)what, (void)argument;
	log_flush();
}

static size_t service_count_enabled(const struct config *config)
{
	size_t count = 0;
	for (size_t i = 0; i < config->service_count; i++)
		count += config->services[i].enabled;
	return count;
}

/* Refused datagrams in sum, where the service's connections are logged too. */
static void report_refused(struct server *server)
{
	for (size_t i = 0; i < server->config->service_count; i++) {
		const struct runtime *runtime = &server->generation->runtimes[i];
		struct metrics_sums sums;
		if (runtime->udp == NULL || !runtime->config->log_connections)
			continue;
		metrics_sum(server->metrics, runtime->udp, &sums);
		uint64_t refused = metrics_range(&sums, METRIC_DROPPED_FIRST, METRIC_DROPPED_LAST_REFUSED);
		struct log_context context = {.service = runtime->config->name, .transport = "udp"};
		if (refused != server->refused_told[i])
			log_write(LOG_NOTICE, &context, "%s: udp: %" PRIu64 " datagrams refused in the last minute",
				  context.service, refused - server->refused_told[i]);
		server->refused_told[i] = refused;
	}
}

/* What was not logged line by line, in sum. */
static void report_suppressed(struct server *server)
{
	for (size_t i = 0; i < server->config->service_count; i++) {
		struct runtime *runtime = &server->generation->runtimes[i];
		log_tell_suppressed(&runtime->refused_bound, runtime->config->name);
		log_tell_suppressed(&runtime->full_bound, runtime->config->name);
		log_tell_suppressed(&runtime->failed_bound, runtime->config->name);
	}
}

static void on_report(evutil_socket_t fd, short what, void *argument)
{
	(void)fd, (void)what;
	report_refused(argument);
	report_suppressed(argument);
}

static void on_idle(void *argument);
static void on_drain_over(evutil_socket_t fd, short what, void *argument);
static void on_stop_timeout(evutil_socket_t fd, short what, void *argument);

static bool create_loop(struct server *server)
{
	server->idle = (struct mail){.run = on_idle, .argument = server};
	server->base = event_base_new();
	if (server->base == NULL)
		return false;
	if (log_queue_fd() < 0)
		return false;
	server->mailbox = mailbox_new(server->base);
	server->log_event = event_new(server->base, log_queue_fd(), EV_READ | EV_PERSIST, on_log_queued, server);
	server->drain_timer = evtimer_new(server->base, on_drain_over, server);
	server->stop_timer = evtimer_new(server->base, on_stop_timeout, server);
	server->report_timer = event_new(server->base, -1, EV_PERSIST, on_report, server);
	if (server->mailbox == NULL || server->log_event == NULL || server->drain_timer == NULL ||
	    server->stop_timer == NULL || server->report_timer == NULL)
		return false;
	const struct timeval minute = {.tv_sec = REPORT_S};
	return event_add(server->log_event, NULL) == 0 && event_add(server->report_timer, &minute) == 0;
}

static void tell_ready(struct server *server)
{
	char text[SOCKET_TEXT_SIZE], status[128];
	for (size_t i = 0; i < server->listener_count; i += server->worker_count) {
		struct listener *listener = &server->listeners[i];
		struct log_context context = endpoint_context(listener->endpoint);
		socket_address_print(&listener->address, text);
		log_write(LOG_NOTICE, &context, "%s: listening on %s %s", context.service, context.transport, text);
	}
	snprintf(status, sizeof status, "%zu services, %zu endpoints, %u workers",
		 service_count_enabled(server->config), server->endpoint_count, server->worker_count);
	log_notice("ready: %s", status);
	notify_ready(status);
}

static unsigned automatic_workers(void)
{
	unsigned processors = processors_usable();
	return processors < WORKERS_AUTO_MAX ? processors : WORKERS_AUTO_MAX;
}

struct server *server_new(struct config *config)
{
	struct server *server = calloc(1, sizeof *server);
	if (server != NULL) {
		server->config = config_ref(config);
		if (create_loop(server))
			return server;
	}
	log_error("cannot create the event loop: %s", strerror(errno));
	server_free(server);
	return NULL;
}

bool server_start(struct server *server)
{
	int64_t wanted = server->config->daemon.workers;
	int64_t descriptors = raise_descriptor_limit();

	server->worker_count = wanted > 0 ? (unsigned)wanted : automatic_workers();
	if (!find_identity(server) || !open_sockets(server) || !limit_connections(server, descriptors))
		return false;
	if (!prepare_service(server)) {
		log_error("cannot prepare %u workers: %s", server->worker_count, strerror(errno));
		return false;
	}
	if (!write_pid_file(server) || !give_up_root(server) || !confine(server) || !start_workers(server) ||
	    !start_watchdog(server))
		return false;
	tell_ready(server);
	return true;
}

struct event_base *server_base(const struct server *server)
{
	return server->base;
}

bool server_run(struct server *server)
{
	if (event_base_dispatch(server->base) >= 0)
		return true;
	log_error("the event loop failed: %s", strerror(errno));
	return false;
}

/* --- stopping --- */

static void finish_if_done(struct server *server)
{
	if (server->stopped_count == server->listener_count && atomic_load(&server->gate.taken) == 0)
		event_base_loopbreak(server->base);
}

static void on_listener_stopped(void *argument)
{
	struct listener *listener = argument;
	close(listener->fd); /* from here on clients are refused, and do not wait for an answer in vain */
	listener->fd = -1;
	listener->server->stopped_count++;
	finish_if_done(listener->server);
}

static void on_idle(void *argument)
{
	finish_if_done(argument);
}

static void stop_listeners(struct server *server, unsigned transport)
{
	for (size_t i = 0; i < server->listener_count; i++) {
		struct listener *listener = &server->listeners[i];
		if (listener->endpoint->transport != transport)
			continue;
		if (listener->tcp != NULL)
			tcp_listener_stop(listener->tcp, server->mailbox, &listener->stopped);
		else
			udp_socket_stop(listener->udp, server->mailbox, &listener->stopped);
	}
}

static void refuse_new_connections(const struct server *server)
{
	for (size_t i = 0; i < server->listener_count; i++) {
		const struct listener *listener = &server->listeners[i];
		int error = listener->tcp != NULL ? socket_refuse_new(listener->fd) : 0;
		if (error != 0)
			log_info("%s: cannot filter new connections: %s", listener->endpoint->service->name,
				 strerror(error));
	}
}

static void on_drain_over(evutil_socket_t fd, short what, void *argument)
{
	struct server *server = argument;
	(void)fd, (void)what;
	stop_listeners(server, TRANSPORT_TCP);
}

static struct timeval milliseconds(int64_t ms)
{
	return (struct timeval){.tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000};
}

/* The first time it ends the connections; the second time it waits no longer for workers that do not answer. */
static void on_stop_timeout(evutil_socket_t fd, short what, void *argument)
{
	struct server *server = argument;
	struct timeval grace = milliseconds(STOP_GRACE_MS);

	(void)fd, (void)what;
	if (server->ending) {
		event_base_loopbreak(server->base);
		return;
	}
	server->ending = true;
	if (evtimer_pending(server->drain_timer, NULL)) {
		event_del(server->drain_timer);
		stop_listeners(server, TRANSPORT_TCP);
	}
	log_notice("stop_timeout: ending %" PRId64 " open connections", atomic_load(&server->gate.taken));
	tcp_end_all(server->tcp);
	evtimer_add(server->stop_timer, &grace);
}

void server_stop(struct server *server)
{
	struct timeval drain = milliseconds(DRAIN_ACCEPT_MS);
	struct timeval timeout = milliseconds(server->config->daemon.stop_timeout_ms);

	if (server->stopping) {
		log_notice("stopping at once");
		event_base_loopbreak(server->base);
		return;
	}
	server->stopping = true;
	log_notice("stopping: %" PRId64 " open connections", atomic_load(&server->gate.taken));
	notify_stopping("draining");
	refuse_new_connections(server);
	evtimer_add(server->drain_timer, &drain);
	evtimer_add(server->stop_timer, &timeout);
	on_report(-1, EV_TIMEOUT, server);
	stop_listeners(server, TRANSPORT_UDP);
	tcp_drain(server->tcp, server->mailbox, &server->idle);
}

/* --- telling --- */

static void log_sums(const struct server *server, const struct runtime *runtime, unsigned transport)
{
	const struct metrics_block *blocks = transport == TRANSPORT_TCP ? runtime->tcp : runtime->udp;
	struct log_context context = {.service = runtime->config->name, .transport = transport_name(transport)};
	char text[COUNTERS_TEXT_SIZE], open[32] = "";
	struct metrics_sums sums;

	if (blocks == NULL)
		return;
	metrics_sum(server->metrics, blocks, &sums);
	if (transport == TRANSPORT_TCP)
		snprintf(open, sizeof open, "open=%" PRIu64 " ",
			 sums.values[METRIC_ACCEPTED] - metrics_range(&sums, METRIC_CLOSED_FIRST, METRIC_CLOSED_LAST));
	metrics_print(&sums, transport, text, sizeof text);
	log_write(LOG_NOTICE, &context, "%s: %s: %s%s", context.service, context.transport, open, text);
}

void server_log_counters(const struct server *server)
{
	for (size_t i = 0; i < server->config->service_count; i++) {
		const struct runtime *runtime = &server->generation->runtimes[i];
		if (!runtime->config->enabled)
			continue;
		log_sums(server, runtime, TRANSPORT_TCP);
		log_sums(server, runtime, TRANSPORT_UDP);
	}
}

/* --- the end: the lists of server_start and server_new, backwards --- */

static void free_workers(struct server *server)
{
	for (unsigned i = 0; server->workers != NULL && i < server->worker_count; i++)
		if (server->workers[i] != NULL)
			worker_stop(server->workers[i]);
	watchdog_free(server->watchdog);
	log_flush(); /* what they have queued comes before what we say ourselves */
	tcp_free(server->tcp);
	for (size_t i = 0; i < server->listener_count; i++) {
		tcp_listener_free(server->listeners[i].tcp);
		udp_socket_free(server->listeners[i].udp);
	}
	udp_free(server->udp);
	for (unsigned i = 0; server->workers != NULL && i < server->worker_count; i++)
		worker_free(server->workers[i]);
	free(server->workers);
}

static void free_loop(struct server *server)
{
	struct event *const events[] = {server->log_event, server->drain_timer, server->stop_timer,
					server->report_timer};
	for (size_t i = 0; i < sizeof events / sizeof *events; i++)
		if (events[i] != NULL)
			event_free(events[i]);
	mailbox_free(server->mailbox);
	if (server->base != NULL)
		event_base_free(server->base);
}

void server_free(struct server *server)
{
	if (server == NULL)
		return;
	free_workers(server);
	pid_file_remove(server->pid_file);
	free_loop(server);
	generation_free(server->generation);
	metrics_free(server->metrics);
	free(server->refused_told);
	for (size_t i = 0; i < server->listener_count; i++)
		if (server->listeners[i].fd >= 0)
			close(server->listeners[i].fd);
	free(server->listeners);
	config_unref(server->config);
	free(server);
}
