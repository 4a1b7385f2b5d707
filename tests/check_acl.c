/* check_acl.c: the most specific rule decides, also in long lists. */
#include "core/acl.h"

#include <arpa/inet.h>
#include <stdint.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "check_run.h"

enum { BITS = 128, MANY = 10000 };

/* --- random numbers, the same in each run --- */

static uint64_t random_state = 1;

static uint64_t next_random(void)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return random_state;
}

static unsigned below(unsigned bound)
{
	return (unsigned)(next_random() >> 16) % bound;
}

/* --- addresses, bit by bit --- */

static struct in6_addr address_of(const char *text)
{
	struct in6_addr address = {.s6_addr = {[10] = 0xff, [11] = 0xff}};
	if (strchr(text, ':') != NULL)
		ck_assert_int_eq(inet_pton(AF_INET6, text, &address), 1);
	else
		ck_assert_int_eq(inet_pton(AF_INET, text, &address.s6_addr[12]), 1);
	return address;
}

static bool bit_of(const struct in6_addr *address, unsigned bit)
{
	return (address->s6_addr[bit / 8] >> (7 - bit % 8)) & 1;
}

static void set_bit(struct in6_addr *address, unsigned bit, bool value)
{
	uint8_t mask = (uint8_t)(0x80 >> bit % 8);
	address->s6_addr[bit / 8] =
		(uint8_t)(value ? address->s6_addr[bit / 8] | mask : address->s6_addr[bit / 8] & ~mask);
}

/* Returns the first or the LAST address with the first LENGTH bits of ADDRESS. */
static struct in6_addr end_of(struct in6_addr address, unsigned length, bool last)
{
	for (unsigned bit = length; bit < BITS; bit++)
		set_bit(&address, bit, last);
	return address;
}

/* Returns the address before or AFTER, wrapping around at both ends. */
static struct in6_addr neighbour_of(struct in6_addr address, bool after)
{
	for (unsigned bit = BITS; bit-- > 0;) {
		bool was = bit_of(&address, bit);
		set_bit(&address, bit, !was);
		if (was != after)
			break;
	}
	return address;
}

/* --- the model --- */

static bool matches(const struct acl_rule *rule, const struct in6_addr *address)
{
	for (unsigned bit = 0; bit < rule->length; bit++)
		if (bit_of(&rule->address, bit) != bit_of(address, bit))
			return false;
	return true;
}

static bool model_allows(const struct acl_rule *rules, size_t count, bool unmatched, const struct in6_addr *address)
{
	const struct acl_rule *best = NULL;
	for (size_t i = 0; i < count; i++)
		if (matches(&rules[i], address) && (best == NULL || rules[i].length >= best->length))
			best = &rules[i];
	return best != NULL ? best->allow : unmatched;
}

static void assert_same(const struct acl *acl, const struct acl_rule *rules, size_t count, bool unmatched,
			struct in6_addr address)
{
	char text[INET6_ADDRSTRLEN];
	bool expected = model_allows(rules, count, unmatched, &address);
	if (acl_allows(acl, &address) != expected) /* each ck_assert costs a system call */
		ck_abort_msg("%s is %s", inet_ntop(AF_INET6, &address, text, sizeof text),
			     expected ? "denied" : "allowed");
}

/* Compares an ACL with the model on both sides of the edges of each rule, and within it. */
static void assert_rules_hold(const struct acl_rule *rules, size_t count, bool unmatched)
{
	struct acl *acl = acl_new(rules, count, unmatched);
	ck_assert_ptr_nonnull(acl);
	assert_same(acl, rules, count, unmatched, end_of((struct in6_addr){0}, 0, false));
	assert_same(acl, rules, count, unmatched, end_of((struct in6_addr){0}, 0, true));
	for (size_t i = 0; i < count; i++) {
		struct in6_addr first = end_of(rules[i].address, rules[i].length, false);
		struct in6_addr last = end_of(rules[i].address, rules[i].length, true), within = first;
		for (unsigned bit = rules[i].length; bit < BITS; bit++)
			set_bit(&within, bit, below(2));
		assert_same(acl, rules, count, unmatched, first);
		assert_same(acl, rules, count, unmatched, last);
		assert_same(acl, rules, count, unmatched, neighbour_of(first, false));
		assert_same(acl, rules, count, unmatched, neighbour_of(last, true));
		assert_same(acl, rules, count, unmatched, within);
	}
	acl_free(acl);
}

