/* check.c: checks across the keys of a configuration. */
#include "config_build.h"

#include <arpa/inet.h>
#include <search.h>
#include <stdlib.h>
#include <string.h>

#include "config/loader.h"
#include "core/ip.h"
#include "core/transport.h"
#include "core/user.h"
#include "tls/tls.h"

enum { ENDPOINTS_MAX = 1 << 20 };

/* --- users and groups --- */

/* Checks configured users and groups; the default user need not exist if the daemon is not root. */
void check_accounts(struct loader *loader, const struct target *target)
{
	const struct config_daemon *daemon = &loader->config->daemon;
	struct setting user, group;

	if (!target_find(target, "user", &user) || !target_find(target, "group", &group))
		return;
	if (daemon->user != NULL && strcmp(daemon->user, SMALLSERVD_USER) != 0 && user_find(daemon->user) == NULL)
		report_error(loader, *user.origin, "daemon", "user", "no such user: %s",
			     option_quote(daemon->user).text);
	if (daemon->group != NULL && group_find(daemon->group) == NULL)
		report_error(loader, *group.origin, "daemon", "group", "no such group: %s",
			     option_quote(daemon->group).text);
}

/* --- multicast groups --- */

static bool covers_family(const struct option_address *address, int family)
{
	return address->family == AF_UNSPEC || (address->family == family && ip_is_wildcard(family, &address->ip));
}

/* Checks that each group has a socket bound to a wildcard of its family, which alone receives its datagrams. */
void check_groups(struct loader *loader, const struct config_service *service)
{
	for (size_t i = 0; i < service->multicast_groups.count; i++) {
		const struct option_address *group = &service->multicast_groups.list[i];
		char text[INET6_ADDRSTRLEN + IF_NAMESIZE];
		size_t j = 0;

		while (j < service->addresses.count && !covers_family(&service->addresses.list[j], group->family))
			j++;
		if (j < service->addresses.count || service->addresses.count == 0)
			continue;
		option_print_address(group, text);
		report_error(loader, config_service_origin(service, "multicast_groups"), service->name,
			     "multicast_groups", "%s needs address = %s or *", text,
			     group->family == AF_INET ? "0.0.0.0" : "::");
	}
}

/* --- access lists --- */

struct rule {
	const struct option_prefix *prefix;
	const char *key;
};

static int compare_rules(const void *left, const void *right)
{
	const struct rule *a = left, *b = right;
	int order = memcmp(&a->prefix->address, &b->prefix->address, sizeof a->prefix->address);
	if (order)
		return order;
	if (a->prefix->length != b->prefix->length)
		return a->prefix->length < b->prefix->length ? -1 : 1;
	return a->prefix->all - b->prefix->all;
}

static void add_rules(struct rule *rules, size_t *count, const char *key, const struct option_prefixes *prefixes)
{
	for (size_t i = 0; i < prefixes->count; i++)
		rules[(*count)++] = (struct rule){&prefixes->list[i], key};
}

/* Checks that no prefix is both allowed and denied. */
void check_rules(struct loader *loader, const struct config_service *service)
{
	size_t total = service->allow.count + service->allow_file.prefixes.count + service->deny.count +
		       service->deny_file.prefixes.count;
	struct rule *rules = calloc(total + 1, sizeof *rules);
	size_t count = 0;
	char text[INET6_ADDRSTRLEN + 4];

	if (rules == NULL) {
		loader->out_of_memory = true;
		return;
	}
	add_rules(rules, &count, "allow", &service->allow);
	add_rules(rules, &count, "allow_file", &service->allow_file.prefixes);
	add_rules(rules, &count, "deny", &service->deny);
	add_rules(rules, &count, "deny_file", &service->deny_file.prefixes);
	qsort(rules, count, sizeof *rules, compare_rules);
	for (size_t i = 1; i < count; i++) {
		bool allows = rules[i].key[0] == 'a', before = rules[i - 1].key[0] == 'a';
		if (compare_rules(&rules[i - 1], &rules[i]) != 0 || allows == before)
			continue;
		const char *allow = rules[allows ? i : i - 1].key, *deny = rules[allows ? i - 1 : i].key;
		option_print_prefix(rules[i].prefix, text);
		report_error(loader, config_service_origin(service, deny), service->name, deny, "%s is in %s too", text,
			     allow);
	}
	free(rules);
}

/* --- TLS and the PROXY protocol --- */

/* Reports KEY for a service that is also served over UDP, where the option would be without effect. */
void check_tcp_alone(struct loader *loader, const struct config_service *service, const char *key, bool on)
{
	if (on && service->transports != TRANSPORT_TCP)
		report_error(loader, config_service_origin(service, key), service->name, key,
			     "needs protocol = tcp: it has no meaning over UDP");
}

