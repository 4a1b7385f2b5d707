/* check_config.c: values, errors, endpoints and dumps of configurations. */
#include "config/config.h"

#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <syslog.h>
#include <unistd.h>

#include "check_run.h"
#include "config_build.h"
#include "core/array.h"
#include "core/transport.h"

/* Returns the errors, a line each, for the caller to free, and frees DIAGNOSTICS. */
static char *take_errors(struct diagnostics *diagnostics)
{
	char *text = NULL;
	size_t size;
	FILE *out = open_memstream(&text, &size);
	ck_assert_ptr_nonnull(out);
	for (size_t i = 0; i < diagnostics->count; i++)
		if (!diagnostics->messages[i].warning)
			fprintf(out, "%s\n", diagnostics->messages[i].text);
	fclose(out);
	diagnostics_free(diagnostics);
	return text;
}

static char *errors_of(const char *text)
{
	struct diagnostics diagnostics = {0};
	struct config *config = config_load_memory("f", text, strlen(text), &diagnostics);
	ck_assert((config == NULL) == (diagnostics.errors > 0));
	config_unref(config);
	return take_errors(&diagnostics);
}

static void assert_errors(const char *text, const char *expected)
{
	char *errors = errors_of(text);
	ck_assert_str_eq(errors, expected);
	free(errors);
}

static struct config *load(const char *text)
{
	struct diagnostics diagnostics = {0};
	struct config *config = config_load_memory("f", text, strlen(text), &diagnostics);
	char *errors = take_errors(&diagnostics);
	ck_assert_str_eq(errors, "");
	free(errors);
	ck_assert_ptr_nonnull(config);
	return config;
}

static char *dump(const struct config *config)
{
	char *text = NULL;
	size_t size;
	FILE *out = open_memstream(&text, &size);
	ck_assert_ptr_nonnull(out);
	config_dump(config, out);
	fclose(out);
	return text;
}

/* Returns the endpoints as `tcp 127.0.0.1 7`, a line each, for the caller to free. */
static char *write_endpoints(const struct config *config)
{
	char *text = NULL, address[INET6_ADDRSTRLEN + IF_NAMESIZE];
	size_t size;
	FILE *out = open_memstream(&text, &size);
	ck_assert_ptr_nonnull(out);
	for (size_t i = 0; i < config->endpoint_count; i++) {
		const struct config_endpoint *endpoint = &config->endpoints[i];
		option_print_address(&endpoint->address, address);
		fprintf(out, "%s %s %s %u%s\n", endpoint->service->name,
			endpoint->transport == TRANSPORT_TCP ? "tcp" : "udp", address, endpoint->port,
			endpoint->from_star ? " *" : "");
	}
	fclose(out);
	return text;
}

static void assert_endpoints(const char *text, const char *expected)
{
	struct config *config = load(text);
	char *endpoints = write_endpoints(config);
	ck_assert_str_eq(endpoints, expected);
	free(endpoints);
	config_unref(config);
}

/* --- values --- */

START_TEST(defaults_match_the_manual)
{
	struct config *config = load("[echo]\n");
	const struct config_daemon *daemon = &config->daemon;

	ck_assert_int_eq(daemon->workers, 0);
	ck_assert_str_eq(daemon->user, SMALLSERVD_USER);
	ck_assert_ptr_null(daemon->group);
	ck_assert_ptr_null(daemon->pid_file);
	ck_assert_ptr_null(daemon->include);
	ck_assert_int_eq(daemon->log_target, LOG_TARGET_AUTO);
	ck_assert_int_eq(config_log_level(config), LOG_NOTICE);
	ck_assert_int_eq(config_syslog_facility(config), LOG_DAEMON);
	ck_assert_int_eq(daemon->max_connections, 0);
	ck_assert_int_eq(daemon->stop_timeout_ms, 5000);

	ck_assert_uint_eq(config->service_count, 1);
	const struct config_service *echo = &config->services[0];
	ck_assert_str_eq(echo->name, "echo");
	ck_assert_str_eq(echo->type->name, "echo");
	ck_assert(echo->enabled);
	ck_assert_uint_eq(echo->transports, TRANSPORT_BOTH);
	ck_assert_uint_eq(echo->addresses.count, 1);
	ck_assert_int_eq(echo->addresses.list[0].family, AF_UNSPEC);
	ck_assert_uint_eq(echo->ports.count, 1);
	ck_assert_uint_eq(echo->ports.list[0].first, 7);
	ck_assert_uint_eq(echo->ports.list[0].last, 7);
	ck_assert_ptr_null(echo->interface);
	ck_assert(!echo->free_bind);
	ck_assert_int_eq(echo->backlog, 4096);
	ck_assert_int_eq(echo->max_connections, INT64_MAX);
	ck_assert_int_eq(echo->idle_timeout_ms, 600000);
	ck_assert_int_eq(echo->lifetime_ms, 0);
	ck_assert_int_eq(echo->max_datagram, 65527);
	ck_assert_uint_eq(echo->multicast_groups.count, 0);
	ck_assert_int_eq(echo->dscp, DSCP_NONE);
	ck_assert_int_eq(echo->receive_buffer, 0);
	ck_assert_int_eq(echo->send_buffer, 0);
	ck_assert_int_eq(echo->keepalive_ms, 0);
	ck_assert(!echo->log_connections);
	config_unref(config);
}
END_TEST

/* Each row's key, with a value other than its default. */
static const char everything[] = "[daemon]\n"
				 "workers = 3\n"
				 "user = root\n"
				 "group = root\n"
				 "pid_file = \"/run/a ; b.pid\"\n"
				 "log_target = syslog\n"
				 "log_level = debug\n"
				 "syslog_facility = local3\n"
				 "max_connections = 1000\n"
				 "stop_timeout = 90s\n"
				 "\n"
				 "[one]\n"
				 "port = 1007, 2000-2010\n"
				 "type = daytime\n"
				 "enabled = on\n"
				 "protocol = udp, tcp\n"
				 "address = 0.0.0.0, ::, fe80::1%eth0, 192.0.2.1\n"
				 "interface = eth0\n"
				 "free_bind = yes\n"
				 "backlog = 128\n"
				 "max_connections = 100\n"
				 "idle_timeout = 30s\n"
				 "lifetime = 1h\n"
				 "max_datagram = 0\n"
				 "multicast_groups = 239.1.2.3, ff15::7%eth0\n"
				 "dscp = ef\n"
				 "receive_buffer = 2M\n"
				 "send_buffer = 64K\n"
				 "keepalive = 60s\n"
				 "log_connections = yes\n"
				 "format = \"%H ; %M\"\n"
				 "timezone = utc\n"
				 "\n"
				 "[echo]\n"
				 "enabled = no\n"
				 "\n"
				 "[discard]\n"
				 "protocol = udp\n"
				 "\n"
				 "[time]\n"
				 "protocol = tcp\n"
				 "port = 0\n";

