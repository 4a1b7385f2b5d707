/* keys.c: the options of [daemon] and of every service, as rows. */
#include "config_build.h"

#include "config/keys.h"

#include <stdio.h>
#include <string.h>
#include <syslog.h>

#include "core/array.h"
#include "core/transport.h"
#include "tls/tls.h"

#define SECONDS INT64_C(1000)
#define DAYS    (24 * 60 * 60 * SECONDS)
#define KIB     INT64_C(1024)
#define GIB     (KIB * KIB * KIB)

enum { TYPES_MAX = 64 }; /* for suggestions */

/* --- the option type of `type` --- */

void config_options_suggest_type(const char *text, char *error)
{
	const char *names[TYPES_MAX] = {NULL};
	size_t length = strlen(error), count = 0;

	while (count < service_count && count < TYPES_MAX) {
		names[count] = service_table[count]->name;
		count++;
	}
	const char *nearest = option_nearest(text, names, count);
	if (nearest != NULL) {
		snprintf(error + length, OPTION_ERROR_SIZE - length, "; did you mean \"%s\"?", nearest);
		return;
	}
	for (size_t i = 0; i < service_count && length < OPTION_ERROR_SIZE; i++)
		length += (size_t)snprintf(error + length, OPTION_ERROR_SIZE - length, "%s%s",
					   i ? ", " : "; types: ", service_table[i]->name);
}

static bool parse_type(const struct option *option, const char *text, void *field, char *error)
{
	const struct service *type = service_find(text);

	(void)option;
	if (type == NULL) {
		snprintf(error, OPTION_ERROR_SIZE, "%s is no type", option_quote(text).text);
		config_options_suggest_type(text, error);
		return false;
	}
	*(const struct service **)field = type;
	return true;
}

static void print_type(const struct option *option, const void *field, FILE *out)
{
	(void)option;
	fputs((*(const struct service *const *)field)->name, out);
}

static const struct option_type type_option = {.parse = parse_type, .print = print_type};

/* The option type of `max_connections_per_source`: a number, `unlimited`, or `auto` */

static bool parse_source_limit(const struct option *option, const char *text, void *field, char *error)
{
	if (strcmp(text, "auto") == 0 || option_integer.parse(option, text, field, error))
		return true;
	size_t length = strlen(error);
	snprintf(error + length, OPTION_ERROR_SIZE - length, "; auto is half of the daemon's");
	return false;
}

static void print_source_limit(const struct option *option, const void *field, FILE *out)
{
	if (*(const int64_t *)field == 0)
		fputs("auto", out);
	else
		option_integer.print(option, field, out);
}

static const struct option_type source_limit_option = {.parse = parse_source_limit, .print = print_source_limit};

static const char *const log_targets[] = {
	[LOG_TARGET_AUTO] = "auto",
	[LOG_TARGET_STDERR] = "stderr",
	[LOG_TARGET_SYSLOG] = "syslog",
	[LOG_TARGET_JOURNAL] = "journal",
	NULL,
};

static const char *const sandbox_words[] = {
	[SANDBOX_AUTO] = "auto",
	[SANDBOX_ON] = "on",
	[SANDBOX_OFF] = "off",
	NULL,
};

static const char *const tls_min_versions[] = {"1.2", "1.3", NULL};

static const char *const tls_max_versions[] = {
	[TLS_VERSION_ANY] = "none",
	[TLS_1_2] = "1.2",
	[TLS_1_3] = "1.3",
	NULL,
};

static const char *const tls_client_auths[] = {
	[TLS_CLIENT_NONE] = "none",
	[TLS_CLIENT_OPTIONAL] = "optional",
	[TLS_CLIENT_REQUIRED] = "required",
	NULL,
};

static const char *const log_levels[] = {"error", "warning", "notice", "info", "debug", NULL};

static const char *const facility_words[] = {
	"auth", "authpriv", "cron",   "daemon", "ftp",    "lpr",    "mail",   "news",   "syslog", "user",
	"uucp", "local0",   "local1", "local2", "local3", "local4", "local5", "local6", "local7", NULL,
};
static const int facilities[] = {
	LOG_AUTH,   LOG_AUTHPRIV, LOG_CRON,   LOG_DAEMON, LOG_FTP,    LOG_LPR,    LOG_MAIL,
	LOG_NEWS,   LOG_SYSLOG,   LOG_USER,   LOG_UUCP,   LOG_LOCAL0, LOG_LOCAL1, LOG_LOCAL2,
	LOG_LOCAL3, LOG_LOCAL4,   LOG_LOCAL5, LOG_LOCAL6, LOG_LOCAL7,
};
_Static_assert(COUNT_OF(facility_words) == COUNT_OF(facilities) + 1, "a word for each facility");

