"""Clients that exceed limits of connections, time, descriptors and memory."""

import os
import resource
import select
import socket
import time

import client


class Crowd:
    """Clients of echo that have each sent a message. Those that have received the echo are served, the others wait."""

    def __init__(self, count, *endpoints):
        self.waiting = []
        self.served = []
        for number in range(count):
            peer = client.tcp(*endpoints[number % len(endpoints)])
            peer.sendall(b"hello")
            self.waiting.append(peer)

    def receive_echoes(self, seconds):
        """Receives echoes until none has arrived for SECONDS."""
        while True:
            ready, _, _ = select.select(self.waiting, [], [], seconds)
            if not ready:
                return
            for peer in ready:
                assert client.receive(peer, 5) == b"hello", "refused"
                self.waiting.remove(peer)
                self.served.append(peer)

    def await_served(self, count):
        ends = time.monotonic() + client.DEADLINE
        while len(self.served) < count:
            assert time.monotonic() < ends, f"{len(self.served)} clients served, not {count}"
            self.receive_echoes(0.05)
        self.receive_echoes(0.3)
        assert len(self.served) == count, f"{len(self.served)} clients served at once, not {count}"

    def leave(self):
        self.served.pop(0).close()


def assert_idle(pid):
    """Checks that process PID uses less than 0.1 s of CPU time in a second."""
    before = client.cpu_seconds(pid)
    time.sleep(1)
    used = client.cpu_seconds(pid) - before
    assert used < 0.1, f"the daemon spins: {used:.2f} s of CPU time in a second"


def connections(pid, limit, count, host, *ports):
    """Checks that exactly LIMIT of COUNT clients of PORTS are served at once, and each in the end."""
    limit, count = int(limit), int(count)
    crowd = Crowd(count, *((host, port) for port in ports))
    crowd.await_served(limit)
    assert_idle(pid)
    for peer in crowd.served:
        assert client.echoes(peer, b"still served")
    crowd.leave()
    crowd.await_served(limit)
    ends = time.monotonic() + client.DEADLINE
    while crowd.waiting:
        if crowd.served:
            crowd.leave()
        crowd.receive_echoes(0.01)
        assert len(crowd.served) <= limit
        assert time.monotonic() < ends, f"{len(crowd.waiting)} clients were not served"
    for peer in crowd.served:
        assert client.echoes(peer, b"still served")


def churn(limit, count, rounds, host, *ports):
    """Checks that LIMIT holds and each client is served while COUNT clients at once connect and leave, for ROUNDS."""
    for _ in range(int(rounds)):
        crowd = Crowd(int(count), *((host, port) for port in ports))
        ends = time.monotonic() + client.DEADLINE
        while crowd.waiting:
            crowd.receive_echoes(0.002)
            assert len(crowd.served) <= int(limit), f"{len(crowd.served)} clients served at once"
            while crowd.served:
                crowd.leave()
            assert time.monotonic() < ends, f"{len(crowd.waiting)} clients were not served"


def disconnects_while_queued(limit, host, port):
    """Checks that clients that disconnect while queued do not delay the clients behind them."""
    crowd = Crowd(int(limit), (host, port))
    crowd.await_served(int(limit))
    leaving = [client.tcp(host, port) for _ in range(50)]
    for number, peer in enumerate(leaving):
        if number % 2:
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        peer.close()
    last = Crowd(1, (host, port))
    crowd.leave()
    last.await_served(1)


def seconds_until_closed(peer):
    began = time.monotonic()
    try:
        assert peer.recv(1) == b"", "data without a request"
    except ConnectionResetError:
        pass
    return time.monotonic() - began


def idle(host, port, timeout):
    """Checks that a connection without traffic is closed after TIMEOUT seconds and not much before."""
    peer = client.tcp(host, port)
    seconds = seconds_until_closed(peer)
    assert seconds > float(timeout) * 0.9, f"closed after {seconds:.2f} s"


def active(host, port, timeout):
    """Checks that a connection with occasional traffic outlives three times TIMEOUT seconds."""
    pause, rounds = float(timeout) / 10, 30
    for _ in range(5):
        peer, longest = client.tcp(host, port), 0.0
        try:
            for _ in range(rounds):
                began = time.monotonic()
                time.sleep(pause)
                if not client.echoes(peer, b"x"):
                    break
                longest = max(longest, time.monotonic() - began)
            else:
                return
        except ConnectionError:
            longest = max(longest, time.monotonic() - began)
        assert max(longest, time.monotonic() - began) > float(timeout) * 0.7, "closed though it was active"
    print("this host is too slow for this test")


def reader(host, port, timeout):
    """Checks that a connection that only receives, from chargen, outlives TIMEOUT seconds."""
    peer = client.tcp(host, port)
    ends = time.monotonic() + 2 * float(timeout)
    while time.monotonic() < ends:
        assert peer.recv(4096), "closed though it was active"


