/* option.c: an option as a row: parse, check, print, free. */
#include "option/option.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <netdb.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "core/text_file.h"

#define COUNT_OF(array) (sizeof(array) / sizeof((array)[0]))

/* Puts a reason in ERROR; false, for the caller to return. */
static bool fail(char *error, const char *format, ...) __attribute__((format(printf, 2, 3)));

static bool fail(char *error, const char *format, ...)
{
	va_list arguments;
	va_start(arguments, format);
	vsnprintf(error, OPTION_ERROR_SIZE, format, arguments);
	va_end(arguments);
	return false;
}

/* Adds the nearest of WORDS to the reason in ERROR. */
static bool fail_near(char *error, const char *text, const char *const *words, size_t count)
{
	const char *nearest = option_nearest(text, words, count);
	size_t length = strlen(error);

	if (nearest)
		snprintf(error + length, OPTION_ERROR_SIZE - length, "; did you mean \"%s\"?", nearest);
	return false;
}

struct option_quoted option_quote(const char *text)
{
	struct option_quoted quoted = {"\""};
	size_t length = strnlen(text, OPTION_QUOTED_MAX + 1), at = 1;
	bool cut = length > OPTION_QUOTED_MAX;

	if (cut)
		for (length = OPTION_QUOTED_MAX; length > 0 && ((unsigned char)text[length] & 0xc0) == 0x80;)
			length--;
	for (size_t i = 0; i < length; i++) {
		unsigned char byte = (unsigned char)text[i];
		if (byte < 0x20 || byte == 0x7f) {
			at += (size_t)snprintf(quoted.text + at, sizeof(quoted.text) - at, "\\x%02x", byte);
			continue;
		}
		if (byte == '"')
			quoted.text[at++] = '\\';
		quoted.text[at++] = text[i];
	}
	snprintf(quoted.text + at, sizeof(quoted.text) - at, "%s\"", cut ? "..." : "");
	return quoted;
}

static bool is_word(const struct option *option, const char *text)
{
	return option->word && strcmp(text, option->word) == 0;
}

/* Numbers */

struct unit {
	const char *suffix;
	int64_t factor;
};

/* How a kind of number is written; its units from large to small, down to the one that the field counts. */
struct measure {
	const char *name;
	struct unit units[6];
	size_t unit_count;
};

static const struct measure plain = {"a number", {{"", 1}}, 1};

static const struct measure duration = {
	"a duration",
	{{"d", 24 * 60 * 60 * 1000}, {"h", 60 * 60 * 1000}, {"m", 60 * 1000}, {"s", 1000}, {"ms", 1}},
	5,
};

static const struct measure size = {"a size", {{"G", 1 << 30}, {"M", 1 << 20}, {"K", 1 << 10}, {"", 1}}, 4};

struct number {
	char text[32];
};

static struct number write_number(const struct measure *measure, int64_t value)
{
	const struct unit *unit = measure->units;
	struct number number;

	while (unit->factor > 1 && (value < unit->factor || value % unit->factor != 0))
		unit++;
	snprintf(number.text, sizeof(number.text), "%lld%s", (long long)(value / unit->factor), unit->suffix);
	return number;
}

static bool fail_number(const struct option *option, const struct measure *measure, const char *text, char *error)
{
	return fail(error, "must be %s from %s to %s%s%s, not %s", measure->name,
		    write_number(measure, option->min).text, write_number(measure, option->max).text,
		    option->word ? ", or " : "", option->word ? option->word : "", option_quote(text).text);
}

static bool parse_number(const struct option *option, const struct measure *measure, const char *text, int64_t *field,
			 char *error)
{
	if (is_word(option, text)) {
		*field = option->word_value;
		return true;
	}
	if (!isdigit((unsigned char)*text))
		return fail_number(option, measure, text, error);

	char *suffix;
	errno = 0;
	long long number = strtoll(text, &suffix, 10);
	const struct unit *unit = measure->units, *end = measure->units + measure->unit_count;
	while (unit < end && strcmp(suffix, unit->suffix) != 0)
		unit++;
	if (unit == end && measure == &duration && *suffix == '\0')
		return fail(error, "a duration needs its unit: write %.*ss", OPTION_QUOTED_MAX, text);

	int64_t value;
	if (unit == end || errno != 0 || __builtin_mul_overflow(number, unit->factor, &value))
		return fail_number(option, measure, text, error);
	if (value < option->min || value > option->max)
		return fail_number(option, measure, text, error);
	if (option->step && value % option->step != 0)
		return fail(error, "must be a multiple of %s, not %s", write_number(measure, option->step).text,
			    option_quote(text).text);
	*field = value;
	return true;
}

