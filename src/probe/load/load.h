/* load.h: load generation: many requests at once, every byte of the replies checked. */
#ifndef SMALLSERVD_PROBE_LOAD_LOAD_H
#define SMALLSERVD_PROBE_LOAD_LOAD_H

struct options;
struct target;

/* Puts the load of OPTIONS on TARGET and prints the results. Returns the exit status: 0 all replies correct, 1 some
 * lost or wrong, 2 an invalid load, 3 no connection. */
int load_run(const struct options *options, const struct target *target);

#endif
