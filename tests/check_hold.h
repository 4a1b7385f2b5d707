/* check_hold.h: keeps a worker busy until the test releases it. */
#ifndef SMALLSERVD_CHECK_HOLD_H
#define SMALLSERVD_CHECK_HOLD_H

#include <semaphore.h>

#include "thread/worker.h"

struct hold {
	struct task task;
	sem_t begun; /* posted by the worker, which then waits for OVER */
	sem_t over;  /* to be posted by the test */
};

static inline void hold_on_task(void *argument)
{
	struct hold *hold = argument;
	sem_post(&hold->begun);
	while (sem_wait(&hold->over) < 0)
		;
}

/* Blocks WORKER, behind the tasks posted before, until HOLD->over is posted. Returns when it is blocked. */
static inline void hold_worker(struct hold *hold, struct worker *worker)
{
	*hold = (struct hold){.task = {.run = hold_on_task, .argument = hold}};
	sem_init(&hold->begun, 0, 0);
	sem_init(&hold->over, 0, 0);
	worker_post(worker, &hold->task);
	while (sem_wait(&hold->begun) < 0)
		;
}

#endif
