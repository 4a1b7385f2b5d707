/* check_option.c: each option type: valid and invalid values, printing; rows, quoting and suggestions. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "check_run.h"
#include "core/array.h"
#include "option/option.h"

static const char *const levels[] = {"error", "warning", "notice", NULL};

static const struct option boolean = {.type = &option_boolean};
static const struct option workers = {.type = &option_integer, .min = 1, .max = 256, .word = "auto"};
static const struct option limit = {
	.type = &option_integer, .min = 1, .max = INT32_MAX, .word = "unlimited", .word_value = INT64_MAX};
static const struct option anything = {.type = &option_integer, .max = INT64_MAX};
static const struct option timeout = {.type = &option_duration, .min = 100, .max = 31536000000, .word = "off"};
static const struct option seconds = {
	.type = &option_duration, .min = 1000, .max = 32767000, .step = 1000, .word = "off"};
static const struct option buffer = {.type = &option_size, .min = 4096, .max = 1 << 30, .word = "auto"};
static const struct option level = {.type = &option_choice, .words = levels};
static const struct option text = {.type = &option_string};
static const struct option interface = {.type = &option_string, .max = 15, .word = "none"};
static const struct option transports = {.type = &option_transports};
static const struct option dscp = {.type = &option_dscp};
static const struct option address = {.type = &option_addresses};
static const struct option groups = {.type = &option_groups, .word = "none"};
static const struct option port = {.type = &option_ports};

union field {
	int64_t number;
	char *text;
	struct option_addresses addresses;
	struct option_ports ports;
};

/* Parses VALUE and prints it again. Returns that text, or `!` and the reason of a parse error; the caller frees it. */
static char *read_and_print(const struct option *option, const char *value)
{
	union field field = {.addresses = {NULL, 0}};
	const union field empty = {.addresses = {NULL, 0}};
	char error[OPTION_ERROR_SIZE] = "no reason given", *printed = NULL;
	size_t size;
	FILE *out = open_memstream(&printed, &size);
	ck_assert_ptr_nonnull(out);

	if (option->type->parse(option, value, &field, error)) {
		option->type->print(option, &field, out);
		if (option->type->free != NULL)
			option->type->free(&field);
	} else {
		fprintf(out, "!%s", error);
		ck_assert_mem_eq(&field, &empty, sizeof field);
	}
	fclose(out);
	return printed;
}

