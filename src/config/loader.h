/* loader.h: loading a configuration, as the modules load, check and messages share it. */
#ifndef SMALLSERVD_CONFIG_LOADER_H
#define SMALLSERVD_CONFIG_LOADER_H

#include "config/config.h"
#include "config/ini.h"
#include "config/target.h"

struct section {
	const struct ini_section *ini;
	const char *file;
};

struct loader {
	struct config *config;
	struct diagnostics *diagnostics;
	struct ini **inis;        /* of each of config->files; NULL where it could not be read */
	struct section *sections; /* of all files */
	size_t section_count;
	const struct section *defaults; /* NULL: none */
	bool *defaults_valid;           /* the entries of [defaults] that can be applied */
	bool syntax_errors, out_of_memory;
};

/* Frees the nodes of a tree of tsearch(3). */
void loader_free_tree(void **tree, int (*compare)(const void *, const void *));

/* --- messages.c --- */

/* Reports an error or a warning about KEY of SECTION, written at PLACE; SECTION and KEY may be NULL. */
void report_error(struct loader *loader, struct config_origin place, const char *section, const char *key,
		  const char *format, ...) __attribute__((format(printf, 5, 6)));
void report_warning(struct loader *loader, struct config_origin place, const char *section, const char *key,
		    const char *format, ...) __attribute__((format(printf, 5, 6)));

/* Returns the row of KEY in any type, or NULL. */
const struct option *config_find_type_option(const char *key);

/* Report an unknown key, with a suggestion. TYPE is NULL for [defaults], where a key of any type may be valid. */
void report_daemon_key(struct loader *loader, struct config_origin place, const char *key);
void report_service_key(struct loader *loader, struct config_origin place, const char *section,
			const struct service *type, const char *key);

/* Reports that the section of SERVICE has no type. */
void report_section(struct loader *loader, const struct config_service *service);

/* --- check.c: errors of single settings are reported before --- */

/* Check the accounts of [daemon], the multicast groups, the access lists and the PROXY protocol of a service. */
void check_accounts(struct loader *loader, const struct target *target);
void check_groups(struct loader *loader, const struct config_service *service);
void check_rules(struct loader *loader, const struct config_service *service);
void check_proxy_keys(struct loader *loader, const struct config_service *service);

/* Reports KEY, if it is ON, for a service that is served over UDP, too. */
void check_tcp_alone(struct loader *loader, const struct config_service *service, const char *key, bool on);

/* Checks the TLS options and loads the TLS context of SERVICE. */
void check_tls(struct loader *loader, struct config_service *service);

/* Lists the endpoints of all services. Returns false if they are too many. */
bool check_endpoints(struct loader *loader);

/* Reports endpoints with two owners. */
void check_conflicts(struct loader *loader);

/* Warns of UDP ports that the kernel gives to clients. */
void check_ports(struct loader *loader);

#endif
