/* check_probe_options.c: tests of the command line. */
#include <getopt.h>
#include <string.h>
#include <sys/socket.h>

#include "check_run.h"
#include "check_stderr.h"
#include "probe/options.h"

enum { ARGUMENTS_MAX = 40 };

/* Splits LINE at its blanks and parses it. */
static struct options parse(const char *line)
{
	static char text[512], name[] = "smallprobe";
	char *argv[ARGUMENTS_MAX] = {name};
	int argc = 1;

	snprintf(text, sizeof text, "%s", line);
	for (char *word = strtok(text, " "); word != NULL; word = strtok(NULL, " "))
		argv[argc++] = word;
	optind = 0; /* getopt_long starts anew */
	return options_parse(argc, argv);
}

START_TEST(plain_command_line_has_the_defaults)
{
	struct options options = parse("echo localhost");

	ck_assert_int_eq(options.action, OPTIONS_PROBE);
	ck_assert_int_eq(options.type, TYPE_ECHO);
	ck_assert_str_eq(options.target, "localhost");
	ck_assert_uint_eq(options.count, 0);
	ck_assert_int_eq(options.interval_us, 1000000);
	ck_assert_uint_eq(options.size, 56);
	ck_assert_int_eq(options.family, AF_UNSPEC);
	ck_assert_int_eq(options.dscp, OPTIONS_DSCP_UNSET);
	ck_assert(!options.udp && !options.tls && !options.load && !options.json && !options.quiet);
}
END_TEST

START_TEST(every_option_sets_its_field)
{
	struct options options =
		parse("-u -4 -p 7007 -B 127.0.0.1:9 -I lo -t 9 --dscp af21 -c 5 -i 0.2 -s 100 -W 500ms -w 1m "
		      "--wait 3 --max-loss 2.5 -D -q --json echo host");

	ck_assert_int_eq(options.action, OPTIONS_PROBE);
	ck_assert(options.udp && options.timestamps && options.quiet && options.json && !options.load);
	ck_assert_int_eq(options.family, AF_INET);
	ck_assert_str_eq(options.port, "7007");
	ck_assert_str_eq(options.bind, "127.0.0.1:9");
	ck_assert_str_eq(options.interface, "lo");
	ck_assert_uint_eq(options.ttl, 9);
	ck_assert_int_eq(options.dscp, 18);
	ck_assert_uint_eq(options.count, 5);
	ck_assert_int_eq(options.interval_us, 200000);
	ck_assert_uint_eq(options.size, 100);
	ck_assert_int_eq(options.timeout_ms, 500);
	ck_assert_int_eq(options.deadline_ms, 60000);
	ck_assert_int_eq(options.wait_ms, 3000);
	ck_assert_double_eq(options.max_loss, 2.5);

	options = parse("-6 --tls --cacert a --cert b --key c --server-name d -k --proxy v2 --reconnect echo host");
	ck_assert_int_eq(options.action, OPTIONS_PROBE);
	ck_assert(options.tls && options.insecure && options.reconnect);
	ck_assert_int_eq(options.family, AF_INET6);
	ck_assert_str_eq(options.cacert, "a");
	ck_assert_str_eq(options.cert, "b");
	ck_assert_str_eq(options.key, "c");
	ck_assert_str_eq(options.server_name, "d");
	ck_assert_uint_eq(options.proxy, 2);

	options = parse("--connections 9 --depth 8 --duration 7 --rate 6.5 --threads 5 --batch 4 echo host");
	ck_assert_int_eq(options.action, OPTIONS_PROBE);
	ck_assert(options.load);
	ck_assert_uint_eq(options.connections, 9);
	ck_assert_uint_eq(options.depth, 8);
	ck_assert_int_eq(options.duration_ms, 7000);
	ck_assert_double_eq(options.rate, 6.5);
	ck_assert_uint_eq(options.threads, 5);
	ck_assert_uint_eq(options.batch, 4);

	ck_assert(parse("--mtu echo host").mtu && parse("--mtu echo host").udp);
	ck_assert(parse("--half-close echo host").half_close);
	ck_assert(parse("--early daytime host").early);
	ck_assert_int_eq(parse("-V").action, OPTIONS_VERSION);
	ck_assert_int_eq(parse("--help").action, OPTIONS_HELP);
}
END_TEST

static const struct {
	const char *line;
	uint64_t count;
} counts[] = {
	{"echo h", 0},
	{"--wait 5 echo h", 1},
	{"--half-close echo h", 1},
	{"discard h", 1},
	{"daytime h", 1},
	{"qotd h", 1},
	{"chargen h", 1},
	{"time h", 1},
	{"-c 7 time h", 7},
	{"-c 7 --wait 5 echo h", 7},
};

START_TEST(only_echo_has_an_unlimited_count)
{
	ck_assert_uint_eq(parse(counts[_i].line).count, counts[_i].count);
}
END_TEST

static const struct {
	const char *text;
	int64_t dscp;
} classes[] = {{"0", 0},  {"63", 63}, {"ef", 46},   {"cs0", 0},  {"cs6", 48},
	       {"le", 1}, {"va", 44}, {"af11", 10}, {"af43", 38}};

