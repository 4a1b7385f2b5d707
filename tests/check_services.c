/* check_services.c: input and output of each service. */
#include "check_run.h"

#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/array.h"
#include "core/transport.h"
#include "option/option.h"
#include "service/service.h"

enum { TCP_SIZE = 1024, UDP_SIZE = 65535 };

static char error[OPTION_ERROR_SIZE];
static char buffer[UDP_SIZE];

/* Makes settings as the loader does: zeroed, then filled by the rows. */

static void take_error(void *context, const char *message)
{
	(void)context;
	snprintf(error, sizeof(error), "%s", message);
}

static bool set(const struct service *service, void *settings, const char *key, const char *text)
{
	const struct option *option = option_find(service->options, service->option_count, key);
	void *field = option_field(option, settings);

	if (!option->type->parse(option, text, field, error))
		return false;
	if (!option->type->load || option->type->load(option, field, take_error, NULL))
		return true;
	option->type->free(field);
	return false;
}

static void *make_settings(const struct service *service, const char *key, const char *text)
{
	void *settings = calloc(1, service->settings_size);

	ck_assert_msg(set(service, settings, key, text), "%s: %s", text, error);
	return settings;
}

static void free_settings(const struct service *service, void *settings)
{
	for (size_t i = 0; i < service->option_count; i++)
		service->options[i].type->free(option_field(&service->options[i], settings));
	free(settings);
}

static void assert_refused(const struct service *service, const char *key, const char *text, const char *reason)
{
	void *settings = calloc(1, service->settings_size);
	void *zeroes = calloc(1, service->settings_size);

	ck_assert_msg(!set(service, settings, key, text), "%s", text);
	ck_assert_msg(strstr(error, reason) != NULL, "%s: %s", text, error);
	ck_assert_mem_eq(settings, zeroes, service->settings_size);
	free(zeroes);
	free(settings);
}

static void assert_prints(const struct service *service, const char *key, const char *text)
{
	const struct option *option = option_find(service->options, service->option_count, key);
	void *settings = make_settings(service, key, text);
	char *printed;
	size_t length;
	FILE *out = open_memstream(&printed, &length);

	option->type->print(option, option_field_const(option, settings), out);
	fclose(out);
	ck_assert_str_eq(printed, text);
	free(printed);
	free_settings(service, settings);
}

/* Sends a datagram of LENGTH bytes to SERVICE; the reply is in buffer. */
static ssize_t ask(const struct service *service, const void *settings, int64_t seconds, long nanoseconds,
		   uint64_t random, size_t length)
{
	struct service_context context = {.settings = settings, .now = {seconds, nanoseconds}, .random = random};

	return service->udp_reply(&context, buffer, length, sizeof(buffer));
}

/* Returns the output of SERVICE after a connect, which must be complete. */
static struct service_output connect_to(const struct service *service, const void *settings, int64_t seconds,
					long nanoseconds, uint64_t random)
{
	struct service_context context = {.settings = settings, .now = {seconds, nanoseconds}, .random = random};
	struct service_output output = service->tcp_output(&context, 0, buffer, TCP_SIZE);

	ck_assert(output.done);
	return output;
}

/* Asserts the output EXPECTED over TCP and UDP. */
static void assert_says(const struct service *service, const void *settings, int64_t seconds, long nanoseconds,
			const char *expected)
{
	size_t length = strlen(expected);
	struct service_output output = connect_to(service, settings, seconds, nanoseconds, 0);

	ck_assert_msg(output.length == length && memcmp(output.bytes, expected, length) == 0, "%.*s is not %s",
		      (int)output.length, output.bytes, expected);
	memset(buffer, 'x', sizeof(buffer));
	ck_assert_int_eq(ask(service, settings, seconds, nanoseconds, 0, 0), (ssize_t)length);
	ck_assert_mem_eq(buffer, expected, length);
	ck_assert_int_eq(buffer[length + 1], 'x'); /* one byte may be a NUL */
}

/* --- the table --- */

START_TEST(services_are_in_the_order_of_their_ports)
{
	ck_assert_uint_eq(service_count, 6);
	for (size_t i = 1; i < service_count; i++)
		ck_assert_uint_lt(service_table[i - 1]->port, service_table[i]->port);
}
END_TEST

START_TEST(services_are_found_by_name)
{
	for (size_t i = 0; i < service_count; i++)
		ck_assert_ptr_eq(service_find(service_table[i]->name), service_table[i]);
	ck_assert_ptr_null(service_find("ech"));
	ck_assert_ptr_null(service_find("Echo"));
	ck_assert_ptr_null(service_find(""));
}
END_TEST