START_TEST(written_values_are_kept)
{
	struct config *config = load(everything);
	const struct config_daemon *daemon = &config->daemon;

	ck_assert_int_eq(daemon->workers, 3);
	ck_assert_str_eq(daemon->user, "root");
	ck_assert_str_eq(daemon->group, "root");
	ck_assert_str_eq(daemon->pid_file, "/run/a ; b.pid");
	ck_assert_int_eq(daemon->log_target, LOG_TARGET_SYSLOG);
	ck_assert_int_eq(config_log_level(config), LOG_DEBUG);
	ck_assert_int_eq(config_syslog_facility(config), LOG_LOCAL3);
	ck_assert_int_eq(daemon->max_connections, 1000);
	ck_assert_int_eq(daemon->stop_timeout_ms, 90000);

	ck_assert_uint_eq(config->service_count, 4);
	const struct config_service *one = &config->services[0];
	ck_assert_str_eq(one->name, "one");
	ck_assert_str_eq(one->type->name, "daytime");
	ck_assert_uint_eq(one->addresses.count, 4);
	ck_assert_uint_eq(one->ports.count, 2);
	ck_assert_uint_eq(one->ports.list[1].last, 2010);
	ck_assert_str_eq(one->interface, "eth0");
	ck_assert(one->free_bind);
	ck_assert_int_eq(one->backlog, 128);
	ck_assert_int_eq(one->max_connections, 100);
	ck_assert_int_eq(one->idle_timeout_ms, 30000);
	ck_assert_int_eq(one->lifetime_ms, 3600000);
	ck_assert_int_eq(one->max_datagram, 0);
	ck_assert_uint_eq(one->multicast_groups.count, 2);
	ck_assert_int_eq(one->dscp, 46);
	ck_assert_int_eq(one->receive_buffer, 2097152);
	ck_assert_int_eq(one->send_buffer, 65536);
	ck_assert_int_eq(one->keepalive_ms, 60000);
	ck_assert(one->log_connections);
	ck_assert_ptr_nonnull(one->settings);

	ck_assert(!config->services[1].enabled);
	ck_assert_uint_eq(config->services[2].transports, TRANSPORT_UDP);
	ck_assert_uint_eq(config->services[3].transports, TRANSPORT_TCP);
	config_unref(config);
}
END_TEST

START_TEST(values_have_their_origins)
{
	struct config *config = load("[defaults]\nbacklog = 5\n\n[echo]\n\nport = 1007\n");
	const struct config_service *echo = &config->services[0];

	ck_assert_uint_eq(config_service_origin(echo, "port").line, 6);
	ck_assert_str_eq(config_service_origin(echo, "port").file, "f");
	ck_assert_uint_eq(config_service_origin(echo, "backlog").line, 2);
	ck_assert_uint_eq(config_service_origin(echo, "address").line, 4);
	ck_assert_uint_eq(echo->origin.line, 4);
	config_unref(config);
}
END_TEST

START_TEST(type_can_come_last_in_its_section)
{
	struct config *config = load("[a]\nformat = rfc3339\nport = 1007\ntype = daytime\n");
	ck_assert_str_eq(config->services[0].type->name, "daytime");
	config_unref(config);
}
END_TEST

/* Returns the line of DUMP that starts with KEY in section NAME, in one of two buffers. */
static const char *dumped(const struct config *config, const char *name, const char *key)
{
	static char line[512];
	char header[64];
	char *text = dump(config);

	snprintf(header, sizeof header, "[%s]\n", name);
	const char *at = strstr(text, header);
	ck_assert_ptr_nonnull(at);
	snprintf(header, sizeof header, "\n%s = ", key);
	const char *end = strstr(at, "\n\n");
	at = strstr(at, header);
	line[0] = '\0';
	if (at != NULL && (end == NULL || at < end))
		snprintf(line, sizeof line, "%.*s", (int)strcspn(at + 1, "\n"), at + 1);
	free(text);
	return line;
}

START_TEST(defaults_apply_to_the_services_they_fit)
{
	struct config *config = load("[defaults]\n"
				     "format = rfc3339\n"
				     "backlog = 5\n"
				     "max_datagram = 100\n"
				     "idle_timeout = 30s\n"
				     "address = 127.0.0.1\n"
				     "[echo]\n"
				     "protocol = udp\n"
				     "[daytime]\n"
				     "protocol = tcp\n"
				     "idle_timeout = off\n"
				     "address = ::1\n"
				     "[other]\n"
				     "type = daytime\n"
				     "port = 1013\n"
				     "format = ctime\n");

	ck_assert_str_eq(dumped(config, "echo", "max_datagram"), "max_datagram = 100");
	ck_assert_str_eq(dumped(config, "echo", "backlog"), "");
	ck_assert_str_eq(dumped(config, "echo", "format"), "");
	ck_assert_str_eq(dumped(config, "echo", "address"), "address = 127.0.0.1");
	ck_assert_str_eq(dumped(config, "daytime", "backlog"), "backlog = 5");
	ck_assert_str_eq(dumped(config, "daytime", "max_datagram"), "");
	ck_assert_str_eq(dumped(config, "daytime", "idle_timeout"), "idle_timeout = off");
	ck_assert_str_eq(dumped(config, "daytime", "address"), "address = ::1");
	ck_assert_str_eq(dumped(config, "daytime", "format"), "format = rfc3339");
	ck_assert_str_eq(dumped(config, "other", "format"), "format = ctime");
	ck_assert_str_eq(dumped(config, "other", "idle_timeout"), "idle_timeout = 30s");
	config_unref(config);
}
END_TEST

START_TEST(defaults_can_come_last_and_set_type_and_protocol)
{
	struct config *config = load("[one]\nport = 1001\n[two]\nport = 1002\ntype = discard\nprotocol = udp\n"
				     "[defaults]\ntype = echo\nprotocol = tcp\n");
	ck_assert_str_eq(config->services[0].type->name, "echo");
	ck_assert_uint_eq(config->services[0].transports, TRANSPORT_TCP);
	ck_assert_str_eq(config->services[1].type->name, "discard");
	ck_assert_uint_eq(config->services[1].transports, TRANSPORT_UDP);
	config_unref(config);
}
END_TEST

