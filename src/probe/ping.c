/* ping.c: echo as ping(8) does it: a request each interval, a line each reply. */
#include "probe/ping.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/array.h"
#include "probe/flow.h"
#include "probe/payload.h"
#include "probe/report.h"
#include "probe/stream.h"

enum {
	SENDS_A_WAKE_UP = 64,
	UNSENT_MAX = 256 * 1024 * 1024, /* unsent bytes for a server that does not read */
	LINGER_LEAST_MS = 20,
	RETRY_MS = 100,
	NOTES_SIZE = 256,
};

struct ping {
	struct run *run;
	const struct options *options;
	struct event *send_timer, *timeout_timer, *end_timer, *retry_timer;
	uint64_t due_ns; /* when the next request is due */
	uint64_t slowest_ns;
	bool begun;

	struct flow *flow; /* over UDP */
	struct payload payload;
	char *datagram;

	struct stream *stream; /* over TCP; NULL: no connection */
	uint64_t seed;
	uint64_t before;               /* requests sent over earlier connections */
	uint64_t sent_bytes, received; /* bytes of this connection */
	size_t differs_at;             /* in the incomplete reply, or PAYLOAD_SAME */

	uint64_t outages, outage_ns; /* ended outages */
	uint64_t lost_ns;            /* when the connection was lost; 0: it is up */
};

static void arm(struct event *timer, uint64_t at_ns)
{
	struct timeval delay = run_delay((int64_t)(at_ns - run_now()));

	event_add(timer, &delay);
}

static bool all_sent(const struct ping *ping)
{
	return ping->options->count != 0 && series_newest(ping->run->series) >= ping->options->count;
}

/* Ends the run after the last reply: late duplicates get twice the longest round trip. */
static void check_end(struct ping *ping)
{
	uint64_t sequence, sent_ns, linger_ns = 2 * ping->slowest_ns;

	if (!all_sent(ping) || series_waiting(ping->run->series, &sequence, &sent_ns))
		return;
	if (ping->flow == NULL) {
		run_stop(ping->run);
		return;
	}
	if (evtimer_pending(ping->end_timer, NULL))
		return;
	if (linger_ns < LINGER_LEAST_MS * MS_NS)
		linger_ns = LINGER_LEAST_MS * MS_NS;
	if (linger_ns > (uint64_t)(ping->options->timeout_ms * MS_NS))
		linger_ns = (uint64_t)(ping->options->timeout_ms * MS_NS);
	arm(ping->end_timer, run_now() + linger_ns);
}

/* --- timeouts --- */

static void arm_timeout(struct ping *ping)
{
	uint64_t sequence, sent_ns;

	if (series_waiting(ping->run->series, &sequence, &sent_ns))
		arm(ping->timeout_timer, sent_ns + (uint64_t)(ping->options->timeout_ms * MS_NS));
	else
		event_del(ping->timeout_timer);
}

static void on_timeout(evutil_socket_t fd, short what, void *context)
{
	struct ping *ping = context;
	uint64_t sequence, sent_ns, now = run_now();

	(void)fd;
	(void)what;
	while (series_waiting(ping->run->series, &sequence, &sent_ns) &&
	       now - sent_ns >= (uint64_t)(ping->options->timeout_ms * MS_NS)) {
		series_time_out(ping->run->series);
		report_line(ping->options, REPORT_BAD, "timeout seq=%llu", (unsigned long long)sequence);
	}
	arm_timeout(ping);
	check_end(ping);
}

/* Remarks on a reply besides its time. */
struct notes {
	char text[NOTES_SIZE];
	bool bad;
};

static void note(struct notes *notes, bool is, const char *format, ...) __attribute__((format(printf, 3, 4)));

static void note(struct notes *notes, bool is, const char *format, ...)
{
	size_t used = strlen(notes->text);
	va_list values;

	if (!is || used + 2 >= sizeof notes->text)
		return;
	notes->bad = true;
	notes->text[used++] = ' ';
	va_start(values, format);
	vsnprintf(notes->text + used, sizeof notes->text - used, format, values);
	va_end(values);
}

