/* load.c: reads a configuration file and the files it includes. */
#include <errno.h>
#include <glob.h>
#include <search.h>
#include <stdlib.h>
#include <string.h>

#include "config/loader.h"
#include "core/array.h"
#include "core/transport.h"

/* The origin of defaults. */
static const struct config_origin no_origin;

/* --- values --- */

/* Parses TEXT, written at ORIGIN, into SETTING. After an error the field stays empty: the default is not applied. */
static void set_value(struct loader *loader, const struct target *target, const struct setting *setting,
		      struct config_origin origin, const char *text)
{
	char error[OPTION_ERROR_SIZE];

	*setting->origin = origin;
	if (!setting->option->type->parse(setting->option, text, setting->field, error))
		report_error(loader, origin.line ? origin : target->place, target->section, setting->option->key, "%s",
			     error);
}

/* Applies ENTRY of a section in FILE, unless it was applied early. */
static void apply_entry(struct loader *loader, const struct target *target, const char *file,
			const struct ini_entry *entry)
{
	struct config_origin place = {file, entry->line};
	struct setting setting;

	if (!target_find(target, entry->key, &setting)) {
		if (target->rows[0].options == config_daemon_options)
			report_daemon_key(loader, place, entry->key);
		else
			report_service_key(loader, place, target->section, target->type, entry->key);
		return;
	}
	if (setting.origin->line == entry->line)
		return;
	if (setting.origin->line)
		report_error(loader, place, target->section, entry->key, "already set at %s:%u", setting.origin->file,
			     setting.origin->line);
	else if (!target_fits(setting.option, target->transports))
		report_error(loader, place, target->section, entry->key, "does not fit protocol = %s",
			     transport_name(target->transports));
	else if (!target_has_need(target, setting.option))
		report_error(loader, place, target->section, entry->key, "needs %s = yes", setting.option->needs);
	else
		set_value(loader, target, &setting, place, entry->value);
}

static void apply_entries(struct loader *loader, const struct target *target, const struct section *section)
{
	for (size_t i = 0; i < section->ini->entry_count; i++)
		apply_entry(loader, target, section->file, &section->ini->entries[i]);
}

/* Applies the defaults of all settings that are not written, by the same parsers. */
static void apply_initials(struct loader *loader, const struct target *target)
{
	for (size_t i = 0; i < target_setting_count(target); i++) {
		struct setting setting = target_setting(target, i);
		bool amplifies =
			target->type != NULL && target->type->amplifies && setting.option->initial_amplifying != NULL;
		const char *initial = amplifies ? setting.option->initial_amplifying : setting.option->initial;
		if (setting.origin->line == 0 && initial != NULL)
			set_value(loader, target, &setting, no_origin, initial);
	}
}

static const struct ini_entry *find_entry(const struct ini_section *section, const char *key)
{
	for (size_t i = 0; i < section->entry_count; i++)
		if (strcmp(section->entries[i].key, key) == 0)
			return &section->entries[i];
	return NULL;
}

/* --- files --- */

struct reading {
	struct loader *loader;
	const char *file;
};

static void on_ini_error(void *context, unsigned line, const char *section, const char *key, const char *message)
{
	struct reading *reading = context;
	reading->loader->syntax_errors = true;
	report_error(reading->loader, (struct config_origin){reading->file, line}, section, key, "%s", message);
}

/* Adds a file called NAME. Returns NULL when out of memory. */
static const char *add_file(struct loader *loader, const char *name)
{
	struct config *config = loader->config;
	char **files = reallocarray(config->files, config->file_count + 1, sizeof *files);
	if (files != NULL)
		config->files = files;
	struct ini **inis = reallocarray(loader->inis, config->file_count + 1, sizeof(struct ini *));
	if (inis != NULL)
		loader->inis = inis;
	char *copy = strdup(name);

	if (files == NULL || inis == NULL || copy == NULL) {
		free(copy);
		loader->out_of_memory = true;
		return NULL;
	}
	inis[config->file_count] = NULL;
	return files[config->file_count++] = copy;
}

typedef struct ini *read_ini(const char *path, ini_on_error on_error, void *context);

