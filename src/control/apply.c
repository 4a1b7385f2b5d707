/* apply.c: the configuration in force, and the switch to the next. */
#include "control/apply.h"

#include <event2/event.h>
#include <event2/event_struct.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/clock.h"
#include "core/log.h"
#include "core/transport.h"

enum {
	DESCRIPTORS_PER_WORKER = 4, /* epoll, two of libevent's signals, the task queue */
	DESCRIPTORS_RESERVED = 64,  /* logs, files, status and whatever libraries open */
	LAST_ACCEPT_MS = 50,        /* for handshakes under way when an endpoint leaves */
	COARSE_MS = 50,
};

/* A socket in service, on its worker. */
struct seat {
	struct place *place;
	struct tcp_listener *tcp; /* or */
	struct udp_socket *udp;
	struct task stopped;
};

/* An endpoint in service. */
struct place {
	struct place *next, **link; /* of those that leave; link NULL: it is in force */
	struct serving *serving;
	struct endpoint *endpoint;
	const struct config_endpoint *wanted; /* of the configuration in force, while the place is */
	struct event last_accept;
	unsigned running;    /* seats that have not stopped */
	struct seat seats[]; /* one an entry of endpoint->fds */
};

struct serving {
	struct serving_rooms rooms;
	struct instance_store *store;
	struct generation *generation, *generations; /* in force; all that somebody serves by */
	struct place **places;                       /* in force, in the order of the configuration */
	size_t place_count, endpoint_count;
	struct place *leaving;
	struct event *drained; /* the time of connections of removed services is over */
	struct task *switched;
	unsigned switching; /* workers that have not got to the end of the task of a switch */
	struct round {
		struct serving *serving;
		struct task there, back;
	} * rounds; /* one a worker */
};

struct change {
	struct serving *serving;
	struct generation *generation;
	int64_t maximum; /* of open connections */
	struct entry {
		const struct config_endpoint *wanted;
		struct endpoint *taken; /* from a pool, on the way to its place */
		struct place *place;    /* NULL: it needs none */
		bool fresh;             /* it was not in service before */
		bool covered;           /* a socket of both families serves it */
	} * entries;                    /* one an endpoint of the configuration */
	size_t entry_count;
	struct place **places;            /* room for those in force then */
	struct endpoint_pool *in_service; /* whoever is left in it goes; NULL at a start */
};

/* --- endpoints in words --- */

static void log_endpoint(const struct endpoint *endpoint, const char *service, const struct log_context *context,
			 const char *what)
{
	char text[SOCKET_TEXT_SIZE];
	if (endpoint->dual_stack) {
		struct socket_address v4 = {.v4 = {.sin_family = AF_INET}, .length = sizeof v4.v4};
		v4.v4.sin_port = endpoint->address.v6.sin6_port;
		socket_address_print(&v4, text);
		log_write(LOG_NOTICE, context, "%s: %s on %s %s", service, what, context->transport, text);
	}
	socket_address_print(&endpoint->address, text);
	log_write(LOG_NOTICE, context, "%s: %s on %s %s", service, what, context->transport, text);
}

static void log_arrival(const struct place *place)
{
	struct log_context context = endpoint_context(place->wanted);
	log_endpoint(place->endpoint, context.service, &context, "listening");
}

static void log_departure(const struct endpoint *endpoint, const char *service)
{
	struct log_context context = {.service = service, .transport = transport_name(endpoint->transport)};
	log_endpoint(endpoint, service, &context, "no longer listening");
}

/* --- places --- */

static void place_free(struct place *place)
{
	if (place == NULL)
		return;
	for (unsigned i = 0; i < place->endpoint->count; i++) {
		tcp_listener_free(place->seats[i].tcp);
		udp_socket_free(place->seats[i].udp);
	}
	if (event_initialized(&place->last_accept))
		event_del(&place->last_accept);
	endpoint_free(place->endpoint);
	free(place);
}

/* The last of its sockets has been closed. */
static void leave(struct place *place)
{
	struct serving *serving = place->serving;
	*place->link = place->next;
	if (place->next != NULL)
		place->next->link = place->link;
	place_free(place);
	serving->rooms.on_left(serving->rooms.argument);
}

