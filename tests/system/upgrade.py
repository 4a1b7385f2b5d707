"""Clients of a daemon that is upgraded, and its surroundings."""

import os
import signal
import socket
import struct
import time

import client


def exists(path):
    return os.path.exists(path)


def holds(host, port, count, end):
    """COUNT connections that are served all the time until the file END is there, and then to their last byte."""
    peers = [client.tcp(host, port) for _ in range(int(count))]
    last = False
    rounds = 0
    while not last:
        last = exists(end)
        for peer in peers:
            assert client.echoes(peer, os.urandom(5000)), "not served any more"
        rounds += 1
        if rounds == 1:
            print("served", flush=True)
        time.sleep(0.01)
    for peer in peers:
        peer.sendall(b"the rest")
        peer.shutdown(socket.SHUT_WR)
        assert client.receive_all(peer) == b"the rest"


def datagrams(host, port, end):
    """Datagrams with one in flight, from ever new sockets, until the file END is there: each must be answered."""
    number = 0
    while not exists(end):
        with client.udp(host, port) as peer:
            for _ in range(20):
                number += 1
                text = number.to_bytes(8, "big")
                assert client.ask(peer, text) == text, f"datagram {number}"
        if number == 20:
            print("served", flush=True)
        time.sleep(0.001)


def connections(host, port, end):
    """One connection after the other until the file END is there: each must be served."""
    number = 0
    while not exists(end):
        with client.tcp(host, port) as peer:
            peer.sendall(b"hello")
            peer.shutdown(socket.SHUT_WR)
            assert client.receive_all(peer) == b"hello", f"connection {number}"
        number += 1
        if number == 1:
            print("served", flush=True)


def spread(host, tcp_port, udp_port, count):
    """COUNT connections and as many datagrams from ports of their own: every socket of the group must be read."""
    for number in range(int(count)):
        with client.tcp(host, tcp_port) as peer:
            peer.sendall(b"hello")
            peer.shutdown(socket.SHUT_WR)
            assert client.receive_all(peer) == b"hello", f"connection {number}"
        with client.udp(host, udp_port) as peer:
            assert client.ask(peer, b"hello") == b"hello", f"datagram {number}"


def manager(path):
    """A service manager's side of sd_notify: prints `PID LINE` for each line that process PID sends, after `listening`."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        listener.bind(path)
        print("listening", flush=True)
        while True:
            data, ancillary, _, _ = listener.recvmsg(65536, socket.CMSG_SPACE(struct.calcsize("3i")))
            pid = struct.unpack("3i", ancillary[0][2])[0]
            for line in data.decode().splitlines():
                print(pid, line, flush=True)


def bound_pair():
    """A TCP and a UDP socket on one port of 127.0.0.1."""
    while True:
        stream = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        datagram = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        stream.bind(("127.0.0.1", 0))
        try:
            datagram.bind(stream.getsockname())
        except OSError:
            continue
        stream.listen()
        return stream, datagram


def handed(path, program, option, conf):
    """Runs PROGRAM OPTION CONF as a service manager does that hands sockets over: TCP and UDP on one port, which goes to the file
    PATH, and in CONF takes the place of HANDED."""
    pair = bound_pair()
    port = pair[0].getsockname()[1]
    with open(conf) as file:
        text = file.read().replace("HANDED", str(port))
    for name, content in ((conf, text), (path, str(port))):
        with open(name, "w") as file:
            file.write(content)
    high = [os.dup2(peer.fileno(), 60 + i) for i, peer in enumerate(pair)]
    for i, fd in enumerate(high):
        os.dup2(fd, 3 + i)
        os.close(fd)
    os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="2", LISTEN_FDNAMES="echo:echo")
    os.execv(program, [program, option, conf])


def children(pid):
    try:
        with open(f"/proc/{pid}/task/{pid}/children") as list_of_pids:
            return [int(child) for child in list_of_pids.read().split()]
    except OSError:
        return []


def descendants(pid):
    """Prints every process that comes from PID."""
    found, waiting = [], [pid]
    while waiting:
        below = children(waiting.pop())
        found += below
        waiting += below
    print(*found)


def hups(pid):
    """HUPs, one behind the other, for as long as PID is there."""
    try:
        while True:
            os.kill(int(pid), signal.SIGHUP)
            time.sleep(0.0002)
    except ProcessLookupError:
        pass


client.run(holds, datagrams, connections, spread, manager, handed, descendants, hups)
