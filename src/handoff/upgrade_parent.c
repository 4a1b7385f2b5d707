/* upgrade_parent.c: the parent's side of an upgrade, until the new process has taken over or failed.
 *
 *     intermediate process → parent   reports, see upgrade_fork.h; end of file: it has exited
 *     parent → intermediate process   end of file: exit
 *     new process ↔ parent            messages of upgrade_channel.h; end of file: the other has exited or is done */
#include "handoff/upgrade_parent.h"

#include <errno.h>
#include <event2/event.h>
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
#include "handoff/upgrade_channel.h"
#include "handoff/upgrade_fork.h"

extern char **environ;

enum {
	KILL_GRACE_MS = 5000,
	FORK_MS = 5000,
	LINE_SIZE = 256,
};

/* --- the program --- */

/* Returns the path of the running executable, for a program that was started by fexecve(3). */
static char *executable_path(void)
{
	char path[PATH_MAX];
	ssize_t length = readlink("/proc/self/exe", path, sizeof path - 1);
	if (length < 0)
		return NULL;
	path[length] = '\0';
	return strdup(path);
}

/* Symbolic links stay, since an installation may change them; argv[0] is arbitrary. */
char *upgrade_find_path(void)
{
	const char *path = (const char *)getauxval(AT_EXECFN); // NOLINT: getauxval returns a number
	char *absolute, *folder;

	if (path == NULL || strncmp(path, "/dev/fd/", 8) == 0)
		return executable_path();
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

/* --- state --- */

enum stage {
	STAGE_STARTING,    /* until the new process is ready */
	STAGE_SEPARATING,  /* until the intermediate process has exited */
	STAGE_TAKING_OVER, /* until the new process has taken over */
	STAGE_ENDED,       /* by a call of ENDED or by upgrade_cancel */
};

struct upgrade {
	enum stage stage;
	upgrade_ended *ended;
	void *argument;
	const char *path;
	pid_t intermediate, pid; /* 0: not forked yet, or reaped */
	int control, channel, pidfd;
	struct event *control_event, *channel_event, *deadline;
	int64_t deadline_ms;
	char failure[UPGRADE_MESSAGE_SIZE]; /* empty: none yet */
};

static void free_event(struct event **event)
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

static void free_events(struct upgrade *upgrade)
{
	free_event(&upgrade->control_event);
	free_event(&upgrade->channel_event);
	free_event(&upgrade->deadline);
}

static bool send_signal(const struct upgrade *upgrade, int signal)
{
	return upgrade->pidfd >= 0 && syscall(SYS_pidfd_send_signal, upgrade->pidfd, signal, NULL, 0) == 0;
}

/* Cancels the new process: SIGKILL before it is ready, else a graceful stop. Closing the channel alone would mean
 * that the parent has exited. */
static void cancel_new(const struct upgrade *upgrade)
{
	upgrade_channel_send(upgrade->channel, UPGRADE_STOP);
	send_signal(upgrade, upgrade->stage == STAGE_STARTING ? SIGKILL : SIGTERM);
}

/* Waits for the intermediate process, which exits without delay. */
static void reap_intermediate(struct upgrade *upgrade)
{
	while (upgrade->intermediate > 0 && waitpid(upgrade->intermediate, NULL, 0) < 0 && errno == EINTR)
		;
	upgrade->intermediate = 0;
}

static void end(struct upgrade *upgrade)
{
	upgrade->stage = STAGE_ENDED;
	free_events(upgrade);
	close_fd(&upgrade->control);
	upgrade->ended(upgrade, upgrade->failure[0] != '\0' ? upgrade->failure : NULL, upgrade->argument);
}

/* Fails for the reason of FORMAT, if it is the first, and cancels the new process. Ends once the intermediate
 * process has exited. */
static void fail(struct upgrade *upgrade, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void fail(struct upgrade *upgrade, const char *format, ...)
{
	const struct timeval grace = clock_timeval(KILL_GRACE_MS);
	va_list arguments;

	if (upgrade->failure[0] != '\0')
		return;
	va_start(arguments, format);
	vsnprintf(upgrade->failure, sizeof upgrade->failure, format, arguments);
	va_end(arguments);
	free_event(&upgrade->channel_event);
	cancel_new(upgrade);
	if (upgrade->intermediate == 0)
		end(upgrade);
	else
		event_add(upgrade->deadline, &grace);
}

/* --- events --- */

static void on_deadline(evutil_socket_t fd, short what, void *argument)
{
	struct upgrade *upgrade = argument;
	(void)fd, (void)what;
	if (upgrade->failure[0] != '\0') { /* the grace of a killed process is over */
		end(upgrade);
		return;
	}
	send_signal(upgrade, SIGKILL); /* in any stage */
	fail(upgrade, "the new process was not ready within %lld s", (long long)(upgrade->deadline_ms / 1000));
}

static void on_intermediate_exited(struct upgrade *upgrade)
{
	free_event(&upgrade->control_event);
	reap_intermediate(upgrade);
	if (upgrade->failure[0] != '\0') {
		end(upgrade);
	} else if (upgrade->stage != STAGE_SEPARATING) {
		fail(upgrade, "the intermediate process exited");
	} else {
		upgrade->stage = STAGE_TAKING_OVER;
		if (!upgrade_channel_send(upgrade->channel, UPGRADE_TAKE))
			fail(upgrade, "the new process exited before it took over");
	}
}

static void on_report(struct upgrade *upgrade, const struct upgrade_report *report, int pidfd)
{
	if (report->kind == REPORT_FORKED) {
		upgrade->pid = report->pid;
		upgrade->pidfd = pidfd;
		if (upgrade->failure[0] != '\0')
			send_signal(upgrade, SIGKILL);
	} else if (report->kind == REPORT_EXEC_FAILED) {
		fail(upgrade, "cannot run %s: %s", upgrade->path, strerror(report->error));
	} else if (report->code == CLD_EXITED) {
		fail(upgrade, "the new process exited with status %d", report->status);
	} else {
		fail(upgrade, "the new process was killed by signal %d (%s)", report->status,
		     strsignal(report->status));
	}
}

static void on_control(evutil_socket_t fd, short what, void *argument)
{
	struct upgrade *upgrade = argument;
	struct upgrade_report report;
	int pidfd;

	(void)what;
	ssize_t length = upgrade_report_receive(fd, &report, &pidfd);
	if (length == sizeof report)
		on_report(upgrade, &report, pidfd);
	else if (length >= 0 || (errno != EAGAIN && errno != EINTR))
		on_intermediate_exited(upgrade);
}

static void on_message(struct upgrade *upgrade, const char *message)
{
	static const char failed[] = UPGRADE_FAILED " ";

	if (strcmp(message, UPGRADE_READY) == 0 && upgrade->stage == STAGE_STARTING) {
		upgrade->stage = STAGE_SEPARATING;
		shutdown(upgrade->control, SHUT_WR);
	} else if (strcmp(message, UPGRADE_TAKEN) == 0 && upgrade->stage == STAGE_TAKING_OVER) {
		end(upgrade);
	} else if (strncmp(message, failed, strlen(failed)) == 0) {
		fail(upgrade, "%s", message + strlen(failed));
	} else {
		fail(upgrade, "unexpected message of the new process: \"%s\"", message);
	}
}

static void on_channel(evutil_socket_t fd, short what, void *argument)
{
	struct upgrade *upgrade = argument;
	char message[UPGRADE_MESSAGE_SIZE];

	(void)what;
	ssize_t length = upgrade_channel_receive(fd, message);
	if (length > 0) {
		on_message(upgrade, message);
	} else if (length == 0) {
		free_event(&upgrade->channel_event);
		if (upgrade->stage != STAGE_STARTING) /* else a report says how it exited */
			fail(upgrade, "the new process exited before it took over");
	}
}

/* --- starting --- */

static unsigned fd_limit(void)
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

/* Returns this process's environment with CHANNEL_LINE and FDS_LINE in place of the variables of an earlier upgrade.
 * The lines are not copied. */
static const char **make_environment(const char *channel_line, const char *fds_line)
{
	size_t count = 0, kept = 0;
	while (environ[count] != NULL)
		count++;
	const char **lines = calloc(count + 3, sizeof *lines);
	if (lines == NULL)
		return NULL;
	for (size_t i = 0; i < count; i++)
		if (!is_variable(environ[i], channel_line) && !is_variable(environ[i], fds_line))
			lines[kept++] = environ[i];
	lines[kept++] = channel_line;
	lines[kept++] = fds_line;
	return lines;
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

static bool open_pair(int *own, int *other)
{
	int pair[2];
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0)
		return false;
	*own = pair[0];
	*other = pair[1];
	return true;
}

struct upgrade *upgrade_start(struct event_base *base, const struct upgrade_program *program,
			      const struct upgrade_fds *fds, int64_t deadline_ms, upgrade_ended *ended, void *argument)
{
	int control = -1, channel = -1; /* the children's ends */
	char channel_line[LINE_SIZE];
	const char **environment = NULL;

	struct upgrade *upgrade = calloc(1, sizeof *upgrade);
	if (upgrade == NULL)
		return NULL;
	*upgrade = (struct upgrade){.ended = ended,
				    .argument = argument,
				    .path = program->path,
				    .control = -1,
				    .channel = -1,
				    .pidfd = -1,
				    .deadline_ms = deadline_ms};
	if (open_pair(&upgrade->control, &control) && open_pair(&upgrade->channel, &channel) && watch(upgrade, base)) {
		snprintf(channel_line, sizeof channel_line, UPGRADE_VARIABLE "=%d", channel);
		environment = make_environment(channel_line, fds->variable);
	}
	if (environment != NULL) {
		struct upgrade_fork_setup setup = {.path = program->path,
						   .arguments = program->arguments,
						   .environment = (char *const *)environment,
						   .fds = fds->list,
						   .fd_count = fds->count,
						   .channel = channel,
						   .control = control,
						   .fd_limit = fd_limit()};
		upgrade->intermediate = upgrade_fork_intermediate(&setup);
	}
	int error = errno;
	close_fd(&control);
	close_fd(&channel);
	free(environment);
	if (upgrade->intermediate > 0)
		return upgrade;
	upgrade->intermediate = 0;
	upgrade_free(upgrade);
	errno = error;
	return NULL;
}

pid_t upgrade_pid(const struct upgrade *upgrade)
{
	return upgrade->pid;
}

/* --- ending --- */

/* Waits for the report of the fork, so that no process is left of an upgrade cancelled before it. */
static void wait_for_fork(struct upgrade *upgrade)
{
	struct pollfd control = {.fd = upgrade->control, .events = POLLIN};
	struct upgrade_report report;

	if (upgrade->intermediate == 0 || upgrade->pidfd >= 0 || poll(&control, 1, FORK_MS) <= 0)
		return;
	if (upgrade_report_receive(upgrade->control, &report, &upgrade->pidfd) == sizeof report && upgrade->pidfd >= 0)
		upgrade->pid = report.pid;
}

void upgrade_cancel(struct upgrade *upgrade)
{
	if (upgrade->stage == STAGE_ENDED)
		return;
	wait_for_fork(upgrade);
	cancel_new(upgrade);
	upgrade->stage = STAGE_ENDED;
	free_events(upgrade);
}

bool upgrade_signal(const struct upgrade *upgrade, int signal)
{
	return send_signal(upgrade, signal);
}

bool upgrade_confirm(const struct upgrade *upgrade)
{
	return upgrade_channel_send(upgrade->channel, UPGRADE_SERVE);
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
	close_fd(&upgrade->control); /* the intermediate process exits */
	reap_intermediate(upgrade);
	close_fd(&upgrade->channel);
	close_fd(&upgrade->pidfd);
	free(upgrade);
}
