/* server.h: the daemon: start, reload, upgrade, stop. */
#ifndef SMALLSERVD_CONTROL_SERVER_H
#define SMALLSERVD_CONTROL_SERVER_H

#include <stdbool.h>

#include "config/config.h"

struct event_base;
struct server;

/* Creates a server for CONFIG, to which it takes a reference. Returns NULL after logging the reason. */
struct server *server_new(struct config *config);

/* Binds every endpoint, gives up root, starts the workers and serves. Returns false after logging the reason. The
 * caller's thread is the main thread from here on, which all functions are for. */
bool server_start(struct server *server);

/* Returns the main thread's event base, for the caller's own events. */
struct event_base *server_base(const struct server *server);

/* Runs until a stop is complete. Returns false, logged, if the event loop failed. */
bool server_run(struct server *server);

/* Called for each configuration that a reload puts in force, before the lines about it are logged. */
typedef void server_config_callback(const struct config *config, void *argument);
void server_on_config(struct server *server, server_config_callback *on_config, void *argument);

/* Reloads the configuration file as a whole, or logs the reason and continues unchanged. Calls during a reload cause
 * one more; calls during a stop are ignored. Workers may serve by the previous configuration for a moment after the
 * return. */
void server_reload(struct server *server);

/* Sets the program that server_upgrade runs. Owns PATH, which may be NULL with errno; ARGUMENTS stay the caller's. */
void server_set_program(struct server *server, char *path, char *const *arguments);

/* Starts the program with the same sockets, and drains once the new process has taken over; or logs the reason and
 * continues. A reload in progress comes first; one requested meanwhile comes after, in the process that serves then.
 * Ignored, logged, during an upgrade or a stop. */
void server_upgrade(struct server *server);

/* Stops gracefully: accepts no new clients, serves queued ones, waits for open connections up to stop_timeout, then
 * server_run returns. A second call has it return at once. */
void server_stop(struct server *server);

/* Logs the counters of each service. */
void server_log_counters(const struct server *server);

/* Closes what is open and frees. NULL is fine. */
void server_free(struct server *server);

#endif
