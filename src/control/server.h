/* server.h: start, reload, drain, stop. */
#ifndef SMALLSERVD_CONTROL_SERVER_H
#define SMALLSERVD_CONTROL_SERVER_H

#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#include "config/config.h"

struct event_base;
struct server;

/* A server for CONFIG, to which it takes a reference, that does nothing yet. NULL: it has been logged why. */
struct server *server_new(struct config *config);

/* Binds every endpoint, gives up root, starts the workers and serves. False: what could not be done has been logged.
 * The caller's thread is the main thread from here on. */
bool server_start(struct server *server);

/* The main thread's loop, for the caller's own events. */
struct event_base *server_base(const struct server *server);

/* Runs until a stop is complete. False: the loop failed, which has been logged. */
bool server_run(struct server *server);

/* Told of each configuration that a reload puts in force, before it logs anything about it. */
typedef void server_config_callback(const struct config *config, void *argument);
void server_on_config(struct server *server, server_config_callback *on_config, void *argument);

/* Reads the configuration file again and switches to it whole, or logs why not and goes on as before. Calls that come while one is under
 * way are one more; while it stops they are ignored. Workers may have the old one for a moment after it returns. */
void server_reload(struct server *server);

/* Sets the program that server_upgrade runs. Owns PATH, which may be NULL with errno; ARGUMENTS stay the caller's. */
void server_set_program(struct server *server, char *path, char *const *arguments);

/* Starts the program anew, on the same sockets, and drains once the new process has taken over; or logs why it has not, and goes on as
 * before. A reload that is under way comes first; one that is asked for meanwhile comes after, in whichever process serves then. While
 * an upgrade is under way, or a stop, it is refused, which is logged. */
void server_upgrade(struct server *server);

/* How reloads have ended so far; the start counts as a success without being one of them. */
struct server_reloads {
	uint64_t succeeded, failed;
	bool last_succeeded;
	time_t last_success;
};
const struct server_reloads *server_reloads(const struct server *server);

/* Stops accepting, serves what is queued, waits for open connections up to stop_timeout, then has server_run return. A
 * second call has it return at once. */
void server_stop(struct server *server);

/* Logs the sums of each service's counters. */
void server_log_counters(const struct server *server);

/* Ends what is left and frees. NULL is fine. */
void server_free(struct server *server);

#endif
