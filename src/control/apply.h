/* apply.h: applies a configuration as a two-phase commit. */
#ifndef SMALLSERVD_CONTROL_APPLY_H
#define SMALLSERVD_CONTROL_APPLY_H

#include "control/running_config.h"
#include "core/diagnostics.h"
#include "net/endpoint_pool.h"

/* The resources of a configuration that is to be applied. All functions are for the main thread. */
struct transaction;

/* Prepares CONFIG, to which it takes a reference: opens the endpoints that are not open yet, and takes others from POOL
 * or, if that is NULL, from RUNNING. Changes no listener in service. Returns NULL and adds the problems. */
struct transaction *apply_prepare(struct running_config *running, struct config *config, struct endpoint_pool *pool,
				  struct diagnostics *diagnostics);

/* Has all new sockets listen, the last step that can fail. Returns false and adds the problems: then only
 * apply_rollback may follow, which resets clients that connected meanwhile. */
bool apply_listen(struct transaction *transaction, struct diagnostics *diagnostics);

/* Puts TRANSACTION in force, which cannot fail, and frees it. Logs added and removed endpoints; endpoints that are not
 * wanted any more lose no queued client. Posts COMMITTED, unless it is NULL, once every worker serves by the
 * configuration; no other commit before that. */
void apply_commit(struct transaction *transaction, struct task *committed);

/* Frees TRANSACTION and closes all that it has opened or taken from a pool. NULL is fine. */
void apply_rollback(struct transaction *transaction);

#endif