def lifetime(host, port, age):
    """Checks that a busy connection is closed at AGE seconds and not much before."""
    began = time.monotonic()
    peer = client.tcp(host, port)
    ends = began + client.DEADLINE
    try:
        while client.echoes(peer, b"x"):
            assert time.monotonic() < ends, "still open"
            time.sleep(0.02)
    except ConnectionError:
        pass
    seconds = time.monotonic() - began
    assert seconds > float(age) * 0.9, f"closed after {seconds:.2f} s"


def descriptors(pid, host, port):
    """Checks that without free descriptors open connections are served, the daemon is idle, and it accepts again later."""
    pid = int(pid)
    first = Crowd(1, (host, port))
    first.await_served(1)
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (client.limit_with_free(3, pid), before[1]))
    crowd = Crowd(60, (host, port))  # enough that each worker has clients that wait
    crowd.receive_echoes(0.5)
    assert crowd.served and crowd.waiting, f"{len(crowd.served)} of 60 clients served"
    assert_idle(pid)
    for peer in crowd.served + first.served:
        assert client.echoes(peer, b"still served")
    count = len(crowd.served)
    crowd.leave()
    crowd.await_served(count)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
    ends = time.monotonic() + client.DEADLINE
    while crowd.waiting:
        crowd.receive_echoes(0.1)
        assert time.monotonic() < ends, f"{len(crowd.waiting)} clients were not served"


def fill(peers):
    """Sends on PEERS until no byte was accepted for half a second. Returns the number of bytes sent."""
    block, total = bytes(1 << 18), 0
    for peer in peers:
        peer.setblocking(False)
    last = time.monotonic()
    while time.monotonic() < last + 0.5:
        for peer in select.select([], peers, [], 0.1)[1]:
            try:
                total += peer.send(block)
                last = time.monotonic()
            except BlockingIOError:
                pass
    return total


def stalled(pid, host, port):
    """Checks that eight clients that send without reading cost less than 4 MiB in all and another one is served."""
    warm = [client.tcp(host, port) for _ in range(32)]
    for peer in warm:
        assert client.echoes(peer, bytes(1 << 20))
        peer.close()
    before = client.pss_kib(pid)
    peers = [client.tcp(host, port) for _ in range(8)]
    sent = fill(peers)
    after = client.pss_kib(pid)
    assert_idle(pid)
    assert client.echoes(client.tcp(host, port), os.urandom(100000))
    cost = after - before
    print(f"{sent >> 10} KiB sent, {cost} KiB of memory")
    assert cost < 4096, f"{cost} KiB for eight clients that do not read"
    for peer in peers:
        peer.setblocking(True)
        peer.settimeout(client.DEADLINE)
        peer.shutdown(socket.SHUT_WR)
    got = sum(len(client.receive_all(peer)) for peer in peers)
    assert got == sent, f"{got} of {sent} bytes came back"


def chargen_stalled(pid, host, port):
    """Checks that eight clients of chargen that do not read cost less than 4 MiB in all."""
    warm = [client.tcp(host, port) for _ in range(32)]
    for peer in warm:
        client.receive(peer, 1 << 20)
        peer.close()
    before = client.pss_kib(pid)
    peers = [client.tcp(host, port) for _ in range(8)]
    for peer in peers:
        client.receive(peer, 1)
    assert_idle(pid)
    cost = client.pss_kib(pid) - before
    print(f"{cost} KiB of memory")
    assert cost < 4096, f"{cost} KiB for eight clients that do not read"


def idle_memory(pid, host, port, count, measure):
    """Checks that beside COUNT idle connections a new one is served and, if MEASURE is yes, that each costs less than 1 KiB."""
    count = int(count)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    assert client.echoes(client.tcp(host, port), os.urandom(1 << 20))
    before = client.pss_kib(pid) if measure == "yes" else 0
    peers = []
    while len(peers) < count:
        batch = [client.tcp(host, port) for _ in range(min(500, count - len(peers)))]
        for peer in batch:
            assert client.echoes(peer, b"hello"), "refused"
        peers.extend(batch)
    with client.tcp(host, port) as peer:
        for _ in range(100):
            assert client.echoes(peer, os.urandom(1000))
    for peer in (peers[0], peers[count // 2], peers[-1]):
        assert client.echoes(peer, b"still served")
    assert_idle(pid)
    if measure == "yes":
        cost = (client.pss_kib(pid) - before) * 1024 / count
        print(f"{cost:.0f} bytes a connection")
        assert cost < 1024, f"{cost:.0f} bytes for each of {count} idle connections"


client.run(connections, churn, disconnects_while_queued, idle, active, reader, lifetime, descriptors, stalled, chargen_stalled,
           idle_memory)
