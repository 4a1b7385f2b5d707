"""Runs a program beside a log daemon, in a mount namespace that the caller made: mounts an empty file system at
DIRECTORY (in /dev it makes null), receives datagrams at PATH below it, and prints each as a line, its own lines joined
by |. Ends with the program."""

import ctypes
import os
import signal
import socket
import stat
import sys

PR_SET_PDEATHSIG = 1
CLONE_NEWNET = 0x40000000


def short_queue(libc):
    """A socket that holds 10 datagrams, as the kernel has it by default: systemd raises that to 512 where it is the host's, but a
    network of its own has its own limit. The path is the same for all."""
    with open("/proc/self/ns/net", "rb") as host:
        if libc.unshare(CLONE_NEWNET) != 0:
            sys.exit("unshare: " + os.strerror(ctypes.get_errno()))
        log = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        if libc.setns(host.fileno(), CLONE_NEWNET) != 0:
            sys.exit("setns: " + os.strerror(ctypes.get_errno()))
    return log


def listen(directory, path):
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"tmpfs", directory.encode(), b"tmpfs", 0, None) != 0:
        sys.exit("mount: " + os.strerror(ctypes.get_errno()))
    if directory == "/dev":
        os.mknod("/dev/null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    path = os.path.join(directory, path)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    log = short_queue(libc)
    log.bind(path)
    return log, libc


def main(directory, path, *program):
    log, libc = listen(directory, path)
    if os.fork() == 0:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        while True:
            text = log.recv(65536).decode().rstrip("\n\0")
            print("socket: " + text.replace("\n", "|"), flush=True)
    log.close()
    os.execvp(program[0], program)


main(*sys.argv[1:])