START_TEST(none_overrides_a_default)
{
	struct config *config = load("[defaults]\ninterface = eth0\nmulticast_groups = 239.1.2.3\n"
				     "[echo]\ninterface = none\nmulticast_groups = none\n");
	ck_assert_ptr_null(config->services[0].interface);
	ck_assert_uint_eq(config->services[0].multicast_groups.count, 0);
	config_unref(config);
}
END_TEST

START_TEST(references_are_counted)
{
	struct config *config = load("[echo]\n");
	ck_assert_ptr_eq(config_ref(config), config);
	config_unref(config);
	ck_assert_str_eq(config->services[0].name, "echo");
	config_unref(config);
	config_unref(NULL);
}
END_TEST

/* --- errors --- */

static const struct {
	const char *text, *errors;
} mistakes[] = {
	{"[echo]\nprot = 7\n", "f:2: [echo] prot: unknown key; did you mean \"port\"?\n"},
	{"[echo]\nfoobar = 7\n", "f:2: [echo] foobar: unknown key\n"},
	{"[echo]\nbind = ::1\n", "f:2: [echo] bind: unknown key; did you mean \"address\"?\n"},
	{"[echo]\nlisten = 7\n", "f:2: [echo] listen: unknown key; did you mean \"address\"?\n"},
	{"[echo]\ndisable = no\n", "f:2: [echo] disable: unknown key; did you mean \"enabled\"?\n"},
	{"[echo]\ninstances = 5\n", "f:2: [echo] instances: unknown key; did you mean \"max_connections\"?\n"},
	{"[echo]\nworkers = 2\n", "f:2: [echo] workers: belongs in [daemon]\n"},
	{"[daemon]\nport = 7\n[echo]\n", "f:2: [daemon] port: belongs in a service or in [defaults]\n"},
	{"[daemon]\nformat = ctime\n[echo]\n", "f:2: [daemon] format: belongs in a service or in [defaults]\n"},
	{"[daemon]\nworker = 2\n[echo]\n", "f:2: [daemon] worker: unknown key; did you mean \"workers\"?\n"},
	{"[daemon]\nfoobar = 2\n[echo]\n", "f:2: [daemon] foobar: unknown key\n"},
	{"[daemon]\nworkers = 0\n[echo]\n",
	 "f:2: [daemon] workers: must be a number from 1 to 256, or auto, not \"0\"\n"},
	{"[daemon]\nlog_level = loud\n[echo]\n",
	 "f:2: [daemon] log_level: must be one of error, warning, notice, info, debug, not \"loud\"\n"},
	{"[daemon]\nstop_timeout = 5\n[echo]\n", "f:2: [daemon] stop_timeout: a duration needs its unit: write 5s\n"},
	{"[daemon]\nuser = no-such-user\n[echo]\n", "f:2: [daemon] user: no such user: \"no-such-user\"\n"},
	{"[daemon]\ngroup = no-such-group\n[echo]\n", "f:2: [daemon] group: no such group: \"no-such-group\"\n"},
	{"[daemon]\nuser = 4000000000\n[echo]\n", "f:2: [daemon] user: no such user: \"4000000000\"\n"},
	{"[daemon]\nuser = 0\ngroup = 0\n[echo]\n", ""},
	{"[daemon]\nuser = " SMALLSERVD_USER "\n[echo]\n", ""},

	{"[echo]\nformat = ctime\n", "f:2: [echo] format: does not fit type echo\n"},
	{"[echo]\nprotocol = udp\nbacklog = 5\n", "f:3: [echo] backlog: does not fit protocol = udp\n"},
	{"[echo]\nbacklog = 5\nprotocol = udp\n", "f:2: [echo] backlog: does not fit protocol = udp\n"},
	{"[echo]\nprotocol = udp\nmax_connections = 5\n", "f:3: [echo] max_connections: does not fit protocol = udp\n"},
	{"[echo]\nprotocol = udp\nidle_timeout = 5s\n", "f:3: [echo] idle_timeout: does not fit protocol = udp\n"},
	{"[echo]\nprotocol = udp\nlifetime = 5s\n", "f:3: [echo] lifetime: does not fit protocol = udp\n"},
	{"[echo]\nprotocol = udp\nkeepalive = 5s\n", "f:3: [echo] keepalive: does not fit protocol = udp\n"},
	{"[echo]\nprotocol = tcp\nmax_datagram = 5\n", "f:3: [echo] max_datagram: does not fit protocol = tcp\n"},
	{"[echo]\nprotocol = tcp\nmulticast_groups = 239.1.2.3\n",
	 "f:3: [echo] multicast_groups: does not fit protocol = tcp\n"},
	{"[echo]\nprotocol = sctp\n",
	 "f:2: [echo] protocol: must be tcp, udp or both, not \"sctp\"; did you mean \"tcp\"?\n"},

	{"[echo]\nprotocol = x\nbacklog = 5\nmax_datagram = 5\n",
	 "f:2: [echo] protocol: must be tcp, udp or both, not \"x\"\n"},
	{"[echo]\ntimezon = utc\n", "f:2: [echo] timezon: unknown key\n"},
	{"[daytime]\ntimezon = utc\n", "f:2: [daytime] timezon: unknown key; did you mean \"timezone\"?\n"},

	{"[deamon]\n[echo]\n", "f:1: [deamon] type: missing, and \"deamon\" is no type; did you mean [daemon]?\n"},
	{"[Defaults]\n[echo]\n",
	 "f:1: [Defaults] type: missing, and \"Defaults\" is no type; did you mean [defaults]?\n"},
	{"[ecko]\n", "f:1: [ecko] type: missing, and \"ecko\" is no type; did you mean \"echo\"?\n"},
	{"[lab]\n", "f:1: [lab] type: missing, and \"lab\" is no type; types: "
		    "echo, discard, daytime, qotd, chargen, time\n"},
	{"[lab]\ntype = ecko\n", "f:2: [lab] type: \"ecko\" is no type; did you mean \"echo\"?\n"},
	{"[lab]\ntype = finger\n",
	 "f:2: [lab] type: \"finger\" is no type; types: echo, discard, daytime, qotd, chargen, time\n"},
	/* without a type, options of types are not checked */
	{"[lab]\ntype = ecko\nformat = ctime\nbacklog = 0\nfoobar = 1\n",
	 "f:2: [lab] type: \"ecko\" is no type; did you mean \"echo\"?\n"
	 "f:4: [lab] backlog: must be a number from 1 to 65535, not \"0\"\n"
	 "f:5: [lab] foobar: unknown key\n"},

	{"[echo]\n[time]\n[echo]\n", "f:3: [echo] already a section at f:1\n"},
	{"[daemon]\n[echo]\n[daemon]\n", "f:3: [daemon] already a section at f:1\n"},
	{"[defaults]\n[echo]\n[defaults]\n", "f:3: [defaults] already a section at f:1\n"},
	{"[echo]\nport = 7\nport = 7\n", "f:3: [echo] port: already set at f:2\n"},
	{"[echo]\ntype = echo\nport = 7\ntype = echo\n", "f:4: [echo] type: already set at f:2\n"},
	{"[daemon]\nworkers = 1\nworkers = 1\n[echo]\n", "f:3: [daemon] workers: already set at f:2\n"},
	{"[defaults]\nport = 7\nport = 7\n[echo]\n", "f:3: [defaults] port: already set at f:2\n"},
	{"[daytime]\nformat = ctime\nformat = ctime\n", "f:3: [daytime] format: already set at f:2\n"},

	{"[defaults]\nprot = 7\n[echo]\n", "f:2: [defaults] prot: unknown key; did you mean \"port\"?\n"},
	{"[defaults]\nworkers = 7\n[echo]\n", "f:2: [defaults] workers: belongs in [daemon]\n"},
	{"[defaults]\nbacklog = 0\n[echo]\n[time]\n",
	 "f:2: [defaults] backlog: must be a number from 1 to 65535, not \"0\"\n"},
	{"[defaults]\nmax_datagram = x\n[echo]\nprotocol = tcp\n",
	 "f:2: [defaults] max_datagram: must be a number from 0 to 65527, not \"x\"\n"},
	{"[defaults]\nprotocol = x\n[echo]\n", "f:2: [defaults] protocol: must be tcp, udp or both, not \"x\"\n"},

	{"[echo]\nmax_datagram = 65528\n",
	 "f:2: [echo] max_datagram: must be a number from 0 to 65527, not \"65528\"\n"},
	{"[echo]\nkeepalive = 1500ms\n", "f:2: [echo] keepalive: must be a multiple of 1s, not \"1500ms\"\n"},
	{"[echo]\nidle_timeout = 50ms\n",
	 "f:2: [echo] idle_timeout: must be a duration from 100ms to 365d, or off, not \"50ms\"\n"},
	{"[echo]\nsend_buffer = 1K\n", "f:2: [echo] send_buffer: must be a size from 4K to 1G, or auto, not \"1K\"\n"},
	{"[echo]\ninterface = sixteen--letters\n", "f:2: [echo] interface: longer than 15 bytes\n"},
	{"[echo]\nenabled = Yes\n", "f:2: [echo] enabled: must be yes or no, not \"Yes\"; did you mean \"yes\"?\n"},

	{"[echo]\naddress = 127.0.0.1\nmulticast_groups = 239.1.2.3\n",
	 "f:3: [echo] multicast_groups: 239.1.2.3 needs address = 0.0.0.0 or *\n"},
	{"[echo]\naddress = 0.0.0.0\nmulticast_groups = 239.1.2.3, ff15::7\n",
	 "f:3: [echo] multicast_groups: ff15::7 needs address = :: or *\n"},
	{"[echo]\naddress = *\nmulticast_groups = 239.1.2.3, ff15::7\n", ""},

	{"", "f: no service is enabled\n"},
	{"[daemon]\n[defaults]\n", "f: no service is enabled\n"},
	{"[e c]\n", "f:1: bad section name \"e c\": 1 to 48 letters, digits, \"_\", \".\" and \"-\"\n"},
	{"[echo]\nenabled = no\n", "f: no service is enabled\n"},
	{"[daemon]\nworkers = 0\n", "f: no service is enabled\n"
				    "f:2: [daemon] workers: must be a number from 1 to 256, or auto, not \"0\"\n"},
	{"[defaults]\nenabled = no\n[echo]\n[time]\nenabled = yes\n", ""},

	{"[echo]\n[b]\ntype = time\nport = 7\n", "f:4: [b] port: tcp 0.0.0.0:7 is already served by [echo] (f:1)\n"
						 "f:4: [b] port: udp 0.0.0.0:7 is already served by [echo] (f:1)\n"},
	{"[a]\ntype = echo\nport = 7\naddress = 127.0.0.1, ::1\nprotocol = tcp\n"
	 "[b]\ntype = echo\nport = 5-10\naddress = ::1\n",
	 "f:8: [b] port: tcp [::1]:7 is already served by [a] (f:3)\n"},
	{"[echo]\nprotocol = tcp\naddress = *, ::\n",
	 "f:1: [echo] port: tcp [::]:7 is already served by [echo] (f:1)\n"},
	{"[a]\ntype = echo\nprotocol = tcp\n[b]\ntype = echo\nprotocol = udp\n", ""},
	{"[a]\ntype = echo\naddress = *\n[b]\ntype = echo\naddress = 127.0.0.1\n", ""},
	{"[a]\ntype = echo\ninterface = eth0\n[b]\ntype = echo\ninterface = eth1\n", ""},
	{"[a]\ntype = echo\nport = 0\n[b]\ntype = echo\nport = 0\n", ""},
	{"[a]\ntype = echo\n[b]\ntype = echo\nenabled = no\n", ""},
	{"[a]\ntype = echo\naddress = fe80::1%eth0\n[b]\ntype = echo\naddress = fe80::1%eth1\n", ""},

	{"[echo]\ntls = yes\ntls_certificate = x\n",
	 "f:2: [echo] tls: needs protocol = tcp: it has no meaning over UDP\n"
	 "f:3: [echo] tls_certificate: x: No such file or directory\n"},
	{"[echo]\nprotocol = tcp, udp\nproxy_protocol = on\nproxy_from = ::1\n",
	 "f:3: [echo] proxy_protocol: needs protocol = tcp: it has no meaning over UDP\n"},
	{"[echo]\nprotocol = udp\ntls = yes\n", "f:3: [echo] tls: does not fit protocol = udp\n"},
	{"[defaults]\ntls = yes\n[echo]\n", "f:2: [echo] tls: needs protocol = tcp: it has no meaning over UDP\n"
					    "f:3: [echo] tls_certificate: required with tls = yes\n"},
	{"[echo]\nprotocol = tcp\ntls = yes\n", "f:1: [echo] tls_certificate: required with tls = yes\n"},
	{"[echo]\nprotocol = tcp\ntls_key = x\n", "f:3: [echo] tls_key: needs tls = yes\n"},
	{"[echo]\nprotocol = tcp\nproxy_from = ::1\n", "f:3: [echo] proxy_from: needs proxy_protocol = yes\n"},
	{"[echo]\nprotocol = tcp\nproxy_protocol = on\n",
	 "f:1: [echo] proxy_from: required with proxy_protocol = on\n"},
	{"[echo]\nprotocol = tcp\ntls = yes\ntls_certificate = x\ntls_min_version = 1.3\ntls_max_version = 1.2\n",
	 "f:6: [echo] tls_max_version: less than tls_min_version\n"},
	{"[echo]\nprotocol = tcp\ntls = yes\ntls_certificate = x\ntls_min_version = 1.1\n",
	 "f:4: [echo] tls_certificate: x: No such file or directory\n"
	 "f:5: [echo] tls_min_version: must be one of 1.2, 1.3, not \"1.1\"; did you mean \"1.2\"?\n"},
	{"[echo]\nprotocol = tcp\ntls = yes\ntls_certificate = x\ntls_client_auth = required\n",
	 "f:1: [echo] tls_client_ca: required with tls_client_auth = required\n"},
	{"[echo]\nprotocol = tcp\ntls = yes\ntls_certificate = x\ntls_client_auth = optional\n",
	 "f:1: [echo] tls_client_ca: required with tls_client_auth = optional\n"},
	{"[echo]\nprotocol = tcp\ntls = yes\ntls_certificate = x\ntls_crl = y\n",
	 "f:5: [echo] tls_crl: needs tls_client_ca\n"},
	{"[echo]\nprotocol = tcp\nhandshake_timeout = off\n",
	 "f:3: [echo] handshake_timeout: must be a duration from 100ms to 365d, not \"off\"\n"},
	{"[echo]\nprotocol = tcp\ntls = yes\ntls_certificate = /nowhere.pem\n",
	 "f:4: [echo] tls_certificate: /nowhere.pem: No such file or directory\n"},
	/* TLS options of [defaults] apply with tls = yes; a disabled service reads no file */
	{"[defaults]\ntls_certificate = /nowhere.pem\nproxy_from = ::1\n[echo]\n", ""},
	{"[defaults]\ntls_certificate = /nowhere.pem\ntls = yes\nprotocol = tcp\n[echo]\ntls = no\n[time]\nenabled = "
	 "no\n",
	 ""},

	/* errors of the INI reader are in order with the others */
	{"[echo]\nfoobar = 1\nport: 7\nbacklog = 0\n[time\n",
	 "f:2: [echo] foobar: unknown key\n"
	 "f:3: [echo] \":\" after a key: write \"port = 7\"\n"
	 "f:4: [echo] backlog: must be a number from 1 to 65535, not \"0\"\n"
	 "f:5: section header without \"]\": \"[time\"\n"},
};

