/* address.c: IP addresses and multicast groups. */
#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>

#include "core/ip.h"
#include "option/option.h"
#include "option/option_internal.h"

void option_print_address(const struct option_address *address, char *text)
{
	if (address->family == AF_UNSPEC) {
		strcpy(text, "*");
		return;
	}
	inet_ntop(address->family, &address->ip, text, INET6_ADDRSTRLEN);
	if (address->zone[0] != '\0')
		sprintf(text + strlen(text), "%%%s", address->zone);
}

int option_compare_addresses(const struct option_address *a, const struct option_address *b)
{
	if (a->family != b->family)
		return a->family - b->family;
	int order = a->family != AF_UNSPEC ? ip_compare(a->family, &a->ip, &b->ip) : 0;
	return order != 0 ? order : strcmp(a->zone, b->zone);
}

static bool append_address(struct option_addresses *addresses, const struct option_address *address, char *error)
{
	for (size_t i = 0; i < addresses->count; i++)
		if (option_compare_addresses(&addresses->list[i], address) == 0) {
			char text[INET6_ADDRSTRLEN + IF_NAMESIZE];
			option_print_address(address, text);
			return option_fail(error, "%s is listed twice", text);
		}
	if (addresses->count == OPTION_ADDRESSES_MAX)
		return option_fail(error, "more than %d addresses", OPTION_ADDRESSES_MAX);

	struct option_address *list = reallocarray(addresses->list, addresses->count + 1, sizeof *list);
	if (list == NULL)
		return option_fail(error, "out of memory");
	addresses->list = list;
	list[addresses->count++] = *address;
	return true;
}

/* Returns whether IP has a scope of one link or node, so that it needs an interface. */
static bool is_link_local(const struct in6_addr *ip)
{
	return IN6_IS_ADDR_LINKLOCAL(ip) || IN6_IS_ADDR_MC_LINKLOCAL(ip) || IN6_IS_ADDR_MC_NODELOCAL(ip);
}

/* Reads the zone of ITEM, from PERCENT on (NULL: none), into ADDRESS. */
static bool read_zone(const char *item, const char *percent, struct option_address *address, char *error)
{
	bool multicast = ip_is_multicast(address->family, &address->ip);
	bool link_local = address->family == AF_INET6 && is_link_local(&address->ip.v6);

	if (percent == NULL)
		return !link_local || option_fail(error, "%s needs its interface: write %s%%eth0", item, item);
	if (!link_local && !multicast)
		return option_fail(error, "%s: only link-local addresses and multicast groups take an interface",
				   option_quote(item).text);

	const char *zone = percent + 1;
	if (*zone == '\0' || strlen(zone) >= IF_NAMESIZE || strpbrk(zone, "/% \t") != NULL)
		return option_fail(error, "%s: invalid interface name", option_quote(item).text);
	strcpy(address->zone, zone);
	return true;
}

/* Reads an IPv4 or IPv6 address with an optional zone. */
static bool read_address(const char *item, struct option_address *address, char *error)
{
	const char *percent = strchr(item, '%');
	char literal[INET6_ADDRSTRLEN];
	size_t length = percent != NULL ? (size_t)(percent - item) : strlen(item);

	*address = (struct option_address){.family = strchr(item, ':') != NULL ? AF_INET6 : AF_INET};
	snprintf(literal, sizeof literal, "%.*s", (int)length, item);
	if (length >= sizeof literal || inet_pton(address->family, literal, &address->ip) != 1)
		return option_fail(error,
				   "%s is not an IP address: write it as 127.0.0.1 or ::1, without brackets and port",
				   option_quote(item).text);
	if (address->family == AF_INET6 && IN6_IS_ADDR_V4MAPPED(&address->ip.v6)) {
		inet_ntop(AF_INET, &address->ip.v6.s6_addr[12], literal, sizeof literal);
		return option_fail(error, "%s is an IPv4 address: write %s", option_quote(item).text, literal);
	}
	return read_zone(item, percent, address, error);
}

static bool add_address(const char *item, void *field, char *error)
{
	struct option_address address = {.family = AF_UNSPEC};

	if (strcmp(item, "*") != 0) {
		if (!read_address(item, &address, error))
			return false;
		if (ip_is_multicast(address.family, &address.ip))
			return option_fail(error, "%s is a multicast group: write it in multicast_groups", item);
		if (address.family == AF_INET && address.ip.v4.s_addr == htonl(INADDR_BROADCAST))
			return option_fail(error, "%s is the broadcast address: use multicast_groups", item);
	}
	return append_address(field, &address, error);
}

static bool add_group(const char *item, void *field, char *error)
{
	struct option_address address;

	if (!read_address(item, &address, error))
		return false;
	if (!ip_is_multicast(address.family, &address.ip))
		return option_fail(error, "%s is not a multicast group", item);
	return append_address(field, &address, error);
}

static bool parse_addresses(const struct option *option, const char *text, void *field, char *error)
{
	return option_parse_list(option, text, field, error, add_address);
}

static bool parse_groups(const struct option *option, const char *text, void *field, char *error)
{
	return option_parse_list(option, text, field, error, add_group);
}

static void print_addresses(const struct option *option, const void *field, FILE *out)
{
	const struct option_addresses *addresses = field;
	char text[INET6_ADDRSTRLEN + IF_NAMESIZE];

	if (addresses->count == 0 && option->word != NULL)
		fputs(option->word, out);
	for (size_t i = 0; i < addresses->count; i++) {
		option_print_address(&addresses->list[i], text);
		fprintf(out, "%s%s", i ? ", " : "", text);
	}
}

static void free_addresses(void *field)
{
	struct option_addresses *addresses = field;
	free(addresses->list);
	*addresses = (struct option_addresses){0};
}

const struct option_type option_addresses = {
	.parse = parse_addresses, .print = print_addresses, .free = free_addresses};
const struct option_type option_groups = {.parse = parse_groups, .print = print_addresses, .free = free_addresses};
