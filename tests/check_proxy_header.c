/* check_proxy_header.c: valid PROXY headers are parsed at any split, invalid ones are rejected. */
#include "net/proxy_header.h"

#include <arpa/inet.h>
#include <string.h>

#include "check_run.h"
#include "core/array.h"

#define SIGNATURE      "\r\n\r\n\0\r\nQUIT\n"
#define BYTES(literal) literal, sizeof(literal) - 1

enum { BUFFER_SIZE = 128 * 1024 };
static uint8_t buffer[BUFFER_SIZE];

/* --- making headers --- */

static size_t put(size_t at, const void *bytes, size_t length)
{
	memcpy(buffer + at, bytes, length);
	return at + length;
}

/* Writes the fixed part of version 2, with LENGTH bytes to follow. */
static size_t put_fixed(uint8_t command, uint8_t family, size_t length)
{
	const uint8_t rest[] = {command, family, (uint8_t)(length >> 8), (uint8_t)length};
	return put(put(0, BYTES(SIGNATURE)), rest, sizeof rest);
}

/* Writes documentation addresses, with the ports 0x1234 and 7. */
static size_t put_ipv4(size_t at)
{
	return put(at, BYTES("\xc0\x00\x02\x01\xc6\x33\x64\x02\x12\x34\x00\x07"));
}

static size_t put_ipv6(size_t at)
{
	struct in6_addr ip;
	inet_pton(AF_INET6, "2001:db8::1", &ip);
	at = put(at, &ip, sizeof ip);
	at = put(at, &ip, sizeof ip);
	return put(at, BYTES("\x12\x34\x00\x07"));
}

/* Returns the CRC-32C by polynomial division bit by bit, unlike the parser. */
static uint32_t crc_of(const uint8_t *bytes, size_t length)
{
	uint32_t remainder = UINT32_MAX, reflected = 0;
	for (size_t i = 0; i < length * 8; i++) {
		uint32_t bit = (uint32_t)(bytes[i / 8] >> (i % 8)) & 1;
		uint32_t top = remainder >> 31;
		remainder = remainder << 1 ^ (top != bit ? UINT32_C(0x1edc6f41) : 0);
	}
	for (int i = 0; i < 32; i++)
		reflected |= (remainder >> i & 1) << (31 - i);
	return ~reflected;
}

static void put_crc(size_t at, size_t length)
{
	memset(buffer + at, 0, 4);
	uint32_t crc = htonl(crc_of(buffer, length));
	memcpy(buffer + at, &crc, sizeof crc);
}

/* --- checking results --- */

/* Asserts that the header in BUFFER has LENGTH bytes, with fewer and with more bytes received. */
static struct proxy_header assert_complete_at(size_t length)
{
	struct proxy_header header;
	for (size_t come = 0; come < length; come++) {
		uint8_t *copy = malloc(come + 1); /* of the exact size, so that sanitizers detect an overrun */
		memcpy(copy, buffer, come);
		ck_assert_msg(proxy_parse(copy, come, &header) == PROXY_MORE, "after %zu of %zu bytes: %s", come,
			      length, header.error != NULL ? header.error : "done");
		free(copy);
	}
	for (size_t more = 0; more < 300; more += 23) {
		memset(buffer + length, 'x', more);
		ck_assert_msg(proxy_parse(buffer, length + more, &header) == PROXY_DONE, "with %zu more: %s", more,
			      header.error != NULL ? header.error : "more");
		ck_assert_uint_eq(header.length, length);
	}
	return header;
}

static void assert_source(const struct proxy_header *header, const char *source, unsigned port)
{
	char text[INET6_ADDRSTRLEN];
	ck_assert(header->has_source);
	inet_ntop(AF_INET6, &header->source, text, sizeof text);
	ck_assert_str_eq(text, source);
	ck_assert_uint_eq(header->source_port, port);
}

