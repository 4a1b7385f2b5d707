/* target.c: the probed host and port, and their addresses. */
#include "probe/target.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "probe/lookup.h"

/* Parses a number from 1 to 65535 or a name of services(5). Returns false with the reason in ERROR. */
static bool read_port(const char *text, bool udp, uint16_t *port, char *error)
{
	bool digits = *text != '\0' && text[strspn(text, "0123456789")] == '\0';
	unsigned long number = digits ? strtoul(text, NULL, 10) : 0;

	if (digits && number >= 1 && number <= 65535 && strlen(text) <= 5) {
		*port = (uint16_t)number;
		return true;
	}
	if (digits || *text == '\0') {
		snprintf(error, TARGET_ERROR_SIZE, "a port is 1 to 65535, not '%.64s'", text);
		return false;
	}

	const struct servent *service = getservbyname(text, udp ? "udp" : "tcp");

	if (service == NULL) {
		snprintf(error, TARGET_ERROR_SIZE, "services(5) has no '%.64s' over %s", text, udp ? "UDP" : "TCP");
		return false;
	}
	*port = ntohs((uint16_t)service->s_port);
	return true;
}

/* Returns whether HOST is an address for inet_pton, for IPv6 possibly with a zone. */
static bool is_address(const char *host)
{
	char bare[TARGET_HOST_SIZE];
	struct in6_addr ip;

	if (inet_pton(AF_INET, host, &ip) == 1)
		return true;
	snprintf(bare, sizeof bare, "%.*s", (int)strcspn(host, "%"), host);
	return inet_pton(AF_INET6, bare, &ip) == 1 && !(strchr(host, '%') != NULL && strchr(host, '%')[1] == '\0');
}

static bool is_label(const char *label, size_t length)
{
	static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_";

	return length >= 1 && length <= 63 && label[0] != '-' && label[length - 1] != '-' &&
	       strspn(label, letters) >= length;
}

/* Returns whether HOST consists of labels of letters, digits and hyphens, the last of which is not numeric (RFC 1123).
 * Underscores are accepted, as they are in use. */
static bool is_name(const char *host)
{
	size_t length = strcspn(host, ".");

	if (strlen(host) > 253)
		return false;
	while (host[length] == '.' && host[length + 1] != '\0') {
		if (!is_label(host, length))
			return false;
		host += length + 1;
		length = strcspn(host, ".");
	}
	return is_label(host, length) && strspn(host, "0123456789") < length;
}

/* Splits TEXT at the colon before the port. Several colons without brackets are an IPv6 address. */
static bool split(const char *text, char *host, const char **port, char *error)
{
	const char *colon = strchr(text, ':'), *end = strchr(text, ']');
	size_t length = strlen(text);

	*port = NULL;
	if (text[0] == '[') {
		if (end == NULL || (end[1] != '\0' && end[1] != ':') ||
		    memchr(text, ':', (size_t)(end - text)) == NULL) {
			snprintf(error, TARGET_ERROR_SIZE, "'%.200s' is not [IPV6-ADDRESS]:PORT", text);
			return false;
		}
		*port = end[1] == ':' ? end + 2 : NULL;
		length = (size_t)(end - ++text);
	} else if (colon != NULL && strchr(colon + 1, ':') == NULL) {
		*port = colon + 1;
		length = (size_t)(colon - text);
	}
	if (length >= TARGET_HOST_SIZE) {
		snprintf(error, TARGET_ERROR_SIZE, "a host name has 253 characters at most, not %zu", length);
		return false;
	}
	snprintf(host, TARGET_HOST_SIZE, "%.*s", (int)length, text);
	return true;
}

bool target_parse(const struct options *options, struct target *target, char *error)
{
	const char *port;

	*target = (struct target){.port = options_types[options->type].port};
	if (!split(options->target, target->host, &port, error))
		return false;
	target->is_address = is_address(target->host);
	if (!target->is_address && !is_name(target->host)) {
		snprintf(error, TARGET_ERROR_SIZE, "'%.253s' is neither a host name nor an address", target->host);
		return false;
	}
	if (port != NULL && options->port != NULL) {
		snprintf(error, TARGET_ERROR_SIZE, "a port is given twice: '%.64s' and -p %.64s", port, options->port);
		return false;
	}
	if (port == NULL)
		port = options->port;
	return port == NULL || read_port(port, options->udp, &target->port, error);
}

