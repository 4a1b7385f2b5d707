/* lookup.c: resolves a name within a time limit.
 *
 * getaddrinfo waits as long as the C library's configuration says and cannot be cancelled. A thread calls it. After the
 * time limit the thread is detached: it frees the query itself when getaddrinfo returns. */
#include "probe/lookup.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

struct question {
	char host[256], port[8];
	struct addrinfo hints;
	pthread_mutex_t lock; /* protects the members below */
	pthread_cond_t answered;
	bool is_answered, is_given_up;
	int code, error;
	struct addrinfo *list;
};

static void question_free(struct question *question)
{
	pthread_cond_destroy(&question->answered);
	pthread_mutex_destroy(&question->lock);
	free(question);
}

/* Returns NULL when out of memory. */
static struct question *question_new(const char *host, const char *port, const struct addrinfo *hints)
{
	struct question *question = calloc(1, sizeof *question);
	pthread_condattr_t attributes;

	if (question == NULL)
		return NULL;
	snprintf(question->host, sizeof question->host, "%s", host);
	snprintf(question->port, sizeof question->port, "%s", port);
	question->hints = *hints;
	pthread_mutex_init(&question->lock, NULL);
	pthread_condattr_init(&attributes);
	pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC); /* these calls cannot fail on Linux */
	pthread_cond_init(&question->answered, &attributes);
	pthread_condattr_destroy(&attributes);
	return question;
}

static void *ask(void *argument)
{
	struct question *question = argument;
	struct addrinfo *list = NULL;
	int code = getaddrinfo(question->host, question->port, &question->hints, &list);
	int error = errno;

	pthread_mutex_lock(&question->lock);
	bool is_given_up = question->is_given_up;
	question->code = code;
	question->error = error;
	question->list = list;
	question->is_answered = true;
	pthread_cond_signal(&question->answered);
	pthread_mutex_unlock(&question->lock);
	if (!is_given_up)
		return NULL;
	if (code == 0)
		freeaddrinfo(list);
	question_free(question);
	return NULL;
}

/* Starts the thread with all signals blocked. Returns 0 or an errno. */
static int start_thread(struct question *question, pthread_t *thread)
{
	sigset_t all, before;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	int error = pthread_create(thread, NULL, ask, question);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return error;
}

static bool wait_for_answer(struct question *question, int64_t timeout_ms)
{
	struct timespec ends;

	clock_gettime(CLOCK_MONOTONIC, &ends);
	ends.tv_sec += timeout_ms / 1000;
	ends.tv_nsec += timeout_ms % 1000 * 1000000;
	if (ends.tv_nsec >= 1000000000) {
		ends.tv_sec++;
		ends.tv_nsec -= 1000000000;
	}
	pthread_mutex_lock(&question->lock);
	while (!question->is_answered &&
	       pthread_cond_timedwait(&question->answered, &question->lock, &ends) != ETIMEDOUT)
		;
	bool is_answered = question->is_answered;
	question->is_given_up = !is_answered;
	pthread_mutex_unlock(&question->lock);
	return is_answered;
}

int lookup_addresses(const char *host, const char *port, const struct addrinfo *hints, int64_t timeout_ms,
		     struct addrinfo **list)
{
	pthread_t thread;

	if (timeout_ms == 0)
		return getaddrinfo(host, port, hints, list);
	struct question *question = question_new(host, port, hints);

	if (question == NULL)
		return EAI_MEMORY;
	int error = start_thread(question, &thread);

	if (error != 0) {
		question_free(question);
		errno = error;
		return EAI_SYSTEM;
	}
	if (!wait_for_answer(question, timeout_ms)) {
		pthread_detach(thread);
		errno = ETIMEDOUT;
		return EAI_SYSTEM;
	}
	pthread_join(thread, NULL);
	int code = question->code;

	*list = question->list;
	errno = question->error;
	question_free(question);
	return code;
}
