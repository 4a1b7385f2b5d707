/* upgrade_parent.c: a new process beside this one, from its birth until it has taken over or failed.
 *
 * Three processes are in it. The old one forks the one in the middle, which forks the new one, tells the old one how that
 * goes, and ends when the new one serves: so the new one has no living parent of ours by the time it takes over, and is
 * adopted by the service manager. The one in the middle never runs another program, and comes from a process with threads:
 * it makes only calls that are safe then. What they say to each other:
 *
 *     middle → old   report_born, report_not_run, report_ended; the end of the channel: the middle has ended
 *     old → middle   the end of the channel: it is not needed any more, or the old one died
 *     new ↔ old      the messages of upgrade.h; the end of the channel: the other has ended, or needs it no more */
#include "handoff/upgrade_parent.h"

#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/clock.h"

extern char **environ;

enum {
	STATUS_NOT_RUN = 127, /* as a shell has it */
	KILLED_GRACE_MS = 5000,
	BIRTH_MS = 5000,
	LINE_SIZE = 256,
};

/* --- the program --- */

struct upgrade_program {
	char *path;
	char **arguments;
};

static void free_list(char **list)
{
	for (size_t i = 0; list != NULL && list[i] != NULL; i++)
		free(list[i]);
	free(list);
}

static char **copy_list(char *const *list)
{
	size_t count = 0;
	while (list[count] != NULL)
		count++;
	char **copy = calloc(count + 1, sizeof *copy);
	for (size_t i = 0; copy != NULL && i < count; i++) {
		copy[i] = strdup(list[i]);
		if (copy[i] == NULL) {
			free_list(copy);
			return NULL;
		}
	}
	return copy;
}

/* Where the program lies that runs, for one that was started by its descriptor. */
static char *path_of_running(void)
{
	char path[PATH_MAX];
	ssize_t length = readlink("/proc/self/exe", path, sizeof path - 1);
	if (length < 0)
		return NULL;
	path[length] = '\0';
	return strdup(path);
}

/* The path that exec was given, symbolic links and all: who installs a new version may point one elsewhere. Neither
 * argv[0], which is whatever the caller likes, nor what the links led to at our start. */
char *upgrade_find_path(void)
{
	const char *path = (const char *)getauxval(AT_EXECFN); // NOLINT: that is how it is handed over
	char *absolute, *folder;

	if (path == NULL || strncmp(path, "/dev/fd/", 8) == 0)
		return path_of_running();
	if (path[0] == '/')
		return strdup(path);
	folder = getcwd(NULL, 0);
	if (folder == NULL)
		return NULL;
	if (asprintf(&absolute, "%s/%s", folder, path) < 0)
		absolute = NULL;
	free(folder);
	return absolute;
}

struct upgrade_program *upgrade_program_new(const char *path, char *const *argv)
{
	struct upgrade_program *program = calloc(1, sizeof *program);
	if (program == NULL)
		return NULL;
	program->path = strdup(path);
	program->arguments = copy_list(argv);
	if (program->path != NULL && program->arguments != NULL)
		return program;
	int error = errno;
	upgrade_program_free(program);
	errno = error;
	return NULL;
}

const char *upgrade_program_path(const struct upgrade_program *program)
{
	return program->path;
}

void upgrade_program_free(struct upgrade_program *program)
{
	if (program == NULL)
		return;
	free(program->path);
	free_list(program->arguments);
	free(program);
}

/* --- birth: up to the next such line only what is safe after a fork of a process with threads --- */

/* All that the two children need, prepared before they are born. */
struct birth {
	const char *path;
	char *const *arguments, *const *environment;
	const int *fds;
	size_t fd_count;
	int channel;       /* the new one's end */
	int control;       /* the middle's end */
	sigset_t signals;  /* those that were blocked */
	unsigned fd_limit; /* no descriptor is above */
};

enum report_kind { REPORT_BORN, REPORT_NOT_RUN, REPORT_ENDED };

/* What the one in the middle tells; a report of birth carries a pidfd. */
struct report {
	enum report_kind kind;
	pid_t pid;  /* REPORT_BORN */
	int error;  /* REPORT_NOT_RUN: errno */
	int code;   /* REPORT_ENDED: si_code */
	int status; /* and si_status */
};

