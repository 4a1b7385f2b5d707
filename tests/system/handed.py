"""A service manager that hands sockets over: opens them, tells of them in the environment, and becomes the daemon."""

import os
import socket
import sys

FIRST = 3


def tcp(address, **options):
    """A listening socket on ADDRESS, `HOST:PORT`, with the port that is free for port 0."""
    host, port = address.rsplit(":", 1)
    host = host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bind(listener, host, port, **options)
    listener.listen(100)
    return listener


def udp(address, **options):
    host, port = address.rsplit(":", 1)
    host = host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    datagrams = socket.socket(family, socket.SOCK_DGRAM)
    bind(datagrams, host, port, **options)
    return datagrams


def bind(opened, host, port, both=False):
    if opened.family == socket.AF_INET6:
        opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, not both)
    opened.bind((host, int(port)))


def both_tcp(address):
    return tcp(address, both=True)


def both_udp(address):
    return udp(address, both=True)


def unix(_):
    """What no endpoint is."""
    return socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)


def connected(_):
    """A stream that does not listen."""
    unlistened = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    unlistened.bind(("127.0.0.1", 0))
    return unlistened


def seqpacket(_):
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)[0]


def file(_):
    return open("/dev/null")


def hand_over(kinds, names, pid, command):
    """Puts what KINDS, words as `tcp=127.0.0.1:7`, ask for behind the standard descriptors, and runs COMMAND."""
    table = {
        kind.__name__: kind for kind in (tcp, udp, both_tcp, both_udp, unix, connected, seqpacket, file)
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
    """handed.py [--names NAMES] [--pid PID] KIND... -- COMMAND..."""
    arguments = sys.argv[1:]
    names = pid = None
    while arguments[0].startswith("--") and arguments[0] != "--":
        option, value = arguments[:2]
        names, pid = (value, pid) if option == "--names" else (names, value)
        arguments = arguments[2:]
    split = arguments.index("--")
    hand_over(arguments[:split], names, pid, arguments[split + 1 :])


main()
