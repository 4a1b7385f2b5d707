/* check_threads.h: several threads that run one function at the same time. */
#ifndef SMALLSERVD_CHECK_THREADS_H
#define SMALLSERVD_CHECK_THREADS_H

#include <check.h>
#include <pthread.h>

enum { THREADS_MAX = 8 };

struct threads {
	pthread_t list[THREADS_MAX];
	unsigned count;
};

/* Starts COUNT threads; ARGUMENTS holds COUNT elements of SIZE bytes, one per thread. Threads must not assert: Check
 * leaves a failed test by a jump in the thread that runs it. */
static inline void threads_start(struct threads *threads, unsigned count, void *(*run)(void *), void *arguments,
				 size_t size)
{
	threads->count = count;
	for (unsigned i = 0; i < count; i++)
		ck_assert_int_eq(pthread_create(&threads->list[i], NULL, run, (char *)arguments + i * size), 0);
}

static inline void threads_join(struct threads *threads)
{
	for (unsigned i = 0; i < threads->count; i++)
		pthread_join(threads->list[i], NULL);
}

#endif
