/* target.c: the struct that the keys of a section fill, with the rows of its options. */
#include "config/target.h"

#include <string.h>

/* --- sections --- */

struct target target_of_daemon(struct config_daemon *daemon)
{
	return (struct target){
		.section = "daemon",
		.rows = {{config_daemon_options, config_daemon_option_count, daemon, daemon->origins}},
	};
}

struct target target_of_service(struct config_service *service)
{
	struct target target = {
		.section = service->name,
		.place = service->origin,
		.type = service->type,
		.transports = service->transports,
		.rows = {{config_service_options, config_service_option_count, service, service->origins}},
	};
	if (service->settings != NULL)
		target.rows[1] = (struct rows){service->type->options, service->type->option_count, service->settings,
					       service->settings_origins};
	return target;
}

/* --- settings --- */

size_t target_setting_count(const struct target *target)
{
	return target->rows[0].count + target->rows[1].count;
}

struct setting target_setting(const struct target *target, size_t index)
{
	const struct rows *rows = &target->rows[index >= target->rows[0].count];
	size_t row = index - (rows == target->rows ? 0 : target->rows[0].count);

	return (struct setting){
		.option = &rows->options[row],
		.field = option_field(&rows->options[row], rows->base),
		.origin = &rows->origins[row],
	};
}

bool target_find(const struct target *target, const char *key, struct setting *setting)
{
	for (size_t i = 0; i < target_setting_count(target); i++) {
		*setting = target_setting(target, i);
		if (strcmp(setting->option->key, key) == 0)
			return true;
	}
	return false;
}

/* Does OPTION fit the transports of a section? None: they are not known. */
bool target_fits(const struct option *option, unsigned transports)
{
	return !option->transports || !transports || (option->transports & transports);
}

/* Is the option on without which OPTION means nothing? */
bool target_has_need(const struct target *target, const struct option *option)
{
	struct setting setting;
	return option->needs == NULL || (target_find(target, option->needs, &setting) && *(const bool *)setting.field);
}