/* Reports KEY unless it is THERE, as BY requires it. */
static void check_required(struct loader *loader, const struct config_service *service, const char *key, bool there,
			   const char *by)
{
	if (!there)
		report_error(loader, config_service_origin(service, key), service->name, key, "required with %s", by);
}

static void check_tls_keys(struct loader *loader, const struct config_service *service)
{
	struct config_origin place = config_service_origin(service, "tls_max_version");

	check_required(loader, service, "tls_certificate", service->tls_certificate, "tls = yes");
	if (service->tls_max_version != TLS_VERSION_ANY &&
	    service->tls_max_version < TLS_1_2 + service->tls_min_version)
		report_error(loader, place, service->name, "tls_max_version", "less than tls_min_version");
	if (service->tls_client_auth != TLS_CLIENT_NONE)
		check_required(loader, service, "tls_client_ca", service->tls_client_ca,
			       service->tls_client_auth == TLS_CLIENT_REQUIRED ? "tls_client_auth = required"
									       : "tls_client_auth = optional");
	else if (service->tls_client_ca != NULL)
		report_warning(loader, config_service_origin(service, "tls_client_ca"), service->name, "tls_client_ca",
			       "no client is asked for a certificate: tls_client_auth = none");
	if (service->tls_crl != NULL && service->tls_client_ca == NULL)
		report_error(loader, config_service_origin(service, "tls_crl"), service->name, "tls_crl",
			     "needs tls_client_ca");
}

struct tls_subject {
	struct loader *loader;
	const struct config_service *service;
};

static void report_tls(void *context, enum tls_file file, bool warning, const char *message)
{
	static const char *const keys[] = {
		[TLS_CERTIFICATE] = "tls_certificate",
		[TLS_KEY] = "tls_key",
		[TLS_CLIENT_CA] = "tls_client_ca",
		[TLS_CRL] = "tls_crl",
	};
	const struct tls_subject *subject = context;
	const char *key = file == TLS_KEY && subject->service->tls_key == NULL ? "tls_certificate" : keys[file];

	(warning ? report_warning : report_error)(subject->loader, config_service_origin(subject->service, key),
						  subject->service->name, key, "%s", message);
}

void check_tls(struct loader *loader, struct config_service *service)
{
	size_t errors = loader->diagnostics->errors;
	struct tls_subject subject = {loader, service};
	struct tls_settings settings = {
		.certificate = service->tls_certificate,
		.key = service->tls_key,
		.client_ca = service->tls_client_ca,
		.crl = service->tls_crl,
		.min_version = (enum tls_version)(TLS_1_2 + service->tls_min_version),
		.max_version = (enum tls_version)service->tls_max_version,
		.client_auth = (enum tls_client_auth)service->tls_client_auth,
	};

	check_tls_keys(loader, service);
	if (service->enabled && loader->diagnostics->errors == errors)
		service->tls_context = tls_context_new(&settings, report_tls, &subject);
}

void check_proxy_keys(struct loader *loader, const struct config_service *service)
{
	check_required(loader, service, "proxy_from", service->proxy_from.count > 0, "proxy_protocol = on");
}

/* --- endpoints --- */

static void add_endpoints(struct config *config, struct config_endpoint endpoint)
{
	const struct option_ports *ports = &endpoint.service->ports;

	for (size_t i = 0; i < ports->count; i++)
		for (unsigned port = ports->list[i].first; port <= ports->list[i].last; port++) {
			endpoint.port = (uint16_t)port;
			config->endpoints[config->endpoint_count++] = endpoint;
		}
}

static void add_addresses(struct config *config, struct config_endpoint endpoint)
{
	const struct option_addresses *addresses = &endpoint.service->addresses;

	for (size_t i = 0; i < addresses->count; i++) {
		endpoint.address = addresses->list[i];
		endpoint.from_star = endpoint.address.family == AF_UNSPEC;
		if (!endpoint.from_star) {
			add_endpoints(config, endpoint);
			continue;
		}
		endpoint.address = (struct option_address){.family = AF_INET, .ip.v4.s_addr = htonl(INADDR_ANY)};
		add_endpoints(config, endpoint);
		endpoint.address = (struct option_address){.family = AF_INET6, .ip.v6 = in6addr_any};
		add_endpoints(config, endpoint);
	}
}

static size_t count_endpoints(const struct config_service *service)
{
	size_t transports =
		(service->transports & TRANSPORT_TCP ? 1 : 0) + (service->transports & TRANSPORT_UDP ? 1 : 0);
	size_t addresses = service->addresses.count, ports = 0;

	for (size_t i = 0; i < service->addresses.count; i++)
		addresses += service->addresses.list[i].family == AF_UNSPEC;
	for (size_t i = 0; i < service->ports.count; i++)
		ports += service->ports.list[i].last - service->ports.list[i].first + 1u;
	return service->enabled ? transports * addresses * ports : 0;
}

