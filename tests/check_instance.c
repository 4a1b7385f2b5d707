/* check_instance.c: state of a service that outlives a generation. */
#include "check_net.h"
#include "check_run.h"
#include "check_stderr.h"
#include "net/instance.h"

enum { MAXIMUM = 100, WORKERS = 2 };

static struct limit_gate gate;
static struct instance_store *store;

static void setup(void)
{
	stderr_begin();
	limit_gate_init(&gate, MAXIMUM);
	store = instance_store_new(&gate, WORKERS, NULL, NULL);
	ck_assert_ptr_nonnull(store);
}

static void teardown(void)
{
	instance_store_free(store);
	stderr_end();
}

static struct generation *make(const char *ini)
{
	struct diagnostics diagnostics = {0};
	struct config *config = host_read(ini);
	struct generation *generation = generation_new(config, store, MAXIMUM, &diagnostics);
	ck_assert_ptr_nonnull(generation);
	config_unref(config);
	return generation;
}

static struct instance *instance_of(const struct generation *generation, const char *name)
{
	struct instance *instance = generation_find(generation, name);
	ck_assert_ptr_nonnull(instance);
	return instance;
}

#define ECHO  "[echo]\naddress = 127.0.0.1\nport = 0\n"
#define OTHER "[other]\ntype = echo\naddress = 127.0.0.1\nport = 0\n"

START_TEST(instances_of_one_name_share_limits_and_counters)
{
	struct generation *first = make(ECHO "max_connections_per_source = 3\n" OTHER);
	struct generation *second = make(OTHER ECHO "max_connections_per_source = 5\nidle_timeout = 1h\n");
	struct instance *before = instance_of(first, "echo"), *after = instance_of(second, "echo");
	ck_assert_ptr_ne(before, after);
	ck_assert_ptr_eq(before->gate, after->gate);
	ck_assert_ptr_eq(before->sources, after->sources);
	ck_assert_ptr_eq(before->tcp, after->tcp);
	ck_assert_ptr_eq(before->udp, after->udp);
	ck_assert_int_eq(before->source_maximum, 3);
	ck_assert_int_eq(after->source_maximum, 5);
	ck_assert_ptr_ne(before->gate, instance_of(second, "other")->gate);
	generation_free(first);
	ck_assert(limit_gate_enter(after->gate)); /* the second generation keeps the state */
	generation_free(second);
}
END_TEST

START_TEST(connection_limit_counts_all_generations)
{
	struct generation *first = make(ECHO "max_connections = 2\n");
	ck_assert(limit_gate_enter(instance_of(first, "echo")->gate));
	struct generation *second = make(ECHO "max_connections = 3\n");
	generation_enforce(second);
	ck_assert(limit_gate_enter(instance_of(second, "echo")->gate));
	ck_assert(limit_gate_enter(instance_of(second, "echo")->gate));
	ck_assert(!limit_gate_enter(instance_of(second, "echo")->gate));
	struct generation *third = make(ECHO "max_connections = 1\n");
	ck_assert_int_eq(atomic_load(&instance_of(second, "echo")->gate->maximum),
			 3); /* the third generation is not in force yet */
	generation_enforce(third);
	limit_gate_leave(instance_of(first, "echo")->gate);
	ck_assert(!limit_gate_enter(instance_of(third, "echo")->gate));
	generation_free(first);
	generation_free(second);
	generation_free(third);
}
END_TEST

START_TEST(counters_of_a_removed_service_continue_when_it_returns)
{
	struct generation *first = make(ECHO OTHER);
	struct metrics_block *tcp = instance_of(first, "echo")->tcp, *udp = instance_of(first, "echo")->udp;
	ck_assert_ptr_ne(tcp, udp);
	ck_assert_ptr_ne(tcp, instance_of(first, "other")->tcp);
	metrics_add(&tcp[WORKERS - 1], METRIC_ACCEPTED, 5);
	generation_free(first);
	generation_free(make(OTHER));
	struct generation *again = make(ECHO);
	ck_assert_ptr_eq(instance_of(again, "echo")->udp, udp);
	ck_assert_ptr_eq(instance_of(again, "echo")->tcp, tcp);
	ck_assert_uint_eq(tcp[WORKERS - 1].values[METRIC_ACCEPTED], 5);
	generation_free(again);
}
END_TEST

