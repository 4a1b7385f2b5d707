/* request.c: services that take one request a connection or a datagram. */
#include "probe/request.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/array.h"
#include "probe/chargen.h"
#include "probe/clock.h"
#include "probe/flow.h"
#include "probe/payload.h"
#include "probe/report.h"
#include "probe/stream.h"

enum { REPLY_MAX = 65536, WHY_SIZE = 512, TIME_LENGTH = 4, CHARGEN_DATAGRAM_MAX = 512 };

/* How a reply ended. */
enum ending {
	ENDING_CLOSED,    /* by the server, or a single datagram */
	ENDING_BROKEN,    /* the connection was reset */
	ENDING_ENOUGH,    /* by the probe, which had enough */
	ENDING_TIMED_OUT, /* no more data within the timeout */
};

struct request {
	struct run *run;
	const struct options *options;
	struct event *round_timer, *reply_timer, *over;

	struct stream *stream;
	struct flow *flow;
	uint64_t sequence, begun_ns, replied_ns;
	struct timespec begun, replied; /* wall-clock time, for the offset of the server's clock */
	uint64_t seed;
	char *reply;
	size_t length, capacity;
	uint64_t surplus; /* bytes beyond the buffer */
	int ttl;

	/* The server's clock: its offset lies between LEAST and MOST seconds, by so many readings. */
	struct clock_reading clock;
	double least, most;
	unsigned readings;
	char text[REPLY_MAX + 1]; /* of the last valid reply */
	size_t text_length;
};

static bool is_rounds_end(const struct request *request)
{
	return request->options->count != 0 && request->sequence >= request->options->count;
}

/* --- checks of a reply: they return false with the reason in WHY --- */

static bool judge_echo(const struct request *request, enum ending ending, char *why)
{
	size_t differs_at = payload_stream_difference(request->seed, 0, request->reply, request->length);

	if (differs_at != PAYLOAD_SAME)
		snprintf(why, WHY_SIZE, "corrupted at byte %zu", differs_at);
	else if (request->length < request->options->size)
		snprintf(why, WHY_SIZE, "only %zu of %u bytes came after the shutdown of the sending side",
			 request->length, request->options->size);
	else if (request->length > request->options->size)
		snprintf(why, WHY_SIZE, "%zu bytes more than were sent", request->length - request->options->size);
	else if (ending == ENDING_TIMED_OUT)
		snprintf(why, WHY_SIZE, "all bytes came, but not the server's end");
	else
		return true;
	return false;
}

static bool judge_discard(const struct request *request, enum ending ending, char *why)
{
	if (request->length > 0)
		snprintf(why, WHY_SIZE, "answered, with %zu bytes", request->length);
	else if (ending == ENDING_TIMED_OUT && !request->options->udp)
		snprintf(why, WHY_SIZE, "does not end after the shutdown of the sending side");
	else
		return true;
	return false;
}

static bool judge_text(const struct request *request, enum ending ending, char *why)
{
	(void)ending;
	if (request->length > 0)
		return true;
	snprintf(why, WHY_SIZE, "closed without an answer");
	return false;
}

static bool judge_time(const struct request *request, enum ending ending, char *why)
{
	(void)ending;
	if (request->length == TIME_LENGTH)
		return true;
	snprintf(why, WHY_SIZE, "%zu bytes instead of %d", request->length, TIME_LENGTH);
	return false;
}

static bool judge_chargen(const struct request *request, enum ending ending, char *why)
{
	size_t differs_at = chargen_difference(request->reply, request->length);

	if (differs_at != CHARGEN_RIGHT)
		snprintf(why, WHY_SIZE, "not the pattern at byte %zu", differs_at);
	else if (request->options->udp && request->length > CHARGEN_DATAGRAM_MAX)
		snprintf(why, WHY_SIZE, "more than %d bytes", CHARGEN_DATAGRAM_MAX);
	else if (!request->options->udp && ending != ENDING_ENOUGH)
		snprintf(why, WHY_SIZE, "only %zu of %u bytes came", request->length, request->options->size);
	else
		return true;
	return false;
}

static const struct rules {
	bool (*judge)(const struct request *request, enum ending ending, char *why);
	bool shuts;     /* shut down the sending side as soon as the request has been sent */
	bool asks;      /* sends a request over TCP, too */
	bool is_text;   /* the reply is text */
	bool has_clock; /* the reply states the time */
} service_rules[TYPE_COUNT] = {
	[TYPE_ECHO] = {.judge = judge_echo, .asks = true, .shuts = true},
	[TYPE_DISCARD] = {.judge = judge_discard, .asks = true, .shuts = true},
	[TYPE_DAYTIME] = {.judge = judge_text, .is_text = true, .has_clock = true},
	[TYPE_QOTD] = {.judge = judge_text, .is_text = true},
	[TYPE_CHARGEN] = {.judge = judge_chargen, .is_text = true},
	[TYPE_TIME] = {.judge = judge_time, .has_clock = true},
};

