/* check_diagnostics.c: order and number of messages. */
#include <check.h>
#include <stdarg.h>
#include <string.h>

#include "check_run.h"
#include "core/diagnostics.h"

static struct diagnostics diagnostics;

static void add(bool warning, struct diagnostic_place place, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
static void add(bool warning, struct diagnostic_place place, const char *format, ...)
{
	va_list arguments;
	va_start(arguments, format);
	diagnostics_add(&diagnostics, warning, &place, format, arguments);
	va_end(arguments);
}

static void assert_text(size_t index, const char *text)
{
	ck_assert_uint_lt(index, diagnostics.count);
	ck_assert_str_eq(diagnostics.messages[index].text, text);
}

static void tear_down(void)
{
	diagnostics_free(&diagnostics);
	ck_assert_ptr_null(diagnostics.messages);
	ck_assert_uint_eq(diagnostics.count, 0);
	ck_assert_uint_eq(diagnostics.errors, 0);
}

START_TEST(message_names_its_place)
{
	add(false, (struct diagnostic_place){.origin = {"a.conf", 7}, .section = "echo", .key = "port"}, "no %s",
	    "port");
	add(true, (struct diagnostic_place){.origin = {"a.conf", 8}, .section = "echo"}, "odd");
	add(false, (struct diagnostic_place){.origin = {"a.conf", 9}, .key = "port"}, "lost");
	add(false, (struct diagnostic_place){.origin = {"a.conf", 0}, .order = 1}, "empty");
	assert_text(0, "a.conf:7: [echo] port: no port");
	assert_text(1, "a.conf:8: warning: [echo] odd");
	assert_text(2, "a.conf:9: port: lost");
	assert_text(3, "a.conf: empty");
	ck_assert(diagnostics.messages[1].warning);
	ck_assert_uint_eq(diagnostics.errors, 3);
}
END_TEST

START_TEST(messages_are_ordered_by_file_line_and_time)
{
	add(false, (struct diagnostic_place){.origin = {"b.conf", 1}, .order = 1}, "fifth");
	add(false, (struct diagnostic_place){.origin = {"a.conf", 20}}, "fourth");
	add(false, (struct diagnostic_place){.origin = {"a.conf", 3}}, "second");
	add(true, (struct diagnostic_place){.origin = {"a.conf", 3}}, "third");
	add(false, (struct diagnostic_place){.origin = {"a.conf", 1}}, "first");
	assert_text(0, "a.conf:1: first");
	assert_text(1, "a.conf:3: second");
	assert_text(2, "a.conf:3: warning: third");
	assert_text(3, "a.conf:20: fourth");
	assert_text(4, "b.conf:1: fifth");
}
END_TEST

START_TEST(message_copies_its_file_name)
{
	char file[] = "a.conf";
	add(false, (struct diagnostic_place){.origin = {file, 1}}, "wrong");
	memset(file, 'x', sizeof file - 1);
	ck_assert_str_eq(diagnostics.messages[0].file, "a.conf");
	assert_text(0, "a.conf:1: wrong");
}
END_TEST

START_TEST(errors_beyond_1000_messages_are_counted)
{
	for (unsigned line = 1; line <= 3000; line++) {
		ck_assert_int_eq(diagnostics_is_full(&diagnostics), line > 1001);
		add(line % 3 == 0, (struct diagnostic_place){.origin = {"a.conf", line}}, "wrong");
	}
	ck_assert_uint_eq(diagnostics.count, 1001);
	ck_assert_uint_eq(diagnostics.errors, 2000);
	assert_text(0, "a.conf:1: wrong");
	assert_text(999, "a.conf:1000: wrong");
	assert_text(1000, "more than 1000 messages: the others are left out");
	ck_assert_ptr_null(diagnostics.messages[1000].file);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("diagnostics");
	TCase *tests = tcase_create("diagnostics");
	tcase_add_checked_fixture(tests, NULL, tear_down);
	tcase_add_test(tests, message_names_its_place);
	tcase_add_test(tests, messages_are_ordered_by_file_line_and_time);
	tcase_add_test(tests, message_copies_its_file_name);
	tcase_add_test(tests, errors_beyond_1000_messages_are_counted);
	suite_add_tcase(suite, tests);
	return check_run(suite);
}
