/* check_event.h: out-of-memory errors of libevent. For one file per program. */
#ifndef SMALLSERVD_CHECK_EVENT_H
#define SMALLSERVD_CHECK_EVENT_H

#include <dlfcn.h>
#include <event2/event.h>
#include <event2/event_struct.h>
#include <stdatomic.h>
#include <string.h>

/* The kinds of events that cannot be added: EV_TIMEOUT, EV_READ, EV_WRITE. */
static _Atomic short events_without_memory;

/* Replaces libevent's function for calls of the daemon's code. */
int event_add(struct event *event, const struct timeval *timeout)
{
	short kinds = event->ev_fd < 0 ? EV_TIMEOUT : (short)(event->ev_events & (EV_READ | EV_WRITE));
	int (*real)(struct event *, const struct timeval *);
	void *found = dlsym(RTLD_NEXT, "event_add");

	if (kinds & atomic_load(&events_without_memory))
		return -1;
	memcpy(&real, &found, sizeof real);
	return real(event, timeout);
}

#endif
