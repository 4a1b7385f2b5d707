/* seccomp.c: the system calls that the daemon may use. */
#include "config_build.h"

#include "control/seccomp.h"

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

enum seccomp_filter_result seccomp_filter_load(char *reason, size_t size)
{
	snprintf(reason, size, "this build has no libseccomp");
	return SECCOMP_FILTER_FAILED;
}

#elif defined(BUILT_WITH_SANITIZER)

/* It looks for leaks with ptrace, and more that nobody else may do. */
enum seccomp_filter_result seccomp_filter_load(char *reason, size_t size)
{
	snprintf(reason, size, "this build has a sanitizer, which needs more of them");
	return SECCOMP_FILTER_FAILED;
}

#else

#include <sched.h>
#include <seccomp.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

enum {
	REVISION = 4, /* of the lists below: count it up with each change */

	/* getitimer of a timer that no kernel has is answered by the filter alone, with a number that is no errno: so a process
	 * learns that it has inherited the filter, and which. */
	MARK_TIMER = 0x73767264,
	MARK_ERRNO = 3000,
	MARK_ERRNO_LAST = MARK_ERRNO + 999,
};

/* What the daemon, libevent, OpenSSL, libsystemd and the C library do, at the start of a new binary, too. Those that an architecture has
 * not are passed over. What runs for every message depends on its number alone, which kernels decide from a bitmap. */
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
	/* the PID file and the socket of the status endpoint */
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
	/* who and where we are */
	"getegid", "getegid32", "geteuid", "geteuid32", "getgid", "getgid32", "getgroups", "getgroups32", "getpid",
	"getrandom", "getresgid", "getresgid32", "getresuid", "getresuid32", "getrlimit", "getrusage", "getuid",
	"getuid32", "prlimit64", "setrlimit", "sysinfo", "ugetrlimit", "uname",
};
/* clang-format on */

/* For these the C library has another way when a kernel does not know them; EPERM it would take for an answer. The flags of clone3 are out
 * of the filter's sight. */
static const char *const unknown[] = {
	"clone3",     "fchmodat2",      "futex_requeue",    "futex_wait", "futex_waitv",
	"futex_wake", "io_uring_setup", "map_shadow_stack", "openat2",
};

#define COUNT_OF(array) (sizeof(array) / sizeof((array)[0]))

static int add(scmp_filter_ctx filter, uint32_t action, const char *name, unsigned count,
	       const struct scmp_arg_cmp *arguments)
{
	int number = seccomp_syscall_resolve_name(name);
	if (number == __NR_SCMP_ERROR)
		return 0; /* younger than the library */
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

/* Memory that can be written and executed is how injected code runs. */
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

/* Threads and processes, but no new namespaces: those open a lot of the kernel to whoever has none of its privileges. */
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

static int add_mark(scmp_filter_ctx filter)
{
	struct scmp_arg_cmp timer = SCMP_A0(SCMP_CMP_MASKED_EQ, UINT32_MAX, MARK_TIMER);
	return add(filter, SCMP_ACT_ERRNO(MARK_ERRNO + REVISION), "getitimer", 1, &timer);
}

/* The revision of the filter that this process has; 0: none. */
static int find_revision(void)
{
	long result = syscall(SYS_getitimer, MARK_TIMER, NULL);
	int error = errno;
	return result < 0 && error >= MARK_ERRNO && error <= MARK_ERRNO_LAST ? error - MARK_ERRNO : 0;
}

/* Whether something that any process may do, and that we never do, is refused now: reading memory by its address, here of nothing. */
static bool refuses(void)
{
	return syscall(SYS_process_vm_readv, getpid(), NULL, 0, NULL, 0, 0) < 0 && errno == EPERM;
}

/* Returns 0 or a negative errno. */
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
	if (error == 0)
		error = add_mark(filter);
	/* the calls of another architecture could mean anything: they end the process */
	if (error == 0)
		error = seccomp_attr_set(filter, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS);
	/* no code of others runs here, so nothing needs the slow mitigation that comes with filters on kernels before 5.16 */
	(void)seccomp_attr_set(filter, SCMP_FLTATR_CTL_SSB, 1);
	(void)seccomp_attr_set(filter, SCMP_FLTATR_API_SYSRAWRC, 1);
	(void)seccomp_attr_set(filter, SCMP_FLTATR_CTL_OPTIMIZE, 2);
	return error == 0 ? seccomp_load(filter) : error;
}

enum seccomp_filter_result seccomp_filter_load(char *reason, size_t size)
{
	int inherited = find_revision();
	if (inherited == 0) {
		scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ERRNO(EPERM));
		int error = filter != NULL ? load(filter) : -ENOMEM;
		seccomp_release(filter);
		if (error != 0) {
			snprintf(reason, size, "%s", strerror(-error));
			return SECCOMP_FILTER_FAILED;
		}
	}
	int revision = find_revision();
	if (!refuses() || revision == 0) {
		snprintf(reason, size, "what it forbids is not refused");
		return SECCOMP_FILTER_FAILED;
	}
	if (revision != REVISION)
		return SECCOMP_FILTER_OUTDATED;
	return inherited == 0 ? SECCOMP_FILTER_LOADED : SECCOMP_FILTER_THERE;
}

#endif
