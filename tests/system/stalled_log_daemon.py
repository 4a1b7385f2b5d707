"""Clients of a daemon while its log daemon is stopped."""

import os
import shutil
import signal
import socket

import client

CONNECTIONS = 1500  # each logs a line; more lines than the log's queue holds, 1024


def flood(host, port, count):
    """Makes COUNT connections to echo, one after the other. Each logs a line."""
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


def serves_while_stalled(reader, pid, conf, more, host, port, new_port):
    """Checks that while the log daemon READER is stopped, connections are served and a reload to MORE opens NEW_PORT."""
    os.kill(int(reader), signal.SIGSTOP)
    try:
        flood(host, port, CONNECTIONS)
        shutil.copy(more, conf)
        os.kill(int(pid), signal.SIGHUP)
        client.wait_until(lambda: serves(host, new_port), "a reload")
    finally:
        os.kill(int(reader), signal.SIGCONT)


client.run(flood, serves_while_stalled)
