/* options.c: the command line of smallprobe as a value. */
#include "probe/options.h"
#include "core/array.h"

#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

const struct options_type options_types[TYPE_COUNT] = {
	[TYPE_ECHO] = {"echo", 7},  [TYPE_DISCARD] = {"discard", 9},  [TYPE_DAYTIME] = {"daytime", 13},
	[TYPE_QOTD] = {"qotd", 17}, [TYPE_CHARGEN] = {"chargen", 19}, [TYPE_TIME] = {"time", 37},
};

/* An option as a row of a table, which parsing, bounds, --help and the test of the completion walk. */
struct row {
	int letter;           /* 0: none */
	const char *name;     /* after `--`; NULL: none */
	const char *argument; /* its name in --help; NULL: none */
	/* Parses TEXT into the field of OPTIONS. Returns false with the reason in ERROR. */
	bool (*take)(const struct row *row, const char *text, struct options *options, char *error);
	size_t offset;    /* of the field */
	double min, max;  /* of a number; max 0: no bounds */
	double scale;     /* of a duration: units per second */
	int value;        /* the value of an option without argument */
	size_t given;     /* offset of a bool that records the presence of the option; 0: none (no bool is first) */
	const char *help; /* one line, or two */
};

static void *field_of(const struct row *row, struct options *options)
{
	return (char *)options + row->offset;
}

static bool take_flag(const struct row *row, const char *text, struct options *options, char *error)
{
	(void)text;
	(void)error;
	*(bool *)field_of(row, options) = true;
	return true;
}

static bool take_value(const struct row *row, const char *text, struct options *options, char *error)
{
	(void)text;
	(void)error;
	*(int *)field_of(row, options) = row->value;
	return true;
}

static bool take_action(const struct row *row, const char *text, struct options *options, char *error)
{
	(void)text;
	(void)error;
	options->action = (enum options_action)row->value;
	return true;
}

static bool take_text(const struct row *row, const char *text, struct options *options, char *error)
{
	if (*text == '\0') {
		snprintf(error, OPTIONS_ERROR_SIZE, "must not be empty");
		return false;
	}
	*(const char **)field_of(row, options) = text;
	return true;
}

/* Reads a decimal number without exponent, as `10` or `0.5`. */
static bool read_decimal(const char *text, double *number)
{
	char *end;

	if (*text == '\0' || text[strspn(text, "0123456789.")] != '\0')
		return false;
	errno = 0;
	*number = strtod(text, &end);
	return *end == '\0' && errno == 0 && isfinite(*number);
}

static bool within(const struct row *row, double number, const char *unit, char *error)
{
	if (number >= row->min && (row->max == 0 || number <= row->max))
		return true;
	if (row->max == 0)
		snprintf(error, OPTIONS_ERROR_SIZE, "must be at least %.10g%s", row->min, unit);
	else
		snprintf(error, OPTIONS_ERROR_SIZE, "must be %.10g to %.10g%s", row->min, row->max, unit);
	return false;
}

static bool read_whole(const struct row *row, const char *text, uint64_t *number, char *error)
{
	char *end;

	errno = 0;
	*number = strtoull(text, &end, 10);
	if (*text == '\0' || text[strspn(text, "0123456789")] != '\0' || errno != 0) {
		snprintf(error, OPTIONS_ERROR_SIZE, "must be a whole number");
		return false;
	}
	return within(row, (double)*number, "", error);
}

static bool take_unsigned(const struct row *row, const char *text, struct options *options, char *error)
{
	uint64_t number;

	if (!read_whole(row, text, &number, error))
		return false;
	*(unsigned *)field_of(row, options) = (unsigned)number;
	return true;
}

static bool take_count(const struct row *row, const char *text, struct options *options, char *error)
{
	return read_whole(row, text, field_of(row, options), error);
}

