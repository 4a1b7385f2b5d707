/* check_slab.c: every object is somebody's own, and memory comes back. */
#include <check.h>
#include <stdint.h>
#include <string.h>

#include "check_run.h"
#include "net/slab.h"

enum { OBJECTS = 1000, STEPS = 100000 };

/* Odd, so that rounding up has something to do. */
struct object {
	unsigned char bytes[229];
};

static struct slab slab;
static struct object *objects[OBJECTS];

static void setup(void)
{
	slab_init(&slab, sizeof(struct object));
	memset(objects, 0, sizeof objects);
}

static void teardown(void)
{
	slab_clear(&slab);
}

/* Fills object I, all of it, with what is its alone. */
static void take(unsigned i)
{
	objects[i] = slab_take(&slab);
	ck_assert_ptr_nonnull(objects[i]);
	ck_assert_uint_eq((uintptr_t)objects[i] % SLAB_ALIGNMENT, 0);
	for (size_t at = 0; at < sizeof objects[i]->bytes; at++)
		objects[i]->bytes[at] = (unsigned char)(i * 31 + at);
}

static void give(unsigned i)
{
	size_t right = 0;
	while (right < sizeof objects[i]->bytes && objects[i]->bytes[right] == (unsigned char)(i * 31 + right))
		right++;
	ck_assert_msg(right == sizeof objects[i]->bytes, "byte %zu of object %u was overwritten", right, i);
	slab_give(&slab, objects[i]);
	objects[i] = NULL;
}

START_TEST(objects_do_not_overlap)
{
	for (unsigned i = 0; i < OBJECTS; i++)
		take(i);
	for (unsigned i = 0; i < OBJECTS; i++)
		give(i);
}
END_TEST

START_TEST(objects_do_not_overlap_in_any_order)
{
	uint64_t random = 1;
	for (unsigned step = 0; step < STEPS; step++) {
		random = random * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
		unsigned i = (unsigned)(random >> 33) % OBJECTS;
		if (objects[i] == NULL)
			take(i);
		else
			give(i);
	}
	for (unsigned i = 0; i < OBJECTS; i++)
		if (objects[i] != NULL)
			give(i);
	ck_assert_uint_le(slab.blocks, 1);
}
END_TEST

START_TEST(the_object_given_back_last_is_handed_out_next)
{
	for (unsigned i = 0; i < OBJECTS; i++)
		take(i);
	struct object *last = objects[OBJECTS / 2];
	give(OBJECTS / 2);
	take(OBJECTS / 2);
	ck_assert_ptr_eq(objects[OBJECTS / 2], last);
	for (unsigned i = 0; i < OBJECTS; i++)
		give(i);
}
END_TEST

START_TEST(blocks_are_filled_before_there_are_more)
{
	const size_t least = (OBJECTS * sizeof(struct object) + SLAB_BLOCK_SIZE - 1) / SLAB_BLOCK_SIZE;
	for (unsigned i = 0; i < OBJECTS; i++)
		take(i);
	ck_assert_uint_ge(slab.blocks, least);
	ck_assert_uint_le(slab.blocks, least + least / 10 + 1); /* heads and rounding */
	for (unsigned i = 0; i < OBJECTS; i++)
		give(i);
}
END_TEST

START_TEST(empty_blocks_are_freed_but_for_one)
{
	for (unsigned i = 0; i < OBJECTS; i++)
		take(i);
	for (unsigned i = 0; i < OBJECTS; i++)
		give(i);
	ck_assert_uint_eq(slab.blocks, 1);
	take(0);
	give(0);
	ck_assert_uint_eq(slab.blocks, 1);
}
END_TEST

START_TEST(a_slab_that_was_never_used_has_no_memory)
{
	ck_assert_uint_eq(slab.blocks, 0);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("slab");
	TCase *tests = tcase_create("slab");
	tcase_add_checked_fixture(tests, setup, teardown);
	tcase_add_test(tests, objects_do_not_overlap);
	tcase_add_test(tests, objects_do_not_overlap_in_any_order);
	tcase_add_test(tests, the_object_given_back_last_is_handed_out_next);
	tcase_add_test(tests, blocks_are_filled_before_there_are_more);
	tcase_add_test(tests, empty_blocks_are_freed_but_for_one);
	tcase_add_test(tests, a_slab_that_was_never_used_has_no_memory);
	suite_add_tcase(suite, tests);
	return check_run(suite);
}
