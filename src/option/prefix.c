/* prefix.c: prefixes in CIDR notation, lists and files of them. */
#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/acl.h"
#include "core/array.h"
#include "core/text_file.h"
#include "option/option.h"
#include "option/option_internal.h"

enum { MAPPED_BITS = 96 }; /* prefix length of ::ffff:0:0/96 */

/* --- prefix lengths of sources --- */

/* Reads `/24`, at most BITS, into LENGTH. */
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
	size_t length = comma != NULL ? (size_t)(comma - text) : 0;

	(void)option;
	while (length > 0 && isblank((unsigned char)text[length - 1]))
		length--;
	snprintf(first, sizeof first, "%.*s", (int)(length < sizeof first ? length : sizeof first - 1), text);
	if (comma != NULL && length < sizeof first && read_prefix_length(first, 32, &prefix->v4) &&
	    read_prefix_length(comma + 1 + strspn(comma + 1, " \t"), 128, &prefix->v6))
		return true;
	return option_fail(error, "must be two prefix lengths, for IPv4 and IPv6, as /32, /64, not %s",
			   option_quote(text).text);
}

static void print_source_prefix(const struct option *option, const void *field, FILE *out)
{
	const struct option_source_prefix *prefix = field;
	(void)option;
	fprintf(out, "/%u, /%u", prefix->v4, prefix->v6);
}

const struct option_type option_source_prefix = {.parse = parse_source_prefix, .print = print_source_prefix};

/* --- prefixes --- */

void option_print_prefix(const struct option_prefix *prefix, char *text)
{
	if (prefix->all) {
		strcpy(text, "all");
		return;
	}
	bool v4 = prefix->length >= MAPPED_BITS && IN6_IS_ADDR_V4MAPPED(&prefix->address);
	const void *address = v4 ? (const void *)&prefix->address.s6_addr[12] : &prefix->address;
	inet_ntop(v4 ? AF_INET : AF_INET6, address, text, INET6_ADDRSTRLEN);
	sprintf(text + strlen(text), "/%u", prefix->length - (v4 ? MAPPED_BITS : 0));
}

/* Reads `10.0.0.0/8`, `192.0.2.1` or `2001:db8::/32`. IPv4-mapped IPv6 counts as IPv4. */
static bool read_prefix(const char *item, struct option_prefix *prefix, char *error)
{
	bool v6 = strchr(item, ':') != NULL;
	unsigned bits = v6 ? 128 : 32;
	size_t length = strcspn(item, "/");
	char literal[INET6_ADDRSTRLEN], cleared[INET6_ADDRSTRLEN + 4];

	*prefix = (struct option_prefix){.length = bits};
	snprintf(literal, sizeof literal, "%.*s", (int)(length < sizeof literal ? length : sizeof literal - 1), item);
	if (!v6)
		prefix->address.s6_addr[10] = prefix->address.s6_addr[11] = 0xff;
	if (length >= sizeof literal || inet_pton(v6 ? AF_INET6 : AF_INET, literal,
						  v6 ? prefix->address.s6_addr : &prefix->address.s6_addr[12]) != 1)
		return option_fail(
			error,
			"%s is neither an address nor a prefix: write 192.0.2.1, 192.0.2.0/24, 2001:db8::/32 or all",
			option_quote(item).text);
	if (item[length] == '/' && !read_prefix_length(item + length, bits, &prefix->length))
		return option_fail(error, "%s: a prefix has 0 to %u bits", option_quote(item).text, bits);
	prefix->length += v6 ? 0 : MAPPED_BITS;

	struct in6_addr written = prefix->address;
	prefix->address = acl_mask(&written, prefix->length);
	if (IN6_ARE_ADDR_EQUAL(&prefix->address, &written))
		return true;
	option_print_prefix(prefix, cleared);
	return option_fail(error, "%s has bits beyond its length: write %s", option_quote(item).text, cleared);
}

static bool append_prefix(struct option_prefixes *prefixes, const struct option_prefix *prefix, char *error)
{
	struct option_prefix *list = array_grow(prefixes->list, prefixes->count, sizeof *list);

	if (list == NULL)
		return option_fail(error, "out of memory");
	prefixes->list = list;
	list[prefixes->count++] = *prefix;
	return true;
}

static bool add_prefix(const char *item, void *field, char *error)
{
	struct option_prefix prefix = {.all = strcmp(item, "all") == 0};
	return (prefix.all || read_prefix(item, &prefix, error)) && append_prefix(field, &prefix, error);
}

static bool parse_prefixes(const struct option *option, const char *text, void *field, char *error)
{
	return option_parse_list(option, text, field, error, add_prefix);
}

static void print_prefixes(const struct option *option, const void *field, FILE *out)
{
	const struct option_prefixes *prefixes = field;
	char text[INET6_ADDRSTRLEN + 4];

	if (prefixes->count == 0)
		fputs(option->word, out);
	for (size_t i = 0; i < prefixes->count; i++) {
		option_print_prefix(&prefixes->list[i], text);
		fprintf(out, "%s%s", i ? ", " : "", text);
	}
}

static void free_prefixes(void *field)
{
	struct option_prefixes *prefixes = field;
	free(prefixes->list);
	*prefixes = (struct option_prefixes){0};
}

const struct option_type option_prefixes = {.parse = parse_prefixes, .print = print_prefixes, .free = free_prefixes};

/* --- files of prefixes --- */

static bool parse_prefix_file(const struct option *option, const char *text, void *field, char *error)
{
	struct option_prefix_file *file = field;
	return option_string.parse(option, text, &file->path, error);
}

/* Adds the prefix, if any, of a line without its comment. */
static bool add_prefix_line(struct option_prefix_file *file, char *line, unsigned number, char *error)
{
	char reason[OPTION_ERROR_SIZE];
	char *end = line;

	while ((end = strpbrk(end, "#;")) != NULL && end > line && !isblank((unsigned char)end[-1]))
		end++;
	if (end != NULL)
		*end = '\0';
	line[strcspn(line, "\r\n")] = '\0';
	line = option_trim(line);
	if (*line == '\0' || add_prefix(line, &file->prefixes, reason))
		return true;
	return option_fail(error, "%s:%u: %s", file->path, number, reason);
}

/* Reads all lines of IN and reports each that is invalid. */
static bool read_prefix_lines(struct option_prefix_file *file, FILE *in, option_report *report, void *context)
{
	char *line = NULL, error[OPTION_ERROR_SIZE];
	size_t capacity = 0;
	ssize_t length;
	bool valid = true;

	for (unsigned number = 1; (length = getline(&line, &capacity, in)) >= 0; number++) {
		if (memchr(line, '\0', (size_t)length) != NULL)
			option_fail(error, "%s:%u: a NUL byte", file->path, number);
		else if (add_prefix_line(file, line, number, error))
			continue;
		report(context, error);
		valid = false;
	}
	free(line);
	if (feof(in))
		return valid;
	option_fail(error, "%s: %s", file->path, strerror(errno));
	report(context, error);
	return false;
}

static bool load_prefix_file(const struct option *option, void *field, option_report *report, void *context)
{
	struct option_prefix_file *file = field;
	char error[OPTION_ERROR_SIZE];
	const char *reason;

	(void)option;
	if (file->path == NULL)
		return true;
	FILE *in = text_file_open(file->path, &reason);
	if (in == NULL) {
		option_fail(error, "%s: %s", file->path, reason);
		report(context, error);
		return false;
	}
	bool valid = read_prefix_lines(file, in, report, context);
	fclose(in);
	return valid;
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