static const struct {
	const struct option *option;
	const char *value, *printed;
} values[] = {
	{&boolean, "yes", "yes"},
	{&boolean, "on", "yes"},
	{&boolean, "true", "yes"},
	{&boolean, "no", "no"},
	{&boolean, "off", "no"},
	{&boolean, "false", "no"},
	{&boolean, "maybe", "!must be yes or no, not \"maybe\""},
	{&boolean, "YES", "!must be yes or no, not \"YES\"; did you mean \"yes\"?"},
	{&boolean, "1", "!must be yes or no, not \"1\""},
	{&boolean, "\"yes\"", "!must be yes or no, not \"\\\"yes\\\"\"; did you mean \"yes\"?"},

	{&workers, "1", "1"},
	{&workers, "256", "256"},
	{&workers, "007", "7"},
	{&workers, "auto", "auto"},
	{&workers, "0", "!must be a number from 1 to 256, or auto, not \"0\""},
	{&workers, "257", "!must be a number from 1 to 256, or auto, not \"257\""},
	{&workers, "-1", "!must be a number from 1 to 256, or auto, not \"-1\""},
	{&workers, "+1", "!must be a number from 1 to 256, or auto, not \"+1\""},
	{&workers, "1x", "!must be a number from 1 to 256, or auto, not \"1x\""},
	{&workers, "0x10", "!must be a number from 1 to 256, or auto, not \"0x10\""},
	{&workers, "1 2", "!must be a number from 1 to 256, or auto, not \"1 2\""},
	{&workers, "18446744073709551617", "!must be a number from 1 to 256, or auto, not \"18446744073709551617\""},
	{&limit, "unlimited", "unlimited"},
	{&limit, "2147483647", "2147483647"},
	{&limit, "2147483648", "!must be a number from 1 to 2147483647, or unlimited, not \"2147483648\""},
	{&anything, "0", "0"},
	{&anything, "9223372036854775807", "9223372036854775807"},
	{&anything, "9223372036854775808",
	 "!must be a number from 0 to 9223372036854775807, not \"9223372036854775808\""},

	{&timeout, "500ms", "500ms"},
	{&timeout, "1500ms", "1500ms"},
	{&timeout, "1000ms", "1s"},
	{&timeout, "30s", "30s"},
	{&timeout, "120s", "2m"},
	{&timeout, "10m", "10m"},
	{&timeout, "2h", "2h"},
	{&timeout, "48h", "2d"},
	{&timeout, "365d", "365d"},
	{&timeout, "off", "off"},
	{&timeout, "30", "!a duration needs its unit: write 30s"},
	{&timeout, "99ms", "!must be a duration from 100ms to 365d, or off, not \"99ms\""},
	{&timeout, "0s", "!must be a duration from 100ms to 365d, or off, not \"0s\""},
	{&timeout, "366d", "!must be a duration from 100ms to 365d, or off, not \"366d\""},
	{&timeout, "1.5s", "!must be a duration from 100ms to 365d, or off, not \"1.5s\""},
	{&timeout, "30S", "!must be a duration from 100ms to 365d, or off, not \"30S\""},
	{&timeout, "30 s", "!must be a duration from 100ms to 365d, or off, not \"30 s\""},
	{&timeout, "1m30s", "!must be a duration from 100ms to 365d, or off, not \"1m30s\""},
	{&timeout, "ms", "!must be a duration from 100ms to 365d, or off, not \"ms\""},
	{&timeout, "-5s", "!must be a duration from 100ms to 365d, or off, not \"-5s\""},
	/* 2^64 ms and some hours: an overflow is an error */
	{&timeout, "213503982335d", "!must be a duration from 100ms to 365d, or off, not \"213503982335d\""},
	{&seconds, "60s", "1m"},
	{&seconds, "2000ms", "2s"},
	{&seconds, "1500ms", "!must be a multiple of 1s, not \"1500ms\""},
	{&seconds, "32767s", "32767s"},
	{&seconds, "32768s", "!must be a duration from 1s to 32767s, or off, not \"32768s\""},

	{&buffer, "64K", "64K"},
	{&buffer, "1M", "1M"},
	{&buffer, "1024K", "1M"},
	{&buffer, "1G", "1G"},
	{&buffer, "4096", "4K"},
	{&buffer, "5000", "5000"},
	{&buffer, "auto", "auto"},
	{&buffer, "4095", "!must be a size from 4K to 1G, or auto, not \"4095\""},
	{&buffer, "2G", "!must be a size from 4K to 1G, or auto, not \"2G\""},
	{&buffer, "64k", "!must be a size from 4K to 1G, or auto, not \"64k\""},
	{&buffer, "64KB", "!must be a size from 4K to 1G, or auto, not \"64KB\""},
	{&buffer, "17179869184G", "!must be a size from 4K to 1G, or auto, not \"17179869184G\""},

	{&level, "error", "error"},
	{&level, "notice", "notice"},
	{&level, "notise", "!must be one of error, warning, notice, not \"notise\"; did you mean \"notice\"?"},
	{&level, "loud", "!must be one of error, warning, notice, not \"loud\""},

	{&text, "/run/x.pid", "/run/x.pid"},
	{&text, "\"/run/x.pid\"", "/run/x.pid"},
	{&text, "\"a ; b\"", "\"a ; b\""},
	{&text, "\"a, b\"", "\"a, b\""},
	{&text, "\" a\"", "\" a\""},
	{&text, "\"a \"", "\"a \""},
	{&text, "\"#\"", "\"#\""},
	{&text, "\"\"", "!must not be empty"},
	{&interface, "none", "none"},
	{&interface, "\"none\"", "\"none\""},
	{&interface, "fifteen-letters", "fifteen-letters"},
	{&interface, "sixteen--letters", "!longer than 15 bytes"},

	{&transports, "tcp", "tcp"},
	{&transports, "udp", "udp"},
	{&transports, "tcp, udp", "tcp, udp"},
	{&transports, "udp ,tcp", "tcp, udp"},
	{&transports, "tcp, tcp", "!tcp is listed twice"},
	{&transports, "tcp,", "!empty item in a list"},
	{&transports, ",tcp", "!empty item in a list"},
	{&transports, "tcp,,udp", "!empty item in a list"},
	{&transports, "tcp udp", "!must be tcp, udp or both, not \"tcp udp\""},
	{&transports, "UDP", "!must be tcp, udp or both, not \"UDP\"; did you mean \"udp\"?"},
	{&transports, "sctp", "!must be tcp, udp or both, not \"sctp\"; did you mean \"tcp\"?"},

	{&dscp, "none", "none"},
	{&dscp, "copy", "copy"},
	{&dscp, "ef", "ef"},
	{&dscp, "46", "ef"},
	{&dscp, "af21", "af21"},
	{&dscp, "cs6", "cs6"},
	{&dscp, "0", "cs0"},
	{&dscp, "63", "63"},
	{&dscp, "64", "!must be 0 to 63, a class as ef, af21 or cs6, copy or none, not \"64\""},
	{&dscp, "af44", "!must be 0 to 63, a class as ef, af21 or cs6, copy or none, not \"af44\""},

	{&address, "*", "*"},
	{&address, "127.0.0.1", "127.0.0.1"},
	{&address, "127.0.0.1, ::1", "127.0.0.1, ::1"},
	{&address, "0.0.0.0", "0.0.0.0"},
	{&address, "::", "::"},
	{&address, "2001:DB8:0:0::1", "2001:db8::1"},
	{&address, "fe80::1%eth0", "fe80::1%eth0"},
	{&address, "fe80::1%eth0, fe80::1%eth1", "fe80::1%eth0, fe80::1%eth1"},
	{&address, "fe80::1", "!fe80::1 needs its interface: write fe80::1%eth0"},
	{&address, "fe80::1%", "!\"fe80::1%\": invalid interface name"},
	{&address, "fe80::1%sixteen--letters", "!\"fe80::1%sixteen--letters\": invalid interface name"},
	{&address, "fe80::1%a/b", "!\"fe80::1%a/b\": invalid interface name"},
	{&address, "::1%lo", "!\"::1%lo\": only link-local addresses and multicast groups take an interface"},
	{&address, "127.0.0.1%lo",
	 "!\"127.0.0.1%lo\": only link-local addresses and multicast groups take an interface"},
	{&address, "::ffff:192.0.2.1", "!\"::ffff:192.0.2.1\" is an IPv4 address: write 192.0.2.1"},
	{&address, "224.0.0.1", "!224.0.0.1 is a multicast group: write it in multicast_groups"},
	{&address, "ff02::1%eth0", "!ff02::1%eth0 is a multicast group: write it in multicast_groups"},
	{&address, "255.255.255.255", "!255.255.255.255 is the broadcast address: use multicast_groups"},
	{&address, "localhost",
	 "!\"localhost\" is not an IP address: write it as 127.0.0.1 or ::1, without brackets and port"},
	{&address, "[::1]", "!\"[::1]\" is not an IP address: write it as 127.0.0.1 or ::1, without brackets and port"},
	{&address, "127.0.0.1:7",
	 "!\"127.0.0.1:7\" is not an IP address: write it as 127.0.0.1 or ::1, without brackets and port"},
	{&address, "127.1", "!\"127.1\" is not an IP address: write it as 127.0.0.1 or ::1, without brackets and port"},
	/* the longest valid address and one more digit */
	{&address, "1111:2222:3333:4444:5555:6666:123.123.123.1234",
	 "!\"1111:2222:3333:4444:5555:6666:123.123.123.1234\" is not an IP address: write it as 127.0.0.1 or ::1, "
	 "without brackets and port"},
	{&address, "1:2:3:4:5:6:7:8:9:10:11:12:13:14:15:16:17:18",
	 "!\"1:2:3:4:5:6:7:8:9:10:11:12:13:14:15:16:17:18\" is not an IP address: write it as 127.0.0.1 or ::1, "
	 "without brackets and port"},
	{&address, "::1, 0::1", "!::1 is listed twice"},
	{&address, "*, *", "!* is listed twice"},
	{&address, "::1,", "!empty item in a list"},

	{&groups, "none", "none"},
	{&groups, "239.1.2.3, ff15::7%eth0", "239.1.2.3, ff15::7%eth0"},
	{&groups, "239.1.2.3%eth0", "239.1.2.3%eth0"},
	{&groups, "ff15::7", "ff15::7"},
	{&groups, "ff02::1%eth0", "ff02::1%eth0"},
	{&groups, "ff02::1", "!ff02::1 needs its interface: write ff02::1%eth0"},
	{&groups, "ff12::1", "!ff12::1 needs its interface: write ff12::1%eth0"},
	{&groups, "192.0.2.1", "!192.0.2.1 is not a multicast group"},
	{&groups, "::1", "!::1 is not a multicast group"},
	{&groups, "*", "!\"*\" is not an IP address: write it as 127.0.0.1 or ::1, without brackets and port"},
	{&groups, "239.1.2.3, none",
	 "!\"none\" is not an IP address: write it as 127.0.0.1 or ::1, without brackets and port"},

	{&port, "7", "7"},
	{&port, "0", "0"},
	{&port, "65535", "65535"},
	{&port, "7, 20000-20063", "7, 20000-20063"},
	{&port, "9,7", "9, 7"},
	{&port, "7-7", "7"},
	{&port, "1-65535", "1-65535"},
	{&port, "echo", "7"},
	{&port, "netbios-ns", "137"},
	{&port, "65536", "!ports are 0 to 65535, not \"65536\""},
	{&port, "4294967303", "!ports are 0 to 65535, not \"4294967303\""},
	{&port, "-7", "!ports are 0 to 65535, not \"-7\""},
	{&port, "7-", "!a range is two ports, as 20000-20063, not \"7-\""},
	{&port, "7-65536", "!a range is two ports, as 20000-20063, not \"7-65536\""},
	{&port, "7-8-9", "!a range is two ports, as 20000-20063, not \"7-8-9\""},
	{&port, "9-7", "!a range starts with its lower port: write 7-9"},
	{&port, "0-7", "!port 0 cannot be part of a range, as in \"0-7\""},
	{&port, "nosuchservice", "!\"nosuchservice\" is neither a port nor a name in services(5)"},
	{&port, "7, 7", "!port 7 is listed twice"},
	{&port, "1-10, 5-20", "!port 5 is listed twice"},
	{&port, "5, 1-10", "!port 5 is listed twice"},
	{&port, "7, echo", "!port 7 is listed twice"},
	{&port, "7,,9", "!empty item in a list"},
};

