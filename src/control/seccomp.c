/* seccomp.c: the system calls that the daemon may use. */
#include "config_build.h"

#include "control/seccomp.h"
#include "core/array.h"

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || __has_feature(memory_sanitizer)
#define BUILT_WITH_SANITIZER
#endif
#elif defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define BUILT_WITH_SANITIZER
#endif

#if !defined(HAVE_LIBSECCOMP)

enum seccomp_filter_result seccomp_filter_load(bool upgraded, char *reason, size_t size)
{
	(void)upgraded;
	snprintf(reason, size, "this build has no libseccomp");
	return SECCOMP_FILTER_FAILED;
}

#elif defined(BUILT_WITH_SANITIZER)

/* The leak detector of a sanitizer uses ptrace and other calls that the filter refuses. */
enum seccomp_filter_result seccomp_filter_load(bool upgraded, char *reason, size_t size)
{
	(void)upgraded;
	snprintf(reason, size, "this build has a sanitizer, which needs other system calls");
	return SECCOMP_FILTER_FAILED;
}

#else

#include <linux/seccomp.h>
#include <sched.h>
#include <seccomp.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

enum {
	REVISION = 5, /* of the lists below: to be increased with each change */
	REVISION_UNKNOWN = -1,
};

/* The revision of the filter, for a new process that an upgrade starts and that inherits the filter. */
#define REVISION_VARIABLE "SMALLSERVD_SECCOMP"

/* System calls of the daemon, libevent, OpenSSL, libsystemd and the C library, including those of a start after an
 * upgrade. Calls that an architecture lacks are skipped. Calls of the message path are allowed by number alone, which
 * kernels decide by a bitmap. */
/* clang-format off */
static const char *const allowed[] = {
	/* messages */
	"accept", "accept4", "epoll_ctl", "epoll_pwait", "epoll_pwait2", "epoll_wait", "read", "readv", "recv",
	"recvfrom", "recvmmsg", "recvmmsg_time64", "recvmsg", "send", "sendmmsg", "sendmsg", "sendto", "shutdown",
	"write", "writev",
	/* sockets */
	"bind", "connect", "getpeername", "getsockname", "getsockopt", "listen", "setsockopt", "socketcall",
	"socketpair",
	/* waiting */
	"_newselect", "epoll_create", "epoll_create1", "eventfd", "eventfd2", "poll", "ppoll", "ppoll_time64",
	"pselect6", "pselect6_time64", "select", "timerfd_create", "timerfd_gettime", "timerfd_gettime64",
	"timerfd_settime", "timerfd_settime64",
	/* time */
	"clock_getres", "clock_getres_time64", "clock_gettime", "clock_gettime64", "clock_nanosleep",
	"clock_nanosleep_time64", "gettimeofday", "nanosleep", "time",
	/* memory */
	"brk", "madvise", "membarrier", "memfd_create", "mremap", "munmap",
	/* descriptors and files */
	"_llseek", "access", "close", "close_range", "dup", "dup2", "dup3", "faccessat", "faccessat2", "fadvise64",
	"fadvise64_64", "fcntl", "fcntl64", "fstat", "fstat64", "fstatat64", "fstatfs", "fstatfs64", "getcwd",
	"getdents", "getdents64", "ioctl", "lseek", "lstat", "lstat64", "newfstatat", "open", "openat", "pipe", "pipe2",
	"pread64", "preadv", "pwrite64", "pwritev", "readlink", "readlinkat", "stat", "stat64",
	"statfs", "statfs64", "statx",
	/* the pid file */
	"chdir", "chmod", "chown", "chown32", "fchdir", "fchmod", "fchmodat", "fchown", "fchown32", "fchownat",
	"fdatasync", "flock", "fsync", "ftruncate", "ftruncate64", "rename",
	"renameat", "renameat2", "umask", "unlink", "unlinkat",
	/* threads */
	"arch_prctl", "cacheflush", "futex", "futex_time64", "get_robust_list", "get_thread_area", "getcpu", "gettid",
	"riscv_flush_icache", "riscv_hwprobe", "rseq", "sched_get_priority_max", "sched_get_priority_min",
	"sched_getaffinity", "sched_getattr", "sched_getparam", "sched_getscheduler", "sched_setaffinity",
	"sched_yield", "set_robust_list", "set_thread_area", "set_tid_address", "set_tls",
	/* signals */
	"kill", "pause", "pidfd_open", "pidfd_send_signal", "restart_syscall", "rt_sigaction",
	"rt_sigpending", "rt_sigprocmask", "rt_sigqueueinfo", "rt_sigreturn", "rt_sigsuspend", "rt_sigtimedwait",
	"rt_sigtimedwait_time64", "rt_tgsigqueueinfo", "sigaltstack", "signalfd", "signalfd4", "sigreturn", "tgkill",
	"tkill",
	/* a new binary, and a start as root */
	"capget", "capset", "execve", "exit", "exit_group", "fork", "getpgid", "getpgrp", "getppid",
	"getsid", "prctl", "setgid", "setgid32", "setgroups", "setgroups32", "setpgid", "setresgid", "setresgid32",
	"setresuid", "setresuid32", "setsid", "setuid", "setuid32", "vfork", "wait4", "waitid", "waitpid",
	/* identity and system */
	"getegid", "getegid32", "geteuid", "geteuid32", "getgid", "getgid32", "getgroups", "getgroups32", "getpid",
	"getrandom", "getresgid", "getresgid32", "getresuid", "getresuid32", "getrlimit", "getrusage", "getuid",
	"getuid32", "prlimit64", "setrlimit", "sysinfo", "ugetrlimit", "uname",
};
/* clang-format on */

