/* keys.h: the options of [daemon] and of every service, as rows. */
#ifndef SMALLSERVD_CONFIG_KEYS_H
#define SMALLSERVD_CONFIG_KEYS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/diagnostics.h"
#include "core/token_bucket.h"
#include "option/option.h"
#include "service/service.h"

/* Values of log_target, in the order of its words. */
enum config_log_target { LOG_TARGET_AUTO, LOG_TARGET_STDERR, LOG_TARGET_SYSLOG, LOG_TARGET_JOURNAL };

/* Values of sandbox, in the order of its words. */
enum config_sandbox { SANDBOX_AUTO, SANDBOX_ON, SANDBOX_OFF };

/* [daemon] */
struct config_daemon {
	int64_t workers; /* 0: auto */
	char *user;      /* the user to become after a start as root */
	char *group;     /* NULL: the user's primary group */
	char *pid_file;  /* NULL: none */
	int log_target;  /* enum config_log_target */
	int log_level;   /* LOG_ERR .. LOG_DEBUG of syslog(3) less LOG_ERR, see config_log_level */
	int syslog_facility;
	int64_t max_connections; /* 0: auto */
	int64_t stop_timeout_ms;
	int sandbox; /* enum config_sandbox */
	int64_t drain_timeout_ms;
	char *include;                 /* NULL: none */
	struct config_origin *origins; /* a row of config_daemon_options each */
};

/* One service section, [defaults] and defaults applied. */
struct config_service {
	char *name;
	const struct service *type;
	bool enabled;
	unsigned transports; /* TRANSPORT_* bits */
	struct option_addresses addresses;
	struct option_ports ports;
	char *interface; /* NULL: any */
	bool free_bind;
	char *socket_name; /* FileDescriptorName of a socket from LISTEN_FDS; NULL: any */
	int64_t backlog;
	int64_t max_connections;            /* INT64_MAX: unlimited */
	int64_t max_connections_per_source; /* INT64_MAX: unlimited; 0: auto, half of the daemon's */
	struct token_rate connection_rate;  /* new connections of a source */
	struct token_rate datagram_rate;    /* replies to a source */
	struct option_source_prefix source_prefix;
	struct option_prefixes allow, deny;
	struct option_prefix_file allow_file, deny_file;
	struct option_ports
		refuse_source_ports; /* source ports refused over UDP, besides the served ones; empty: none */
	int64_t idle_timeout_ms;     /* 0: off */
	int64_t lifetime_ms;         /* 0: off */
	int64_t max_datagram;        /* bytes */
	struct option_addresses multicast_groups;
	int64_t dscp;           /* DSCP_NONE, DSCP_COPY, or 0 to 63 */
	int64_t receive_buffer; /* bytes; 0: auto, 1 MiB for UDP, the kernel's for TCP */
	int64_t send_buffer;    /* bytes; 0: the kernel's */
	int64_t keepalive_ms;   /* 0: off */
	int64_t handshake_timeout_ms;
	bool proxy_protocol;
	struct option_prefixes proxy_from;
	bool tls;
	char *tls_certificate; /* NULL: none, as the others */
	char *tls_key;
	int tls_min_version; /* 0: 1.2, 1: 1.3 */
	int tls_max_version; /* enum tls_version */
	char *tls_client_ca;
	int tls_client_auth; /* enum tls_client_auth */
	char *tls_crl;
	struct tls_context *tls_context; /* of those files; NULL: without TLS, or not enabled */
	bool log_connections;
	void *settings; /* the type's own options; NULL without */

	struct config_origin origin;            /* of the section's header */
	struct config_origin *origins;          /* a row of config_service_options each */
	struct config_origin *settings_origins; /* a row of type->options each */
};

/* Rows of [daemon] and of every service. */
extern const struct option config_daemon_options[];
extern const size_t config_daemon_option_count;
extern const struct option config_service_options[];
extern const size_t config_service_option_count;

/* Appends to ERROR (OPTION_ERROR_SIZE bytes) the type that was probably meant by TEXT, else all types. */
void config_options_suggest_type(const char *text, char *error);

/* Returns the facility of syslog(3) for the daemon's syslog_facility. */
int config_options_facility(const struct config_daemon *daemon);

#endif