START_TEST(value_is_printed_in_canonical_form_or_rejected)
{
	char *printed = read_and_print(values[_i].option, values[_i].value);
	ck_assert_str_eq(printed, values[_i].printed);
	free(printed);
}
END_TEST

START_TEST(printed_value_parses_to_the_same_value)
{
	for (size_t i = 0; i < COUNT_OF(values); i++) {
		if (values[i].printed[0] == '!')
			continue;
		char *printed = read_and_print(values[i].option, values[i].printed);
		ck_assert_str_eq(printed, values[i].printed);
		free(printed);
	}
}
END_TEST

START_TEST(special_word_sets_its_value)
{
	char error[OPTION_ERROR_SIZE];
	int64_t number = 1;

	ck_assert(option_integer.parse(&limit, "unlimited", &number, error));
	ck_assert_int_eq(number, INT64_MAX);
	ck_assert(option_duration.parse(&timeout, "off", &number, error));
	ck_assert_int_eq(number, 0);
	ck_assert(option_dscp.parse(&dscp, "none", &number, error));
	ck_assert_int_eq(number, DSCP_NONE);
	ck_assert(option_dscp.parse(&dscp, "copy", &number, error));
	ck_assert_int_eq(number, DSCP_COPY);
}
END_TEST

START_TEST(durations_are_in_milliseconds_and_sizes_in_bytes)
{
	static const struct {
		const struct option *option;
		const char *value;
		int64_t number;
	} numbers[] = {
		{&timeout, "500ms", 500},  {&timeout, "30s", 30000},    {&timeout, "10m", 600000},
		{&timeout, "2h", 7200000}, {&timeout, "1d", 86400000},  {&buffer, "64K", 65536},
		{&buffer, "1M", 1048576},  {&buffer, "1G", 1073741824}, {&buffer, "5000", 5000},
	};
	for (size_t i = 0; i < COUNT_OF(numbers); i++) {
		char error[OPTION_ERROR_SIZE];
		int64_t number = 0;
		ck_assert(numbers[i].option->type->parse(numbers[i].option, numbers[i].value, &number, error));
		ck_assert_int_eq(number, numbers[i].number);
	}
}
END_TEST