static void on_seat_stopped(void *argument)
{
	struct seat *seat = argument;
	struct place *place = seat->place;

	endpoint_close(place->endpoint, (unsigned)(seat - place->seats)); /* the kernel refuses clients from here on */
	tcp_listener_free(seat->tcp);
	udp_socket_free(seat->udp);
	seat->tcp = NULL;
	seat->udp = NULL;
	if (--place->running == 0)
		leave(place);
}

static void stop_seats(struct place *place)
{
	struct task_queue *task_queue = place->serving->rooms.task_queue;
	for (unsigned i = 0; i < place->endpoint->count; i++) {
		struct seat *seat = &place->seats[i];
		if (seat->tcp != NULL)
			tcp_listener_stop(seat->tcp, task_queue, &seat->stopped);
		else
			udp_socket_stop(seat->udp, task_queue, &seat->stopped);
	}
}

static void on_last_accept(evutil_socket_t fd, short what, void *argument)
{
	(void)fd, (void)what;
	stop_seats(argument);
}

/* SOCKET of a seat serves on WORKER. False: out of memory. */
static bool seat_init(struct seat *seat, struct place *place, unsigned index, struct instance *instance)
{
	const struct serving_rooms *rooms = &place->serving->rooms;
	const struct endpoint *endpoint = place->endpoint;
	unsigned worker = index % rooms->worker_count;
	int fd = endpoint->fds[index];

	seat->place = place;
	seat->stopped = (struct task){.run = on_seat_stopped, .argument = seat};
	if (endpoint->transport == TRANSPORT_TCP) {
		seat->tcp = tcp_listener_new(rooms->tcp, worker, fd, instance);
		if (seat->tcp != NULL && endpoint->from_listen_fds)
			tcp_listener_set_round_robin(seat->tcp);
		return seat->tcp != NULL;
	}
	seat->udp = udp_socket_new(rooms->udp, worker, fd, &endpoint->address, instance);
	if (seat->udp != NULL && endpoint->from_listen_fds)
		udp_socket_keep_open(seat->udp);
	if (seat->udp != NULL && endpoint->from_listen_fds && !socket_in_own_netns(fd))
		udp_socket_set_foreign_netns(seat->udp);
	if (seat->udp != NULL && endpoint->from_parent)
		udp_socket_set_shared(seat->udp, true);
	if (seat->udp != NULL && endpoint->dual_stack)
		udp_socket_set_dual_stack(seat->udp);
	return seat->udp != NULL;
}

/* A place for ENDPOINT, which it owns then; its seats are filled later. NULL when out of memory. */
static struct place *place_new(struct serving *serving, struct endpoint *endpoint)
{
	struct place *place = calloc(1, sizeof *place + endpoint->count * sizeof *place->seats);
	if (place == NULL)
		return NULL;
	place->serving = serving;
	place->endpoint = endpoint;
	return place;
}

static bool place_fill(struct place *place, struct instance *instance)
{
	for (unsigned i = 0; i < place->endpoint->count; i++)
		if (!seat_init(&place->seats[i], place, i, instance))
			return false;
	evtimer_assign(&place->last_accept, place->serving->rooms.base, on_last_accept, place);
	return true;
}

static void place_start(struct place *place)
{
	endpoint_set_owner(place->endpoint, place);
	place->running = place->endpoint->count;
	for (unsigned i = 0; i < place->endpoint->count; i++)
		if (place->seats[i].tcp != NULL)
			tcp_listener_start(place->seats[i].tcp);
		else
			udp_socket_start(place->seats[i].udp);
}

static void place_change(struct place *place, struct instance *instance)
{
	for (unsigned i = 0; i < place->endpoint->count; i++)
		if (place->seats[i].tcp != NULL)
			tcp_listener_change(place->seats[i].tcp, instance);
		else
			udp_socket_change(place->seats[i].udp, instance);
}

static void share(struct place *place)
{
	for (unsigned i = 0; place->endpoint->shared && i < place->endpoint->count; i++)
		if (place->seats[i].tcp != NULL)
			tcp_listener_keep_open(place->seats[i].tcp);
		else
			udp_socket_keep_open(place->seats[i].udp);
}

