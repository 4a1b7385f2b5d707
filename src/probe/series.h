/* series.h: outcomes of a sequence of requests. */
#ifndef SMALLSERVD_PROBE_SERIES_H
#define SMALLSERVD_PROBE_SERIES_H

#include <stdbool.h>
#include <stdint.h>

/* sent = received + lost + in_flight. These, late and reordered count requests; the others count replies. */
struct series_counts {
	uint64_t sent;
	uint64_t received;   /* answered requests, also if the first reply was corrupted, late or from a wrong source */
	uint64_t lost;       /* timed out and not answered since */
	uint64_t in_flight;  /* neither answered nor timed out */
	uint64_t late;       /* of the received: answered after their timeout */
	uint64_t reordered;  /* of the received: answered after a later one (RFC 4737) */
	uint64_t duplicated; /* replies to an answered request */
	uint64_t corrupted;  /* replies with wrong contents */
	uint64_t wrong_source; /* replies from a wrong address */
	uint64_t unexpected;   /* replies to no request, or to a forgotten one */
};

/* Adds the counts of OTHER. */
void series_counts_add(struct series_counts *counts, const struct series_counts *other);

/* Returns the percentage of lost requests among those not in flight; 0 without any. */
double series_loss(const struct series_counts *counts);

struct series;

/* Creates a series that remembers the last WINDOW requests, rounded up to a power of two; a request in flight that
 * leaves the window counts as lost. For one thread. Returns NULL when out of memory. */
struct series *series_new(unsigned window);
void series_free(struct series *series);

/* Returns whether the next request would displace one in flight. */
bool series_is_full(const struct series *series);

/* Records a request that is being sent. Returns its sequence number: 1, 2, 3, ... */
uint64_t series_send(struct series *series, uint64_t now_ns);

/* Removes the last request, which could not be sent and has no reply. */
void series_take_back(struct series *series);

/* Returns the sequence number of the last request, 0 before the first. */
uint64_t series_newest(const struct series *series);

/* Returns the smallest remembered sequence number. */
uint64_t series_oldest(const struct series *series);

/* Returns in SENT_NS when SEQUENCE was sent. Returns false if it was never sent or is forgotten. */
bool series_sent_at(const struct series *series, uint64_t sequence, uint64_t *sent_ns);
bool series_is_answered(const struct series *series, uint64_t sequence);

/* Finds the oldest request in flight, the next to time out. Returns false if none is in flight. */
bool series_waiting(const struct series *series, uint64_t *sequence, uint64_t *sent_ns);

/* Counts the oldest request in flight as lost, until a reply arrives. Returns false if none is in flight. */
bool series_time_out(struct series *series);

struct series_reply {
	bool expected; /* false: the other members are undefined */
	bool duplicated, late, reordered;
	uint64_t rtt_ns;
};

/* Records a reply to SEQUENCE. */
struct series_reply series_receive(struct series *series, uint64_t sequence, uint64_t now_ns);

/* Records a defect of a reply, besides series_receive. */
void series_corrupted(struct series *series);
void series_wrong_source(struct series *series);

struct series_counts series_counts(const struct series *series);

#endif
