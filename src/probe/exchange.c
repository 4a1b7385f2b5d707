/* exchange.c: services that are asked once a connection, or once a datagram. */
#include "probe/exchange.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "probe/chargen.h"
#include "probe/clock.h"
#include "probe/flow.h"
#include "probe/payload.h"
#include "probe/report.h"
#include "probe/stream.h"

#define MS_NS INT64_C(1000000)

enum { REPLY_MAX = 65536, WHY_SIZE = 512, TIME_LENGTH = 4, CHARGEN_DATAGRAM_MAX = 512 };

/* How an answer came to its end. */
enum ending {
	ENDING_CLOSED,    /* by the server, or it was one datagram */
	ENDING_BROKEN,    /* the connection was reset */
	ENDING_ENOUGH,    /* by us, who had what we wanted */
	ENDING_TIMED_OUT, /* nothing more came */
};

struct exchange {
	struct run *run;
	const struct options *options;
	struct event *round_timer, *reply_timer, *over;

	struct stream *stream;
	struct flow *flow;
	uint64_t sequence, begun_ns, replied_ns;
	struct timespec begun, replied; /* by the clock that the server's is compared with */
	uint64_t seed;
	char *reply;
	size_t length, capacity;
	uint64_t surplus; /* bytes that had no room */
	int ttl;

	/* What is known of the server's clock: its offset from ours is from LEAST to MOST seconds, by so many answers. */
	struct clock_reading clock;
	double least, most;
	unsigned readings;
	char text[REPLY_MAX + 1]; /* of the last right answer */
	size_t text_length;
};

static bool is_rounds_end(const struct exchange *exchange)
{
	return exchange->options->count != 0 && exchange->sequence >= exchange->options->count;
}

/* Judging: false, and WHY */

static bool judge_echo(const struct exchange *exchange, enum ending ending, char *why)
{
	size_t differs_at = payload_stream_difference(exchange->seed, 0, exchange->reply, exchange->length);

	if (differs_at != PAYLOAD_SAME)
		snprintf(why, WHY_SIZE, "corrupted at byte %zu", differs_at);
	else if (exchange->length < exchange->options->size)
		snprintf(why, WHY_SIZE, "only %zu of %u bytes came after we ended our side", exchange->length,
			 exchange->options->size);
	else if (exchange->length > exchange->options->size)
		snprintf(why, WHY_SIZE, "%zu bytes more than were sent", exchange->length - exchange->options->size);
	else if (ending == ENDING_TIMED_OUT)
		snprintf(why, WHY_SIZE, "all bytes came, but not the server's end");
	else
		return true;
	return false;
}

static bool judge_discard(const struct exchange *exchange, enum ending ending, char *why)
{
	if (exchange->length > 0)
		snprintf(why, WHY_SIZE, "answered, with %zu bytes", exchange->length);
	else if (ending == ENDING_TIMED_OUT && !exchange->options->udp)
		snprintf(why, WHY_SIZE, "does not end after we ended our side");
	else
		return true;
	return false;
}

static bool judge_text(const struct exchange *exchange, enum ending ending, char *why)
{
	(void)ending;
	if (exchange->length > 0)
		return true;
	snprintf(why, WHY_SIZE, "closed without an answer");
	return false;
}

static bool judge_time(const struct exchange *exchange, enum ending ending, char *why)
{
	(void)ending;
	if (exchange->length == TIME_LENGTH)
		return true;
	snprintf(why, WHY_SIZE, "%zu bytes instead of %d", exchange->length, TIME_LENGTH);
	return false;
}

static bool judge_chargen(const struct exchange *exchange, enum ending ending, char *why)
{
	size_t differs_at = chargen_difference(exchange->reply, exchange->length);

	if (differs_at != CHARGEN_RIGHT)
		snprintf(why, WHY_SIZE, "not the pattern at byte %zu", differs_at);
	else if (exchange->options->udp && exchange->length > CHARGEN_DATAGRAM_MAX)
		snprintf(why, WHY_SIZE, "more than %d bytes", CHARGEN_DATAGRAM_MAX);
	else if (!exchange->options->udp && ending != ENDING_ENOUGH)
		snprintf(why, WHY_SIZE, "only %zu of %u bytes came", exchange->length, exchange->options->size);
	else
		return true;
	return false;
}