/* What others have too they go on with: so it must not refuse anybody. */
static void refuse_new(struct place *place)
{
	for (unsigned i = 0; !place->endpoint->shared && i < place->endpoint->count; i++) {
		int error = tcp_listener_stop_new(place->seats[i].tcp);
		if (error != 0)
			log_info("%s: cannot refuse new connections before the port is closed: %s",
				 place->endpoint->service, strerror(-error));
	}
}

/* Takes a place that is in force out of service. */
static void place_leave(struct place *place)
{
	const struct timeval last = clock_timeval(LAST_ACCEPT_MS);
	struct serving *serving = place->serving;

	place->next = serving->leaving;
	place->link = &serving->leaving;
	if (place->next != NULL)
		place->next->link = &place->next;
	serving->leaving = place;
	share(place);
	if (place->endpoint->transport == TRANSPORT_UDP) {
		stop_seats(place);
		return;
	}
	refuse_new(place);
	if (place->endpoint->shared || event_add(&place->last_accept, &last) < 0)
		stop_seats(place);
}

/* --- generations and what is removed --- */

static void on_generation_over(void *argument)
{
	struct generation *generation = argument;
	struct serving *serving = generation->owner;
	struct generation **link = &serving->generations;
	while (*link != generation)
		link = &(*link)->next;
	*link = generation->next;
	generation_free(generation);
}

/* The next deadline of a removed service, of whatever generation; UINT64_MAX: there is none. */
static uint64_t next_end(const struct serving *serving, uint64_t now_ms)
{
	uint64_t next = UINT64_MAX;
	for (const struct generation *generation = serving->generations; generation != NULL;
	     generation = generation->next)
		for (size_t i = 0; i < generation->config->service_count; i++) {
			uint64_t ends_at_ms = atomic_load(&generation->instances[i].state->ends_at_ms);
			if (ends_at_ms > now_ms && ends_at_ms < next)
				next = ends_at_ms;
		}
	return next;
}

static void wait_for_end(struct serving *serving)
{
	uint64_t now_ms = clock_ms(), next = next_end(serving, now_ms);
	if (next == UINT64_MAX)
		return;
	/* the workers' clock is a coarse one: whoever is to be ended must be due by it */
	struct timeval wait = clock_timeval((int64_t)(next - now_ms) + COARSE_MS);
	event_add(serving->drained, &wait);
}

static void on_drained(evutil_socket_t fd, short what, void *argument)
{
	struct serving *serving = argument;
	(void)fd, (void)what;
	tcp_end_removed(serving->rooms.tcp);
	wait_for_end(serving);
}

/* Those of BEFORE that AFTER does not serve over TCP have until drain_timeout. */
static void end_removed(struct serving *serving, const struct generation *before, const struct generation *after)
{
	uint64_t ends_at_ms = clock_ms() + (uint64_t)after->config->daemon.drain_timeout_ms + 1;
	bool removed = false;

	for (size_t i = 0; i < before->config->service_count; i++) {
		const struct instance *instance = &before->instances[i];
		const struct instance *successor = generation_find(after, instance->config->name);
		if (instance->tcp == NULL || (successor != NULL && successor->tcp != NULL))
			continue;
		atomic_store(&instance->state->ends_at_ms, ends_at_ms);
		removed = true;
	}
	if (removed)
		wait_for_end(serving);
}

/* --- preparing --- */

/* False: nothing is left for connections. */
static bool limit_connections(struct change *change, const struct config *config, size_t sockets,
			      struct problems *problems)
{
	const struct serving_rooms *rooms = &change->serving->rooms;
	int64_t own = (int64_t)sockets + rooms->worker_count * DESCRIPTORS_PER_WORKER;
	int64_t available = rooms->descriptors - own - DESCRIPTORS_RESERVED;
	int64_t wanted = config->daemon.max_connections;

	if (available < 1) {
		problems_add(problems, NULL,
			     "%s%sRLIMIT_NOFILE = %" PRId64 " does not suffice for %zu endpoints and %u workers",
			     problems->reloads ? config->file : "", problems->reloads ? ": " : "", rooms->descriptors,
			     config->endpoint_count, rooms->worker_count);
		return false;
	}
	if (wanted > available)
		log_warning("max_connections = %" PRId64 ", but the descriptors suffice for %" PRId64
			    " (RLIMIT_NOFILE is %" PRId64 ")",
			    wanted, available, rooms->descriptors);
	change->maximum = wanted > 0 && wanted < available ? wanted : available;
	return true;
}

