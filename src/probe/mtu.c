/* mtu.c: the largest datagram that passes to an echo server and back unfragmented. */
#include "probe/mtu.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "probe/flow.h"
#include "probe/payload.h"
#include "probe/report.h"

enum {
	TRIES = 3,
	HEADERS_V4 = 28, /* IP and UDP */
	HEADERS_V6 = 48,
	MAX_V4 = 65507,
	MAX_V6 = 65527,
	WAIT_LEAST_MS = 500,
};

struct mtu {
	struct run *run;
	const struct options *options;
	struct flow *flow;
	struct event *timer;
	unsigned headers;
	size_t passes, fails; /* the largest size known to pass (0: none), the smallest known to fail */
	size_t told;          /* size reported by the path; 0: none, or tried already */
	size_t size;          /* of the datagram being tried */
	unsigned tries;
	struct payload payload;
	uint64_t sequence, sent_ns, wait_ns;
	char datagram[FLOW_DATAGRAM_MAX];
};

static unsigned packet_size(const struct mtu *mtu, size_t size)
{
	return (unsigned)size + mtu->headers;
}

static void try_next(struct mtu *mtu);

static void fail_size(struct mtu *mtu)
{
	mtu->fails = mtu->size;
	try_next(mtu);
}

/* Handles a rejection by the local kernel or a router. TOLD: the MTU that it states; 0: none. */
static void on_too_large(struct mtu *mtu, const char *by, unsigned told)
{
	char fits[48] = "";

	event_del(mtu->timer);
	if (told > mtu->headers) {
		snprintf(fits, sizeof fits, ", %u would pass", told);
		if (told - mtu->headers > mtu->passes && told - mtu->headers < mtu->size)
			mtu->told = told - mtu->headers;
	}
	report_line(mtu->options, REPORT_PLAIN, "%u bytes: too large, says %s%s", packet_size(mtu, mtu->size), by,
		    fits);
	fail_size(mtu);
}

/* Sends one try. The last one has the whole timeout, so that a busy server does not look like a narrow path. */
static void send_try(struct mtu *mtu)
{
	uint64_t most_ns = (uint64_t)(mtu->options->timeout_ms * MS_NS);
	struct timeval timeout = run_delay((int64_t)(++mtu->tries < TRIES ? mtu->wait_ns : most_ns));

	mtu->sent_ns = run_now();
	int error = flow_send(mtu->flow, mtu->datagram, mtu->size);

	if (error == 0) {
		event_add(mtu->timer, &timeout);
		return;
	}
	if (error == EMSGSIZE) {
		on_too_large(mtu, "this host", 0);
		return;
	}
	run_note_unreached(mtu->run, "send to %s: %s", mtu->run->peer, strerror(error));
	if (mtu->run->reached)
		run_fail(mtu->run, "%s", mtu->run->failure);
	run_stop(mtu->run);
}

/* Starts the tries of a size. They are identical datagrams, so that a late reply to an earlier one counts. */
static void begin_size(struct mtu *mtu, size_t size)
{
	mtu->size = size;
	mtu->tries = 0;
	mtu->payload = (struct payload){.seed = payload_new_seed(), .size = size};
	payload_fill(&mtu->payload, mtu->datagram, ++mtu->sequence, 0);
	send_try(mtu);
}

/* Tries the size reported by the path, else the middle of the interval. */
static void try_next(struct mtu *mtu)
{
	if (mtu->passes + 1 >= mtu->fails) {
		run_stop(mtu->run);
		return;
	}
	size_t told = mtu->told;

	mtu->told = 0;
	begin_size(mtu, told ? told : mtu->passes + (mtu->fails - mtu->passes) / 2);
}

static void on_timeout(evutil_socket_t fd, short what, void *context)
{
	struct mtu *mtu = context;

	(void)fd;
	(void)what;
	if (mtu->tries < TRIES) {
		send_try(mtu);
		return;
	}
	report_line(mtu->options, REPORT_PLAIN, "%u bytes: no answer to %d tries", packet_size(mtu, mtu->size), TRIES);
	if (mtu->run->reached) {
		fail_size(mtu);
		return;
	}
	series_send(mtu->run->series, mtu->sent_ns);
	series_time_out(mtu->run->series);
	run_stop(mtu->run);
}

/* Sets the timeout of a try to eight times the first round trip. */
static void set_timeout(struct mtu *mtu, uint64_t rtt_ns)
{
	uint64_t least = WAIT_LEAST_MS * MS_NS, most = (uint64_t)(mtu->options->timeout_ms * MS_NS);

	mtu->wait_ns = 8 * rtt_ns > least ? 8 * rtt_ns : least;
	if (mtu->wait_ns > most)
		mtu->wait_ns = most;
}