static bool take_decimal(const struct row *row, const char *text, struct options *options, char *error)
{
	double number;

	if (!read_decimal(text, &number)) {
		snprintf(error, OPTIONS_ERROR_SIZE, "must be a number, as 10 or 0.5");
		return false;
	}
	if (!within(row, number, "", error))
		return false;
	*(double *)field_of(row, options) = number;
	return true;
}

/* Reads a duration, in seconds if no unit is given, as ping does. */
static bool take_duration(const struct row *row, const char *text, struct options *options, char *error)
{
	static const struct {
		const char *unit;
		double seconds;
	} units[] = {{"", 1}, {"us", 1e-6}, {"ms", 1e-3}, {"s", 1}, {"m", 60}, {"h", 3600}};
	size_t length = strspn(text, "0123456789.");
	char digits[64];
	double number;

	snprintf(digits, sizeof digits, "%.*s", (int)(length < sizeof digits ? length : 0), text);
	for (size_t i = 0; i < COUNT_OF(units); i++) {
		if (strcmp(text + length, units[i].unit) != 0 || !read_decimal(digits, &number))
			continue;
		if (!within(row, number * units[i].seconds, " seconds", error))
			return false;
		*(int64_t *)field_of(row, options) = llround(number * units[i].seconds * row->scale);
		return true;
	}
	snprintf(error, OPTIONS_ERROR_SIZE, "must be a duration, as 2, 0.5, 500ms, 30s or 10m");
	return false;
}

/* Returns the DSCP of a class of RFC 2474 (csN), RFC 2597 (afXY), RFC 3246 (ef), RFC 5865 (va) or RFC 8622 (le). */
static int dscp_of(const char *text)
{
	unsigned major, minor;
	int length = 0;

	if (strcmp(text, "ef") == 0)
		return 46;
	if (strcmp(text, "va") == 0)
		return 44;
	if (strcmp(text, "le") == 0)
		return 1;
	if (strlen(text) == 3 && sscanf(text, "cs%1u%n", &major, &length) == 1 && length == 3 && major < 8)
		return (int)(major * 8);
	if (strlen(text) == 4 && sscanf(text, "af%1u%1u%n", &major, &minor, &length) == 2 && length == 4 &&
	    major >= 1 && major <= 4 && minor >= 1 && minor <= 3)
		return (int)(major * 8 + minor * 2);
	return OPTIONS_DSCP_UNSET;
}

static bool take_dscp(const struct row *row, const char *text, struct options *options, char *error)
{
	static const struct row bounds = {.min = 0, .max = 63};
	int64_t *field = field_of(row, options);
	uint64_t number;

	*field = dscp_of(text);
	if (*field == OPTIONS_DSCP_UNSET && read_whole(&bounds, text, &number, error))
		*field = (int64_t)number;
	if (*field != OPTIONS_DSCP_UNSET)
		return true;
	snprintf(error, OPTIONS_ERROR_SIZE, "must be 0 to 63 or a class, as ef, af21 or cs6");
	return false;
}

static bool take_proxy(const struct row *row, const char *text, struct options *options, char *error)
{
	bool first = strcmp(text, "v1") == 0;

	if (!first && strcmp(text, "v2") != 0) {
		snprintf(error, OPTIONS_ERROR_SIZE, "must be v1 or v2");
		return false;
	}
	*(unsigned *)field_of(row, options) = first ? 1 : 2;
	return true;
}

#define FIELD(name) .offset = offsetof(struct options, name)
#define GIVEN(name) .given = offsetof(struct options, name)

