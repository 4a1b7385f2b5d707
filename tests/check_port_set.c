/* check_port_set.c: a set has exactly the ports that were added. */
#include <check.h>
#include <stdlib.h>

#include "check_run.h"
#include "core/port_set.h"

/* Asserts that SET has exactly the COUNT ports LISTED. */
static void assert_has(const struct port_set *set, const uint16_t *listed, size_t count)
{
	for (unsigned port = 0; port <= UINT16_MAX; port++) {
		bool wanted = false;
		for (size_t i = 0; i < count; i++)
			wanted |= listed[i] == port;
		if (port_set_has(set, (uint16_t)port) != wanted)
			ck_abort_msg("port %u: %s", port, wanted ? "is missing" : "was not added");
	}
}

START_TEST(set_has_exactly_the_added_ports)
{
	static const uint16_t ports[] = {0, 1, 63, 64, 127, 4096, 32768, 65472, 65535};
	static struct port_set set;

	assert_has(&set, NULL, 0);
	for (size_t i = 0; i < sizeof ports / sizeof *ports; i++) {
		port_set_add(&set, ports[i]);
		port_set_add(&set, ports[i]);
		assert_has(&set, ports, i + 1);
	}
}
END_TEST

START_TEST(unite_adds_the_ports_of_the_other_set)
{
	static const uint16_t both[] = {7, 13, 65535}, second[] = {13, 65535};
	static struct port_set one, other;

	port_set_add(&one, 7);
	port_set_add(&one, 13);
	port_set_add(&other, 13);
	port_set_add(&other, 65535);
	port_set_unite(&one, &other);
	assert_has(&one, both, 3);
	assert_has(&other, second, 2);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("port_set");
	TCase *tests = tcase_create("port_set");
	tcase_add_test(tests, set_has_exactly_the_added_ports);
	tcase_add_test(tests, unite_adds_the_ports_of_the_other_set);
	suite_add_tcase(suite, tests);
	return check_run(suite);
}