/* --- random rules --- */

/* Returns a rule with few different bits, so that rules nest, touch and repeat. */
static struct acl_rule random_rule(const struct acl_rule *before, size_t count)
{
	static const unsigned lengths[] = {0, 1, 2, 3, 32, 64, 95, 96, 97, 98, 104, 120, 126, 127, 128};
	struct acl_rule rule = {.length = lengths[below(sizeof lengths / sizeof *lengths)], .allow = below(2)};

	if (count > 0 && below(2)) { /* near an earlier rule */
		rule.address = before[below((unsigned)count)].address;
		set_bit(&rule.address, below(BITS), below(2));
		if (below(2))
			rule.length = before[below((unsigned)count)].length;
	} else if (below(2)) {
		rule.address = address_of("0.0.0.0");
		rule.address.s6_addr[12 + below(4)] = (uint8_t)(below(2) ? 0xff : 1);
	} else if (below(2)) {
		rule.address = end_of(rule.address, 0, true);
	}
	if (below(8) == 0)
		rule.length = below(BITS + 1);
	rule.address = end_of(rule.address, rule.length, false);
	return rule;
}

START_TEST(random_rules_decide_as_a_naive_model)
{
	enum { ROUNDS = 2000, RULES_MAX = 24 };
	for (int round = 0; round < ROUNDS; round++) {
		struct acl_rule rules[RULES_MAX];
		size_t count = below(RULES_MAX + 1);
		for (size_t i = 0; i < count; i++)
			rules[i] = random_rule(rules, i);
		assert_rules_hold(rules, count, round % 2);
	}
}
END_TEST

START_TEST(rules_of_random_lengths_decide_as_a_naive_model)
{
	enum { ROUNDS = 40, RULES = 200 };
	for (int round = 0; round < ROUNDS; round++) {
		struct acl_rule rules[RULES];
		for (size_t i = 0; i < RULES; i++) {
			struct acl_rule rule = {.length = below(BITS + 1), .allow = below(2)};
			for (unsigned byte = 0; byte < 16; byte++)
				rule.address.s6_addr[byte] = (uint8_t)(below(4) ? 0 : next_random() >> 32);
			rule.address = end_of(rule.address, rule.length, false);
			rules[i] = rule;
		}
		assert_rules_hold(rules, RULES, round % 2);
	}
}
END_TEST

/* --- single cases --- */

static struct acl_rule rule_of(const char *address, unsigned length, bool allow)
{
	unsigned more = strchr(address, ':') != NULL ? 0 : 96;
	return (struct acl_rule){.address = address_of(address), .length = length + more, .allow = allow};
}

static void assert_allows(const struct acl *acl, const char *address, bool allows)
{
	struct in6_addr ip = address_of(address);
	ck_assert_msg(acl_allows(acl, &ip) == allows, "%s is %s", address, allows ? "denied" : "allowed");
}

START_TEST(acl_without_rules_gives_the_unmatched_answer)
{
	for (int unmatched = 0; unmatched < 2; unmatched++) {
		struct acl *acl = acl_new(NULL, 0, unmatched);
		ck_assert_ptr_nonnull(acl);
		assert_allows(acl, "::", unmatched);
		assert_allows(acl, "192.0.2.1", unmatched);
		assert_allows(acl, "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", unmatched);
		acl_free(acl);
	}
	acl_free(NULL);
}
END_TEST

