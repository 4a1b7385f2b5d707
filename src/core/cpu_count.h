/* cpu_count.h: the number of processors that this process may use. */
#ifndef SMALLSERVD_CORE_CPU_COUNT_H
#define SMALLSERVD_CORE_CPU_COUNT_H

/* Returns the number of processors in the affinity mask, or the smallest quota of its cgroups (cpu.max of cgroup v2,
 * rounded up) if that is less; at least 1. */
unsigned cpu_count(void);

#endif
