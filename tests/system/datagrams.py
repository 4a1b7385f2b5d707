"""Clients that send datagrams to multicast groups and broadcast addresses, or close before the reply."""

import os
import socket
import struct

import client

TEXT = b"hello, group"


def sender(host, source):
    """Returns an unconnected socket bound to SOURCE, because replies come from another address than HOST."""
    peer = socket.socket(client.family_of(host), socket.SOCK_DGRAM)
    peer.settimeout(client.DEADLINE)
    peer.bind((source, 0))
    return peer


def set_multicast_interface(peer, source):
    if peer.family == socket.AF_INET6:
        peer.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, socket.if_nametoindex("net0"))
    else:
        peer.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(source))


def join(peer, group, source):
    if peer.family == socket.AF_INET6:
        request = socket.inet_pton(socket.AF_INET6, group) + struct.pack("@I", socket.if_nametoindex("net0"))
        peer.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, request)
    else:
        peer.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, socket.inet_aton(group) + socket.inet_aton(source))


def assert_only_reply(peer, source, port):
    """Sends a datagram to SOURCE itself; its reply must come next and be the only one."""
    fence = os.urandom(16)
    peer.sendto(fence, (source, port))
    reply, _ = peer.recvfrom(65536)
    assert reply == fence, f"an unexpected reply: {reply!r}"
    assert client.silent(peer), "more replies than one"


def broadcast(host, source, port):
    """Checks that a datagram to the broadcast address HOST has no reply."""
    peer = sender(host, source)
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"net0")
    peer.sendto(TEXT, (host, int(port)))
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"")
    assert_only_reply(peer, source, int(port))


def foreign_group(group, source, port):
    """Checks that a datagram to GROUP, which only this program has joined, has no reply."""
    peer = sender(group, source)
    join(peer, group, source)
    set_multicast_interface(peer, source)
    witness = socket.socket(peer.family, socket.SOCK_DGRAM)
    witness.settimeout(client.DEADLINE)
    witness.bind(("", 0))
    join(witness, group, source)
    peer.sendto(TEXT, (group, witness.getsockname()[1]))
    assert witness.recv(65536) == TEXT, "the group does not work on this host"
    peer.sendto(TEXT, (group, int(port)))
    assert_only_reply(peer, source, int(port))


def group(group, source, port):
    """Checks that each datagram to GROUP has one reply, from a unicast address and PORT."""
    peer = sender(group, source)
    set_multicast_interface(peer, source)
    for _ in range(10):
        text = os.urandom(32)
        peer.sendto(text, (group, int(port)))
        reply, address = peer.recvfrom(65536)
        assert reply == text
        assert address[1] == int(port), f"a reply from {address}"
        assert not address[0].startswith(("239.", "ff")), f"a reply from {address}"
        assert client.silent(peer, 0.1), "more replies than one"


def member(group, source, port):
    """Joins GROUP on the same port and waits for a datagram."""
    peer = socket.socket(client.family_of(group), socket.SOCK_DGRAM)
    peer.settimeout(client.DEADLINE)
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    peer.bind((group, int(port)))
    join(peer, group, source)
    print("joined", flush=True)
    peer.recv(65536)


def gone(host, port, count):
    """Runs COUNT clients that close before the reply, while another one must get all replies."""
    stays = client.udp(host, port)
    for number in range(int(count)):
        with client.udp(host, port) as leaves:
            leaves.send(b"x" * number)
        text = b"%d" % number
        assert client.ask(stays, text) == text


client.run(broadcast, foreign_group, group, member, gone)