/* Counts a reply to SEQUENCE and prints its line. */
static void take_reply(struct ping *ping, uint64_t sequence, size_t length, const struct flow_datagram *datagram,
		       size_t differs_at)
{
	struct run *run = ping->run;
	struct series_reply reply = series_receive(run->series, sequence, run_now());
	bool corrupted = reply.expected && differs_at != PAYLOAD_SAME;
	bool elsewhere = datagram != NULL && !datagram->from_target;
	char source[TARGET_TEXT_SIZE], ttl[16] = "", number[32] = "", time[48] = "";
	struct notes notes = {0};

	if (corrupted)
		series_corrupted(run->series);
	if (elsewhere)
		series_wrong_source(run->series);
	if (reply.expected && !reply.duplicated)
		rtt_add(&run->rtt, reply.rtt_ns);
	if (reply.expected && reply.rtt_ns > ping->slowest_ns)
		ping->slowest_ns = reply.rtt_ns;

	snprintf(source, sizeof source, "%s", run->peer);
	if (datagram != NULL)
		target_print(datagram->source, source);
	if (datagram != NULL && datagram->ttl >= 0)
		snprintf(ttl, sizeof ttl, " ttl=%d", datagram->ttl);
	if (reply.expected) {
		snprintf(number, sizeof number, " seq=%llu", (unsigned long long)sequence);
		snprintf(time, sizeof time, " time=%.3f ms", (double)reply.rtt_ns / 1e6);
	}
	note(&notes, !reply.expected, "unexpected");
	note(&notes, reply.duplicated, "duplicate");
	note(&notes, reply.late, "late");
	note(&notes, reply.reordered, "reordered");
	note(&notes, corrupted, "corrupted at byte %zu", differs_at);
	note(&notes, elsewhere, "wrong source");
	report_line(ping->options, notes.bad ? REPORT_BAD : REPORT_PLAIN, "%zu bytes from %s:%s%s%s%s", length, source,
		    number, ttl, time, notes.text);
}

/* --- UDP --- */

static void on_datagram(void *context, const struct flow_datagram *datagram)
{
	struct ping *ping = context;
	struct payload_match match =
		payload_match(&ping->payload, ping->run->series, datagram->bytes, datagram->length);

	ping->run->reached = true;
	take_reply(ping, match.sequence, datagram->length, datagram, match.differs_at);
	arm_timeout(ping);
	check_end(ping);
}

/* Counts request LOST as lost at once, if it is the oldest; else at its timeout. */
static void give_up(struct ping *ping, uint64_t lost)
{
	uint64_t sequence, sent_ns;

	if (series_waiting(ping->run->series, &sequence, &sent_ns) && sequence == lost)
		series_time_out(ping->run->series);
	arm_timeout(ping);
	check_end(ping);
}

static void on_refusal(void *context, const struct flow_refusal *refusal)
{
	struct ping *ping = context;
	uint64_t oldest = 0, sent_ns;
	struct payload_match match = payload_match(&ping->payload, ping->run->series, refusal->bytes, refusal->length);

	if (match.sequence == 0 && series_waiting(ping->run->series, &oldest, &sent_ns))
		match.sequence = oldest; /* the ICMP message was too short to identify the request */
	run_note_unreached(ping->run, "send to %s: %s", ping->run->peer, strerror(refusal->error));
	report_line(ping->options, REPORT_BAD, "refused seq=%llu by %s: %s", (unsigned long long)match.sequence,
		    refusal->by, strerror(refusal->error));
	give_up(ping, match.sequence);
}

static void send_datagram(struct ping *ping)
{
	uint64_t now = run_now(), sequence = series_send(ping->run->series, now);

	payload_fill(&ping->payload, ping->datagram, sequence, now);
	int error = flow_send(ping->flow, ping->datagram, ping->payload.size);

	if (error == 0)
		return;
	run_note_unreached(ping->run, "send to %s: %s", ping->run->peer, strerror(error));
	report_line(ping->options, REPORT_BAD, "not sent seq=%llu: %s", (unsigned long long)sequence, strerror(error));
	give_up(ping, sequence);
}

/* --- TCP --- */

static void send_bytes(struct ping *ping)
{
	size_t left = ping->options->size;

	if (stream_unsent(ping->stream) > UNSENT_MAX) {
		run_fail(ping->run, "%s does not read: %zu bytes wait to be sent", ping->run->peer,
			 stream_unsent(ping->stream));
		run_stop(ping->run);
		return;
	}
	series_send(ping->run->series, run_now());
	while (left > 0) {
		size_t piece = left < PAYLOAD_STREAM_AHEAD ? left : PAYLOAD_STREAM_AHEAD;

		if (!stream_send(ping->stream, payload_stream(ping->seed, ping->sent_bytes), piece)) {
			run_fail(ping->run, "%s", strerror(ENOMEM));
			run_stop(ping->run);
			return;
		}
		ping->sent_bytes += piece;
		left -= piece;
	}
}