static void send_report(int control, const struct report *report, int fd)
{
	union {
		struct cmsghdr header;
		char bytes[CMSG_SPACE(sizeof fd)];
	} ancillary;
	struct iovec part = {.iov_base = (void *)report, .iov_len = sizeof *report};
	struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};

	if (fd >= 0) {
		message.msg_control = ancillary.bytes;
		message.msg_controllen = sizeof ancillary.bytes;
		ancillary.header = (struct cmsghdr){
			.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(sizeof fd)};
		memcpy(CMSG_DATA(&ancillary.header), &fd, sizeof fd);
	}
	/* an old one that is gone needs no report */
	(void)!sendmsg(control, &message, MSG_NOSIGNAL);
}

static _Noreturn void become_new(const struct birth *birth)
{
	const struct sigaction by_default = {.sa_handler = SIG_DFL};
	for (int number = 1; number < NSIG; number++)
		if (number != SIGPIPE)
			sigaction(number, &by_default, NULL);
	bool kept = fcntl(birth->channel, F_SETFD, 0) == 0;
	for (size_t i = 0; i < birth->fd_count; i++)
		kept &= fcntl(birth->fds[i], F_SETFD, 0) == 0;
	sigprocmask(SIG_SETMASK, &birth->signals, NULL);
	if (kept)
		execve(birth->path, birth->arguments, birth->environment);
	const struct report report = {.kind = REPORT_NOT_RUN, .error = errno};
	send_report(birth->control, &report, -1);
	_exit(STATUS_NOT_RUN);
}

static void close_between(const struct birth *birth, unsigned first, unsigned last)
{
	if (first > last || syscall(SYS_close_range, first, last, 0) == 0)
		return;
	for (unsigned fd = first; fd <= last && fd < birth->fd_limit; fd++)
		close((int)fd);
}

/* A connection that the old one closes ends only when nobody else holds it open. */
static void close_others(const struct birth *birth, int control, int pidfd)
{
	unsigned low = (unsigned)(control < pidfd ? control : pidfd);
	unsigned high = (unsigned)(control < pidfd ? pidfd : control);
	close_between(birth, STDERR_FILENO + 1, low - 1);
	close_between(birth, low + 1, high - 1);
	close_between(birth, high + 1, ~0U);
}

/* Every signal is blocked here: one that is meant for all of the daemon must not end it unseen. */
static _Noreturn void stand_in_the_middle(const struct birth *birth)
{
	pid_t pid = fork();
	if (pid == 0)
		become_new(birth);
	int pidfd = pid < 0 ? -1 : (int)syscall(SYS_pidfd_open, pid, 0);
	struct report report = {.kind = REPORT_BORN, .pid = pid};
	if (pidfd < 0) {
		report = (struct report){.kind = REPORT_NOT_RUN, .error = errno};
		if (pid > 0)
			kill(pid, SIGKILL);
		send_report(birth->control, &report, -1);
		_exit(STATUS_NOT_RUN);
	}
	send_report(birth->control, &report, pidfd);
	close_others(birth, birth->control, pidfd);

	struct pollfd watched[] = {{.fd = pidfd, .events = POLLIN}, {.fd = birth->control, .events = POLLIN}};
	while (watched[0].revents == 0 && watched[1].revents == 0)
		poll(watched, 2, -1);
	siginfo_t info = {0};
	if (watched[0].revents != 0 && waitid(P_PID, (id_t)pid, &info, WEXITED) == 0) {
		report = (struct report){.kind = REPORT_ENDED, .code = info.si_code, .status = info.si_status};
		send_report(birth->control, &report, -1);
	}
	_exit(EXIT_SUCCESS);
}

/* --- the old one's side --- */

enum stage {
	STAGE_STARTING, /* until the new one is ready */
	STAGE_PARTING,  /* until the one in the middle has ended */
	STAGE_TAKING,   /* until the new one has taken over */
	STAGE_OVER,     /* told, or cancelled */
};

struct upgrade {
	enum stage stage;
	upgrade_ended *ended;
	void *argument;
	const char *path;
	pid_t middle, pid; /* 0: not born, or reaped */
	int control, channel, pidfd;
	struct event *control_event, *channel_event, *deadline;
	int64_t deadline_ms;
	char failure[UPGRADE_MESSAGE_SIZE]; /* empty: none yet */
};

static void forget_event(struct event **event)
{
	if (*event != NULL)
		event_free(*event);
	*event = NULL;
}

static void close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

