/* proxy_header.c: parser of PROXY protocol headers, versions 1 and 2. */
#include "net/proxy_header.h"

#include <arpa/inet.h>
#include <string.h>

#include "core/array.h"

static enum proxy_result bad(struct proxy_header *header, const char *why)
{
	header->error = why;
	return PROXY_BAD;
}

/* --- version 1: a line of text --- */

enum { WORDS = 6 };

/* Splits LINE at single spaces into WORDS. Returns false if the count is another, or a word is empty. */
static bool split(char *line, char *words[WORDS])
{
	int count = 0;
	for (char *rest = line, *word; (word = strsep(&rest, " ")) != NULL;) {
		if (count == WORDS || *word == '\0')
			return false;
		words[count++] = word;
	}
	return count == WORDS;
}

static bool read_port(const char *text, uint16_t *port)
{
	unsigned long number = 0;
	size_t length = strlen(text);

	if (length == 0 || length > 5 || strspn(text, "0123456789") != length || (text[0] == '0' && length > 1))
		return false;
	for (; *text != '\0'; text++)
		number = number * 10 + (unsigned long)(*text - '0');
	*port = (uint16_t)number;
	return number <= UINT16_MAX;
}

static bool read_ip(int family, const char *text, struct in6_addr *ip)
{
	*ip = (struct in6_addr){.s6_addr = {[10] = 0xff, [11] = 0xff}};
	return inet_pton(family, text, family == AF_INET ? &ip->s6_addr[12] : ip->s6_addr) == 1;
}

/* Parses LINE, the header without its end. */
static enum proxy_result parse_line(char *line, struct proxy_header *header)
{
	char *words[WORDS];
	struct in6_addr destination;
	uint16_t destination_port;

	if (strcmp(line, "PROXY UNKNOWN") == 0 || strncmp(line, "PROXY UNKNOWN ", sizeof "PROXY UNKNOWN") == 0)
		return PROXY_DONE;
	if (!split(line, words))
		return bad(header, "malformed line");
	int family = strcmp(words[1], "TCP4") == 0 ? AF_INET : strcmp(words[1], "TCP6") == 0 ? AF_INET6 : AF_UNSPEC;
	if (family == AF_UNSPEC)
		return bad(header, "neither TCP4, TCP6 nor UNKNOWN");
	if (!read_ip(family, words[2], &header->source) || !read_ip(family, words[3], &destination))
		return bad(header, "malformed address");
	if (!read_port(words[4], &header->source_port) || !read_port(words[5], &destination_port))
		return bad(header, "malformed port");
	header->has_source = true;
	return PROXY_DONE;
}

static enum proxy_result parse_v1(const char *bytes, size_t length, struct proxy_header *header)
{
	size_t seen = length < PROXY_V1_MAX ? length : PROXY_V1_MAX;
	const char *end = memchr(bytes, '\n', seen);
	char line[PROXY_V1_MAX];

	if (end == NULL)
		return length < PROXY_V1_MAX ? PROXY_MORE : bad(header, "longer than 107 bytes");
	size_t text = (size_t)(end - bytes) - 1; /* at least PROXY precedes the end */
	if (bytes[text] != '\r')
		return bad(header, "malformed end of line");
	if (memchr(bytes, '\0', text) != NULL)
		return bad(header, "malformed line");
	memcpy(line, bytes, text);
	line[text] = '\0';
	header->length = text + 2;
	return parse_line(line, header);
}

/* --- version 2: binary --- */

enum {
	FIXED = 16, /* signature, version and command, family and protocol, length of the rest */
	TLV_FIXED = 3,
	TLV_CRC32C = 0x03,
	CRC_SIZE = 4,
};

enum { LOCAL, PROXY };

/* The addresses that follow the fixed part. */
static const struct family {
	uint8_t code; /* address family and protocol */
	uint8_t ip;   /* bytes of an address */
	uint8_t addresses;
} families[] = {
	{0x00, 0, 0},   /* UNSPEC */
	{0x11, 4, 12},  /* TCP over IPv4: two addresses, two ports */
	{0x21, 16, 36}, /* TCP over IPv6 */
};

static const struct family *find_family(uint8_t code)
{
	for (size_t i = 0; i < COUNT_OF(families); i++)
		if (families[i].code == code)
			return &families[i];
	return NULL;
}