static const struct manner {
	bool (*judge)(const struct exchange *exchange, enum ending ending, char *why);
	bool shuts;     /* we end our side as soon as the request has left */
	bool asks;      /* there is a request over TCP, too */
	bool is_text;   /* the answer is for people */
	bool has_clock; /* it tells the server's clock */
} manners[TYPE_COUNT] = {
	[TYPE_ECHO] = {.judge = judge_echo, .asks = true, .shuts = true},
	[TYPE_DISCARD] = {.judge = judge_discard, .asks = true, .shuts = true},
	[TYPE_DAYTIME] = {.judge = judge_text, .is_text = true, .has_clock = true},
	[TYPE_QOTD] = {.judge = judge_text, .is_text = true},
	[TYPE_CHARGEN] = {.judge = judge_chargen, .is_text = true},
	[TYPE_TIME] = {.judge = judge_time, .has_clock = true},
};

static const struct manner *manner_of(const struct exchange *exchange)
{
	return &manners[exchange->options->type];
}

/* The server's clock */

/* Each answer bounds the offset; together they bound it closer. Where they contradict each other a clock was set, and the
 * last one counts. */
static void narrow(struct exchange *exchange, const struct clock_offset *offset)
{
	double least = offset->seconds - offset->uncertainty, most = offset->seconds + offset->uncertainty;

	if (exchange->readings > 0 && least <= exchange->most && most >= exchange->least) {
		least = least > exchange->least ? least : exchange->least;
		most = most < exchange->most ? most : exchange->most;
	} else {
		exchange->readings = 0;
	}
	exchange->least = least;
	exchange->most = most;
	exchange->readings++;
}

static void read_clock(struct exchange *exchange)
{
	char text[CLOCK_TEXT_SIZE];

	if (exchange->options->type == TYPE_TIME)
		clock_read_time((const unsigned char *)exchange->reply, exchange->replied.tv_sec, &exchange->clock);
	else if (!clock_read_daytime(exchange->reply, exchange->length, exchange->replied.tv_sec, &exchange->clock))
		return; /* what is not understood is as right: RFC 867 prescribes no format */

	struct clock_offset offset = clock_offset(&exchange->clock, &exchange->begun, &exchange->replied);

	narrow(exchange, &offset);
	clock_print(&exchange->clock, text);
	report_line(exchange->options, REPORT_PLAIN, "clock %s (%s%s), offset %+.6f s, uncertainty %.6f s", text,
		    exchange->clock.format,
		    exchange->clock.zone == CLOCK_ZONE_STATED ? ""
		    : exchange->clock.zone == CLOCK_ZONE_UTC  ? ", taken as UTC"
							      : ", taken as local time",
		    offset.seconds, offset.uncertainty);
}

static void summarize(void *context, struct json *json)
{
	struct exchange *exchange = context;
	double offset = (exchange->least + exchange->most) / 2, uncertainty = (exchange->most - exchange->least) / 2;
	char text[CLOCK_TEXT_SIZE];

	if (json && manner_of(exchange)->is_text && exchange->text_length > 0)
		json_bytes(json, "text", exchange->text, exchange->text_length);
	if (exchange->readings == 0)
		return;
	if (!json) {
		report_summary(exchange->options, REPORT_PLAIN,
			       "clock offset %+.6f s, uncertainty %.6f s, of %u answers", offset, uncertainty,
			       exchange->readings);
		return;
	}
	clock_print(&exchange->clock, text);
	json_begin_object(json, "clock");
	json_string(json, "format", exchange->clock.format);
	json_string(json, "zone", clock_zone_name(exchange->clock.zone));
	json_string(json, "time", text);
	json_number(json, "offset_s", offset, 6);
	json_number(json, "uncertainty_s", uncertainty, 6);
	json_uint(json, "answers", exchange->readings);
	json_end(json);
}

/* A round */

/* The connection is freed by the loop, not in its own call. */
static void end_round(struct exchange *exchange)
{
	event_del(exchange->reply_timer);
	event_active(exchange->over, EV_TIMEOUT, 0);
}

