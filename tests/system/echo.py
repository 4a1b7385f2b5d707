"""Clients of echo with more control over sockets than netcat has."""

import os
import select
import socket
import sys

import client


def split(host, port, count):
    """Sends COUNT bytes, each in a segment of its own."""
    peer = client.tcp(host, port)
    text = os.urandom(int(count))
    for byte in text:
        peer.sendall(bytes([byte]))
    assert client.receive(peer, len(text)) == text


def half_close(host, port, count):
    """Sends COUNT bytes and a FIN before it reads the first byte."""
    peer = client.tcp(host, port, receive_buffer=4096)
    text = os.urandom(int(count))
    peer.sendall(text)
    peer.shutdown(socket.SHUT_WR)
    received = client.receive_all(peer)
    assert len(received) == len(text), f"{len(received)} of {len(text)} bytes came back"
    assert received == text


def many(host, port, count, size):
    """Opens COUNT connections at once and sends SIZE bytes on each."""
    peers = [client.tcp(host, port) for _ in range(int(count))]
    texts = [os.urandom(int(size)) for _ in peers]
    for peer, text in zip(peers, texts):
        peer.sendall(text)
    for peer, text in zip(peers, texts):
        assert client.receive(peer, len(text)) == text
        peer.shutdown(socket.SHUT_WR)
        assert client.receive_all(peer) == b"", "more came back than was sent"


def datagrams(host, port, *sizes):
    """Sends a datagram of each of SIZES and checks its reply."""
    peer = client.udp(host, port)
    for size in map(int, sizes):
        text = os.urandom(size)
        reply = client.ask(peer, text)
        assert reply == text, f"{len(reply)} bytes came back for {size}, or others"


def dropped(host, port, too_long, fits):
    """Checks that a datagram of TOO_LONG bytes has no reply and the next one, of FITS bytes, has."""
    peer = client.udp(host, port)
    text = os.urandom(int(fits))
    peer.send(os.urandom(int(too_long)))
    reply = client.ask(peer, text)
    assert reply == text, f"{len(reply)} bytes came back for {fits}"
    assert client.silent(peer), "the oversized datagram has a reply"


def burst(host, port, count, size):
    """Sends COUNT datagrams of SIZE bytes at once; each must have one reply."""
    peer = client.udp(host, port)
    texts = {number.to_bytes(4, "big") + os.urandom(int(size) - 4) for number in range(int(count))}
    for text in texts:
        peer.send(text)
    replies = set()
    while len(replies) < len(texts):
        ready, _, _ = select.select([peer], [], [], client.DEADLINE)
        if not ready:
            sys.exit(f"{len(replies)} replies to {len(texts)} datagrams")
        reply = peer.recv(65536)
        assert reply in texts, "a reply that matches no request"
        assert reply not in replies, "a second reply to the same datagram"
        replies.add(reply)
    assert client.silent(peer), "more replies than datagrams"


def mixed_burst(host, port, count):
    """Sends COUNT datagrams of different lengths at once, with short ones after long ones."""
    peer = client.udp(host, port)
    sizes = [(number * 619) % 1400 for number in range(int(count))]
    texts = [os.urandom(size) for size in sizes]
    for text in texts:
        peer.send(text)
    for number, text in enumerate(texts):
        reply = peer.recv(65536)
        assert reply == text, f"reply {number} has {len(reply)} bytes, not {len(text)}, or others"


client.run(split, half_close, many, datagrams, dropped, burst, mixed_burst)