START_TEST(invalid_input_is_reported_with_its_place)
{
	assert_errors(mistakes[_i].text, mistakes[_i].errors);
}
END_TEST

START_TEST(unquoted_value_is_validated_by_its_option_type)
{
	char *errors = errors_of("[daytime]\nformat = %H:%M\n");
	ck_assert_int_eq(strncmp(errors, "f:2: [daytime] format: ", strlen("f:2: [daytime] format: ")), 0);
	free(errors);
}
END_TEST

START_TEST(disabled_service_loads_no_files)
{
	char *errors = errors_of("[echo]\n[qotd]\nquotes_file = /nonexistent/quotes\nenabled = no\n");
	ck_assert_str_eq(errors, "");
	free(errors);
	errors = errors_of("[echo]\n[qotd]\nquotes_file = /nonexistent/quotes\n");
	ck_assert_str_eq(errors, "f:3: [qotd] quotes_file: /nonexistent/quotes: No such file or directory\n");
	free(errors);
}
END_TEST

/* Each alias has to name an existing key. */
START_TEST(aliases_suggest_existing_keys_only)
{
	static const struct {
		const char *word, *key;
	} words[] = {{"only_from", "allow"}, {"no_access", "deny"}, {"cps", "connection_rate"}};

	for (size_t i = 0; i < COUNT_OF(words); i++) {
		bool exists = option_find(config_service_options, config_service_option_count, words[i].key) != NULL;
		char text[128], suggestion[128];
		snprintf(text, sizeof text, "[echo]\n%s = 1\n", words[i].word);
		snprintf(suggestion, sizeof suggestion, "did you mean \"%s\"?", words[i].key);
		char *errors = errors_of(text);
		ck_assert_int_eq(strstr(errors, suggestion) != NULL, exists);
		free(errors);
	}
}
END_TEST

