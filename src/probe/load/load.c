/* load.c: a load from its start to its exit status. */
#include "probe/load/load.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "probe/load/report.h"
#include "probe/load/thread.h"
#include "probe/run.h"
#include "probe/socket.h"
#include "probe/tls_client.h"

#define PROGRESS_EVERY_NS UINT64_C(250000000)

static void complain(const char *error)
{
	fprintf(stderr, "smallprobe: %s\n", error);
}

/* Raises the descriptor limit, as each connection needs one; socket(2) reports a shortage. */
static void raise_descriptor_limit(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
		limit.rlim_cur = limit.rlim_max;
		(void)setrlimit(RLIMIT_NOFILE, &limit);
	}
}

/* --- the target address: the first one that accepts a connection; over UDP the first one --- */

static bool reaches(const struct load *load, const struct target_address *address, char *error)
{
	char text[TARGET_TEXT_SIZE];
	struct pollfd poller = {.events = POLLOUT};
	int reason = 0;
	socklen_t length = sizeof reason;

	poller.fd = socket_open(load->options, address, error);
	if (poller.fd < 0)
		return false;
	if (connect(poller.fd, (const struct sockaddr *)&address->address, address->length) < 0)
		reason = errno;
	if (reason == EINPROGRESS) {
		int ready = poll(&poller, 1, (int)load->options->timeout_ms);
		reason = ready == 0 ? ETIMEDOUT : errno;
		if (ready > 0 && getsockopt(poller.fd, SOL_SOCKET, SO_ERROR, &reason, &length) < 0)
			reason = errno;
	}
	close(poller.fd);
	target_print((const struct sockaddr *)&address->address, text);
	snprintf(error, TARGET_ERROR_SIZE, "connect to %s: %s", text, strerror(reason));
	return reason == 0;
}

/* Returns false with the reason in ERROR and on stderr. */
static bool choose_address(struct load *load, char *error)
{
	const struct target *target = load->target;

	load->address = &target->addresses[0];
	/* with a single address the load itself reports its failure */
	for (size_t i = 0; !load->options->udp && target->count > 1 && i < target->count; i++) {
		if (reaches(load, &target->addresses[i], error)) {
			load->address = &target->addresses[i];
			break;
		}
		complain(error);
		if (i + 1 == target->count)
			return false;
	}
	target_print((const struct sockaddr *)&load->address->address, load->peer);
	return true;
}

/* --- the threads --- */

static void copy_stats(struct load *load, struct load_thread *threads, struct load_stats *stats)
{
	memset(stats, 0, sizeof *stats);
	pthread_mutex_lock(&load->lock);
	for (unsigned i = 0; i < load->options->threads; i++)
		load_stats_add(stats, &threads[i].copy);
	pthread_mutex_unlock(&load->lock);
}

static void draw_progress(struct load *load, struct load_thread *threads, uint64_t began_ns)
{
	static struct load_stats stats[2];
	static uint64_t drawn_ns[2];
	static unsigned now;
	uint64_t now_ns = run_now();

	if (drawn_ns[now] == 0)
		drawn_ns[now] = began_ns;
	if (now_ns - drawn_ns[now] < PROGRESS_EVERY_NS)
		return;
	now = !now;
	drawn_ns[now] = now_ns;
	copy_stats(load, threads, &stats[now]);
	pthread_mutex_lock(&load->lock);
	load_report_progress(load, &stats[now], &stats[!now], now_ns - drawn_ns[!now], now_ns - began_ns);
	pthread_mutex_unlock(&load->lock);
}

/* Waits until all threads are done. The first ^C stops new requests, the second the wait for replies. */
static bool watch(struct load *load, struct load_thread *threads, int signals)
{
	uint64_t began_ns = run_now(), ended = 0, some;
	struct signalfd_siginfo signal;
	int stop = LOAD_GOES_ON;

	while (ended < load->options->threads) {
		struct pollfd sources[] = {{.fd = load->done, .events = POLLIN}, {.fd = signals, .events = POLLIN}};
		int ready = poll(sources, 2, load->options->progress ? (int)(PROGRESS_EVERY_NS / 1000000) : -1);
		if (ready > 0 && sources[0].revents != 0 && read(load->done, &some, sizeof some) == sizeof some)
			ended += some;
		if (ready > 0 && sources[1].revents != 0 && read(signals, &signal, sizeof signal) == sizeof signal) {
			stop = stop == LOAD_GOES_ON ? LOAD_STOPS : LOAD_BREAKS_OFF;
			atomic_store(&load->stop, stop);
		}
		if (load->options->progress)
			draw_progress(load, threads, began_ns);
	}
	load_report_clear(load);
	return stop != LOAD_GOES_ON;
}

/* --- the run --- */

static int judge(struct load *load, const struct load_stats *stats, const char *error)
{
	const struct series_counts *counts = &stats->counts;

	if (error != NULL)
		return counts->received > 0 || atomic_load(&load->reached) ? EXIT_WRONG : EXIT_NO_CONNECTION;
	bool wrong = counts->corrupted > 0 || counts->unexpected > 0 || stats->broken > 0 || counts->received == 0;
	return wrong || series_loss(counts) > load->options->max_loss ? EXIT_WRONG : EXIT_OK;
}

