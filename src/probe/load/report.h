/* report.h: what a load came to, for people and for machines, and how it goes on. */
#ifndef SMALLSERVD_PROBE_LOAD_REPORT_H
#define SMALLSERVD_PROBE_LOAD_REPORT_H

#include "probe/load/thread.h"

struct load_outcome {
	const struct load_books *books;
	const char *error; /* what ended the load, or NULL */
	bool interrupted;
	int status; /* the exit status */
};

/* Prints what came of LOAD to stdout, as JSON when the options ask for it. False when stdout does not take it. */
bool load_report_print(const struct load *load, const struct load_outcome *outcome);

/* Draws the progress line on stderr over itself: NOW against BEFORE, the books of ELAPSED_NS ago. AT_NS: since the beginning. */
void load_report_progress(const struct load *load, const struct load_books *now, const struct load_books *before,
			  uint64_t elapsed_ns, uint64_t at_ns);

/* Takes the progress line away. */
void load_report_clear(const struct load *load);

#endif
