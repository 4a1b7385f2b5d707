"""A daemon whose log daemon does not read."""

import os
import shutil
import signal
import socket

import client

CONNECTIONS = 1500  # lines: more than the queue of the log holds (1024)


def flood(host, port, count):
    """COUNT connections to an echo service, one behind the other: each is a line in its log."""
    for _ in range(int(count)):
        with client.tcp(host, port) as peer:
            peer.sendall(b"x")
            peer.shutdown(socket.SHUT_WR)
            assert client.receive_all(peer) == b"x"


def serves(host, port):
    try:
        flood(host, port, 1)
        return True
    except ConnectionRefusedError:
        return False


def goes_on(reader, pid, conf, more, host, port, new_port):
    """While READER, the log daemon, stands still, connections are served, and a reload to MORE opens NEW_PORT."""
    os.kill(int(reader), signal.SIGSTOP)
    try:
        flood(host, port, CONNECTIONS)
        shutil.copy(more, conf)
        os.kill(int(pid), signal.SIGHUP)
        client.wait_until(lambda: serves(host, new_port), "a reload")
    finally:
        os.kill(int(reader), signal.SIGCONT)


client.run(flood, goes_on)
