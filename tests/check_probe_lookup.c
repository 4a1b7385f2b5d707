/* check_probe_lookup.c: tests of name resolution within a time limit. The test replaces getaddrinfo. */
#include "probe/lookup.h"

#include <check.h>
#include <errno.h>
#include <netinet/in.h>
#include <semaphore.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "check_run.h"

static sem_t may_answer, has_answered;
static char asked[256], freed;

/* A result in one block of memory, as the C library's. */
struct result {
	struct addrinfo info;
	struct sockaddr_in address;
};

int getaddrinfo(const char *restrict host, const char *restrict port, const struct addrinfo *restrict hints,
		struct addrinfo **restrict list)
{
	while (sem_wait(&may_answer) < 0)
		;
	strncpy(asked, host, sizeof asked - 1);
	if (strcmp(host, "nobody") == 0) {
		errno = EPROTO;
		return EAI_SYSTEM;
	}
	struct result *result = calloc(1, sizeof *result);
	result->address = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(port))};
	result->info = (struct addrinfo){.ai_family = AF_INET,
					 .ai_socktype = hints->ai_socktype,
					 .ai_addr = (struct sockaddr *)&result->address,
					 .ai_addrlen = sizeof result->address};
	*list = &result->info;
	return 0;
}

void freeaddrinfo(struct addrinfo *list)
{
	free(list);
	freed++;
	sem_post(&has_answered);
}

static const struct addrinfo hints = {.ai_family = AF_INET, .ai_socktype = SOCK_DGRAM};

static void setup(void)
{
	ck_assert_int_eq(sem_init(&may_answer, 0, 0), 0);
	ck_assert_int_eq(sem_init(&has_answered, 0, 0), 0);
}

static void assert_answer(int64_t timeout_ms)
{
	struct addrinfo *list = NULL;
	sem_post(&may_answer);
	ck_assert_int_eq(lookup_addresses("somebody", "1007", &hints, timeout_ms, &list), 0);
	ck_assert_str_eq(asked, "somebody");
	ck_assert_int_eq(list->ai_socktype, SOCK_DGRAM);
	ck_assert_uint_eq(((const struct sockaddr_in *)(const void *)list->ai_addr)->sin_port, htons(1007));
	freeaddrinfo(list);
}

START_TEST(result_within_the_limit_is_returned)
{
	assert_answer(1000 * 1000);
	assert_answer(0);
}
END_TEST

START_TEST(error_of_getaddrinfo_is_returned)
{
	struct addrinfo *list = NULL;
	sem_post(&may_answer);
	ck_assert_int_eq(lookup_addresses("nobody", "7", &hints, 1000 * 1000, &list), EAI_SYSTEM);
	ck_assert_int_eq(errno, EPROTO);
}
END_TEST

START_TEST(late_result_times_out_and_is_freed)
{
	struct addrinfo *list = NULL;
	ck_assert_int_eq(lookup_addresses("slow", "7", &hints, 20, &list), EAI_SYSTEM);
	ck_assert_int_eq(errno, ETIMEDOUT);
	ck_assert_ptr_null(list);
	sem_post(&may_answer);
	while (sem_wait(&has_answered) < 0)
		;
	ck_assert_str_eq(asked, "slow");
	ck_assert_int_eq(freed, 1);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("probe_lookup");
	TCase *tests = tcase_create("lookup");
	tcase_add_checked_fixture(tests, setup, NULL);
	tcase_set_timeout(tests, 60);
	tcase_add_test(tests, result_within_the_limit_is_returned);
	tcase_add_test(tests, error_of_getaddrinfo_is_returned);
	tcase_add_test(tests, late_result_times_out_and_is_freed);
	suite_add_tcase(suite, tests);
	return check_run(suite);
}