/* Whether what comes now came behind the end of the round. */
static bool is_over(const struct exchange *exchange)
{
	return event_pending(exchange->over, EV_TIMEOUT, NULL);
}

static void on_over(evutil_socket_t fd, short what, void *context)
{
	struct exchange *exchange = context;
	uint64_t next_ns = exchange->begun_ns + (uint64_t)exchange->options->interval_us * 1000;
	struct timeval delay = run_delay((int64_t)(next_ns - run_now()));

	(void)fd;
	(void)what;
	stream_free(exchange->stream);
	flow_free(exchange->flow);
	exchange->stream = NULL;
	exchange->flow = NULL;
	if (exchange->run->stopped || is_rounds_end(exchange) || report_is_lost())
		run_stop(exchange->run);
	else
		event_add(exchange->round_timer, &delay);
}

static void lose(struct exchange *exchange, const char *what, const char *reason)
{
	series_time_out(exchange->run->series);
	report_line(exchange->options, REPORT_BAD, "%s seq=%llu%s%s", what, (unsigned long long)exchange->sequence,
		    *reason ? ": " : "", reason);
	end_round(exchange);
}

static void print_reply(struct exchange *exchange, enum ending ending, bool right, const char *why)
{
	const struct options *options = exchange->options;
	double time_ms = (double)(exchange->replied_ns - exchange->begun_ns) / 1e6;
	const char *remark = "";
	char ttl[16] = "";

	if (exchange->ttl >= 0)
		snprintf(ttl, sizeof(ttl), " ttl=%d", exchange->ttl);
	if (right && ending == ENDING_TIMED_OUT && options->type != TYPE_DISCARD)
		remark = " (not closed by the server)";
	if (right && options->type == TYPE_ECHO)
		remark = " after we ended our side";
	if (options->type == TYPE_DISCARD && right && options->udp)
		report_line(options, REPORT_PLAIN, "%u bytes to %s: seq=%llu, nothing came back", options->size,
			    exchange->run->peer, (unsigned long long)exchange->sequence);
	else if (options->type == TYPE_DISCARD && right)
		report_line(options, REPORT_PLAIN, "%u bytes taken by %s: seq=%llu time=%.3f ms", options->size,
			    exchange->run->peer, (unsigned long long)exchange->sequence, time_ms);
	else
		report_line(options, right ? REPORT_PLAIN : REPORT_BAD,
			    "%zu bytes from %s: seq=%llu%s time=%.3f ms%s%s%s", exchange->length, exchange->run->peer,
			    (unsigned long long)exchange->sequence, ttl, time_ms, remark, right ? "" : " wrong: ", why);
	if (manner_of(exchange)->is_text)
		report_text(options, exchange->reply, exchange->length);
}

/* Counts, judges and prints the answer, and ends the round. BROKEN_BY is why the connection broke. */
static void judge(struct exchange *exchange, enum ending ending, const char *broken_by)
{
	struct run *run = exchange->run;
	char why[WHY_SIZE] = "";

	if (exchange->surplus > 0)
		snprintf(why, sizeof(why), "%llu bytes too many", (unsigned long long)exchange->surplus);
	else if (ending == ENDING_BROKEN)
		snprintf(why, sizeof(why), "broke off after %zu bytes: %s", exchange->length, broken_by);
	else
		manner_of(exchange)->judge(exchange, ending, why);

	bool right = why[0] == '\0';
	struct series_reply reply = series_receive(run->series, exchange->sequence, exchange->replied_ns);

	if (!right)
		run->wrong = true;
	else if (reply.expected && !(exchange->options->udp && exchange->options->type == TYPE_DISCARD))
		rtt_add(&run->rtt, reply.rtt_ns);
	print_reply(exchange, ending, right, why);
	if (right) {
		exchange->text_length = exchange->length < REPLY_MAX ? exchange->length : REPLY_MAX;
		memcpy(exchange->text, exchange->reply, exchange->text_length);
	}
	if (right && manner_of(exchange)->has_clock)
		read_clock(exchange);
	end_round(exchange);
}