/* Returns a list of ITEMS items, each of PREFIX and a number; the caller frees it. */
static char *make_list(const char *prefix, unsigned items)
{
	char *list = NULL;
	size_t size;
	FILE *out = open_memstream(&list, &size);
	ck_assert_ptr_nonnull(out);
	for (unsigned i = 1; i <= items; i++)
		fprintf(out, "%s%s%u", i > 1 ? "," : "", prefix, i);
	fclose(out);
	return list;
}

static void assert_list(const struct option *option, const char *prefix, unsigned items, const char *error)
{
	char *list = make_list(prefix, items), *printed = read_and_print(option, list);
	if (error != NULL)
		ck_assert_str_eq(printed, error);
	else
		ck_assert_int_ne(printed[0], '!');
	free(printed);
	free(list);
}

START_TEST(list_above_its_maximum_is_rejected)
{
	assert_list(&address, "127.0.0.", OPTION_ADDRESSES_MAX, NULL);
	assert_list(&address, "127.0.0.", OPTION_ADDRESSES_MAX + 1, "!more than 64 addresses");
	assert_list(&port, "1", OPTION_PORTS_MAX, NULL);
	assert_list(&port, "1", OPTION_PORTS_MAX + 1, "!more than 256 ports and ranges");
}
END_TEST