START_TEST(table_matches_iana_and_the_rfcs)
{
	static const struct {
		const char *name;
		uint16_t port;
		unsigned rfc;
		bool amplifies;
	} facts[] = {
		{"echo", 7, 862, false}, {"discard", 9, 863, false},  {"daytime", 13, 867, true},
		{"qotd", 17, 865, true}, {"chargen", 19, 864, false}, {"time", 37, 868, true},
	};

	for (size_t i = 0; i < service_count; i++) {
		const struct service *service = service_table[i];

		ck_assert_str_eq(service->name, facts[i].name);
		ck_assert_uint_eq(service->port, facts[i].port);
		ck_assert_uint_eq(service->rfc, facts[i].rfc);
		ck_assert_uint_eq(service->transports, TRANSPORT_BOTH);
		ck_assert_int_eq(service->amplifies, facts[i].amplifies);
		ck_assert_ptr_nonnull(service->udp_reply);
	}
}
END_TEST

START_TEST(only_amplifying_services_reply_longer_than_asked)
{
	for (size_t length = 0; length <= 2048; length++) {
		ck_assert_int_le(ask(&echo_service, NULL, 0, 0, length, length), (ssize_t)length);
		ck_assert_int_le(ask(&discard_service, NULL, 0, 0, length, length), (ssize_t)length);
		ck_assert_int_le(ask(&chargen_service, NULL, 0, 0, length, length), (ssize_t)length);
	}
}
END_TEST

/* --- echo --- */

START_TEST(echo_returns_every_datagram)
{
	static char sent[UDP_SIZE];

	for (size_t i = 0; i < sizeof(sent); i++)
		sent[i] = (char)(i * 31 + i / 256);
	for (size_t length = 0; length <= sizeof(sent); length += length < 1500 ? 1 : 977) {
		memcpy(buffer, sent, length);
		ck_assert_int_eq(ask(&echo_service, NULL, 0, 0, 0, length), (ssize_t)length);
		ck_assert_int_eq(memcmp(buffer, sent, length), 0);
	}
}
END_TEST

START_TEST(echo_returns_a_stream_in_any_segments)
{
	char sent[64], received[64];

	for (size_t i = 0; i < sizeof(sent); i++)
		sent[i] = (char)(i * 37);
	for (size_t split = 0; split <= sizeof(sent); split++) {
		memcpy(received, sent, sizeof(sent));
		ck_assert_uint_eq(echo_service.tcp_input(NULL, received, split), split);
		ck_assert_uint_eq(echo_service.tcp_input(NULL, received + split, sizeof(sent) - split),
				  sizeof(sent) - split);
		ck_assert_mem_eq(received, sent, sizeof(sent));
	}
	ck_assert_ptr_null(echo_service.tcp_output);
}
END_TEST

/* --- discard --- */

START_TEST(discard_never_replies)
{
	for (size_t length = 0; length <= UDP_SIZE; length += 977)
		ck_assert_int_eq(ask(&discard_service, NULL, 0, 0, 0, length), -1);
	ck_assert_ptr_null(discard_service.tcp_output);
	ck_assert_ptr_null(discard_service.tcp_input);
}
END_TEST

/* --- time --- */

static void assert_time_bytes(int64_t seconds, const char *expected)
{
	struct service_output output = connect_to(&time_service, NULL, seconds, 0, 0);

	ck_assert_uint_eq(output.length, 4);
	ck_assert_mem_eq(output.bytes, expected, 4);
	ck_assert_int_eq(ask(&time_service, NULL, seconds, 0, 0, 0), 4);
	ck_assert_mem_eq(buffer, expected, 4);
}

START_TEST(time_matches_the_examples_of_the_rfc)
{
	assert_time_bytes(0, "\x83\xaa\x7e\x80");           /* 2,208,988,800 is 1970-01-01 */
	assert_time_bytes(189302400, "\x8e\xf3\x05\x00");   /* 2,398,291,200 is 1976-01-01 */
	assert_time_bytes(315532800, "\x96\x79\x24\x80");   /* 2,524,521,600 is 1980-01-01 */
	assert_time_bytes(420595200, "\x9c\xbc\x44\x80");   /* 2,629,584,000 is 1983-05-01 */
	assert_time_bytes(-3506716800, "\xb2\xa6\x3e\x00"); /* -1,297,728,000 is 1858-11-17 */
}
END_TEST

START_TEST(time_wraps_in_2036)
{
	assert_time_bytes(2085978495, "\xff\xff\xff\xff");
	assert_time_bytes(2085978496, "\0\0\0\0");
	assert_time_bytes(2085978497, "\0\0\0\1");
	assert_time_bytes(2147483648, "\x03\xaa\x7e\x80"); /* beyond 32 signed bits */
}
END_TEST

/* --- chargen --- */

enum { LINE_SIZE = 74, PERIOD = 95 * LINE_SIZE };

static char expected_character(uint64_t position)
{
	uint64_t line = position / LINE_SIZE, column = position % LINE_SIZE;

	return column == 72 ? '\r' : column == 73 ? '\n' : (char)(' ' + (line + column) % 95);
}