START_TEST(option_rows_are_consistent)
{
	static const struct {
		const struct option *options;
		const size_t *count;
	} tables[] = {{config_daemon_options, &config_daemon_option_count},
		      {config_service_options, &config_service_option_count}};

	for (size_t i = 0; i < COUNT_OF(tables); i++)
		for (size_t j = 0; j < *tables[i].count; j++) {
			const struct option *row = &tables[i].options[j];
			ck_assert_ptr_eq(option_find(tables[i].options, *tables[i].count, row->key), row);
			ck_assert_ptr_nonnull(row->type);
			ck_assert_ptr_nonnull(row->help);
			ck_assert_ptr_null(strchr(row->help, '\n'));
		}
}
END_TEST

START_TEST(messages_stop_after_1000_with_a_notice)
{
	char *text = NULL;
	size_t size;
	FILE *out = open_memstream(&text, &size);
	struct diagnostics diagnostics = {0};

	fputs("[echo]\n", out);
	for (int i = 0; i < 2000; i++)
		fputs("foobar = 1\n", out);
	fclose(out);
	ck_assert_ptr_null(config_load_memory("f", text, size, &diagnostics));
	ck_assert_uint_eq(diagnostics.count, 1001);
	ck_assert_uint_eq(diagnostics.errors, 2000);
	ck_assert_str_eq(diagnostics.messages[0].text, "f:2: [echo] foobar: unknown key");
	ck_assert_str_eq(diagnostics.messages[999].text, "f:1001: [echo] foobar: unknown key");
	ck_assert_str_eq(diagnostics.messages[1000].text, "more than 1000 messages: the others are left out");
	diagnostics_free(&diagnostics);
	free(text);
}
END_TEST

/* Reads the kernel's ephemeral ports from /proc, which has to be there. */
static void read_ephemeral_range(unsigned *low, unsigned *high)
{
	FILE *in = fopen("/proc/sys/net/ipv4/ip_local_port_range", "re");
	ck_assert_ptr_nonnull(in);
	ck_assert_int_eq(fscanf(in, "%u %u", low, high), 2);
	fclose(in);
}

