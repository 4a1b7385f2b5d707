/* series.c: outcomes of a sequence of requests. */
#include "probe/series.h"

#include <stdlib.h>

enum { IN_FLIGHT, ANSWERED, TIMED_OUT };

struct series {
	struct series_counts counts;
	uint64_t newest;
	uint64_t waiting;  /* the oldest in flight; newest + 1: none */
	uint64_t answered; /* the newest answered one */
	uint64_t mask;     /* of the window */
	struct request {
		uint64_t sent_ns;
		int state;
	} requests[];
};

void series_counts_add(struct series_counts *counts, const struct series_counts *other)
{
	counts->sent += other->sent;
	counts->received += other->received;
	counts->lost += other->lost;
	counts->in_flight += other->in_flight;
	counts->late += other->late;
	counts->reordered += other->reordered;
	counts->duplicated += other->duplicated;
	counts->corrupted += other->corrupted;
	counts->wrong_source += other->wrong_source;
	counts->unexpected += other->unexpected;
}

double series_loss(const struct series_counts *counts)
{
	uint64_t decided = counts->received + counts->lost;
	return decided == 0 ? 0 : 100 * (double)counts->lost / (double)decided;
}

struct series *series_new(unsigned window)
{
	size_t size = 1;
	while (size < window)
		size *= 2;
	struct series *series = calloc(1, sizeof *series + size * sizeof series->requests[0]);
	if (series == NULL)
		return NULL;
	series->mask = size - 1;
	series->waiting = 1;
	return series;
}

void series_free(struct series *series)
{
	free(series);
}

static struct request *request_of(const struct series *series, uint64_t sequence)
{
	return (struct request *)&series->requests[sequence & series->mask];
}

/* Finds the next oldest request in flight after the oldest was answered or lost. */
static void find_waiting(struct series *series)
{
	while (series->waiting <= series->newest && request_of(series, series->waiting)->state != IN_FLIGHT)
		series->waiting++;
}

bool series_waiting(const struct series *series, uint64_t *sequence, uint64_t *sent_ns)
{
	if (series->waiting > series->newest)
		return false;
	*sequence = series->waiting;
	*sent_ns = request_of(series, series->waiting)->sent_ns;
	return true;
}

bool series_time_out(struct series *series)
{
	if (series->waiting > series->newest)
		return false;
	request_of(series, series->waiting)->state = TIMED_OUT;
	series->counts.lost++;
	series->counts.in_flight--;
	find_waiting(series);
	return true;
}

uint64_t series_newest(const struct series *series)
{
	return series->newest;
}

uint64_t series_oldest(const struct series *series)
{
	return series->newest > series->mask ? series->newest - series->mask : 1;
}

/* (The next request takes the slot of the one a window before.) */
bool series_is_full(const struct series *series)
{
	return series->waiting + series->mask <= series->newest;
}

uint64_t series_send(struct series *series, uint64_t now_ns)
{
	uint64_t sequence = series->newest + 1;
	if (series_is_full(series))
		series_time_out(series);
	*request_of(series, sequence) = (struct request){.sent_ns = now_ns, .state = IN_FLIGHT};
	series->newest = sequence;
	series->counts.sent++;
	series->counts.in_flight++;
	return sequence;
}

/* The displaced request is forgotten: a reply to it must not count as its first. */
void series_take_back(struct series *series)
{
	request_of(series, series->newest)->state = ANSWERED;
	series->newest--;
	series->counts.sent--;
	series->counts.in_flight--;
}

static bool is_remembered(const struct series *series, uint64_t sequence)
{
	return sequence >= series_oldest(series) && sequence <= series->newest;
}

bool series_sent_at(const struct series *series, uint64_t sequence, uint64_t *sent_ns)
{
	if (!is_remembered(series, sequence))
		return false;
	*sent_ns = request_of(series, sequence)->sent_ns;
	return true;
}

bool series_is_answered(const struct series *series, uint64_t sequence)
{
	return is_remembered(series, sequence) && request_of(series, sequence)->state == ANSWERED;
}

struct series_reply series_receive(struct series *series, uint64_t sequence, uint64_t now_ns)
{
	if (!is_remembered(series, sequence)) {
		series->counts.unexpected++;
		return (struct series_reply){.expected = false};
	}
	struct request *request = request_of(series, sequence);
	struct series_reply reply = {
		.expected = true,
		.duplicated = request->state == ANSWERED,
		.late = request->state == TIMED_OUT,
		.rtt_ns = now_ns > request->sent_ns ? now_ns - request->sent_ns : 0,
	};
	if (reply.duplicated) {
		series->counts.duplicated++;
		return reply;
	}
	reply.reordered = sequence < series->answered;
	series->answered = reply.reordered ? series->answered : sequence;
	series->counts.received++;
	series->counts.late += reply.late;
	series->counts.lost -= reply.late;
	series->counts.in_flight -= !reply.late;
	series->counts.reordered += reply.reordered;
	request->state = ANSWERED;
	find_waiting(series);
	return reply;
}

void series_corrupted(struct series *series)
{
	series->counts.corrupted++;
}

void series_wrong_source(struct series *series)
{
	series->counts.wrong_source++;
}

struct series_counts series_counts(const struct series *series)
{
	return series->counts;
}
