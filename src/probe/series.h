/* series.h: what came of each of a sequence of requests. */
#ifndef SMALLSERVD_PROBE_SERIES_H
#define SMALLSERVD_PROBE_SERIES_H

#include <stdbool.h>
#include <stdint.h>

/* sent = received + lost + in_flight. These, and late and reordered, are numbers of requests; the others are of replies. */
struct series_counts {
	uint64_t sent;
	uint64_t
		received; /* requests that were answered, also where the first answer was corrupted, late or from elsewhere */
	uint64_t lost;         /* timed out, and not answered since */
	uint64_t in_flight;    /* neither answered nor timed out */
	uint64_t late;         /* of the received: answered after they had timed out */
	uint64_t reordered;    /* of the received: answered after a later one was (RFC 4737) */
	uint64_t duplicated;   /* replies to what had been answered */
	uint64_t corrupted;    /* replies with other bytes than were sent */
	uint64_t wrong_source; /* replies from another address than was asked */
	uint64_t unexpected;   /* replies to nothing that we sent, or to what is forgotten */
};

/* Adds what OTHER has counted. */
void series_counts_add(struct series_counts *counts, const struct series_counts *other);

/* The share of lost requests in per cent, of those that are not in flight; 0 without any. */
double series_loss(const struct series_counts *counts);

struct series;

/* For one thread. It remembers the last WINDOW requests, rounded up to a power of two; when the request that is so many before
 * is still in flight, it counts as lost from then on. NULL when out of memory. */
struct series *series_new(unsigned window);
void series_free(struct series *series);

/* Whether the next request would take the place of one that is still in flight. */
bool series_is_full(const struct series *series);

/* Notes a request that leaves now. Returns its sequence number: 1, 2, 3, ... */
uint64_t series_send(struct series *series, uint64_t now_ns);

/* Takes back the last request, which could not be sent after all and has had no answer. */
void series_take_back(struct series *series);

/* The sequence number of the last request, 0 before the first. */
uint64_t series_newest(const struct series *series);

/* The smallest sequence number that it still remembers. */
uint64_t series_oldest(const struct series *series);

/* When SEQUENCE left. False when it was never sent or is forgotten. */
bool series_sent_at(const struct series *series, uint64_t sequence, uint64_t *sent_ns);
bool series_is_answered(const struct series *series, uint64_t sequence);

/* The oldest request that is in flight; false when none is. This is whose time-out is next, when requests left in order. */
bool series_waiting(const struct series *series, uint64_t *sequence, uint64_t *sent_ns);

/* Takes the oldest request in flight for lost, until an answer proves otherwise. False when none is in flight. */
bool series_time_out(struct series *series);

struct series_reply {
	bool expected; /* false: the rest means nothing */
	bool duplicated, late, reordered;
	uint64_t rtt_ns;
};

/* Notes a reply to SEQUENCE. */
struct series_reply series_receive(struct series *series, uint64_t sequence, uint64_t now_ns);

/* Notes what was wrong with a reply, beside series_receive. */
void series_corrupted(struct series *series);
void series_wrong_source(struct series *series);

struct series_counts series_counts(const struct series *series);

#endif