static bool send_signal(const struct upgrade *upgrade, int signal)
{
	return upgrade->pidfd >= 0 && syscall(SYS_pidfd_send_signal, upgrade->pidfd, signal, NULL, 0) == 0;
}

static bool say(const struct upgrade *upgrade, const char *message)
{
	return send(upgrade->channel, message, strlen(message), MSG_NOSIGNAL) == (ssize_t)strlen(message);
}

/* Who does not serve yet is killed; who does is to stop in order. The end of the channel alone would mean that we died. */
static void send_away(const struct upgrade *upgrade)
{
	say(upgrade, UPGRADE_STOP);
	send_signal(upgrade, upgrade->stage == STAGE_STARTING ? SIGKILL : SIGTERM);
}

/* The one in the middle has ended, or is about to. */
static void reap_middle(struct upgrade *upgrade, int how)
{
	while (upgrade->middle > 0 && waitpid(upgrade->middle, NULL, how) < 0 && errno == EINTR)
		;
	upgrade->middle = 0;
}

static void end(struct upgrade *upgrade)
{
	upgrade->stage = STAGE_OVER;
	forget_event(&upgrade->control_event);
	forget_event(&upgrade->channel_event);
	forget_event(&upgrade->deadline);
	close_fd(&upgrade->control);
	upgrade->ended(upgrade, upgrade->failure[0] != '\0' ? upgrade->failure : NULL, upgrade->argument);
}

/* The first reason counts. Whoever serves is told to stop in order, whoever does not is killed; the end is told when
 * the one in the middle, if it is still there, has seen that. */
