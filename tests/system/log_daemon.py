"""Runs a program beside a log daemon that prints each datagram as a line, with line ends as |.

usage: log_daemon.py DIRECTORY PATH PROGRAM [ARGUMENT...]

Mounts an empty file system at DIRECTORY, with null if that is /dev, and receives datagrams at PATH below it. The caller
provides the mount namespace. The log daemon ends with the program.
"""

import ctypes
import os
import signal
import socket
import stat
import sys

PR_SET_PDEATHSIG = 1
CLONE_NEWNET = 0x40000000


def short_queue(libc):
    """Returns a socket with a queue of 10 datagrams, the default of the kernel.

    systemd raises net.unix.max_dgram_qlen to 512 on the host. A new network namespace has the default; paths of Unix
    sockets do not depend on the namespace.
    """
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
