/* thread.h: one thread of a load: connections, schedule, event loop and statistics. */
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

enum load_conn_state { LOAD_CONN_CLOSED, LOAD_CONN_OPENING, LOAD_CONN_OPEN };

/* A connection or a flow; the transport extends it. */
struct load_conn {
	int fd;
	enum load_conn_state state;
	bool watches_output;
	unsigned number;    /* number over all threads, from 1 */
	unsigned in_flight; /* requests issued and unanswered */
	uint64_t heard_ns;  /* time of the last reply, or of becoming busy, or of opening */
	bool stalled;       /* reported as stalled */
	struct load_thread *owner;
};

/* Operations of a transport. All calls come from the thread of the connection. */
struct load_transport {
	size_t conn_size; /* of the struct that begins with a load_conn */
	/* Prepares the state that the thread's connections share. Returns false with the reason in the thread's error.
	 */
	bool (*prepare)(struct load_thread *thread);
	void (*release)(struct load_thread *thread);
	/* Starts to open a connection; its state says when it is open. Returns false with the reason in the thread's
	 * error. */
	bool (*open)(struct load_conn *conn);
	void (*close)(struct load_conn *conn);
	void (*on_event)(struct load_conn *conn, uint32_t events);
	/* Issues up to MOST requests, as many as load_thread_next grants, and sends them. */
	void (*issue)(struct load_conn *conn, unsigned most);
	/* Called several times a second: handles timeouts. */
	void (*sweep)(struct load_conn *conn);
};
extern const struct load_transport load_tcp, load_udp;

/* Statistics of a thread, and a copy for other threads under the lock of the load. */
struct load_stats {
	struct series_counts counts;
	struct rtt rtt;
	uint64_t sent_bytes, received_bytes;
	uint64_t behind;  /* requests that were due and could not be sent */
	uint64_t stalls;  /* connections that were silent for the timeout with requests in flight */
	uint64_t broken;  /* connections that ended early */
	uint64_t refused; /* errors reported by the network, as a closed port */
	uint64_t elapsed_ns;
};

void load_stats_add(struct load_stats *stats, const struct load_stats *other);

enum { LOAD_GOES_ON, LOAD_STOPS, LOAD_BREAKS_OFF };

/* State shared by all threads. Constant while they run, except for atomics and members under the lock. */
struct load {
	const struct options *options;
	const struct target *target;
	const struct load_transport *transport;
	const struct target_address *address;
	SSL_CTX *tls; /* or NULL */
	char peer[TARGET_TEXT_SIZE];
	uint64_t timeout_ns, duration_ns;
	int done;            /* an eventfd to which each thread adds 1 at its end */
	atomic_bool failed;  /* a thread could not open its connections */
	atomic_bool reached; /* the target was reached */
	atomic_int stop;
	pthread_mutex_t lock;
	pthread_cond_t all_opened;

	/* under the lock, as is the copy of each thread's statistics */
	unsigned expected, opened; /* threads */
	unsigned notices;
};

struct load_thread {
	struct load *load;
	pthread_t id;
	struct load_stats stats, copy;
	char error[TARGET_ERROR_SIZE]; /* empty: none */

	/* of the thread alone */
	uint64_t now_ns;   /* time of this wake-up */
	uint64_t begin_ns; /* start of the measurement; 0: connections are being opened */
	uint64_t end_ns;   /* no request is issued from then on */
	uint64_t replied_ns;
	uint64_t count;     /* requests that it may issue */
	uint64_t issued;    /* requests issued */
	double interval_ns; /* between requests; 0: as fast as replies arrive */
	bool issuing;
	unsigned first_number, conn_count, opening, open;
	uint64_t in_flight; /* over all connections */
	unsigned next_conn; /* that gets the next scheduled request */
	char *conns;
	int poller, timer;
	unsigned batch;
	char *buffer; /* of the transport */
	void *scratch;
};

/* Initialises thread INDEX of load->options->threads. Returns false with the reason in its error. */
bool load_thread_init(struct load_thread *thread, struct load *load, unsigned index);
void load_thread_destroy(struct load_thread *thread);

/* Runs the thread; for pthread_create. */
void *load_thread_run(void *thread);

/* Sets the number of threads that wait for each other to COUNT, as further ones could not be started. */
void load_expect(struct load *load, unsigned count);

/* --- for the transports --- */

/* Returns whether one more request may be issued now. *DUE_NS: start of its latency. */
bool load_thread_next(struct load_thread *thread, uint64_t *due_ns);

/* Records COUNT requests issued on CONN, or (negative) answered or lost. */
void load_conn_busy(struct load_conn *conn, int64_t count);

/* Records a correct reply to the request due at DUE_NS. */
void load_thread_replied(struct load_thread *thread, uint64_t due_ns);

/* Starts or stops watching for writability. Returns false with the reason in the thread's error. */
bool load_conn_watch(struct load_conn *conn, bool output);

/* Records that a connection is open. */
void load_conn_opened(struct load_conn *conn);

/* Ends CONN early, for REASON: its requests are lost. While connections are being opened this ends the load. */
void load_conn_break(struct load_conn *conn, const char *reason);

/* Writes a line to stderr, unless only the summary is wanted, up to a readable number of lines. */
void load_notice(struct load *load, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