static void on_datagram(void *context, const struct flow_datagram *datagram)
{
	struct mtu *mtu = context;
	size_t differs_at = payload_difference(&mtu->payload, datagram->bytes, datagram->length, mtu->sequence, 0);

	if (!datagram->from_target || (datagram->length != mtu->size && mtu->run->reached))
		return; /* a reply to an earlier size */
	event_del(mtu->timer);
	/* a size that does not pass is no loss: only passing ones are counted */
	struct series_reply reply =
		series_receive(mtu->run->series, series_send(mtu->run->series, mtu->sent_ns), run_now());

	rtt_add(&mtu->run->rtt, reply.rtt_ns);
	if (!mtu->run->reached)
		set_timeout(mtu, reply.rtt_ns);
	mtu->run->reached = true;
	if (differs_at != PAYLOAD_SAME) {
		series_corrupted(mtu->run->series);
		report_line(mtu->options, REPORT_BAD, "%u bytes: corrupted at byte %zu", packet_size(mtu, mtu->size),
			    differs_at);
		run_stop(mtu->run);
	} else if (datagram->fragment_size > 0) {
		report_line(mtu->options, REPORT_PLAIN, "%u bytes: came back in fragments of up to %u",
			    packet_size(mtu, mtu->size), datagram->fragment_size);
		fail_size(mtu);
	} else {
		report_line(mtu->options, REPORT_PLAIN, "%u bytes: passed", packet_size(mtu, mtu->size));
		mtu->passes = mtu->size;
		try_next(mtu);
	}
}

static void on_refusal(void *context, const struct flow_refusal *refusal)
{
	struct mtu *mtu = context;

	if (refusal->error == EMSGSIZE) {
		/* flow_send reports a rejection of the local kernel, too; that of a router can be late and concern a
		 * larger size */
		if (strcmp(refusal->by, "this host") == 0 || !evtimer_pending(mtu->timer, NULL) ||
		    refusal->mtu >= packet_size(mtu, mtu->size))
			return;
		on_too_large(mtu, refusal->by, refusal->mtu);
		return;
	}
	event_del(mtu->timer);
	run_note_unreached(mtu->run, "send to %s: %s", mtu->run->peer, strerror(refusal->error));
	if (mtu->run->reached)
		run_fail(mtu->run, "%s, says %s", mtu->run->failure, refusal->by);
	run_stop(mtu->run);
}

static void summarize(void *context, struct json *json)
{
	struct mtu *mtu = context;

	if (mtu->passes == 0)
		return;
	if (json == NULL) {
		report_summary(mtu->options, REPORT_PLAIN, "largest datagram that passes: %zu bytes, MTU %u",
			       mtu->passes, packet_size(mtu, mtu->passes));
		return;
	}
	json_begin_object(json, "mtu");
	json_uint(json, "datagram_bytes", mtu->passes);
	json_uint(json, "packet_bytes", packet_size(mtu, mtu->passes));
	json_end(json);
}

/* Sends a small datagram first, to see that the service answers. */
static void begin(struct mtu *mtu)
{
	bool v6 = mtu->run->target->addresses[0].address.ss_family == AF_INET6;

	mtu->headers = v6 ? HEADERS_V6 : HEADERS_V4;
	mtu->fails = (v6 ? MAX_V6 : MAX_V4) + 1;
	mtu->wait_ns = (uint64_t)(mtu->options->timeout_ms * MS_NS);
	report_line(mtu->options, REPORT_PLAIN, "MTU to %s (%s) and back", mtu->run->target->host, mtu->run->peer);
	begin_size(mtu, PAYLOAD_HEADER);
}

int mtu_run(struct run *run)
{
	static const struct flow_calls calls = {.on_datagram = on_datagram, .on_refusal = on_refusal};
	char error[TARGET_ERROR_SIZE];
	struct mtu *mtu = calloc(1, sizeof *mtu);

	if (mtu == NULL) {
		run_fail(run, "%s", strerror(ENOMEM));
		return run_finish(run);
	}
	mtu->run = run;
	mtu->options = run->options;
	run->summarize = summarize;
	run->context = mtu;
	mtu->timer = evtimer_new(run->base, on_timeout, mtu);
	mtu->flow = flow_open(run->base, run->options, &run->target->addresses[0], &calls, mtu, error);
	if (mtu->flow == NULL || mtu->timer == NULL) {
		run_fail(run, "%s", mtu->timer != NULL ? error : strerror(ENOMEM));
	} else if (!flow_forbid_fragments(mtu->flow)) {
		run_fail(run, "cannot forbid fragments: %s", strerror(errno));
	} else {
		snprintf(run->peer, sizeof run->peer, "%s", flow_peer(mtu->flow));
		begin(mtu);
		run_loop(run);
	}
	int status = run_finish(run);

	flow_free(mtu->flow);
	if (mtu->timer != NULL)
		event_free(mtu->timer);
	free(mtu);
	return status;
}
