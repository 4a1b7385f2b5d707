"""Clients of a daemon that is upgraded, and its processes."""

import os
import signal
import socket
import time

import client


def holds(host, port, count, end):
    """Checks that COUNT connections are served until the file END exists, and then to their last byte."""
    peers = [client.tcp(host, port) for _ in range(int(count))]
    last = False
    rounds = 0
    while not last:
        last = os.path.exists(end)
        for peer in peers:
            assert client.echoes(peer, os.urandom(5000)), "no longer served"
        rounds += 1
        if rounds == 1:
            print("served", flush=True)
        time.sleep(0.01)
    for peer in peers:
        peer.sendall(b"the rest")
        peer.shutdown(socket.SHUT_WR)
        assert client.receive_all(peer) == b"the rest"


def datagrams(host, port, end):
    """Sends datagrams one at a time, from changing sockets, until the file END exists; each must be answered."""
    number = 0
    while not os.path.exists(end):
        with client.udp(host, port) as peer:
            for _ in range(20):
                number += 1
                text = number.to_bytes(8, "big")
                assert client.ask(peer, text) == text, f"datagram {number}"
        if number == 20:
            print("served", flush=True)
        time.sleep(0.001)


def connections(host, port, end):
    """Makes connections in succession until the file END exists; each must be served."""
    number = 0
    while not os.path.exists(end):
        with client.tcp(host, port) as peer:
            peer.sendall(b"hello")
            peer.shutdown(socket.SHUT_WR)
            assert client.receive_all(peer) == b"hello", f"connection {number}"
        number += 1
        if number == 1:
            print("served", flush=True)


def spread(host, tcp_port, udp_port, count):
    """Makes COUNT connections and sends COUNT datagrams, each from another port, so that they reach every socket."""
    for number in range(int(count)):
        with client.tcp(host, tcp_port) as peer:
            peer.sendall(b"hello")
            peer.shutdown(socket.SHUT_WR)
            assert client.receive_all(peer) == b"hello", f"connection {number}"
        with client.udp(host, udp_port) as peer:
            assert client.ask(peer, b"hello") == b"hello", f"datagram {number}"


def children(pid):
    try:
        with open(f"/proc/{pid}/task/{pid}/children") as list_of_pids:
            return [int(child) for child in list_of_pids.read().split()]
    except OSError:
        return []


def descendants(pid):
    """Prints all descendants of process PID."""
    found, waiting = [], [pid]
    while waiting:
        below = children(waiting.pop())
        found += below
        waiting += below
    print(*found)


def hups(pid):
    """Sends HUPs continuously while process PID exists."""
    try:
        while True:
            os.kill(int(pid), signal.SIGHUP)
            time.sleep(0.0002)
    except ProcessLookupError:
        pass


client.run(holds, datagrams, connections, spread, descendants, hups)