START_TEST(chargen_starts_as_the_rfc_shows)
{
	static const char lines[] = " !\"#$%&'()*+,-./0123456789:;<=>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[\\]^_`abcdefg\r\n"
				    "!\"#$%&'()*+,-./0123456789:;<=>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[\\]^_`abcdefgh\r\n";
	struct service_context context = {0};
	struct service_output output = chargen_service.tcp_output(&context, 0, buffer, TCP_SIZE);

	ck_assert_mem_eq(output.bytes, lines, sizeof(lines) - 1);
}
END_TEST

START_TEST(chargen_continues_from_every_position)
{
	struct service_context context = {0};

	for (uint64_t position = 0; position < 2 * PERIOD; position++) {
		struct service_output output = chargen_service.tcp_output(&context, position, buffer, TCP_SIZE);

		if (output.done || output.length < 65536)
			ck_abort_msg("%" PRIu64 ": %zu bytes", position, output.length);
		for (size_t i = 0; i < 2 * LINE_SIZE; i++)
			if (output.bytes[i] != expected_character(position + i))
				ck_abort_msg("%" PRIu64 ": a wrong byte at %zu", position, i);
	}
}
END_TEST

START_TEST(chargen_is_one_stream_for_any_send_sizes)
{
	static const size_t steps[] = {1, 73, 74, 75, 1000, 7029, 7030, 65536, 1000000};
	struct service_context context = {0};
	uint64_t position = 0;

	for (size_t round = 0; round < 2000; round++) {
		struct service_output output = chargen_service.tcp_output(&context, position, buffer, TCP_SIZE);
		size_t step = steps[round % COUNT_OF(steps)];
		size_t left = output.length < step ? output.length : step;

		for (size_t i = 0; i < left; i++)
			if (output.bytes[i] != expected_character(position + i))
				ck_abort_msg("%" PRIu64 ": a wrong byte at %zu", position, i);
		position += left;
	}
}
END_TEST

START_TEST(chargen_continues_after_many_terabytes)
{
	struct service_context context = {0};
	uint64_t position = UINT64_C(1) << 60;
	struct service_output output = chargen_service.tcp_output(&context, position, buffer, TCP_SIZE);

	for (size_t i = 0; i < 2 * PERIOD; i++)
		if (output.bytes[i] != expected_character(position + i))
			ck_abort_msg("a wrong byte at %zu", i);
}
END_TEST

START_TEST(chargen_datagram_has_the_length_of_its_request_up_to_512)
{
	for (size_t length = 0; length <= 600; length++) {
		size_t reply = length < 512 ? length : 512;

		memset(buffer, '\0', 1024);
		ck_assert_int_eq(ask(&chargen_service, NULL, 0, 0, length, length), (ssize_t)reply);
		for (size_t i = 0; i < reply; i++)
			if (buffer[i] != expected_character(i))
				ck_abort_msg("%zu bytes: a wrong byte at %zu", length, i);
		ck_assert_int_eq(buffer[reply], '\0');
	}
	ck_assert_int_eq(ask(&chargen_service, NULL, 0, 0, 0, UDP_SIZE), 512);
}
END_TEST

/* --- daytime --- */

static const struct {
	const char *format, *timezone;
	int64_t seconds;
	long nanoseconds;
	const char *line;
} daytimes[] = {
	{"ctime", "utc", 1795175008, 0, "Fri Nov 20 11:43:28 2026\r\n"},
	{"ctime", "utc", 0, 0, "Thu Jan  1 00:00:00 1970\r\n"},
	{"ctime", "utc", 951782399, 0, "Mon Feb 28 23:59:59 2000\r\n"},
	{"ctime", "utc", 951782400, 0, "Tue Feb 29 00:00:00 2000\r\n"},
	{"ctime", "utc", 1709251199, 999999999, "Thu Feb 29 23:59:59 2024\r\n"},
	{"ctime", "utc", 2147483648, 0, "Tue Jan 19 03:14:08 2038\r\n"},
	{"ctime", "utc", 4107542399, 0, "Sun Feb 28 23:59:59 2100\r\n"},
	{"ctime", "utc", 4107542400, 0, "Mon Mar  1 00:00:00 2100\r\n"},
	{"rfc3339", "utc", 1795175008, 123456789, "2026-11-20T11:43:28.123456Z\r\n"},
	{"rfc3339", "utc", 1795175008, 999999999, "2026-11-20T11:43:28.999999Z\r\n"},
	{"rfc3339", "utc", 1767225600, 0, "2026-01-01T00:00:00.000000Z\r\n"},
	{"smtp", "utc", 1795175013, 0, "20 NOV 2026 11:43:33 UTC\r\n"},
	{"smtp", "utc", 1767225600, 0, "01 JAN 2026 00:00:00 UTC\r\n"},
	{"nist", "utc", 1677328496, 0, "\n60000 23-02-25 12:34:56 00 0 0   0.0 UTC(LOCL) * \n"},
	{"nist", "utc", 1795175008, 0, "\n61364 26-11-20 11:43:28 00 0 0   0.0 UTC(LOCL) * \n"},
	{"nist", "utc", 0, 0, "\n40587 70-01-01 00:00:00 00 0 0   0.0 UTC(LOCL) * \n"},
	{"\"%Y-%m-%d %H:%M\"", "utc", 1795175008, 0, "2026-11-20 11:43\r\n"},
	{"\"%s\"", "utc", 1795175008, 0, "1795175008\r\n"},
	{"\"%s %%s %s%%\"", "utc", 1795175008, 0, "1795175008 %s 1795175008%\r\n"},
	{"\"%-d.%-m. ; # %_H|%^a|%5Y|%Od|%EY\"", "utc", 1767225600, 0, "1.1. ; #  0|THU|02026|01|2026\r\n"},
	{"\"it is %H o'clock \xc3\xa0 %Z\"", "utc", 1795175008, 0, "it is 11 o'clock \xc3\xa0 UTC\r\n"},
	{"\"plain\"", "utc", 1795175008, 0, "plain\r\n"},
};