static const struct row rows[] = {
	{'u', "udp", NULL, take_flag, FIELD(udp), .help = "over UDP"},
	{'4', "ipv4", NULL, take_value, FIELD(family), .value = AF_INET, .help = "IPv4 alone"},
	{'6', "ipv6", NULL, take_value, FIELD(family), .value = AF_INET6, .help = "IPv6 alone"},
	{'p', "port", "PORT", take_text, FIELD(port), .help = "a number or a name of services(5)"},
	{'B', "bind", "ADDRESS[:PORT]", take_text, FIELD(bind), .help = "the near end"},
	{'I', "interface", "NAME", take_text, FIELD(interface), .help = "only through this network interface"},
	{'t', "ttl", "TTL", take_unsigned, FIELD(ttl), .min = 1, .max = 255, .help = "hops that packets may take"},
	{0, "dscp", "CLASS", take_dscp, FIELD(dscp), .help = "0 to 63, or ef, af21, cs6, ..."},

	{'c', "count", "COUNT", take_count, FIELD(count), .min = 1, GIVEN(count_given),
	 .help = "so many requests (default: echo without end, others 1)"},
	{'i', "interval", "SECONDS", take_duration, FIELD(interval_us), .min = 0.0001, .max = 86400, .scale = 1e6,
	 .help = "between requests (1)"},
	{'s', "size", "BYTES", take_unsigned, FIELD(size), .min = 0, .max = 16777216, GIVEN(size_given),
	 .help = "of a request; of the data read from chargen over TCP (56; chargen 740, over UDP 512)"},
	{'W', "timeout", "SECONDS", take_duration, FIELD(timeout_ms), .min = 0.001, .max = 86400, .scale = 1e3,
	 .help = "for a connection and for a reply (2)"},
	{'w', "deadline", "SECONDS", take_duration, FIELD(deadline_ms), .min = 0.001, .max = 31536000, .scale = 1e3,
	 .help = "in all"},
	{0, "wait", "SECONDS", take_duration, FIELD(wait_ms), .min = 0.001, .max = 31536000, .scale = 1e3,
	 .help = "until the service answers, before anything else; then -c is 1"},
	{0, "max-loss", "PERCENT", take_decimal, FIELD(max_loss), .min = 0, .max = 100,
	 .help = "lost replies up to this are no failure (0)"},

	{0, "tls", NULL, take_flag, FIELD(tls), .help = "over TLS"},
	{0, "cacert", "FILE", take_text, FIELD(cacert), .help = "PEM file of the authorities to trust (the system's)"},
	{0, "cert", "FILE", take_text, FIELD(cert), .help = "PEM file of our certificate"},
	{0, "key", "FILE", take_text, FIELD(key), .help = "PEM file of its key (the certificate's file)"},
	{0, "server-name", "NAME", take_text, FIELD(server_name), .help = "that the certificate must have (the host)"},
	{'k', "insecure", NULL, take_flag, FIELD(insecure), .help = "take any certificate"},
	{0, "proxy", "v1|v2", take_proxy, FIELD(proxy), .help = "begin with a PROXY header of our own addresses"},

	{0, "mtu", NULL, take_flag, FIELD(mtu), .help = "find the largest datagram that comes back unfragmented"},
	{0, "half-close", NULL, take_flag, FIELD(half_close), .help = "end our side before we read"},
	{0, "early", NULL, take_flag, FIELD(early), .help = "send data before reading a service that speaks first"},
	{0, "reconnect", NULL, take_flag, FIELD(reconnect), .help = "continue after a reset, and report the outage"},

	{0, "connections", "N", take_unsigned, FIELD(connections), .min = 1, .max = 1000000, GIVEN(load),
	 .help = "load: so many at once (1)"},
	{0, "depth", "K", take_unsigned, FIELD(depth), .min = 1, .max = 65536, GIVEN(load),
	 .help = "load: requests in flight on each (1)"},
	{0, "duration", "SECONDS", take_duration, FIELD(duration_ms), .min = 0.001, .max = 31536000, .scale = 1e3,
	 GIVEN(load), .help = "load: how long (10)"},
	{0, "rate", "N", take_decimal, FIELD(rate), .min = 0.001, .max = 1e9, GIVEN(load),
	 .help = "load: requests a second in all, counted from when each was due"},
	{0, "threads", "N", take_unsigned, FIELD(threads), .min = 1, .max = 256, GIVEN(load),
	 .help = "load: threads (1)"},
	{0, "batch", "N", take_unsigned, FIELD(batch), .min = 1, .max = 1024, GIVEN(load),
	 .help = "load: datagrams a system call (32)"},

	{'D', "timestamps", NULL, take_flag, FIELD(timestamps), .help = "each line begins with the time"},
	{'q', "quiet", NULL, take_flag, FIELD(quiet), .help = "the summary alone"},
	{0, "json", NULL, take_flag, FIELD(json), .help = "the summary alone, as one JSON object"},
	{'V', "version", NULL, take_action, .value = OPTIONS_VERSION, .help = "print the version"},
	{'h', "help", NULL, take_action, .value = OPTIONS_HELP, .help = "print this text"},
};

