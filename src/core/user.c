/* user.c: users and groups by name or number. */
#include "core/user.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

static bool parse_id(const char *text, id_t *id)
{
	size_t digits = strspn(text, "0123456789");
	unsigned long long number = strtoull(text, NULL, 10);

	*id = (id_t)number;
	return digits > 0 && text[digits] == '\0' && number < (id_t)-1;
}

const struct passwd *user_find(const char *text)
{
	id_t id;
	const struct passwd *entry = getpwnam(text);
	return entry == NULL && parse_id(text, &id) ? getpwuid(id) : entry;
}

const struct group *group_find(const char *text)
{
	id_t id;
	const struct group *entry = getgrnam(text);
	return entry == NULL && parse_id(text, &id) ? getgrgid(id) : entry;
}