/* All that is in service, for the next configuration to choose from. NULL when out of memory. */
static struct endpoint_pool *pool_in_service(const struct serving *serving)
{
	struct endpoint_pool *pool = endpoint_pool_new();
	for (size_t i = 0; pool != NULL && i < serving->place_count; i++)
		if (!endpoint_pool_add(pool, serving->places[i]->endpoint)) {
			endpoint_pool_free(pool, false);
			pool = NULL;
		}
	return pool;
}

static bool add_place(struct change *change, struct entry *entry, struct endpoint *endpoint, struct problems *problems)
{
	entry->place = place_new(change->serving, endpoint);
	entry->fresh = entry->place != NULL;
	if (entry->place == NULL) {
		problems_add(problems, NULL, "%s: out of memory", entry->wanted->service->name);
		endpoint_free(endpoint);
	}
	return entry->fresh;
}

/* One that a process with fewer workers has opened grows. */
static bool may_grow(const struct endpoint *endpoint)
{
	return endpoint->from_parent && !endpoint->from_listen_fds;
}

/* Gives what is open already to whoever wants it. Returns how many sockets there will be. */
static size_t take_open(struct change *change, const struct config *config, struct endpoint_pool *pool)
{
	size_t sockets = 0, workers = change->serving->rooms.worker_count;
	for (size_t i = 0; i < config->endpoint_count; i++) {
		struct entry *entry = &change->entries[i];
		entry->wanted = &config->endpoints[i];
		entry->covered = endpoint_pool_is_covered(pool, entry->wanted);
		entry->taken = entry->covered ? NULL : endpoint_pool_take(pool, entry->wanted);
		if (entry->taken != NULL && (entry->taken->count > workers || !may_grow(entry->taken)))
			sockets += entry->taken->count;
		else if (!entry->covered)
			sockets += workers;
	}
	return sockets;
}

/* Whether ENDPOINT will take datagrams from the process before as soon as it has grown. */
static bool grows_at_once(const struct endpoint *endpoint, unsigned workers)
{
	return endpoint->transport == TRANSPORT_UDP && may_grow(endpoint) && endpoint->count < workers;
}

/* Makes places for what was taken and has none: what GROWS_AT_ONCE, or the rest. False: PROBLEMS has been told. */
static bool place_taken(struct change *change, bool those_that_grow, struct problems *problems)
{
	const struct serving_rooms *rooms = &change->serving->rooms;
	unsigned problems_before = problems->count;
	for (size_t i = 0; i < change->entry_count; i++) {
		struct entry *entry = &change->entries[i];
		struct endpoint *endpoint = entry->taken;
		if (endpoint == NULL || grows_at_once(endpoint, rooms->worker_count) != those_that_grow)
			continue;
		entry->taken = NULL;
		entry->place = endpoint->owner;
		if (may_grow(endpoint))
			endpoint = endpoint_add_sockets(endpoint, entry->wanted, rooms->worker_count, rooms->owner,
							problems);
		if (endpoint != NULL && entry->place == NULL)
			add_place(change, entry, endpoint, problems);
	}
	return problems->count == problems_before;
}

/* Of all that is open, in this process or in the one before it: of what was taken from POOL, and of what nobody has taken. */
static struct endpoint_ports *list_ports(const struct change *change, struct endpoint_pool *pool)
{
	struct endpoint_ports *ports = endpoint_ports_new();
	const struct serving *serving = change->serving;
	const struct endpoint *endpoint;

	for (size_t i = 0; ports != NULL && i < change->entry_count; i++)
		if (change->entries[i].place != NULL)
			endpoint_ports_add(ports, change->entries[i].place->endpoint, false);
		else if (change->entries[i].taken != NULL)
			endpoint_ports_add(ports, change->entries[i].taken, false);
	for (size_t i = 0; ports != NULL && (endpoint = endpoint_pool_next(pool, &i)) != NULL;)
		endpoint_ports_add(ports, endpoint, false);
	for (const struct place *place = serving->leaving; ports != NULL && place != NULL; place = place->next)
		endpoint_ports_add(ports, place->endpoint, true);
	return ports;
}

