"""Clients that press against limits: of connections, time, descriptors and memory."""

import os
import resource
import select
import socket
import time

import client


class Crowd:
    """Clients of echo that all have something to say; those that were echoed are served, the others wait."""

    def __init__(self, count, *endpoints):
        self.waiting = []
        self.served = []
        for number in range(count):
            peer = client.tcp(*endpoints[number % len(endpoints)])
            peer.sendall(b"hello")
            self.waiting.append(peer)

    def look(self, seconds):
        """Takes the echoes that come until none has come for SECONDS."""
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
            self.look(0.05)
        self.look(0.3)
        assert len(self.served) == count, f"{len(self.served)} clients served at once, not {count}"

    def leave(self):
        self.served.pop(0).close()


def assert_idle(pid):
    """Process PID uses next to no CPU time in a second of waiting."""
    before = client.cpu_seconds(pid)
    time.sleep(1)
    used = client.cpu_seconds(pid) - before
    assert used < 0.1, f"the daemon spins: {used:.2f} s of CPU time in a second"


def connections(pid, limit, count, host, *ports):
    """Of COUNT clients of PORTS exactly LIMIT are served at once, and each gets its turn."""
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
        crowd.look(0.01)
        assert len(crowd.served) <= limit
        assert time.monotonic() < ends, f"{len(crowd.waiting)} clients are never served"
    for peer in crowd.served:
        assert client.echoes(peer, b"still served")


def churn(limit, count, rounds, host, *ports):
    """The limit holds, and nobody is forgotten, while COUNT clients at once come and go for ROUNDS."""
    for _ in range(int(rounds)):
        crowd = Crowd(int(count), *((host, port) for port in ports))
        ends = time.monotonic() + client.DEADLINE
        while crowd.waiting:
            crowd.look(0.002)
            assert len(crowd.served) <= int(limit), f"{len(crowd.served)} clients served at once"
            while crowd.served:
                crowd.leave()
            assert time.monotonic() < ends, f"{len(crowd.waiting)} clients are never served"


def gone_while_waiting(limit, host, port):
    """Clients that leave before their turn cost those behind them nothing."""
    crowd = Crowd(int(limit), (host, port))
    crowd.await_served(int(limit))
    impatient = [client.tcp(host, port) for _ in range(50)]
    for number, peer in enumerate(impatient):
        if number % 2:
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        peer.close()
    last = Crowd(1, (host, port))
    crowd.leave()
    last.await_served(1)


def seconds_until_closed(peer):
    began = time.monotonic()
    try:
        assert peer.recv(1) == b"", "an answer to nothing"
    except ConnectionResetError:
        pass
    return time.monotonic() - began


def idle(host, port, timeout):
    """A connection without a byte is closed after TIMEOUT seconds, and not much before."""
    peer = client.tcp(host, port)
    seconds = seconds_until_closed(peer)
    assert seconds > float(timeout) * 0.9, f"closed after {seconds:.2f} s"


def active(host, port, timeout):
    """A connection that moves a byte now and then outlives TIMEOUT seconds three times."""
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
    print("this host is too slow to tell")


def reader(host, port, timeout):
    """A connection that only receives is active too: chargen outlives TIMEOUT seconds."""
    peer = client.tcp(host, port)
    ends = time.monotonic() + 2 * float(timeout)
    while time.monotonic() < ends:
        assert peer.recv(4096), "closed though it was active"


def lifetime(host, port, age):
    """A connection that is busy is closed at AGE seconds, and not much before."""
    began = time.monotonic()
    peer = client.tcp(host, port)
    ends = began + client.DEADLINE
    try:
        while client.echoes(peer, b"x"):
            assert time.monotonic() < ends, "it lives on"
            time.sleep(0.02)
    except ConnectionError:
        pass
    seconds = time.monotonic() - began
    assert seconds > float(age) * 0.9, f"closed after {seconds:.2f} s"


def descriptors(pid, host, port):
    """Out of descriptors, the daemon serves those it has, waits without a spin, and serves the rest when it can."""
    pid = int(pid)
    first = Crowd(1, (host, port))
    first.await_served(1)
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (client.limit_that_leaves(3, pid), before[1]))
    crowd = Crowd(60, (host, port))  # enough for each worker to have many that wait
    crowd.look(0.5)
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
        crowd.look(0.1)
        assert time.monotonic() < ends, f"{len(crowd.waiting)} clients are never served"


def fill(peers):
    """Sends on PEERS until none has taken a byte for half a second; the count of bytes that were taken."""
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
    """Eight clients that send and never read cost less than 4 MiB together, and another one is served."""
    warm = [client.tcp(host, port) for _ in range(32)]
    for peer in warm:
        assert client.echoes(peer, bytes(1 << 20))
        peer.close()
    before = client.pss_kib(pid)
    peers = [client.tcp(host, port) for _ in range(8)]
    taken = fill(peers)
    after = client.pss_kib(pid)
    assert_idle(pid)
    assert client.echoes(client.tcp(host, port), os.urandom(100000))
    cost = after - before
    print(f"{taken >> 10} KiB taken, {cost} KiB of memory")
    assert cost < 4096, f"{cost} KiB for eight clients that do not read"
    for peer in peers:
        peer.setblocking(True)
        peer.settimeout(client.DEADLINE)
        peer.shutdown(socket.SHUT_WR)
    got = sum(len(client.receive_all(peer)) for peer in peers)
    assert got == taken, f"{got} bytes came back of {taken}"


def deaf(pid, host, port):
    """Eight clients of chargen that never read cost less than 4 MiB together."""
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


def idle_memory(pid, host, port, count, weighs):
    """COUNT idle connections cost less than a KiB each (unless WEIGHS is no), and a new one beside them is served."""
    count = int(count)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    assert client.echoes(client.tcp(host, port), os.urandom(1 << 20))
    before = client.pss_kib(pid) if weighs == "yes" else 0
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
    if weighs == "yes":
        cost = (client.pss_kib(pid) - before) * 1024 / count
        print(f"{cost:.0f} bytes a connection")
        assert cost < 1024, f"{cost:.0f} bytes for each of {count} idle connections"


client.run(connections, churn, gone_while_waiting, idle, active, reader, lifetime, descriptors, stalled, deaf,
           idle_memory)