static void read_file(struct loader *loader, const char *path, read_ini *read)
{
	struct reading reading = {loader, add_file(loader, strcmp(path, "-") == 0 ? "stdin" : path)};
	if (reading.file != NULL)
		loader->inis[loader->config->file_count - 1] = read(path, on_ini_error, &reading);
}

static void read_memory(struct loader *loader, const char *name, const char *bytes, size_t length)
{
	struct reading reading = {loader, add_file(loader, name)};
	if (reading.file != NULL)
		loader->inis[loader->config->file_count - 1] = ini_read_memory(bytes, length, on_ini_error, &reading);
}

/* Returns INCLUDE as a glob from the directory of FILE, for the caller to free. */
static char *make_pattern(const char *file, const char *include)
{
	const char *slash = strrchr(file, '/');
	size_t directory = slash != NULL && *include != '/' ? (size_t)(slash + 1 - file) : 0;
	char *pattern = malloc(2 * directory + strlen(include) + 1), *end = pattern;

	if (pattern == NULL)
		return NULL;
	for (size_t i = 0; i < directory; i++) {
		if (strchr("*?[\\", file[i]) != NULL)
			*end++ = '\\';
		*end++ = file[i];
	}
	strcpy(end, include);
	return pattern;
}

/* Ignores a missing directory, which has no match; one that cannot be read may have. */
static int on_glob_error(const char *path, int error)
{
	(void)path;
	return error != ENOENT && error != ENOTDIR;
}

static void read_includes(struct loader *loader)
{
	const char *include = loader->config->daemon.include;
	struct setting setting;
	struct target target = target_of_daemon(&loader->config->daemon);
	glob_t matches = {.gl_pathc = 0};

	if (include == NULL || !target_find(&target, "include", &setting))
		return;
	char *pattern = make_pattern(loader->config->files[0], include);
	int result = pattern != NULL ? glob(pattern, 0, on_glob_error, &matches) : GLOB_NOSPACE;
	if (result == GLOB_NOSPACE)
		loader->out_of_memory = true;
	else if (result == GLOB_ABORTED)
		report_error(loader, *setting.origin, "daemon", "include", "cannot read a directory of %s",
			     option_quote(pattern).text);
	else if (result == GLOB_NOMATCH && strpbrk(include, "*?[") == NULL)
		report_error(loader, *setting.origin, "daemon", "include", "no such file: %s",
			     option_quote(pattern).text);
	for (size_t i = 0; result == 0 && i < matches.gl_pathc; i++)
		read_file(loader, matches.gl_pathv[i], ini_read_file);
	globfree(&matches);
	free(pattern);
}

/* --- sections --- */

void loader_free_tree(void **tree, int (*compare)(const void *, const void *))
{
	while (*tree != NULL)
		tdelete(*(void **)*tree, tree, compare);
}

static int compare_sections(const void *a, const void *b)
{
	return strcmp(((const struct section *)a)->ini->name, ((const struct section *)b)->ini->name);
}

static bool is_service(const struct section *section)
{
	return strcmp(section->ini->name, "daemon") != 0 && strcmp(section->ini->name, "defaults") != 0;
}

/* Lists a section of a file, unless it is a duplicate or must not be there. */
static void list_section(struct loader *loader, const struct section *found, void **names)
{
	struct section *section = &loader->sections[loader->section_count];
	struct config_origin place = {found->file, found->ini->line};
	const char *main_file = loader->config->files[0];

	if (!is_service(found) && found->file != main_file) {
		report_error(loader, place, found->ini->name, NULL,
			     "belongs in %s: an included file holds services only", main_file);
		return;
	}
	*section = *found;
	struct section **first = tsearch(section, names, compare_sections);
	if (first == NULL)
		loader->out_of_memory = true;
	else if (*first != section)
		report_error(loader, place, found->ini->name, NULL, "already a section at %s:%u", (*first)->file,
			     (*first)->ini->line);
	else
		loader->section_count++;
}