/* Lists the endpoints of all services. Returns false if they are too many. */
bool check_endpoints(struct loader *loader)
{
	struct config *config = loader->config;
	size_t total = 0;

	for (size_t i = 0; i < config->service_count; i++) {
		const struct config_service *service = &config->services[i];
		total += count_endpoints(service);
		if (total > ENDPOINTS_MAX) {
			report_error(loader, config_service_origin(service, "port"), service->name, "port",
				     "more than %d endpoints in all", ENDPOINTS_MAX);
			return false;
		}
	}
	config->endpoints = calloc(total + 1, sizeof *config->endpoints);
	if (config->endpoints == NULL) {
		loader->out_of_memory = true;
		return false;
	}
	for (size_t i = 0; i < config->service_count; i++)
		for (unsigned transport = TRANSPORT_TCP; transport <= TRANSPORT_UDP; transport <<= 1)
			if (config->services[i].enabled && (config->services[i].transports & transport))
				add_addresses(config, (struct config_endpoint){.service = &config->services[i],
									       .transport = transport});
	return true;
}

static int compare_endpoints(const void *left, const void *right)
{
	const struct config_endpoint *a = left, *b = right;

	if (a->port != b->port)
		return a->port - b->port;
	if (a->transport != b->transport)
		return a->transport < b->transport ? -1 : 1;
	int order = option_compare_addresses(&a->address, &b->address);
	const char *a_interface = a->service->interface, *b_interface = b->service->interface;
	return order ? order : strcmp(a_interface != NULL ? a_interface : "", b_interface != NULL ? b_interface : "");
}

static void report_conflict(struct loader *loader, const struct config_endpoint *endpoint,
			    const struct config_service *owner)
{
	struct config_origin there = config_service_origin(owner, "port");
	bool v6 = endpoint->address.family == AF_INET6;
	char address[INET6_ADDRSTRLEN + IF_NAMESIZE];

	option_print_address(&endpoint->address, address);
	report_error(loader, config_service_origin(endpoint->service, "port"), endpoint->service->name, "port",
		     "%s %s%s%s:%u is already served by [%s] (%s:%u)", transport_name(endpoint->transport),
		     v6 ? "[" : "", address, v6 ? "]" : "", endpoint->port, owner->name, there.file, there.line);
}

/* Reports endpoints that two services use, or one service twice; once per transport for each two services. */
void check_conflicts(struct loader *loader)
{
	const struct config *config = loader->config;
	const struct config_endpoint *last = NULL, *last_first = NULL;
	void *seen = NULL;

	for (size_t i = 0; i < config->endpoint_count && !loader->out_of_memory; i++) {
		const struct config_endpoint *endpoint = &config->endpoints[i];
		if (endpoint->port == 0)
			continue;
		const struct config_endpoint **found = tsearch(endpoint, &seen, compare_endpoints);
		if (found == NULL) {
			loader->out_of_memory = true;
			continue;
		}
		if (*found == endpoint)
			continue;
		if (last == NULL || last->service != endpoint->service || last->transport != endpoint->transport ||
		    last_first->service != (*found)->service)
			report_conflict(loader, endpoint, (*found)->service);
		last = endpoint;
		last_first = *found;
	}
	loader_free_tree(&seen, compare_endpoints);
}

/* --- ephemeral ports --- */

/* Warns of a UDP port that the kernel also gives to clients. */
static void check_ephemeral_ports(struct loader *loader, const struct config_service *service, unsigned low,
				  unsigned high)
{
	if (!service->enabled || !(service->transports & TRANSPORT_UDP))
		return;
	for (size_t i = 0; i < service->ports.count; i++) {
		const struct option_port_range *range = &service->ports.list[i];
		if (range->last < low || range->first > high)
			continue;
		report_warning(loader, config_service_origin(service, "port"), service->name, "port",
			       "udp port %u lies in the kernel's ephemeral range %u-%u: honest clients that get a "
			       "served port as "
			       "their "
			       "source can be refused as loops",
			       range->first > low ? range->first : low, low, high);
		return;
	}
}

void check_ports(struct loader *loader)
{
	unsigned low, high;
	FILE *range = fopen("/proc/sys/net/ipv4/ip_local_port_range", "re");
	bool known = range != NULL && fscanf(range, "%u %u", &low, &high) == 2;

	if (range != NULL)
		fclose(range);
	for (size_t i = 0; known && i < loader->config->service_count; i++)
		check_ephemeral_ports(loader, &loader->config->services[i], low, high);
}