/* Asserts that the LENGTH bytes of BUFFER are invalid as soon as AT of them are received. */
static void assert_invalid_at(size_t length, size_t at, const char *error)
{
	struct proxy_header header;
	for (size_t come = 0; come <= length; come++) {
		enum proxy_result result = proxy_parse(buffer, come, &header);
		ck_assert_msg(result == (come < at ? PROXY_MORE : PROXY_BAD), "after %zu of %zu bytes: %d", come,
			      length, (int)result);
	}
	ck_assert_str_eq(header.error, error);
}

/* --- version 1 --- */

static const struct {
	const char *line, *source;
	unsigned port;
} good_lines[] = {
	{"PROXY TCP4 192.0.2.1 198.51.100.2 4660 7\r\n", "::ffff:192.0.2.1", 4660},
	{"PROXY TCP4 0.0.0.0 255.255.255.255 0 65535\r\n", "::ffff:0.0.0.0", 0},
	{"PROXY TCP6 2001:db8::1 2001:db8::2 65535 7\r\n", "2001:db8::1", 65535},
	{"PROXY TCP6 ::ffff:192.0.2.1 ::1 1 2\r\n", "::ffff:192.0.2.1", 1},
	/* the longest line with addresses */
	{"PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:fff1 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n",
	 "ffff:ffff:ffff:ffff:ffff:ffff:ffff:fff1", 65535},
};

START_TEST(version_1_is_parsed_at_each_split)
{
	size_t length = put(0, good_lines[_i].line, strlen(good_lines[_i].line));
	struct proxy_header header = assert_complete_at(length);
	assert_source(&header, good_lines[_i].source, good_lines[_i].port);
}
END_TEST

static const char *const unknown_lines[] = {
	"PROXY UNKNOWN\r\n",
	"PROXY UNKNOWN ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n",
	"PROXY UNKNOWN anything at all\r\n",
};

START_TEST(unknown_has_no_source)
{
	struct proxy_header header = assert_complete_at(put(0, unknown_lines[_i], strlen(unknown_lines[_i])));
	ck_assert(!header.has_source);
}
END_TEST

START_TEST(line_above_107_bytes_is_invalid)
{
	ck_assert_uint_eq(strlen(unknown_lines[1]), PROXY_V1_MAX);
	memset(buffer, ' ', PROXY_V1_MAX + 10);
	put(0, BYTES("PROXY UNKNOWN "));
	put(PROXY_V1_MAX - 1, BYTES("\r\n"));
	assert_invalid_at(PROXY_V1_MAX + 1, PROXY_V1_MAX, "longer than 107 bytes");
	put(PROXY_V1_MAX - 2, BYTES("\r\n"));
	assert_complete_at(PROXY_V1_MAX);
}
END_TEST

static const struct {
	const char *line, *error;
} bad_lines[] = {
	{"PROXY \n", "malformed end of line"},
	{"PROXY TCP4 192.0.2.1 198.51.100.2 1 2\n", "malformed end of line"},
	{"PROXY \r\n", "malformed line"},
	{"PROXY UNKNOWNS\r\n", "malformed line"},
	{"PROXY TCP4 192.0.2.1 198.51.100.2 1\r\n", "malformed line"},
	{"PROXY TCP4 192.0.2.1 198.51.100.2 1 2 3\r\n", "malformed line"},
	{"PROXY TCP4 192.0.2.1 198.51.100.2 1 2 \r\n", "malformed line"},
	{"PROXY TCP4  192.0.2.1 198.51.100.2 1 2\r\n", "malformed line"},
	{"PROXY UDP4 192.0.2.1 198.51.100.2 1 2\r\n", "neither TCP4, TCP6 nor UNKNOWN"},
	{"PROXY tcp4 192.0.2.1 198.51.100.2 1 2\r\n", "neither TCP4, TCP6 nor UNKNOWN"},
	{"PROXY TCP4 2001:db8::1 198.51.100.2 1 2\r\n", "malformed address"},
	{"PROXY TCP4 192.0.2.1 2001:db8::1 1 2\r\n", "malformed address"},
	{"PROXY TCP6 192.0.2.1 2001:db8::1 1 2\r\n", "malformed address"},
	{"PROXY TCP4 192.0.2.256 198.51.100.2 1 2\r\n", "malformed address"},
	{"PROXY TCP4 192.0.2.1 198.51.100.2 65536 2\r\n", "malformed port"},
	{"PROXY TCP4 192.0.2.1 198.51.100.2 1 655360\r\n", "malformed port"},
	{"PROXY TCP4 192.0.2.1 198.51.100.2 01 2\r\n", "malformed port"},
	{"PROXY TCP4 192.0.2.1 198.51.100.2 +1 2\r\n", "malformed port"},
	{"PROXY TCP4 192.0.2.1 198.51.100.2 1 2\t\r\n", "malformed port"},
};