static void note_reply_time(struct exchange *exchange)
{
	exchange->replied_ns = run_now();
	clock_gettime(CLOCK_REALTIME, &exchange->replied);
}

static void on_reply_timeout(evutil_socket_t fd, short what, void *context)
{
	struct exchange *exchange = context;

	(void)fd;
	(void)what;
	if (exchange->length == 0)
		note_reply_time(exchange);
	if (exchange->length > 0 || exchange->options->type == TYPE_DISCARD)
		judge(exchange, ENDING_TIMED_OUT, "");
	else
		lose(exchange, "timeout", "");
}

static void wait_for_reply(struct exchange *exchange)
{
	struct timeval timeout = run_delay(exchange->options->timeout_ms * MS_NS);

	event_add(exchange->reply_timer, &timeout);
}

static void keep(struct exchange *exchange, const char *bytes, size_t length)
{
	size_t room = exchange->capacity - exchange->length, taken = length < room ? length : room;

	memcpy(exchange->reply + exchange->length, bytes, taken);
	exchange->length += taken;
	exchange->surplus += length - taken;
	note_reply_time(exchange);
}

/* TCP */

static bool send_request(struct exchange *exchange)
{
	size_t left = exchange->options->size;
	uint64_t position = 0;

	while (left > 0) {
		size_t piece = left < PAYLOAD_STREAM_AHEAD ? left : PAYLOAD_STREAM_AHEAD;

		if (!stream_send(exchange->stream, payload_stream(exchange->seed, position), piece))
			return false;
		position += piece;
		left -= piece;
	}
	return true;
}

static void on_open(void *context)
{
	struct exchange *exchange = context;
	const struct options *options = exchange->options;

	exchange->run->reached = true;
	snprintf(exchange->run->peer, sizeof(exchange->run->peer), "%s", stream_peer(exchange->stream));
	wait_for_reply(exchange);
	if ((manner_of(exchange)->asks || options->early) && !send_request(exchange)) {
		run_fail(exchange->run, "%s", strerror(ENOMEM));
		run_stop(exchange->run);
		return;
	}
	if (manner_of(exchange)->shuts || options->half_close)
		stream_shut(exchange->stream);
}

static void on_bytes(void *context, const char *bytes, size_t length)
{
	struct exchange *exchange = context;
	bool endless = exchange->options->type == TYPE_CHARGEN;
	size_t wanted = exchange->options->size - (endless ? exchange->length : 0);

	if (is_over(exchange))
		return;
	keep(exchange, bytes, endless && length > wanted ? wanted : length);
	if (endless && exchange->length == exchange->options->size)
		judge(exchange, ENDING_ENOUGH, "");
	else if (exchange->surplus > 0)
		judge(exchange, ENDING_BROKEN, "");
}

static void on_end(void *context, enum stream_end end, const char *reason)
{
	struct exchange *exchange = context;

	if (is_over(exchange))
		return;
	if (end == STREAM_UNREACHED && !exchange->run->reached) {
		run_note_unreached(exchange->run, "%s", reason);
		series_time_out(exchange->run->series);
		run_stop(exchange->run);
		return;
	}
	exchange->run->reached = true;
	if (end == STREAM_UNREACHED) {
		lose(exchange, "lost", reason);
		return;
	}
	if (exchange->length == 0 || end == STREAM_BROKEN)
		note_reply_time(exchange);
	if (exchange->run->peer[0] == '\0')
		snprintf(exchange->run->peer, sizeof(exchange->run->peer), "%s", stream_peer(exchange->stream));
	judge(exchange, end == STREAM_CLOSED ? ENDING_CLOSED : ENDING_BROKEN, reason);
}

/* UDP */

static void on_datagram(void *context, const struct flow_datagram *datagram)
{
	struct exchange *exchange = context;
	char source[TARGET_TEXT_SIZE];

	if (is_over(exchange))
		return;
	exchange->run->reached = true;
	if (!datagram->from_target) {
		target_print(datagram->source, source);
		series_wrong_source(exchange->run->series);
		report_line(exchange->options, REPORT_BAD, "%zu bytes from %s: wrong source", datagram->length, source);
		return;
	}
	exchange->ttl = datagram->ttl;
	keep(exchange, datagram->bytes, datagram->length);
	judge(exchange, ENDING_CLOSED, "");
}

