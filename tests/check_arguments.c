/* check_arguments.c: a command line is one action, or refused with a reason on stderr. */
#include <getopt.h>
#include <string.h>

#include "arguments.h"
#include "check_run.h"
#include "check_stderr.h"

#define DEFAULT SYSCONFDIR "/smallservd/smallservd.conf"

enum { ARGUMENTS_MAX = 8 };

/* Splits LINE at its blanks and parses it. */
static struct arguments parse(const char *line)
{
	static char text[256], name[] = "smallservd";
	char *argv[ARGUMENTS_MAX] = {name};
	int argc = 1;
	snprintf(text, sizeof text, "%s", line);
	for (char *word = strtok(text, " "); word != NULL; word = strtok(NULL, " "))
		argv[argc++] = word;
	optind = 0; /* getopt_long starts anew */
	return arguments_parse(argc, argv);
}

static const struct {
	const char *line;
	enum action action;
	const char *config;
	int verbose;
} accepted[] = {
	{"", ACTION_SERVE, DEFAULT, 0},
	{"-c some.conf", ACTION_SERVE, "some.conf", 0},
	{"-csome.conf", ACTION_SERVE, "some.conf", 0},
	{"--config some.conf", ACTION_SERVE, "some.conf", 0},
	{"--config=some.conf", ACTION_SERVE, "some.conf", 0},
	{"-c -", ACTION_SERVE, "-", 0},
	{"-c first -c second", ACTION_SERVE, "second", 0},
	{"-v", ACTION_SERVE, DEFAULT, 1},
	{"-vv --verbose", ACTION_SERVE, DEFAULT, 3},
	{"-t", ACTION_CHECK, DEFAULT, 0},
	{"--check", ACTION_CHECK, DEFAULT, 0},
	{"-t -t", ACTION_CHECK, DEFAULT, 0},
	{"-t -c some.conf", ACTION_CHECK, "some.conf", 0},
	{"-c some.conf -tv", ACTION_CHECK, "some.conf", 1},
	{"-T", ACTION_DUMP, DEFAULT, 0},
	{"--dump", ACTION_DUMP, DEFAULT, 0},
	{"-l", ACTION_LIST_TYPES, DEFAULT, 0},
	{"--list-types", ACTION_LIST_TYPES, DEFAULT, 0},
	{"-V", ACTION_VERSION, DEFAULT, 0},
	{"--version", ACTION_VERSION, DEFAULT, 0},
	{"-h", ACTION_HELP, DEFAULT, 0},
	{"--help", ACTION_HELP, DEFAULT, 0},
};

START_TEST(command_line_is_parsed_to_its_action)
{
	struct arguments arguments = parse(accepted[_i].line);
	ck_assert_int_eq(arguments.action, accepted[_i].action);
	ck_assert_str_eq(arguments.config, accepted[_i].config);
	ck_assert_int_eq(arguments.verbose, accepted[_i].verbose);
}
END_TEST

static const struct {
	const char *line, *word;
} refused[] = {
	{"-x", "x"},
	{"--nonsense", "nonsense"},
	{"-c", "c"},
	{"--config", "config"},
	{"--check=yes", "check"},
	{"some.conf", "some.conf"},
	{"-t some.conf", "some.conf"},
	{"-- -t", "-t"},
	{"-t -T", "exclude"},
	{"-T -l", "exclude"},
};

START_TEST(invalid_command_line_is_refused_with_a_reason)
{
	stderr_begin();
	struct arguments arguments = parse(refused[_i].line);
	const char *text = stderr_end();
	ck_assert_int_eq(arguments.action, ACTION_REFUSE);
	ck_assert_msg(strstr(text, refused[_i].word) != NULL, "\"%s\": %s", refused[_i].line, text);
	ck_assert_ptr_nonnull(strstr(text, "smallservd --help"));
}
END_TEST

/* The usage names every accepted option, by letter and name. */
START_TEST(usage_lists_every_option)
{
	static const char *const options[] = {"-c, --config FILE", "-t, --check",   "-T, --dump", "-l, --list-types",
					      "-v, --verbose",     "-V, --version", "-h, --help"};
	for (size_t i = 0; i < sizeof options / sizeof *options; i++)
		ck_assert_msg(strstr(arguments_usage, options[i]) != NULL, "no %s", options[i]);
	ck_assert_ptr_nonnull(strstr(arguments_usage, DEFAULT));
}
END_TEST

static Suite *suite(void)
{
	Suite *suite = suite_create("arguments");
	TCase *line = tcase_create("line");
	tcase_set_timeout(line, 60);
	tcase_add_loop_test(line, command_line_is_parsed_to_its_action, 0, sizeof accepted / sizeof *accepted);
	tcase_add_loop_test(line, invalid_command_line_is_refused_with_a_reason, 0, sizeof refused / sizeof *refused);
	tcase_add_test(line, usage_lists_every_option);
	suite_add_tcase(suite, line);
	return suite;
}

int main(void)
{
	return check_run(suite());
}
