/* load.h: the probe's load: many requests at once, every byte of the answers checked. */
#ifndef SMALLSERVD_PROBE_LOAD_LOAD_H
#define SMALLSERVD_PROBE_LOAD_LOAD_H

struct options;
struct target;

/* Puts TARGET under the load that OPTIONS asks for and prints what came of it. Returns the exit status: 0 all answered right,
 * 1 something lost or wrong, 2 a load that does not exist, 3 no connection. */
int load_run(const struct options *options, const struct target *target);

#endif
