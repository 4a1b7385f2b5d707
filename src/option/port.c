/* port.c: ports and port ranges. */
#include <arpa/inet.h>
#include <ctype.h>
#include <netdb.h>
#include <stdlib.h>
#include <string.h>

#include "option/option.h"
#include "option/option_internal.h"

/* Reads the digits at TEXT into PORT and sets END behind them. Returns false without digits or above 65535. */
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
		if (known == NULL)
			return option_fail(error, "%s is neither a port nor a name in services(5)",
					   option_quote(item).text);
		range->first = range->last = ntohs((uint16_t)known->s_port);
		return true;
	}
	if (!read_port(item, &end, &range->first))
		return option_fail(error, "ports are 0 to 65535, not %s", option_quote(item).text);
	range->last = range->first;
	if (*end == '\0')
		return true;
	if (*end != '-' || !read_port(end + 1, &end, &range->last) || *end != '\0')
		return option_fail(error, "a range is two ports, as 20000-20063, not %s", option_quote(item).text);
	if (range->first > range->last)
		return option_fail(error, "a range starts with its lower port: write %u-%u", range->last, range->first);
	return true;
}

static bool append_ports(struct option_ports *ports, struct option_port_range range, char *error)
{
	for (size_t i = 0; i < ports->count; i++) {
		const struct option_port_range *other = &ports->list[i];
		if (range.first <= other->last && other->first <= range.last)
			return option_fail(error, "port %u is listed twice",
					   range.first > other->first ? range.first : other->first);
	}
	if (ports->count == OPTION_PORTS_MAX)
		return option_fail(error, "more than %d ports and ranges", OPTION_PORTS_MAX);

	struct option_port_range *list = reallocarray(ports->list, ports->count + 1, sizeof *list);
	if (list == NULL)
		return option_fail(error, "out of memory");
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
		return option_fail(error, "port 0 cannot be part of a range, as in %s", option_quote(item).text);
	return append_ports(field, range, error);
}

static bool add_set_port(const char *item, void *field, char *error)
{
	struct option_port_range range;
	return read_port_range(item, &range, error) && append_ports(field, range, error);
}

static bool parse_port_set(const struct option *option, const char *text, void *field, char *error)
{
	return option_parse_list(option, text, field, error, add_set_port);
}

static bool parse_ports(const struct option *option, const char *text, void *field, char *error)
{
	return option_parse_list(option, text, field, error, add_port);
}

static void print_ports(const struct option *option, const void *field, FILE *out)
{
	const struct option_ports *ports = field;

	if (ports->count == 0 && option->word != NULL)
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
