"""Clients of daytime, qotd, chargen, time and discard."""

import os
import socket
import time

import client

SECONDS_BEFORE_1970 = 2208988800
RING = bytes(range(32, 127))


def replies(host, port, count):
    """Checks that each of COUNT datagrams sent at once, the first one empty, gets a reply."""
    peer = client.udp(host, port)
    for number in range(int(count)):
        peer.send(b"x" * number)
    for _ in range(int(count)):
        assert peer.recv(65536), "an empty reply"
    assert client.silent(peer), "more replies than datagrams"


def junk_first(host, port, count, size):
    """Runs COUNT clients that send SIZE bytes before they read; each must get a line and an orderly close."""
    for _ in range(int(count)):
        with client.tcp(host, port) as peer:
            peer.sendall(os.urandom(int(size)))
            line = client.receive_all(peer)
            assert line.endswith(b"\n"), f"the reply is {line!r}"


def keeps_sending(host, port):
    """Checks that a client gets its reply and that its later sends fail in the end."""
    peer = client.tcp(host, port)
    assert client.receive_all(peer).endswith(b"\n")
    junk, ends = bytes(65536), time.monotonic() + client.DEADLINE
    try:
        while time.monotonic() < ends:
            peer.sendall(junk)
    except (BrokenPipeError, ConnectionResetError):
        return
    raise AssertionError("the daemon does not close")


def stays(host, port):
    """Checks that after the reply and the FIN the daemon closes the connection though the client does not."""
    peer = client.tcp(host, port)
    assert client.receive_all(peer).endswith(b"\n")

    def is_closed():
        try:
            peer.send(b"x")
        except (BrokenPipeError, ConnectionResetError):
            return True
        return False

    time.sleep(0.5)
    client.wait_until(is_closed, "the daemon closes")


def discards(host, port, size):
    """Checks that SIZE bytes are read without a reply and the connection is closed after the client's FIN."""
    peer = client.tcp(host, port)
    peer.sendall(os.urandom(int(size)))
    assert client.silent(peer), "data or an early close"
    peer.shutdown(socket.SHUT_WR)
    assert client.receive_all(peer) == b""


def unanswered(host, port, fence_host, fence_port):
    """Checks that datagrams get no reply while the echo service at FENCE_HOST and FENCE_PORT answers."""
    peer, fence = client.udp(host, port), client.udp(fence_host, fence_port)
    for size in (0, 1, 1000, 65507):
        peer.send(bytes(size))
        assert client.ask(fence, b"fence") == b"fence"
    assert client.silent(peer), "a reply"


def stream(host, port, lines):
    """Checks that the first LINES lines of chargen are those of the ring."""
    peer = client.tcp(host, port)
    text = client.receive(peer, int(lines) * 74)
    for number in range(int(lines)):
        start = number % len(RING)
        line = text[number * 74:number * 74 + 74]
        expected = (RING + RING)[start:start + 72] + b"\r\n"
        assert line == expected, f"line {number} is {line!r}"


def discards_input(host, port):
    """Checks that input does not change the stream of chargen."""
    peer = client.tcp(host, port)
    for _ in range(20):
        peer.sendall(os.urandom(100000))
        text = client.receive(peer, 95 * 74)
        assert text[:3] == b" !\"" and text[-2:] == b"\r\n", "the stream has changed"


def bounded(host, port):
    """Checks that chargen replies have at most 512 bytes, at most those of the request, all printable or line ends."""
    peer = client.udp(host, port)
    for size in list(range(1, 80)) + [511, 512, 513, 1000, 65507]:
        reply = client.ask(peer, bytes(size))
        assert len(reply) <= min(size, 512), f"{len(reply)} bytes for {size}"
        assert set(reply) <= set(RING + b"\r\n"), f"{reply!r}"


def seconds(transport, host, port):
    """Checks that the four bytes of time are the seconds since 1900."""
    before = int(time.time())
    if transport == "tcp":
        text = client.receive_all(client.tcp(host, port))
    else:
        text = client.ask(client.udp(host, port), b"")
    after = int(time.time())
    assert len(text) == 4, f"{len(text)} bytes"
    now = int.from_bytes(text, "big")
    era = (now - before - SECONDS_BEFORE_1970 + (1 << 31)) % (1 << 32) - (1 << 31)
    assert -1 <= era <= after - before + 1, f"off by {era} s"


def quotations(transport, host, port, count):
    """Prints COUNT quotations with \\n as line ends and a line `%` after each; none has 512 bytes or more."""
    for _ in range(int(count)):
        if transport == "tcp":
            text = client.receive_all(client.tcp(host, port))
        else:
            text = client.ask(client.udp(host, port), b"")
        assert 0 < len(text) < 512, f"{len(text)} bytes"
        print(text.decode().replace("\r\n", "\n").rstrip("\n") + "\n%")


client.run(replies, junk_first, keeps_sending, stays, discards, unanswered, stream, discards_input, bounded,
           seconds, quotations)