static const struct rules *rules_of(const struct request *request)
{
	return &service_rules[request->options->type];
}

/* --- the server's clock --- */

/* Narrows the offset by one reading. If readings contradict each other a clock was set, and the last one counts. */
static void narrow(struct request *request, const struct clock_offset *offset)
{
	double least = offset->seconds - offset->uncertainty, most = offset->seconds + offset->uncertainty;

	if (request->readings > 0 && least <= request->most && most >= request->least) {
		least = least > request->least ? least : request->least;
		most = most < request->most ? most : request->most;
	} else {
		request->readings = 0;
	}
	request->least = least;
	request->most = most;
	request->readings++;
}

static void read_clock(struct request *request)
{
	char text[CLOCK_TEXT_SIZE];

	if (request->options->type == TYPE_TIME)
		clock_read_time((const unsigned char *)request->reply, request->replied.tv_sec, &request->clock);
	else if (!clock_read_daytime(request->reply, request->length, request->replied.tv_sec, &request->clock))
		return; /* an unknown format is valid: RFC 867 prescribes none */

	struct clock_offset offset = clock_offset(&request->clock, &request->begun, &request->replied);

	narrow(request, &offset);
	clock_print(&request->clock, text);
	report_line(request->options, REPORT_PLAIN, "clock %s (%s%s), offset %+.6f s, uncertainty %.6f s", text,
		    request->clock.format,
		    request->clock.zone == CLOCK_ZONE_STATED ? ""
		    : request->clock.zone == CLOCK_ZONE_UTC  ? ", taken as UTC"
							     : ", taken as local time",
		    offset.seconds, offset.uncertainty);
}

static void summarize(void *context, struct json *json)
{
	struct request *request = context;
	double offset = (request->least + request->most) / 2, uncertainty = (request->most - request->least) / 2;
	char text[CLOCK_TEXT_SIZE];

	if (json != NULL && rules_of(request)->is_text && request->text_length > 0)
		json_bytes(json, "text", request->text, request->text_length);
	if (request->readings == 0)
		return;
	if (json == NULL) {
		report_summary(request->options, REPORT_PLAIN,
			       "clock offset %+.6f s, uncertainty %.6f s, of %u answers", offset, uncertainty,
			       request->readings);
		return;
	}
	clock_print(&request->clock, text);
	json_begin_object(json, "clock");
	json_string(json, "format", request->clock.format);
	json_string(json, "zone", clock_zone_name(request->clock.zone));
	json_string(json, "time", text);
	json_number(json, "offset_s", offset, 6);
	json_number(json, "uncertainty_s", uncertainty, 6);
	json_uint(json, "answers", request->readings);
	json_end(json);
}

/* --- one round --- */

/* Ends the round. The connection is freed by the loop, not within its own callback. */
static void end_round(struct request *request)
{
	event_del(request->reply_timer);
	event_active(request->over, EV_TIMEOUT, 0);
}

/* Returns whether the round has ended already. */
static bool is_over(const struct request *request)
{
	return event_pending(request->over, EV_TIMEOUT, NULL);
}

static void on_over(evutil_socket_t fd, short what, void *context)
{
	struct request *request = context;
	uint64_t next_ns = request->begun_ns + (uint64_t)request->options->interval_us * 1000;
	struct timeval delay = run_delay((int64_t)(next_ns - run_now()));

	(void)fd;
	(void)what;
	stream_free(request->stream);
	flow_free(request->flow);
	request->stream = NULL;
	request->flow = NULL;
	if (request->run->stopped || is_rounds_end(request) || report_is_lost())
		run_stop(request->run);
	else
		event_add(request->round_timer, &delay);
}

static void lose(struct request *request, const char *what, const char *reason)
{
	series_time_out(request->run->series);
	report_line(request->options, REPORT_BAD, "%s seq=%llu%s%s", what, (unsigned long long)request->sequence,
		    *reason ? ": " : "", reason);
	end_round(request);
}