static void print_number(const struct option *option, const struct measure *measure, int64_t value, FILE *out)
{
	bool word = option->word && value == option->word_value;
	fputs(word ? option->word : write_number(measure, value).text, out);
}

static bool parse_integer(const struct option *option, const char *text, void *field, char *error)
{
	return parse_number(option, &plain, text, field, error);
}

static void print_integer(const struct option *option, const void *field, FILE *out)
{
	print_number(option, &plain, *(const int64_t *)field, out);
}

static bool parse_duration(const struct option *option, const char *text, void *field, char *error)
{
	return parse_number(option, &duration, text, field, error);
}

static void print_duration(const struct option *option, const void *field, FILE *out)
{
	print_number(option, &duration, *(const int64_t *)field, out);
}

static bool parse_size(const struct option *option, const char *text, void *field, char *error)
{
	return parse_number(option, &size, text, field, error);
}

static void print_size(const struct option *option, const void *field, FILE *out)
{
	print_number(option, &size, *(const int64_t *)field, out);
}

const struct option_type option_integer = {.parse = parse_integer, .print = print_integer};
const struct option_type option_duration = {.parse = parse_duration, .print = print_duration};
const struct option_type option_size = {.parse = parse_size, .print = print_size};

/* Words */

static const char *const boolean_words[] = {"no", "yes", "off", "on", "false", "true"};

static bool parse_boolean(const struct option *option, const char *text, void *field, char *error)
{
	(void)option;
	for (size_t i = 0; i < COUNT_OF(boolean_words); i++)
		if (strcmp(text, boolean_words[i]) == 0) {
			*(bool *)field = i % 2 == 1;
			return true;
		}
	fail(error, "must be yes or no, not %s", option_quote(text).text);
	return fail_near(error, text, boolean_words, COUNT_OF(boolean_words));
}

static void print_boolean(const struct option *option, const void *field, FILE *out)
{
	(void)option;
	fputs(boolean_words[*(const bool *)field], out);
}

static bool parse_choice(const struct option *option, const char *text, void *field, char *error)
{
	char list[OPTION_ERROR_SIZE / 2] = "";
	size_t count = 0;

	for (; option->words[count]; count++) {
		if (strcmp(text, option->words[count]) == 0) {
			*(int *)field = (int)count;
			return true;
		}
		size_t length = strlen(list);
		snprintf(list + length, sizeof(list) - length, "%s%s", count ? ", " : "", option->words[count]);
	}
	fail(error, "must be one of %s, not %s", list, option_quote(text).text);
	return fail_near(error, text, option->words, count);
}

static void print_choice(const struct option *option, const void *field, FILE *out)
{
	fputs(option->words[*(const int *)field], out);
}

static const struct class
{
	const char *name;
	int64_t value;
} dscp_classes[] = {
	{"none", DSCP_NONE}, {"copy", DSCP_COPY}, {"cs0", 0},   {"cs1", 8},   {"cs2", 16},  {"cs3", 24},  {"cs4", 32},
	{"cs5", 40},         {"cs6", 48},         {"cs7", 56},  {"le", 1},    {"af11", 10}, {"af12", 12}, {"af13", 14},
	{"af21", 18},        {"af22", 20},        {"af23", 22}, {"af31", 26}, {"af32", 28}, {"af33", 30}, {"af41", 34},
	{"af42", 36},        {"af43", 38},        {"va", 44},   {"ef", 46},
};

static bool parse_dscp(const struct option *option, const char *text, void *field, char *error)
{
	static const struct option number = {.min = 0, .max = 63};

	(void)option;
	for (size_t i = 0; i < COUNT_OF(dscp_classes); i++)
		if (strcmp(text, dscp_classes[i].name) == 0) {
			*(int64_t *)field = dscp_classes[i].value;
			return true;
		}
	if (parse_number(&number, &plain, text, field, error))
		return true;
	return fail(error, "must be 0 to 63, a class as ef, af21 or cs6, copy or none, not %s",
		    option_quote(text).text);
}