/* Opens what nobody has, of TRANSPORTS, of those that OVERLAP what is open BEFORE, or of the others. */
static void open_some(struct change *change, unsigned transports, const struct endpoint_ports *before, bool overlap,
		      struct endpoint_ports *ports, struct problems *problems)
{
	const struct serving_rooms *rooms = &change->serving->rooms;
	for (unsigned phase = 0; phase < ENDPOINT_BIND_PHASES; phase++)
		for (size_t i = 0; i < change->entry_count; i++) {
			struct entry *entry = &change->entries[i];
			if (entry->place != NULL || entry->taken != NULL || entry->covered ||
			    endpoint_bind_order(entry->wanted) != phase ||
			    (entry->wanted->transport & transports) == 0 ||
			    endpoint_ports_overlap(before, entry->wanted) != overlap)
				continue;
			struct endpoint *endpoint = endpoint_open(entry->wanted, rooms->worker_count, rooms->owner,
								  !overlap, ports, problems);
			if (endpoint != NULL)
				add_place(change, entry, endpoint, problems);
		}
}

/* Every endpoint that cannot be had is told of, not the first alone. What overlaps sockets in service takes clients from them: streams
 * from the moment that they listen, which is put off; datagrams at once, so they come last. */
static bool open_rest(struct change *change, const struct config *config, struct endpoint_pool *pool,
		      struct problems *problems)
{
	struct endpoint_ports *before = list_ports(change, pool), *ports = list_ports(change, pool);
	unsigned problems_before = problems->count;

	if (before == NULL || ports == NULL)
		problems_add(problems, NULL, "%s: out of memory", config->file);
	else
		open_some(change, TRANSPORT_BOTH, before, false, ports, problems);
	if (problems->count == problems_before)
		open_some(change, TRANSPORT_TCP, before, true, ports, problems);
	if (problems->count == problems_before)
		open_some(change, TRANSPORT_UDP, before, true, ports, problems);
	free(before);
	free(ports);
	return problems->count == problems_before;
}

static bool join_groups(struct change *change, const struct config *config, struct problems *problems)
{
	bool joined = true;
	for (size_t i = 0; i < config->endpoint_count; i++) {
		const struct entry *entry = &change->entries[i];
		if (entry->place != NULL)
			joined &= endpoint_join(entry->place->endpoint, entry->wanted, problems);
	}
	return joined;
}

static void add_port(struct port_set *served, const struct endpoint *endpoint)
{
	if (endpoint->transport == TRANSPORT_UDP)
		port_set_add(served, socket_address_port(&endpoint->address));
}

/* What comes from a port that we serve over UDP would be answered there, and so could go round for ever. While workers switch, one
 * can serve by the old configuration still: so its ports are refused too. */
static bool refuse_served_ports(const struct change *change)
{
	const struct serving *serving = change->serving;
	struct port_set *served = calloc(1, sizeof *served);
	if (served == NULL)
		return false;
	for (size_t i = 0; i < change->generation->config->endpoint_count; i++)
		if (change->entries[i].place != NULL)
			add_port(served, change->entries[i].place->endpoint);
	for (size_t i = 0; i < serving->place_count; i++)
		add_port(served, serving->places[i]->endpoint);
	for (const struct place *place = serving->leaving; place != NULL; place = place->next)
		add_port(served, place->endpoint);
	generation_refuse_ports(change->generation, served);
	free(served);
	return true;
}

static bool fill_places(const struct change *change)
{
	const struct config *config = change->generation->config;
	for (size_t i = 0; i < config->endpoint_count; i++) {
		const struct entry *entry = &change->entries[i];
		if (entry->fresh &&
		    !place_fill(entry->place, generation_instance(change->generation, entry->wanted->service)))
			return false;
	}
	return true;
}

static bool prepare(struct change *change, struct config *config, struct endpoint_pool *pool, struct problems *problems)
{
	size_t sockets = take_open(change, config, pool);

	if (!place_taken(change, false, problems) || !limit_connections(change, config, sockets, problems))
		return false;
	change->generation = generation_new(config, change->serving->store, change->maximum, problems);
	if (change->generation == NULL || !open_rest(change, config, pool, problems) ||
	    !place_taken(change, true, problems) || !join_groups(change, config, problems))
		return false;
	change->generation->owner = change->serving;
	if (refuse_served_ports(change) && fill_places(change))
		return true;
	problems_add(problems, NULL, "%s: out of memory", config->file);
	return false;
}

