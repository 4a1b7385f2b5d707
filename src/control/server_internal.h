/* server_internal.h: the daemon, as the modules server, reload, succession, stop and report share it. */
#ifndef SMALLSERVD_CONTROL_SERVER_INTERNAL_H
#define SMALLSERVD_CONTROL_SERVER_INTERNAL_H

#include <event2/event.h>

#include "control/apply.h"
#include "control/sandbox.h"
#include "control/watchdog.h"
#include "handoff/upgrade_child.h"
#include "handoff/upgrade_parent.h"

/* For the main thread. */
struct server {
	struct event_base *base;
	struct task_queue *tasks;
	struct event *reload_event, *stop_timer, *report_timer;
	struct config *started; /* the configuration of the start, for what a reload cannot change */
	struct limit_gate gate; /* open connections of all services */
	struct sandbox_identity identity;
	bool drops_root;      /* started as root: becomes `identity` */
	const char *pid_file; /* NULL: not written */
	struct worker **workers;
	unsigned worker_count;
	struct watchdog *watchdog; /* NULL: the service manager requests none */
	struct tcp *tcp;
	struct udp *udp;
	struct running_config *running;
	bool stopping;                        /* no new clients */
	bool closing;                         /* stop_timeout is over: the connections are being closed */
	bool stop_requested;                  /* by a signal; else it drains after an upgrade */
	bool reload_pending, upgrade_pending; /* by a signal */
	bool committing;                      /* a reload that some workers have not applied yet */
	struct upgrade_program program;       /* without a path: PROGRAM_ERROR is the errno */
	int program_error;
	struct upgrade *upgrade;             /* to a new process; NULL: none */
	struct upgrade_fds *upgrade_fds;     /* of that upgrade */
	struct upgrade_child *upgrade_child; /* from a parent that has not released the sockets yet; NULL: none */
	bool took_over;                      /* from that parent */
	bool announced;                      /* the service manager knows this process */
	struct task idle, committed;
	void (*on_config)(const struct config *config, void *argument);
	void *on_config_argument;
};

/* --- server.c --- */

/* Writes the pid file, if one is configured. Returns false with the reason in ERROR. */
bool server_write_pid_file(struct server *server, char *error, size_t size);

/* Starts the watchdog, if the service manager requests one. Returns false after logging the reason. */
bool server_start_watchdog(struct server *server);

/* --- reload.c --- */

void reload_schedule(struct server *server);
void reload_on_timer(evutil_socket_t fd, short what, void *server);

/* Completes a reload: every worker serves by the new configuration. */
void reload_on_committed(void *server);

/* --- succession.c --- */

/* Finds the parent of an upgrade, if this process has one. Returns false after logging the reason. */
bool succession_find_parent(struct server *server);

/* Runs what signals have requested while it was not possible. The upgrade comes first: reloads must not delay it, and
 * the new process reads the last version of the file. */
void succession_run_pending(struct server *server);

/* Starts a requested upgrade, unless a reload is in progress or the parent still has the sockets. */
void succession_begin_pending(struct server *server);

/* Forwards SIGNAL to the new process, if it has taken over. Returns whether it has. */
bool succession_forward(const struct server *server, int signal);

/* --- stop.c --- */

/* Starts a graceful stop by a signal, or by the parent of a failed upgrade. */
void stop_begin(struct server *server);

/* Closes the endpoints, and waits TIMEOUT_MS for open connections. */
void stop_serving(struct server *server, int64_t timeout_ms);

void stop_on_timeout(evutil_socket_t fd, short what, void *server);
void stop_on_idle(void *server);   /* the last connection is closed */
void stop_on_closed(void *server); /* an endpoint is closed */

/* --- report.c --- */

enum { SUMMARY_SIZE = 64 };

/* Writes `N services, M endpoints` to TEXT. */
void server_summarise(const struct server *server, char text[SUMMARY_SIZE]);

/* Notifies the service manager, which knows this process, that it is ready. */
void server_announce(struct server *server);

/* Logs dropped datagrams and suppressed lines; each minute. */
void report_on_timer(evutil_socket_t fd, short what, void *server);

#endif