START_TEST(malformed_line_is_invalid)
{
	size_t length = strlen(bad_lines[_i].line);
	put(0, bad_lines[_i].line, length);
	assert_invalid_at(length, length, bad_lines[_i].error);
}
END_TEST

START_TEST(line_with_a_nul_is_invalid)
{
	enum { LENGTH = sizeof "PROXY UNKNOWN\0\r\n" - 1 };
	put(0, "PROXY UNKNOWN\0\r\n", LENGTH);
	assert_invalid_at(LENGTH, LENGTH, "malformed line");
}
END_TEST

/* --- version 2 --- */

START_TEST(version_2_is_parsed_at_each_split)
{
	size_t length = put_ipv4(put_fixed(0x21, 0x11, 12));
	struct proxy_header header = assert_complete_at(length);
	assert_source(&header, "::ffff:192.0.2.1", 0x1234);

	length = put_ipv6(put_fixed(0x21, 0x21, 36));
	header = assert_complete_at(length);
	assert_source(&header, "2001:db8::1", 0x1234);
}
END_TEST

START_TEST(tlvs_are_skipped)
{
	size_t at = put_ipv4(put_fixed(0x21, 0x11, 12 + 3 + 300 + 3 + 5));
	at = put(at, BYTES("\x01\x01\x2c"));
	memset(buffer + at, 'a', 300);
	at = put(at + 300, BYTES("\xea\x00\x05hello"));
	struct proxy_header header = assert_complete_at(at);
	assert_source(&header, "::ffff:192.0.2.1", 0x1234);
}
END_TEST

START_TEST(local_and_unspec_have_no_source)
{
	struct proxy_header header = assert_complete_at(put_fixed(0x20, 0x00, 0));
	ck_assert(!header.has_source);
	header = assert_complete_at(put_fixed(0x21, 0x00, 0));
	ck_assert(!header.has_source);
	/* LOCAL: the rest is ignored */
	header = assert_complete_at(put_ipv4(put_fixed(0x20, 0x11, 12)));
	ck_assert(!header.has_source);
	header = assert_complete_at(put(put_fixed(0x20, 0x7f, 3), BYTES("\xff\xff\xff")));
	ck_assert(!header.has_source);
	/* UNSPEC with a TLV */
	header = assert_complete_at(put(put_fixed(0x21, 0x00, 5), BYTES("\x05\x00\x02id")));
	ck_assert(!header.has_source);
}
END_TEST

/* The CRC covers the whole header, with zeros in its own place, wherever that is. */
START_TEST(crc_32c_is_checked_if_present)
{
	ck_assert_uint_eq(crc_of((const uint8_t *)"123456789", 9), 0xe3069283);
	size_t at = put_ipv4(put_fixed(0x21, 0x11, 12 + 5 + 7 + 4));
	at = put(at, BYTES("\x05\x00\x02id"));
	size_t sum = at + 3;
	at = put(at, BYTES("\x03\x00\x04----"));
	size_t length = put(at, BYTES("\x04\x00\x01-"));
	put_crc(sum, length);
	struct proxy_header header = assert_complete_at(length);
	assert_source(&header, "::ffff:192.0.2.1", 0x1234);

	for (size_t i = 16; i < length; i++) {
		bool in_lengths = (i >= 28 && i < 31) || (i >= 33 && i < 36) || (i >= 40 && i < 43);
		if (in_lengths)
			continue;
		buffer[i] ^= 0x10;
		assert_invalid_at(length, length, "wrong CRC-32C");
		buffer[i] ^= 0x10;
	}
	assert_complete_at(length);
}
END_TEST