struct change *serving_prepare(struct serving *serving, struct config *config, struct endpoint_pool *pool,
			       struct problems *problems)
{
	struct change *change = calloc(1, sizeof *change);
	if (change == NULL)
		goto out_of_memory;
	change->serving = serving;
	change->entry_count = config->endpoint_count;
	change->entries = calloc(config->endpoint_count + 1, sizeof *change->entries);
	change->places = calloc(config->endpoint_count + 1, sizeof(struct place *));
	if (pool == NULL)
		pool = change->in_service = pool_in_service(serving);
	if (change->entries == NULL || change->places == NULL || pool == NULL)
		goto out_of_memory;
	if (prepare(change, config, pool, problems))
		return change;
	serving_cancel(change);
	return NULL;
out_of_memory:
	problems_add(problems, NULL, "%s: out of memory", config->file);
	serving_cancel(change);
	return NULL;
}

/* --- handing over --- */

/* The last that can fail: who has connected here is reset if the switch does not come. */
static bool listen_all(const struct change *change, struct problems *problems)
{
	for (size_t i = 0; i < change->entry_count; i++) {
		const struct entry *entry = &change->entries[i];
		if (entry->fresh && !endpoint_listen(entry->place->endpoint, entry->wanted, problems))
			return false;
	}
	return true;
}

bool serving_hand_over(struct change *change, struct problems *problems)
{
	return listen_all(change, problems);
}

/* --- giving up --- */

static void change_free(struct change *change)
{
	endpoint_pool_free(change->in_service, false);
	free(change->entries);
	free(change->places);
	free(change);
}

void serving_cancel(struct change *change)
{
	if (change == NULL)
		return;
	for (size_t i = 0; change->entries != NULL && i < change->entry_count; i++) {
		struct entry *entry = &change->entries[i];
		if (entry->fresh)
			place_free(entry->place);
		else if (entry->place != NULL)
			endpoint_unjoin(entry->place->endpoint);
		else
			endpoint_free(entry->taken);
	}
	generation_free(change->generation);
	change_free(change);
}

/* --- switching --- */

static void remove_unwanted(const struct change *change)
{
	struct endpoint *endpoint;
	if (change->in_service == NULL)
		return;
	for (size_t i = 0; (endpoint = endpoint_pool_next(change->in_service, &i)) != NULL;) {
		log_departure(endpoint, endpoint->service);
		place_leave(endpoint->owner);
	}
}

static void put_in_force(const struct change *change, const struct entry *entry)
{
	struct instance *instance = generation_instance(change->generation, entry->wanted->service);
	struct place *place = entry->place;
	const char *before = place->endpoint->service;
	bool moves = entry->fresh || before == NULL || strcmp(before, entry->wanted->service->name) != 0;

	if (moves && !entry->fresh)
		log_departure(place->endpoint, before);
	place->wanted = entry->wanted;
	endpoint_apply(place->endpoint, entry->wanted);
	if (entry->fresh)
		place_start(place);
	else
		place_change(place, instance);
	if (moves)
		log_arrival(place);
}

static void put_all_in_force(struct serving *serving, struct change *change)
{
	struct place **places = change->places;

	change->places = serving->places;
	serving->places = places;
	serving->place_count = serving->endpoint_count = 0;
	for (size_t i = 0; i < change->entry_count; i++) {
		const struct entry *entry = &change->entries[i];
		serving->endpoint_count += entry->covered || entry->place != NULL;
		if (entry->place == NULL)
			continue;
		put_in_force(change, entry);
		places[serving->place_count++] = entry->place;
	}
}

static void on_round_there(void *argument)
{
	struct round *round = argument;
	task_queue_post(round->serving->rooms.task_queue, &round->back);
}

static void on_round_back(void *argument)
{
	struct round *round = argument;
	struct serving *serving = round->serving;
	if (--serving->switching == 0)
		serving->switched->run(serving->switched->argument);
}

