/* config.c: a configuration file as one immutable, reference-counted value. */
#include "config_build.h"

#include "config/config.h"

#include <arpa/inet.h>
#include <errno.h>
#include <glob.h>
#include <grp.h>
#include <pwd.h>
#include <search.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <syslog.h>

#include "config/ini.h"
#include "core/transport.h"
#include "option/option.h"
#include "service/service.h"
#include "tls/tls.h"

#define COUNT_OF(array) (sizeof(array) / sizeof((array)[0]))

enum {
	ENDPOINTS_MAX = 1 << 20,
	WORDS_MAX = 128,
};

/* Words of other programs for keys of ours. */
static const struct alias {
	const char *foreign, *key;
} aliases[] = {
	{"bind", "address"},        {"listen", "address"}, {"disable", "enabled"},
	{"only_from", "allow"},     {"no_access", "deny"}, {"instances", "max_connections"},
	{"cps", "connection_rate"},
};

/* Words to suggest from */

struct words {
	const char *list[WORDS_MAX];
	size_t count;
};

static void add_word(struct words *words, const char *word)
{
	if (words->count < WORDS_MAX)
		words->list[words->count++] = word;
}

static void add_keys(struct words *words, const struct option *options, size_t count)
{
	for (size_t i = 0; i < count; i++)
		add_word(words, options[i].key);
}

/* The word that KEY was meant to be, or NULL. */
static const char *suggest_key(const struct words *words, const char *key)
{
	for (size_t i = 0; i < COUNT_OF(aliases); i++)
		for (size_t j = 0; j < words->count && strcmp(aliases[i].foreign, key) == 0; j++)
			if (strcmp(words->list[j], aliases[i].key) == 0)
				return aliases[i].key;
	return option_nearest(key, words->list, words->count);
}

/* The report */

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
	bool *defaults_fine;            /* which of its entries can be applied */
	bool syntax_errors, out_of_memory;
};

static size_t file_order(const struct loader *loader, const char *file)
{
	size_t order = 0;
	while (order < loader->config->file_count && loader->config->files[order] != file)
		order++;
	return order;
}

static void complain(struct loader *loader, struct config_origin place, const char *section, const char *key,
		     const char *format, ...) __attribute__((format(printf, 5, 6)));

static void complain(struct loader *loader, struct config_origin place, const char *section, const char *key,
		     const char *format, ...)
{
	struct diagnostic_place about = {place, file_order(loader, place.file), section, key};
	va_list arguments;
	va_start(arguments, format);
	diagnostics_add(loader->diagnostics, false, &about, format, arguments);
	va_end(arguments);
}

static void warn(struct loader *loader, struct config_origin place, const char *section, const char *key,
		 const char *format, ...) __attribute__((format(printf, 5, 6)));

static void warn(struct loader *loader, struct config_origin place, const char *section, const char *key,
		 const char *format, ...)
{
	struct diagnostic_place about = {place, file_order(loader, place.file), section, key};
	va_list arguments;
	va_start(arguments, format);
	diagnostics_add(loader->diagnostics, true, &about, format, arguments);
	va_end(arguments);
}

/* Targets: what the keys of a section fill */

struct target {
	const char *section;
	struct config_origin place; /* of its header */
	const struct service *type; /* NULL: [daemon], or a service without a known type */
	unsigned transports;
	struct rows {
		const struct option *options;
		size_t count;
		void *base;
		struct config_origin *origins;
	} rows[2];
};

/* One value: its row, its field, where it was written. */
struct slot {
	const struct option *option;
	void *field;
	struct config_origin *origin;
};

/* Where defaults were written. */
static const struct config_origin nowhere;

static struct target daemon_target(struct config_daemon *daemon)
{
	return (struct target){
		.section = "daemon",
		.rows = {{config_daemon_options, config_daemon_option_count, daemon, daemon->origins}},
	};
}

static struct target service_target(struct config_service *service)
{
	struct target target = {
		.section = service->name,
		.place = service->origin,
		.type = service->type,
		.transports = service->transports,
		.rows = {{config_service_options, config_service_option_count, service, service->origins}},
	};
	if (service->settings)
		target.rows[1] = (struct rows){service->type->options, service->type->option_count, service->settings,
					       service->settings_origins};
	return target;
}

static size_t slot_count(const struct target *target)
{
	return target->rows[0].count + target->rows[1].count;
}

static struct slot slot_at(const struct target *target, size_t index)
{
	const struct rows *rows = &target->rows[index >= target->rows[0].count];
	size_t row = index - (rows == target->rows ? 0 : target->rows[0].count);

	return (struct slot){
		.option = &rows->options[row],
		.field = option_field(&rows->options[row], rows->base),
		.origin = &rows->origins[row],
	};
}

static bool find_slot(const struct target *target, const char *key, struct slot *slot)
{
	for (size_t i = 0; i < slot_count(target); i++) {
		*slot = slot_at(target, i);
		if (strcmp(slot->option->key, key) == 0)
			return true;
	}
	return false;
}