/* Lists the sections of all files. */
static void list_sections(struct loader *loader)
{
	const struct config *config = loader->config;
	size_t total = 0;
	void *names = NULL;

	for (size_t i = 0; i < config->file_count; i++)
		total += loader->inis[i] != NULL ? loader->inis[i]->section_count : 0;
	loader->sections = calloc(total + 1, sizeof *loader->sections);
	if (loader->sections == NULL) {
		loader->out_of_memory = true;
		return;
	}
	for (size_t i = 0; i < config->file_count; i++)
		for (size_t j = 0; loader->inis[i] != NULL && j < loader->inis[i]->section_count; j++)
			list_section(loader, &(struct section){&loader->inis[i]->sections[j], config->files[i]},
				     &names);
	loader_free_tree(&names, compare_sections);
}

/* --- [daemon] --- */

static void read_daemon(struct loader *loader)
{
	struct config *config = loader->config;
	const struct ini *ini = loader->inis[0];
	size_t i = 0;

	config->daemon.origins = calloc(config_daemon_option_count, sizeof *config->daemon.origins);
	if (config->daemon.origins == NULL) {
		loader->out_of_memory = true;
		return;
	}
	struct target target = target_of_daemon(&config->daemon);
	target.place.file = config->files[0];
	while (i < ini->section_count && strcmp(ini->sections[i].name, "daemon") != 0)
		i++;
	if (i < ini->section_count)
		apply_entries(loader, &target, &(struct section){&ini->sections[i], config->files[0]});
	apply_initials(loader, &target);
	check_accounts(loader, &target);
}

/* --- [defaults] --- */

/* Parses TEXT by OPTION, a row of a struct of SIZE bytes, to see whether it is valid. */
static bool try_value(struct loader *loader, struct config_origin place, const struct option *option, size_t size,
		      const char *text)
{
	char error[OPTION_ERROR_SIZE] = "out of memory";
	void *base = calloc(1, size);
	bool valid = base != NULL && option->type->parse(option, text, option_field(option, base), error);

	if (!valid)
		report_error(loader, place, "defaults", option->key, "%s", error);
	else if (option->type->free != NULL)
		option->type->free(option_field(option, base));
	free(base);
	return valid;
}

/* Returns whether ENTRY of [defaults] is valid. Reports an error once, and not for each service. */
static bool check_default(struct loader *loader, const struct section *defaults, const struct ini_entry *entry)
{
	struct config_origin place = {defaults->file, entry->line};
	const struct option *option = option_find(config_service_options, config_service_option_count, entry->key);

	if (option == NULL && config_find_type_option(entry->key) == NULL) {
		report_service_key(loader, place, "defaults", NULL, entry->key);
		return false;
	}
	const struct ini_entry *first = find_entry(defaults->ini, entry->key);
	if (first != NULL && first != entry) {
		report_error(loader, place, "defaults", entry->key, "already set at %s:%u", place.file, first->line);
		return false;
	}
	if (option != NULL)
		return try_value(loader, place, option, sizeof(struct config_service), entry->value);
	for (size_t i = 0; i < service_count; i++) {
		const struct service *type = service_table[i];
		option = option_find(type->options, type->option_count, entry->key);
		if (option != NULL && !try_value(loader, place, option, type->settings_size, entry->value))
			return false;
	}
	return true;
}

static void check_defaults(struct loader *loader)
{
	for (size_t i = 0; i < loader->section_count; i++)
		if (strcmp(loader->sections[i].ini->name, "defaults") == 0)
			loader->defaults = &loader->sections[i];
	if (loader->defaults == NULL)
		return;

	const struct ini_section *ini = loader->defaults->ini;
	loader->defaults_valid = calloc(ini->entry_count + 1, sizeof *loader->defaults_valid);
	if (loader->defaults_valid == NULL)
		loader->out_of_memory = true;
	for (size_t i = 0; i < ini->entry_count && loader->defaults_valid != NULL; i++)
		loader->defaults_valid[i] = check_default(loader, loader->defaults, &ini->entries[i]);
}

