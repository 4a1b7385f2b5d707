/* option.h: options as rows of a table: parse, check, print, free. */
#ifndef SMALLSERVD_OPTION_OPTION_H
#define SMALLSERVD_OPTION_OPTION_H

#include <net/if.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

enum { OPTION_ERROR_SIZE = 512 };

/* Bounds that keep every value, as printed, within one line of a configuration file. */
enum { OPTION_STRING_MAX = 4000, OPTION_ADDRESSES_MAX = 64, OPTION_PORTS_MAX = 256 };

struct option;

/* Receives one error message. */
typedef void option_report(void *context, const char *message);

/* The operations on a kind of value. */
struct option_type {
	/* Parses TEXT (trimmed, not empty) into FIELD, which is zeroed. On failure returns false with the reason,
	 * without key and line, in ERROR (OPTION_ERROR_SIZE bytes); FIELD then owns no memory. */
	bool (*parse)(const struct option *option, const char *text, void *field, char *error);
	/* Reads the file that FIELD names, if any; the loader calls it for enabled services only. Calls REPORT with
	 * CONTEXT for each error and then returns false. NULL for kinds without a file. */
	bool (*load)(const struct option *option, void *field, option_report *report, void *context);
	/* Writes FIELD to OUT so that parse reads back the same value. */
	void (*print)(const struct option *option, const void *field, FILE *out);
	/* Frees the memory of FIELD, which may be zeroed. NULL for kinds that own none. */
	void (*free)(void *field);
};

/* One option. MIN and MAX bound numbers in the unit of the field (ms, bytes). WORD is a special value (auto, off, none,
 * unlimited) and WORD_VALUE the number it stands for. */
struct option {
	const char *key;
	const struct option_type *type;
	size_t offset;       /* of the field in the struct of the rows */
	const char *initial; /* the default, as in a file; NULL: the field stays zeroed */
	/* the default of a service whose UDP reply can be longer than the request; NULL: initial */
	const char *initial_amplifying;
	int64_t min, max; /* option_string: MAX is in bytes, 0: OPTION_STRING_MAX */
	int64_t step;     /* a number has to be a multiple of it; 0: any number */
	const char *word;
	int64_t word_value;
	const char *const *words; /* option_choice: NULL-terminated, the index is the value */
	unsigned transports;      /* TRANSPORT_* bits of those with this option; 0: all */
	const char *needs;        /* key of the option_boolean that has to be on; NULL: none */
	bool restart;             /* a change takes effect at a restart only */
	const char *help;         /* one line */
};

/* Fields: bool, int64_t, int64_t in ms, int64_t in bytes, int (index into words), char *. */
extern const struct option_type option_boolean;
extern const struct option_type option_integer;
extern const struct option_type option_duration;
extern const struct option_type option_size;
extern const struct option_type option_choice;
/* char *, in double quotes if it contains a comment sign or a comma; WORD parses to NULL. */
extern const struct option_type option_string;
/* unsigned, TRANSPORT_* bits: `tcp, udp`. */
extern const struct option_type option_transports;
/* int64_t: 0 to 63, also by class (ef, af21, cs6, ...), DSCP_COPY or DSCP_NONE. */
extern const struct option_type option_dscp;
enum { DSCP_NONE = -1, DSCP_COPY = 64 };

/* An IPv4 or IPv6 address; AF_UNSPEC is `*`. ZONE is the name of the interface after `%`, not resolved. */
struct option_address {
	int family;
	union {
		struct in_addr v4;
		struct in6_addr v6;
	} ip;
	char zone[IF_NAMESIZE];
};

struct option_addresses {
	struct option_address *list;
	size_t count;
};

/* Addresses to listen on: literal unicast addresses, `0.0.0.0`, `::`, `*`. */
extern const struct option_type option_addresses;
/* Multicast groups; WORD parses to the empty list. */
extern const struct option_type option_groups;

struct option_port_range {
	uint16_t first, last;
};

struct option_ports {
	struct option_port_range *list;
	size_t count;
};

/* Ports, ranges and names of services(5), in the order of the text. Port 0 cannot be part of a range. */
extern const struct option_type option_ports;

/* The same as a set of ports: a range may start at 0. WORD parses to the empty set. */
extern const struct option_type option_port_set;

/* struct token_rate: COUNT per unit of time, as 50/s or 600/m. WORD, for unlimited, parses to a COUNT of 0. */
extern const struct option_type option_rate;

/* The prefix lengths that make one source of addresses: `/32, /64`. */
struct option_source_prefix {
	unsigned v4, v6;
};
extern const struct option_type option_source_prefix;

/* The first LENGTH bits of ADDRESS, IPv4 mapped into ::ffff:0:0/96. The rest of ADDRESS is zero. */
struct option_prefix {
	struct in6_addr address;
	unsigned length;
	bool all; /* every address of both families; ::/0 is IPv6 only */
};

struct option_prefixes {
	struct option_prefix *list;
	size_t count;
};

/* Addresses, prefixes in CIDR notation, `all`; WORD parses to the empty list. */
extern const struct option_type option_prefixes;

/* A file of prefixes, one per line. PREFIXES stays empty until load. WORD parses to a PATH of NULL. */
struct option_prefix_file {
	char *path;
	struct option_prefixes prefixes;
};
extern const struct option_type option_prefix_file;

/* Writes PREFIX as 10.0.0.0/8, 2001:db8::/32 or `all` to TEXT (INET6_ADDRSTRLEN + 4 bytes). */
void option_print_prefix(const struct option_prefix *prefix, char *text);

/* Returns the row of KEY among COUNT, or NULL. */
const struct option *option_find(const struct option *options, size_t count, const char *key);

/* Returns the word, of COUNT, that is nearest to TEXT in spelling, or NULL if none is near. */
const char *option_nearest(const char *text, const char *const *words, size_t count);

enum { OPTION_QUOTED_MAX = 60 };
struct option_quoted {
	char text[4 * OPTION_QUOTED_MAX + sizeof("\"...\"")];
};
/* Returns TEXT for a message: in double quotes, control bytes escaped, shortened to OPTION_QUOTED_MAX bytes. */
struct option_quoted option_quote(const char *text);

/* Return the field of OPTION in the struct at BASE. */
void *option_field(const struct option *option, void *base);
const void *option_field_const(const struct option *option, const void *base);

/* Writes ADDRESS without brackets to TEXT (INET6_ADDRSTRLEN + IF_NAMESIZE bytes). */
void option_print_address(const struct option_address *address, char *text);

/* Returns an integer below, equal to or above 0, as memcmp: by family, address and zone. */
int option_compare_addresses(const struct option_address *a, const struct option_address *b);

#endif