START_TEST(most_specific_rule_decides)
{
	const struct acl_rule rules[] = {
		rule_of("10.1.2.3", 32, false), rule_of("10.0.0.0", 8, true),        rule_of("10.1.0.0", 16, false),
		rule_of("10.1.2.0", 24, true),  rule_of("2001:db8::", 32, true),     rule_of("2001:db8:1::", 48, false),
		rule_of("::1", 128, true),      rule_of("2001:db8:1:1::", 64, true),
	};
	struct acl *acl = acl_new(rules, sizeof rules / sizeof *rules, false);
	ck_assert_ptr_nonnull(acl);
	assert_allows(acl, "9.255.255.255", false);
	assert_allows(acl, "10.0.0.0", true);
	assert_allows(acl, "10.1.0.0", false);
	assert_allows(acl, "10.1.2.2", true);
	assert_allows(acl, "10.1.2.3", false);
	assert_allows(acl, "10.1.2.4", true);
	assert_allows(acl, "10.1.3.0", false);
	assert_allows(acl, "10.255.255.255", true);
	assert_allows(acl, "11.0.0.0", false);
	assert_allows(acl, "2001:db8::1", true);
	assert_allows(acl, "2001:db8:1::1", false);
	assert_allows(acl, "2001:db8:1:1::1", true);
	assert_allows(acl, "2001:db8:1:2::1", false);
	assert_allows(acl, "2001:db8:2::", true);
	assert_allows(acl, "2001:db9::", false);
	assert_allows(acl, "::", false);
	assert_allows(acl, "::1", true);
	assert_allows(acl, "::2", false);
	acl_free(acl);
}
END_TEST

START_TEST(mapped_ipv4_matches_ipv4_rules)
{
	const struct acl_rule rules[] = {rule_of("0.0.0.0", 0, true), rule_of("192.0.2.0", 24, false)};
	struct acl *acl = acl_new(rules, sizeof rules / sizeof *rules, false);
	ck_assert_ptr_nonnull(acl);
	assert_allows(acl, "::ffff:192.0.3.1", true);
	assert_allows(acl, "::ffff:192.0.2.1", false);
	assert_allows(acl, "::ffff:255.255.255.255", true);
	assert_allows(acl, "::1:0:0:0", false); /* after ::ffff:0:0/96 */
	assert_allows(acl, "::fffe:ffff:ffff", false);
	assert_allows(acl, "::192.0.3.1", false); /* compatible, not mapped */
	acl_free(acl);
}
END_TEST

START_TEST(last_of_equal_rules_decides)
{
	const struct acl_rule rules[] = {
		rule_of("::", 0, false),   rule_of("192.0.2.1", 32, false), rule_of("::", 0, true),
		rule_of("::1", 128, true), rule_of("192.0.2.1", 32, true),  rule_of("::1", 128, false),
	};
	struct acl *acl = acl_new(rules, sizeof rules / sizeof *rules, false);
	ck_assert_ptr_nonnull(acl);
	assert_allows(acl, "192.0.2.1", true);
	assert_allows(acl, "::1", false);
	assert_allows(acl, "::", true);
	assert_allows(acl, "::2", true);
	acl_free(acl);
}
END_TEST

START_TEST(rules_apply_at_both_ends_of_the_address_space)
{
	const struct acl_rule rules[] = {
		rule_of("::", 128, true),
		rule_of("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", 128, true),
		rule_of("8000::", 1, true),
		rule_of("ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe", 127, false),
	};
	assert_rules_hold(rules, sizeof rules / sizeof *rules, false);
	assert_rules_hold(rules, sizeof rules / sizeof *rules, true);
}
END_TEST

START_TEST(chain_of_128_nested_rules_alternates)
{
	struct acl_rule rules[BITS + 1];
	struct in6_addr ones = end_of((struct in6_addr){0}, 0, true);
	for (unsigned length = 0; length <= BITS; length++)
		rules[length] = (struct acl_rule){
			.address = end_of(ones, length, false), .length = length, .allow = length % 2};
	assert_rules_hold(rules, BITS + 1, false);
}
END_TEST

START_TEST(mask_keeps_the_first_bits_only)
{
	for (int round = 0; round < 100; round++) {
		struct in6_addr address;
		for (unsigned byte = 0; byte < 16; byte++)
			address.s6_addr[byte] = (uint8_t)(next_random() >> 32);
		for (unsigned length = 0; length <= BITS; length++) {
			struct in6_addr masked = acl_mask(&address, length), expected = end_of(address, length, false);
			ck_assert_mem_eq(&masked, &expected, sizeof masked);
		}
	}
}
END_TEST

/* --- long lists --- */

