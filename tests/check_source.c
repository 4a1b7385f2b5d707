/* check_source.c: admission of sources: source limits, rate limits, allow and deny. */
#include <arpa/inet.h>
#include <errno.h>
#include <malloc.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "check_run.h"
#include "check_threads.h"
#include "config/config.h"
#include "core/array.h"
#include "core/token_bucket.h"
#include "net/admission.h"
#include "net/metrics.h"
#include "net/source_limit.h"
#include "option/option.h"

enum { TEXT_SIZE = 4096, LINES = 10000 };

/* --- random numbers, the same in each run --- */

static uint64_t next_random(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

static unsigned below(uint64_t *state, unsigned bound)
{
	return (unsigned)(next_random(state) >> 16) % bound;
}

/* --- addresses --- */

/* Returns the address written in ADDRESS, IPv4 mapped into IPv6. */
static struct in6_addr ip_of(const char *address)
{
	struct in6_addr ip = {.s6_addr = {[10] = 0xff, [11] = 0xff}};
	if (strchr(address, ':') != NULL)
		ck_assert_int_eq(inet_pton(AF_INET6, address, &ip), 1);
	else
		ck_assert_int_eq(inet_pton(AF_INET, address, &ip.s6_addr[12]), 1);
	return ip;
}

/* Returns the source with NUMBER. Has no assertion: threads call it, and an assertion costs a system call. */
static struct in6_addr source_of(uint32_t number)
{
	struct in6_addr ip = {.s6_addr = {0x20, 0x01, 0x0d, 0xb8}};
	uint32_t bytes = htonl(number);
	memcpy(&ip.s6_addr[4], &bytes, sizeof bytes);
	return ip;
}

/* --- source limits --- */

static bool enters(struct source_limit *sources, const struct in6_addr *ip, int64_t maximum,
		   struct source_entry **source)
{
	int error = source_limit_enter(sources, ip, maximum, source);
	ck_assert(error == 0 || error == -EAGAIN);
	ck_assert_int_eq(error == 0, *source != NULL);
	return error == 0;
}

START_TEST(sources_have_slots_of_their_own)
{
	struct source_limit *sources = source_limit_new();
	struct in6_addr one = ip_of("192.0.2.1"), other = ip_of("2001:db8::1");
	struct source_entry *held[3], *refused, *of_other;

	ck_assert_ptr_nonnull(sources);
	for (int i = 0; i < 3; i++)
		ck_assert(enters(sources, &one, 3, &held[i]));
	ck_assert(!enters(sources, &one, 3, &refused));
	ck_assert(enters(sources, &other, 3, &of_other));
	source_limit_leave(sources, held[1]);
	ck_assert(enters(sources, &one, 3, &held[1]));
	ck_assert(!enters(sources, &one, 3, &refused));
	for (int i = 0; i < 3; i++)
		source_limit_leave(sources, held[i]);
	source_limit_leave(sources, of_other);
	ck_assert(enters(sources, &one, 1, &held[0]));
	ck_assert(!enters(sources, &one, 1, &refused));
	source_limit_leave(sources, held[0]);
	source_limit_free(sources);
	source_limit_free(NULL);
}
END_TEST

enum { THREADS = 8, VISIT_SOURCES = 5, VISIT_MAXIMUM = 3, VISIT_ROUNDS = 10000 };

struct visitor {
	struct source_limit *sources;
	_Atomic int64_t *inside; /* slots in use, per source */
	uint64_t random;
	int64_t most;
	unsigned admitted, refused, odd;
};

/* Enters and leaves, with up to two slots at a time. */
static void *enter_and_leave(void *argument)
{
	struct visitor *visitor = argument;
	for (int i = 0; i < VISIT_ROUNDS; i++) {
		struct source_entry *held[2] = {NULL, NULL};
		uint32_t number[2];
		for (int j = 0; j < 2; j++) {
			number[j] = below(&visitor->random, VISIT_SOURCES);
			struct in6_addr ip = source_of(number[j]);
			int error = source_limit_enter(visitor->sources, &ip, VISIT_MAXIMUM, &held[j]);
			visitor->odd += (error == 0) != (held[j] != NULL) || error == -ENOMEM;
			visitor->refused += held[j] == NULL;
			if (held[j] == NULL)
				continue;
			int64_t now = atomic_fetch_add(&visitor->inside[number[j]], 1) + 1;
			visitor->most = now > visitor->most ? now : visitor->most;
			visitor->admitted++;
		}
		if (i % 8 == 0)
			sched_yield(); /* other threads meet the limit, even on one processor */
		for (int j = 0; j < 2; j++) {
			if (held[j] == NULL)
				continue;
			atomic_fetch_sub(&visitor->inside[number[j]], 1);
			source_limit_leave(visitor->sources, held[j]);
		}
	}
	return NULL;
}

START_TEST(source_never_has_more_slots_than_its_maximum_under_threads)
{
	struct source_limit *sources = source_limit_new();
	_Atomic int64_t inside[VISIT_SOURCES] = {0};
	struct visitor visitors[THREADS] = {0};
	struct threads threads;
	unsigned refused = 0;

	ck_assert_ptr_nonnull(sources);
	for (unsigned i = 0; i < THREADS; i++)
		visitors[i] = (struct visitor){.sources = sources, .inside = inside, .random = i + 1};
	threads_start(&threads, THREADS, enter_and_leave, visitors, sizeof *visitors);
	threads_join(&threads);
	for (unsigned i = 0; i < THREADS; i++) {
		ck_assert_int_le(visitors[i].most, VISIT_MAXIMUM);
		ck_assert_uint_gt(visitors[i].admitted, 0);
		ck_assert_uint_eq(visitors[i].odd, 0);
		refused += visitors[i].refused;
	}
	dprintf(STDOUT_FILENO, "# %u of %d attempts met the limit\n", refused, THREADS * VISIT_ROUNDS * 2);

	for (uint32_t number = 0; number < VISIT_SOURCES; number++) { /* all slots are free again */
		struct in6_addr ip = source_of(number);
		struct source_entry *held[VISIT_MAXIMUM], *more;
		for (int i = 0; i < VISIT_MAXIMUM; i++)
			ck_assert(enters(sources, &ip, VISIT_MAXIMUM, &held[i]));
		ck_assert(!enters(sources, &ip, VISIT_MAXIMUM, &more));
		for (int i = 0; i < VISIT_MAXIMUM; i++)
			source_limit_leave(sources, held[i]);
	}
	source_limit_free(sources);
}
END_TEST

struct filler {
	struct source_limit *sources;
	struct source_entry **held; /* one per attempt */
	unsigned admitted;
};

enum { FILL_SOURCES = 64, FILL_MAXIMUM = 7 };

static void *fill(void *argument)
{
	struct filler *filler = argument;
	for (uint32_t i = 0; i < FILL_SOURCES * FILL_MAXIMUM; i++) {
		struct in6_addr ip = source_of(i % FILL_SOURCES);
		source_limit_enter(filler->sources, &ip, FILL_MAXIMUM, &filler->held[i]);
		filler->admitted += filler->held[i] != NULL;
	}
	return NULL;
}

START_TEST(threads_fill_all_sources_exactly_to_their_maximum)
{
	static struct source_entry *held[THREADS][FILL_SOURCES * FILL_MAXIMUM];
	struct source_limit *sources = source_limit_new();
	struct filler fillers[THREADS] = {0};
	struct threads threads;
	unsigned admitted = 0;

	ck_assert_ptr_nonnull(sources);
	for (unsigned i = 0; i < THREADS; i++)
		fillers[i] = (struct filler){.sources = sources, .held = held[i]};
	threads_start(&threads, THREADS, fill, fillers, sizeof *fillers);
	threads_join(&threads);
	for (unsigned i = 0; i < THREADS; i++)
		admitted += fillers[i].admitted;
	ck_assert_uint_eq(admitted, FILL_SOURCES * FILL_MAXIMUM);
	for (unsigned i = 0; i < THREADS; i++)
		for (int j = 0; j < FILL_SOURCES * FILL_MAXIMUM; j++)
			if (held[i][j] != NULL)
				source_limit_leave(sources, held[i][j]);
	source_limit_free(sources);
}
END_TEST

/* Returns the memory in use; 0 if malloc does not report it, as under a sanitizer, which finds leaks itself. */
static size_t memory_in_use(void)
{
#if defined(__GLIBC__) && __GLIBC_PREREQ(2, 33)
	return mallinfo2().uordblks;
#else
	return 0;
#endif
}

/* Takes one of two slots for each of COUNT sources. Returns the count of slots. */
static unsigned enter_all(struct source_limit *sources, struct source_entry **held, uint32_t count)
{
	unsigned admitted = 0;
	for (uint32_t i = 0; i < count; i++) {
		struct in6_addr ip = source_of(i);
		admitted += source_limit_enter(sources, &ip, 2, &held[i]) == 0 && held[i] != NULL;
	}
	return admitted;
}

START_TEST(hundred_thousand_sources_are_limited_and_their_memory_is_freed)
{
	enum { SOURCES = 100000, TABLES_MAX = 4 * 1024 * 1024 };
	static struct source_entry *held[2][SOURCES], *refused[SOURCES];
	struct source_limit *sources = source_limit_new();
	size_t before = memory_in_use();

	ck_assert_ptr_nonnull(sources);
	for (int round = 0; round < 2; round++) {
		for (int slot = 0; slot < 2; slot++)
			ck_assert_uint_eq(enter_all(sources, held[slot], SOURCES), SOURCES);
		ck_assert_uint_eq(enter_all(sources, refused, SOURCES), 0);
		for (uint32_t i = 0; i < SOURCES; i++) {
			source_limit_leave(sources, held[0][i]);
			source_limit_leave(sources, held[1][(i + SOURCES / 2) % SOURCES]);
		}
		size_t left = memory_in_use() > before ? memory_in_use() - before : 0;
		ck_assert_msg(left < TABLES_MAX, "%zu bytes are in use after the last source has left", left);
	}
	source_limit_free(sources);
}
END_TEST

/* --- rate limits --- */

/* A token bucket as textbooks have it: COUNT tokens per UNIT_MS, and COUNT at most. UNIT_MS parts are a token. */
struct model {
	int64_t count, unit_ms, parts;
	uint64_t now_ms;
};

static struct model model_of(struct token_rate rate, uint64_t now_ms)
{
	return (struct model){rate.count, rate.unit_ms, rate.count * rate.unit_ms, now_ms};
}

static bool model_takes(struct model *model, uint64_t now_ms)
{
	int64_t full = model->count * model->unit_ms;
	uint64_t passed_ms = now_ms - model->now_ms;
	model->now_ms = now_ms;
	if (passed_ms >= (uint64_t)model->unit_ms || model->parts + (int64_t)passed_ms * model->count > full)
		model->parts = full;
	else
		model->parts += (int64_t)passed_ms * model->count;
	if (model->parts < model->unit_ms)
		return false;
	model->parts -= model->unit_ms;
	return true;
}

static const struct token_rate even_rates[] = {
	{1, 1000},    {2, 1000},    {50, 1000},   {100, 1000},    {1000, 1000},    {1, 60000},
	{600, 60000}, {1, 3600000}, {5, 3600000}, {100, 3600000}, {1000000, 1000},
};

/* Returns the time until the next attempt: mostly none, sometimes short, rarely long. */
static uint64_t step(uint64_t *state, int64_t unit_ms)
{
	switch (below(state, 64)) {
	case 0:
		return below(state, 2 * (unsigned)unit_ms);
	case 1:
	case 2:
	case 3:
		return below(state, (unsigned)unit_ms / 100 + 2);
	default:
		return below(state, 4) == 0;
	}
}

START_TEST(bucket_gives_the_same_tokens_as_a_naive_model)
{
	enum { STEPS = 100000 };
	struct token_rate rate = even_rates[_i];
	struct token_buckets *buckets = token_buckets_new(rate);
	uint64_t state = (uint64_t)_i + 1, now_ms = 12345678;
	struct model model = model_of(rate, now_ms);
	struct in6_addr ip = ip_of("192.0.2.1");
	unsigned given = 0;

	ck_assert_ptr_nonnull(buckets);
	for (int i = 0; i < STEPS; i++) {
		now_ms += step(&state, rate.unit_ms);
		bool expected = model_takes(&model, now_ms), takes = token_bucket_take(buckets, &ip, now_ms);
		if (takes != expected)
			ck_abort_msg("%lld in %lld ms: take %d at %llu ms is %s", (long long)rate.count,
				     (long long)rate.unit_ms, i, (unsigned long long)now_ms,
				     takes ? "given" : "refused");
		given += takes;
	}
	ck_assert_uint_gt(given, 0);
	token_buckets_free(buckets);
	token_buckets_free(NULL);
}
END_TEST

/* Rates with a fraction of a nanosecond per token. */
static const struct token_rate odd_rates[] = {
	{3, 1000},         {7, 1000},      {7, 60000},     {999, 60000},
	{999983, 3600000}, {700001, 1000}, {999001, 1000}, {999999, 60000},
};

static unsigned take_all(struct token_buckets *buckets, const struct in6_addr *ip, uint64_t now_ms)
{
	unsigned given = 0;
	while (token_bucket_take(buckets, ip, now_ms))
		given++;
	return given;
}

START_TEST(full_bucket_has_the_tokens_of_one_unit)
{
	bool even = (size_t)_i < COUNT_OF(even_rates);
	struct token_rate rate = even ? even_rates[_i] : odd_rates[(size_t)_i - COUNT_OF(even_rates)];
	struct token_buckets *buckets = token_buckets_new(rate);
	struct in6_addr ip = ip_of("192.0.2.1");
	uint64_t now_ms = 1;

	ck_assert_ptr_nonnull(buckets);
	ck_assert_int_eq(take_all(buckets, &ip, now_ms), rate.count);
	now_ms += (uint64_t)rate.unit_ms + 1; /* the bucket is full again */
	ck_assert_int_eq(take_all(buckets, &ip, now_ms), rate.count);
	now_ms += (uint64_t)rate.unit_ms * 100; /* it does not exceed its size */
	ck_assert_int_eq(take_all(buckets, &ip, now_ms), rate.count);
	token_buckets_free(buckets);
}
END_TEST

/* Over any time, an emptied bucket gives no token more than its rate, and hardly one less. */
START_TEST(emptied_bucket_gives_its_rate)
{
	enum { UNITS = 3, LOOKS = 3000, MANY = 100000 };
	bool even = (size_t)_i < COUNT_OF(even_rates);
	struct token_rate rate = even ? even_rates[_i] : odd_rates[(size_t)_i - COUNT_OF(even_rates)];
	struct token_buckets *buckets = token_buckets_new(rate);
	struct in6_addr ip = ip_of("192.0.2.1");
	const uint64_t began_ms = 1000;
	const uint64_t step_ms = (uint64_t)rate.unit_ms * UNITS / LOOKS;
	int64_t given = 0;

	ck_assert_ptr_nonnull(buckets);
	for (int i = 0; i <= (rate.count < MANY ? LOOKS : LOOKS / 10); i++) {
		int64_t passed_ms = (int64_t)(step_ms * (uint64_t)i);
		given += take_all(buckets, &ip, began_ms + (uint64_t)passed_ms);
		int64_t most = rate.count + rate.count * passed_ms / rate.unit_ms;
		if (given > most || given < (even ? most : most - most / 500 - 1))
			ck_abort_msg("%lld in %lld ms: %lld given within %lld ms", (long long)rate.count,
				     (long long)rate.unit_ms, (long long)given, (long long)passed_ms);
	}
	token_buckets_free(buckets);
}
END_TEST

START_TEST(no_window_has_more_tokens_than_a_bucket_and_its_rate)
{
	enum { TAKES = 4000 };
	struct token_rate rate = {20, 1000};
	static uint64_t given_at_ms[TAKES];
	struct token_buckets *buckets = token_buckets_new(rate);
	struct in6_addr ip = ip_of("192.0.2.1");
	uint64_t state = 1, now_ms = 5000;
	size_t given = 0;

	ck_assert_ptr_nonnull(buckets);
	for (int i = 0; i < TAKES; i++) {
		now_ms += below(&state, 3) == 0 ? below(&state, 300) : below(&state, 2);
		if (token_bucket_take(buckets, &ip, now_ms))
			given_at_ms[given++] = now_ms;
	}
	ck_assert_uint_gt(given, 1000);
	for (size_t first = 0; first < given; first++)
		for (size_t last = first; last < given; last++) {
			uint64_t window_ms = given_at_ms[last] - given_at_ms[first];
			if (last - first + 1 > 20 + 20 * window_ms / 1000)
				ck_abort_msg("%zu given within %llu ms", last - first + 1,
					     (unsigned long long)window_ms);
		}
	token_buckets_free(buckets);
}
END_TEST

START_TEST(clock_that_goes_back_gives_no_token)
{
	struct token_buckets *buckets = token_buckets_new((struct token_rate){10, 1000});
	struct in6_addr ip = ip_of("192.0.2.1");

	ck_assert_ptr_nonnull(buckets);
	ck_assert_uint_eq(take_all(buckets, &ip, 5000), 10);
	for (uint64_t now_ms = 4990; now_ms < 5100; now_ms++)
		ck_assert(!token_bucket_take(buckets, &ip, now_ms));
	ck_assert(token_bucket_take(buckets, &ip, 5100));
	token_buckets_free(buckets);
}
END_TEST

struct drainer {
	struct token_buckets *buckets;
	atomic_uint *ready; /* all threads start together */
	int64_t given;
};

enum { DRAIN_MS = 100 };

static void *drain(void *argument)
{
	struct drainer *drainer = argument;
	struct in6_addr ip = source_of(1);
	atomic_fetch_add(drainer->ready, 1);
	while (atomic_load(drainer->ready) < THREADS)
		sched_yield();
	for (uint64_t now_ms = 1000; now_ms <= 1000 + DRAIN_MS; now_ms++)
		drainer->given += take_all(drainer->buckets, &ip, now_ms);
	return NULL;
}

START_TEST(threads_that_share_a_bucket_get_its_exact_rate)
{
	struct token_rate rate = {1000000, 1000};
	struct token_buckets *buckets = token_buckets_new(rate);
	struct drainer drainers[THREADS] = {0};
	struct threads threads;
	atomic_uint ready = 0;
	int64_t given = 0;

	ck_assert_ptr_nonnull(buckets);
	for (int i = 0; i < THREADS; i++)
		drainers[i] = (struct drainer){.buckets = buckets, .ready = &ready};
	threads_start(&threads, THREADS, drain, drainers, sizeof *drainers);
	threads_join(&threads);
	for (int i = 0; i < THREADS; i++)
		given += drainers[i].given;
	ck_assert_int_eq(given, rate.count + rate.count * DRAIN_MS / rate.unit_ms);
	token_buckets_free(buckets);
}
END_TEST

/* Takes from the buckets of COUNT sources, which have one token each. Returns the count of tokens; GIVEN has them per
 * source. */
static unsigned take_one_each(struct token_buckets *buckets, uint32_t from, uint32_t count, uint8_t *given)
{
	unsigned sum = 0;
	for (uint32_t i = 0; i < count; i++) {
		struct in6_addr ip = source_of(from + i);
		bool takes = token_bucket_take(buckets, &ip, 1000);
		sum += takes;
		if (given != NULL)
			given[i] = takes;
	}
	return sum;
}

START_TEST(sources_that_collide_share_a_bucket_and_none_is_evicted)
{
	enum { SOURCES = 12 * TOKEN_BUCKETS, VICTIMS = 1000 };
	struct token_buckets *buckets = token_buckets_new((struct token_rate){1, 3600000});

	ck_assert_ptr_nonnull(buckets);
	ck_assert_uint_gt(take_one_each(buckets, 0, VICTIMS, NULL), VICTIMS * 9 / 10);
	unsigned given = take_one_each(buckets, VICTIMS, SOURCES, NULL);
	ck_assert_uint_le(given, TOKEN_BUCKETS);
	ck_assert_uint_gt(given, TOKEN_BUCKETS * 9 / 10); /* e^-12 of the buckets keep their token */
	ck_assert_uint_eq(take_one_each(buckets, 0, VICTIMS, NULL), 0);
	token_buckets_free(buckets);
}
END_TEST

START_TEST(each_array_has_collisions_of_its_own)
{
	enum { SOURCES = TOKEN_BUCKETS };
	static uint8_t given[2][SOURCES];
	unsigned different = 0;

	for (int i = 0; i < 2; i++) {
		struct token_buckets *buckets = token_buckets_new((struct token_rate){1, 3600000});
		ck_assert_ptr_nonnull(buckets);
		unsigned sum = take_one_each(buckets, 0, SOURCES, given[i]);
		ck_assert_uint_gt(sum, SOURCES / 2); /* 1 - 1/e of the sources have a bucket of their own */
		ck_assert_uint_lt(sum, SOURCES * 3 / 4);
		token_buckets_free(buckets);
	}
	for (int i = 0; i < SOURCES; i++)
		different += given[0][i] != given[1][i];
	ck_assert_uint_gt(different, SOURCES / 10);
}
END_TEST

/* --- instances of a configuration --- */

static char directory[64];

static void make_directory(void)
{
	strcpy(directory, "/tmp/check_source.XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(directory));
	ck_assert_int_eq(chdir(directory), 0);
}

static void remove_directory(void)
{
	char command[TEXT_SIZE];
	ck_assert_int_eq(chdir("/"), 0);
	snprintf(command, sizeof command, "rm -rf %s", directory);
	ck_assert_int_eq(system(command), 0);
}

static void write_bytes(const char *path, const char *bytes, size_t length)
{
	FILE *out = fopen(path, "we");
	ck_assert_ptr_nonnull(out);
	ck_assert_uint_eq(fwrite(bytes, 1, length, out), length);
	ck_assert_int_eq(fclose(out), 0);
}

static void write_text(const char *path, const char *text)
{
	write_bytes(path, text, strlen(text));
}

/* Loads TEXT. Stores NULL in CONFIG if there are ERRORS, one per line. */
static void read_config(const char *text, struct config **config, char *errors, size_t size)
{
	struct diagnostics report = {0};
	*config = config_load_memory("f", text, strlen(text), &report);
	ck_assert_int_eq(*config == NULL, report.errors > 0);
	errors[0] = '\0';
	for (size_t i = 0; i < report.count; i++) {
		size_t used = strlen(errors);
		if (!report.messages[i].warning)
			snprintf(errors + used, size - used, "%s\n", report.messages[i].text);
	}
	diagnostics_free(&report);
}

static void assert_errors(const char *text, const char *expected)
{
	char errors[TEXT_SIZE];
	struct config *config;
	read_config(text, &config, errors, sizeof errors);
	config_unref(config);
	ck_assert_str_eq(errors, expected);
}

struct scene {
	struct config *config;
	struct limit_gate gate;
	struct instance_store *store;
	struct generation *generation;
};

static void scene_init(struct scene *scene, const char *text, int64_t maximum)
{
	char errors[TEXT_SIZE];
	read_config(text, &scene->config, errors, sizeof errors);
	ck_assert_msg(scene->config != NULL, "%s", errors);
	limit_gate_init(&scene->gate, maximum);
	struct diagnostics diagnostics = {0};
	scene->store = instance_store_new(&scene->gate, 1, NULL, NULL);
	ck_assert_ptr_nonnull(scene->store);
	scene->generation = generation_new(scene->config, scene->store, maximum, &diagnostics);
	ck_assert_ptr_nonnull(scene->generation);
}

static void scene_clear(struct scene *scene)
{
	generation_free(scene->generation);
	instance_store_free(scene->store);
	config_unref(scene->config);
}

static struct instance *instance_of(const struct scene *scene, size_t service)
{
	return &scene->generation->instances[service];
}

static bool allows(const struct instance *instance, const struct in6_addr *ip)
{
	return instance->acl == NULL || acl_allows(instance->acl, ip);
}

/* --- allow and deny --- */

static const struct {
	const char *rules, *allowed, *denied; /* addresses, separated by spaces */
} meanings[] = {
	{"", "192.0.2.1 ::1 :: 255.255.255.255 0.0.0.0", ""},
	{"allow = none\ndeny = none\nallow_file = none\ndeny_file = none", "192.0.2.1 ::1", ""},
	{"allow = 192.0.2.0/24", "192.0.2.0 192.0.2.255 ::ffff:192.0.2.7", "192.0.3.0 192.0.1.255 ::1 :: ::192.0.2.7"},
	{"deny = 192.0.2.0/24", "192.0.3.0 192.0.1.255 ::1 ::192.0.2.7", "192.0.2.0 192.0.2.255 ::ffff:192.0.2.7"},
	{"allow = 192.0.2.7", "192.0.2.7", "192.0.2.6 192.0.2.8 ::1"},
	{"allow = 2001:db8::/32", "2001:db8::1", "2001:db9:: 192.0.2.1 ::1"},
	{"deny = 2001:db8::/32", "2001:db9:: 192.0.2.1 ::1", "2001:db8::1"},
	/* ::/0 is IPv6 alone, 0.0.0.0/0 IPv4 alone, `all` both */
	{"allow = all", "192.0.2.1 ::1 :: 0.0.0.0", ""},
	{"deny = all", "", "192.0.2.1 ::1 :: 0.0.0.0 255.255.255.255 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"},
	{"allow = ::/0", ":: ::1 2001:db8::1 ::1:0:0:0", "0.0.0.0 192.0.2.1 255.255.255.255"},
	{"deny = ::/0", "0.0.0.0 192.0.2.1 255.255.255.255", ":: ::1 2001:db8::1 ::1:0:0:0"},
	{"allow = 0.0.0.0/0", "0.0.0.0 192.0.2.1 255.255.255.255", ":: ::1 2001:db8::1"},
	{"deny = 0.0.0.0/0", ":: ::1 2001:db8::1", "0.0.0.0 192.0.2.1 255.255.255.255"},
	{"deny = ::/8", "192.0.2.1 100::", "::1 ::fffe:192.0.2.1"},
	{"allow = ::/80", "::1", "192.0.2.1 ::1:0:0:1"},
	{"allow = all\ndeny = ::/0", "192.0.2.1", "::1"},
	{"allow = all\ndeny = 0.0.0.0/0", "::1", "192.0.2.1"},
	{"deny = all\nallow = ::/0", "::1", "192.0.2.1"},
	{"deny = all\nallow = 0.0.0.0/0", "192.0.2.1", "::1"},
	{"deny = all\nallow = ::ffff:0:0/96", "192.0.2.1", "::1"},
	/* the most specific prefix decides, in any order */
	{"deny = 10.0.0.0/8, 10.1.2.3\nallow = 10.1.0.0/16", "10.1.2.4 10.1.0.0", "10.1.2.3 10.2.0.0 11.0.0.0 ::1"},
	{"allow = 10.0.0.0/8\ndeny = 10.1.0.0/16, 10.1.2.0/24\nallow_file = one", "10.2.0.0 10.1.2.3",
	 "10.1.2.4 10.1.3.0"},
	{"deny = all\nallow = 10.0.0.0/8, 2001:db8::/32", "10.0.0.1 2001:db8::1", "192.0.2.1 ::1"},
	{"allow = all\ndeny_file = one", "10.1.2.4 ::1", "10.1.2.3"},
	{"deny_file = one", "10.1.2.4 ::1 10.0.0.0", "10.1.2.3"},
	{"allow_file = one", "10.1.2.3", "10.1.2.4 ::1 10.0.0.0"},
	{"allow_file = lines\ndeny = 10.0.0.7", "10.0.0.1 2001:db8::1 192.0.2.1 192.0.2.2 198.51.100.1",
	 "10.0.0.7 192.0.2.3 2001:db9::"},
	/* an allow_file without prefixes denies all sources */
	{"allow_file = empty", "", "192.0.2.1 ::1"},
	{"allow_file = comments", "", "192.0.2.1 ::1"},
	{"deny_file = empty", "192.0.2.1 ::1", ""},
	{"deny_file = all", "", "192.0.2.1 ::1"},
	/* IPv4-mapped is IPv4 */
	{"allow = ::ffff:10.0.0.0/104", "10.255.0.1", "11.0.0.0 ::1"},
	{"allow = ::ffff:10.0.0.1", "10.0.0.1", "10.0.0.2 ::a00:1"},
};

static void write_lists(void)
{
	write_text("one", "10.1.2.3\n");
	write_text("empty", "");
	write_text("all", "all");
	write_text("comments", "# no prefix\n\n   ; no prefix\n\t\n");
	write_text("lines", "# some\n10.0.0.0/8\n\n  2001:db8::/32\t# documentation\n192.0.2.1 ; one\r\n\t192.0.2.2\t\n"
			    "198.51.100.1"); /* without a newline */
}

static void assert_verdicts(const struct instance *instance, const char *rules, const char *addresses, bool expected)
{
	char list[TEXT_SIZE], *rest = list, *address;
	snprintf(list, sizeof list, "%s", addresses);
	while ((address = strsep(&rest, " ")) != NULL) {
		if (*address == '\0')
			continue;
		struct in6_addr ip = ip_of(address);
		ck_assert_msg(allows(instance, &ip) == expected, "%s: %s is %s", rules, address,
			      expected ? "denied" : "allowed");
	}
}

START_TEST(allow_and_deny_decide_as_documented)
{
	char text[TEXT_SIZE];
	struct scene scene;

	write_lists();
	snprintf(text, sizeof text, "[echo]\n%s\n", meanings[_i].rules);
	scene_init(&scene, text, 100);
	assert_verdicts(instance_of(&scene, 0), meanings[_i].rules, meanings[_i].allowed, true);
	assert_verdicts(instance_of(&scene, 0), meanings[_i].rules, meanings[_i].denied, false);
	scene_clear(&scene);
}
END_TEST

START_TEST(instance_without_rules_has_no_acl)
{
	struct scene scene;
	scene_init(&scene, "[echo]\n[time]\nallow = all\n", 100);
	ck_assert_ptr_null(instance_of(&scene, 0)->acl);
	ck_assert_ptr_nonnull(instance_of(&scene, 1)->acl);
	scene_clear(&scene);
}
END_TEST

/* A rule as documented: for one family, or for both. */
struct plain_rule {
	bool v4, all, allow;
	struct in6_addr ip; /* IPv4 is mapped */
	unsigned length;    /* as written */
};

static struct plain_rule random_rule(uint64_t *state)
{
	static const unsigned lengths[] = {0, 1, 8, 24, 31, 32, 64, 80, 95, 96, 97, 127, 128};
	struct plain_rule rule = {.v4 = below(state, 2), .all = below(state, 8) == 0, .allow = below(state, 2)};
	unsigned bits = rule.v4 ? 32 : 128, skipped = rule.v4 ? 96 : 0;

	rule.ip = ip_of(rule.v4 ? "0.0.0.0" : "::");
	do
		rule.length = lengths[below(state, COUNT_OF(lengths))];
	while (rule.length > bits);
	for (int i = 0; i < 3; i++)
		rule.ip.s6_addr[skipped / 8 + below(state, bits / 8)] = (uint8_t)(below(state, 2) ? 0xff : 0x80);
	for (unsigned bit = skipped + rule.length; bit < 128; bit++)
		rule.ip.s6_addr[bit / 8] &= (uint8_t) ~(0x80 >> bit % 8);
	/* no mapped IPv6, which would be IPv4 */
	if (rule.all || (!rule.v4 && IN6_IS_ADDR_V4MAPPED(&rule.ip)))
		rule = (struct plain_rule){.all = true, .allow = rule.allow, .ip = ip_of("::")};
	return rule;
}

static bool same_rule(const struct plain_rule *a, const struct plain_rule *b)
{
	return a->all == b->all && a->v4 == b->v4 && a->length == b->length && IN6_ARE_ADDR_EQUAL(&a->ip, &b->ip);
}

static bool meets(const struct plain_rule *rule, const struct in6_addr *ip)
{
	unsigned skipped = rule->v4 ? 96 : 0;
	if (rule->all)
		return true;
	if (rule->v4 != (bool)IN6_IS_ADDR_V4MAPPED(ip))
		return false;
	for (unsigned bit = skipped; bit < skipped + rule->length; bit++)
		if ((rule->ip.s6_addr[bit / 8] ^ ip->s6_addr[bit / 8]) >> (7 - bit % 8) & 1)
			return false;
	return true;
}

static bool plainly_allows(const struct plain_rule *rules, size_t count, const struct in6_addr *ip)
{
	const struct plain_rule *best = NULL;
	bool named = false;
	for (size_t i = 0; i < count; i++) {
		named |= rules[i].allow;
		if (meets(&rules[i], ip) &&
		    (best == NULL || best->all || (!rules[i].all && rules[i].length > best->length)))
			best = &rules[i];
	}
	return best != NULL ? best->allow : !named;
}

/* Writes the rules with ALLOW as the value of KEY. */
static void write_rules(char *text, const char *key, const struct plain_rule *rules, size_t count, bool allow)
{
	char literal[INET6_ADDRSTRLEN];
	const char *before = key;
	for (size_t i = 0; i < count; i++) {
		const struct plain_rule *rule = &rules[i];
		if (rule->allow != allow)
			continue;
		text += sprintf(text, before == key ? "%s = " : "%s", before);
		before = ", ";
		if (rule->all)
			text += sprintf(text, "all");
		else
			text += sprintf(text, "%s/%u",
					inet_ntop(rule->v4 ? AF_INET : AF_INET6, &rule->ip.s6_addr[rule->v4 ? 12 : 0],
						  literal, sizeof literal),
					rule->length);
	}
	if (before != key)
		strcpy(text, "\n");
}

static void assert_ends(const struct instance *instance, const struct plain_rule *rules, size_t count, const char *text,
			struct in6_addr ip)
{
	/* the address itself, and with one bit flipped */
	for (unsigned flip = 0; flip <= 4; flip++) {
		static const struct {
			unsigned byte;
			uint8_t bits;
		} flips[] = {{15, 0}, {15, 1}, {15, 0x80}, {12, 0x80}, {0, 0x80}};
		struct in6_addr flipped = ip;
		char literal[INET6_ADDRSTRLEN];
		flipped.s6_addr[flips[flip].byte] ^= flips[flip].bits;
		ck_assert_msg(allows(instance, &flipped) == plainly_allows(rules, count, &flipped), "%s%s", text,
			      inet_ntop(AF_INET6, &flipped, literal, sizeof literal));
	}
}

START_TEST(random_lists_decide_as_a_naive_model)
{
	enum { ROUNDS = 500, RULES_MAX = 12 };
	uint64_t state = 1;

	for (int round = 0; round < ROUNDS; round++) {
		struct plain_rule rules[RULES_MAX];
		size_t count = 0;
		char text[TEXT_SIZE] = "[echo]\n";
		struct scene scene;

		for (unsigned wanted = 1 + below(&state, RULES_MAX); wanted > 0; wanted--) {
			struct plain_rule rule = random_rule(&state);
			bool there = false;
			for (size_t i = 0; i < count; i++)
				there |= same_rule(&rules[i], &rule);
			if (!there)
				rules[count++] = rule;
		}
		write_rules(text + strlen(text), "allow", rules, count, true);
		write_rules(text + strlen(text), "deny", rules, count, false);
		scene_init(&scene, text, 100);
		for (size_t i = 0; i < count; i++)
			assert_ends(instance_of(&scene, 0), rules, count, text, rules[i].ip);
		assert_ends(instance_of(&scene, 0), rules, count, text, ip_of("0.0.0.0"));
		assert_ends(instance_of(&scene, 0), rules, count, text, ip_of("::"));
		assert_ends(instance_of(&scene, 0), rules, count, text, ip_of("::fffe:ffff:ffff"));
		scene_clear(&scene);
	}
}
END_TEST

static const struct {
	const char *text, *errors;
} conflicts[] = {
	{"[echo]\nallow = 10.0.0.0/8\ndeny = 10.0.0.0/8\n", "f:3: [echo] deny: 10.0.0.0/8 is in allow too\n"},
	{"[echo]\ndeny = 10.0.0.0/8\nallow = 10.0.0.0/8\n", "f:2: [echo] deny: 10.0.0.0/8 is in allow too\n"},
	{"[echo]\ndeny = all\nallow = all\n", "f:2: [echo] deny: all is in allow too\n"},
	{"[echo]\ndeny = ::/0\nallow = ::/0\n", "f:2: [echo] deny: ::/0 is in allow too\n"},
	{"[echo]\ndeny = 10.0.0.1\nallow = 10.0.0.1/32\n", "f:2: [echo] deny: 10.0.0.1/32 is in allow too\n"},
	{"[echo]\ndeny = 10.0.0.0/8\nallow = ::ffff:10.0.0.0/104\n", "f:2: [echo] deny: 10.0.0.0/8 is in allow too\n"},
	{"[echo]\nallow_file = one\ndeny = 10.1.2.3\n", "f:3: [echo] deny: 10.1.2.3/32 is in allow_file too\n"},
	{"[echo]\nallow = 10.1.2.3\ndeny_file = one\n", "f:3: [echo] deny_file: 10.1.2.3/32 is in allow too\n"},
	{"[echo]\nallow_file = one\ndeny_file = one\n", "f:3: [echo] deny_file: 10.1.2.3/32 is in allow_file too\n"},
	{"[defaults]\nallow = 10.0.0.0/8\n[echo]\ndeny = 10.0.0.0/8\n",
	 "f:4: [echo] deny: 10.0.0.0/8 is in allow too\n"},
	/* different prefixes, and duplicates within a list */
	{"[echo]\nallow = all\ndeny = ::/0, 0.0.0.0/0\n", ""},
	{"[echo]\nallow = 10.0.0.0/8\ndeny = 10.0.0.0/9, 10.0.0.0/7, a00::/8\n", ""},
	{"[echo]\nallow = 10.1.2.3, 10.1.2.3\nallow_file = one\n", ""},
};

START_TEST(prefix_in_allow_and_deny_is_an_error)
{
	write_lists();
	assert_errors(conflicts[_i].text, conflicts[_i].errors);
}
END_TEST

/* --- files --- */

static void assert_file_error(const char *bytes, size_t length, const char *expected)
{
	char errors[TEXT_SIZE];
	write_bytes("list", bytes, length);
	snprintf(errors, sizeof errors, "f:2: [echo] allow_file: %s\n", expected);
	assert_errors("[echo]\nallow_file = list\n", *expected != '\0' ? errors : "");
	snprintf(errors, sizeof errors, "f:3: [echo] deny_file: %s\n", expected);
	assert_errors("[echo]\nprotocol = udp\ndeny_file = list\n", *expected != '\0' ? errors : "");
}

START_TEST(error_in_a_prefix_file_names_its_line)
{
	static const struct {
		const char *text, *error;
	} files[] = {
		{"10.0.0.0/8\n\n# 3\n10.0.0.1/8\n",
		 "list:4: \"10.0.0.1/8\" has bits beyond its length: write 10.0.0.0/8"},
		{"10.0.0.0/33", "list:1: \"10.0.0.0/33\": a prefix has 0 to 32 bits"},
		{"::/129\n", "list:1: \"::/129\": a prefix has 0 to 128 bits"},
		{"\n\n10.0.0.0/8 10.1.0.0/16\n", "list:3: \"10.0.0.0/8 10.1.0.0/16\": a prefix has 0 to 32 bits"},
		{"10.0.0.0/8, 10.1.0.0/16\n", "list:1: \"10.0.0.0/8, 10.1.0.0/16\": a prefix has 0 to 32 bits"},
		{"10.0.0.1#\n",
		 "list:1: \"10.0.0.1#\" is neither an address nor a prefix: write 192.0.2.1, 192.0.2.0/24, "
		 "2001:db8::/32 or all"},
		{"localhost\n",
		 "list:1: \"localhost\" is neither an address nor a prefix: write 192.0.2.1, 192.0.2.0/24, "
		 "2001:db8::/32 or all"},
		{"ALL\n", "list:1: \"ALL\" is neither an address nor a prefix: write 192.0.2.1, 192.0.2.0/24, "
			  "2001:db8::/32 or all"},
		{"10.0.0.0/8\r\n10.1.0.0/16\r\n", ""},
	};
	for (size_t i = 0; i < COUNT_OF(files); i++)
		assert_file_error(files[i].text, strlen(files[i].text), files[i].error);
}
END_TEST

START_TEST(all_errors_in_a_prefix_file_are_reported)
{
	static const char text[] = "10.0.0.0/8\nx\n10.1.2.3/8\n\n::/129\n";
	write_bytes("list", text, strlen(text));
	assert_errors("[echo]\nallow_file = list\n",
		      "f:2: [echo] allow_file: list:2: \"x\" is neither an address nor a prefix: write 192.0.2.1, "
		      "192.0.2.0/24, "
		      "2001:db8::/32 or all\n"
		      "f:2: [echo] allow_file: list:3: \"10.1.2.3/8\" has bits beyond its length: write 10.0.0.0/8\n"
		      "f:2: [echo] allow_file: list:5: \"::/129\": a prefix has 0 to 128 bits\n");
}
END_TEST

START_TEST(long_line_of_a_prefix_file_is_not_truncated)
{
	char text[TEXT_SIZE];
	const char comment[] = "\n10.0.0.0/8 #";

	strcpy(text, comment);
	memset(text + strlen(comment), '-', 1100);
	strcpy(text + strlen(comment) + 1100, "\n10.1.0.0/33\n");
	assert_file_error(text, strlen(text), "list:3: \"10.1.0.0/33\": a prefix has 0 to 32 bits");

	memset(text, ' ', 900);
	strcpy(text + 900, "10.0.0.0/8\n");
	assert_file_error(text, strlen(text), "");
}
END_TEST

START_TEST(nul_byte_in_a_prefix_file_is_an_error)
{
	static const char *const texts[] = {"10.0.0.0/8\0nonsense\n", "\0"
								      "10.0.0.0/8 is not read\n"};
	for (size_t i = 0; i < COUNT_OF(texts); i++) {
		char errors[TEXT_SIZE];
		struct config *config;
		write_bytes("list", texts[i], 20);
		read_config("[echo]\nallow_file = list\n", &config, errors, sizeof errors);
		config_unref(config);
		ck_assert_msg(strncmp(errors, "f:2: [echo] allow_file: list:1: ", 32) == 0, "%s",
			      *errors != '\0' ? errors : "no error");
	}
}
END_TEST

START_TEST(unreadable_prefix_file_is_an_error)
{
	ck_assert_int_eq(mkdir("folder", 0777), 0);
	ck_assert_int_eq(mkfifo("fifo", 0600), 0); /* a FIFO without a writer, which must not block */
	assert_errors("[echo]\nallow_file = fifo\n", "f:2: [echo] allow_file: fifo: not a regular file\n");
	assert_errors("[echo]\ndeny_file = /dev/zero\n", "f:2: [echo] deny_file: /dev/zero: not a regular file\n");
	assert_errors("[echo]\ndeny_file = /dev/null\n", "");
	assert_errors("[echo]\nallow_file = nowhere\n", "f:2: [echo] allow_file: nowhere: No such file or directory\n");
	assert_errors("[echo]\ndeny_file = folder\n", "f:2: [echo] deny_file: folder: Is a directory\n");
	assert_errors("[defaults]\ndeny_file = nowhere\n[echo]\n[time]\ndeny_file = none\n",
		      "f:2: [echo] deny_file: nowhere: No such file or directory\n");
}
END_TEST

START_TEST(disabled_service_does_not_read_its_files)
{
	assert_errors("[echo]\nenabled = no\nallow_file = nowhere\ndeny_file = nowhere\n[time]\n", "");
	assert_errors("[qotd]\nenabled = no\nquotes_file = nowhere\n[time]\n", "");
	assert_errors("[defaults]\nallow_file = nowhere\n[echo]\nenabled = no\n[time]\nallow_file = none\n", "");
	assert_errors("[echo]\nenabled = no\nallow = 10.0.0.1/8\n[time]\n",
		      "f:3: [echo] allow: \"10.0.0.1/8\" has bits beyond its length: write 10.0.0.0/8\n");
}
END_TEST

static double seconds_now(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

struct network {
	char text[32];
};

/* Returns the network with NUMBER, with END appended. */
static struct network network_of(unsigned number, bool v6, const char *end_v4, const char *end_v6)
{
	struct network network;
	if (v6)
		snprintf(network.text, sizeof network.text, "2001:db8:%x:%s", number, end_v6);
	else
		snprintf(network.text, sizeof network.text, "10.%u.%u.%s", number / 256 % 256, number % 256, end_v4);
	return network;
}

/* Prints the cost. The limit is loose, for slow machines. */
START_TEST(file_of_ten_thousand_prefixes_loads_fast)
{
	enum { LIMIT_S = 10 };
	struct scene scene;
	FILE *out = fopen("many", "we");

	ck_assert_ptr_nonnull(out);
	for (unsigned i = 0; i < LINES; i++)
		fprintf(out, "%s\n", network_of(i, i % 2, "0/24", ":/48").text);
	fclose(out);
	double began = seconds_now();
	scene_init(&scene, "[echo]\nallow_file = many\n", 100);
	double took = seconds_now() - began;
	dprintf(STDOUT_FILENO, "# a file of %d prefixes is loaded, checked and compiled in %.1f ms\n", LINES,
		took * 1e3);
	ck_assert_uint_eq(scene.config->services[0].allow_file.prefixes.count, LINES);
	for (unsigned i = 0; i < LINES; i++) {
		struct in6_addr inside = ip_of(network_of(i, i % 2, "9", ":9").text);
		struct in6_addr outside = ip_of(network_of(i, !(i % 2), "9", ":9").text);
		ck_assert_msg(allows(instance_of(&scene, 0), &inside), "one of line %u is denied", i + 1);
		ck_assert_msg(!allows(instance_of(&scene, 0), &outside), "one unlike line %u is allowed", i + 1);
	}
	ck_assert_double_lt(took, LIMIT_S);
	scene_clear(&scene);
}
END_TEST

/* --- values --- */

static const struct option rate = {.type = &option_rate, .word = "unlimited"};
static const struct option source_prefix = {.type = &option_source_prefix};
static const struct option prefixes = {.type = &option_prefixes, .word = "none"};
static const struct option prefix_file = {.type = &option_prefix_file, .word = "none"};
static const struct option port_set = {.type = &option_port_set, .word = "none"};

union field {
	struct token_rate rate;
	struct option_source_prefix source_prefix;
	struct option_prefixes prefixes;
	struct option_prefix_file prefix_file;
	struct option_ports ports;
	char bytes[64];
};

/* Parses VALUE and prints it again, or `!` and the error. */
static void read_and_print(const struct option *option, const char *value, char *printed, size_t size)
{
	union field field = {.bytes = {0}};
	char error[OPTION_ERROR_SIZE] = "no reason given";
	FILE *out = fmemopen(printed, size, "w");

	ck_assert_ptr_nonnull(out);
	if (option->type->parse(option, value, &field, error)) {
		option->type->print(option, &field, out);
		if (option->type->free != NULL)
			option->type->free(&field);
	} else {
		fprintf(out, "!%s", error);
	}
	fclose(out);
}

#define NO_RATE    "!must be a rate of 1 to 1000000 a second, minute or hour, as 50/s or 600/m, or unlimited, not "
#define NO_LENGTHS "!must be two prefix lengths, for IPv4 and IPv6, as /32, /64, not "
#define NO_PREFIX  " is neither an address nor a prefix: write 192.0.2.1, 192.0.2.0/24, 2001:db8::/32 or all"

static const struct {
	const struct option *option;
	const char *value, *printed;
} values[] = {
	{&rate, "50/s", "50/s"},
	{&rate, "600/m", "600/m"},
	{&rate, "1/h", "1/h"},
	{&rate, "007/h", "7/h"},
	{&rate, "60/m", "60/m"},
	{&rate, "1000000/s", "1000000/s"},
	{&rate, "unlimited", "unlimited"},
	{&rate, "1000001/s", NO_RATE "\"1000001/s\""},
	{&rate, "99999999999999999999/s", NO_RATE "\"99999999999999999999/s\""},
	{&rate, "0/s", NO_RATE "\"0/s\""},
	{&rate, "-1/s", NO_RATE "\"-1/s\""},
	{&rate, "50", NO_RATE "\"50\""},
	{&rate, "50/", NO_RATE "\"50/\""},
	{&rate, "/s", NO_RATE "\"/s\""},
	{&rate, "50/d", NO_RATE "\"50/d\""},
	{&rate, "50/ms", NO_RATE "\"50/ms\""},
	{&rate, "50/s ", NO_RATE "\"50/s \""},
	{&rate, "50 /s", NO_RATE "\"50 /s\""},
	{&rate, "1.5/s", NO_RATE "\"1.5/s\""},
	{&rate, "off", NO_RATE "\"off\""},

	{&source_prefix, "/32, /64", "/32, /64"},
	{&source_prefix, "/24,/48", "/24, /48"},
	{&source_prefix, "/0 , /0", "/0, /0"},
	{&source_prefix, "/32,\t/128", "/32, /128"},
	{&source_prefix, "/33, /64", NO_LENGTHS "\"/33, /64\""},
	{&source_prefix, "/32, /129", NO_LENGTHS "\"/32, /129\""},
	{&source_prefix, "/32", NO_LENGTHS "\"/32\""},
	{&source_prefix, "/32,", NO_LENGTHS "\"/32,\""},
	{&source_prefix, ", /64", NO_LENGTHS "\", /64\""},
	{&source_prefix, "32, 64", NO_LENGTHS "\"32, 64\""},
	{&source_prefix, "/32, /64, /1", NO_LENGTHS "\"/32, /64, /1\""},
	{&source_prefix, "/00000024, /64", NO_LENGTHS "\"/00000024, /64\""},
	{&source_prefix, "/-1, /64", NO_LENGTHS "\"/-1, /64\""},

	{&prefixes, "none", "none"},
	{&prefixes, "all", "all"},
	{&prefixes, "192.0.2.1", "192.0.2.1/32"},
	{&prefixes, "192.0.2.0/24,2001:DB8::/32 , ::1, all", "192.0.2.0/24, 2001:db8::/32, ::1/128, all"},
	{&prefixes, "0.0.0.0/0, ::/0", "0.0.0.0/0, ::/0"},
	{&prefixes, "::ffff:192.0.2.0/120", "192.0.2.0/24"},
	{&prefixes, "::ffff:0:0/96", "0.0.0.0/0"},
	{&prefixes, "::ffff:192.0.2.1", "192.0.2.1/32"},
	{&prefixes, "::192.0.2.1", "::192.0.2.1/128"},
	{&prefixes, "0:0:0:0:0:0:0:1/128", "::1/128"},
	{&prefixes, "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/128"},
	{&prefixes, "192.0.2.1/24", "!\"192.0.2.1/24\" has bits beyond its length: write 192.0.2.0/24"},
	{&prefixes, "2001:db8::1/64", "!\"2001:db8::1/64\" has bits beyond its length: write 2001:db8::/64"},
	{&prefixes, "::ffff:192.0.2.1/120", "!\"::ffff:192.0.2.1/120\" has bits beyond its length: write 192.0.2.0/24"},
	{&prefixes, "192.0.2.0/33", "!\"192.0.2.0/33\": a prefix has 0 to 32 bits"},
	{&prefixes, "2001:db8::/129", "!\"2001:db8::/129\": a prefix has 0 to 128 bits"},
	{&prefixes, "192.0.2.0/", "!\"192.0.2.0/\": a prefix has 0 to 32 bits"},
	{&prefixes, "192.0.2.0/-1", "!\"192.0.2.0/-1\": a prefix has 0 to 32 bits"},
	{&prefixes, "192.0.2.0/24/24", "!\"192.0.2.0/24/24\": a prefix has 0 to 32 bits"},
	{&prefixes, "192.0.2.0/255.255.255.0", "!\"192.0.2.0/255.255.255.0\": a prefix has 0 to 32 bits"},
	{&prefixes, "192.0.2", "!\"192.0.2\"" NO_PREFIX},
	{&prefixes, "192.0.2.256", "!\"192.0.2.256\"" NO_PREFIX},
	{&prefixes, "*", "!\"*\"" NO_PREFIX},
	{&prefixes, "fe80::1%eth0", "!\"fe80::1%eth0\"" NO_PREFIX},
	{&prefixes, "[::1]", "!\"[::1]\"" NO_PREFIX},
	{&prefixes, "example.com", "!\"example.com\"" NO_PREFIX},
	{&prefixes, "all, none", "!\"none\"" NO_PREFIX},
	{&prefixes, "all,", "!empty item in a list"},
	{&prefixes, "192.0.2.1, , ::1", "!empty item in a list"},
	{&prefixes, "192.0.2.1 ::1", "!\"192.0.2.1 ::1\"" NO_PREFIX},

	{&prefix_file, "none", "none"},
	{&prefix_file, "/etc/allowed", "/etc/allowed"},
	{&prefix_file, "\"none\"", "\"none\""},
	{&prefix_file, "\"a ; b\"", "\"a ; b\""},
	{&prefix_file, "\"\"", "!must not be empty"},

	{&port_set, "none", "none"},
	{&port_set, "0-1023, 2049", "0-1023, 2049"},
	{&port_set, "0", "0"},
	{&port_set, "0-65535", "0-65535"},
	{&port_set, "5,3,4", "5, 3, 4"},
	{&port_set, "0-1023, 53", "!port 53 is listed twice"},
	{&port_set, "65536", "!ports are 0 to 65535, not \"65536\""},
	{&port_set, "9-7", "!a range starts with its lower port: write 7-9"},
	{&port_set, "none, 5", "!\"none\" is neither a port nor a name in services(5)"},
};

START_TEST(value_is_printed_in_its_canonical_form_or_rejected)
{
	char printed[TEXT_SIZE] = "", again[TEXT_SIZE] = "";
	read_and_print(values[_i].option, values[_i].value, printed, sizeof printed);
	ck_assert_str_eq(printed, values[_i].printed);
	if (printed[0] == '!')
		return;
	read_and_print(values[_i].option, printed, again, sizeof again);
	ck_assert_str_eq(again, printed);
}
END_TEST

static void dump(const char *text, char *dumped, size_t size)
{
	char errors[TEXT_SIZE];
	struct config *config;
	read_config(text, &config, errors, sizeof errors);
	ck_assert_msg(config != NULL, "%s", errors);
	FILE *out = fmemopen(dumped, size, "w");
	ck_assert_ptr_nonnull(out);
	config_dump(config, out);
	fclose(out);
	config_unref(config);
}

START_TEST(dump_of_all_limits_is_read_back_unchanged)
{
	static const char text[] = "[echo]\n"
				   "max_connections_per_source = 7\n"
				   "connection_rate = 600/m\n"
				   "datagram_rate = 5/h\n"
				   "source_prefix = /24, /48\n"
				   "allow = all, 10.0.0.0/8, 2001:db8::/32\n"
				   "deny = ::/0, 192.0.2.1\n"
				   "allow_file = one\n"
				   "deny_file = comments\n"
				   "refuse_source_ports = 0-1023, 5000\n"
				   "[time]\n"
				   "max_connections_per_source = unlimited\n"
				   "refuse_source_ports = none\n";
	static char first[4 * TEXT_SIZE], second[4 * TEXT_SIZE];

	write_lists();
	dump(text, first, sizeof first);
	dump(first, second, sizeof second);
	ck_assert_str_eq(first, second);
	ck_assert_ptr_nonnull(strstr(first, "\nmax_connections_per_source = 7\n"));
	ck_assert_ptr_nonnull(strstr(first, "\nconnection_rate = 600/m\n"));
	ck_assert_ptr_nonnull(strstr(first, "\ndatagram_rate = 5/h\n"));
	ck_assert_ptr_nonnull(strstr(first, "\nsource_prefix = /24, /48\n"));
	ck_assert_ptr_nonnull(strstr(first, "\nallow = all, 10.0.0.0/8, 2001:db8::/32\n"));
	ck_assert_ptr_nonnull(strstr(first, "\ndeny = ::/0, 192.0.2.1/32\n"));
	ck_assert_ptr_nonnull(strstr(first, "\nallow_file = one\n"));
	ck_assert_ptr_nonnull(strstr(first, "\ndeny_file = comments\n"));
	ck_assert_ptr_nonnull(strstr(first, "\nrefuse_source_ports = 0-1023, 5000\n"));
	ck_assert_ptr_nonnull(strstr(first, "\nmax_connections_per_source = unlimited\n"));
	ck_assert_ptr_nonnull(strstr(first, "\nrefuse_source_ports = none\n"));
}
END_TEST

START_TEST(limits_of_the_other_transport_are_errors)
{
	assert_errors("[echo]\nprotocol = tcp\ndatagram_rate = 5/s\nrefuse_source_ports = none\n",
		      "f:3: [echo] datagram_rate: does not fit protocol = tcp\n"
		      "f:4: [echo] refuse_source_ports: does not fit protocol = tcp\n");
	assert_errors("[echo]\nprotocol = udp\nconnection_rate = 5/s\nmax_connections_per_source = 5\n",
		      "f:3: [echo] connection_rate: does not fit protocol = udp\n"
		      "f:4: [echo] max_connections_per_source: does not fit protocol = udp\n");
	assert_errors("[daemon]\nallow = all\n[echo]\n",
		      "f:2: [daemon] allow: belongs in a service or in [defaults]\n");
}
END_TEST

START_TEST(keys_of_other_programs_get_a_suggestion)
{
	assert_errors("[echo]\nonly_from = all\nno_access = all\ncps = 50\n",
		      "f:2: [echo] only_from: unknown key; did you mean \"allow\"?\n"
		      "f:3: [echo] no_access: unknown key; did you mean \"deny\"?\n"
		      "f:4: [echo] cps: unknown key; did you mean \"connection_rate\"?\n");
}
END_TEST

/* --- limits of an instance --- */

START_TEST(amplifying_services_have_a_datagram_rate_by_default)
{
	static const char text[] = "[echo]\n[discard]\n[chargen]\n[daytime]\n[time]\n[qotd]\nquotes_file = quotes\n"
				   "[my-time]\ntype = time\nport = 1037\ndatagram_rate = unlimited\n"
				   "[my-echo]\ntype = echo\nport = 1007\ndatagram_rate = 5/m\n"
				   "[tcp-time]\ntype = time\nprotocol = tcp\nport = 1038\n";
	struct scene scene;

	write_text("quotes", "Well begun is half done.\n");
	scene_init(&scene, text, 100);
	for (size_t i = 0; i < scene.config->service_count; i++) {
		const struct config_service *service = &scene.config->services[i];
		bool limited = service->type->amplifies, own = strncmp(service->name, "my-", 3) == 0;
		if (strcmp(service->name, "tcp-time") == 0) {
			ck_assert_ptr_null(instance_of(&scene, i)->datagram_buckets);
			continue;
		}
		if (own)
			limited = !limited;
		ck_assert_int_eq(service->datagram_rate.count, !limited ? 0 : own ? 5 : 100);
		ck_assert_int_eq(service->datagram_rate.unit_ms, !limited ? 0 : own ? 60000 : 1000);
		ck_assert_int_eq(instance_of(&scene, i)->datagram_buckets != NULL, limited);
		ck_assert_int_eq(service->connection_rate.count, 0);
		ck_assert_ptr_null(instance_of(&scene, i)->connection_buckets);
	}
	scene_clear(&scene);
	scene_init(&scene, "[defaults]\ndatagram_rate = 7/s\n[echo]\n[time]\n", 100);
	ck_assert_int_eq(scene.config->services[0].datagram_rate.count, 7);
	ck_assert_int_eq(scene.config->services[1].datagram_rate.count, 7);
	scene_clear(&scene);
}
END_TEST

START_TEST(instance_has_the_configured_rates)
{
	struct in6_addr ip = ip_of("192.0.2.1");
	struct scene scene;

	scene_init(&scene, "[echo]\nconnection_rate = 3/m\ndatagram_rate = 5/h\n", 100);
	ck_assert_uint_eq(take_all(instance_of(&scene, 0)->connection_buckets, &ip, 1000), 3);
	ck_assert_uint_eq(take_all(instance_of(&scene, 0)->connection_buckets, &ip, 61000), 3);
	ck_assert_uint_eq(take_all(instance_of(&scene, 0)->datagram_buckets, &ip, 1000), 5);
	ck_assert_uint_eq(take_all(instance_of(&scene, 0)->datagram_buckets, &ip, 61000), 0);
	scene_clear(&scene);
}
END_TEST

START_TEST(source_limit_is_half_of_the_daemons_connections_by_default)
{
	static const char text[] = "[echo]\n"
				   "[time]\nmax_connections_per_source = 7\n"
				   "[discard]\nmax_connections_per_source = unlimited\n"
				   "[daytime]\nprotocol = udp\n"
				   "[chargen]\nmax_connections_per_source = auto\n";
	static const int64_t maxima[] = {1000, 3, 2, 1};
	for (size_t i = 0; i < COUNT_OF(maxima); i++) {
		struct scene scene;
		int64_t half = maxima[i] / 2 > 0 ? maxima[i] / 2 : 1;
		scene_init(&scene, text, maxima[i]);
		ck_assert_int_eq(instance_of(&scene, 0)->source_maximum, half);
		ck_assert_int_eq(instance_of(&scene, 1)->source_maximum, 7);
		ck_assert_ptr_null(instance_of(&scene, 2)->sources);
		ck_assert_ptr_null(instance_of(&scene, 3)->sources);
		ck_assert_int_eq(instance_of(&scene, 4)->source_maximum, half);
		/* counted over all services: a source cannot take all slots by a few services */
		ck_assert_ptr_eq(instance_of(&scene, 0)->sources, instance_of(&scene, 4)->sources);
		ck_assert_ptr_ne(instance_of(&scene, 0)->sources, instance_of(&scene, 1)->sources);
		scene_clear(&scene);
	}
}
END_TEST

static void assert_one_source(const char *lengths, const char *address, const char *expected)
{
	char text[TEXT_SIZE];
	struct in6_addr ip = ip_of(address), prefix = ip_of(expected);
	struct scene scene;

	snprintf(text, sizeof text, "[echo]\n%s%s\n", *lengths != '\0' ? "source_prefix = " : "", lengths);
	scene_init(&scene, text, 100);
	struct admission_source source = admission_examine(instance_of(&scene, 0), &ip);
	ck_assert_mem_eq(&source.prefix, &prefix, sizeof prefix);
	scene_clear(&scene);
}

START_TEST(source_prefix_defines_one_source)
{
	assert_one_source("", "192.0.2.1", "192.0.2.1");
	assert_one_source("", "2001:db8:1:2:3:4:5:6", "2001:db8:1:2::");
	assert_one_source("/24, /48", "192.0.2.1", "192.0.2.0");
	assert_one_source("/24, /48", "2001:db8:1:2:3:4:5:6", "2001:db8:1::");
	assert_one_source("/32, /128", "2001:db8:1:2:3:4:5:6", "2001:db8:1:2:3:4:5:6");
	/* all addresses of a family, never of both */
	assert_one_source("/0, /0", "192.0.2.1", "0.0.0.0");
	assert_one_source("/0, /0", "2001:db8::1", "::");
	assert_one_source("/0, /64", "::ffff:192.0.2.1", "0.0.0.0");
}
END_TEST

static void assert_refused(const struct instance *instance, unsigned first, unsigned last, bool refused)
{
	for (unsigned port = first; port <= last; port++)
		if (instance_refuses_port(instance, (uint16_t)port) != refused)
			ck_abort_msg("port %u", port);
}

START_TEST(refused_ports_are_the_configured_and_the_served_ones)
{
	static const char text[] = "[echo]\n"
				   "[time]\nrefuse_source_ports = none\n"
				   "[discard]\nrefuse_source_ports = 5000-5010\n"
				   "[daytime]\nprotocol = tcp\n";
	struct port_set *served = calloc(1, sizeof *served);
	struct scene scene;

	ck_assert_ptr_nonnull(served);
	scene_init(&scene, text, 100);
	port_set_add(served, 10007);
	port_set_add(served, 65535);
	generation_refuse_ports(scene.generation, served);
	free(served);

	const struct instance *echo = instance_of(&scene, 0), *discard = instance_of(&scene, 2);
	assert_refused(echo, 0, 1023, true);
	assert_refused(echo, 1024, 2048, false);
	assert_refused(echo, 2049, 2049, true);
	assert_refused(echo, 2050, 10006, false);
	assert_refused(echo, 10007, 10007, true);
	assert_refused(echo, 10008, 65534, false);
	assert_refused(echo, 65535, 65535, true);
	assert_refused(instance_of(&scene, 1), 0, 65535, false); /* none: the served ports are not refused either */
	assert_refused(discard, 0, 4999, false);
	assert_refused(discard, 5000, 5010, true);
	assert_refused(discard, 5011, 10006, false);
	assert_refused(discard, 10007, 10007, true);
	ck_assert_ptr_null(instance_of(&scene, 3)->refused_ports);
	scene_clear(&scene);
}
END_TEST

static Suite *suite(void)
{
	Suite *suite = suite_create("source");
	TCase *limits = tcase_create("limits");
	tcase_set_timeout(limits, 120);
	tcase_add_test(limits, sources_have_slots_of_their_own);
	tcase_add_test(limits, source_never_has_more_slots_than_its_maximum_under_threads);
	tcase_add_test(limits, threads_fill_all_sources_exactly_to_their_maximum);
	tcase_add_test(limits, hundred_thousand_sources_are_limited_and_their_memory_is_freed);
	suite_add_tcase(suite, limits);

	TCase *rates = tcase_create("rates");
	tcase_set_timeout(rates, 120);
	tcase_add_loop_test(rates, bucket_gives_the_same_tokens_as_a_naive_model, 0, COUNT_OF(even_rates));
	tcase_add_loop_test(rates, full_bucket_has_the_tokens_of_one_unit, 0,
			    COUNT_OF(even_rates) + COUNT_OF(odd_rates));
	tcase_add_loop_test(rates, emptied_bucket_gives_its_rate, 0, COUNT_OF(even_rates) + COUNT_OF(odd_rates));
	tcase_add_test(rates, no_window_has_more_tokens_than_a_bucket_and_its_rate);
	tcase_add_test(rates, clock_that_goes_back_gives_no_token);
	tcase_add_test(rates, threads_that_share_a_bucket_get_its_exact_rate);
	tcase_add_test(rates, sources_that_collide_share_a_bucket_and_none_is_evicted);
	tcase_add_test(rates, each_array_has_collisions_of_its_own);
	suite_add_tcase(suite, rates);

	TCase *rules = tcase_create("rules");
	tcase_set_timeout(rules, 120);
	tcase_add_checked_fixture(rules, make_directory, remove_directory);
	tcase_add_loop_test(rules, allow_and_deny_decide_as_documented, 0, COUNT_OF(meanings));
	tcase_add_test(rules, instance_without_rules_has_no_acl);
	tcase_add_test(rules, random_lists_decide_as_a_naive_model);
	tcase_add_loop_test(rules, prefix_in_allow_and_deny_is_an_error, 0, COUNT_OF(conflicts));
	suite_add_tcase(suite, rules);

	TCase *files = tcase_create("files");
	tcase_set_timeout(files, 120);
	tcase_add_checked_fixture(files, make_directory, remove_directory);
	tcase_add_test(files, error_in_a_prefix_file_names_its_line);
	tcase_add_test(files, all_errors_in_a_prefix_file_are_reported);
	tcase_add_test(files, long_line_of_a_prefix_file_is_not_truncated);
	tcase_add_test(files, nul_byte_in_a_prefix_file_is_an_error);
	tcase_add_test(files, unreadable_prefix_file_is_an_error);
	tcase_add_test(files, disabled_service_does_not_read_its_files);
	tcase_add_test(files, file_of_ten_thousand_prefixes_loads_fast);
	suite_add_tcase(suite, files);

	TCase *options = tcase_create("values");
	tcase_add_checked_fixture(options, make_directory, remove_directory);
	tcase_add_loop_test(options, value_is_printed_in_its_canonical_form_or_rejected, 0, COUNT_OF(values));
	tcase_add_test(options, dump_of_all_limits_is_read_back_unchanged);
	tcase_add_test(options, limits_of_the_other_transport_are_errors);
	tcase_add_test(options, keys_of_other_programs_get_a_suggestion);
	suite_add_tcase(suite, options);

	TCase *services = tcase_create("services");
	tcase_add_checked_fixture(services, make_directory, remove_directory);
	tcase_add_test(services, amplifying_services_have_a_datagram_rate_by_default);
	tcase_add_test(services, instance_has_the_configured_rates);
	tcase_add_test(services, source_limit_is_half_of_the_daemons_connections_by_default);
	tcase_add_test(services, source_prefix_defines_one_source);
	tcase_add_test(services, refused_ports_are_the_configured_and_the_served_ones);
	suite_add_tcase(suite, services);
	return suite;
}

int main(void)
{
	return check_run(suite());
}