static void print_dscp(const struct option *option, const void *field, FILE *out)
{
	int64_t value = *(const int64_t *)field;

	(void)option;
	for (size_t i = 0; i < COUNT_OF(dscp_classes); i++)
		if (dscp_classes[i].value == value) {
			fputs(dscp_classes[i].name, out);
			return;
		}
	fprintf(out, "%lld", (long long)value);
}

const struct option_type option_boolean = {.parse = parse_boolean, .print = print_boolean};
const struct option_type option_choice = {.parse = parse_choice, .print = print_choice};
const struct option_type option_dscp = {.parse = parse_dscp, .print = print_dscp};

/* Texts */

static bool parse_string(const struct option *option, const char *text, void *field, char *error)
{
	size_t length = strlen(text), max = option->max ? (size_t)option->max : OPTION_STRING_MAX;

	if (is_word(option, text)) {
		*(char **)field = NULL;
		return true;
	}
	if (*text == '"') {
		if (length < 2 || text[length - 1] != '"')
			return fail(error, "unclosed quote");
		text++;
		length -= 2;
	}
	if (length == 0)
		return fail(error, "must not be empty");
	if (length > max)
		return fail(error, "longer than %zu bytes", max);
	*(char **)field = strndup(text, length);
	return *(char **)field || fail(error, "out of memory");
}

/* Would TEXT without quotes be read as something else? */
static bool needs_quotes(const struct option *option, const char *text)
{
	return is_word(option, text) || strpbrk(text, "#;,") || isblank((unsigned char)text[0]) ||
	       isblank((unsigned char)text[strlen(text) - 1]);
}

static void print_string(const struct option *option, const void *field, FILE *out)
{
	const char *text = *(char *const *)field;

	if (!text)
		fputs(option->word ? option->word : "", out);
	else
		fprintf(out, needs_quotes(option, text) ? "\"%s\"" : "%s", text);
}

static void free_string(void *field)
{
	free(*(char **)field);
	*(char **)field = NULL;
}

const struct option_type option_string = {.parse = parse_string, .print = print_string, .free = free_string};

/* Lists */

/* Adds ITEM of a list to FIELD. */
typedef bool (*add_item)(const char *item, void *field, char *error);

static char *trim(char *text)
{
	while (isblank((unsigned char)*text))
		text++;
	for (size_t length = strlen(text); length > 0 && isblank((unsigned char)text[length - 1]);)
		text[--length] = '\0';
	return text;
}

/* Reads TEXT, items separated by commas, into FIELD, which stays empty on an error. */
static bool parse_list(const struct option *option, const char *text, void *field, char *error, add_item add)
{
	char *copy = strdup(text), *rest = copy, *item;
	bool fine = copy || fail(error, "out of memory");

	if (is_word(option, text))
		rest = NULL;
	while (fine && (item = strsep(&rest, ","))) {
		item = trim(item);
		fine = (*item || fail(error, "empty item in a list")) && add(item, field, error);
	}
	free(copy);
	if (!fine)
		option->type->free(field);
	return fine;
}

static const char *const transport_names[] = {"tcp", "udp"};

static bool add_transport(const char *item, void *field, char *error)
{
	unsigned *transports = field;

	for (unsigned i = 0; i < COUNT_OF(transport_names); i++)
		if (strcmp(item, transport_names[i]) == 0) {
			if (*transports & 1u << i)
				return fail(error, "%s is there twice", item);
			*transports |= 1u << i;
			return true;
		}
	fail(error, "must be tcp, udp or both, not %s", option_quote(item).text);
	return fail_near(error, item, transport_names, COUNT_OF(transport_names));
}

static bool parse_transports(const struct option *option, const char *text, void *field, char *error)
{
	return parse_list(option, text, field, error, add_transport);
}

static void print_transports(const struct option *option, const void *field, FILE *out)
{
	unsigned transports = *(const unsigned *)field;

	(void)option;
	for (unsigned i = 0; i < COUNT_OF(transport_names); i++)
		if (transports & 1u << i)
			fprintf(out, "%s%s", transports & ((1u << i) - 1) ? ", " : "", transport_names[i]);
}

static void free_transports(void *field)
{
	*(unsigned *)field = 0;
}