static void send_request(struct ping *ping)
{
	if (ping->flow != NULL)
		send_datagram(ping);
	else
		send_bytes(ping);
}

static void on_send_due(evutil_socket_t fd, short what, void *context)
{
	struct ping *ping = context;
	uint64_t interval_ns = (uint64_t)ping->options->interval_us * 1000, now = run_now();

	(void)fd;
	(void)what;
	if (report_is_lost()) {
		run_stop(ping->run);
		return;
	}
	for (int i = 0; i < SENDS_A_WAKE_UP && ping->due_ns <= now && !all_sent(ping); i++) {
		send_request(ping);
		ping->due_ns += interval_ns;
	}
	/* after a stop of this process missed requests are skipped */
	if (now > ping->due_ns + SENDS_A_WAKE_UP * interval_ns)
		ping->due_ns = now;
	if (!all_sent(ping))
		arm(ping->send_timer, ping->due_ns);
	arm_timeout(ping);
	check_end(ping);
}

static void begin(struct ping *ping)
{
	ping->begun = true;
	ping->due_ns = run_now();
	report_line(ping->options, REPORT_PLAIN, "echo %s (%s): %u bytes over %s", ping->run->target->host,
		    ping->run->peer, ping->options->size,
		    ping->flow != NULL   ? "UDP"
		    : ping->options->tls ? "TLS"
					 : "TCP");
	on_send_due(-1, 0, ping);
}

static void on_open(void *context)
{
	struct ping *ping = context;

	ping->run->reached = true;
	snprintf(ping->run->peer, sizeof ping->run->peer, "%s", stream_peer(ping->stream));
	if (!ping->begun) {
		begin(ping);
		return;
	}
	uint64_t outage_ns = run_now() - ping->lost_ns;

	ping->lost_ns = 0;
	ping->outages++;
	ping->outage_ns += outage_ns;
	report_line(ping->options, REPORT_GOOD, "connected again to %s after an outage of %.3f s", ping->run->peer,
		    (double)outage_ns / 1e9);
	ping->due_ns = run_now();
	on_send_due(-1, 0, ping);
}

/* Checks the bytes that belong to the incomplete reply. Returns their number. */
static size_t take_part(struct ping *ping, const char *bytes, size_t length)
{
	size_t size = ping->options->size, at = ping->received % size;
	size_t part = length < size - at ? length : size - at;
	size_t differs_at = payload_stream_difference(ping->seed, ping->received, bytes, part);

	if (ping->differs_at == PAYLOAD_SAME && differs_at != PAYLOAD_SAME)
		ping->differs_at = at + differs_at;
	ping->received += part;
	if (at + part == size) {
		take_reply(ping, ping->before + ping->received / size, size, NULL, ping->differs_at);
		ping->differs_at = PAYLOAD_SAME;
	}
	return part;
}

static void on_bytes(void *context, const char *bytes, size_t length)
{
	struct ping *ping = context;
	uint64_t ours = ping->sent_bytes - ping->received;

	if (length > ours) {
		run_fail(ping->run, "%s: %llu bytes more than were sent", ping->run->peer,
			 (unsigned long long)(length - ours));
		length = (size_t)ours;
		run_stop(ping->run);
	}
	while (length > 0) {
		size_t part = take_part(ping, bytes, length);

		bytes += part;
		length -= part;
	}
	arm_timeout(ping);
	check_end(ping);
}

/* Counts the requests in flight as lost, after the connection has ended. */
static void lose_all(struct ping *ping)
{
	uint64_t sequence, sent_ns;

	while (series_waiting(ping->run->series, &sequence, &sent_ns)) {
		series_time_out(ping->run->series);
		report_line(ping->options, REPORT_BAD, "lost seq=%llu", (unsigned long long)sequence);
	}
	event_del(ping->timeout_timer);
	event_del(ping->send_timer);
}

