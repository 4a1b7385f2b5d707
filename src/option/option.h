/* option.h: an option as a row: parse, check, print, free. */
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

/* Takes one message. */
typedef void option_tell(void *context, const char *message);

/* How one kind of value is read, printed and freed. */
struct option_type {
	/* Reads TEXT (trimmed, not empty) into FIELD, which is zeroed. False: the reason, without key and place, is
	 * in ERROR (OPTION_ERROR_SIZE bytes) and FIELD owns nothing. */
	bool (*parse)(const struct option *option, const char *text, void *field, char *error);
	/* Reads the file that FIELD names, once its service is known to be enabled; NULL: it names none. A zeroed FIELD is
	 * fine. False: TELL was told, with CONTEXT, each thing that is wrong with the file. */
	bool (*load)(const struct option *option, void *field, option_tell *tell, void *context);
	/* Writes FIELD so that parse reads it back to the same. */
	void (*print)(const struct option *option, const void *field, FILE *out);
	/* Frees what FIELD owns; NULL: nothing. A zeroed FIELD is fine. */
	void (*free)(void *field);
};

/* One option. MIN and MAX bound numbers in their own unit (ms, bytes); WORD is the one word that a number or a
 * string takes beside its values (auto, off, none, unlimited), and WORD_VALUE what it means for a number. */
struct option {
	const char *key;
	const struct option_type *type;
	size_t offset;       /* of the field in the struct that the rows describe */
	const char *initial; /* the default as a user would write it; NULL: none, the field stays zeroed */
	const char
		*initial_amplifying; /* the default where a UDP reply can be longer than its request; NULL: initial */
	int64_t min, max;            /* option_string: max bytes, 0: OPTION_STRING_MAX */
	int64_t step;                /* numbers are a multiple of it; 0: any */
	const char *word;
	int64_t word_value;
	const char *const *words; /* option_choice: NULL-terminated, the index is the value */
	unsigned transports;      /* that have this option; 0: all */
	const char *needs;        /* the key of the option_boolean without which it means nothing; NULL: none */
	bool restart;             /* a reload cannot change it */
	const char *help;         /* one line */
};

/* Fields: bool, int64_t, int64_t in ms, int64_t in bytes, int (index into words), char *. */
extern const struct option_type option_boolean;
extern const struct option_type option_integer;
extern const struct option_type option_duration;
extern const struct option_type option_size;
extern const struct option_type option_choice;
/* A text, in double quotes where it holds a comment sign or a comma; WORD reads as NULL. */
extern const struct option_type option_string;
/* unsigned: TRANSPORT_* bits, from `tcp, udp`. */
extern const struct option_type option_transports;
/* int64_t: 0 to 63, a class by name (ef, af21, cs6, ...), DSCP_COPY or DSCP_NONE. */
extern const struct option_type option_dscp;
enum { DSCP_NONE = -1, DSCP_COPY = 64 };

/* An IPv4 or IPv6 address; AF_UNSPEC is `*`. ZONE is the interface after `%`, resolved only when it is used. */
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
/* Multicast groups; WORD reads as the empty list. */
extern const struct option_type option_groups;

struct option_port_range {
	uint16_t first, last;
};

struct option_ports {
	struct option_port_range *list;
	size_t count;
};

/* Ports, ranges and names of services(5), in the order written. */
extern const struct option_type option_ports;

/* The same as a set, from 0 on; WORD reads as the empty one. */
extern const struct option_type option_port_set;

/* So many in so long, as 50/s or 600/m. COUNT 0: unlimited, the WORD. */
struct option_rate {
	int64_t count, unit_ms;
};
extern const struct option_type option_rate;

/* How many bits of an address are one source, as `/32, /64`. */
struct option_source_prefix {
	unsigned v4, v6;
};
extern const struct option_type option_source_prefix;

/* The first LENGTH bits of ADDRESS, IPv4 mapped into ::ffff:0:0/96. The rest of ADDRESS is zero. */
struct option_prefix {
	struct in6_addr address;
	unsigned length;
	bool all; /* of both families, where ::/0 is of IPv6 alone */
};

struct option_prefixes {
	struct option_prefix *list;
	size_t count;
};

/* Addresses, prefixes in CIDR notation, `all`; WORD reads as the empty list. */
extern const struct option_type option_prefixes;

/* A file of them, one a line; loaded by load. WORD reads as NULL. */
struct option_prefix_file {
	char *path;
	struct option_prefixes prefixes;
};
extern const struct option_type option_prefix_file;

/* Writes PREFIX as 10.0.0.0/8 or 2001:db8::/32 to TEXT (INET6_ADDRSTRLEN + 4 bytes). */
void option_print_prefix(const struct option_prefix *prefix, char *text);

/* The row of KEY among COUNT, or NULL. */
const struct option *option_find(const struct option *options, size_t count, const char *key);

/* The word of COUNT nearest to TEXT in spelling, or NULL when none is near. */
const char *option_nearest(const char *text, const char *const *words, size_t count);

/* TEXT for a message: in double quotes, control bytes escaped, shortened to OPTION_QUOTED_MAX bytes. */
enum { OPTION_QUOTED_MAX = 60 };
struct option_quoted {
	char text[4 * OPTION_QUOTED_MAX + sizeof("\"...\"")];
};
struct option_quoted option_quote(const char *text);

/* Where OPTION lies in the struct at BASE. */
void *option_field(const struct option *option, void *base);
const void *option_field_const(const struct option *option, const void *base);

/* Writes ADDRESS as text, without port and brackets, to TEXT (INET6_ADDRSTRLEN + IF_NAMESIZE bytes). */
void option_print_address(const struct option_address *address, char *text);

#endif