static void on_refusal(void *context, const struct flow_refusal *refusal)
{
	struct exchange *exchange = context;

	if (is_over(exchange))
		return;
	run_note_unreached(exchange->run, "send to %s: %s", exchange->run->peer, strerror(refusal->error));
	lose(exchange, "refused", strerror(refusal->error));
}

static void send_datagram(struct exchange *exchange)
{
	int error = flow_send(exchange->flow, payload_stream(exchange->seed, 0), exchange->options->size);

	if (error == 0) {
		wait_for_reply(exchange);
		return;
	}
	run_note_unreached(exchange->run, "send to %s: %s", exchange->run->peer, strerror(error));
	lose(exchange, "not sent", strerror(error));
}

/* Rounds */

static bool open_stream(struct exchange *exchange)
{
	static const struct stream_calls calls = {.on_open = on_open, .on_bytes = on_bytes, .on_end = on_end};
	struct run *run = exchange->run;

	exchange->stream = stream_open(run->base, run->options, run->target, run->tls, &calls, exchange);
	return exchange->stream != NULL;
}

static bool open_flow(struct exchange *exchange)
{
	static const struct flow_calls calls = {.on_datagram = on_datagram, .on_refusal = on_refusal};
	struct run *run = exchange->run;
	char error[TARGET_ERROR_SIZE];

	exchange->flow = flow_open(run->base, run->options, &run->target->addresses[0], &calls, exchange, error);
	if (!exchange->flow) {
		run_fail(run, "%s", error);
		return false;
	}
	snprintf(run->peer, sizeof(run->peer), "%s", flow_peer(exchange->flow));
	return true;
}

static void on_round(evutil_socket_t fd, short what, void *context)
{
	struct exchange *exchange = context;
	bool udp = exchange->options->udp;

	(void)fd;
	(void)what;
	exchange->length = 0;
	exchange->surplus = 0;
	exchange->ttl = -1;
	exchange->seed = payload_new_seed();
	if (udp && !open_flow(exchange)) {
		run_stop(exchange->run);
		return;
	}
	exchange->begun_ns = run_now();
	clock_gettime(CLOCK_REALTIME, &exchange->begun);
	exchange->sequence = series_send(exchange->run->series, exchange->begun_ns);
	if (udp) {
		send_datagram(exchange);
	} else if (!open_stream(exchange)) {
		run_fail(exchange->run, "%s", strerror(ENOMEM));
		run_stop(exchange->run);
	}
}

static bool prepare(struct exchange *exchange)
{
	struct event_base *base = exchange->run->base;
	struct timeval at_once = {0};
	size_t size = exchange->options->size;

	exchange->capacity = size > REPLY_MAX ? size : REPLY_MAX;
	exchange->reply = malloc(exchange->capacity);
	exchange->round_timer = evtimer_new(base, on_round, exchange);
	exchange->reply_timer = evtimer_new(base, on_reply_timeout, exchange);
	exchange->over = evtimer_new(base, on_over, exchange);
	return exchange->reply && exchange->round_timer && exchange->reply_timer && exchange->over &&
	       event_add(exchange->round_timer, &at_once) == 0;
}

static void exchange_free(struct exchange *exchange)
{
	struct event *timers[] = {exchange->round_timer, exchange->reply_timer, exchange->over};

	for (size_t i = 0; i < sizeof(timers) / sizeof(timers[0]); i++)
		if (timers[i])
			event_free(timers[i]);
	stream_free(exchange->stream);
	flow_free(exchange->flow);
	free(exchange->reply);
	free(exchange);
}

int exchange_run(struct run *run)
{
	struct exchange *exchange = calloc(1, sizeof(*exchange));

	if (!exchange) {
		run_fail(run, "%s", strerror(ENOMEM));
		return run_finish(run);
	}
	exchange->run = run;
	exchange->options = run->options;
	run->summarize = summarize;
	run->context = exchange;
	if (prepare(exchange))
		run_loop(run);
	else
		run_fail(run, "%s", strerror(ENOMEM));
	int status = run_finish(run);

	exchange_free(exchange);
	return status;
}
