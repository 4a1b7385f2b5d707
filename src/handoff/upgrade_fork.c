/* upgrade_fork.c: forks and execs the new process of an upgrade.
 *
 * Double fork: the intermediate process exits before the new one takes over, so that the service manager adopts the
 * new process. A child of a process with threads may only call async-signal-safe functions (signal-safety(7)): so
 * may this whole file, which a test checks. */
#include "handoff/upgrade_fork.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { STATUS_EXEC_FAILED = 127 }; /* as in a shell */

union pidfd_message {
	struct cmsghdr header;
	char bytes[CMSG_SPACE(sizeof(int))];
};

/* Sends REPORT with PIDFD, unless that is -1. A parent that has exited needs no report. */
static void send_report(int control, const struct upgrade_report *report, int pidfd)
{
	union pidfd_message ancillary = {
		.header = {.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(sizeof pidfd)}};
	struct iovec part = {.iov_base = (void *)report, .iov_len = sizeof *report};
	struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};

	if (pidfd >= 0) {
		message.msg_control = ancillary.bytes;
		message.msg_controllen = sizeof ancillary.bytes;
		memcpy(CMSG_DATA(&ancillary.header), &pidfd, sizeof pidfd);
	}
	(void)!sendmsg(control, &message, MSG_NOSIGNAL);
}

ssize_t upgrade_report_receive(int control, struct upgrade_report *report, int *pidfd)
{
	union pidfd_message ancillary;
	struct iovec part = {.iov_base = report, .iov_len = sizeof *report};
	struct msghdr message = {.msg_iov = &part,
				 .msg_iovlen = 1,
				 .msg_control = ancillary.bytes,
				 .msg_controllen = sizeof ancillary.bytes};

	*pidfd = -1;
	ssize_t length = recvmsg(control, &message, MSG_CMSG_CLOEXEC);
	const struct cmsghdr *header = length > 0 ? CMSG_FIRSTHDR(&message) : NULL;
	if (header != NULL && header->cmsg_type == SCM_RIGHTS && header->cmsg_len == CMSG_LEN(sizeof *pidfd))
		memcpy(pidfd, CMSG_DATA(header), sizeof *pidfd);
	return length;
}

/* --- the new process --- */

static _Noreturn void exec_new(const struct upgrade_fork_setup *setup)
{
	const struct sigaction by_default = {.sa_handler = SIG_DFL};
	for (int number = 1; number < NSIG; number++)
		if (number != SIGPIPE)
			sigaction(number, &by_default, NULL);
	bool open = fcntl(setup->channel, F_SETFD, 0) == 0;
	for (size_t i = 0; i < setup->fd_count; i++)
		open &= fcntl(setup->fds[i], F_SETFD, 0) == 0;
	sigprocmask(SIG_SETMASK, &setup->signals, NULL);
	if (open)
		execve(setup->path, setup->arguments, setup->environment);
	send_report(setup->control, &(struct upgrade_report){.kind = REPORT_EXEC_FAILED, .error = errno}, -1);
	_exit(STATUS_EXEC_FAILED);
}

/* --- the intermediate process --- */

static void close_between(const struct upgrade_fork_setup *setup, unsigned first, unsigned last)
{
	if (first > last || syscall(SYS_close_range, first, last, 0) == 0)
		return;
	for (unsigned fd = first; fd <= last && fd < setup->fd_limit; fd++)
		close((int)fd);
}

/* Closes all descriptors but standard ones, CONTROL and PIDFD: a connection that the parent closes must not stay
 * open here. */
static void close_others(const struct upgrade_fork_setup *setup, int pidfd)
{
	int control = setup->control;
	unsigned low = (unsigned)(control < pidfd ? control : pidfd);
	unsigned high = (unsigned)(control < pidfd ? pidfd : control);
	close_between(setup, STDERR_FILENO + 1, low - 1);
	close_between(setup, low + 1, high - 1);
	close_between(setup, high + 1, ~0U);
}

/* Forks the new process and reports it. Returns its pidfd. */
static int fork_new(const struct upgrade_fork_setup *setup, pid_t *pid)
{
	*pid = fork();
	if (*pid == 0)
		exec_new(setup);
	int pidfd = *pid < 0 ? -1 : (int)syscall(SYS_pidfd_open, *pid, 0);
	if (pidfd < 0) {
		const struct upgrade_report report = {.kind = REPORT_EXEC_FAILED, .error = errno};
		if (*pid > 0)
			kill(*pid, SIGKILL);
		send_report(setup->control, &report, -1);
		_exit(STATUS_EXEC_FAILED);
	}
	send_report(setup->control, &(struct upgrade_report){.kind = REPORT_FORKED, .pid = *pid}, pidfd);
	return pidfd;
}

/* Waits until the new process exits, which it reports, or the parent closes its end of the control socket. */
static _Noreturn void intermediate_main(const struct upgrade_fork_setup *setup)
{
	pid_t pid;
	int pidfd = fork_new(setup, &pid);
	close_others(setup, pidfd);

	struct pollfd watched[] = {{.fd = pidfd, .events = POLLIN}, {.fd = setup->control, .events = POLLIN}};
	while (watched[0].revents == 0 && watched[1].revents == 0)
		poll(watched, 2, -1);
	siginfo_t info;
	if (watched[0].revents != 0 && waitid(P_PID, (id_t)pid, &info, WEXITED) == 0)
		send_report(
			setup->control,
			&(struct upgrade_report){.kind = REPORT_ENDED, .code = info.si_code, .status = info.si_status},
			-1);
	_exit(EXIT_SUCCESS);
}

/* --- the parent --- */

/* All signals are blocked over the fork and in the intermediate process: the handlers it inherits would write to the
 * parent's event loop, and a signal for the process group must not end it. */
pid_t upgrade_fork_intermediate(struct upgrade_fork_setup *setup)
{
	sigset_t all;
	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, &setup->signals);
	pid_t pid = fork();
	if (pid == 0)
		intermediate_main(setup);
	int error = errno;
	sigprocmask(SIG_SETMASK, &setup->signals, NULL);
	errno = error;
	return pid;
}
