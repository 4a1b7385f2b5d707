/* cpu_count.c: how many processors this process may use. */
#include "core/cpu_count.h"

#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* A cpu.max of cgroup v2: `QUOTA PERIOD`, QUOTA may be `max`. Returns the processors it grants; 0: no limit here. */
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

/* The tightest quota between this process's cgroup and the root. 0: none. */
static unsigned quota_processors(void)
{
	enum { ROOM_FOR_THE_REST = 64 };
	char line[4096], path[4096 + ROOM_FOR_THE_REST];
	unsigned tightest = 0;
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
		if (processors > 0 && (tightest == 0 || processors < tightest))
			tightest = processors;
	}
	return tightest;
}

unsigned cpu_count(void)
{
	cpu_set_t set;
	unsigned count = 1;
	if (sched_getaffinity(0, sizeof set, &set) == 0)
		count = (unsigned)CPU_COUNT(&set);
	else
		count = (unsigned)sysconf(_SC_NPROCESSORS_ONLN); /* more processors than a cpu_set_t holds */

	unsigned quota = quota_processors();
	if (quota > 0 && quota < count)
		count = quota;
	return count < 1 ? 1 : count;
}