/* Applies [defaults] to TARGET; KEY: that key alone. */
static void apply_defaults(struct loader *loader, const struct target *target, const char *key)
{
	const struct section *defaults = loader->defaults;
	struct setting setting;

	if (defaults == NULL || loader->defaults_valid == NULL)
		return;
	for (size_t i = 0; i < defaults->ini->entry_count; i++) {
		const struct ini_entry *entry = &defaults->ini->entries[i];
		struct config_origin place = {defaults->file, entry->line};
		if (!loader->defaults_valid[i] || (key != NULL && strcmp(key, entry->key) != 0))
			continue;
		if (target_find(target, entry->key, &setting) && setting.origin->line == 0 &&
		    target_fits(setting.option, target->transports) && target_has_need(target, setting.option))
			set_value(loader, target, &setting, place, entry->value);
	}
}

/* --- services --- */

/* Applies KEY early: from SECTION, else from [defaults]. Returns whether it is written. */
static bool apply_early(struct loader *loader, const struct target *target, const struct section *section,
			const char *key)
{
	const struct ini_entry *entry = find_entry(section->ini, key);
	struct setting setting;

	if (entry != NULL)
		apply_entry(loader, target, section->file, entry);
	else
		apply_defaults(loader, target, key);
	return target_find(target, key, &setting) && setting.origin->line > 0;
}

/* Applies switches before the keys that need them. */
static void apply_switches(struct loader *loader, const struct target *target, const struct section *section)
{
	static const char *const keys[] = {"proxy_protocol", "tls"};
	struct setting setting;

	for (size_t i = 0; i < COUNT_OF(keys); i++)
		if (target_find(target, keys[i], &setting) && target_fits(setting.option, target->transports))
			apply_early(loader, target, section, keys[i]);
}

/* Determines the type of SERVICE, on which the other keys depend. */
static void resolve_type(struct loader *loader, const struct section *section, struct config_service *service)
{
	struct target target = target_of_service(service);

	if (!apply_early(loader, &target, section, "type")) {
		service->type = service_find(service->name);
		if (service->type == NULL)
			report_section(loader, service);
	}
	if (service->type == NULL || service->type->option_count == 0)
		return;

	service->settings_origins = calloc(service->type->option_count, sizeof *service->settings_origins);
	service->settings = calloc(1, service->type->settings_size);
	if (service->settings == NULL || service->settings_origins == NULL)
		loader->out_of_memory = true;
}

/* Determines the transports of SERVICE, on which the valid keys depend. */
static void resolve_transports(struct loader *loader, const struct section *section, struct config_service *service)
{
	struct target target = target_of_service(service);
	unsigned offered = service->type != NULL ? service->type->transports : TRANSPORT_BOTH;

	apply_early(loader, &target, section, "protocol");
	if (find_entry(section->ini, "protocol") == NULL) {
		/* [defaults] may name a transport that this type lacks */
		service->transports &= offered;
		if (!service->transports)
			service->transports = offered;
	}
	if (service->transports & ~offered)
		report_error(loader, config_service_origin(service, "protocol"), service->name, "protocol",
			     "type %s has no %s", service->type->name, transport_name(service->transports & ~offered));
}

/* Applies the type's port as the default. */
static void apply_type_port(struct loader *loader, const struct target *target)
{
	struct setting setting;
	char text[sizeof("65535")];

	if (target->type == NULL || !target_find(target, "port", &setting) || setting.origin->line)
		return;
	snprintf(text, sizeof text, "%u", target->type->port);
	set_value(loader, target, &setting, no_origin, text);
}

/* The place of a file name. */
struct file_subject {
	struct loader *loader;
	struct config_origin place;
	const char *section, *key;
};

static void report_file_error(void *context, const char *message)
{
	const struct file_subject *subject = context;
	report_error(subject->loader, subject->place, subject->section, subject->key, "%s", message);
}

/* Loads the files that values name. */
static void load_files(struct loader *loader, const struct target *target)
{
	for (size_t i = 0; i < target_setting_count(target); i++) {
		struct setting setting = target_setting(target, i);
		struct file_subject subject = {
			.loader = loader,
			.place = setting.origin->line ? *setting.origin : target->place,
			.section = target->section,
			.key = setting.option->key,
		};
		if (setting.option->type->load != NULL)
			setting.option->type->load(setting.option, setting.field, report_file_error, &subject);
	}
}

