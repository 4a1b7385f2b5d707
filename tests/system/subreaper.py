"""Runs a daemon as a child subreaper, as a service manager does, so that orphaned processes become its children.

usage: subreaper.py PROGRAM [ARGUMENT...]

Writes `PID STATUS` to the file `ended` for each process that exits, forwards TERM to all and exits after the last one.
Exit status: 0 if each process exited with 0 or was killed by SIGKILL, else 1.
"""

import ctypes
import os
import signal
import sys

PR_SET_CHILD_SUBREAPER = 36


def children():
    with open(f"/proc/self/task/{os.getpid()}/children") as list_of_pids:
        return [int(pid) for pid in list_of_pids.read().split()]


def forward(number, _):
    for pid in children():
        os.kill(pid, number)


def main():
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        sys.exit(f"prctl: {os.strerror(ctypes.get_errno())}")
    # TERM is blocked until the daemon is started, which starts with no signal blocked
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    if os.fork() == 0:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
        try:
            os.execv(sys.argv[1], sys.argv[1:])
        except OSError as error:
            sys.stderr.write(f"{sys.argv[1]}: {error}\n")
            os._exit(127)
    signal.signal(signal.SIGTERM, forward)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    clean = True
    with open("ended", "a") as ended:
        while True:
            try:
                pid, status = os.wait()
            except ChildProcessError:
                break
            code = os.waitstatus_to_exitcode(status)
            clean = clean and code in (0, -signal.SIGKILL)
            ended.write(f"{pid} {code}\n")
            ended.flush()
    os._exit(0 if clean else 1)  # a TERM during the interpreter's exit would change the status


main()
