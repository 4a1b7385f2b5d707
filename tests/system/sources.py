"""Clients from several addresses of this host, each of which is a source."""

import os
import select
import socket
import struct
import time

import client

HELLO = b"hello"


def connect(source, host, port):
    peer = socket.socket(client.family_of(host), socket.SOCK_STREAM)
    peer.settimeout(client.DEADLINE)
    peer.bind((source, 0))
    peer.connect((host, int(port)))
    return peer


def is_served(peer, sends_first=False):
    """Returns whether PEER is served, not closed without data."""
    try:
        if not sends_first:
            peer.sendall(HELLO)
        return bool(client.receive(peer, 1 if sends_first else len(HELLO)))
    except (ConnectionResetError, BrokenPipeError):
        return False


def crowd(count, source, host, port):
    """Opens COUNT connections at once. Returns those that are served and the number of refused ones."""
    peers = [connect(source, host, port) for _ in range(count)]
    served = [peer for peer in peers if is_served(peer)]
    return served, count - len(served)


def connections(host, port, maximum, *sources):
    """Checks that each of SOURCES has exactly MAXIMUM connections at once, and again after some have closed. Prints the
    number of refused connections."""
    maximum, refused_count, held = int(maximum), 0, []
    for source in sources:
        served, refused = crowd(3 * maximum, source, host, port)
        assert len(served) == maximum, f"{len(served)} connections of {source}, not {maximum}"
        refused_count += refused
        held += served
    for peer in held:
        assert client.echoes(peer, HELLO)

    leaves = held.pop(0)
    leaves.shutdown(socket.SHUT_WR)
    assert client.receive_all(leaves) == b""
    ends = time.monotonic() + client.DEADLINE
    again = connect(sources[0], host, port)
    while not is_served(again):
        assert time.monotonic() < ends, f"{sources[0]} gets no free slot"
        refused_count += 1
        again = connect(sources[0], host, port)
    served, refused = crowd(maximum, sources[0], host, port)
    assert not served, f"{len(served)} connections of {sources[0]} too many"
    print(refused_count + refused)


def together(host, port, maximum, *sources):
    """Checks that SOURCES have MAXIMUM connections in all."""
    served = []
    for number in range(3 * int(maximum)):
        peer = connect(sources[number % len(sources)], host, port)
        if is_served(peer):
            served.append(peer)
    assert len(served) == int(maximum), f"{len(served)} connections, not {maximum}"


def connection_rate(host, port, count, *sources):
    """Checks that each of SOURCES is served COUNT times in succession and then refused."""
    for source in sources:
        verdicts = []
        for _ in range(3 * int(count)):
            with connect(source, host, port) as peer:
                verdicts.append(is_served(peer))
        assert sum(verdicts) == int(count), f"{sum(verdicts)} connections of {source}, not {count}"
        assert all(verdicts[:int(count)]), f"a connection of {source} was refused too early"


def returns(host, port, source):
    """Connects from SOURCE until it is refused and then until it is served again."""
    ends = time.monotonic() + client.DEADLINE
    for wanted in False, True:
        while True:
            with connect(source, host, port) as peer:
                if is_served(peer) == wanted:
                    break
            assert time.monotonic() < ends, f"{source} is never {'served again' if wanted else 'refused'}"
            time.sleep(0.02 if wanted else 0)


def replies(peers, awaited):
    """Returns the number of datagrams received: waits for AWAITED ones and then until none has arrived for 0.3 s."""
    count = 0
    while True:
        ready, _, _ = select.select(peers, [], [], client.DEADLINE if count < awaited else 0.3)
        if not ready:
            return count
        for peer in ready:
            peer.recv(65536)
            count += 1


def datagram_rate(host, port, count, *sources):
    """Checks that each of SOURCES gets COUNT replies and no more."""
    for source in sources:
        peer = client.udp(host, port, bind=source)
        for _ in range(10 * int(count)):
            peer.send(HELLO)
        got = replies([peer], int(count))
        assert got == int(count), f"{got} replies to {source}, not {count}"


def replies_together(host, port, count, *sources):
    """Checks that SOURCES get COUNT replies in all."""
    peers = [client.udp(host, port, bind=source) for source in sources]
    for number in range(10 * int(count)):
        peers[number % len(peers)].send(HELLO)
    got = replies(peers, int(count))
    assert got == int(count), f"{got} replies, not {count}"