/* Behind all that the switch has posted: who has run this serves by the new configuration. */
static void await_workers(struct serving *serving, struct task *switched)
{
	if (switched == NULL)
		return; /* answers that come late would count for the next one */
	serving->switched = switched;
	serving->switching = serving->rooms.worker_count;
	for (unsigned i = 0; i < serving->rooms.worker_count; i++)
		worker_post(serving->rooms.workers[i], &serving->rounds[i].there);
}

void serving_switch(struct serving *serving, struct change *change, struct task *switched)
{
	struct generation *before = serving->generation, *after = change->generation;

	atomic_store(&serving->rooms.gate->maximum, change->maximum);
	generation_enforce(after);
	after->next = serving->generations;
	serving->generations = serving->generation = after;
	remove_unwanted(change);
	put_all_in_force(serving, change);
	change_free(change);
	if (before != NULL) {
		end_removed(serving, before, after);
		for (unsigned i = 0; i < serving->rooms.worker_count; i++)
			worker_post(serving->rooms.workers[i], &before->shares[i].leave);
	}
	await_workers(serving, switched);
}

/* --- what is in force --- */

struct config *serving_config(const struct serving *serving)
{
	return serving->generation != NULL ? serving->generation->config : NULL;
}

struct generation *serving_generation(const struct serving *serving)
{
	return serving->generation;
}

size_t serving_endpoint_count(const struct serving *serving)
{
	return serving->endpoint_count;
}

struct endpoint *serving_next_endpoint(const struct serving *serving, size_t *index)
{
	return *index < serving->place_count ? serving->places[(*index)++]->endpoint : NULL;
}

static void own(struct place *place)
{
	struct endpoint *endpoint = place->endpoint;
	endpoint_parent_released(endpoint, place->wanted);
	for (unsigned i = 0; i < endpoint->count; i++)
		if (place->seats[i].udp != NULL)
			udp_socket_set_shared(place->seats[i].udp, false);
}

void serving_own_endpoints(struct serving *serving)
{
	for (size_t i = 0; i < serving->place_count; i++)
		if (serving->places[i]->endpoint->from_parent)
			own(serving->places[i]);
}

bool serving_has_left(const struct serving *serving)
{
	return serving->place_count == 0 && serving->leaving == NULL;
}

/* --- the end --- */

void serving_stop(struct serving *serving)
{
	for (size_t i = 0; i < serving->place_count; i++)
		place_leave(serving->places[i]);
	serving->place_count = 0;
}

void serving_stop_now(struct serving *serving)
{
	for (struct place *place = serving->leaving; place != NULL; place = place->next)
		if (evtimer_pending(&place->last_accept, NULL)) {
			event_del(&place->last_accept);
			stop_seats(place);
		}
}

static bool make_rounds(struct serving *serving)
{
	serving->rounds = calloc(serving->rooms.worker_count, sizeof *serving->rounds);
	for (unsigned i = 0; serving->rounds != NULL && i < serving->rooms.worker_count; i++) {
		struct round *round = &serving->rounds[i];
		round->serving = serving;
		round->there = (struct task){.run = on_round_there, .argument = round};
		round->back = (struct task){.run = on_round_back, .argument = round};
	}
	return serving->rounds != NULL;
}

struct serving *serving_new(const struct serving_rooms *rooms)
{
	struct serving *serving = calloc(1, sizeof *serving);
	if (serving == NULL)
		return NULL;
	serving->rooms = *rooms;
	serving->store = instance_store_new(rooms->metrics, rooms->gate, rooms->worker_count, rooms->task_queue,
					    on_generation_over);
	serving->drained = evtimer_new(rooms->base, on_drained, serving);
	if (serving->store != NULL && serving->drained != NULL && make_rounds(serving))
		return serving;
	serving_free(serving);
	return NULL;
}

void serving_free(struct serving *serving)
{
	if (serving == NULL)
		return;
	for (size_t i = 0; i < serving->place_count; i++)
		place_free(serving->places[i]);
	for (struct place *place = serving->leaving, *next; place != NULL; place = next) {
		next = place->next;
		place_free(place);
	}
	for (struct generation *generation = serving->generations, *next; generation != NULL; generation = next) {
		next = generation->next;
		generation_free(generation);
	}
	instance_store_free(serving->store);
	if (serving->drained != NULL)
		event_free(serving->drained);
	free(serving->rounds);
	free(serving->places);
	free(serving);
}