START_TEST(string_above_its_maximum_is_rejected)
{
	char value[OPTION_STRING_MAX + 2];

	memset(value, 'x', sizeof value);
	value[OPTION_STRING_MAX] = '\0';
	char *printed = read_and_print(&text, value);
	ck_assert_str_eq(printed, value);
	free(printed);

	value[OPTION_STRING_MAX] = 'x';
	value[OPTION_STRING_MAX + 1] = '\0';
	printed = read_and_print(&text, value);
	ck_assert_str_eq(printed, "!longer than 4000 bytes");
	free(printed);
}
END_TEST

START_TEST(addresses_keep_order_family_and_zone)
{
	struct option_addresses addresses = {NULL, 0};
	char error[OPTION_ERROR_SIZE];

	ck_assert(option_addresses.parse(&address, "*, 192.0.2.1, fe80::1%eth0", &addresses, error));
	ck_assert_uint_eq(addresses.count, 3);
	ck_assert_int_eq(addresses.list[0].family, AF_UNSPEC);
	ck_assert_int_eq(addresses.list[1].family, AF_INET);
	ck_assert_uint_eq(ntohl(addresses.list[1].ip.v4.s_addr), 0xc0000201);
	ck_assert_str_eq(addresses.list[1].zone, "");
	ck_assert_int_eq(addresses.list[2].family, AF_INET6);
	ck_assert_str_eq(addresses.list[2].zone, "eth0");
	option_addresses.free(&addresses);
	ck_assert_ptr_null(addresses.list);
	option_addresses.free(&addresses);
}
END_TEST

