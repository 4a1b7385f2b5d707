/* config.c: a configuration as one immutable, reference-counted value. */
#include "config/config.h"

#include <stdlib.h>
#include <syslog.h>

#include "config/target.h"
#include "core/array.h"
#include "tls/tls.h"

static void free_fields(const struct target *target)
{
	for (size_t i = 0; i < COUNT_OF(target->rows); i++)
		for (size_t j = 0; j < target->rows[i].count; j++) {
			const struct option *option = &target->rows[i].options[j];
			if (option->type->free != NULL)
				option->type->free(option_field(option, target->rows[i].base));
		}
}

static void free_service(struct config_service *service)
{
	struct target target = target_of_service(service);

	tls_context_free(service->tls_context);
	free_fields(&target);
	free(service->settings_origins);
	free(service->settings);
	free(service->origins);
	free(service->name);
}

static void free_config(struct config *config)
{
	struct target daemon = target_of_daemon(&config->daemon);

	free(config->endpoints);
	for (size_t i = 0; i < config->service_count; i++)
		free_service(&config->services[i]);
	free(config->services);
	free_fields(&daemon);
	free(config->daemon.origins);
	for (size_t i = 0; i < config->file_count; i++)
		free(config->files[i]);
	free(config->files);
	free(config->file);
	free(config);
}

struct config *config_ref(struct config *config)
{
	atomic_fetch_add_explicit(&config->references, 1, memory_order_relaxed);
	return config;
}

void config_unref(struct config *config)
{
	if (config != NULL && atomic_fetch_sub_explicit(&config->references, 1, memory_order_acq_rel) == 1)
		free_config(config);
}

static void dump_section(struct target target, FILE *out)
{
	fprintf(out, "[%s]\n", target.section);
	for (size_t i = 0; i < target_setting_count(&target); i++) {
		struct setting setting = target_setting(&target, i);
		if (!target_fits(setting.option, target.transports) || !target_has_need(&target, setting.option))
			continue;
		fprintf(out, "%s = ", setting.option->key);
		setting.option->type->print(setting.option, setting.field, out);
		putc('\n', out);
	}
}

void config_dump(const struct config *config, FILE *out)
{
	struct config_daemon daemon = config->daemon;

	daemon.include = NULL; /* included services follow */
	dump_section(target_of_daemon(&daemon), out);
	for (size_t i = 0; i < config->service_count; i++) {
		putc('\n', out);
		dump_section(target_of_service(&config->services[i]), out);
	}
}

int config_log_level(const struct config *config)
{
	return LOG_ERR + config->daemon.log_level;
}

int config_syslog_facility(const struct config *config)
{
	return config_options_facility(&config->daemon);
}

struct config_origin config_service_origin(const struct config_service *service, const char *key)
{
	struct target target = target_of_service((struct config_service *)service);
	struct setting setting;

	if (service->origins != NULL && target_find(&target, key, &setting) && setting.origin->line)
		return *setting.origin;
	return service->origin;
}