/* Adds the addresses of LIST to TARGET: the family of the first one first, then both interleaved (RFC 8305). */
static void take_addresses(struct target *target, const struct addrinfo *list)
{
	const struct addrinfo *next[2] = {list, list};

	for (size_t turn = 0; target->count < TARGET_ADDRESSES_MAX && (next[0] != NULL || next[1] != NULL);
	     turn = !turn) {
		while (next[turn] != NULL && (next[turn]->ai_family == list->ai_family) != (turn == 0))
			next[turn] = next[turn]->ai_next;
		if (next[turn] == NULL)
			continue;
		struct target_address *address = &target->addresses[target->count++];

		memcpy(&address->address, next[turn]->ai_addr, next[turn]->ai_addrlen);
		address->length = next[turn]->ai_addrlen;
		next[turn] = next[turn]->ai_next;
	}
}

static const char *reason_of(int code)
{
	return code == EAI_SYSTEM ? strerror(errno) : gai_strerror(code);
}

bool target_resolve(const struct options *options, struct target *target, char *error)
{
	struct addrinfo hints = {
		.ai_family = options->family,
		.ai_socktype = options->udp ? SOCK_DGRAM : SOCK_STREAM,
		.ai_flags = AI_NUMERICSERV | (target->is_address ? AI_NUMERICHOST : 0),
	};
	struct addrinfo *list;
	char port[8];

	snprintf(port, sizeof port, "%u", (unsigned)target->port);
	int64_t timeout_ms = target->is_address ? 0 : options->deadline_ms;
	int code = lookup_addresses(target->host, port, &hints, timeout_ms, &list);

	if (code == EAI_SYSTEM && errno == ETIMEDOUT && timeout_ms > 0) {
		snprintf(error, TARGET_ERROR_SIZE, "%s: the name was not looked up within %.10g s", target->host,
			 (double)timeout_ms / 1000);
		return false;
	}
	if (code != 0) {
		snprintf(error, TARGET_ERROR_SIZE, "%s: %s", target->host, reason_of(code));
		return false;
	}
	target->count = 0;
	take_addresses(target, list);
	freeaddrinfo(list);
	return true;
}

bool target_parse_bind(const struct options *options, struct target_address *address, char *error)
{
	char host[TARGET_HOST_SIZE];
	const char *port_text;
	uint16_t port = 0;

	if (!split(options->bind, host, &port_text, error))
		return false;
	if (!is_address(host)) {
		snprintf(error, TARGET_ERROR_SIZE, "'%.253s' is not an address", host);
		return false;
	}
	if (port_text != NULL && strcmp(port_text, "0") != 0 && !read_port(port_text, options->udp, &port, error))
		return false;

	struct addrinfo hints = {.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV, .ai_socktype = SOCK_STREAM};
	struct addrinfo *list;
	char number[8];

	snprintf(number, sizeof number, "%u", (unsigned)port);
	int code = getaddrinfo(host, number, &hints, &list);

	if (code != 0) {
		snprintf(error, TARGET_ERROR_SIZE, "%s: %s", host, reason_of(code));
		return false;
	}
	*address = (struct target_address){.length = list->ai_addrlen};
	memcpy(&address->address, list->ai_addr, list->ai_addrlen);
	freeaddrinfo(list);
	return true;
}

void target_print(const struct sockaddr *address, char *text)
{
	bool v6 = address->sa_family == AF_INET6;
	socklen_t length = v6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in);
	char host[64], port[8];

	if (getnameinfo(address, length, host, sizeof host, port, sizeof port, NI_NUMERICHOST | NI_NUMERICSERV) != 0)
		snprintf(text, TARGET_TEXT_SIZE, "?");
	else
		snprintf(text, TARGET_TEXT_SIZE, v6 ? "[%s]:%s" : "%s:%s", host, port);
}