enum { FIRST_LONG = 256, ROW_COUNT = COUNT_OF(rows) };

static void print_forms(FILE *out, const struct row *row)
{
	char forms[64];

	snprintf(forms, sizeof forms, "%s%c%s--%s%s%s", row->letter ? "-" : " ", row->letter ? row->letter : ' ',
		 row->letter ? ", " : "  ", row->name, row->argument != NULL ? " " : "",
		 row->argument != NULL ? row->argument : "");
	fprintf(out, "  %-30s", forms);
}

void options_print_help(FILE *out)
{
	fputs("usage: smallprobe [OPTION...] TYPE HOST[:PORT]\n"
	      "Measures and checks a small network service, like ping. TYPE:",
	      out);
	for (size_t i = 0; i < TYPE_COUNT; i++)
		fprintf(out, " %s", options_types[i].name);
	fputs("\n\n", out);
	for (size_t i = 0; i < ROW_COUNT; i++) {
		print_forms(out, &rows[i]);
		fprintf(out, " %s\n", rows[i].help);
	}
	fputs("\nDurations are seconds, or as 500ms, 30s, 10m. An IPv6 address with a port is written [::1]:7.\n"
	      "Exit status: 0 all was answered right, 1 something was lost or wrong, 2 usage, 3 no connection.\n",
	      out);
}

/* The arguments of getopt_long, made from the rows: its values are FIRST_LONG plus the index of the row, or the letter.
 */
struct getopt_tables {
	char letters[2 * ROW_COUNT + 2];
	struct option names[ROW_COUNT + 1];
};

static void make_tables(struct getopt_tables *tables)
{
	char *letter = tables->letters;

	for (size_t i = 0; i < ROW_COUNT; i++) {
		tables->names[i] =
			(struct option){rows[i].name, rows[i].argument != NULL ? required_argument : no_argument, NULL,
					FIRST_LONG + (int)i};
		if (!rows[i].letter)
			continue;
		*letter++ = (char)rows[i].letter;
		if (rows[i].argument != NULL)
			*letter++ = ':';
	}
	*letter = '\0';
	tables->names[ROW_COUNT] = (struct option){0};
}

static const struct row *row_of(int value)
{
	if (value >= FIRST_LONG)
		return &rows[value - FIRST_LONG];
	for (size_t i = 0; i < ROW_COUNT; i++)
		if (rows[i].letter == value)
			return &rows[i];
	return NULL;
}

static struct options refuse(struct options options)
{
	fputs("Try 'smallprobe --help'.\n", stderr);
	options.action = OPTIONS_REFUSE;
	return options;
}

