"""Clients of a daemon that receives signals while they are connected."""

import errno
import os
import select
import selectors
import signal
import socket
import time

import client


def is_refused(host, port):
    """Returns whether a new connection is refused. A timeout does not count: then a socket is still bound to the port."""
    try:
        with socket.socket(client.family_of(host), socket.SOCK_STREAM) as peer:
            peer.settimeout(0.5)
            peer.connect((host, int(port)))
            return False
    except ConnectionRefusedError:
        return True
    except socket.timeout:
        return False


def stop(pid, host, port):
    """Sends TERM and waits until new connections are refused."""
    os.kill(int(pid), signal.SIGTERM)
    client.wait_until(lambda: is_refused(host, port), "the daemon stops listening")


def is_running(pid):
    with open(f"/proc/{pid}/stat") as stat:
        return stat.read().rpartition(")")[2].split()[0] not in "ZX"


def drains(pid, host, port):
    """Checks that connections are served after TERM until their clients close."""
    peers = [client.tcp(host, port) for _ in range(4)]
    for peer in peers:
        assert client.echoes(peer, b"before")
    stop(pid, host, port)
    for peer in peers:
        assert client.echoes(peer, os.urandom(1 << 20)), "not served after TERM"
    assert is_running(pid), "the daemon did not wait for its connections"
    for peer in peers:
        peer.sendall(b"the rest")
        peer.shutdown(socket.SHUT_WR)
        assert client.receive_all(peer) == b"the rest"


def times_out(pid, host, port, timeout):
    """Checks that an open connection is closed at stop_timeout and not much before."""
    peer = client.tcp(host, port)
    assert client.echoes(peer, b"before")
    began = time.monotonic()
    os.kill(int(pid), signal.SIGTERM)
    try:
        assert peer.recv(1) == b""
    except ConnectionResetError:
        pass
    seconds = time.monotonic() - began
    assert seconds > float(timeout) * 0.9, f"closed after {seconds:.2f} s"


def stuck(host, port, count):
    """Runs COUNT clients that send until the socket is full, do not read and stay connected."""
    peers = [client.tcp(host, port) for _ in range(int(count))]
    for peer in peers:
        peer.setblocking(False)
        try:
            while True:
                peer.send(bytes(1 << 16))
        except BlockingIOError:
            pass
    print("stuck", flush=True)
    signal.pause()


def second_term(pid, host, port):
    """Checks that a second TERM closes the connection before stop_timeout."""
    peer = client.tcp(host, port)
    assert client.echoes(peer, b"before")
    stop(pid, host, port)
    assert client.echoes(peer, b"after")
    os.kill(int(pid), signal.SIGTERM)
    try:
        assert peer.recv(1) == b""
    except ConnectionResetError:
        pass


def queued(pid, host, tcp_port, udp_port, count):
    """Checks that COUNT connections and datagrams queued in the kernel before TERM are served."""
    pid = int(pid)
    datagrams = client.udp(host, udp_port)
    assert client.ask(datagrams, b"before") == b"before"
    os.kill(pid, signal.SIGSTOP)
    try:
        peers = [client.tcp(host, tcp_port) for _ in range(int(count))]
        for number, peer in enumerate(peers):
            peer.sendall(b"%d" % number)
            peer.shutdown(socket.SHUT_WR)
            datagrams.send(b"%d" % number)
        os.kill(pid, signal.SIGTERM)
    finally:
        os.kill(pid, signal.SIGCONT)
    for number, peer in enumerate(peers):
        assert client.receive_all(peer) == b"%d" % number, f"connection {number} is lost"
    for number in range(int(count)):
        assert datagrams.recv(100) == b"%d" % number, f"datagram {number} is lost"


def flood(host, port):
    """Sends datagrams continuously; prints `answered` at the first reply."""
    peer = client.udp(host, port)
    assert client.ask(peer, b"before") == b"before"
    print("answered", flush=True)
    peer.setblocking(False)
    while True:
        try:
            peer.send(b"flood")
        except (BlockingIOError, ConnectionRefusedError):
            pass