START_TEST(dscp_classes_have_their_code_points)
{
	char line[64];

	snprintf(line, sizeof line, "--dscp %s echo h", classes[_i].text);
	ck_assert_int_eq(parse(line).dscp, classes[_i].dscp);
}
END_TEST

static const struct {
	const char *line, *word;
} refused[] = {
	{"", "TYPE"},
	{"echo", "HOST"},
	{"echo host more", "more"},
	{"finger host", "finger"},
	{"-x echo host", "x"},
	{"-c", "c"},
	{"-c 0 echo h", "--count 0: must be at least 1"},
	{"-c 1x echo h", "whole number"},
	{"-c -1 echo h", "whole number"},
	{"-c 99999999999999999999999 echo h", "whole number"},
	{"-i 0 echo h", "--interval 0"},
	{"-i nan echo h", "duration"},
	{"-i 1..5 echo h", "duration"},
	{"-W 5d echo h", "--timeout 5d: must be a duration"},
	{"-s 16777217 echo h", "--size"},
	{"-u -s 65528 echo h", "65527"},
	{"-s 0 echo h", "-u"},
	{"-t 256 echo h", "1 to 255"},
	{"--dscp 64 echo h", "--dscp 64"},
	{"--dscp cs8 echo h", "--dscp cs8"},
	{"--dscp af14 echo h", "--dscp af14"},
	{"--proxy v3 echo h", "v1 or v2"},
	{"--max-loss 101 echo h", "0 to 100"},
	{"-u --tls echo h", "--tls needs TCP"},
	{"-u --proxy v1 echo h", "--proxy needs TCP"},
	{"-k echo h", "need --tls"},
	{"--tls --key f echo h", "--cert"},
	{"--mtu time h", "--mtu needs echo"},
	{"--half-close -u echo h", "--half-close needs TCP"},
	{"--half-close chargen h", "--half-close needs"},
	{"--early echo h", "--early"},
	{"--reconnect -u echo h", "--reconnect"},
	{"--depth 5 --early time h", "a load has"},
	{"--connections 0 echo h", "--connections 0"},
	{"--rate 0 echo h", "--rate 0"},
};

START_TEST(invalid_command_line_is_refused_with_a_reason)
{
	stderr_begin();
	struct options options = parse(refused[_i].line);
	const char *text = stderr_end();

	ck_assert_int_eq(options.action, OPTIONS_REFUSE);
	ck_assert_msg(strstr(text, refused[_i].word) != NULL, "\"%s\": %s", refused[_i].line, text);
	ck_assert_ptr_nonnull(strstr(text, "smallprobe --help"));
}
END_TEST

/* Returns the output of FUNCTION, valid until the next call. */
static const char *written_by(void (*function)(FILE *))
{
	static char text[16384];
	FILE *out = fmemopen(text, sizeof text, "w");

	ck_assert_ptr_nonnull(out);
	function(out);
	fclose(out);
	return text;
}

START_TEST(help_lists_every_option_and_type)
{
	static const char *const words[] = {"echo discard daytime qotd chargen time",
					    "-u, --udp",
					    "-4, --ipv4",
					    "-6, --ipv6",
					    "-c, --count COUNT",
					    "-i, --interval SECONDS",
					    "-s, --size BYTES",
					    "-W, --timeout SECONDS",
					    "-w, --deadline SECONDS",
					    "-B, --bind ADDRESS[:PORT]",
					    "-I, --interface NAME",
					    "-p, --port PORT",
					    "-t, --ttl TTL",
					    "--dscp CLASS",
					    "-D, --timestamps",
					    "-q, --quiet",
					    "-V, --version",
					    "-h, --help",
					    "--connections N",
					    "--duration SECONDS",
					    "--depth K",
					    "--rate N",
					    "--tls",
					    "--cacert FILE",
					    "--cert FILE",
					    "--key FILE",
					    "--server-name NAME",
					    "-k, --insecure",
					    "--proxy v1|v2",
					    "--reconnect",
					    "--wait SECONDS",
					    "--max-loss PERCENT",
					    "--json",
					    "--mtu",
					    "--half-close",
					    "--early"};
	const char *help = written_by(options_print_help);

	for (size_t i = 0; i < sizeof words / sizeof *words; i++)
		ck_assert_msg(strstr(help, words[i]) != NULL, "no %s", words[i]);
}
END_TEST

static Suite *suite(void)
{
	Suite *suite = suite_create("probe_options");
	TCase *line = tcase_create("line");

	tcase_add_test(line, plain_command_line_has_the_defaults);
	tcase_add_test(line, every_option_sets_its_field);
	tcase_add_loop_test(line, only_echo_has_an_unlimited_count, 0, sizeof counts / sizeof *counts);
	tcase_add_loop_test(line, dscp_classes_have_their_code_points, 0, sizeof classes / sizeof *classes);
	tcase_add_loop_test(line, invalid_command_line_is_refused_with_a_reason, 0, sizeof refused / sizeof *refused);
	tcase_add_test(line, help_lists_every_option_and_type);
	suite_add_tcase(suite, line);
	return suite;
}

int main(void)
{
	return check_run(suite());
}