static void fail(struct upgrade *upgrade, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void fail(struct upgrade *upgrade, const char *format, ...)
{
	const struct timeval grace = clock_timeval(KILLED_GRACE_MS);
	va_list arguments;

	if (upgrade->failure[0] != '\0')
		return;
	va_start(arguments, format);
	vsnprintf(upgrade->failure, sizeof upgrade->failure, format, arguments);
	va_end(arguments);
	forget_event(&upgrade->channel_event);
	send_away(upgrade);
	if (upgrade->middle == 0)
		end(upgrade);
	else
		event_add(upgrade->deadline, &grace);
}

static void on_deadline(evutil_socket_t fd, short what, void *argument)
{
	struct upgrade *upgrade = argument;
	(void)fd, (void)what;
	if (upgrade->failure[0] != '\0') { /* killed and not dead yet: not to be waited for */
		end(upgrade);
		return;
	}
	send_signal(upgrade, SIGKILL); /* it has had its time, whatever it serves by now */
	fail(upgrade, "the new process was not ready within %lld s", (long long)(upgrade->deadline_ms / 1000));
}

static void on_middle_ended(struct upgrade *upgrade)
{
	forget_event(&upgrade->control_event);
	reap_middle(upgrade, 0);
	if (upgrade->failure[0] != '\0') {
		end(upgrade);
	} else if (upgrade->stage != STAGE_PARTING) {
		fail(upgrade, "the process in the middle ended");
	} else {
		upgrade->stage = STAGE_TAKING;
		if (!say(upgrade, UPGRADE_TAKE))
			fail(upgrade, "the new process ended before it took over");
	}
}

static void on_report(struct upgrade *upgrade, const struct report *report, int pidfd)
{
	if (report->kind == REPORT_BORN) {
		upgrade->pid = report->pid;
		upgrade->pidfd = pidfd;
		if (upgrade->failure[0] != '\0')
			send_signal(upgrade, SIGKILL);
	} else if (report->kind == REPORT_NOT_RUN) {
		fail(upgrade, "cannot run %s: %s", upgrade->path, strerror(report->error));
	} else if (report->code == CLD_EXITED) {
		fail(upgrade, "the new process ended with status %d", report->status);
	} else {
		fail(upgrade, "the new process was ended by signal %d (%s)", report->status, strsignal(report->status));
	}
}

/* Returns the length of the report, 0 at the end of the channel, -1 with errno; a descriptor that came with it in FD,
 * else -1. */
static ssize_t receive_report(int control, struct report *report, int *fd)
{
	union {
		struct cmsghdr header;
		char bytes[CMSG_SPACE(sizeof *fd)];
	} ancillary;
	struct iovec part = {.iov_base = report, .iov_len = sizeof *report};
	struct msghdr message = {.msg_iov = &part,
				 .msg_iovlen = 1,
				 .msg_control = ancillary.bytes,
				 .msg_controllen = sizeof ancillary.bytes};

	*fd = -1;
	ssize_t length = recvmsg(control, &message, MSG_CMSG_CLOEXEC);
	const struct cmsghdr *header = length > 0 ? CMSG_FIRSTHDR(&message) : NULL;
	if (header != NULL && header->cmsg_type == SCM_RIGHTS && header->cmsg_len == CMSG_LEN(sizeof *fd))
		memcpy(fd, CMSG_DATA(header), sizeof *fd);
	return length;
}

static void on_control(evutil_socket_t fd, short what, void *argument)
{
	struct upgrade *upgrade = argument;
	struct report report;
	int pidfd;

	(void)what;
	ssize_t length = receive_report(fd, &report, &pidfd);
	if (length == sizeof report)
		on_report(upgrade, &report, pidfd);
	else if (length >= 0 || (errno != EAGAIN && errno != EINTR))
		on_middle_ended(upgrade);
}

static bool begins_with(const char *text, const char *word)
{
	return strncmp(text, word, strlen(word)) == 0;
}

static void on_message(struct upgrade *upgrade, const char *message)
{
	if (strcmp(message, UPGRADE_READY) == 0 && upgrade->stage == STAGE_STARTING) {
		upgrade->stage = STAGE_PARTING;
		shutdown(upgrade->control, SHUT_WR);
	} else if (strcmp(message, UPGRADE_TAKEN) == 0 && upgrade->stage == STAGE_TAKING) {
		end(upgrade);
	} else if (begins_with(message, UPGRADE_FAILED " ")) {
		fail(upgrade, "%s", message + strlen(UPGRADE_FAILED " "));
	} else {
		fail(upgrade, "the new process says \"%s\"", message);
	}
}

static void on_channel(evutil_socket_t fd, short what, void *argument)
{
	struct upgrade *upgrade = argument;
	char message[UPGRADE_MESSAGE_SIZE];

	(void)what;
	ssize_t length = recv(fd, message, sizeof message - 1, 0);
	if (length > 0) {
		message[length] = '\0';
		on_message(upgrade, message);
	} else if (length == 0 || (errno != EAGAIN && errno != EINTR)) {
		forget_event(&upgrade->channel_event); /* the one in the middle knows how it ended, if it did */
		if (upgrade->stage != STAGE_STARTING)
			fail(upgrade, "the new process ended before it took over");
	}
}

static unsigned descriptor_limit(void)
{
	struct rlimit limit;
	bool known = getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < INT_MAX;
	return known ? (unsigned)limit.rlim_cur : INT_MAX;
}

static bool is_variable(const char *line, const char *name)
{
	size_t length = strcspn(name, "=");
	return strncmp(line, name, length) == 0 && line[length] == '=';
}

/* Our environment with the two variables of an upgrade in place of any that were there. The lines are not copied. */
static const char **make_environment(const char *channel_line, const char *further_line)
{
	size_t count = 0, kept = 0;
	while (environ[count] != NULL)
		count++;
	const char **lines = calloc(count + 3, sizeof *lines);
	if (lines == NULL)
		return NULL;
	for (size_t i = 0; i < count; i++)
		if (!is_variable(environ[i], channel_line) &&
		    (further_line == NULL || !is_variable(environ[i], further_line)))
			lines[kept++] = environ[i];
	lines[kept++] = channel_line;
	lines[kept++] = further_line;
	return lines;
}

/* Forks the one in the middle. A signal in the child must not reach our loop through the handlers and descriptors that
 * it has from us, so none may come before it has its own. */
static pid_t give_birth(struct birth *birth)
{
	sigset_t all;
	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, &birth->signals);
	pid_t pid = fork();
	if (pid == 0)
		stand_in_the_middle(birth);
	int error = errno;
	sigprocmask(SIG_SETMASK, &birth->signals, NULL);
	errno = error;
	return pid;
}

static bool watch(struct upgrade *upgrade, struct event_base *base)
{
	const struct timeval deadline = clock_timeval(upgrade->deadline_ms);
	upgrade->control_event = event_new(base, upgrade->control, EV_READ | EV_PERSIST, on_control, upgrade);
	upgrade->channel_event = event_new(base, upgrade->channel, EV_READ | EV_PERSIST, on_channel, upgrade);
	upgrade->deadline = evtimer_new(base, on_deadline, upgrade);
	return upgrade->control_event != NULL && upgrade->channel_event != NULL && upgrade->deadline != NULL &&
	       event_add(upgrade->control_event, NULL) == 0 && event_add(upgrade->channel_event, NULL) == 0 &&
	       event_add(upgrade->deadline, &deadline) == 0;
}