class Load:
    """Clients that repeatedly connect, exchange data and close, many at once."""

    AT_ONCE = 100

    def __init__(self, host, port, service):
        self.address, self.service = (host, int(port)), service
        self.selector = selectors.DefaultSelector()
        self.served, self.refused, self.lost = 0, 0, []
        for _ in range(self.AT_ONCE):
            self.connect()

    def connect(self):
        peer = socket.socket(client.family_of(self.address[0]), socket.SOCK_STREAM)
        peer.setblocking(False)
        peer.connect_ex(self.address)
        self.selector.register(peer, selectors.EVENT_WRITE, bytearray())

    def leave(self, peer):
        self.selector.unregister(peer)
        peer.close()

    def on_connected(self, peer):
        error = peer.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error != 0:
            if error == errno.ECONNREFUSED:
                self.refused += 1
            else:
                self.lost.append(os.strerror(error))
            self.leave(peer)
            return
        try:
            if self.service == "echo":
                peer.sendall(b"hello")
            self.selector.modify(peer, selectors.EVENT_READ, bytearray())
        except OSError as error:
            self.lost.append(error)
            self.leave(peer)

    def on_readable(self, peer, received):
        try:
            text = peer.recv(100)
        except OSError as error:
            self.lost.append(error)
            self.leave(peer)
            return
        received += text
        done = received == b"hello" if self.service == "echo" else not text and received.endswith(b"\n")
        if not done and text:
            return
        if done:
            self.served += 1
        else:
            self.lost.append(f"an end after {bytes(received)!r}")
        self.leave(peer)

    def step(self):
        for key, events in self.selector.select(0.1):
            if events & selectors.EVENT_WRITE:
                self.on_connected(key.fileobj)
            else:
                self.on_readable(key.fileobj, key.data)


def under_load(pid, host, port, service="echo"):
    """Checks that under load each client connected around TERM is served completely and the others are refused."""
    load = Load(host, port, service)
    while load.served < 300:
        load.step()
        for _ in range(load.AT_ONCE - len(load.selector.get_map())):
            load.connect()
    os.kill(int(pid), signal.SIGTERM)
    ends = time.monotonic() + client.DEADLINE
    while not load.refused:
        load.step()
        for _ in range(load.AT_ONCE - len(load.selector.get_map())):
            load.connect()
        assert time.monotonic() < ends, "the daemon still listens"
    while load.selector.get_map():
        load.step()
        assert time.monotonic() < ends, f"{len(load.selector.get_map())} clients are not served"
    print(f"{load.served} served, {load.refused} refused")
    assert not load.lost, f"{len(load.lost)} lost, the first: {load.lost[0]}"


def stop_at_limit(pid, host, port, limit, count):
    """Checks that COUNT connections, of which only LIMIT are accepted before TERM, are all served."""
    limit, count = int(limit), int(count)
    peers = [client.tcp(host, port) for _ in range(limit)]
    for peer in peers:
        assert client.echoes(peer, b"before")
    for _ in range(limit, count):
        peers.append(client.tcp(host, port))
        peers[-1].sendall(b"hello")
    os.kill(int(pid), signal.SIGTERM)
    time.sleep(0.3)
    for peer in peers[:limit]:
        assert client.echoes(peer, b"after")
        peer.close()
    waiting = peers[limit:]
    while waiting:
        ready, _, _ = select.select(waiting, [], [], client.DEADLINE)
        assert ready, f"{len(waiting)} waiting connections are not served"
        for peer in ready:
            assert client.receive(peer, 5) == b"hello", "a waiting connection is lost"
            peer.close()
            waiting.remove(peer)


def survives(pid, name, host, port):
    """Checks that an open and a new connection are served after signal NAME."""
    peer = client.tcp(host, port)
    assert client.echoes(peer, b"before")
    for _ in range(3):
        os.kill(int(pid), getattr(signal, "SIG" + name))
        assert client.echoes(peer, b"after")
    assert client.echoes(client.tcp(host, port), b"another")


def resets(host, port, count):
    """Runs COUNT clients that reset their connection during a reply."""
    for _ in range(int(count)):
        with client.tcp(host, port) as peer:
            peer.sendall(bytes(10000))
            peer.recv(1)
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")


client.run(drains, times_out, stuck, second_term, queued, flood, under_load, stop_at_limit, survives, resets)
