/* upgrade_fork.h: forks and execs the new process of an upgrade. */
#ifndef SMALLSERVD_HANDOFF_UPGRADE_FORK_H
#define SMALLSERVD_HANDOFF_UPGRADE_FORK_H

#include <signal.h>
#include <stddef.h>
#include <sys/types.h>

/* All that the two children need, prepared before the fork. It is the caller's. */
struct upgrade_fork_setup {
	const char *path;
	char *const *arguments, *const *environment;
	const int *fds; /* stay open in the new process */
	size_t fd_count;
	int channel;       /* the new process's end; stays open in it */
	int control;       /* the intermediate process's end of the socket for reports */
	unsigned fd_limit; /* above every descriptor */
	sigset_t signals;  /* the signal mask of the new process; set by upgrade_fork_intermediate */
};

enum upgrade_report_kind { REPORT_FORKED, REPORT_EXEC_FAILED, REPORT_ENDED };

/* A message of the intermediate process. */
struct upgrade_report {
	enum upgrade_report_kind kind;
	pid_t pid;  /* REPORT_FORKED, which a pidfd comes with */
	int error;  /* REPORT_EXEC_FAILED: errno */
	int code;   /* REPORT_ENDED: si_code and */
	int status; /* si_status of waitid(2) */
};

/* Forks the intermediate process, which forks the new one, sends reports, and exits when the new process or the
 * parent's end of CONTROL is closed. Returns its id; -1 with errno. */
pid_t upgrade_fork_intermediate(struct upgrade_fork_setup *setup);

/* Receives a report and the pidfd that comes with it; *PIDFD is -1 for none. Returns the length, 0 when the
 * intermediate process has exited, or -1 with errno. */
ssize_t upgrade_report_receive(int control, struct upgrade_report *report, int *pidfd);

#endif