static unsigned read_u16(const uint8_t *bytes)
{
	return (unsigned)bytes[0] << 8 | bytes[1];
}

/* Returns the CRC-32C (RFC 9260, appendix A) of BYTES, with the CRC_SIZE bytes at HOLE as zeros. */
static uint32_t crc32c(const uint8_t *bytes, size_t length, const uint8_t *hole)
{
	uint32_t crc = UINT32_MAX;
	for (size_t i = 0; i < length; i++) {
		bool zero = bytes + i >= hole && bytes + i < hole + CRC_SIZE;
		crc ^= zero ? 0 : bytes[i];
		for (int bit = 0; bit < 8; bit++)
			crc = crc >> 1 ^ (crc & 1 ? UINT32_C(0x82f63b78) : 0);
	}
	return ~crc;
}

/* Walks over the TLVs from AT to the end of the header, and checks the CRC if there is one. */
static enum proxy_result check_tlvs(const uint8_t *bytes, size_t at, struct proxy_header *header)
{
	const uint8_t *sum = NULL;

	while (at < header->length) {
		if (header->length - at < TLV_FIXED)
			return bad(header, "malformed TLV");
		size_t size = read_u16(bytes + at + 1);
		const uint8_t *value = bytes + at + TLV_FIXED;
		if (header->length - at - TLV_FIXED < size)
			return bad(header, "malformed TLV");
		if (bytes[at] == TLV_CRC32C) {
			if (size != CRC_SIZE || sum != NULL)
				return bad(header, "malformed TLV");
			sum = value;
		}
		at += TLV_FIXED + size;
	}
	if (sum == NULL)
		return PROXY_DONE;
	uint32_t expected = (uint32_t)read_u16(sum) << 16 | read_u16(sum + 2);
	return expected == crc32c(bytes, header->length, sum) ? PROXY_DONE : bad(header, "wrong CRC-32C");
}

static void read_source(const uint8_t *addresses, const struct family *family, struct proxy_header *header)
{
	header->source = (struct in6_addr){.s6_addr = {[10] = 0xff, [11] = 0xff}};
	memcpy(header->source.s6_addr + sizeof header->source - family->ip, addresses, family->ip);
	header->source_port = (uint16_t)read_u16(addresses + 2 * (size_t)family->ip);
	header->has_source = true;
}

static enum proxy_result parse_v2(const uint8_t *bytes, size_t length, struct proxy_header *header)
{
	if (length > 12 && bytes[12] >> 4 != 2)
		return bad(header, "unknown version");
	if (length > 12 && (bytes[12] & 15) > PROXY)
		return bad(header, "unknown command");
	if (length < FIXED)
		return PROXY_MORE;

	bool local = (bytes[12] & 15) == LOCAL;
	const struct family *family = find_family(bytes[13]);
	header->length = FIXED + read_u16(bytes + 14);
	if (header->length > PROXY_HEADER_MAX)
		return bad(header, "longer than 4096 bytes");
	if (!local && family == NULL)
		return bad(header, "unsupported address family or protocol");
	if (!local && header->length - FIXED < family->addresses)
		return bad(header, "too short for its addresses");
	if (length < header->length)
		return PROXY_MORE;
	if (local) /* a connection of the proxy itself: the rest is ignored */
		return PROXY_DONE;
	if (family->ip > 0)
		read_source(bytes + FIXED, family, header);
	return check_tlvs(bytes, FIXED + (size_t)family->addresses, header);
}

/* --- both versions --- */

static bool begins(const void *bytes, size_t length, const char *signature, size_t size)
{
	return memcmp(bytes, signature, length < size ? length : size) == 0;
}

enum proxy_result proxy_parse(const void *bytes, size_t length, struct proxy_header *header)
{
	static const char v1[] = "PROXY ", v2[] = "\r\n\r\n\0\r\nQUIT\n";
	enum { V1_SIZE = sizeof v1 - 1, V2_SIZE = sizeof v2 - 1 };

	*header = (struct proxy_header){.length = 0};
	if (length == 0)
		return PROXY_MORE;
	if (begins(bytes, length, v1, V1_SIZE))
		return length < V1_SIZE ? PROXY_MORE : parse_v1(bytes, length, header);
	if (begins(bytes, length, v2, V2_SIZE))
		return length < V2_SIZE ? PROXY_MORE : parse_v2(bytes, length, header);
	return bad(header, "no PROXY header");
}