static void *make_daytime(const char *format, const char *zone)
{
	void *settings = make_settings(&daytime_service, "format", format);

	ck_assert_msg(set(&daytime_service, settings, "timezone", zone), "%s: %s", zone, error);
	return settings;
}

START_TEST(daytime_writes_each_format)
{
	void *settings = make_daytime(daytimes[_i].format, daytimes[_i].timezone);

	assert_says(&daytime_service, settings, daytimes[_i].seconds, daytimes[_i].nanoseconds, daytimes[_i].line);
	free_settings(&daytime_service, settings);
}
END_TEST

static const struct {
	const char *format, *timezone;
	int64_t seconds;
	const char *line;
} zoned[] = {
	{"ctime", "Europe/Berlin", 1795175008, "Fri Nov 20 12:43:28 2026\r\n"},
	{"ctime", "\"Europe/Berlin\"", 1782000000, "Sun Jun 21 02:00:00 2026\r\n"},
	{"ctime", "America/New_York", 4118000000, "Tue Jun 29 20:53:20 2100\r\n"},
	{"rfc3339", "Europe/Berlin", 1795175008, "2026-11-20T12:43:28.000000+01:00\r\n"},
	{"rfc3339", "America/St_Johns", 1795175008, "2026-11-20T08:13:28.000000-03:30\r\n"},
	{"rfc3339", "Europe/London", 1795175008, "2026-11-20T11:43:28.000000+00:00\r\n"},
	{"rfc3339", "Etc/UTC", 1795175008, "2026-11-20T11:43:28.000000Z\r\n"},
	{"smtp", "America/New_York", 1782000000, "20 JUN 2026 20:00:00 EDT\r\n"},
	{"nist", "Asia/Tokyo", 1677328496, "\n60000 23-02-25 12:34:56 00 0 0   0.0 UTC(LOCL) * \n"},
	{"\"%H:%M %Z %z %s\"", "Asia/Kolkata", 1795175008, "17:13 IST +0530 1795175008\r\n"},
};

START_TEST(daytime_follows_its_zone)
{
	if (access("/usr/share/zoneinfo/Europe/Berlin", R_OK) != 0) {
		fprintf(stderr, "# skipped: no tz database\n");
		return;
	}
	void *settings = make_daytime(zoned[_i].format, zoned[_i].timezone);
	assert_says(&daytime_service, settings, zoned[_i].seconds, 0, zoned[_i].line);
	free_settings(&daytime_service, settings);
}
END_TEST

static void assert_line(const struct service_context *context, const char *expected)
{
	struct service_output output = daytime_service.tcp_output(context, 0, buffer, TCP_SIZE);

	ck_assert_uint_eq(output.length, strlen(expected));
	ck_assert_mem_eq(output.bytes, expected, output.length);
	memset(buffer, 'x', sizeof(buffer));
	ck_assert_int_eq(daytime_service.udp_reply(context, buffer, 0, sizeof(buffer)), (ssize_t)strlen(expected));
	ck_assert_mem_eq(buffer, expected, strlen(expected));
}

START_TEST(daytime_caches_a_line_for_one_second)
{
	void *settings = make_daytime("\"%T %s\"", "utc");
	void *memo = calloc(1, daytime_service.memo_size);
	struct service_context context = {.settings = settings, .memo = memo};

	ck_assert_ptr_nonnull(memo);
	assert_line(&context, "00:00:00 0\r\n"); /* also the second of an empty cache */
	for (int i = 0; i < 3; i++)
		for (context.now.tv_sec = 59; context.now.tv_sec <= 60; context.now.tv_sec++) {
			const char *expected = context.now.tv_sec == 59 ? "00:00:59 59\r\n" : "00:01:00 60\r\n";
			for (context.now.tv_nsec = 0; context.now.tv_nsec < 3; context.now.tv_nsec++)
				assert_line(&context, expected);
		}
	free(memo);
	free_settings(&daytime_service, settings);
}
END_TEST

