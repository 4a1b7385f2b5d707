/* listener.c: a socket in service on one worker, over TCP or UDP: its life cycle. */
#include "net/listener.h"

static void start(void *argument)
{
	struct listener *listener = argument;
	instance_hold(listener->instance, worker_index(listener->worker));
	listener->ops->start(listener);
}

static void change(void *argument)
{
	struct listener *listener = argument;
	unsigned index = worker_index(listener->worker);
	instance_hold(listener->next_instance, index);
	instance_release(listener->instance, index);
	listener->instance = listener->next_instance;
	listener->ops->change(listener);
}

static void stop(void *argument)
{
	struct listener *listener = argument;
	listener->ops->stop(listener);
}

void listener_init(struct listener *listener, const struct listener_ops *ops, struct worker *worker, int fd,
		   struct instance *instance)
{
	*listener = (struct listener){
		.ops = ops,
		.worker = worker,
		.instance = instance,
		.fd = fd,
		.start = {.run = start, .argument = listener},
		.change = {.run = change, .argument = listener},
		.stop = {.run = stop, .argument = listener},
	};
}

void listener_keep_open(struct listener *listener)
{
	listener->keep_open = true;
}

void listener_set_shared(struct listener *listener, bool shared)
{
	if (listener->ops->set_shared != NULL)
		listener->ops->set_shared(listener, shared);
}

void listener_start(struct listener *listener)
{
	worker_post(listener->worker, &listener->start);
}

void listener_change(struct listener *listener, struct instance *instance)
{
	listener->next_instance = instance;
	worker_post(listener->worker, &listener->change);
}

void listener_stop(struct listener *listener, struct task_queue *main, struct task *stopped)
{
	listener->main = main;
	listener->stopped = stopped;
	worker_post(listener->worker, &listener->stop);
}

void listener_free(struct listener *listener)
{
	if (listener != NULL)
		listener->ops->free(listener);
}

void listener_stopped(struct listener *listener)
{
	instance_release(listener->instance, worker_index(listener->worker));
	task_queue_post(listener->main, listener->stopped);
}