/* Returns the reason why options contradict each other, or NULL. */
static const char *find_contradiction(const struct options *options)
{
	const struct options *o = options;
	bool speaks_first = o->type == TYPE_DAYTIME || o->type == TYPE_QOTD || o->type == TYPE_TIME;
	bool special = o->mtu || o->half_close || o->early || o->reconnect;
	const struct {
		bool is;
		const char *text;
	} contradictions[] = {
		{o->udp && o->tls, "--tls needs TCP"},
		{o->udp && o->proxy, "--proxy needs TCP"},
		{(o->cacert != NULL || o->cert != NULL || o->key != NULL || o->server_name != NULL || o->insecure) &&
			 !o->tls,
		 "--cacert, --cert, --key, --server-name and -k need --tls"},
		{o->key != NULL && o->cert == NULL, "--key needs --cert"},
		{o->mtu && o->type != TYPE_ECHO, "--mtu needs echo"},
		{o->mtu && (o->tls || o->proxy), "--mtu goes over UDP"},
		{o->half_close + o->mtu + o->early + o->reconnect > 1,
		 "--mtu, --half-close, --early and --reconnect exclude each other"},
		{o->half_close && o->udp, "--half-close needs TCP"},
		{o->half_close && o->type != TYPE_ECHO && !speaks_first,
		 "--half-close needs echo, daytime, qotd or time"},
		{o->early && (o->udp || !speaks_first), "--early needs daytime, qotd or time over TCP"},
		{o->reconnect && (o->udp || o->type != TYPE_ECHO), "--reconnect needs echo over TCP"},
		{o->load && special, "a load has neither --mtu nor --half-close, --early, --reconnect"},
		{o->size_given && o->size == 0 && !o->udp, "-s 0 needs -u"},
		{o->size_given && o->udp && o->size > 65527, "a datagram has 65527 bytes at most"},
	};

	for (size_t i = 0; i < COUNT_OF(contradictions); i++)
		if (contradictions[i].is)
			return contradictions[i].text;
	return NULL;
}

static bool take_type(const char *name, struct options *options)
{
	for (size_t i = 0; i < TYPE_COUNT; i++)
		if (strcmp(options_types[i].name, name) == 0) {
			options->type = (enum probe_type)i;
			return true;
		}
	fprintf(stderr, "smallprobe: there is no type '%s'\n", name);
	return false;
}

/* Parses the two positional arguments, and completes the options. */
static struct options take_rest(struct options options, int count, char **arguments)
{
	if (count != 2) {
		fprintf(stderr,
			count < 2 ? "smallprobe: a TYPE and a HOST[:PORT] are needed\n"
				  : "smallprobe: unexpected argument '%s'\n",
			count < 2 ? "" : arguments[2]);
		return refuse(options);
	}
	if (!take_type(arguments[0], &options))
		return refuse(options);
	options.target = arguments[1];
	options.udp |= options.mtu;

	const char *contradiction = find_contradiction(&options);

	if (contradiction != NULL) {
		fprintf(stderr, "smallprobe: %s\n", contradiction);
		return refuse(options);
	}
	if (!options.count_given)
		options.count = options.type == TYPE_ECHO && !options.half_close && !options.wait_ms ? 0 : 1;
	if (!options.size_given && options.type == TYPE_CHARGEN)
		options.size = options.udp ? 512 : 740;
	return options;
}

struct options options_parse(int argc, char **argv)
{
	struct options options = {
		.family = AF_UNSPEC,
		.dscp = OPTIONS_DSCP_UNSET,
		.interval_us = 1000000,
		.size = 56,
		.timeout_ms = 2000,
		.connections = 1,
		.depth = 1,
		.threads = 1,
		.batch = 32,
		.duration_ms = 10000,
	};
	struct getopt_tables tables;
	char error[OPTIONS_ERROR_SIZE];
	int value;

	make_tables(&tables);
	while ((value = getopt_long(argc, argv, tables.letters, tables.names, NULL)) != -1) {
		const struct row *row = row_of(value);

		if (row == NULL)
			return refuse(options);
		if (!row->take(row, optarg, &options, error)) {
			fprintf(stderr, "smallprobe: --%s %s: %s\n", row->name, optarg, error);
			return refuse(options);
		}
		if (row->given)
			*((bool *)((char *)&options + row->given)) = true;
	}
	if (options.action != OPTIONS_PROBE)
		return options;
	return take_rest(options, argc - optind, argv + optind);
}

const char *options_transport(const struct options *options)
{
	return options->udp ? "udp" : options->tls ? "tls" : "tcp";
}
