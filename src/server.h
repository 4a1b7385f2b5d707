/* server.h: start, apply a configuration, drain, stop. */
#ifndef SMALLSERVD_SERVER_H
#define SMALLSERVD_SERVER_H

#include <stdbool.h>

#include "config.h"

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

/* Stops accepting, serves what is queued, waits for open connections up to stop_timeout, then has server_run return. A
 * second call has it return at once. */
void server_stop(struct server *server);

/* Logs the sums of each service's counters. */
void server_log_counters(const struct server *server);

/* Ends what is left and frees. NULL is fine. */
void server_free(struct server *server);

#endif
