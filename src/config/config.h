/* config.h: a configuration as one immutable, reference-counted value. */
#ifndef SMALLSERVD_CONFIG_CONFIG_H
#define SMALLSERVD_CONFIG_CONFIG_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "config/keys.h"
#include "core/diagnostics.h"

/* One transport, address and port of an enabled service; `*` makes two. */
struct config_endpoint {
	const struct config_service *service;
	unsigned transport;            /* TRANSPORT_TCP or TRANSPORT_UDP */
	struct option_address address; /* never AF_UNSPEC */
	bool from_star;                /* half of a `*`: skipped if the host lacks its family */
	uint16_t port;                 /* 0: the kernel picks */
};

struct config {
	atomic_uint references;
	char *file;
	struct config_daemon daemon;
	struct config_service *services; /* in the order of the file, disabled ones included */
	size_t service_count;
	struct config_endpoint *endpoints; /* of the enabled services, in the order of the file */
	size_t endpoint_count;
	char **files; /* every file that was read, included ones too */
	size_t file_count;
};

/* Reads FILE (`-`: standard input) and the files that it includes. Returns a configuration with one reference, or NULL
 * after errors. Adds errors and warnings to DIAGNOSTICS. Main thread. */
struct config *config_load(const char *file, struct diagnostics *diagnostics);

/* Reads FILE without blocking, for a process that serves meanwhile: FILE has to be a regular file. Otherwise as
 * config_load. */
struct config *config_load_again(const char *file, struct diagnostics *diagnostics);

/* Reads LENGTH bytes of memory, for tests; NAME stands for the file. Otherwise as config_load. */
struct config *config_load_memory(const char *name, const char *bytes, size_t length, struct diagnostics *diagnostics);

/* Add and drop a reference; the last one frees. NULL is fine for config_unref. Any thread. */
struct config *config_ref(struct config *config);
void config_unref(struct config *config);

/* Writes the effective configuration as an INI file that parses to the same; included services are part of it. */
void config_dump(const struct config *config, FILE *out);

/* Returns the level of syslog(3) for the daemon's log_level. */
int config_log_level(const struct config *config);
/* Returns the facility of syslog(3) for the daemon's syslog_facility. */
int config_syslog_facility(const struct config *config);

/* Returns the place where KEY of SERVICE was written, else that of the section's header. */
struct config_origin config_service_origin(const struct config_service *service, const char *key);

#endif
