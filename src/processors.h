/* processors.h: how many processors this process may use. */
#ifndef SMALLSERVD_PROCESSORS_H
#define SMALLSERVD_PROCESSORS_H

/* By its affinity and by the tightest quota of its cgroups (cpu.max of cgroup v2), rounded up; at least 1. */
unsigned processors_usable(void);

#endif