static double seconds_now(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* Fills in rules as in a list of the Internet's networks: IPv4 /8 to /32, IPv6 /20 to /64. */
static void fill_many(struct acl_rule *rules)
{
	for (size_t i = 0; i < MANY; i++) {
		struct acl_rule rule = {.allow = below(2)};
		for (unsigned byte = 0; byte < 16; byte++)
			rule.address.s6_addr[byte] = (uint8_t)(next_random() >> 32);
		if (i % 2 == 0) {
			rule.address = end_of(rule.address, 0, false);
			memset(&rule.address.s6_addr[10], 0xff, 2);
			for (unsigned byte = 12; byte < 16; byte++)
				rule.address.s6_addr[byte] = (uint8_t)(next_random() >> 32);
			rule.length = 96 + 8 + below(25);
		} else {
			rule.address.s6_addr[0] = 0x20;
			rule.length = 20 + below(45);
		}
		rule.address = end_of(rule.address, rule.length, false);
		rules[i] = rule;
	}
}

START_TEST(ten_thousand_rules_decide_as_a_naive_model)
{
	static struct acl_rule rules[MANY];
	fill_many(rules);
	struct acl *acl = acl_new(rules, MANY, false);
	ck_assert_ptr_nonnull(acl);
	for (size_t i = 0; i < MANY; i += 25) {
		assert_same(acl, rules, MANY, false, rules[i].address);
		assert_same(acl, rules, MANY, false, end_of(rules[i].address, rules[i].length, true));
		assert_same(acl, rules, MANY, false, neighbour_of(rules[i].address, false));
	}
	acl_free(acl);
}
END_TEST

/* Prints the cost. The limits are loose, for slow machines. */
START_TEST(ten_thousand_rules_are_built_and_matched_fast)
{
	enum { LOOKUPS = 1000000, ASKED = 4096, LIMIT_S = 5, LIMIT_NS = 20000 };
	static struct acl_rule rules[MANY];
	static struct in6_addr asked[ASKED];
	unsigned allowed = 0;

	fill_many(rules);
	for (size_t i = 0; i < ASKED; i++) {
		const struct acl_rule *rule = &rules[below(MANY)];
		asked[i] = rule->address;
		for (unsigned bit = rule->length - below(8); bit < BITS; bit++)
			set_bit(&asked[i], bit, below(2));
	}
	double began = seconds_now();
	struct acl *acl = acl_new(rules, MANY, false);
	double built = seconds_now();
	ck_assert_ptr_nonnull(acl);
	for (unsigned i = 0; i < LOOKUPS; i++)
		allowed += acl_allows(acl, &asked[i % ASKED]);
	double ended = seconds_now();
	acl_free(acl);

	double build_s = built - began, lookup_ns = (ended - built) / LOOKUPS * 1e9;
	dprintf(STDOUT_FILENO,
		"# %d prefixes: an ACL is built in %.1f ms, a look-up costs %.0f ns (%u of %d allowed)\n", MANY,
		build_s * 1e3, lookup_ns, allowed, LOOKUPS);
	ck_assert_double_lt(build_s, LIMIT_S);
	ck_assert_double_lt(lookup_ns, LIMIT_NS);
}
END_TEST

static Suite *suite(void)
{
	Suite *suite = suite_create("acl");
	TCase *rules = tcase_create("rules");
	tcase_set_timeout(rules, 120);
	tcase_add_test(rules, acl_without_rules_gives_the_unmatched_answer);
	tcase_add_test(rules, most_specific_rule_decides);
	tcase_add_test(rules, mapped_ipv4_matches_ipv4_rules);
	tcase_add_test(rules, last_of_equal_rules_decides);
	tcase_add_test(rules, rules_apply_at_both_ends_of_the_address_space);
	tcase_add_test(rules, chain_of_128_nested_rules_alternates);
	tcase_add_test(rules, mask_keeps_the_first_bits_only);
	tcase_add_test(rules, random_rules_decide_as_a_naive_model);
	tcase_add_test(rules, rules_of_random_lengths_decide_as_a_naive_model);
	tcase_add_test(rules, ten_thousand_rules_decide_as_a_naive_model);
	tcase_add_test(rules, ten_thousand_rules_are_built_and_matched_fast);
	suite_add_tcase(suite, rules);
	return suite;
}

int main(void)
{
	return check_run(suite());
}
