"""Runs a daemon and adopts what it leaves behind, as a service manager does: prints `PID STATUS` for each process that ends, a
line in the file `ended`, and ends with the last of them. TERM goes on to all. Status 0: each ended with 0, or was killed.

    keeper.py PROGRAM ARGUMENT...
"""

import ctypes
import os
import signal
import sys

PR_SET_CHILD_SUBREAPER = 36


def children():
    with open(f"/proc/self/task/{os.getpid()}/children") as list_of_pids:
        return [int(pid) for pid in list_of_pids.read().split()]


def pass_on(number, _):
    for pid in children():
        os.kill(pid, number)


def main():
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        sys.exit(f"prctl: {os.strerror(ctypes.get_errno())}")
    # blocked until there is somebody to pass them on to; the daemon starts with none blocked
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    if os.fork() == 0:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
        try:
            os.execv(sys.argv[1], sys.argv[1:])
        except OSError as error:
            sys.stderr.write(f"{sys.argv[1]}: {error}\n")
            os._exit(127)
    signal.signal(signal.SIGTERM, pass_on)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    well = True
    with open("ended", "a") as ended:
        while True:
            try:
                pid, status = os.wait()
            except ChildProcessError:
                break
            code = os.waitstatus_to_exitcode(status)
            well = well and code in (0, -signal.SIGKILL)
            ended.write(f"{pid} {code}\n")
            ended.flush()
    os._exit(0 if well else 1)  # no TERM that comes by now is to end it otherwise


main()