/* Does OPTION fit the transports of a section? None: they are not known. */
static bool fits(const struct option *option, unsigned transports)
{
	return !option->transports || !transports || (option->transports & transports);
}

/* Is the option on without which OPTION means nothing? */
static bool has_need(const struct target *target, const struct option *option)
{
	struct slot slot;
	return !option->needs || (find_slot(target, option->needs, &slot) && *(const bool *)slot.field);
}

/* The row of KEY in any type, or NULL. */
static const struct option *find_type_option(const char *key)
{
	const struct option *option = NULL;
	for (size_t i = 0; i < service_count && !option; i++)
		option = option_find(service_table[i]->options, service_table[i]->option_count, key);
	return option;
}

/* Says that KEY, unknown to SECTION, belongs ELSEWHERE, or what it was meant to be. */
static void complain_of_key(struct loader *loader, struct config_origin place, const char *section, const char *key,
			    const char *elsewhere, const struct words *words)
{
	/* a large file of nothing else would take half a minute, which a reload does not have */
	const char *suggestion = diagnostics_is_full(loader->diagnostics) ? NULL : suggest_key(words, key);

	if (elsewhere)
		complain(loader, place, section, key, "belongs in %s", elsewhere);
	else if (suggestion)
		complain(loader, place, section, key, "unknown key; did you mean \"%s\"?", suggestion);
	else
		complain(loader, place, section, key, "unknown key");
}

static void complain_of_daemon_key(struct loader *loader, struct config_origin place, const char *key)
{
	bool of_service =
		option_find(config_service_options, config_service_option_count, key) || find_type_option(key);
	struct words words = {.count = 0};

	add_keys(&words, config_daemon_options, config_daemon_option_count);
	complain_of_key(loader, place, "daemon", key, of_service ? "a service or in [defaults]" : NULL, &words);
}

/* TYPE is that of SECTION; NULL, where it has none: then a key of any type may be right. */
static void complain_of_service_key(struct loader *loader, struct config_origin place, const char *section,
				    const struct service *type, const char *key)
{
	bool of_daemon = option_find(config_daemon_options, config_daemon_option_count, key);
	struct words words = {.count = 0};

	if (find_type_option(key)) {
		if (type)
			complain(loader, place, section, key, "does not fit type %s", type->name);
		return;
	}
	add_keys(&words, config_service_options, config_service_option_count);
	for (size_t i = 0; i < service_count; i++)
		if (!type || type == service_table[i])
			add_keys(&words, service_table[i]->options, service_table[i]->option_count);
	complain_of_key(loader, place, section, key, of_daemon ? "[daemon]" : NULL, &words);
}

/* Reads TEXT, written at ORIGIN, into SLOT. After an error its field stays empty: the default does not step in. */
static void set_value(struct loader *loader, const struct target *target, const struct slot *slot,
		      struct config_origin origin, const char *text)
{
	char error[OPTION_ERROR_SIZE];

	*slot->origin = origin;
	if (!slot->option->type->parse(slot->option, text, slot->field, error))
		complain(loader, origin.line ? origin : target->place, target->section, slot->option->key, "%s", error);
}

/* Takes ENTRY of a section in FILE; one that was taken before its turn is left alone. */
static void apply_entry(struct loader *loader, const struct target *target, const char *file,
			const struct ini_entry *entry)
{
	struct config_origin place = {file, entry->line};
	struct slot slot;

	if (!find_slot(target, entry->key, &slot)) {
		if (target->rows[0].options == config_daemon_options)
			complain_of_daemon_key(loader, place, entry->key);
		else
			complain_of_service_key(loader, place, target->section, target->type, entry->key);
		return;
	}
	if (slot.origin->line == entry->line)
		return;
	if (slot.origin->line)
		complain(loader, place, target->section, entry->key, "already set at %s:%u", slot.origin->file,
			 slot.origin->line);
	else if (!fits(slot.option, target->transports))
		complain(loader, place, target->section, entry->key, "does not fit protocol = %s",
			 target->transports == TRANSPORT_TCP ? "tcp" : "udp");
	else if (!has_need(target, slot.option))
		complain(loader, place, target->section, entry->key, "needs %s = yes", slot.option->needs);
	else
		set_value(loader, target, &slot, place, entry->value);
}

static void apply_entries(struct loader *loader, const struct target *target, const struct section *section)
{
	for (size_t i = 0; i < section->ini->entry_count; i++)
		apply_entry(loader, target, section->file, &section->ini->entries[i]);
}

/* Fills what nobody wrote, by the parsers of what somebody did. */
static void apply_initials(struct loader *loader, const struct target *target)
{
	for (size_t i = 0; i < slot_count(target); i++) {
		struct slot slot = slot_at(target, i);
		bool amplifies = target->type && target->type->amplifies && slot.option->initial_amplifying;
		const char *initial = amplifies ? slot.option->initial_amplifying : slot.option->initial;
		if (slot.origin->line == 0 && initial)
			set_value(loader, target, &slot, nowhere, initial);
	}
}