START_TEST(empty_bucket_stays_empty_while_its_rate_is_unchanged)
{
	struct in6_addr source = {.s6_addr = {[15] = 1}};
	struct generation *first = make(ECHO "datagram_rate = 1/m\n");
	struct token_buckets *buckets = instance_of(first, "echo")->datagram_buckets;
	ck_assert(token_bucket_take(buckets, &source, 1000));
	ck_assert(!token_bucket_take(buckets, &source, 1000));
	struct generation *same = make(ECHO "datagram_rate = 1/m\nidle_timeout = 1h\n");
	struct generation *other = make(ECHO "datagram_rate = 2/m\n");
	ck_assert_ptr_eq(instance_of(same, "echo")->datagram_buckets, buckets);
	ck_assert_ptr_ne(instance_of(other, "echo")->datagram_buckets, buckets);
	generation_free(first);
	ck_assert(!token_bucket_take(instance_of(same, "echo")->datagram_buckets, &source, 1000));
	ck_assert(token_bucket_take(instance_of(other, "echo")->datagram_buckets, &source, 1000));
	generation_free(other);
	generation_free(same);
}
END_TEST

START_TEST(discarded_generation_changes_no_limit)
{
	struct generation *first = make(ECHO "max_connections = 2\ndatagram_rate = 1/m\n");
	struct token_buckets *buckets = instance_of(first, "echo")->datagram_buckets;
	generation_free(make(ECHO "max_connections = 7\ndatagram_rate = 2/m\n" OTHER));
	struct generation *again = make(ECHO "max_connections = 2\ndatagram_rate = 1/m\n");
	ck_assert_ptr_eq(instance_of(again, "echo")->datagram_buckets, buckets);
	ck_assert_int_eq(atomic_load(&instance_of(first, "echo")->gate->maximum), 2);
	generation_free(again);
	generation_free(first);
}
END_TEST

START_TEST(service_that_is_added_again_is_no_longer_removed)
{
	struct generation *first = make(ECHO);
	atomic_store(&instance_of(first, "echo")->state->ends_at_ms, 77);
	struct generation *second = make(ECHO);
	ck_assert_uint_eq(atomic_load(&instance_of(second, "echo")->state->ends_at_ms), 77);
	generation_enforce(second);
	ck_assert_uint_eq(atomic_load(&instance_of(first, "echo")->state->ends_at_ms), 0);
	generation_free(first);
	generation_free(second);
}
END_TEST

START_TEST(served_ports_are_refused_by_services_that_refuse_some)
{
	struct generation *generation =
		make("[echo]\nprotocol = udp\nport = 0\n"
		     "[any]\ntype = echo\nprotocol = udp\nport = 0\nrefuse_source_ports = none\n");
	struct port_set served = {0};
	port_set_add(&served, 40007);
	generation_refuse_ports(generation, &served);
	ck_assert(instance_refuses_port(instance_of(generation, "echo"), 40007));
	ck_assert(instance_refuses_port(instance_of(generation, "echo"), 1023));
	ck_assert(!instance_refuses_port(instance_of(generation, "echo"), 40008));
	ck_assert(!instance_refuses_port(instance_of(generation, "any"), 40007));
	generation_free(generation);
}
END_TEST

START_TEST(each_worker_has_a_zeroed_cache_of_the_service)
{
	static const char zeros[1024];
	struct generation *generation = make(ECHO "[daytime]\naddress = 127.0.0.1\nport = 0\n");
	struct instance *daytime = instance_of(generation, "daytime");
	size_t size = daytime->service->memo_size;
	char *memos[WORKERS];
	for (unsigned i = 0; i < WORKERS; i++) {
		memos[i] = instance_memo(daytime, i);
		ck_assert_ptr_nonnull(memos[i]);
		ck_assert_uint_eq((uintptr_t)memos[i] % 64, 0);
		ck_assert_uint_le(size, sizeof zeros);
		ck_assert_mem_eq(memos[i], zeros, size);
		memset(memos[i], 'x', size);
	}
	ck_assert_ptr_null(instance_memo(instance_of(generation, "echo"), 0));
	generation_free(generation);
}
END_TEST

static Suite *suite(void)
{
	Suite *suite = suite_create("instance");
	TCase *state = tcase_create("state");
	tcase_set_timeout(state, 60);
	tcase_add_checked_fixture(state, setup, teardown);
	suite_add_tcase(suite, state);
	tcase_add_test(state, instances_of_one_name_share_limits_and_counters);
	tcase_add_test(state, connection_limit_counts_all_generations);
	tcase_add_test(state, counters_of_a_removed_service_continue_when_it_returns);
	tcase_add_test(state, empty_bucket_stays_empty_while_its_rate_is_unchanged);
	tcase_add_test(state, discarded_generation_changes_no_limit);
	tcase_add_test(state, service_that_is_added_again_is_no_longer_removed);
	tcase_add_test(state, served_ports_are_refused_by_services_that_refuse_some);
	tcase_add_test(state, each_worker_has_a_zeroed_cache_of_the_service);
	return suite;
}

int main(void)
{
	return check_run(suite());
}