struct upgrade *upgrade_start(struct event_base *base, const struct upgrade_program *program,
			      const struct upgrade_gift *bequest, int64_t deadline_ms, upgrade_ended *ended,
			      void *argument, char *error, size_t size)
{
	enum { KIND = SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK };
	int control[2] = {-1, -1}, channel[2] = {-1, -1};
	char channel_line[LINE_SIZE];
	const char **environment = NULL;

	struct upgrade *upgrade = calloc(1, sizeof *upgrade);
	if (upgrade == NULL)
		goto fail;
	*upgrade = (struct upgrade){.ended = ended,
				    .argument = argument,
				    .path = program->path,
				    .control = -1,
				    .channel = -1,
				    .pidfd = -1,
				    .deadline_ms = deadline_ms};
	if (socketpair(AF_UNIX, KIND, 0, control) < 0 || socketpair(AF_UNIX, KIND, 0, channel) < 0)
		goto fail;
	upgrade->control = control[0];
	upgrade->channel = channel[0];
	snprintf(channel_line, sizeof channel_line, UPGRADE_VARIABLE "=%d", channel[1]);
	environment = make_environment(channel_line, bequest->variable);
	if (environment == NULL || !watch(upgrade, base))
		goto fail;
	struct birth birth = {.path = program->path,
			      .arguments = program->arguments,
			      .environment = (char *const *)environment,
			      .fds = bequest->fds,
			      .fd_count = bequest->fd_count,
			      .channel = channel[1],
			      .control = control[1],
			      .fd_limit = descriptor_limit()};
	upgrade->middle = give_birth(&birth);
	if (upgrade->middle < 0)
		goto fail;
	close(control[1]);
	close(channel[1]);
	free(environment);
	return upgrade;
fail:
	snprintf(error, size, "cannot start a process: %s", strerror(errno));
	for (int i = 0; i < 2; i++) {
		close_fd(&control[i]);
		close_fd(&channel[i]);
	}
	free(environment);
	if (upgrade != NULL) {
		upgrade->control = upgrade->channel = -1;
		upgrade->middle = 0;
	}
	upgrade_free(upgrade);
	return NULL;
}

pid_t upgrade_pid(const struct upgrade *upgrade)
{
	return upgrade->pid;
}

/* A process that is about to be born must not be left behind. */
static void wait_for_birth(struct upgrade *upgrade)
{
	struct pollfd control = {.fd = upgrade->control, .events = POLLIN};
	struct report report;

	if (upgrade->middle == 0 || upgrade->pidfd >= 0 || poll(&control, 1, BIRTH_MS) <= 0)
		return;
	if (receive_report(upgrade->control, &report, &upgrade->pidfd) == sizeof report && upgrade->pidfd >= 0)
		upgrade->pid = report.pid;
}

void upgrade_cancel(struct upgrade *upgrade)
{
	if (upgrade->stage == STAGE_OVER)
		return;
	wait_for_birth(upgrade);
	send_away(upgrade);
	upgrade->stage = STAGE_OVER;
	forget_event(&upgrade->control_event);
	forget_event(&upgrade->channel_event);
	forget_event(&upgrade->deadline);
}

bool upgrade_signal(const struct upgrade *upgrade, int signal)
{
	return send_signal(upgrade, signal);
}

bool upgrade_confirm(const struct upgrade *upgrade)
{
	return say(upgrade, UPGRADE_SERVE);
}

void upgrade_release(struct upgrade *upgrade)
{
	close_fd(&upgrade->channel);
}

void upgrade_free(struct upgrade *upgrade)
{
	if (upgrade == NULL)
		return;
	upgrade_cancel(upgrade);
	close_fd(&upgrade->control); /* has the one in the middle end */
	reap_middle(upgrade, 0);
	forget_event(&upgrade->control_event);
	forget_event(&upgrade->channel_event);
	forget_event(&upgrade->deadline);
	close_fd(&upgrade->channel);
	close_fd(&upgrade->pidfd);
	free(upgrade);
}
