/* check_probe_json.c: all output is valid JSON. */
#include "probe/json.h"

#include <locale.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "check_run.h"

static struct json json;
static char *text;
static size_t length;

static void setup(void)
{
	text = NULL;
	json = (struct json){.file = open_memstream(&text, &length)};
	ck_assert_ptr_nonnull(json.file);
}

static void teardown(void)
{
	fclose(json.file);
	free(text);
}

static void assert_text(const char *expected)
{
	ck_assert(json_finish(&json));
	ck_assert_str_eq(text, expected);
}

START_TEST(objects_and_arrays_nest)
{
	json_begin_object(&json, NULL);
	json_uint(&json, "a", UINT64_MAX);
	json_begin_array(&json, "b");
	json_int(&json, NULL, INT64_MIN);
	json_begin_object(&json, NULL);
	json_end(&json);
	json_begin_array(&json, NULL);
	json_end(&json);
	json_bool(&json, NULL, true);
	json_end(&json);
	json_null(&json, "c");
	json_bool(&json, "d", false);
	json_end(&json);
	assert_text("{\"a\": 18446744073709551615, \"b\": [-9223372036854775808, {}, [], true], \"c\": null, \"d\": "
		    "false}\n");
}
END_TEST

static const struct {
	const char *bytes, *json;
} strings[] = {
	{"", "\"\""},
	{"plain", "\"plain\""},
	{"a\"b\\c/", "\"a\\\"b\\\\c/\""},
	{"\n\t\x01\x7f", "\"\\u000a\\u0009\\u0001\\u007f\""},
	{"\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80", "\"\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80\""},
	{"\xff"
	 "a\xc3",
	 "\"\\ufffda\\ufffd\""},
	{"\xc0\xaf", "\"\\ufffd\\ufffd\""},                       /* an overlong form of / */
	{"\xed\xa0\x80", "\"\\ufffd\\ufffd\\ufffd\""},            /* half a surrogate pair */
	{"\xf4\x90\x80\x80", "\"\\ufffd\\ufffd\\ufffd\\ufffd\""}, /* beyond the last code point */
	{"\xf4\x8f\xbf\xbf", "\"\xf4\x8f\xbf\xbf\""},
	{"\xe0\x80\x80", "\"\\ufffd\\ufffd\\ufffd\""},
	{"\xe2\x82", "\"\\ufffd\\ufffd\""},
};

START_TEST(strings_are_escaped_and_valid_utf8)
{
	json_string(&json, NULL, strings[_i].bytes);
	assert_text(strings[_i].json);
}
END_TEST

START_TEST(bytes_may_contain_nul_and_null_string_is_null)
{
	json_begin_array(&json, NULL);
	json_bytes(&json, NULL, "a\0b", 3);
	json_string(&json, NULL, NULL);
	json_end(&json);
	assert_text("[\"a\\u0000b\", null]\n");
}
END_TEST

START_TEST(keys_are_escaped)
{
	json_begin_object(&json, NULL);
	json_uint(&json, "a\"b", 1);
	json_end(&json);
	assert_text("{\"a\\\"b\": 1}\n");
}
END_TEST

START_TEST(numbers_have_the_requested_decimals)
{
	json_begin_array(&json, NULL);
	json_number(&json, NULL, 1.23456, 3);
	json_number(&json, NULL, -0.5, 0);
	json_number(&json, NULL, 12, 0);
	json_number(&json, NULL, NAN, 3);
	json_number(&json, NULL, INFINITY, 3);
	json_number(&json, NULL, 0, 9);
	json_end(&json);
	assert_text("[1.235, -0, 12, null, null, 0.000000000]\n");
}
END_TEST

START_TEST(numbers_ignore_the_locale)
{
	if (setlocale(LC_NUMERIC, "de_DE.UTF-8") == NULL && setlocale(LC_NUMERIC, "fr_FR.UTF-8") == NULL)
		return; /* the locale is not installed: the test of the C locale holds */
	json_number(&json, NULL, 1.5, 2);
	assert_text("1.50");
}
END_TEST

START_TEST(largest_double_is_written_in_full)
{
	json_number(&json, NULL, 1.7976931348623157e308, 9);
	ck_assert(json_finish(&json));
	ck_assert_uint_eq(strlen(text), 309 + 1 + 9);
}
END_TEST

START_TEST(write_error_is_returned)
{
	struct json full = {.file = fopen("/dev/full", "we")};
	ck_assert_ptr_nonnull(full.file);
	json_begin_array(&full, NULL);
	json_end(&full);
	ck_assert(!json_finish(&full));
	fclose(full.file);
}
END_TEST

static Suite *suite(void)
{
	Suite *suite = suite_create("probe json");
	TCase *writer = tcase_create("writer");
	tcase_add_checked_fixture(writer, setup, teardown);
	tcase_add_test(writer, objects_and_arrays_nest);
	tcase_add_loop_test(writer, strings_are_escaped_and_valid_utf8, 0, sizeof strings / sizeof *strings);
	tcase_add_test(writer, bytes_may_contain_nul_and_null_string_is_null);
	tcase_add_test(writer, keys_are_escaped);
	tcase_add_test(writer, numbers_have_the_requested_decimals);
	tcase_add_test(writer, numbers_ignore_the_locale);
	tcase_add_test(writer, largest_double_is_written_in_full);
	tcase_add_test(writer, write_error_is_returned);
	suite_add_tcase(suite, writer);
	return suite;
}

int main(void)
{
	return check_run(suite());
}