START_TEST(daytime_caches_neither_fractions_nor_long_lines)
{
	void *exact = make_daytime("rfc3339", "utc");
	void *memo = calloc(1, daytime_service.memo_size);
	struct service_context context = {.settings = exact, .memo = memo};
	char pattern[132] = "\"%s", expected[150];

	ck_assert_ptr_nonnull(memo);
	assert_line(&context, "1970-01-01T00:00:00.000000Z\r\n");
	context.now.tv_nsec = 1000;
	assert_line(&context, "1970-01-01T00:00:00.000001Z\r\n");
	free_settings(&daytime_service, exact);

	memset(pattern + 3, '.', 127);
	strcpy(pattern + 130, "\"");
	void *wordy = make_daytime(pattern, "utc");
	context = (struct service_context){.settings = wordy, .memo = memo};
	snprintf(expected, sizeof(expected), "0%.127s\r\n", pattern + 3);
	assert_line(&context, expected);
	assert_line(&context, expected);
	free(memo);
	free_settings(&daytime_service, wordy);
}
END_TEST

START_TEST(daytime_is_ctime_in_local_time_by_default)
{
	char expected[64];
	time_t now = 1795175008;

	setenv("TZ", "CET-1CEST,M3.5.0,M10.5.0/3", 1);
	tzset();
	ck_assert_str_eq(option_find(daytime_service.options, 2, "format")->initial, "ctime");
	void *settings = make_daytime("ctime", option_find(daytime_service.options, 2, "timezone")->initial);
	for (int i = 0; i < 1000; i++, now += 100003) {
		ctime_r(&now, expected);
		ck_assert_uint_eq(strlen(expected), 25);
		strcpy(expected + 24, "\r\n");
		assert_says(&daytime_service, settings, now, 0, expected);
	}
	free_settings(&daytime_service, settings);
}
END_TEST

/* Runs with the process in a distant zone. */
START_TEST(daytime_ignores_the_zone_of_the_process)
{
	setenv("TZ", "<+12>-12", 1);
	tzset();
	void *settings = make_daytime("\"%F %T %Z %z %s\"", "utc");
	assert_says(&daytime_service, settings, 1795175008, 0, "2026-11-20 11:43:28 UTC +0000 1795175008\r\n");
	free_settings(&daytime_service, settings);
}
END_TEST

/* Days since 1970 in UTC, and NIST's code of the day. */
static const struct {
	int64_t day;
	const char *code;
} daylight_codes[] = {
	{20512, "00"},                               /* 2026-02-28 */
	{20513, "58"},                               /* 2026-03-01, a Sunday */
	{20519, "52"}, {20520, "51"},                /* 2026-03-08: the second Sunday */
	{20521, "50"}, {20757, "50"},                /* 2026-10-31 */
	{20758, "01"},                               /* 2026-11-01: the first Sunday */
	{20759, "00"}, {20818, "00"},                /* 2026-12-31 */
	{19783, "60"},                               /* 2024-03-01, a Friday */
	{20028, "03"},                               /* 2024-11-01, a Friday */
	{20030, "01"}, {20031, "00"}, {20878, "64"}, /* 2027-03-01, a Monday: the longest wait */
	{20891, "51"}, {21123, "07"},                /* 2027-11-01, a Monday */
	{21129, "01"}, {21130, "00"},
};

START_TEST(nist_counts_days_to_a_daylight_change)
{
	void *settings = make_daytime("nist", "utc");
	int64_t midnight = daylight_codes[_i].day * 86400;

	for (int64_t seconds = midnight; seconds < midnight + 86400; seconds += 43199) {
		struct service_output output = connect_to(&daytime_service, settings, seconds, 0, 0);

		ck_assert_uint_eq(output.length, strlen("\n60000 23-02-25 12:34:56 00 0 0   0.0 UTC(LOCL) * \n"));
		ck_assert_mem_eq(output.bytes + strlen("\n60000 23-02-25 12:34:56 "), daylight_codes[_i].code, 2);
	}
	free_settings(&daytime_service, settings);
}
END_TEST