static void print_reply(struct request *request, enum ending ending, bool right, const char *why)
{
	const struct options *options = request->options;
	double time_ms = (double)(request->replied_ns - request->begun_ns) / 1e6;
	const char *remark = "";
	char ttl[16] = "";

	if (request->ttl >= 0)
		snprintf(ttl, sizeof ttl, " ttl=%d", request->ttl);
	if (right && ending == ENDING_TIMED_OUT && options->type != TYPE_DISCARD)
		remark = " (not closed by the server)";
	if (right && options->type == TYPE_ECHO)
		remark = " after the shutdown of the sending side";
	if (options->type == TYPE_DISCARD && right && options->udp)
		report_line(options, REPORT_PLAIN, "%u bytes to %s: seq=%llu, no reply data", options->size,
			    request->run->peer, (unsigned long long)request->sequence);
	else if (options->type == TYPE_DISCARD && right)
		report_line(options, REPORT_PLAIN, "%u bytes taken by %s: seq=%llu time=%.3f ms", options->size,
			    request->run->peer, (unsigned long long)request->sequence, time_ms);
	else
		report_line(options, right ? REPORT_PLAIN : REPORT_BAD,
			    "%zu bytes from %s: seq=%llu%s time=%.3f ms%s%s%s", request->length, request->run->peer,
			    (unsigned long long)request->sequence, ttl, time_ms, remark, right ? "" : " wrong: ", why);
	if (rules_of(request)->is_text)
		report_text(options, request->reply, request->length);
}

/* Counts, checks and prints the reply, and ends the round. BROKEN_BY is the reason for a broken connection. */
static void judge(struct request *request, enum ending ending, const char *broken_by)
{
	struct run *run = request->run;
	char why[WHY_SIZE] = "";

	if (request->surplus > 0)
		snprintf(why, sizeof why, "%llu bytes too many", (unsigned long long)request->surplus);
	else if (ending == ENDING_BROKEN)
		snprintf(why, sizeof why, "broke off after %zu bytes: %s", request->length, broken_by);
	else
		rules_of(request)->judge(request, ending, why);

	bool right = why[0] == '\0';
	struct series_reply reply = series_receive(run->series, request->sequence, request->replied_ns);

	if (!right)
		run->wrong = true;
	else if (reply.expected && !(request->options->udp && request->options->type == TYPE_DISCARD))
		rtt_add(&run->rtt, reply.rtt_ns);
	print_reply(request, ending, right, why);
	if (right) {
		request->text_length = request->length < REPLY_MAX ? request->length : REPLY_MAX;
		memcpy(request->text, request->reply, request->text_length);
	}
	if (right && rules_of(request)->has_clock)
		read_clock(request);
	end_round(request);
}

static void note_reply_time(struct request *request)
{
	request->replied_ns = run_now();
	clock_gettime(CLOCK_REALTIME, &request->replied);
}

static void on_reply_timeout(evutil_socket_t fd, short what, void *context)
{
	struct request *request = context;

	(void)fd;
	(void)what;
	if (request->length == 0)
		note_reply_time(request);
	if (request->length > 0 || request->options->type == TYPE_DISCARD)
		judge(request, ENDING_TIMED_OUT, "");
	else
		lose(request, "timeout", "");
}

static void wait_for_reply(struct request *request)
{
	struct timeval timeout = run_delay(request->options->timeout_ms * MS_NS);

	event_add(request->reply_timer, &timeout);
}

static void keep(struct request *request, const char *bytes, size_t length)
{
	size_t room = request->capacity - request->length, taken = length < room ? length : room;

	memcpy(request->reply + request->length, bytes, taken);
	request->length += taken;
	request->surplus += length - taken;
	note_reply_time(request);
}

/* --- TCP --- */

static bool send_request(struct request *request)
{
	size_t left = request->options->size;
	uint64_t position = 0;

	while (left > 0) {
		size_t piece = left < PAYLOAD_STREAM_AHEAD ? left : PAYLOAD_STREAM_AHEAD;

		if (!stream_send(request->stream, payload_stream(request->seed, position), piece))
			return false;
		position += piece;
		left -= piece;
	}
	return true;
}

static void on_open(void *context)
{
	struct request *request = context;
	const struct options *options = request->options;

	request->run->reached = true;
	snprintf(request->run->peer, sizeof request->run->peer, "%s", stream_peer(request->stream));
	wait_for_reply(request);
	if ((rules_of(request)->asks || options->early) && !send_request(request)) {
		run_fail(request->run, "%s", strerror(ENOMEM));
		run_stop(request->run);
		return;
	}
	if (rules_of(request)->shuts || options->half_close)
		stream_shut(request->stream);
}

static void on_bytes(void *context, const char *bytes, size_t length)
{
	struct request *request = context;
	bool endless = request->options->type == TYPE_CHARGEN;
	size_t wanted = request->options->size - (endless ? request->length : 0);

	if (is_over(request))
		return;
	keep(request, bytes, endless && length > wanted ? wanted : length);
	if (endless && request->length == request->options->size)
		judge(request, ENDING_ENOUGH, "");
	else if (request->surplus > 0)
		judge(request, ENDING_BROKEN, "");
}

