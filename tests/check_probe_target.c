/* check_probe_target.c: tests of parsing and resolving HOST[:PORT]. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <string.h>

#include "check_run.h"
#include "probe/target.h"

static char error[TARGET_ERROR_SIZE];

static struct options options_for(const char *target)
{
	return (struct options){.type = TYPE_ECHO, .target = target};
}

static const struct {
	const char *text, *host;
	uint16_t port;
	bool is_address;
} accepted[] = {
	{"localhost", "localhost", 7, false},
	{"localhost:10007", "localhost", 10007, false},
	{"localhost:daytime", "localhost", 13, false},
	{"a.b-c.example.", "a.b-c.example.", 7, false},
	{"1and1.example", "1and1.example", 7, false},
	{"_dns.example", "_dns.example", 7, false},
	{"127.0.0.1", "127.0.0.1", 7, true},
	{"127.0.0.1:65535", "127.0.0.1", 65535, true},
	{"::1", "::1", 7, true},
	{"[::1]", "::1", 7, true},
	{"[::1]:13", "::1", 13, true},
	{"[fe80::1%lo]:13", "fe80::1%lo", 13, true},
	{"::ffff:127.0.0.1", "::ffff:127.0.0.1", 7, true},
};

START_TEST(target_is_a_host_and_a_port)
{
	struct options options = options_for(accepted[_i].text);
	struct target target;

	ck_assert_msg(target_parse(&options, &target, error), "%s: %s", accepted[_i].text, error);
	ck_assert_str_eq(target.host, accepted[_i].host);
	ck_assert_uint_eq(target.port, accepted[_i].port);
	ck_assert_int_eq(target.is_address, accepted[_i].is_address);
}
END_TEST

static const struct {
	const char *text, *word;
} refused[] = {
	{"", "neither a host name nor an address"},
	{"a b", "'a b' is neither a host name nor an address"},
	{"-a", "neither"},
	{"a-", "neither"},
	{"a..b", "neither"},
	{".", "neither"},
	{".a", "neither"},
	{"a/b", "neither"},
	{"h\xc3\xb6st", "neither"},
	{"256.0.0.1", "neither"},
	{"127.1", "neither"},
	{"12345", "neither"},
	{"host:0", "1 to 65535"},
	{"host:65536", "1 to 65535"},
	{"host:", "1 to 65535"},
	{"host:000007", "1 to 65535"},
	{"host:no-such-service", "no-such-service"},
	{"[::1", "[IPV6-ADDRESS]:PORT"},
	{"[::1]7", "[IPV6-ADDRESS]:PORT"},
	{"[host]:7", "[IPV6-ADDRESS]:PORT"},
	{"[::g]:7", "neither"},
	{"::1::2", "neither"},
	{"fe80::1%", "neither"},
};

START_TEST(invalid_target_is_refused)
{
	struct options options = options_for(refused[_i].text);
	struct target target;

	ck_assert_msg(!target_parse(&options, &target, error), "%s", refused[_i].text);
	ck_assert_msg(strstr(error, refused[_i].word) != NULL, "%s: %s", refused[_i].text, error);
}
END_TEST

START_TEST(overlong_name_is_refused)
{
	char name[400], label[65];
	struct target target;

	memset(label, 'a', 64);
	label[64] = '\0';
	struct options options = options_for(label);
	ck_assert(!target_parse(&options, &target, error));
	label[63] = '\0';
	ck_assert(target_parse(&options, &target, error));
	snprintf(name, sizeof name, "%s.%s.%s.%.61s", label, label, label, label);
	options = options_for(name);
	ck_assert(target_parse(&options, &target, error));
	snprintf(name, sizeof name, "%s.%s.%s.%.62s", label, label, label, label);
	ck_assert(!target_parse(&options, &target, error));
	memset(name, 'a', sizeof name - 1);
	name[sizeof name - 1] = '\0';
	ck_assert(!target_parse(&options, &target, error));
}
END_TEST

START_TEST(port_option_applies_to_a_target_without_port)
{
	struct options options = options_for("host");
	struct target target;

	options.port = "1007";
	ck_assert(target_parse(&options, &target, error));
	ck_assert_uint_eq(target.port, 1007);
	options.target = "host:8";
	ck_assert(!target_parse(&options, &target, error));
	ck_assert_ptr_nonnull(strstr(error, "twice"));
}
END_TEST

START_TEST(address_resolves_to_itself)
{
	struct options options = options_for("127.0.0.9:1234");
	struct target target;
	char text[TARGET_TEXT_SIZE];

	ck_assert(target_parse(&options, &target, error));
	ck_assert(target_resolve(&options, &target, error));
	ck_assert_uint_eq(target.count, 1);
	target_print((const struct sockaddr *)&target.addresses[0].address, text);
	ck_assert_str_eq(text, "127.0.0.9:1234");

	options.family = AF_INET6;
	ck_assert(!target_resolve(&options, &target, error));
	ck_assert_ptr_nonnull(strstr(error, "127.0.0.9"));
}
END_TEST

START_TEST(local_end_is_an_address)
{
	struct options options = {.bind = "[::1]:99"};
	struct target_address near;
	char text[TARGET_TEXT_SIZE];

	ck_assert_msg(target_parse_bind(&options, &near, error), "%s", error);
	target_print((const struct sockaddr *)&near.address, text);
	ck_assert_str_eq(text, "[::1]:99");
	options.bind = "127.0.0.1";
	ck_assert(target_parse_bind(&options, &near, error));
	target_print((const struct sockaddr *)&near.address, text);
	ck_assert_str_eq(text, "127.0.0.1:0");
	options.bind = "localhost";
	ck_assert(!target_parse_bind(&options, &near, error));
	ck_assert_ptr_nonnull(strstr(error, "not an address"));
}
END_TEST

static Suite *suite(void)
{
	Suite *suite = suite_create("probe_target");
	TCase *text = tcase_create("text");

	tcase_add_loop_test(text, target_is_a_host_and_a_port, 0, sizeof accepted / sizeof *accepted);
	tcase_add_loop_test(text, invalid_target_is_refused, 0, sizeof refused / sizeof *refused);
	tcase_add_test(text, overlong_name_is_refused);
	tcase_add_test(text, port_option_applies_to_a_target_without_port);
	tcase_add_test(text, address_resolves_to_itself);
	tcase_add_test(text, local_end_is_an_address);
	suite_add_tcase(suite, text);
	return suite;
}

int main(void)
{
	return check_run(suite());
}