static void on_end(void *context, enum stream_end end, const char *reason)
{
	struct ping *ping = context;
	struct timeval retry = run_delay(RETRY_MS * MS_NS);

	if (!ping->begun) {
		ping->run->reached = end != STREAM_UNREACHED;
		run_fail(ping->run, "%s", reason);
		run_stop(ping->run);
		return;
	}
	if (!ping->options->reconnect) {
		run_fail(ping->run, "%s", reason);
		lose_all(ping);
		run_stop(ping->run);
		return;
	}
	if (ping->lost_ns == 0) {
		ping->lost_ns = run_now();
		report_line(ping->options, REPORT_BAD, "connection lost: %s", reason);
		lose_all(ping);
	}
	if (all_sent(ping))
		run_stop(ping->run);
	else
		event_add(ping->retry_timer, &retry);
}

static bool open_stream(struct ping *ping)
{
	static const struct stream_calls calls = {.on_open = on_open, .on_bytes = on_bytes, .on_end = on_end};
	struct run *run = ping->run;

	stream_free(ping->stream);
	ping->seed = payload_new_seed();
	ping->before = series_newest(run->series);
	ping->sent_bytes = ping->received = 0;
	ping->differs_at = PAYLOAD_SAME;
	ping->stream = stream_open(run->base, run->options, run->target, run->tls, &calls, ping);
	return ping->stream != NULL;
}

static void on_retry(evutil_socket_t fd, short what, void *context)
{
	struct ping *ping = context;

	(void)fd;
	(void)what;
	if (open_stream(ping))
		return;
	run_fail(ping->run, "%s", strerror(ENOMEM));
	run_stop(ping->run);
}

/* Opens a flow to the first address, which getaddrinfo prefers by reachability. */
static bool open_flow(struct ping *ping)
{
	static const struct flow_calls calls = {.on_datagram = on_datagram, .on_refusal = on_refusal};
	struct run *run = ping->run;
	char error[TARGET_ERROR_SIZE];

	ping->payload = (struct payload){.seed = payload_new_seed(), .size = ping->options->size};
	ping->datagram = malloc(ping->payload.size + 1);
	if (ping->datagram == NULL)
		return false;
	ping->flow = flow_open(run->base, run->options, &run->target->addresses[0], &calls, ping, error);
	if (ping->flow == NULL) {
		run_fail(run, "%s", error);
		run_stop(run);
		return true;
	}
	snprintf(run->peer, sizeof run->peer, "%s", flow_peer(ping->flow));
	begin(ping);
	return true;
}

static void on_linger_end(evutil_socket_t fd, short what, void *context)
{
	struct ping *ping = context;

	(void)fd;
	(void)what;
	run_stop(ping->run);
}

/* Adds outages to the summary; one that is not over counts until now. */
static void summarize(void *context, struct json *json)
{
	struct ping *ping = context;
	uint64_t outages = ping->outages + (ping->lost_ns != 0);
	uint64_t outage_ns = ping->outage_ns + (ping->lost_ns ? run_now() - ping->lost_ns : 0);

	if (json != NULL) {
		json_uint(json, "outages", outages);
		json_number(json, "outage_ms", (double)outage_ns / 1e6, 3);
	} else {
		report_summary(ping->options, outages ? REPORT_BAD : REPORT_PLAIN, "%llu outages, %.3f s in all",
			       (unsigned long long)outages, (double)outage_ns / 1e9);
	}
}

static bool prepare(struct ping *ping)
{
	struct event_base *base = ping->run->base;

	ping->send_timer = evtimer_new(base, on_send_due, ping);
	ping->timeout_timer = evtimer_new(base, on_timeout, ping);
	ping->end_timer = evtimer_new(base, on_linger_end, ping);
	ping->retry_timer = evtimer_new(base, on_retry, ping);
	return ping->send_timer != NULL && ping->timeout_timer != NULL && ping->end_timer != NULL &&
	       ping->retry_timer != NULL;
}

static void drop(struct ping *ping)
{
	struct event *timers[] = {ping->send_timer, ping->timeout_timer, ping->end_timer, ping->retry_timer};

	for (size_t i = 0; i < COUNT_OF(timers); i++)
		if (timers[i] != NULL)
			event_free(timers[i]);
	stream_free(ping->stream);
	flow_free(ping->flow);
	free(ping->datagram);
}

int ping_run(struct run *run)
{
	struct ping ping = {.run = run, .options = run->options};

	if (run->options->reconnect) {
		run->summarize = summarize;
		run->context = &ping;
	}
	if (!prepare(&ping) || !(run->options->udp ? open_flow(&ping) : open_stream(&ping)))
		run_fail(run, "%s", strerror(ENOMEM));
	else
		run_loop(run);
	int status = run_finish(run);

	drop(&ping);
	return status;
}
