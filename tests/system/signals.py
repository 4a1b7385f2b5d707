"""Clients of a daemon that is told to stop, or something else, while they are connected."""

import errno
import os
import select
import selectors
import signal
import socket
import time

import client


def is_refused(host, port):
    """Whether a new connection is refused. Getting no answer does not count: then somebody still holds the port."""
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
    """Sends TERM and waits until nobody listens any more: the open connections are served on, new ones refused."""
    os.kill(int(pid), signal.SIGTERM)
    client.wait_until(lambda: is_refused(host, port), "the daemon stops listening")


def is_running(pid):
    with open(f"/proc/{pid}/stat") as stat:
        return stat.read().rpartition(")")[2].split()[0] not in "ZX"


def drains(pid, host, port):
    """A connection is served after TERM as before, to its own end."""
    peers = [client.tcp(host, port) for _ in range(4)]
    for peer in peers:
        assert client.echoes(peer, b"before")
    stop(pid, host, port)
    for peer in peers:
        assert client.echoes(peer, os.urandom(1 << 20)), "not served after TERM"
    assert is_running(pid), "it did not wait for its connections"
    for peer in peers:
        peer.sendall(b"the rest")
        peer.shutdown(socket.SHUT_WR)
        assert client.receive_all(peer) == b"the rest"


def times_out(pid, host, port, timeout):
    """A connection that does not end is closed at stop_timeout, and not much before."""
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
    """COUNT clients that send as long as they can, read nothing, and stay."""
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
    """After a second TERM the connection is closed, though its time is not over."""
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
    """COUNT connections and datagrams reach the kernel alone, then TERM comes: each is served."""
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
    """Sends datagrams without an end, each as soon as the last is gone; says `answered` at the first reply."""
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
    """Clients that connect, ask, hear and leave, over and over, many at once."""

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

    def on_readable(self, peer, heard):
        try:
            text = peer.recv(100)
        except OSError as error:
            self.lost.append(error)
            self.leave(peer)
            return
        heard += text
        done = heard == b"hello" if self.service == "echo" else not text and heard.endswith(b"\n")
        if not done and text:
            return
        if done:
            self.served += 1
        else:
            self.lost.append(f"an end after {bytes(heard)!r}")
        self.leave(peer)

    def go_on(self):
        for key, events in self.selector.select(0.1):
            if events & selectors.EVENT_WRITE:
                self.on_connected(key.fileobj)
            else:
                self.on_readable(key.fileobj, key.data)


def under_load(pid, host, port, service="echo"):
    """Every client that was connected before, at or after TERM is served whole; the others are refused."""
    load = Load(host, port, service)
    while load.served < 300:
        load.go_on()
        for _ in range(load.AT_ONCE - len(load.selector.get_map())):
            load.connect()
    os.kill(int(pid), signal.SIGTERM)
    ends = time.monotonic() + client.DEADLINE
    while not load.refused:
        load.go_on()
        for _ in range(load.AT_ONCE - len(load.selector.get_map())):
            load.connect()
        assert time.monotonic() < ends, "it goes on listening"
    while load.selector.get_map():
        load.go_on()
        assert time.monotonic() < ends, f"{len(load.selector.get_map())} clients wait for ever"
    print(f"{load.served} served, {load.refused} refused")
    assert not load.lost, f"{len(load.lost)} lost, the first: {load.lost[0]}"


def stop_at_limit(pid, host, port, limit, count):
    """COUNT connections, of which LIMIT have a place when TERM comes: all are served."""
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
        assert ready, f"{len(waiting)} connections that waited are never served"
        for peer in ready:
            assert client.receive(peer, 5) == b"hello", "a connection that waited is lost"
            peer.close()
            waiting.remove(peer)


def survives(pid, name, host, port):
    """An open connection and a new one are served after signal NAME."""
    peer = client.tcp(host, port)
    assert client.echoes(peer, b"before")
    for _ in range(3):
        os.kill(int(pid), getattr(signal, "SIG" + name))
        assert client.echoes(peer, b"after")
    assert client.echoes(client.tcp(host, port), b"another")


def resets(host, port, count):
    """COUNT clients that reset their connection in the midst of an answer."""
    for _ in range(int(count)):
        with client.tcp(host, port) as peer:
            peer.sendall(bytes(10000))
            peer.recv(1)
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")


client.run(drains, times_out, stuck, second_term, queued, flood, under_load, stop_at_limit, survives, resets)