static void assert_warning(const char *text, const char *expected)
{
	struct diagnostics diagnostics = {0};
	struct config *config = config_load_memory("f", text, strlen(text), &diagnostics);

	ck_assert_ptr_nonnull(config);
	ck_assert_uint_eq(diagnostics.errors, 0);
	ck_assert_uint_eq(diagnostics.count, expected != NULL ? 1 : 0);
	if (expected != NULL) {
		ck_assert(diagnostics.messages[0].warning);
		ck_assert_str_eq(diagnostics.messages[0].text, expected);
		ck_assert_str_eq(diagnostics.messages[0].file, "f");
	}
	diagnostics_free(&diagnostics);
	config_unref(config);
}

START_TEST(ephemeral_udp_port_is_a_warning)
{
	unsigned low, high;
	char text[256], expected[256];

	read_ephemeral_range(&low, &high);
	snprintf(text, sizeof text, "[echo]\nport = %u-%u\n", low - 1, low + 5);
	snprintf(expected, sizeof expected,
		 "f:2: warning: [echo] port: udp port %u lies in the kernel's ephemeral range %u-%u: honest clients "
		 "that "
		 "get a served port as their source can be refused as loops",
		 low, low, high);
	assert_warning(text, expected);
	snprintf(text, sizeof text, "[echo]\nprotocol = tcp\nport = %u\n", low);
	assert_warning(text, NULL);
	snprintf(text, sizeof text, "[time]\n[echo]\nenabled = no\nport = %u\n", low);
	assert_warning(text, NULL);
	snprintf(text, sizeof text, "[echo]\nport = %u\n", low - 1);
	assert_warning(text, NULL);
}
END_TEST

/* --- endpoints --- */

START_TEST(endpoints_combine_transports_addresses_and_ports)
{
	assert_endpoints("[echo]\n", "echo tcp 0.0.0.0 7 *\n"
				     "echo tcp :: 7 *\n"
				     "echo udp 0.0.0.0 7 *\n"
				     "echo udp :: 7 *\n");
	assert_endpoints("[echo]\naddress = 127.0.0.1, ::1, fe80::1%eth0\nport = 1009, 1007-1008\nprotocol = tcp\n",
			 "echo tcp 127.0.0.1 1009\n"
			 "echo tcp 127.0.0.1 1007\n"
			 "echo tcp 127.0.0.1 1008\n"
			 "echo tcp ::1 1009\n"
			 "echo tcp ::1 1007\n"
			 "echo tcp ::1 1008\n"
			 "echo tcp fe80::1%eth0 1009\n"
			 "echo tcp fe80::1%eth0 1007\n"
			 "echo tcp fe80::1%eth0 1008\n");
	assert_endpoints("[time]\nprotocol = udp\naddress = ::\n[echo]\nenabled = no\n[discard]\nprotocol = tcp\n"
			 "address = 0.0.0.0\nport = 0\n",
			 "time udp :: 37\n"
			 "discard tcp 0.0.0.0 0\n");
}
END_TEST

START_TEST(conflicts_of_65535_ports_are_found_fast)
{
	struct config *config = load("[echo]\nport = 1-65535\n");
	ck_assert_uint_eq(config->endpoint_count, 4 * 65535);
	config_unref(config);
	assert_errors("[echo]\nport = 1-65535\nprotocol = tcp\n[time]\nport = 1-65535\nprotocol = tcp\n",
		      "f:5: [time] port: tcp 0.0.0.0:1 is already served by [echo] (f:2)\n");
}
END_TEST

START_TEST(more_than_a_million_endpoints_are_refused)
{
	assert_errors("[echo]\nport = 1-65535\naddress = *, 127.0.0.1, 127.0.0.2, 127.0.0.3, 127.0.0.4, 127.0.0.5, "
		      "127.0.0.6, 127.0.0.7\n",
		      "f:2: [echo] port: more than 1048576 endpoints in all\n");
}
END_TEST

/* --- files --- */

static char directory[] = "/tmp/check_config.XXXXXX";