START_TEST(quoted_text_has_control_bytes_escaped_and_bounded_length)
{
	static const struct {
		const char *text, *quoted;
	} quotes[] = {
		{"", "\"\""},
		{"a b", "\"a b\""},
		{"a\nb\x1b\x7f", "\"a\\x0ab\\x1b\\x7f\""},
		{"\"a\"", "\"\\\"a\\\"\""},
		{"\xc3\xbc", "\"\xc3\xbc\""},
		{"123456789012345678901234567890123456789012345678901234567890",
		 "\"123456789012345678901234567890123456789012345678901234567890\""},
		{"1234567890123456789012345678901234567890123456789012345678901",
		 "\"123456789012345678901234567890123456789012345678901234567890...\""},
		/* the 60th byte is inside a UTF-8 sequence */
		{"12345678901234567890123456789012345678901234567890123456789\xc3\xbc",
		 "\"12345678901234567890123456789012345678901234567890123456789...\""},
	};
	for (size_t i = 0; i < COUNT_OF(quotes); i++)
		ck_assert_str_eq(option_quote(quotes[i].text).text, quotes[i].quoted);

	char controls[200];
	memset(controls, 1, sizeof controls);
	controls[sizeof controls - 1] = '\0';
	ck_assert_uint_eq(strlen(option_quote(controls).text), 4 * OPTION_QUOTED_MAX + strlen("\"...\""));
}
END_TEST

START_TEST(misspelled_word_suggests_the_nearest)
{
	static const char *const words[] = {"port", "protocol", "backlog", "max_connections", "address", "on"};
	static const struct {
		const char *text, *nearest;
	} spellings[] = {
		{"port", "port"},
		{"prot", "port"}, /* one transposition */
		{"optr", "port"}, /* two transpositions */
		{"ports", "port"},
		{"pot", "port"},
		{"PORT", "port"},
		{"adress", "address"},
		{"protokol", "protocol"},
		{"protokoll", "protocol"},
		{"max_conections", "max_connections"},
		{"maxconnection", "max_connections"},
		{"max-connexions", "max_connections"},
		{"zzz", NULL},
		{"xy", NULL}, /* distance 2 from `on`, no letter in common */
		{"", NULL},
		{"something_else_entirely", NULL},
	};
	for (size_t i = 0; i < COUNT_OF(spellings); i++) {
		const char *nearest = option_nearest(spellings[i].text, words, COUNT_OF(words));
		ck_assert_pstr_eq(nearest, spellings[i].nearest);
	}
}
END_TEST

START_TEST(very_long_text_has_no_suggestion)
{
	static const char *const words[] = {"port"};
	char long_text[5000];

	memset(long_text, 'p', sizeof long_text);
	long_text[sizeof long_text - 1] = '\0';
	ck_assert_ptr_null(option_nearest(long_text, words, 1));
}
END_TEST

START_TEST(row_is_found_by_its_exact_key)
{
	struct values {
		int64_t other, field;
	} base = {0};
	static const struct option rows[] = {
		{.key = "other", .type = &option_integer, .offset = offsetof(struct values, other)},
		{.key = "field", .type = &option_integer, .offset = offsetof(struct values, field)},
	};
	ck_assert_ptr_eq(option_find(rows, COUNT_OF(rows), "field"), &rows[1]);
	ck_assert_ptr_null(option_find(rows, COUNT_OF(rows), "fiel"));
	ck_assert_ptr_null(option_find(rows, 1, "field"));
	ck_assert_ptr_eq(option_field(&rows[1], &base), &base.field);
	ck_assert_ptr_eq(option_field_const(&rows[1], &base), &base.field);
}
END_TEST

static Suite *make_suite(void)
{
	Suite *suite = suite_create("option");
	TCase *types = tcase_create("types");
	tcase_add_loop_test(types, value_is_printed_in_canonical_form_or_rejected, 0, COUNT_OF(values));
	tcase_add_test(types, printed_value_parses_to_the_same_value);
	tcase_add_test(types, special_word_sets_its_value);
	tcase_add_test(types, durations_are_in_milliseconds_and_sizes_in_bytes);
	tcase_add_test(types, list_above_its_maximum_is_rejected);
	tcase_add_test(types, string_above_its_maximum_is_rejected);
	tcase_add_test(types, addresses_keep_order_family_and_zone);
	suite_add_tcase(suite, types);

	TCase *rows = tcase_create("rows");
	tcase_add_test(rows, quoted_text_has_control_bytes_escaped_and_bounded_length);
	tcase_add_test(rows, misspelled_word_suggests_the_nearest);
	tcase_add_test(rows, very_long_text_has_no_suggestion);
	tcase_add_test(rows, row_is_found_by_its_exact_key);
	suite_add_tcase(suite, rows);
	return suite;
}

int main(void)
{
	return check_run(make_suite());
}
