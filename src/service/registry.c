/* registry.c: the table of services. */
#include "service/service.h"

#include <string.h>

#include "core/array.h"

const struct service *const service_table[] = {
	&echo_service, &discard_service, &daytime_service, &qotd_service, &chargen_service, &time_service,
};
const size_t service_count = COUNT_OF(service_table);

const struct service *service_find(const char *name)
{
	for (size_t i = 0; i < service_count; i++)
		if (strcmp(service_table[i]->name, name) == 0)
			return service_table[i];
	return NULL;
}