static void make_directory(void)
{
	strcpy(directory + strlen(directory) - 6, "XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(directory));
	ck_assert_int_eq(chdir(directory), 0);
}

static void remove_directory(void)
{
	ck_assert_int_eq(chdir("/"), 0);
	char command[64];
	snprintf(command, sizeof command, "rm -rf %s", directory);
	ck_assert_int_eq(system(command), 0);
}

static void write_file(const char *path, const char *text)
{
	FILE *out = fopen(path, "we");
	ck_assert_ptr_nonnull(out);
	ck_assert_int_ge(fputs(text, out), 0);
	ck_assert_int_eq(fclose(out), 0);
}

static void assert_file_errors(const char *path, const char *expected)
{
	struct diagnostics diagnostics = {0};
	struct config *config = config_load(path, &diagnostics);
	ck_assert((config == NULL) == (diagnostics.errors > 0));
	config_unref(config);
	char *errors = take_errors(&diagnostics);
	ck_assert_str_eq(errors, expected);
	free(errors);
}

START_TEST(included_files_are_sorted_and_get_the_defaults)
{
	struct diagnostics diagnostics = {0};

	ck_assert_int_eq(mkdir("conf.d", 0777), 0);
	write_file("main.conf", "[daemon]\ninclude = conf.d/*.conf\n[defaults]\nbacklog = 5\n[echo]\n");
	write_file("conf.d/b.conf", "[time]\n");
	write_file("conf.d/a.conf", "[discard]\nbacklog = 6\n");
	write_file("conf.d/c.txt", "nonsense\n");

	/* relative to the file, not to the current directory */
	char path[64];
	snprintf(path, sizeof path, "%s/main.conf", directory);
	ck_assert_int_eq(chdir("/"), 0);
	struct config *config = config_load(path, &diagnostics);
	ck_assert_ptr_nonnull(config);
	ck_assert_str_eq(config->file, path);
	ck_assert_uint_eq(config->file_count, 3);
	ck_assert_uint_eq(config->service_count, 3);
	ck_assert_str_eq(config->services[0].name, "echo");
	ck_assert_str_eq(config->services[1].name, "discard");
	ck_assert_str_eq(config->services[2].name, "time");
	ck_assert_int_eq(config->services[0].backlog, 5);
	ck_assert_int_eq(config->services[1].backlog, 6);
	ck_assert_int_eq(config->services[2].backlog, 5);
	ck_assert_ptr_eq(config->services[2].origin.file, config->files[2]);
	diagnostics_free(&diagnostics);
	config_unref(config);
}
END_TEST

START_TEST(include_glob_can_be_empty_but_a_name_must_exist)
{
	write_file("main.conf", "[daemon]\ninclude = conf.d/*.conf\n[echo]\n");
	assert_file_errors("main.conf", "");
	write_file("main.conf", "[daemon]\ninclude = more.conf\n[echo]\n");
	assert_file_errors("main.conf", "main.conf:2: [daemon] include: no such file: \"more.conf\"\n");
}
END_TEST

START_TEST(directory_of_the_main_file_is_not_a_glob)
{
	ck_assert_int_eq(mkdir("[ab]*", 0777), 0);
	ck_assert_int_eq(mkdir("a", 0777), 0);
	write_file("[ab]*/main.conf", "[daemon]\ninclude = *.inc\n");
	write_file("[ab]*/x.inc", "[echo]\n");
	write_file("a/y.inc", "[time]\n");
	struct diagnostics diagnostics = {0};
	struct config *config = config_load("[ab]*/main.conf", &diagnostics);
	ck_assert_ptr_nonnull(config);
	ck_assert_uint_eq(config->service_count, 1);
	ck_assert_str_eq(config->services[0].name, "echo");
	diagnostics_free(&diagnostics);
	config_unref(config);
}
END_TEST

START_TEST(included_files_contain_unique_services_only)
{
	write_file("main.conf", "[daemon]\ninclude = *.inc\n[echo]\nfoobar = 1\n");
	write_file("b.inc", "[defaults]\n[echo]\n[time]\nport = 7\nprotocol = tcp\n");
	write_file("a.inc", "k = v\n[daemon]\nworkers = 1\n");
	assert_file_errors("main.conf",
			   "main.conf:4: [echo] foobar: unknown key\n"
			   "a.inc:1: k: a key before any section\n"
			   "a.inc:2: [daemon] belongs in main.conf: an included file holds services only\n"
			   "b.inc:1: [defaults] belongs in main.conf: an included file holds services only\n"
			   "b.inc:2: [echo] already a section at main.conf:3\n"
			   "b.inc:4: [time] port: tcp 0.0.0.0:7 is already served by [echo] (main.conf:3)\n");
}
END_TEST

START_TEST(unreadable_file_is_an_error)
{
	assert_file_errors("nix.conf", "nix.conf: cannot read: No such file or directory\n");
	assert_file_errors("/dev/zero", "/dev/zero: over 16 MiB\n");
	ck_assert_int_eq(mkdir("d.conf", 0777), 0);
	assert_file_errors("d.conf", "d.conf: cannot read: Is a directory\n");
	write_file("main.conf", "[daemon]\ninclude = d.*\n[echo]\n");
	assert_file_errors("main.conf", "d.conf: cannot read: Is a directory\n");
	/* a FIFO without a writer must not block */
	ck_assert_int_eq(mkfifo("fifo.inc", 0600), 0);
	write_file("main.conf", "[daemon]\ninclude = *.inc\n[echo]\n");
	assert_file_errors("main.conf", "fifo.inc: cannot read: not a regular file\n");
}
END_TEST

START_TEST(stdin_includes_from_the_current_directory)
{
	write_file("in.conf", "[daemon]\ninclude = x.inc\n[echo]\nfoobar = 1\n");
	write_file("x.inc", "[time]\nfoobar = 1\n");
	ck_assert_ptr_nonnull(freopen("in.conf", "r", stdin));
	assert_file_errors("-", "stdin:4: [echo] foobar: unknown key\nx.inc:2: [time] foobar: unknown key\n");
}
END_TEST

/* --- dumps --- */

static void assert_dump_reads_back(const char *text)
{
	struct config *config = load(text);
	char *first = dump(config), *endpoints = write_endpoints(config);
	config_unref(config);

	config = load(first);
	char *second = dump(config), *endpoints_again = write_endpoints(config);
	config_unref(config);

	ck_assert_str_eq(first, second);
	ck_assert_str_eq(endpoints, endpoints_again);
	free(first);
	free(second);
	free(endpoints);
	free(endpoints_again);
}

START_TEST(dump_parses_to_the_same_configuration)
{
	assert_dump_reads_back("[echo]\n");
	assert_dump_reads_back(everything);
	assert_dump_reads_back("[defaults]\nformat = nist\naddress = ::1\n[daytime]\n[x]\ntype = daytime\nport = 0\n");
	assert_dump_reads_back("[defaults]\ntls_certificate = /a ; b.pem\nprotocol = tcp\n[echo]\n"
			       "[x]\ntype = time\nenabled = no\ntls = yes\nhandshake_timeout = 1s\ntls_key = \"a,b\"\n"
			       "tls_min_version = 1.3\ntls_max_version = 1.3\ntls_client_ca = none\n"
			       "proxy_protocol = on\nproxy_from = 10.0.0.0/8, ::1\n");
	assert_dump_reads_back("[daemon]\npid_file = \"none\"\n[echo]\ninterface = \"none\"\nprotocol = tcp\n");
}
END_TEST

START_TEST(dump_has_every_key_that_fits)
{
	struct config *config = load(everything);

	for (size_t i = 0; i < config_daemon_option_count; i++)
		ck_assert_str_ne(dumped(config, "daemon", config_daemon_options[i].key), "");
	for (size_t i = 0; i < config_service_option_count; i++) {
		const struct option *row = &config_service_options[i];
		if (row->needs != NULL) { /* the switch is off */
			ck_assert_str_eq(dumped(config, "one", row->key), "");
			continue;
		}
		ck_assert_str_ne(dumped(config, "one", row->key), "");
		ck_assert_str_ne(dumped(config, "echo", row->key), "");
		bool fits_udp = !row->transports || (row->transports & TRANSPORT_UDP);
		bool fits_tcp = !row->transports || (row->transports & TRANSPORT_TCP);
		ck_assert_int_eq(*dumped(config, "discard", row->key) != '\0', fits_udp);
		ck_assert_int_eq(*dumped(config, "time", row->key) != '\0', fits_tcp);
	}
	ck_assert_str_eq(dumped(config, "one", "format"), "format = \"%H ; %M\"");
	ck_assert_str_eq(dumped(config, "echo", "type"), "type = echo");
	config_unref(config);
}
END_TEST

START_TEST(dump_omits_keys_of_disabled_switches)
{
	struct config *config =
		load("[defaults]\nprotocol = tcp\nenabled = no\ntls_certificate = x\ntls_min_version = 1.3\n"
		     "proxy_from = ::1\n[time]\ntls = yes\n[discard]\nproxy_protocol = on\n[echo]\nenabled = yes\n");
	ck_assert_str_eq(dumped(config, "time", "tls"), "tls = yes");
	ck_assert_str_eq(dumped(config, "time", "tls_certificate"), "tls_certificate = x");
	ck_assert_str_eq(dumped(config, "time", "tls_key"), "tls_key = none");
	ck_assert_str_eq(dumped(config, "time", "tls_min_version"), "tls_min_version = 1.3");
	ck_assert_str_eq(dumped(config, "time", "tls_max_version"), "tls_max_version = none");
	ck_assert_str_eq(dumped(config, "time", "proxy_from"), "");
	ck_assert_str_eq(dumped(config, "discard", "tls_certificate"), "");
	ck_assert_str_eq(dumped(config, "discard", "proxy_protocol"), "proxy_protocol = yes");
	ck_assert_str_eq(dumped(config, "discard", "proxy_from"), "proxy_from = ::1/128");
	ck_assert_str_eq(dumped(config, "echo", "tls"), "tls = no");
	ck_assert_str_eq(dumped(config, "echo", "tls_certificate"), "");
	ck_assert_str_eq(dumped(config, "echo", "handshake_timeout"), "handshake_timeout = 10s");
	config_unref(config);
}
END_TEST

START_TEST(dump_contains_included_services)
{
	struct diagnostics diagnostics = {0};

	write_file("main.conf", "[daemon]\ninclude = *.inc\n[echo]\n");
	write_file("x.inc", "[time]\n");
	struct config *config = config_load("main.conf", &diagnostics);
	ck_assert_ptr_nonnull(config);
	ck_assert_str_eq(dumped(config, "daemon", "include"), "include = none");
	ck_assert_str_eq(dumped(config, "time", "type"), "type = time");
	diagnostics_free(&diagnostics);
	config_unref(config);
}
END_TEST

/* --- random input --- */

/* A generator with a fixed seed. */
static unsigned next_random(unsigned *state)
{
	*state = *state * 1664525u + 1013904223u;
	return *state >> 8;
}

static size_t mutate(char *bytes, size_t length, size_t size, unsigned *state)
{
	static const char *const pieces[] = {"=", "\"", "[", "]", "\n", "#", ";",    ",",
					     "*", "%",  "0", "-", ":",  " ", "99999"};
	size_t at = length > 0 ? next_random(state) % length : 0;
	const char *piece = pieces[next_random(state) % COUNT_OF(pieces)];

	if (length == 0)
		return 0;
	switch (next_random(state) % 4) {
	case 0:
		bytes[at] = (char)next_random(state);
		return length;
	case 1:
		memmove(bytes + at, bytes + at + 1, length - at - 1);
		return length - 1;
	case 2:
		if (length + strlen(piece) > size)
			return length;
		memmove(bytes + at + strlen(piece), bytes + at, length - at);
		memcpy(bytes + at, piece, strlen(piece));
		return length + strlen(piece);
	default:
		return at + 1;
	}
}

START_TEST(random_input_is_refused_or_dumped)
{
	unsigned state = 1, loaded = 0;

	for (int round = 0; round < 4000; round++) {
		char bytes[sizeof everything + 64];
		size_t length = strlen(everything);
		struct diagnostics diagnostics = {0};

		memcpy(bytes, everything, length);
		for (unsigned steps = next_random(&state) % 4 + 1; steps > 0; steps--)
			length = mutate(bytes, length, sizeof bytes - 1, &state);
		struct config *config = config_load_memory("f", bytes, length, &diagnostics);
		ck_assert((config == NULL) == (diagnostics.errors > 0));
		for (size_t i = 0; i < diagnostics.count; i++)
			for (const char *at = diagnostics.messages[i].text; *at; at++)
				ck_assert((unsigned char)*at >= 0x20 && *at != 0x7f);
		diagnostics_free(&diagnostics);
		if (config != NULL) {
			char *text = dump(config);
			assert_dump_reads_back(text);
			free(text);
			loaded++;
		}
		config_unref(config);
	}
	ck_assert_uint_gt(loaded, 100);
	ck_assert_uint_lt(loaded, 3900);
}
END_TEST

static Suite *make_suite(void)
{
	Suite *suite = suite_create("config");
	TCase *values = tcase_create("values");
	tcase_add_test(values, defaults_match_the_manual);
	tcase_add_test(values, written_values_are_kept);
	tcase_add_test(values, values_have_their_origins);
	tcase_add_test(values, type_can_come_last_in_its_section);
	tcase_add_test(values, defaults_apply_to_the_services_they_fit);
	tcase_add_test(values, defaults_can_come_last_and_set_type_and_protocol);
	tcase_add_test(values, none_overrides_a_default);
	tcase_add_test(values, references_are_counted);
	suite_add_tcase(suite, values);

	TCase *errors = tcase_create("errors");
	tcase_add_loop_test(errors, invalid_input_is_reported_with_its_place, 0, COUNT_OF(mistakes));
	tcase_add_test(errors, unquoted_value_is_validated_by_its_option_type);
	tcase_add_test(errors, disabled_service_loads_no_files);
	tcase_add_test(errors, aliases_suggest_existing_keys_only);
	tcase_add_test(errors, option_rows_are_consistent);
	tcase_add_test(errors, messages_stop_after_1000_with_a_notice);
	tcase_add_test(errors, ephemeral_udp_port_is_a_warning);
	suite_add_tcase(suite, errors);

	TCase *endpoints = tcase_create("endpoints");
	tcase_add_test(endpoints, endpoints_combine_transports_addresses_and_ports);
	tcase_add_test(endpoints, conflicts_of_65535_ports_are_found_fast);
	tcase_add_test(endpoints, more_than_a_million_endpoints_are_refused);
	suite_add_tcase(suite, endpoints);

	TCase *files = tcase_create("files");
	tcase_add_checked_fixture(files, make_directory, remove_directory);
	tcase_add_test(files, included_files_are_sorted_and_get_the_defaults);
	tcase_add_test(files, include_glob_can_be_empty_but_a_name_must_exist);
	tcase_add_test(files, directory_of_the_main_file_is_not_a_glob);
	tcase_add_test(files, included_files_contain_unique_services_only);
	tcase_add_test(files, unreadable_file_is_an_error);
	tcase_add_test(files, stdin_includes_from_the_current_directory);
	tcase_add_test(files, dump_contains_included_services);
	suite_add_tcase(suite, files);

	TCase *dumps = tcase_create("dumps");
	tcase_add_test(dumps, dump_parses_to_the_same_configuration);
	tcase_add_test(dumps, dump_has_every_key_that_fits);
	tcase_add_test(dumps, dump_omits_keys_of_disabled_switches);
	tcase_add_test(dumps, random_input_is_refused_or_dumped);
	suite_add_tcase(suite, dumps);
	return suite;
}

int main(void)
{
	return check_run(make_suite());
}