const struct option config_daemon_options[] = {
	{
		.key = "workers",
		.type = &option_integer,
		.offset = offsetof(struct config_daemon, workers),
		.initial = "auto",
		.min = 1,
		.max = 256,
		.word = "auto",
		.restart = true,
		.help = "worker threads; auto: the processors this process may use, at most 8",
	},
	{
		.key = "user",
		.type = &option_string,
		.offset = offsetof(struct config_daemon, user),
		.initial = SMALLSERVD_USER,
		.max = 255,
		.restart = true,
		.help = "whom to become after binding, when started as root",
	},
	{
		.key = "group",
		.type = &option_string,
		.offset = offsetof(struct config_daemon, group),
		.initial = "auto",
		.max = 255,
		.word = "auto",
		.restart = true,
		.help = "the group to become; auto: the user's own",
	},
	{
		.key = "pid_file",
		.type = &option_string,
		.offset = offsetof(struct config_daemon, pid_file),
		.initial = "none",
		.word = "none",
		.restart = true,
		.help = "written once ready, removed at the stop",
	},
	{
		.key = "log_target",
		.type = &option_choice,
		.offset = offsetof(struct config_daemon, log_target),
		.initial = "auto",
		.words = log_targets,
		.help = "auto: the journal when stderr is connected to it, else stderr",
	},
	{
		.key = "log_level",
		.type = &option_choice,
		.offset = offsetof(struct config_daemon, log_level),
		.initial = "notice",
		.words = log_levels,
		.help = "the least important lines that are logged",
	},
	{
		.key = "syslog_facility",
		.type = &option_choice,
		.offset = offsetof(struct config_daemon, syslog_facility),
		.initial = "daemon",
		.words = facility_words,
		.help = "as in syslog(3)",
	},
	{
		.key = "max_connections",
		.type = &option_integer,
		.offset = offsetof(struct config_daemon, max_connections),
		.initial = "auto",
		.min = 1,
		.max = INT32_MAX,
		.word = "auto",
		.help = "open TCP connections over all services; auto: what the descriptors allow",
	},
	{
		.key = "stop_timeout",
		.type = &option_duration,
		.offset = offsetof(struct config_daemon, stop_timeout_ms),
		.initial = "5s",
		.max = 365 * DAYS,
		.help = "how long a stop waits for open connections",
	},
	{
		.key = "sandbox",
		.type = &option_choice,
		.offset = offsetof(struct config_daemon, sandbox),
		.initial = "auto",
		.words = sandbox_words,
		.restart = true,
		.help = "a filter of system calls; auto: where the kernel has it; on: refuse to start without",
	},
	{
		.key = "drain_timeout",
		.type = &option_duration,
		.offset = offsetof(struct config_daemon, drain_timeout_ms),
		.initial = "30s",
		.max = 365 * DAYS,
		.help = "how long a removed service waits for its connections",
	},
	{
		.key = "include",
		.type = &option_string,
		.offset = offsetof(struct config_daemon, include),
		.initial = "none",
		.word = "none",
		.help = "more files with services, as a glob relative to this file",
	},
};
const size_t config_daemon_option_count = COUNT_OF(config_daemon_options);