/* Calls for which the C library has a fallback after ENOSYS, but not after EPERM. The filter cannot see the flags of
 * clone3. */
static const char *const unknown[] = {
	"clone3",     "fchmodat2",      "futex_requeue",    "futex_wait", "futex_waitv",
	"futex_wake", "io_uring_setup", "map_shadow_stack", "openat2",
};

static int add(scmp_filter_ctx filter, uint32_t action, const char *name, unsigned count,
	       const struct scmp_arg_cmp *arguments)
{
	int number = seccomp_syscall_resolve_name(name);
	if (number == __NR_SCMP_ERROR)
		return 0; /* unknown to this version of the library */
	int error = seccomp_rule_add_array(filter, action, number, count, arguments);
	return error == -EDOM ? 0 : error; /* not on this architecture */
}

static int add_all(scmp_filter_ctx filter, uint32_t action, const char *const *names, size_t count)
{
	int error = 0;
	for (size_t i = 0; i < count && error == 0; i++)
		error = add(filter, action, names[i], 0, NULL);
	return error;
}

static int allow_families(scmp_filter_ctx filter)
{
	static const int families[] = {AF_UNIX, AF_INET, AF_INET6, AF_NETLINK};
	int error = 0;
	for (size_t i = 0; i < COUNT_OF(families) && error == 0; i++) {
		struct scmp_arg_cmp family = SCMP_A0(SCMP_CMP_MASKED_EQ, UINT32_MAX, (uint32_t)families[i]);
		error = add(filter, SCMP_ACT_ALLOW, "socket", 1, &family);
	}
	return error;
}

/* Refuses memory that is writable and executable, as injected code needs it. */
static int allow_mappings(scmp_filter_ctx filter)
{
	static const char *const calls[] = {"mmap", "mmap2", "mprotect"};
	const struct scmp_arg_cmp protections[] = {
		SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_WRITE, 0),
		SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0),
	};
	int error = 0;
	for (size_t i = 0; i < COUNT_OF(calls); i++)
		for (size_t j = 0; j < COUNT_OF(protections) && error == 0; j++)
			error = add(filter, SCMP_ACT_ALLOW, calls[i], 1, &protections[j]);
	return error;
}

/* Allows threads and processes, but no new namespaces, which expose much of the kernel to unprivileged processes. */
static int allow_clone(scmp_filter_ctx filter)
{
	const uint64_t namespaces = CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER |
				    CLONE_NEWPID | CLONE_NEWNET;
#if defined(__s390__)
	struct scmp_arg_cmp flags = SCMP_A1(SCMP_CMP_MASKED_EQ, namespaces, 0);
#else
	struct scmp_arg_cmp flags = SCMP_A0(SCMP_CMP_MASKED_EQ, namespaces, 0);
#endif
	return add(filter, SCMP_ACT_ALLOW, "clone", 1, &flags);
}

/* Returns the revision of the filter that this process has inherited from its parent, if it is UPGRADED; 0: none. A
 * filter of a container or of the service manager does not count. */
static int inherited_revision(bool upgraded)
{
	const char *revision = getenv(REVISION_VARIABLE);
	if (!upgraded || prctl(PR_GET_SECCOMP, 0, 0, 0, 0) != SECCOMP_MODE_FILTER)
		return 0;
	return revision != NULL ? atoi(revision) : REVISION_UNKNOWN;
}

/* Returns whether a system call is refused that any process may make and the daemon never makes: reading memory by
 * address, here 0 bytes. */
static bool refuses(void)
{
	return syscall(SYS_process_vm_readv, getpid(), NULL, 0, NULL, 0, 0) < 0 && errno == EPERM;
}

/* Returns 0 or -errno. */
static int load(scmp_filter_ctx filter)
{
	int error = add_all(filter, SCMP_ACT_ALLOW, allowed, COUNT_OF(allowed));
	if (error == 0)
		error = add_all(filter, SCMP_ACT_ERRNO(ENOSYS), unknown, COUNT_OF(unknown));
	if (error == 0)
		error = allow_families(filter);
	if (error == 0)
		error = allow_mappings(filter);
	if (error == 0)
		error = allow_clone(filter);
	/* calls of another architecture could mean anything: they kill the process */
	if (error == 0)
		error = seccomp_attr_set(filter, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS);
	/* no foreign code runs here: the slow mitigation that filters imply before Linux 5.16 is not needed */
	(void)seccomp_attr_set(filter, SCMP_FLTATR_CTL_SSB, 1);
	(void)seccomp_attr_set(filter, SCMP_FLTATR_API_SYSRAWRC, 1);
	(void)seccomp_attr_set(filter, SCMP_FLTATR_CTL_OPTIMIZE, 2);
	return error == 0 ? seccomp_load(filter) : error;
}

enum seccomp_filter_result seccomp_filter_load(bool upgraded, char *reason, size_t size)
{
	int inherited = inherited_revision(upgraded);
	if (inherited != 0 && refuses())
		return inherited == REVISION ? SECCOMP_FILTER_INHERITED : SECCOMP_FILTER_OUTDATED;

	char revision[16];
	scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ERRNO(EPERM));
	int error = filter != NULL ? load(filter) : -ENOMEM;
	seccomp_release(filter);
	if (error != 0) {
		snprintf(reason, size, "%s", strerror(-error));
		return SECCOMP_FILTER_FAILED;
	}
	if (!refuses()) {
		snprintf(reason, size, "self-test failed: a forbidden system call was allowed");
		return SECCOMP_FILTER_FAILED;
	}
	snprintf(revision, sizeof revision, "%d", REVISION);
	/* without memory for it a new process takes the filter for an outdated one */
	(void)setenv(REVISION_VARIABLE, revision, 1);
	return SECCOMP_FILTER_LOADED;
}

#endif