static void build_service(struct loader *loader, const struct section *section, struct config_service *service)
{
	service->origin = (struct config_origin){section->file, section->ini->line};
	service->name = strdup(section->ini->name);
	service->origins = calloc(config_service_option_count, sizeof *service->origins);
	if (service->name == NULL || service->origins == NULL) {
		loader->out_of_memory = true;
		return;
	}

	resolve_type(loader, section, service);
	if (loader->out_of_memory)
		return;
	resolve_transports(loader, section, service);
	struct target target = target_of_service(service);
	apply_switches(loader, &target, section);
	apply_entries(loader, &target, section);
	apply_defaults(loader, &target, NULL);
	apply_type_port(loader, &target);
	apply_initials(loader, &target);
	if (service->enabled)
		load_files(loader, &target);
	check_rules(loader, service);
	check_groups(loader, service);
	check_tcp_alone(loader, service, "proxy_protocol", service->proxy_protocol);
	check_tcp_alone(loader, service, "tls", service->tls);
	if (service->proxy_protocol)
		check_proxy_keys(loader, service);
	if (service->tls)
		check_tls(loader, service);
}

static void build_services(struct loader *loader)
{
	struct config *config = loader->config;
	size_t errors = loader->diagnostics->errors;
	bool enabled = false;

	config->services = calloc(loader->section_count + 1, sizeof *config->services);
	if (config->services == NULL) {
		loader->out_of_memory = true;
		return;
	}
	for (size_t i = 0; i < loader->section_count; i++)
		if (is_service(&loader->sections[i]))
			build_service(loader, &loader->sections[i], &config->services[config->service_count++]);
	for (size_t i = 0; i < config->service_count; i++)
		enabled |= config->services[i].enabled;
	if (!enabled && !loader->syntax_errors && loader->diagnostics->errors == errors)
		report_error(loader, (struct config_origin){config->files[0], 0}, NULL, NULL, "no service is enabled");
}

/* --- loading --- */

static bool loader_start(struct loader *loader, const char *file, struct diagnostics *diagnostics)
{
	*loader = (struct loader){.config = calloc(1, sizeof *loader->config), .diagnostics = diagnostics};
	diagnostics->errors++; /* out of memory, until the end of this function */
	if (loader->config == NULL)
		return false;
	atomic_init(&loader->config->references, 1);
	loader->config->file = strdup(file);
	if (loader->config->file == NULL) {
		config_unref(loader->config);
		return false;
	}
	diagnostics->errors--;
	return true;
}

/* Builds the configuration from the file that was read first, unless it could not be read. */
static void loader_run(struct loader *loader)
{
	if (loader->config->file_count == 0 || loader->inis[0] == NULL)
		return;
	read_daemon(loader);
	read_includes(loader);
	list_sections(loader);
	check_defaults(loader);
	build_services(loader);
	if (!loader->out_of_memory && check_endpoints(loader))
		check_conflicts(loader);
	check_ports(loader);
}

static struct config *loader_finish(struct loader *loader)
{
	struct config *config = loader->config;

	if (loader->out_of_memory)
		report_error(loader, (struct config_origin){config->file, 0}, NULL, NULL, "out of memory");
	for (size_t i = 0; i < config->file_count; i++)
		ini_free(loader->inis[i]);
	free(loader->inis);
	free(loader->sections);
	free(loader->defaults_valid);
	if (loader->diagnostics->errors == 0)
		return config;
	config_unref(config);
	return NULL;
}

static struct config *load(const char *file, read_ini *read, struct diagnostics *diagnostics)
{
	struct loader loader;

	if (!loader_start(&loader, file, diagnostics))
		return NULL;
	read_file(&loader, file, read);
	loader_run(&loader);
	return loader_finish(&loader);
}

struct config *config_load(const char *file, struct diagnostics *diagnostics)
{
	return load(file, ini_read_input, diagnostics);
}

struct config *config_load_again(const char *file, struct diagnostics *diagnostics)
{
	return load(file, ini_read_file, diagnostics);
}

struct config *config_load_memory(const char *name, const char *bytes, size_t length, struct diagnostics *diagnostics)
{
	struct loader loader;

	if (!loader_start(&loader, name, diagnostics))
		return NULL;
	read_memory(&loader, name, bytes, length);
	loader_run(&loader);
	return loader_finish(&loader);
}
