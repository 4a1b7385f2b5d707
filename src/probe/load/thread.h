/* thread.h: one thread of a load: its lines, its schedule, its loop and its books. */
#ifndef SMALLSERVD_PROBE_LOAD_THREAD_H
#define SMALLSERVD_PROBE_LOAD_THREAD_H

#include <openssl/ssl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "probe/options.h"
#include "probe/payload.h"
#include "probe/rtt.h"
#include "probe/series.h"
#include "probe/target.h"

struct load_thread;

enum load_line_state { LINE_CLOSED, LINE_OPENING, LINE_OPEN };

/* A connection or a flow; the transport has more behind it. */
struct load_line {
	int fd;
	enum load_line_state state;
	bool watches_output;
	unsigned number;    /* over all threads, from 1 */
	unsigned in_flight; /* requests, from when they were issued */
	uint64_t heard_ns;  /* when it last had a reply, or got busy, or began to open */
	bool stalled;       /* was told of */
	struct load_thread *owner;
};

/* How requests travel. All calls come from the line's own thread. */
struct load_transport {
	size_t line_size; /* of what begins with a load_line */
	/* What the thread's lines share. False: the reason is in the thread's error. */
	bool (*prepare)(struct load_thread *thread);
	void (*release)(struct load_thread *thread);
	/* Begins a line; it is open once its state says so. False: the reason is in the thread's error. */
	bool (*open)(struct load_line *line);
	void (*close)(struct load_line *line);
	void (*on_event)(struct load_line *line, uint32_t events);
	/* Issues up to MOST requests, as many as load_thread_next grants, and sends them. */
	void (*issue)(struct load_line *line, unsigned most);
	/* Called some times a second: gives up what has timed out. */
	void (*sweep)(struct load_line *line);
};
extern const struct load_transport load_tcp, load_udp;

/* What a thread has counted; its own, and a copy of it for the others under the lock of the load. */
struct load_books {
	struct series_counts counts;
	struct rtt rtt;
	uint64_t sent_bytes, received_bytes;
	uint64_t behind;  /* requests that were due and could not be sent */
	uint64_t stalls;  /* connections that were silent for the timeout while something was in flight */
	uint64_t broken;  /* connections that ended before their time */
	uint64_t refused; /* errors that the network answered with, as when a port is closed */
	uint64_t elapsed_ns;
};

void load_books_add(struct load_books *books, const struct load_books *other);

enum { LOAD_GOES_ON, LOAD_STOPS, LOAD_BREAKS_OFF };

/* What all threads share. Constant while they run, but for what is atomic or under the lock. */
struct load {
	const struct options *options;
	const struct target *target;
	const struct load_transport *transport;
	const struct target_address *address;
	SSL_CTX *tls; /* or NULL */
	char peer[TARGET_TEXT_SIZE];
	uint64_t timeout_ns, duration_ns;
	int done;            /* an eventfd that each thread adds 1 to at its end */
	atomic_bool failed;  /* a thread could not open its lines */
	atomic_bool reached; /* there is somebody */
	atomic_int stop;
	pthread_mutex_t lock;
	pthread_cond_t all_opened;

	/* under the lock, as is the copy of each thread's books */
	unsigned expected, opened; /* threads */
	unsigned notices;
};

struct load_thread {
	struct load *load;
	pthread_t id;
	struct load_books books, copy;
	char error[TARGET_ERROR_SIZE]; /* empty: none */

	/* of the thread itself */
	uint64_t now_ns;   /* of this wake-up: one look at the clock for all that it brings */
	uint64_t begin_ns; /* of the measurement; 0: lines are being opened */
	uint64_t end_ns;   /* nothing is issued from then on */
	uint64_t replied_ns;
	uint64_t count;     /* of requests that it may issue */
	uint64_t issued;    /* so many it has */
	double interval_ns; /* between requests; 0: as fast as replies come */
	bool issuing;
	unsigned first_number, line_count, opening, open;
	uint64_t in_flight; /* over all lines */
	unsigned next_line; /* that the schedule gives a request to */
	char *lines;
	int poller, timer;
	unsigned batch;
	char *buffer; /* the transport's */
	void *scratch;
};

/* Sets up thread INDEX of load->options->threads. False: the reason is in its error. */
bool load_thread_init(struct load_thread *thread, struct load *load, unsigned index);
void load_thread_destroy(struct load_thread *thread);

/* What the thread does, as pthread_create takes it. */
void *load_thread_run(void *thread);

/* Lets threads that have opened their lines wait for COUNT in all, and not for more that could not be started. */
void load_expect(struct load *load, unsigned count);

/* --- for the transports --- */

/* Whether one more request may be issued now. *DUE_NS is from when its latency counts. */
bool load_thread_next(struct load_thread *thread, uint64_t *due_ns);

/* Notes COUNT requests that were issued on LINE, or (negative) answered or given up. */
void load_line_busy(struct load_line *line, int64_t count);

/* Notes a right answer to the request that was due at DUE_NS. */
void load_thread_replied(struct load_thread *thread, uint64_t due_ns);

/* Waits for room to send, or no longer. False: the reason is in the thread's error. */
bool load_line_watch(struct load_line *line, bool output);

/* An opening line is open. */
void load_line_opened(struct load_line *line);

/* Ends LINE before its time, for REASON: its requests are lost. While lines are being opened this ends the load. */
void load_line_break(struct load_line *line, const char *reason);

/* Writes a line to stderr, unless only the summary is wanted, and at most so many in all that they can be read. */
void load_notice(struct load *load, const char *format, ...) __attribute__((format(printf, 2, 3)));

uint64_t load_now_ns(void);

#endif