const struct option config_service_options[] = {
	{
		.key = "type",
		.type = &type_option,
		.offset = offsetof(struct config_service, type),
		.help = "the service type; default: the section's name",
	},
	{
		.key = "enabled",
		.type = &option_boolean,
		.offset = offsetof(struct config_service, enabled),
		.initial = "yes",
		.help = "no: keep the section, open nothing",
	},
	{
		.key = "protocol",
		.type = &option_transports,
		.offset = offsetof(struct config_service, transports),
		.help = "tcp, udp; default: those that the type has",
	},
	{
		.key = "address",
		.type = &option_addresses,
		.offset = offsetof(struct config_service, addresses),
		.initial = "*",
		.help = "literal addresses; *: every one, IPv4 and IPv6",
	},
	{
		.key = "port",
		.type = &option_ports,
		.offset = offsetof(struct config_service, ports),
		.help = "ports, ranges and names; 0: the kernel picks; default: the type's",
	},
	{
		.key = "interface",
		.type = &option_string,
		.offset = offsetof(struct config_service, interface),
		.initial = "none",
		.max = IF_NAMESIZE - 1,
		.word = "none",
		.help = "only through this network interface",
	},
	{
		.key = "free_bind",
		.type = &option_boolean,
		.offset = offsetof(struct config_service, free_bind),
		.initial = "no",
		.help = "bind an address that is not up yet",
	},
	{
		.key = "socket_name",
		.type = &option_string,
		.offset = offsetof(struct config_service, socket_name),
		.initial = "none",
		.max = 255,
		.word = "none",
		.help = "take only descriptors of this name from the service manager",
	},
	{
		.key = "backlog",
		.type = &option_integer,
		.offset = offsetof(struct config_service, backlog),
		.initial = "4096",
		.min = 1,
		.max = 65535,
		.transports = TRANSPORT_TCP,
		.help = "listen backlog",
	},
	{
		.key = "max_connections",
		.type = &option_integer,
		.offset = offsetof(struct config_service, max_connections),
		.initial = "unlimited",
		.min = 1,
		.max = INT32_MAX,
		.word = "unlimited",
		.word_value = INT64_MAX,
		.transports = TRANSPORT_TCP,
		.help = "open connections of this service",
	},
	{
		.key = "max_connections_per_source",
		.type = &source_limit_option,
		.offset = offsetof(struct config_service, max_connections_per_source),
		.initial = "auto",
		.min = 1,
		.max = INT32_MAX,
		.word = "unlimited",
		.word_value = INT64_MAX,
		.transports = TRANSPORT_TCP,
		.help = "open connections of one source; auto: half of the daemon's",
	},
	{
		.key = "connection_rate",
		.type = &option_rate,
		.offset = offsetof(struct config_service, connection_rate),
		.initial = "unlimited",
		.word = "unlimited",
		.transports = TRANSPORT_TCP,
		.help = "new connections of one source, as 50/s or 600/m",
	},
	{
		.key = "datagram_rate",
		.type = &option_rate,
		.offset = offsetof(struct config_service, datagram_rate),
		.initial = "unlimited",
		.initial_amplifying = "100/s",
		.word = "unlimited",
		.transports = TRANSPORT_UDP,
		.help = "replies to one source, as 50/s or 600/m",
	},
	{
		.key = "source_prefix",
		.type = &option_source_prefix,
		.offset = offsetof(struct config_service, source_prefix),
		.initial = "/32, /64",
		.help = "what counts as one source: IPv4, IPv6",
	},
	{
		.key = "allow",
		.type = &option_prefixes,
		.offset = offsetof(struct config_service, allow),
		.initial = "none",
		.word = "none",
		.help = "addresses, prefixes, all; the most specific match decides, and who matches nothing is denied",
	},
	{
		.key = "deny",
		.type = &option_prefixes,
		.offset = offsetof(struct config_service, deny),
		.initial = "none",
		.word = "none",
		.help = "addresses, prefixes, all",
	},
	{
		.key = "allow_file",
		.type = &option_prefix_file,
		.offset = offsetof(struct config_service, allow_file),
		.initial = "none",
		.word = "none",
		.help = "the same from a file, one a line",
	},
	{
		.key = "deny_file",
		.type = &option_prefix_file,
		.offset = offsetof(struct config_service, deny_file),
		.initial = "none",
		.word = "none",
		.help = "the same from a file, one a line",
	},
	{
		.key = "refuse_source_ports",
		.type = &option_port_set,
		.offset = offsetof(struct config_service, refuse_source_ports),
		.initial = "0-1023, 2049",
		.word = "none",
		.transports = TRANSPORT_UDP,
		.help = "drop datagrams from these ports, and from every UDP port that is served; none: from neither",
	},
	{
		.key = "idle_timeout",
		.type = &option_duration,
		.offset = offsetof(struct config_service, idle_timeout_ms),
		.initial = "10m",
		.min = 100,
		.max = 365 * DAYS,
		.word = "off",
		.transports = TRANSPORT_TCP,
		.help = "close a connection that moved no byte for so long",
	},
	{
		.key = "lifetime",
		.type = &option_duration,
		.offset = offsetof(struct config_service, lifetime_ms),
		.initial = "off",
		.min = 100,
		.max = 365 * DAYS,
		.word = "off",
		.transports = TRANSPORT_TCP,
		.help = "close a connection of this age",
	},
	{
		.key = "max_datagram",
		.type = &option_integer,
		.offset = offsetof(struct config_service, max_datagram),
		.initial = "65527",
		.max = 65527,
		.transports = TRANSPORT_UDP,
		.help = "bytes; longer datagrams are dropped",
	},
	{
		.key = "multicast_groups",
		.type = &option_groups,
		.offset = offsetof(struct config_service, multicast_groups),
		.initial = "none",
		.word = "none",
		.transports = TRANSPORT_UDP,
		.help = "join these groups, as 239.1.2.3, ff15::7%eth0",
	},
	{
		.key = "dscp",
		.type = &option_dscp,
		.offset = offsetof(struct config_service, dscp),
		.initial = "none",
		.help = "on what is sent: 0 to 63, a class, copy",
	},
	{
		.key = "receive_buffer",
		.type = &option_size,
		.offset = offsetof(struct config_service, receive_buffer),
		.initial = "auto",
		.min = 4 * KIB,
		.max = GIB,
		.word = "auto",
		.help = "SO_RCVBUF; auto: 1M for UDP, else the kernel's",
	},
	{
		.key = "send_buffer",
		.type = &option_size,
		.offset = offsetof(struct config_service, send_buffer),
		.initial = "auto",
		.min = 4 * KIB,
		.max = GIB,
		.word = "auto",
		.help = "SO_SNDBUF; auto: the kernel's",
	},
	{
		.key = "keepalive",
		.type = &option_duration,
		.offset = offsetof(struct config_service, keepalive_ms),
		.initial = "off",
		.min = SECONDS,
		.max = 32767 * SECONDS,
		.step = SECONDS,
		.word = "off",
		.transports = TRANSPORT_TCP,
		.help = "probe a silent connection after so long",
	},
	{
		.key = "handshake_timeout",
		.type = &option_duration,
		.offset = offsetof(struct config_service, handshake_timeout_ms),
		.initial = "10s",
		.min = 100,
		.max = 365 * DAYS,
		.transports = TRANSPORT_TCP,
		.help = "PROXY header and TLS handshake together, an absolute deadline",
	},
	{
		.key = "proxy_protocol",
		.type = &option_boolean,
		.offset = offsetof(struct config_service, proxy_protocol),
		.initial = "off",
		.transports = TRANSPORT_TCP,
		.help = "on: each connection starts with a PROXY protocol header",
	},
	{
		.key = "proxy_from",
		.type = &option_prefixes,
		.offset = offsetof(struct config_service, proxy_from),
		.initial = "none",
		.word = "none",
		.transports = TRANSPORT_TCP,
		.needs = "proxy_protocol",
		.help = "the proxies: addresses, prefixes, all; required with proxy_protocol",
	},
	{
		.key = "tls",
		.type = &option_boolean,
		.offset = offsetof(struct config_service, tls),
		.initial = "no",
		.transports = TRANSPORT_TCP,
		.help = "TLS on every connection; protocol = tcp must be written with it",
	},
	{
		.key = "tls_certificate",
		.type = &option_string,
		.offset = offsetof(struct config_service, tls_certificate),
		.initial = "none",
		.word = "none",
		.transports = TRANSPORT_TCP,
		.needs = "tls",
		.help = "PEM file, chain included; required with tls",
	},
	{
		.key = "tls_key",
		.type = &option_string,
		.offset = offsetof(struct config_service, tls_key),
		.initial = "none",
		.word = "none",
		.transports = TRANSPORT_TCP,
		.needs = "tls",
		.help = "PEM file; none: the key is in tls_certificate's",
	},
	{
		.key = "tls_min_version",
		.type = &option_choice,
		.offset = offsetof(struct config_service, tls_min_version),
		.initial = "1.2",
		.words = tls_min_versions,
		.transports = TRANSPORT_TCP,
		.needs = "tls",
		.help = "1.2 or 1.3",
	},
	{
		.key = "tls_max_version",
		.type = &option_choice,
		.offset = offsetof(struct config_service, tls_max_version),
		.initial = "none",
		.words = tls_max_versions,
		.transports = TRANSPORT_TCP,
		.needs = "tls",
		.help = "1.2 or 1.3; none: the newest",
	},
	{
		.key = "tls_client_ca",
		.type = &option_string,
		.offset = offsetof(struct config_service, tls_client_ca),
		.initial = "none",
		.word = "none",
		.transports = TRANSPORT_TCP,
		.needs = "tls",
		.help = "PEM file of the authorities for client certificates",
	},
	{
		.key = "tls_client_auth",
		.type = &option_choice,
		.offset = offsetof(struct config_service, tls_client_auth),
		.initial = "none",
		.words = tls_client_auths,
		.transports = TRANSPORT_TCP,
		.needs = "tls",
		.help = "none, optional or required: a client certificate",
	},
	{
		.key = "tls_crl",
		.type = &option_string,
		.offset = offsetof(struct config_service, tls_crl),
		.initial = "none",
		.word = "none",
		.transports = TRANSPORT_TCP,
		.needs = "tls",
		.help = "PEM file of revocation lists for client certificates",
	},
	{
		.key = "log_connections",
		.type = &option_boolean,
		.offset = offsetof(struct config_service, log_connections),
		.initial = "no",
		.help = "one line a connection, at its end",
	},
};
const size_t config_service_option_count = COUNT_OF(config_service_options);

int config_options_facility(const struct config_daemon *daemon)
{
	return facilities[daemon->syslog_facility];
}