static void on_end(void *context, enum stream_end end, const char *reason)
{
	struct request *request = context;

	if (is_over(request))
		return;
	if (end == STREAM_UNREACHED && !request->run->reached) {
		run_note_unreached(request->run, "%s", reason);
		series_time_out(request->run->series);
		run_stop(request->run);
		return;
	}
	request->run->reached = true;
	if (end == STREAM_UNREACHED) {
		lose(request, "lost", reason);
		return;
	}
	if (request->length == 0 || end == STREAM_BROKEN)
		note_reply_time(request);
	if (request->run->peer[0] == '\0')
		snprintf(request->run->peer, sizeof request->run->peer, "%s", stream_peer(request->stream));
	judge(request, end == STREAM_CLOSED ? ENDING_CLOSED : ENDING_BROKEN, reason);
}

/* --- UDP --- */

static void on_datagram(void *context, const struct flow_datagram *datagram)
{
	struct request *request = context;
	char source[TARGET_TEXT_SIZE];

	if (is_over(request))
		return;
	request->run->reached = true;
	if (!datagram->from_target) {
		target_print(datagram->source, source);
		series_wrong_source(request->run->series);
		report_line(request->options, REPORT_BAD, "%zu bytes from %s: wrong source", datagram->length, source);
		return;
	}
	request->ttl = datagram->ttl;
	keep(request, datagram->bytes, datagram->length);
	judge(request, ENDING_CLOSED, "");
}

static void on_refusal(void *context, const struct flow_refusal *refusal)
{
	struct request *request = context;

	if (is_over(request))
		return;
	run_note_unreached(request->run, "send to %s: %s", request->run->peer, strerror(refusal->error));
	lose(request, "refused", strerror(refusal->error));
}

static void send_datagram(struct request *request)
{
	int error = flow_send(request->flow, payload_stream(request->seed, 0), request->options->size);

	if (error == 0) {
		wait_for_reply(request);
		return;
	}
	run_note_unreached(request->run, "send to %s: %s", request->run->peer, strerror(error));
	lose(request, "not sent", strerror(error));
}

/* --- rounds --- */

static bool open_stream(struct request *request)
{
	static const struct stream_calls calls = {.on_open = on_open, .on_bytes = on_bytes, .on_end = on_end};
	struct run *run = request->run;

	request->stream = stream_open(run->base, run->options, run->target, run->tls, &calls, request);
	return request->stream != NULL;
}

static bool open_flow(struct request *request)
{
	static const struct flow_calls calls = {.on_datagram = on_datagram, .on_refusal = on_refusal};
	struct run *run = request->run;
	char error[TARGET_ERROR_SIZE];

	request->flow = flow_open(run->base, run->options, &run->target->addresses[0], &calls, request, error);
	if (request->flow == NULL) {
		run_fail(run, "%s", error);
		return false;
	}
	snprintf(run->peer, sizeof run->peer, "%s", flow_peer(request->flow));
	return true;
}

static void on_round(evutil_socket_t fd, short what, void *context)
{
	struct request *request = context;
	bool udp = request->options->udp;

	(void)fd;
	(void)what;
	request->length = 0;
	request->surplus = 0;
	request->ttl = -1;
	request->seed = payload_new_seed();
	if (udp && !open_flow(request)) {
		run_stop(request->run);
		return;
	}
	request->begun_ns = run_now();
	clock_gettime(CLOCK_REALTIME, &request->begun);
	request->sequence = series_send(request->run->series, request->begun_ns);
	if (udp) {
		send_datagram(request);
	} else if (!open_stream(request)) {
		run_fail(request->run, "%s", strerror(ENOMEM));
		run_stop(request->run);
	}
}

static bool prepare(struct request *request)
{
	struct event_base *base = request->run->base;
	struct timeval at_once = {0};
	size_t size = request->options->size;

	request->capacity = size > REPLY_MAX ? size : REPLY_MAX;
	request->reply = malloc(request->capacity);
	request->round_timer = evtimer_new(base, on_round, request);
	request->reply_timer = evtimer_new(base, on_reply_timeout, request);
	request->over = evtimer_new(base, on_over, request);
	return request->reply != NULL && request->round_timer != NULL && request->reply_timer != NULL &&
	       request->over != NULL && event_add(request->round_timer, &at_once) == 0;
}

static void request_free(struct request *request)
{
	struct event *timers[] = {request->round_timer, request->reply_timer, request->over};

	for (size_t i = 0; i < COUNT_OF(timers); i++)
		if (timers[i] != NULL)
			event_free(timers[i]);
	stream_free(request->stream);
	flow_free(request->flow);
	free(request->reply);
	free(request);
}

int request_run(struct run *run)
{
	struct request *request = calloc(1, sizeof *request);

	if (request == NULL) {
		run_fail(run, "%s", strerror(ENOMEM));
		return run_finish(run);
	}
	request->run = run;
	request->options = run->options;
	run->summarize = summarize;
	run->context = request;
	if (prepare(request))
		run_loop(run);
	else
		run_fail(run, "%s", strerror(ENOMEM));
	int status = run_finish(run);

	request_free(request);
	return status;
}
