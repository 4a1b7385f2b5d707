/* target.h: the struct that the keys of a section fill, with the rows of its options. */
#ifndef SMALLSERVD_CONFIG_TARGET_H
#define SMALLSERVD_CONFIG_TARGET_H

#include "config/keys.h"
#include "service/service.h"

struct target {
	const char *section;
	struct config_origin place; /* of its header */
	const struct service *type; /* NULL: [daemon], or a service of unknown type */
	unsigned transports;
	struct rows {
		const struct option *options;
		size_t count;
		void *base;
		struct config_origin *origins;
	} rows[2]; /* those of every service, and those of its type */
};

/* A value: its row, its field, and the place where it was written. */
struct setting {
	const struct option *option;
	void *field;
	struct config_origin *origin;
};

struct target target_of_daemon(struct config_daemon *daemon);
struct target target_of_service(struct config_service *service);

/* Returns the number of settings, and the one at INDEX. */
size_t target_setting_count(const struct target *target);
struct setting target_setting(const struct target *target, size_t index);

/* Finds the setting of KEY. Returns false if there is none. */
bool target_find(const struct target *target, const char *key, struct setting *setting);

/* Returns whether OPTION applies to one of TRANSPORTS; 0: they are unknown. */
bool target_fits(const struct option *option, unsigned transports);

/* Returns whether the switch that OPTION needs is on. */
bool target_has_need(const struct target *target, const struct option *option);

#endif