def burst(host, port, source, asked, bucket, rate):
    """Sends ASKED datagrams at once; as many as BUCKET holds, and RATE a second more, must be answered."""
    peer = client.udp(host, port, bind=source)
    began = time.monotonic()
    for _ in range(int(asked)):
        peer.send(HELLO)
    got = replies([peer], int(bucket))
    most = int(bucket) + int(rate) * (time.monotonic() - began) + 1
    assert int(bucket) <= got <= min(most, int(asked)), f"{got} replies"


def udp_returns(host, port, source):
    """Sends datagrams from SOURCE until one has no reply and then until one has."""
    peer = client.udp(host, port, bind=source)
    for _ in range(100):
        peer.send(HELLO)
    assert replies([peer], 1) < 100
    ends = time.monotonic() + client.DEADLINE
    peer.send(HELLO)
    while not select.select([peer], [], [], 0.05)[0]:
        assert time.monotonic() < ends, f"{source} gets no reply again"
        peer.send(HELLO)


def verdicts(host, tcp_port, udp_port, wanted, sends_first, *sources):
    """Checks that each of SOURCES is served or refused over both transports, as WANTED says."""
    wanted, sends_first = wanted == "served", sends_first == "yes"
    peers = {source: client.udp(host, udp_port, bind=source) for source in sources}
    for source in sources:
        served = is_served(connect(source, host, tcp_port), sends_first)
        assert served == wanted, f"tcp: {source} is {'served' if served else 'refused'}"
        peers[source].send(HELLO)
    for source, peer in peers.items():
        if wanted:
            assert peer.recv(65536), f"udp: {source} has no reply"
        else:
            assert client.silent(peer), f"udp: {source} has a reply"


def connect_refused(host, port, source, count):
    """Makes COUNT connections from SOURCE that must be refused. Returns the rate per second."""
    began = time.monotonic()
    for _ in range(count):
        with connect(source, host, port) as peer:
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            try:
                assert peer.recv(1) == b"", "served beyond the limit"
            except ConnectionResetError:
                pass
    return count / (time.monotonic() - began)


def round_trip(peer):
    began = time.perf_counter()
    assert client.echoes(peer, HELLO)
    return time.perf_counter() - began


def percentile_us(times, percent):
    return sorted(times)[len(times) * percent // 100] * 1e6


def echoes_during(peer, function):
    """Runs FUNCTION in another process. Returns the round trips of PEER meanwhile, and its result as text."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writing, f"{function():.0f}".encode())
        finally:
            os._exit(0)
    os.close(writing)
    times = []
    while os.waitpid(child, os.WNOHANG) == (0, 0):
        times += [round_trip(peer) for _ in range(20)]
    with os.fdopen(reading) as result:
        return times, result.read()


def flood(host, port, elsewhere, maximum, offender, other, count):
    """Checks that each echo of OTHER arrives while OFFENDER, at its MAXIMUM, makes COUNT more connections.

    Prints the round trips beside those without a flood and with the flood at the port ELSEWHERE, of another daemon, which
    shows the cost of the load on the machine.
    """
    peer = connect(other, host, port)
    peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    measured = {"alone": [round_trip(peer) for _ in range(5000)]}
    for where, target in ("at another daemon", elsewhere), ("at this daemon", port):
        held, _ = crowd(int(maximum), offender, host, target)
        assert len(held) == int(maximum)
        times, a_second = echoes_during(peer, lambda at=target: connect_refused(host, at, offender, int(count)))
        assert a_second, "the flood failed"
        measured[f"with {a_second} connections a second {where}"] = times
        assert is_served(connect(other, host, target)), "a new connection is refused"
        for holder in held:
            assert client.echoes(holder, HELLO), "the offender lost a connection"
    for name, times in measured.items():
        print(f"echo of another source {name}: p50 {percentile_us(times, 50):.0f} us, "
              f"p99 {percentile_us(times, 99):.0f} us")


client.run(connections, together, connection_rate, returns, datagram_rate, replies_together, burst, udp_returns,
           verdicts, flood)
