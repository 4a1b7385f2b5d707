/* check_probe_chargen.c: tests of the character generator pattern. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "check_run.h"
#include "probe/chargen.h"

enum { LINE = 74, RING = 95, SIZE = 3 * LINE * RING };

static char pattern[SIZE];

/* Fills lines that start with character FIRST of the ring, each one further. */
static void fill(int first)
{
	for (int line = 0; line < 3 * RING; line++) {
		for (int column = 0; column < 72; column++)
			pattern[line * LINE + column] = (char)(' ' + (first + line + column) % RING);
		memcpy(pattern + line * LINE + 72, "\r\n", 2);
	}
}

START_TEST(pattern_matches_from_any_start_to_any_cut)
{
	fill(_i);
	ck_assert_uint_eq(chargen_difference(pattern, SIZE), CHARGEN_RIGHT);
	for (size_t length = 0; length < 3 * LINE; length++)
		ck_assert_uint_eq(chargen_difference(pattern, length), CHARGEN_RIGHT);
}
END_TEST

START_TEST(wrong_byte_is_found_at_its_offset)
{
	fill(0);
	for (size_t at = 1; at < SIZE; at += 37) {
		pattern[at] ^= 1;
		ck_assert_uint_eq(chargen_difference(pattern, SIZE), at);
		pattern[at] ^= 1;
	}
}
END_TEST

START_TEST(unprintable_first_byte_is_rejected)
{
	ck_assert_uint_eq(chargen_difference("\r\n", 2), 0);
	ck_assert_uint_eq(chargen_difference("\x7f", 1), 0);
	ck_assert_uint_eq(chargen_difference("\xff", 1), 0);
}
END_TEST

static Suite *suite(void)
{
	Suite *suite = suite_create("probe_chargen");
	TCase *bytes = tcase_create("bytes");

	tcase_add_loop_test(bytes, pattern_matches_from_any_start_to_any_cut, 0, RING);
	tcase_add_test(bytes, wrong_byte_is_found_at_its_offset);
	tcase_add_test(bytes, unprintable_first_byte_is_rejected);
	suite_add_tcase(suite, bytes);
	return suite;
}

int main(void)
{
	return check_run(suite());
}