static const struct {
	const char *format, *reason;
} wrong_formats[] = {
	{"ctiem", "must be ctime, rfc3339, smtp, nist or a strftime string in double quotes, not \"ctiem\""},
	{"CTIME", "must be"},
	{"%H:%M", "in double quotes"},
	{"\"%H:%M", "in double quotes"},
	{"%H:%M\"", "in double quotes"},
	{"\"", "in double quotes"},
	{"\"%H\" \"%M\"", "in double quotes"},
	{"\"\"", "1 to 255 bytes"},
	{"\"%\"", "no conversion %"},
	{"\"%H %\"", "no conversion %"},
	{"\"%q\"", "no conversion %q"},
	{"\"%H%%%N\"", "no conversion %N"},
	{"\"%-\"", "no conversion %-"},
	{"\"%E\"", "no conversion %E"},
	{"\"%Ez\"", "no conversion %Ez"},
	{"\"%Os\"", "no conversion %Os"},
	{"\"%-s\"", "no conversion %-s"},
	{"\"%12s\"", "no conversion %12s"},
	{"\"%501d\"", "more than 500 bytes"},
	{"\"%99999999999999999999d\"", "more than 500 bytes"},
	{"\"%c%c%c%c%c%c%c%c%c%c%c%c%c%c%c%c%c%c%c%c%c\"", "more than 500 bytes"},
	{"\"%s%s%s%s%s%s%s%s%s%s%s%s%s%s%s%s%s%s%s%s%s%s%s%s%s%s\"", "more than 500 bytes"},
};

START_TEST(invalid_formats_are_refused)
{
	assert_refused(&daytime_service, "format", wrong_formats[_i].format, wrong_formats[_i].reason);
}
END_TEST

START_TEST(longest_formats_fit_the_line)
{
	char text[300], expected[300];

	memset(text, 'a', sizeof(text));
	text[0] = text[256] = '"';
	text[257] = '\0';
	void *settings = make_daytime(text, "utc");
	memset(expected, 'a', 255);
	strcpy(expected + 255, "\r\n");
	assert_says(&daytime_service, settings, 0, 0, expected);
	free_settings(&daytime_service, settings);

	strcpy(text + 256, "a\"");
	assert_refused(&daytime_service, "format", text, "1 to 255 bytes");

	settings = make_daytime("\"%500d\"", "utc");
	ck_assert_uint_eq(connect_to(&daytime_service, settings, 0, 0, 0).length, 502);
	free_settings(&daytime_service, settings);
}
END_TEST

/* Times that no clock should return. */
START_TEST(daytime_accepts_any_clock)
{
	static const int64_t times[] = {INT64_MIN, -62135596800, -1, 253402300799, 253402300800, INT64_MAX};
	static const char *const formats[] = {"ctime", "rfc3339", "smtp", "nist", "\"%c %s %Z\""};

	for (size_t i = 0; i < COUNT_OF(formats); i++) {
		void *settings = make_daytime(formats[i], "utc");

		for (size_t j = 0; j < COUNT_OF(times); j++) {
			struct service_output output = connect_to(&daytime_service, settings, times[j], 999999999, 0);

			ck_assert_uint_gt(output.length, 20);
			ck_assert_uint_le(output.length, 100);
			ck_assert_int_eq(output.bytes[output.length - 1], '\n');
		}
		free_settings(&daytime_service, settings);
	}
}
END_TEST

START_TEST(daytime_options_print_as_parsed)
{
	static const char *const formats[] = {"ctime", "rfc3339", "smtp", "nist", "\"%H ; %M\"", "\" %s # \""};

	for (size_t i = 0; i < COUNT_OF(formats); i++)
		assert_prints(&daytime_service, "format", formats[i]);
	assert_prints(&daytime_service, "timezone", "utc");
	assert_prints(&daytime_service, "timezone", "local");
}
END_TEST

START_TEST(invalid_zones_are_refused)
{
	assert_refused(&daytime_service, "timezone", "Nowhere/City", "Nowhere/City");
	assert_refused(&daytime_service, "timezone", "../../../etc/passwd", "must be a zone");
	assert_refused(&daytime_service, "timezone", "/etc/localtime", "must be a zone");
	assert_refused(&daytime_service, "timezone", "\"utc", "");
}
END_TEST

START_TEST(zeroed_settings_can_be_freed)
{
	for (size_t i = 0; i < service_count; i++) {
		const struct service *service = service_table[i];

		if (service->settings_size > 0)
			free_settings(service, calloc(1, service->settings_size));
	}
}
END_TEST

/* --- qotd --- */

static char quotes_path[] = "/tmp/check_services.XXXXXX";

static void write_quotes(const char *bytes, size_t length)
{
	FILE *file = fopen(quotes_path, "w");

	ck_assert_ptr_nonnull(file);
	ck_assert_uint_eq(fwrite(bytes, 1, length, file), length);
	ck_assert_int_eq(fclose(file), 0);
}

static void *load_quotes(const char *text)
{
	write_quotes(text, strlen(text));
	return make_settings(&qotd_service, "quotes_file", quotes_path);
}

static void assert_quote(const void *settings, uint64_t random, const char *expected)
{
	struct service_output output = connect_to(&qotd_service, settings, 0, 0, random);

	ck_assert_uint_eq(output.length, strlen(expected));
	ck_assert_mem_eq(output.bytes, expected, output.length);
	ck_assert_int_eq(ask(&qotd_service, settings, 0, 0, random, 0), (ssize_t)strlen(expected));
	ck_assert_mem_eq(buffer, expected, strlen(expected));
}