static const char *first_error(const struct load *load, const struct load_thread *threads)
{
	for (unsigned i = 0; i < load->options->threads; i++)
		if (threads[i].error[0] != '\0')
			return threads[i].error;
	return NULL;
}

static int conclude(struct load *load, struct load_thread *threads, bool interrupted)
{
	static struct load_stats stats;
	struct load_outcome outcome = {.stats = &stats, .interrupted = interrupted};

	copy_stats(load, threads, &stats);
	outcome.error = first_error(load, threads);
	outcome.status = judge(load, &stats, outcome.error);
	if (outcome.error != NULL)
		complain(outcome.error);
	/* without any reply the error is the whole result, except for JSON */
	if (stats.counts.received == 0 && outcome.error != NULL && !load->options->json)
		return outcome.status;
	if (load_report_print(load, &outcome))
		return outcome.status;
	complain("cannot write to standard output");
	return EXIT_WRONG;
}

static int conclude_unreached(const struct load *load, const char *error)
{
	static const struct load_stats nothing;
	struct load_outcome outcome = {.stats = &nothing, .error = error, .status = EXIT_NO_CONNECTION};

	return !load->options->json || load_report_print(load, &outcome) ? outcome.status : EXIT_WRONG;
}

static bool start(struct load *load, struct load_thread *threads, unsigned *started)
{
	for (unsigned i = 0; i < load->options->threads; i++)
		if (!load_thread_init(&threads[i], load, i))
			return false;
	load->expected = load->options->threads;
	for (*started = 0; *started < load->options->threads; ++*started) {
		struct load_thread *thread = &threads[*started];
		int error = pthread_create(&thread->id, NULL, load_thread_run, thread);
		if (error == 0)
			continue;
		snprintf(thread->error, sizeof thread->error, "cannot start a thread: %s", strerror(error));
		atomic_store(&load->failed, true);
		load_expect(load, *started);
		return false;
	}
	return true;
}

static int run_threads(struct load *load, int signals)
{
	const unsigned count = load->options->threads;
	struct load_thread *threads = calloc(count, sizeof *threads);
	unsigned started = 0;
	bool interrupted = false;

	if (threads == NULL) {
		complain(strerror(ENOMEM));
		return EXIT_NO_CONNECTION;
	}
	if (start(load, threads, &started))
		interrupted = watch(load, threads, signals);
	for (unsigned i = 0; i < started; i++)
		pthread_join(threads[i].id, NULL);
	int status = conclude(load, threads, interrupted);
	for (unsigned i = 0; i < count; i++)
		load_thread_destroy(&threads[i]);
	free(threads);
	return status;
}

/* Runs with signals delivered to a descriptor. */
static int run_with_signals(struct load *load)
{
	sigset_t ends, before;
	struct sigaction now;

	sigemptyset(&ends);
	sigaddset(&ends, SIGTERM);
	/* a shell sets SIGINT to ignored for background commands */
	if (sigaction(SIGINT, NULL, &now) == 0 && now.sa_handler != SIG_IGN)
		sigaddset(&ends, SIGINT);
	pthread_sigmask(SIG_BLOCK, &ends, &before);
	int status = EXIT_NO_CONNECTION, signals = signalfd(-1, &ends, SFD_NONBLOCK | SFD_CLOEXEC);
	load->done = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	if (signals >= 0 && load->done >= 0)
		status = run_threads(load, signals);
	else
		complain(strerror(errno));
	if (load->done >= 0)
		close(load->done);
	if (signals >= 0)
		close(signals);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return status;
}

int load_run(const struct options *asked, const struct target *target)
{
	struct options options = *asked;
	struct load load = {
		.options = &options,
		.target = target,
		.transport = options.udp ? &load_udp : &load_tcp,
		.timeout_ns = (uint64_t)options.timeout_ms * 1000000,
		.lock = PTHREAD_MUTEX_INITIALIZER,
		.all_opened = PTHREAD_COND_INITIALIZER,
	};
	int64_t duration_ms = options.duration_ms;
	char error[TARGET_ERROR_SIZE];

	if (options.type != TYPE_ECHO) {
		complain("a load is for echo alone");
		return EXIT_USAGE;
	}
	if (options.deadline_ms > 0 && options.deadline_ms < duration_ms)
		duration_ms = options.deadline_ms;
	load.duration_ns = (uint64_t)duration_ms * 1000000;
	if (options.threads > options.connections)
		options.threads = options.connections;
	raise_descriptor_limit();
	if (!choose_address(&load, error))
		return conclude_unreached(&load, error);
	if (options.tls && (load.tls = tls_client_context(&options, error)) == NULL) {
		complain(error);
		return EXIT_USAGE;
	}
	if (load.tls != NULL)
		SSL_CTX_set_read_ahead(load.tls, 1); /* read a record with one call instead of two */
	int status = run_with_signals(&load);
	SSL_CTX_free(load.tls);
	return status;
}
