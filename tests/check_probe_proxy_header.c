/* check_probe_proxy_header.c: sent PROXY headers are as the protocol specifies, byte for byte. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <string.h>

#include "check_run.h"
#include "probe/proxy_header.h"

static struct sockaddr_storage address_of(const char *ip, uint16_t port)
{
	struct sockaddr_storage storage = {0};
	struct sockaddr_in *v4 = (struct sockaddr_in *)&storage;
	struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)&storage;

	if (strchr(ip, ':')) {
		v6->sin6_family = AF_INET6;
		v6->sin6_port = htons(port);
		ck_assert_int_eq(inet_pton(AF_INET6, ip, &v6->sin6_addr), 1);
	} else {
		v4->sin_family = AF_INET;
		v4->sin_port = htons(port);
		ck_assert_int_eq(inet_pton(AF_INET, ip, &v4->sin_addr), 1);
	}
	return storage;
}

#define V2            "\r\n\r\n\0\r\nQUIT\n\x21"
#define TEXT(literal) literal, sizeof(literal) - 1

static const struct {
	unsigned version;
	const char *near;
	uint16_t near_port;
	const char *far;
	uint16_t far_port;
	const char *bytes;
	size_t length;
} headers[] = {
	{1, "192.0.2.1", 56324, "198.51.100.2", 7, TEXT("PROXY TCP4 192.0.2.1 198.51.100.2 56324 7\r\n")},
	{1, "2001:db8::1", 1, "2001:db8::2", 65535, TEXT("PROXY TCP6 2001:db8::1 2001:db8::2 1 65535\r\n")},
	{2, "192.0.2.1", 0x1234, "198.51.100.2", 7,
	 TEXT(V2 "\x11\x00\x0c\xc0\x00\x02\x01\xc6\x33\x64\x02\x12\x34\x00\x07")},
	{2, "2001:db8::1", 0x1234, "::2", 7,
	 TEXT(V2 "\x21\x00\x24\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x02\x12\x34\x00"
		 "\x07")},
};

START_TEST(header_has_the_specified_bytes)
{
	struct sockaddr_storage near = address_of(headers[_i].near, headers[_i].near_port);
	struct sockaddr_storage far = address_of(headers[_i].far, headers[_i].far_port);
	char bytes[PROXY_HEADER_MAX + 1];
	size_t length =
		proxy_header_write(headers[_i].version, (struct sockaddr *)&near, (struct sockaddr *)&far, bytes);

	ck_assert_uint_eq(length, headers[_i].length);
	ck_assert_mem_eq(bytes, headers[_i].bytes, length);
}
END_TEST

START_TEST(longest_header_fits_the_buffer)
{
	static const char ip[] = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff";
	struct sockaddr_storage near = address_of(ip, 65535), far = address_of(ip, 65535);
	char bytes[PROXY_HEADER_MAX + 1];
	size_t length = proxy_header_write(1, (struct sockaddr *)&near, (struct sockaddr *)&far, bytes);

	ck_assert_uint_le(length, PROXY_HEADER_MAX);
	ck_assert_mem_eq(bytes + length - 2, "\r\n", 2);
}
END_TEST

static Suite *suite(void)
{
	Suite *suite = suite_create("probe_proxy_header");
	TCase *bytes = tcase_create("bytes");

	tcase_add_loop_test(bytes, header_has_the_specified_bytes, 0, sizeof headers / sizeof *headers);
	tcase_add_test(bytes, longest_header_fits_the_buffer);
	suite_add_tcase(suite, bytes);
	return suite;
}

int main(void)
{
	return check_run(suite());
}