START_TEST(quotations_are_sent_with_crlf)
{
	void *settings = load_quotes("One.\n%\nTwo,\n and more.\n%\n100% true\n%%\n %\n");

	assert_quote(settings, 0, "One.\r\n");
	assert_quote(settings, 1, "Two,\r\n and more.\r\n");
	assert_quote(settings, 2, "100% true\r\n%%\r\n %\r\n");
	assert_quote(settings, 3, "One.\r\n");
	assert_quote(settings, UINT64_MAX, "One.\r\n"); /* a multiple of 3 */
	free_settings(&qotd_service, settings);
}
END_TEST

START_TEST(quotes_file_allows_any_separators_and_line_ends)
{
	static const char *const files[] = {
		"One.\n%\nTwo.\n",
		"One.\n%\nTwo.",
		"One.\n%\nTwo.\n%\n",
		"One.\n%\nTwo.\n%",
		"%\nOne.\n%\n%\nTwo.\n%\n%\n",
		"One.\r\n%\r\nTwo.\r\n",
	};

	for (size_t i = 0; i < COUNT_OF(files); i++) {
		void *settings = load_quotes(files[i]);

		assert_quote(settings, 0, "One.\r\n");
		assert_quote(settings, 1, "Two.\r\n");
		assert_quote(settings, 2, "One.\r\n");
		free_settings(&qotd_service, settings);
	}
}
END_TEST

START_TEST(every_quotation_is_picked_equally_often)
{
	void *settings = load_quotes("0\n%\n1\n%\n2\n%\n3\n%\n4\n");
	unsigned counts[5] = {0};

	for (uint64_t random = 0; random < 5000; random++)
		counts[connect_to(&qotd_service, settings, 0, 0, random * 0x9e3779b97f4a7c15).bytes[0] - '0']++;
	for (size_t i = 0; i < 5; i++) {
		ck_assert_uint_gt(counts[i], 900);
		ck_assert_uint_lt(counts[i], 1100);
	}
	free_settings(&qotd_service, settings);
}
END_TEST

START_TEST(quotations_have_at_most_511_bytes_as_sent)
{
	char text[600], expected[OPTION_ERROR_SIZE];

	memset(text, 'a', sizeof(text));
	strcpy(text + 509, "\n");
	void *settings = load_quotes(text);
	ck_assert_uint_eq(connect_to(&qotd_service, settings, 0, 0, 0).length, 511);
	free_settings(&qotd_service, settings);

	memset(text, 'a', sizeof(text));
	memcpy(text, "One.\n%\n\n", 8); /* starts at the third line, which is empty */
	strcpy(text + 8 + 508, "\n%\nafter\n");
	write_quotes(text, strlen(text));
	snprintf(expected, sizeof(expected), "%s:3: a quotation of 512 bytes", quotes_path);
	assert_refused(&qotd_service, "quotes_file", quotes_path, expected);
}
END_TEST

static const struct {
	const char *bytes;
	size_t length;
	const char *reason;
} wrong_quotes[] = {
	{"", 0, ": no quotation in it"},
	{"%\n%\n", 4, ": no quotation in it"},
	{"One.\n%\nT\0o\n", 11, ":3: a NUL byte"},
	{"\0", 1, ":1: a NUL byte"},
};

START_TEST(invalid_quotes_files_are_refused)
{
	write_quotes(wrong_quotes[_i].bytes, wrong_quotes[_i].length);
	assert_refused(&qotd_service, "quotes_file", quotes_path, wrong_quotes[_i].reason);
	ck_assert_ptr_nonnull(strstr(error, quotes_path));
}
END_TEST

START_TEST(unreadable_files_are_refused)
{
	assert_refused(&qotd_service, "quotes_file", "/nonexistent/quotes", "/nonexistent/quotes: No such file");
	assert_refused(&qotd_service, "quotes_file", "/tmp", "/tmp: Is a directory");
	assert_refused(&qotd_service, "quotes_file", "/dev/zero", "/dev/zero: not a regular file");

	ck_assert_int_eq(unlink(quotes_path), 0);
	ck_assert_int_eq(mkfifo(quotes_path, 0600), 0);
	assert_refused(&qotd_service, "quotes_file", quotes_path, "not a regular file");

	ck_assert_int_eq(unlink(quotes_path), 0);
	write_quotes("One.\n", 5);
	ck_assert_int_eq(truncate(quotes_path, 16 * 1024 * 1024 + 1), 0);
	assert_refused(&qotd_service, "quotes_file", quotes_path, "over 16 MiB");
}
END_TEST

START_TEST(quotes_file_prints_as_parsed)
{
	write_quotes("One.\n", 5);
	assert_prints(&qotd_service, "quotes_file", quotes_path);
}
END_TEST

