/* cpu_count.h: how many processors this process may use. */
#ifndef SMALLSERVD_CORE_CPU_COUNT_H
#define SMALLSERVD_CORE_CPU_COUNT_H

/* By its affinity and by the tightest quota of its cgroups (cpu.max of cgroup v2), rounded up; at least 1. */
unsigned cpu_count(void);

#endif
