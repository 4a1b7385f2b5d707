/* check_probe_json.c: whatever is written is JSON. */
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
	{"\xc0\xaf", "\"\\ufffd\\ufffd\""},                       /* too long a form of / */
	{"\xed\xa0\x80", "\"\\ufffd\\ufffd\\ufffd\""},            /* half a surrogate pair */
	{"\xf4\x90\x80\x80", "\"\\ufffd\\ufffd\\ufffd\\ufffd\""}, /* beyond the last character */
	{"\xf4\x8f\xbf\xbf", "\"\xf4\x8f\xbf\xbf\""},
	{"\xe0\x80\x80", "\"\\ufffd\\ufffd\\ufffd\""},
	{"\xe2\x82", "\"\\ufffd\\ufffd\""},
};

START_TEST(strings_are_escaped_and_always_utf8)
{
	json_string(&json, NULL, strings[_i].bytes);
	assert_text(strings[_i].json);
}
END_TEST

START_TEST(bytes_may_hold_nul_and_a_missing_string_is_null)
{
	json_begin_array(&json, NULL);
	json_bytes(&json, NULL, "a\0b", 3);
	json_string(&json, NULL, NULL);
	json_end(&json);
	assert_text("[\"a\\u0000b\", null]\n");
}
END_TEST

START_TEST(keys_are_escaped_too)
{
	json_begin_object(&json, NULL);
	json_uint(&json, "a\"b", 1);
	json_end(&json);
	assert_text("{\"a\\\"b\": 1}\n");
}
END_TEST

START_TEST(numbers_have_the_decimals_asked_for_and_are_numbers)
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

START_TEST(numbers_are_the_same_in_a_locale_with_a_comma)
{
	if (setlocale(LC_NUMERIC, "de_DE.UTF-8") == NULL && setlocale(LC_NUMERIC, "fr_FR.UTF-8") == NULL)
		return; /* no such locale here: the other test holds for the one there is */
	json_number(&json, NULL, 1.5, 2);
	assert_text("1.50");
}
END_TEST

START_TEST(the_largest_number_is_written_whole)
{
	json_number(&json, NULL, 1.7976931348623157e308, 9);
	ck_assert(json_finish(&json));
	ck_assert_uint_eq(strlen(text), 309 + 1 + 9);
}
END_TEST

START_TEST(a_full_disk_is_told)
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
	tcase_add_loop_test(writer, strings_are_escaped_and_always_utf8, 0, sizeof strings / sizeof *strings);
	tcase_add_test(writer, bytes_may_hold_nul_and_a_missing_string_is_null);
	tcase_add_test(writer, keys_are_escaped_too);
	tcase_add_test(writer, numbers_have_the_decimals_asked_for_and_are_numbers);
	tcase_add_test(writer, numbers_are_the_same_in_a_locale_with_a_comma);
	tcase_add_test(writer, the_largest_number_is_written_whole);
	tcase_add_test(writer, a_full_disk_is_told);
	suite_add_tcase(suite, writer);
	return suite;
}

int main(void)
{
	return check_run(suite());
}