START_TEST(crc_32c_is_checked_without_addresses_too)
{
	size_t at = put_fixed(0x21, 0x00, 7);
	size_t length = put(at, BYTES("\x03\x00\x04----"));
	assert_invalid_at(length, length, "wrong CRC-32C");
	put_crc(at + 3, length);
	assert_complete_at(length);
}
END_TEST

static const struct {
	const char *tlvs;
	size_t length;
} bad_tlvs[] = {
	{BYTES("\x05")},
	{BYTES("\x05\x00")},
	{BYTES("\x05\x00\x01")},
	{BYTES("\x05\xff\xff-")},
	{BYTES("\x03\x00\x03---")},
	{BYTES("\x03\x00\x05-----")},
	{BYTES("\x03\x00\x04----\x03\x00\x04----")},
};

START_TEST(malformed_tlv_is_invalid)
{
	size_t at = put_ipv4(put_fixed(0x21, 0x11, 12 + bad_tlvs[_i].length));
	size_t length = put(at, bad_tlvs[_i].tlvs, bad_tlvs[_i].length);
	assert_invalid_at(length, length, "malformed TLV");
}
END_TEST

START_TEST(family_other_than_tcp_is_invalid)
{
	static const uint8_t fine[] = {0x00, 0x11, 0x21};
	for (unsigned family = 0; family < 256; family++) {
		size_t length = put_fixed(0x21, (uint8_t)family, 36);
		if (memchr(fine, (int)family, sizeof fine) == NULL)
			assert_invalid_at(length, 16, "unsupported address family or protocol");
	}
}
END_TEST

START_TEST(unknown_versions_and_commands_are_invalid)
{
	for (unsigned code = 0; code < 256; code++) {
		size_t length = put_fixed((uint8_t)code, 0x11, 12);
		if (code >> 4 != 2)
			assert_invalid_at(length, 13, "unknown version");
		else if ((code & 15) > 1)
			assert_invalid_at(length, 13, "unknown command");
	}
}
END_TEST

START_TEST(length_too_short_for_the_addresses_is_invalid)
{
	for (size_t length = 0; length < 36; length++) {
		put_fixed(0x21, 0x21, length);
		assert_invalid_at(16, 16, "too short for its addresses");
		put_fixed(0x21, 0x11, length);
		if (length < 12)
			assert_invalid_at(16, 16, "too short for its addresses");
	}
}
END_TEST

START_TEST(header_above_4096_bytes_is_invalid)
{
	struct proxy_header header;
	size_t at = put_ipv4(put_fixed(0x21, 0x11, PROXY_HEADER_MAX - 16));
	put(at, BYTES("\x04\x0f\xe1"));
	memset(buffer + at + 3, 0, PROXY_HEADER_MAX);
	ck_assert_int_eq(proxy_parse(buffer, PROXY_HEADER_MAX - 1, &header), PROXY_MORE);
	ck_assert_int_eq(proxy_parse(buffer, PROXY_HEADER_MAX, &header), PROXY_DONE);
	ck_assert_uint_eq(header.length, PROXY_HEADER_MAX);
	for (unsigned command = 0x20; command <= 0x21; command++) {
		put_fixed((uint8_t)command, 0x11, PROXY_HEADER_MAX - 16 + 1);
		assert_invalid_at(16, 16, "longer than 4096 bytes");
		put_fixed((uint8_t)command, 0x11, 65535);
		assert_invalid_at(16, 16, "longer than 4096 bytes");
	}
}
END_TEST

/* --- other input --- */

