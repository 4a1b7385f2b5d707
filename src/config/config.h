/* config.h: a configuration file as one immutable, reference-counted value. */
#ifndef SMALLSERVD_CONFIG_CONFIG_H
#define SMALLSERVD_CONFIG_CONFIG_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "config/keys.h"
#include "core/diagnostics.h"

/* One transport, address and port of an enabled service; `*` made two. */
struct config_endpoint {
	const struct config_service *service;
	unsigned transport;            /* TRANSPORT_TCP or TRANSPORT_UDP */
	struct option_address address; /* never AF_UNSPEC */
	bool from_star;                /* one half of `*`: skipped where the host lacks its family */
	uint16_t port;                 /* 0: the kernel picks */
};

struct config {
	atomic_uint references;
	char *file;
	struct config_daemon daemon;
	struct config_service *services; /* in the order of the file, the disabled ones included */
	size_t service_count;
	struct config_endpoint *endpoints; /* of the enabled services, in the order of the file */
	size_t endpoint_count;
	char **files; /* every file that was read, the included ones too */
	size_t file_count;
};

/* Reads FILE (`-`: standard input) and what it includes. Returns a configuration with one reference, or NULL when
 * anything is wrong; REPORT, empty before, then has every error, and warnings either way. Free it with
 * diagnostics_free. */
struct config *config_load(const char *file, struct diagnostics *diagnostics);

/* The same for a process that serves meanwhile: it waits for nobody, so FILE has to be a regular one. */
struct config *config_load_again(const char *file, struct diagnostics *diagnostics);

/* The same from memory, for tests and fuzzing; NAME stands for the file. */
struct config *config_load_memory(const char *name, const char *bytes, size_t length, struct diagnostics *diagnostics);

/* One more, one less reference; thread-safe; the last one frees. NULL is fine for unref. */
struct config *config_ref(struct config *config);
void config_unref(struct config *config);

/* Writes the effective configuration as an INI file that reads back to the same; included services stand in line. */
void config_dump(const struct config *config, FILE *out);

/* The level of syslog(3) for the daemon's log_level. */
int config_log_level(const struct config *config);
/* The facility of syslog(3) for the daemon's syslog_facility. */
int config_syslog_facility(const struct config *config);

/* Where KEY of SERVICE was written: its own row, else the section's header. */
struct config_origin config_service_origin(const struct config_service *service, const char *key);

#endif
