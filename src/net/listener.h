/* listener.h: a socket in service on one worker, over TCP or UDP: its life cycle. */
#ifndef SMALLSERVD_NET_LISTENER_H
#define SMALLSERVD_NET_LISTENER_H

#include <stdbool.h>

#include "net/instance.h"
#include "thread/worker.h"

struct listener;

/* The operations of a transport. */
struct listener_ops {
	/* on the worker */
	void (*start)(struct listener *listener);
	void (*change)(struct listener *listener); /* `instance` is the next one already */
	void (*stop)(struct listener *listener);   /* drains the queue of the kernel; ends by listener_stopped */
	/* on the main thread */
	int (*stop_new)(
		struct listener *listener); /* refuses new clients ahead of a stop: 0 or -errno; NULL: `stop` does */
	void (*set_shared)(struct listener *listener, bool shared); /* NULL: it makes no difference */
	void (*free)(struct listener *listener);
};

/* The first member of a transport's own struct. */
struct listener {
	const struct listener_ops *ops;
	struct worker *worker;
	struct instance *instance; /* whose connections or datagrams it serves */
	int fd;                    /* stays open until the listener has stopped */
	bool keep_open;
	struct instance *next_instance; /* the main thread's, until the task has run */
	struct task start, change, stop;
	struct task_queue *main;
	struct task *stopped;
};

/* Initialises the members above. */
void listener_init(struct listener *listener, const struct listener_ops *ops, struct worker *worker, int fd,
		   struct instance *instance);

/* The socket is shared with another process: a stop drains its queue once and leaves later clients to that process.
 * Main thread, before the stop. */
void listener_keep_open(struct listener *listener);

/* Marks the socket as SHARED with another process, or no longer: the options of a shared socket are not changed. Any
 * thread. */
void listener_set_shared(struct listener *listener, bool shared);

/* Starts serving. Main thread. */
void listener_start(struct listener *listener);

/* Serves new clients by INSTANCE from now on. Main thread; not again before the worker has run the task. */
void listener_change(struct listener *listener, struct instance *instance);

/* Serves queued clients, as far as limits allow, stops, and posts STOPPED to MAIN. Main thread, once. */
void listener_stop(struct listener *listener, struct task_queue *main, struct task *stopped);

/* Frees a listener that has stopped, or whose worker has. NULL is fine. */
void listener_free(struct listener *listener);

/* Ends a stop; the main thread may free the listener from then on. For its worker. */
void listener_stopped(struct listener *listener);

#endif
