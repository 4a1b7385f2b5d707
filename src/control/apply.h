/* apply.h: the configuration in force, and the switch to the next. */
#ifndef SMALLSERVD_CONTROL_APPLY_H
#define SMALLSERVD_CONTROL_APPLY_H

#include <sys/types.h>

#include "config/config.h"
#include "core/problems.h"
#include "net/endpoint_pool.h"
#include "net/instance.h"
#include "net/limit.h"
#include "net/metrics.h"
#include "net/tcp.h"
#include "net/udp.h"
#include "thread/worker.h"

/* What it serves with. All of it stays the caller's, and there until serving_free. */
struct serving_rooms {
	struct event_base *base; /* the main thread's */
	struct task_queue *task_queue;
	struct worker *const *workers;
	unsigned worker_count;
	struct tcp *tcp;
	struct udp *udp;
	struct metrics *metrics;
	struct limit_gate *gate;         /* open connections over all services */
	uid_t owner;                     /* of the sockets; (uid_t)-1: as they are */
	int64_t descriptors;             /* that this process may have */
	void (*on_left)(void *argument); /* an endpoint has been closed */
	void *argument;
};

/* All functions here are for the main thread. */
struct serving;

/* Serves nothing yet. NULL when out of memory. */
struct serving *serving_new(const struct serving_rooms *rooms);

/* What a configuration needs, ready to be switched to. */
struct change;

/* Prepares all that can fail for CONFIG, to which it takes a reference: opens what is wanted and not open yet, and takes what suits from
 * POOL, or where that is NULL from what is in service. Nothing that serves is touched. NULL: PROBLEMS has been told. */
struct change *serving_prepare(struct serving *serving, struct config *config, struct endpoint_pool *pool,
			       struct problems *problems);

/* Has all new sockets listen. False: PROBLEMS has been told, and CHANGE can only be cancelled. */
bool serving_hand_over(struct change *change, struct problems *problems);

/* Gives CHANGE up: what it has opened or taken from a pool is closed. NULL is fine. */
void serving_cancel(struct change *change);

/* Puts CHANGE, which was handed over, in force, which cannot fail, logs what is listened on from now on and what no longer, and posts SWITCHED, unless it is NULL,
 * once every worker serves by it. What is no longer wanted loses nothing that the kernel has queued. Not again before SWITCHED has run. */
void serving_switch(struct serving *serving, struct change *change, struct task *switched);

/* What is in force; NULL before the first switch. */
struct config *serving_config(const struct serving *serving);
struct generation *serving_generation(const struct serving *serving);

/* How many endpoints are in force, those of a socket of both families counted as two. */
size_t serving_endpoint_count(const struct serving *serving);

/* The endpoints that another process of ours had, too, are ours alone from now on: sets on them what has been left alone so far. */
void serving_own_endpoints(struct serving *serving);

/* Refuses new clients, serves those that are queued, and closes every endpoint; on_left tells of each. */
void serving_stop(struct serving *serving);

/* Does not wait any longer for handshakes that were under way when serving_stop was called. */
void serving_stop_now(struct serving *serving);

/* Whether nothing is open any more. */
bool serving_has_left(const struct serving *serving);

/* The endpoints in force, one a call, from *INDEX on (0 at first), which is set behind it; NULL: there are no more. */
struct endpoint *serving_next_endpoint(const struct serving *serving, size_t *index);

/* The workers have been stopped and tcp freed, udp and the workers not yet: closes all. NULL is fine. */
void serving_free(struct serving *serving);

#endif
