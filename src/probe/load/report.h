/* report.h: results and progress of a load, as text and JSON. */
#ifndef SMALLSERVD_PROBE_LOAD_REPORT_H
#define SMALLSERVD_PROBE_LOAD_REPORT_H

#include "probe/load/thread.h"

struct load_outcome {
	const struct load_stats *stats;
	const char *error; /* the reason why the load ended early, or NULL */
	bool interrupted;
	int status; /* the exit status */
};

/* Prints the results of LOAD to stdout, as JSON if the options ask for it. Returns false if stdout cannot be written.
 */
bool load_report_print(const struct load *load, const struct load_outcome *outcome);

/* Draws the progress line on stderr over itself, from NOW and BEFORE, the statistics of ELAPSED_NS ago. AT_NS: since
 * the start. */
void load_report_progress(const struct load *load, const struct load_stats *now, const struct load_stats *before,
			  uint64_t elapsed_ns, uint64_t at_ns);

/* Clears the progress line. */
void load_report_clear(const struct load *load);

#endif
