"""Runs a program with sockets in LISTEN_FDS, as a service manager does for socket activation.

usage: socket_activation.py [--names NAMES] [--pid PID] SOCKET... -- PROGRAM [ARGUMENT...]

A SOCKET is KIND=ADDRESS:PORT with KIND tcp, udp, dual_tcp or dual_udp, or a descriptor that the daemon must refuse:
unix, seqpacket, connected or file.
"""

import os
import socket
import sys

import client

FIRST = 3


def split(address):
    host, port = address.rsplit(":", 1)
    return host.strip("[]"), int(port)


def tcp(address, **options):
    """Returns a listening socket on ADDRESS, `HOST:PORT`."""
    host, port = split(address)
    listener = socket.socket(client.family_of(host), socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bind(listener, host, port, **options)
    listener.listen(100)
    return listener


def udp(address, **options):
    host, port = split(address)
    datagrams = socket.socket(client.family_of(host), socket.SOCK_DGRAM)
    bind(datagrams, host, port, **options)
    return datagrams


def bind(opened, host, port, dual_stack=False):
    if opened.family == socket.AF_INET6:
        opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, not dual_stack)
    opened.bind((host, port))


def dual_tcp(address):
    return tcp(address, dual_stack=True)


def dual_udp(address):
    return udp(address, dual_stack=True)


def unix(_):
    return socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)


def connected(_):
    """Returns a stream socket that does not listen."""
    unlistened = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    unlistened.bind(("127.0.0.1", 0))
    return unlistened


def seqpacket(_):
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)[0]


def file(_):
    return open("/dev/null")


def activate(kinds, names, pid, command):
    """Opens the sockets KINDS as descriptors from 3 on and runs COMMAND."""
    table = {
        kind.__name__: kind for kind in (tcp, udp, dual_tcp, dual_udp, unix, connected, seqpacket, file)
    }
    opened = []
    for kind in kinds:
        word, _, address = kind.partition("=")
        opened.append(table[word](address))
    copies = [os.dup2(each.fileno(), 200 + number) for number, each in enumerate(opened)]
    for number, copy in enumerate(copies):
        os.dup2(copy, FIRST + number, inheritable=True)
        os.close(copy)
    os.closerange(FIRST + len(copies), 200)
    os.environ["LISTEN_FDS"] = str(len(copies))
    os.environ["LISTEN_PID"] = pid or str(os.getpid())
    if names:
        os.environ["LISTEN_FDNAMES"] = names
    os.execvp(command[0], command)


def main():
    arguments = sys.argv[1:]
    names = pid = None
    while arguments[0].startswith("--") and arguments[0] != "--":
        option, value = arguments[:2]
        names, pid = (value, pid) if option == "--names" else (names, value)
        arguments = arguments[2:]
    end = arguments.index("--")
    activate(arguments[:end], names, pid, arguments[end + 1 :])


main()