START_TEST(installed_quotations_are_valid)
{
	const char *tests = getenv("TESTS_SRCDIR");
	char path[4096];

	snprintf(path, sizeof(path), "%s/../etc/quotes", tests ? tests : "tests");
	void *settings = make_settings(&qotd_service, "quotes_file", path);
	for (uint64_t random = 0; random < 50; random++) {
		struct service_output output = connect_to(&qotd_service, settings, 0, 0, random);

		for (size_t i = 0; i < output.length; i++)
			ck_assert((output.bytes[i] >= ' ' && output.bytes[i] <= '~') ||
				  strchr("\r\n", output.bytes[i]));
	}
	free_settings(&qotd_service, settings);
}
END_TEST

static void make_quotes_path(void)
{
	int fd = mkstemp(quotes_path);

	ck_assert_int_ge(fd, 0);
	close(fd);
}

static void remove_quotes_path(void)
{
	unlink(quotes_path);
	strcpy(quotes_path + strlen(quotes_path) - 6, "XXXXXX");
}

static TCase *table_case(void)
{
	TCase *table = tcase_create("table");

	tcase_add_test(table, services_are_in_the_order_of_their_ports);
	tcase_add_test(table, services_are_found_by_name);
	tcase_add_test(table, table_matches_iana_and_the_rfcs);
	tcase_add_test(table, only_amplifying_services_reply_longer_than_asked);
	tcase_add_test(table, zeroed_settings_can_be_freed);
	return table;
}

static TCase *simple_case(void)
{
	TCase *simple = tcase_create("simple");

	tcase_add_test(simple, echo_returns_every_datagram);
	tcase_add_test(simple, echo_returns_a_stream_in_any_segments);
	tcase_add_test(simple, discard_never_replies);
	tcase_add_test(simple, time_matches_the_examples_of_the_rfc);
	tcase_add_test(simple, time_wraps_in_2036);
	return simple;
}

static TCase *chargen_case(void)
{
	TCase *chargen = tcase_create("chargen");

	tcase_add_test(chargen, chargen_starts_as_the_rfc_shows);
	tcase_add_test(chargen, chargen_continues_from_every_position);
	tcase_add_test(chargen, chargen_is_one_stream_for_any_send_sizes);
	tcase_add_test(chargen, chargen_continues_after_many_terabytes);
	tcase_add_test(chargen, chargen_datagram_has_the_length_of_its_request_up_to_512);
	tcase_set_timeout(chargen, 60);
	return chargen;
}

static TCase *daytime_case(void)
{
	TCase *daytime = tcase_create("daytime");

	tcase_add_loop_test(daytime, daytime_writes_each_format, 0, COUNT_OF(daytimes));
	tcase_add_loop_test(daytime, daytime_follows_its_zone, 0, COUNT_OF(zoned));
	tcase_add_test(daytime, daytime_is_ctime_in_local_time_by_default);
	tcase_add_test(daytime, daytime_caches_a_line_for_one_second);
	tcase_add_test(daytime, daytime_caches_neither_fractions_nor_long_lines);
	tcase_add_test(daytime, daytime_ignores_the_zone_of_the_process);
	tcase_add_loop_test(daytime, nist_counts_days_to_a_daylight_change, 0, COUNT_OF(daylight_codes));
	tcase_add_loop_test(daytime, invalid_formats_are_refused, 0, COUNT_OF(wrong_formats));
	tcase_add_test(daytime, longest_formats_fit_the_line);
	tcase_add_test(daytime, daytime_accepts_any_clock);
	tcase_add_test(daytime, daytime_options_print_as_parsed);
	tcase_add_test(daytime, invalid_zones_are_refused);
	return daytime;
}

static TCase *qotd_case(void)
{
	TCase *qotd = tcase_create("qotd");

	tcase_add_checked_fixture(qotd, make_quotes_path, remove_quotes_path);
	tcase_add_test(qotd, quotations_are_sent_with_crlf);
	tcase_add_test(qotd, quotes_file_allows_any_separators_and_line_ends);
	tcase_add_test(qotd, every_quotation_is_picked_equally_often);
	tcase_add_test(qotd, quotations_have_at_most_511_bytes_as_sent);
	tcase_add_loop_test(qotd, invalid_quotes_files_are_refused, 0, COUNT_OF(wrong_quotes));
	tcase_add_test(qotd, unreadable_files_are_refused);
	tcase_add_test(qotd, quotes_file_prints_as_parsed);
	tcase_add_test(qotd, installed_quotations_are_valid);
	return qotd;
}

static Suite *suite(void)
{
	Suite *services = suite_create("services");

	suite_add_tcase(services, table_case());
	suite_add_tcase(services, simple_case());
	suite_add_tcase(services, chargen_case());
	suite_add_tcase(services, daytime_case());
	suite_add_tcase(services, qotd_case());
	return services;
}

int main(void)
{
	return check_run(suite());
}
