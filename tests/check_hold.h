/* check_hold.h: a worker that is busy until a test lets it go. */
#ifndef SMALLSERVD_CHECK_HOLD_H
#define SMALLSERVD_CHECK_HOLD_H

#include <semaphore.h>

#include "thread/worker.h"

struct hold {
	struct task task;
	sem_t begun; /* posted by the worker: from then on it does nothing else */
	sem_t over;  /* to be posted by the test */
};

static inline void hold_on_mail(void *argument)
{
	struct hold *hold = argument;
	sem_post(&hold->begun);
	while (sem_wait(&hold->over) < 0)
		;
}

static inline void hold_post(struct hold *hold, struct worker *worker)
{
	*hold = (struct hold){.task = {.run = hold_on_mail, .argument = hold}};
	sem_init(&hold->begun, 0, 0);
	sem_init(&hold->over, 0, 0);
	worker_post(worker, &hold->task);
}

#endif