static const struct ini_entry *find_entry(const struct ini_section *section, const char *key)
{
	for (size_t i = 0; i < section->entry_count; i++)
		if (strcmp(section->entries[i].key, key) == 0)
			return &section->entries[i];
	return NULL;
}

/* Files */

struct reading {
	struct loader *loader;
	const char *file;
};

static void on_ini_error(void *context, unsigned line, const char *section, const char *key, const char *message)
{
	struct reading *reading = context;
	reading->loader->syntax_errors = true;
	complain(reading->loader, (struct config_origin){reading->file, line}, section, key, "%s", message);
}

/* Notes that a file called NAME is read; NULL: out of memory. */
static const char *add_file(struct loader *loader, const char *name)
{
	struct config *config = loader->config;
	char **files = reallocarray(config->files, config->file_count + 1, sizeof(*files));
	if (files)
		config->files = files;
	struct ini **inis = reallocarray(loader->inis, config->file_count + 1, sizeof(struct ini *));
	if (inis)
		loader->inis = inis;
	char *copy = strdup(name);

	if (!files || !inis || !copy) {
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
	if (reading.file)
		loader->inis[loader->config->file_count - 1] = read(path, on_ini_error, &reading);
}

static void read_memory(struct loader *loader, const char *name, const char *bytes, size_t length)
{
	struct reading reading = {loader, add_file(loader, name)};
	if (reading.file)
		loader->inis[loader->config->file_count - 1] = ini_read_memory(bytes, length, on_ini_error, &reading);
}

/* INCLUDE as a glob from the directory of FILE, for the caller to free. */
static char *make_pattern(const char *file, const char *include)
{
	const char *slash = strrchr(file, '/');
	size_t directory = slash && *include != '/' ? (size_t)(slash + 1 - file) : 0;
	char *pattern = malloc(2 * directory + strlen(include) + 1), *end = pattern;

	if (!pattern)
		return NULL;
	for (size_t i = 0; i < directory; i++) {
		if (strchr("*?[\\", file[i]))
			*end++ = '\\';
		*end++ = file[i];
	}
	strcpy(end, include);
	return pattern;
}

/* A directory that is not there holds no match; one that cannot be read may. */
static int on_glob_error(const char *path, int error)
{
	(void)path;
	return error != ENOENT && error != ENOTDIR;
}

static void read_includes(struct loader *loader)
{
	const char *include = loader->config->daemon.include;
	struct slot slot;
	struct target target = daemon_target(&loader->config->daemon);
	glob_t matches = {.gl_pathc = 0};

	if (!include || !find_slot(&target, "include", &slot))
		return;
	char *pattern = make_pattern(loader->config->files[0], include);
	int result = pattern ? glob(pattern, 0, on_glob_error, &matches) : GLOB_NOSPACE;
	if (result == GLOB_NOSPACE)
		loader->out_of_memory = true;
	else if (result == GLOB_ABORTED)
		complain(loader, *slot.origin, "daemon", "include", "cannot read a directory of %s",
			 option_quote(pattern).text);
	else if (result == GLOB_NOMATCH && !strpbrk(include, "*?["))
		complain(loader, *slot.origin, "daemon", "include", "no such file: %s", option_quote(pattern).text);
	for (size_t i = 0; result == 0 && i < matches.gl_pathc; i++)
		read_file(loader, matches.gl_pathv[i], ini_read_file);
	globfree(&matches);
	free(pattern);
}

/* Sections */

static int compare_sections(const void *a, const void *b)
{
	return strcmp(((const struct section *)a)->ini->name, ((const struct section *)b)->ini->name);
}

static void forget(void **tree, int (*compare)(const void *, const void *))
{
	while (*tree)
		tdelete(*(void **)*tree, tree, compare);
}

static bool is_service(const struct section *section)
{
	return strcmp(section->ini->name, "daemon") != 0 && strcmp(section->ini->name, "defaults") != 0;
}

/* Lists SECTION of a file, unless it repeats another one or must not be there. */
static void list_section(struct loader *loader, const struct section *found, void **names)
{
	struct section *section = &loader->sections[loader->section_count];
	struct config_origin place = {found->file, found->ini->line};
	const char *main_file = loader->config->files[0];

	if (!is_service(found) && found->file != main_file) {
		complain(loader, place, found->ini->name, NULL, "belongs in %s: an included file holds services only",
			 main_file);
		return;
	}
	*section = *found;
	struct section **first = tsearch(section, names, compare_sections);
	if (!first)
		loader->out_of_memory = true;
	else if (*first != section)
		complain(loader, place, found->ini->name, NULL, "already a section at %s:%u", (*first)->file,
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
		total += loader->inis[i] ? loader->inis[i]->section_count : 0;
	loader->sections = calloc(total + 1, sizeof(*loader->sections));
	if (!loader->sections) {
		loader->out_of_memory = true;
		return;
	}
	for (size_t i = 0; i < config->file_count; i++)
		for (size_t j = 0; loader->inis[i] && j < loader->inis[i]->section_count; j++)
			list_section(loader, &(struct section){&loader->inis[i]->sections[j], config->files[i]},
				     &names);
	forget(&names, compare_sections);
}

/* [daemon] */

/* Reads TEXT as the number of a user or group. */
static bool read_id(const char *text, id_t *id)
{
	size_t digits = strspn(text, "0123456789");
	unsigned long long number = strtoull(text, NULL, 10);

	*id = (id_t)number;
	return digits > 0 && text[digits] == '\0' && number < (id_t)-1;
}

static bool user_exists(const char *user)
{
	id_t id;
	return getpwnam(user) || (read_id(user, &id) && getpwuid(id));
}

static bool group_exists(const char *group)
{
	id_t id;
	return getgrnam(group) || (read_id(group, &id) && getgrgid(id));
}

/* Checks the accounts that somebody wrote; the default user need not exist where the daemon is not root. */
static void check_accounts(struct loader *loader, const struct target *target)
{
	const struct config_daemon *daemon = &loader->config->daemon;
	struct slot user, group;

	if (!find_slot(target, "user", &user) || !find_slot(target, "group", &group))
		return;
	if (daemon->user && strcmp(daemon->user, SMALLSERVD_USER) != 0 && !user_exists(daemon->user))
		complain(loader, *user.origin, "daemon", "user", "no such user: %s", option_quote(daemon->user).text);
	if (daemon->group && !group_exists(daemon->group))
		complain(loader, *group.origin, "daemon", "group", "no such group: %s",
			 option_quote(daemon->group).text);
}

static void read_daemon(struct loader *loader)
{
	struct config *config = loader->config;
	const struct ini *ini = loader->inis[0];
	size_t i = 0;

	config->daemon.origins = calloc(config_daemon_option_count, sizeof(*config->daemon.origins));
	if (!config->daemon.origins) {
		loader->out_of_memory = true;
		return;
	}
	struct target target = daemon_target(&config->daemon);
	target.place.file = config->files[0];
	while (i < ini->section_count && strcmp(ini->sections[i].name, "daemon") != 0)
		i++;
	if (i < ini->section_count)
		apply_entries(loader, &target, &(struct section){&ini->sections[i], config->files[0]});
	apply_initials(loader, &target);
	check_accounts(loader, &target);
}

/* [defaults] */

/* Reads TEXT by OPTION, a row of a struct of SIZE bytes, to see whether it can be read. */
static bool try_value(struct loader *loader, struct config_origin place, const struct option *option, size_t size,
		      const char *text)
{
	char error[OPTION_ERROR_SIZE] = "out of memory";
	void *base = calloc(1, size);
	bool fine = base && option->type->parse(option, text, option_field(option, base), error);

	if (!fine)
		complain(loader, place, "defaults", option->key, "%s", error);
	else if (option->type->free)
		option->type->free(option_field(option, base));
	free(base);
	return fine;
}

/* Can ENTRY of [defaults] be applied? If not, says so here, once, and not for each service. */
static bool check_default(struct loader *loader, const struct section *defaults, const struct ini_entry *entry)
{
	struct config_origin place = {defaults->file, entry->line};
	const struct option *option = option_find(config_service_options, config_service_option_count, entry->key);

	if (!option && !find_type_option(entry->key)) {
		complain_of_service_key(loader, place, "defaults", NULL, entry->key);
		return false;
	}
	const struct ini_entry *first = find_entry(defaults->ini, entry->key);
	if (first && first != entry) {
		complain(loader, place, "defaults", entry->key, "already set at %s:%u", place.file, first->line);
		return false;
	}
	if (option)
		return try_value(loader, place, option, sizeof(struct config_service), entry->value);
	for (size_t i = 0; i < service_count; i++) {
		const struct service *type = service_table[i];
		option = option_find(type->options, type->option_count, entry->key);
		if (option && !try_value(loader, place, option, type->settings_size, entry->value))
			return false;
	}
	return true;
}

static void check_defaults(struct loader *loader)
{
	for (size_t i = 0; i < loader->section_count; i++)
		if (strcmp(loader->sections[i].ini->name, "defaults") == 0)
			loader->defaults = &loader->sections[i];
	if (!loader->defaults)
		return;

	const struct ini_section *ini = loader->defaults->ini;
	loader->defaults_fine = calloc(ini->entry_count + 1, sizeof(*loader->defaults_fine));
	if (!loader->defaults_fine)
		loader->out_of_memory = true;
	for (size_t i = 0; i < ini->entry_count && loader->defaults_fine; i++)
		loader->defaults_fine[i] = check_default(loader, loader->defaults, &ini->entries[i]);
}

/* Gives TARGET what [defaults] has for it; KEY: of that key alone. */
static void apply_defaults(struct loader *loader, const struct target *target, const char *key)
{
	const struct section *defaults = loader->defaults;
	struct slot slot;

	if (!defaults || !loader->defaults_fine)
		return;
	for (size_t i = 0; i < defaults->ini->entry_count; i++) {
		const struct ini_entry *entry = &defaults->ini->entries[i];
		struct config_origin place = {defaults->file, entry->line};
		if (!loader->defaults_fine[i] || (key && strcmp(key, entry->key) != 0))
			continue;
		if (find_slot(target, entry->key, &slot) && slot.origin->line == 0 &&
		    fits(slot.option, target->transports) && has_need(target, slot.option))
			set_value(loader, target, &slot, place, entry->value);
	}
}

/* Services */

/* Takes KEY before its turn: from SECTION, else from [defaults]. Was it there? */
static bool apply_early(struct loader *loader, const struct target *target, const struct section *section,
			const char *key)
{
	const struct ini_entry *entry = find_entry(section->ini, key);
	struct slot slot;

	if (entry)
		apply_entry(loader, target, section->file, entry);
	else
		apply_defaults(loader, target, key);
	return find_slot(target, key, &slot) && slot.origin->line > 0;
}

/* Takes what is switched on before the keys that need it. */
static void apply_switches(struct loader *loader, const struct target *target, const struct section *section)
{
	static const char *const keys[] = {"proxy_protocol", "tls"};
	struct slot slot;

	for (size_t i = 0; i < COUNT_OF(keys); i++)
		if (find_slot(target, keys[i], &slot) && fits(slot.option, target->transports))
			apply_early(loader, target, section, keys[i]);
}

/* Says that a section is neither a service nor one of ours. */
static void complain_of_section(struct loader *loader, const struct config_service *service)
{
	static const char *const ours[] = {"daemon", "defaults"};
	const char *nearest = option_nearest(service->name, ours, COUNT_OF(ours));
	char error[OPTION_ERROR_SIZE];

	snprintf(error, sizeof(error), "missing, and \"%s\" is no type", service->name);
	if (nearest) {
		complain(loader, service->origin, service->name, "type", "%s; did you mean [%s]?", error, nearest);
		return;
	}
	config_options_suggest_type(service->name, error);
	complain(loader, service->origin, service->name, "type", "%s", error);
}

/* Finds out the type of SERVICE, which decides what other keys there are. */
static void resolve_type(struct loader *loader, const struct section *section, struct config_service *service)
{
	struct target target = service_target(service);

	if (!apply_early(loader, &target, section, "type")) {
		service->type = service_find(service->name);
		if (!service->type)
			complain_of_section(loader, service);
	}
	if (!service->type || service->type->option_count == 0)
		return;

	service->settings_origins = calloc(service->type->option_count, sizeof(*service->settings_origins));
	service->settings = calloc(1, service->type->settings_size);
	if (!service->settings || !service->settings_origins)
		loader->out_of_memory = true;
}

/* Finds out the transports of SERVICE, which decide what keys fit. */
static void resolve_transports(struct loader *loader, const struct section *section, struct config_service *service)
{
	struct target target = service_target(service);
	unsigned offered = service->type ? service->type->transports : TRANSPORT_BOTH;

	apply_early(loader, &target, section, "protocol");
	if (!find_entry(section->ini, "protocol")) {
		/* [defaults] may well name one that this type lacks */
		service->transports &= offered;
		if (!service->transports)
			service->transports = offered;
	}
	if (service->transports & ~offered)
		complain(loader, config_service_origin(service, "protocol"), service->name, "protocol",
			 "type %s has no %s", service->type->name, offered == TRANSPORT_TCP ? "udp" : "tcp");
}

/* The default port is the type's. */
static void apply_type_port(struct loader *loader, const struct target *target)
{
	struct slot slot;
	char text[sizeof("65535")];

	if (!target->type || !find_slot(target, "port", &slot) || slot.origin->line)
		return;
	snprintf(text, sizeof(text), "%u", target->type->port);
	set_value(loader, target, &slot, nowhere, text);
}

static bool is_wildcard(const struct option_address *address, int family)
{
	if (address->family == AF_UNSPEC)
		return true;
	if (address->family != family)
		return false;
	return family == AF_INET ? address->ip.v4.s_addr == htonl(INADDR_ANY)
				 : IN6_IS_ADDR_UNSPECIFIED(&address->ip.v6);
}

/* A datagram to a group only arrives on a socket that is bound to a wildcard of its family. */
static void check_groups(struct loader *loader, const struct config_service *service)
{
	for (size_t i = 0; i < service->multicast_groups.count; i++) {
		const struct option_address *group = &service->multicast_groups.list[i];
		char text[INET6_ADDRSTRLEN + IF_NAMESIZE];
		size_t j = 0;

		while (j < service->addresses.count && !is_wildcard(&service->addresses.list[j], group->family))
			j++;
		if (j < service->addresses.count || service->addresses.count == 0)
			continue;
		option_print_address(group, text);
		complain(loader, config_service_origin(service, "multicast_groups"), service->name, "multicast_groups",
			 "%s needs address = %s or *", text, group->family == AF_INET ? "0.0.0.0" : "::");
	}
}

/* Where a file is named. */
struct naming {
	struct loader *loader;
	struct config_origin place;
	const char *section, *key;
};

static void complain_of_file(void *context, const char *message)
{
	const struct naming *naming = context;
	complain(naming->loader, naming->place, naming->section, naming->key, "%s", message);
}

/* Reads the files that values name. */
static void load_files(struct loader *loader, const struct target *target)
{
	for (size_t i = 0; i < slot_count(target); i++) {
		struct slot slot = slot_at(target, i);
		struct naming naming = {
			.loader = loader,
			.place = slot.origin->line ? *slot.origin : target->place,
			.section = target->section,
			.key = slot.option->key,
		};
		if (slot.option->type->load)
			slot.option->type->load(slot.option, slot.field, complain_of_file, &naming);
	}
}

struct rule {
	const struct option_prefix *prefix;
	const char *key;
};

static int compare_rules(const void *left, const void *right)
{
	const struct rule *a = left, *b = right;
	int order = memcmp(&a->prefix->address, &b->prefix->address, sizeof(a->prefix->address));
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

/* Of the most specific match there must be one, so no prefix is both allowed and denied. */
static void check_rules(struct loader *loader, const struct config_service *service)
{
	size_t total = service->allow.count + service->allow_file.prefixes.count + service->deny.count +
		       service->deny_file.prefixes.count;
	struct rule *rules = calloc(total + 1, sizeof(*rules));
	size_t count = 0;
	char text[INET6_ADDRSTRLEN + 4];

	if (!rules) {
		loader->out_of_memory = true;
		return;
	}
	add_rules(rules, &count, "allow", &service->allow);
	add_rules(rules, &count, "allow_file", &service->allow_file.prefixes);
	add_rules(rules, &count, "deny", &service->deny);
	add_rules(rules, &count, "deny_file", &service->deny_file.prefixes);
	qsort(rules, count, sizeof(*rules), compare_rules);
	for (size_t i = 1; i < count; i++) {
		bool allows = rules[i].key[0] == 'a', before = rules[i - 1].key[0] == 'a';
		if (compare_rules(&rules[i - 1], &rules[i]) != 0 || allows == before)
			continue;
		const char *allow = rules[allows ? i : i - 1].key, *deny = rules[allows ? i - 1 : i].key;
		option_print_prefix(rules[i].prefix, text);
		complain(loader, config_service_origin(service, deny), service->name, deny, "%s is in %s too",
			 rules[i].prefix->all ? "all" : text, allow);
	}
	free(rules);
}

/* TLS and the PROXY protocol */

/* What the client would get in the clear, or from anybody, over UDP beside it must have been asked for. */
static void check_tcp_alone(struct loader *loader, const struct config_service *service, const char *key, bool on)
{
	if (on && service->transports != TRANSPORT_TCP)
		complain(loader, config_service_origin(service, key), service->name, key,
			 "needs protocol = tcp: it has no meaning over UDP");
}

/* Complains of KEY unless it is THERE, as BY needs it. */
static void check_required(struct loader *loader, const struct config_service *service, const char *key, bool there,
			   const char *by)
{
	if (!there)
		complain(loader, config_service_origin(service, key), service->name, key, "required with %s", by);
}

static void check_tls_keys(struct loader *loader, const struct config_service *service)
{
	struct config_origin place = config_service_origin(service, "tls_max_version");

	check_required(loader, service, "tls_certificate", service->tls_certificate, "tls = yes");
	if (service->tls_max_version != TLS_ANY_VERSION &&
	    service->tls_max_version < TLS_1_2 + service->tls_min_version)
		complain(loader, place, service->name, "tls_max_version", "less than tls_min_version");
	if (service->tls_client_auth != TLS_CLIENT_NONE)
		check_required(loader, service, "tls_client_ca", service->tls_client_ca,
			       service->tls_client_auth == TLS_CLIENT_REQUIRED ? "tls_client_auth = required"
									       : "tls_client_auth = optional");
	else if (service->tls_client_ca)
		warn(loader, config_service_origin(service, "tls_client_ca"), service->name, "tls_client_ca",
		     "no client is asked for a certificate: tls_client_auth = none");
	if (service->tls_crl && !service->tls_client_ca)
		complain(loader, config_service_origin(service, "tls_crl"), service->name, "tls_crl",
			 "needs tls_client_ca");
}

struct telling {
	struct loader *loader;
	const struct config_service *service;
};

static void tell_of_tls(void *context, enum tls_file file, bool warning, const char *message)
{
	static const char *const keys[] = {
		[TLS_CERTIFICATE] = "tls_certificate",
		[TLS_KEY] = "tls_key",
		[TLS_CLIENT_CA] = "tls_client_ca",
		[TLS_CRL] = "tls_crl",
	};
	const struct telling *telling = context;
	const char *key = file == TLS_KEY && !telling->service->tls_key ? "tls_certificate" : keys[file];

	(warning ? warn : complain)(telling->loader, config_service_origin(telling->service, key),
				    telling->service->name, key, "%s", message);
}

static void build_tls(struct loader *loader, struct config_service *service)
{
	size_t errors = loader->diagnostics->errors;
	struct telling telling = {loader, service};
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
		service->tls_context = tls_context_new(&settings, tell_of_tls, &telling);
}

static void check_proxy_keys(struct loader *loader, const struct config_service *service)
{
	check_required(loader, service, "proxy_from", service->proxy_from.count > 0, "proxy_protocol = on");
}

static void build_service(struct loader *loader, const struct section *section, struct config_service *service)
{
	service->origin = (struct config_origin){section->file, section->ini->line};
	service->name = strdup(section->ini->name);
	service->origins = calloc(config_service_option_count, sizeof(*service->origins));
	if (!service->name || !service->origins) {
		loader->out_of_memory = true;
		return;
	}

	resolve_type(loader, section, service);
	if (loader->out_of_memory)
		return;
	resolve_transports(loader, section, service);
	struct target target = service_target(service);
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
		build_tls(loader, service);
}

static void build_services(struct loader *loader)
{
	struct config *config = loader->config;
	size_t errors = loader->diagnostics->errors;
	bool enabled = false;

	config->services = calloc(loader->section_count + 1, sizeof(*config->services));
	if (!config->services) {
		loader->out_of_memory = true;
		return;
	}
	for (size_t i = 0; i < loader->section_count; i++)
		if (is_service(&loader->sections[i]))
			build_service(loader, &loader->sections[i], &config->services[config->service_count++]);
	for (size_t i = 0; i < config->service_count; i++)
		enabled |= config->services[i].enabled;
	if (!enabled && !loader->syntax_errors && loader->diagnostics->errors == errors)
		complain(loader, (struct config_origin){config->files[0], 0}, NULL, NULL, "no service is enabled");
}

/* Endpoints */

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

/* Lists the endpoints of all services. False: there are too many. */
static bool list_endpoints(struct loader *loader)
{
	struct config *config = loader->config;
	size_t total = 0;

	for (size_t i = 0; i < config->service_count; i++) {
		const struct config_service *service = &config->services[i];
		total += count_endpoints(service);
		if (total > ENDPOINTS_MAX) {
			complain(loader, config_service_origin(service, "port"), service->name, "port",
				 "more than %d endpoints in all", ENDPOINTS_MAX);
			return false;
		}
	}
	config->endpoints = calloc(total + 1, sizeof(*config->endpoints));
	if (!config->endpoints) {
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

static int compare_addresses(const struct option_address *a, const struct option_address *b)
{
	if (a->family != b->family)
		return a->family - b->family;
	int order = memcmp(&a->ip, &b->ip, a->family == AF_INET ? sizeof(a->ip.v4) : sizeof(a->ip.v6));
	return order ? order : strcmp(a->zone, b->zone);
}

static int compare_endpoints(const void *left, const void *right)
{
	const struct config_endpoint *a = left, *b = right;

	if (a->port != b->port)
		return a->port - b->port;
	if (a->transport != b->transport)
		return a->transport < b->transport ? -1 : 1;
	int order = compare_addresses(&a->address, &b->address);
	const char *a_interface = a->service->interface, *b_interface = b->service->interface;
	return order ? order : strcmp(a_interface ? a_interface : "", b_interface ? b_interface : "");
}

static void complain_of_conflict(struct loader *loader, const struct config_endpoint *endpoint,
				 const struct config_service *owner)
{
	struct config_origin there = config_service_origin(owner, "port");
	bool v6 = endpoint->address.family == AF_INET6;
	char address[INET6_ADDRSTRLEN + IF_NAMESIZE];

	option_print_address(&endpoint->address, address);
	complain(loader, config_service_origin(endpoint->service, "port"), endpoint->service->name, "port",
		 "%s %s%s%s:%u is already served by [%s] (%s:%u)", endpoint->transport == TRANSPORT_TCP ? "tcp" : "udp",
		 v6 ? "[" : "", address, v6 ? "]" : "", endpoint->port, owner->name, there.file, there.line);
}

/* Finds endpoints that two services want, or one twice; of each two services says so once a transport. */
static void check_conflicts(struct loader *loader)
{
	const struct config *config = loader->config;
	const struct config_endpoint *last = NULL, *last_first = NULL;
	void *seen = NULL;

	for (size_t i = 0; i < config->endpoint_count && !loader->out_of_memory; i++) {
		const struct config_endpoint *endpoint = &config->endpoints[i];
		if (endpoint->port == 0)
			continue;
		const struct config_endpoint **found = tsearch(endpoint, &seen, compare_endpoints);
		if (!found) {
			loader->out_of_memory = true;
			continue;
		}
		if (*found == endpoint)
			continue;
		if (!last || last->service != endpoint->service || last->transport != endpoint->transport ||
		    last_first->service != (*found)->service)
			complain_of_conflict(loader, endpoint, (*found)->service);
		last = endpoint;
		last_first = *found;
	}
	forget(&seen, compare_endpoints);
}

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
		warn(loader, config_service_origin(service, "port"), service->name, "port",
		     "udp port %u lies in the kernel's ephemeral range %u-%u: honest clients that get a served port as "
		     "their "
		     "source can be refused as loops",
		     range->first > low ? range->first : low, low, high);
		return;
	}
}

static void check_ports(struct loader *loader)
{
	unsigned low, high;
	FILE *range = fopen("/proc/sys/net/ipv4/ip_local_port_range", "re");
	bool known = range && fscanf(range, "%u %u", &low, &high) == 2;

	if (range)
		fclose(range);
	for (size_t i = 0; known && i < loader->config->service_count; i++)
		check_ephemeral_ports(loader, &loader->config->services[i], low, high);
}

/* Loading */

static bool loader_start(struct loader *loader, const char *file, struct diagnostics *diagnostics)
{
	*loader = (struct loader){.config = calloc(1, sizeof(*loader->config)), .diagnostics = diagnostics};
	diagnostics->errors++; /* out of memory, until the end of this function */
	if (!loader->config)
		return false;
	atomic_init(&loader->config->references, 1);
	loader->config->file = strdup(file);
	if (!loader->config->file) {
		config_unref(loader->config);
		return false;
	}
	diagnostics->errors--;
	return true;
}

/* Makes a configuration of the file that was read first. */
static void loader_run(struct loader *loader)
{
	read_daemon(loader);
	read_includes(loader);
	list_sections(loader);
	check_defaults(loader);
	build_services(loader);
	if (!loader->out_of_memory && list_endpoints(loader))
		check_conflicts(loader);
	check_ports(loader);
}

static struct config *loader_finish(struct loader *loader)
{
	struct config *config = loader->config;

	if (loader->out_of_memory)
		complain(loader, (struct config_origin){config->file, 0}, NULL, NULL, "out of memory");
	for (size_t i = 0; i < config->file_count; i++)
		ini_free(loader->inis[i]);
	free(loader->inis);
	free(loader->sections);
	free(loader->defaults_fine);
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
	if (loader.config->file_count > 0 && loader.inis[0])
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
	if (loader.config->file_count > 0 && loader.inis[0])
		loader_run(&loader);
	return loader_finish(&loader);
}

/* Configurations */

static void free_fields(const struct target *target)
{
	for (size_t i = 0; i < COUNT_OF(target->rows); i++)
		for (size_t j = 0; j < target->rows[i].count; j++) {
			const struct option *option = &target->rows[i].options[j];
			if (option->type->free)
				option->type->free(option_field(option, target->rows[i].base));
		}
}

static void free_service(struct config_service *service)
{
	struct target target = service_target(service);

	tls_context_free(service->tls_context);
	free_fields(&target);
	free(service->settings_origins);
	free(service->settings);
	free(service->origins);
	free(service->name);
}

static void free_config(struct config *config)
{
	struct target daemon = daemon_target(&config->daemon);

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
	if (config && atomic_fetch_sub_explicit(&config->references, 1, memory_order_acq_rel) == 1)
		free_config(config);
}

static void dump_section(struct target target, FILE *out)
{
	fprintf(out, "[%s]\n", target.section);
	for (size_t i = 0; i < slot_count(&target); i++) {
		struct slot slot = slot_at(&target, i);
		if (!fits(slot.option, target.transports) || !has_need(&target, slot.option))
			continue;
		fprintf(out, "%s = ", slot.option->key);
		slot.option->type->print(slot.option, slot.field, out);
		putc('\n', out);
	}
}

void config_dump(const struct config *config, FILE *out)
{
	struct config_daemon daemon = config->daemon;

	daemon.include = NULL; /* what was included follows */
	dump_section(daemon_target(&daemon), out);
	for (size_t i = 0; i < config->service_count; i++) {
		putc('\n', out);
		dump_section(service_target(&config->services[i]), out);
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
	struct target target = service_target((struct config_service *)service);
	struct slot slot;

	if (service->origins && find_slot(&target, key, &slot) && slot.origin->line)
		return *slot.origin;
	return service->origin;
}
