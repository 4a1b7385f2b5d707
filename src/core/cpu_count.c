/* cpu_count.c: the number of processors that this process may use. */
#include "core/cpu_count.h"

#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* Reads a cpu.max of cgroup v2: `QUOTA PERIOD`, where QUOTA may be `max`. Returns the processors it grants, rounded up;
 * 0: no limit. */
static unsigned quota_read(const char *path)
{
	unsigned long quota, period;
	FILE *file = fopen(path, "re");
	if (file == NULL)
		return 0;
	int fields = fscanf(file, "%lu %lu", &quota, &period);
	fclose(file);
	if (fields != 2 || period == 0)
		return 0;
	return quota < period ? 1 : (unsigned)((quota + period - 1) / period);
}

/* Returns the smallest quota between this process's cgroup and the root, in processors; 0: no limit. */
static unsigned quota_processors(void)
{
	enum { PATH_AROUND_GROUP = 64 };
	char line[4096], path[4096 + PATH_AROUND_GROUP];
	unsigned smallest = 0;
	FILE *file = fopen("/proc/self/cgroup", "re");
	if (file == NULL)
		return 0;
	bool found = false;
	while (!found && fgets(line, sizeof line, file) != NULL)
		found = strncmp(line, "0::/", 4) == 0;
	fclose(file);
	if (!found)
		return 0;

	char *group = line + strlen("0::");
	group[strcspn(group, "\n")] = '\0';
	for (char *end = group + strlen(group); end != NULL; end = strrchr(group, '/')) {
		*end = '\0';
		snprintf(path, sizeof path, "/sys/fs/cgroup%s/cpu.max", group);
		unsigned processors = quota_read(path);
		if (processors > 0 && (smallest == 0 || processors < smallest))
			smallest = processors;
	}
	return smallest;
}

unsigned cpu_count(void)
{
	cpu_set_t set;
	unsigned count;
	if (sched_getaffinity(0, sizeof set, &set) == 0)
		count = (unsigned)CPU_COUNT(&set);
	else
		count = (unsigned)sysconf(_SC_NPROCESSORS_ONLN); /* more processors than cpu_set_t can hold */

	unsigned quota = quota_processors();
	if (quota > 0 && quota < count)
		count = quota;
	return count < 1 ? 1 : count;
}