const struct option_type option_transports = {
	.parse = parse_transports, .print = print_transports, .free = free_transports};

/* Addresses */

void option_print_address(const struct option_address *address, char *text)
{
	if (address->family == AF_UNSPEC) {
		strcpy(text, "*");
		return;
	}
	inet_ntop(address->family, &address->ip, text, INET6_ADDRSTRLEN);
	if (address->zone[0])
		sprintf(text + strlen(text), "%%%s", address->zone);
}

static bool same_address(const struct option_address *a, const struct option_address *b)
{
	size_t length = a->family == AF_INET6 ? sizeof(a->ip.v6) : a->family == AF_INET ? sizeof(a->ip.v4) : 0;
	return a->family == b->family && memcmp(&a->ip, &b->ip, length) == 0 && strcmp(a->zone, b->zone) == 0;
}

static bool append_address(struct option_addresses *addresses, const struct option_address *address, char *error)
{
	for (size_t i = 0; i < addresses->count; i++)
		if (same_address(&addresses->list[i], address)) {
			char text[INET6_ADDRSTRLEN + IF_NAMESIZE];
			option_print_address(address, text);
			return fail(error, "%s is there twice", text);
		}
	if (addresses->count == OPTION_ADDRESSES_MAX)
		return fail(error, "more than %d addresses", OPTION_ADDRESSES_MAX);

	struct option_address *list = reallocarray(addresses->list, addresses->count + 1, sizeof(*list));
	if (!list)
		return fail(error, "out of memory");
	addresses->list = list;
	list[addresses->count++] = *address;
	return true;
}

/* Addresses that mean nothing without an interface. */
static bool is_link_local(const struct in6_addr *ip)
{
	return IN6_IS_ADDR_LINKLOCAL(ip) || IN6_IS_ADDR_MC_LINKLOCAL(ip) || IN6_IS_ADDR_MC_NODELOCAL(ip);
}

static bool is_multicast(const struct option_address *address)
{
	return address->family == AF_INET ? IN_MULTICAST(ntohl(address->ip.v4.s_addr))
					  : IN6_IS_ADDR_MULTICAST(&address->ip.v6);
}

static bool read_zone(const char *item, const char *percent, struct option_address *address, char *error)
{
	bool multicast = is_multicast(address);
	bool link_local = address->family == AF_INET6 && is_link_local(&address->ip.v6);

	if (!percent)
		return !link_local || fail(error, "%s needs its interface: write %s%%eth0", item, item);
	if (!link_local && !multicast)
		return fail(error, "%s: only link-local addresses and multicast groups take an interface",
			    option_quote(item).text);

	const char *zone = percent + 1;
	if (*zone == '\0' || strlen(zone) >= IF_NAMESIZE || strpbrk(zone, "/% \t"))
		return fail(error, "%s: no interface has such a name", option_quote(item).text);
	strcpy(address->zone, zone);
	return true;
}

/* Reads an IPv4 or IPv6 address with an optional zone. */
static bool read_address(const char *item, struct option_address *address, char *error)
{
	const char *percent = strchr(item, '%');
	char literal[INET6_ADDRSTRLEN];
	size_t length = percent ? (size_t)(percent - item) : strlen(item);

	*address = (struct option_address){.family = strchr(item, ':') ? AF_INET6 : AF_INET};
	snprintf(literal, sizeof(literal), "%.*s", (int)length, item);
	if (length >= sizeof(literal) || inet_pton(address->family, literal, &address->ip) != 1)
		return fail(error, "%s is no address: write literal ones as 127.0.0.1 or ::1, without brackets or port",
			    option_quote(item).text);
	if (address->family == AF_INET6 && IN6_IS_ADDR_V4MAPPED(&address->ip.v6)) {
		inet_ntop(AF_INET, &address->ip.v6.s6_addr[12], literal, sizeof(literal));
		return fail(error, "%s is an IPv4 address: write %s", option_quote(item).text, literal);
	}
	return read_zone(item, percent, address, error);
}

static bool add_address(const char *item, void *field, char *error)
{
	struct option_address address = {.family = AF_UNSPEC};

	if (strcmp(item, "*") != 0) {
		if (!read_address(item, &address, error))
			return false;
		if (is_multicast(&address))
			return fail(error, "%s is a multicast group: it belongs in multicast_groups", item);
		if (address.family == AF_INET && address.ip.v4.s_addr == htonl(INADDR_BROADCAST))
			return fail(error, "%s is the broadcast address; to serve many, see multicast_groups", item);
	}
	return append_address(field, &address, error);
}