START_TEST(other_input_is_invalid_at_its_first_wrong_byte)
{
	static const char *const signatures[] = {"PROXY ", SIGNATURE};
	static const size_t sizes[] = {6, 12};
	for (size_t which = 0; which < 2; which++)
		for (size_t at = 0; at < sizes[which]; at++) {
			put(0, signatures[which], sizes[which]);
			buffer[at] ^= 0x80;
			assert_invalid_at(sizes[which], at + 1, "no PROXY header");
		}
	assert_invalid_at(put(0, BYTES("GET / HTTP/1.0\r\n")), 1, "no PROXY header");
	assert_invalid_at(put(0, BYTES("proxy UNKNOWN\r\n")), 1, "no PROXY header");
	assert_invalid_at(put(0, BYTES("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")), 1, "no PROXY header");
}
END_TEST

/* The parser stays within the bytes, and its result does not change with repetition or more bytes. */
START_TEST(random_input_is_parsed_within_its_bytes)
{
	uint64_t state = 88172645463325252u;
	for (int round = 0; round < 20000; round++) {
		size_t length = 0;
		uint8_t *bytes = malloc(80);
		switch (round % 4) {
		case 0:
			length = put(0, BYTES("PROXY TCP4 "));
			break;
		case 1:
			length = put_ipv4(put_fixed(0x21, 0x11, 40));
			break;
		case 2:
			length = put_fixed(0x21, 0x00, 30);
			break;
		default:
			break;
		}
		while (length < 80) {
			state ^= state << 13, state ^= state >> 7, state ^= state << 17;
			buffer[length++] = (uint8_t)(state >> 32) & (round % 3 == 0 ? 0xff : 0x07);
		}
		memcpy(bytes, buffer, 80);
		enum proxy_result last = PROXY_MORE;
		bool consistent = true;
		for (size_t come = 0; come <= 80; come++) {
			struct proxy_header header;
			enum proxy_result result = proxy_parse(bytes, come, &header);
			consistent &= last == PROXY_MORE || result == last;
			consistent &= result != PROXY_DONE || header.length <= come;
			consistent &= (result == PROXY_BAD) == (header.error != NULL);
			last = result;
		}
		ck_assert_msg(consistent, "round %d", round);
		free(bytes);
	}
}
END_TEST

static Suite *proxy_suite(void)
{
	Suite *suite = suite_create("proxy");
	TCase *tests = tcase_create("proxy");
	tcase_add_loop_test(tests, version_1_is_parsed_at_each_split, 0, COUNT_OF(good_lines));
	tcase_add_loop_test(tests, unknown_has_no_source, 0, COUNT_OF(unknown_lines));
	tcase_add_test(tests, line_above_107_bytes_is_invalid);
	tcase_add_loop_test(tests, malformed_line_is_invalid, 0, COUNT_OF(bad_lines));
	tcase_add_test(tests, line_with_a_nul_is_invalid);
	tcase_add_test(tests, version_2_is_parsed_at_each_split);
	tcase_add_test(tests, tlvs_are_skipped);
	tcase_add_test(tests, local_and_unspec_have_no_source);
	tcase_add_test(tests, crc_32c_is_checked_if_present);
	tcase_add_test(tests, crc_32c_is_checked_without_addresses_too);
	tcase_add_loop_test(tests, malformed_tlv_is_invalid, 0, COUNT_OF(bad_tlvs));
	tcase_add_test(tests, family_other_than_tcp_is_invalid);
	tcase_add_test(tests, unknown_versions_and_commands_are_invalid);
	tcase_add_test(tests, length_too_short_for_the_addresses_is_invalid);
	tcase_add_test(tests, header_above_4096_bytes_is_invalid);
	tcase_add_test(tests, other_input_is_invalid_at_its_first_wrong_byte);
	tcase_add_test(tests, random_input_is_parsed_within_its_bytes);
	suite_add_tcase(suite, tests);
	return suite;
}

int main(void)
{
	return check_run(proxy_suite());
}