static bool add_group(const char *item, void *field, char *error)
{
	struct option_address address;

	if (!read_address(item, &address, error))
		return false;
	if (!is_multicast(&address))
		return fail(error, "%s is no multicast group", item);
	return append_address(field, &address, error);
}

static bool parse_addresses(const struct option *option, const char *text, void *field, char *error)
{
	return parse_list(option, text, field, error, add_address);
}

static bool parse_groups(const struct option *option, const char *text, void *field, char *error)
{
	return parse_list(option, text, field, error, add_group);
}

static void print_addresses(const struct option *option, const void *field, FILE *out)
{
	const struct option_addresses *addresses = field;
	char text[INET6_ADDRSTRLEN + IF_NAMESIZE];

	if (addresses->count == 0 && option->word)
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

/* Ports */

/* Reads the digits at TEXT up to END, which is moved behind them. False: no digits, or over 65535. */
static bool read_port(const char *text, const char **end, uint16_t *port)
{
	unsigned number = 0;

	for (*end = text; isdigit((unsigned char)**end); ++*end) {
		number = number * 10 + (unsigned)(**end - '0');
		if (number > UINT16_MAX)
			return false;
	}
	*port = (uint16_t)number;
	return *end > text;
}

/* Reads `7`, `20000-20063` or `echo`. */
static bool read_port_range(const char *item, struct option_port_range *range, char *error)
{
	const char *end;

	if (item[strspn(item, "0123456789-")] != '\0') {
		const struct servent *known = getservbyname(item, NULL);
		if (!known)
			return fail(error, "%s is no port, nor a name in services(5)", option_quote(item).text);
		range->first = range->last = ntohs((uint16_t)known->s_port);
		return true;
	}
	if (!read_port(item, &end, &range->first))
		return fail(error, "ports are 0 to 65535, not %s", option_quote(item).text);
	range->last = range->first;
	if (*end == '\0')
		return true;
	if (*end != '-' || !read_port(end + 1, &end, &range->last) || *end != '\0')
		return fail(error, "a range is two ports, as 20000-20063, not %s", option_quote(item).text);
	if (range->first > range->last)
		return fail(error, "a range starts with its lower port: write %u-%u", range->last, range->first);
	return true;
}

static bool append_ports(struct option_ports *ports, struct option_port_range range, char *error)
{
	for (size_t i = 0; i < ports->count; i++) {
		const struct option_port_range *other = &ports->list[i];
		if (range.first <= other->last && other->first <= range.last)
			return fail(error, "port %u is there twice",
				    range.first > other->first ? range.first : other->first);
	}
	if (ports->count == OPTION_PORTS_MAX)
		return fail(error, "more than %d ports and ranges", OPTION_PORTS_MAX);

	struct option_port_range *list = reallocarray(ports->list, ports->count + 1, sizeof(*list));
	if (!list)
		return fail(error, "out of memory");
	ports->list = list;
	list[ports->count++] = range;
	return true;
}

static bool add_port(const char *item, void *field, char *error)
{
	struct option_port_range range;

	if (!read_port_range(item, &range, error))
		return false;
	if (range.first == 0 && range.last > 0)
		return fail(error, "port 0 stands alone, never in a range, not %s", option_quote(item).text);
	return append_ports(field, range, error);
}

static bool add_port_of_set(const char *item, void *field, char *error)
{
	struct option_port_range range;
	return read_port_range(item, &range, error) && append_ports(field, range, error);
}

static bool parse_port_set(const struct option *option, const char *text, void *field, char *error)
{
	return parse_list(option, text, field, error, add_port_of_set);
}

static bool parse_ports(const struct option *option, const char *text, void *field, char *error)
{
	return parse_list(option, text, field, error, add_port);
}

static void print_ports(const struct option *option, const void *field, FILE *out)
{
	const struct option_ports *ports = field;

	if (ports->count == 0 && option->word)
		fputs(option->word, out);
	for (size_t i = 0; i < ports->count; i++) {
		const struct option_port_range *range = &ports->list[i];
		fprintf(out, "%s%u", i ? ", " : "", range->first);
		if (range->last != range->first)
			fprintf(out, "-%u", range->last);
	}
}

static void free_ports(void *field)
{
	struct option_ports *ports = field;
	free(ports->list);
	*ports = (struct option_ports){0};
}

const struct option_type option_ports = {.parse = parse_ports, .print = print_ports, .free = free_ports};
const struct option_type option_port_set = {.parse = parse_port_set, .print = print_ports, .free = free_ports};

/* Rates */

static const struct unit rate_units[] = {{"/s", 1000}, {"/m", 60 * 1000}, {"/h", 60 * 60 * 1000}};

static bool parse_rate(const struct option *option, const char *text, void *field, char *error)
{
	enum { RATE_MAX = 1000000 };
	struct option_rate *rate = field;
	size_t digits = strspn(text, "0123456789");

	if (is_word(option, text))
		return true;
	for (size_t i = 0; i < COUNT_OF(rate_units) && digits > 0 && digits < 8; i++) {
		long count = strtol(text, NULL, 10);
		if (strcmp(text + digits, rate_units[i].suffix) != 0 || count < 1 || count > RATE_MAX)
			continue;
		*rate = (struct option_rate){.count = count, .unit_ms = rate_units[i].factor};
		return true;
	}
	return fail(error, "must be a rate of 1 to %d a second, minute or hour, as 50/s or 600/m, or %s, not %s",
		    RATE_MAX, option->word, option_quote(text).text);
}

static void print_rate(const struct option *option, const void *field, FILE *out)
{
	const struct option_rate *rate = field;
	const struct unit *unit = rate_units;

	if (rate->count == 0) {
		fputs(option->word, out);
		return;
	}
	while (unit->factor != rate->unit_ms)
		unit++;
	fprintf(out, "%lld%s", (long long)rate->count, unit->suffix);
}

const struct option_type option_rate = {.parse = parse_rate, .print = print_rate};

/* Prefixes */

enum { MAPPED_BITS = 96 };

/* Reads `/24` with at most BITS. */
static bool read_prefix_length(const char *text, unsigned bits, unsigned *length)
{
	size_t digits = strspn(text + (*text == '/'), "0123456789");
	if (*text != '/' || digits == 0 || digits > 3 || text[1 + digits] != '\0')
		return false;
	*length = (unsigned)strtoul(text + 1, NULL, 10);
	return *length <= bits;
}

static bool parse_source_prefix(const struct option *option, const char *text, void *field, char *error)
{
	struct option_source_prefix *prefix = field;
	char first[8];
	const char *comma = strchr(text, ',');
	size_t length = comma ? (size_t)(comma - text) : 0;

	(void)option;
	while (length > 0 && isblank((unsigned char)text[length - 1]))
		length--;
	snprintf(first, sizeof(first), "%.*s", (int)(length < sizeof(first) ? length : sizeof(first) - 1), text);
	if (comma && length < sizeof(first) && read_prefix_length(first, 32, &prefix->v4) &&
	    read_prefix_length(comma + 1 + strspn(comma + 1, " \t"), 128, &prefix->v6))
		return true;
	return fail(error, "must be two prefix lengths, for IPv4 and IPv6, as /32, /64, not %s",
		    option_quote(text).text);
}

static void print_source_prefix(const struct option *option, const void *field, FILE *out)
{
	const struct option_source_prefix *prefix = field;
	(void)option;
	fprintf(out, "/%u, /%u", prefix->v4, prefix->v6);
}

const struct option_type option_source_prefix = {.parse = parse_source_prefix, .print = print_source_prefix};

void option_print_prefix(const struct option_prefix *prefix, char *text)
{
	bool v4 = prefix->length >= MAPPED_BITS && IN6_IS_ADDR_V4MAPPED(&prefix->address);
	const void *address = v4 ? (const void *)&prefix->address.s6_addr[12] : &prefix->address;
	inet_ntop(v4 ? AF_INET : AF_INET6, address, text, INET6_ADDRSTRLEN);
	sprintf(text + strlen(text), "/%u", prefix->length - (v4 ? MAPPED_BITS : 0));
}

/* Clears the bits of ADDRESS beyond the first LENGTH. Were any set? */
static bool clear_rest(struct in6_addr *address, unsigned length)
{
	bool set = false;
	for (unsigned bit = length; bit < 128; bit++) {
		uint8_t mask = (uint8_t)(0x80 >> (bit % 8));
		set |= (address->s6_addr[bit / 8] & mask) != 0;
		address->s6_addr[bit / 8] &= (uint8_t)~mask;
	}
	return set;
}

/* Reads `10.0.0.0/8`, `192.0.2.1`, `2001:db8::/32`. IPv4-mapped IPv6 is IPv4. */
static bool read_prefix(const char *item, struct option_prefix *prefix, char *error)
{
	bool v6 = strchr(item, ':');
	unsigned bits = v6 ? 128 : 32;
	size_t length = strcspn(item, "/");
	char literal[INET6_ADDRSTRLEN], meant[INET6_ADDRSTRLEN + 4];

	*prefix = (struct option_prefix){.length = bits};
	snprintf(literal, sizeof(literal), "%.*s", (int)(length < sizeof(literal) ? length : sizeof(literal) - 1),
		 item);
	if (!v6)
		prefix->address.s6_addr[10] = prefix->address.s6_addr[11] = 0xff;
	if (length >= sizeof(literal) || inet_pton(v6 ? AF_INET6 : AF_INET, literal,
						   v6 ? prefix->address.s6_addr : &prefix->address.s6_addr[12]) != 1)
		return fail(error,
			    "%s is no address and no prefix: write 192.0.2.1, 192.0.2.0/24, 2001:db8::/32 or all",
			    option_quote(item).text);
	if (item[length] == '/' && !read_prefix_length(item + length, bits, &prefix->length))
		return fail(error, "%s: a prefix has 0 to %u bits", option_quote(item).text, bits);
	prefix->length += v6 ? 0 : MAPPED_BITS;
	if (!clear_rest(&prefix->address, prefix->length))
		return true;
	option_print_prefix(prefix, meant);
	return fail(error, "%s has bits beyond its length: write %s", option_quote(item).text, meant);
}

/* Makes room by doubling, as a file may have many. */
static bool append_prefix(struct option_prefixes *prefixes, const struct option_prefix *prefix, char *error)
{
	size_t count = prefixes->count;

	if ((count & (count - 1)) == 0) {
		struct option_prefix *list = reallocarray(prefixes->list, count ? 2 * count : 1, sizeof(*list));
		if (!list)
			return fail(error, "out of memory");
		prefixes->list = list;
	}
	prefixes->list[prefixes->count++] = *prefix;
	return true;
}

static bool add_prefix(const char *item, void *field, char *error)
{
	struct option_prefix prefix = {.all = strcmp(item, "all") == 0};
	return (prefix.all || read_prefix(item, &prefix, error)) && append_prefix(field, &prefix, error);
}

static bool parse_prefixes(const struct option *option, const char *text, void *field, char *error)
{
	return parse_list(option, text, field, error, add_prefix);
}

static void print_prefixes(const struct option *option, const void *field, FILE *out)
{
	const struct option_prefixes *prefixes = field;
	char text[INET6_ADDRSTRLEN + 4];

	if (prefixes->count == 0)
		fputs(option->word, out);
	for (size_t i = 0; i < prefixes->count; i++) {
		option_print_prefix(&prefixes->list[i], text);
		fprintf(out, "%s%s", i ? ", " : "", prefixes->list[i].all ? "all" : text);
	}
}

static void free_prefixes(void *field)
{
	struct option_prefixes *prefixes = field;
	free(prefixes->list);
	*prefixes = (struct option_prefixes){0};
}

const struct option_type option_prefixes = {.parse = parse_prefixes, .print = print_prefixes, .free = free_prefixes};

static bool parse_prefix_file(const struct option *option, const char *text, void *field, char *error)
{
	struct option_prefix_file *file = field;
	return option_string.parse(option, text, &file->path, error);
}

/* Takes one line of FILE: a prefix, a comment or nothing. */
static bool add_prefix_line(struct option_prefix_file *file, char *line, unsigned number, char *error)
{
	char reason[OPTION_ERROR_SIZE];
	char *end = line;

	while ((end = strpbrk(end, "#;")) && end > line && !isblank((unsigned char)end[-1]))
		end++;
	if (end)
		*end = '\0';
	line[strcspn(line, "\r\n")] = '\0';
	line = trim(line);
	if (*line == '\0' || add_prefix(line, &file->prefixes, reason))
		return true;
	return fail(error, "%s:%u: %s", file->path, number, reason);
}

/* Reads all lines, and tells of each that is wrong. */
static bool read_prefix_lines(struct option_prefix_file *file, FILE *in, option_tell *tell, void *context)
{
	char *line = NULL, error[OPTION_ERROR_SIZE];
	size_t room = 0;
	ssize_t length;
	bool good = true;

	for (unsigned number = 1; (length = getline(&line, &room, in)) >= 0; number++) {
		if (memchr(line, '\0', (size_t)length))
			fail(error, "%s:%u: a NUL byte", file->path, number);
		else if (add_prefix_line(file, line, number, error))
			continue;
		tell(context, error);
		good = false;
	}
	free(line);
	if (feof(in))
		return good;
	fail(error, "%s: %s", file->path, strerror(errno));
	tell(context, error);
	return false;
}

static bool load_prefix_file(const struct option *option, void *field, option_tell *tell, void *context)
{
	struct option_prefix_file *file = field;
	char error[OPTION_ERROR_SIZE];
	const char *reason;

	(void)option;
	if (!file->path)
		return true;
	FILE *in = text_file_open(file->path, &reason);
	if (!in) {
		fail(error, "%s: %s", file->path, reason);
		tell(context, error);
		return false;
	}
	bool good = read_prefix_lines(file, in, tell, context);
	fclose(in);
	return good;
}

static void print_prefix_file(const struct option *option, const void *field, FILE *out)
{
	const struct option_prefix_file *file = field;
	option_string.print(option, &file->path, out);
}

static void free_prefix_file(void *field)
{
	struct option_prefix_file *file = field;
	option_string.free(&file->path);
	free_prefixes(&file->prefixes);
}

const struct option_type option_prefix_file = {
	.parse = parse_prefix_file,
	.load = load_prefix_file,
	.print = print_prefix_file,
	.free = free_prefix_file,
};

/* Rows */

const struct option *option_find(const struct option *options, size_t count, const char *key)
{
	for (size_t i = 0; i < count; i++)
		if (strcmp(options[i].key, key) == 0)
			return &options[i];
	return NULL;
}

void *option_field(const struct option *option, void *base)
{
	return (char *)base + option->offset;
}

const void *option_field_const(const struct option *option, const void *base)
{
	return (const char *)base + option->offset;
}

/* Spelling */

enum { WORD_MAX = 64 };

static size_t least(size_t a, size_t b)
{
	return a < b ? a : b;
}

static bool same_letter(char a, char b)
{
	return tolower((unsigned char)a) == tolower((unsigned char)b);
}

/* How many letters must be inserted, deleted, replaced or swapped with their neighbour to make B of A, whatever their
 * case (Damerau and Levenshtein). B is at most WORD_MAX long. */
static size_t distance(const char *a, const char *b)
{
	size_t rows[3][WORD_MAX + 1];
	size_t *before_last = rows[0], *last = rows[1], *row = rows[2];

	for (size_t j = 0; j <= strlen(b); j++)
		row[j] = j;
	for (size_t i = 1; i <= strlen(a); i++) {
		size_t *oldest = before_last;
		before_last = last;
		last = row;
		row = oldest;
		row[0] = i;
		for (size_t j = 1; j <= strlen(b); j++) {
			row[j] = least(last[j], row[j - 1]) + 1;
			row[j] = least(row[j], last[j - 1] + !same_letter(a[i - 1], b[j - 1]));
			if (i > 1 && j > 1 && same_letter(a[i - 1], b[j - 2]) && same_letter(a[i - 2], b[j - 1]))
				row[j] = least(row[j], before_last[j - 2] + 1);
		}
	}
	return row[strlen(b)];
}

const char *option_nearest(const char *text, const char *const *words, size_t count)
{
	size_t length = strlen(text);
	size_t best = (length / 3 > 2 ? length / 3 : 2) + 1;
	const char *nearest = NULL;

	for (size_t i = 0; i < count; i++) {
		if (strlen(words[i]) > WORD_MAX)
			continue;
		/* a word of which no letter stays is not near, however short */
		size_t steps = distance(text, words[i]);
		if (steps < best && steps < least(length, strlen(words[i]))) {
			nearest = words[i];
			best = steps;
		}
	}
	return nearest;
}
