"""Datagrams to groups, to broadcast addresses, and with a forged source."""

import os
import socket
import struct

import client

TEXT = b"who is there?"


def sender(host, source):
    """An unconnected socket of SOURCE, as replies come from another address than HOST."""
    peer = socket.socket(client.family_of(host), socket.SOCK_DGRAM)
    peer.settimeout(client.DEADLINE)
    peer.bind((source, 0))
    return peer


def sends_to_groups(peer, source):
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


def answered_alone(peer, source, port):
    """The next thing to come is the one reply to a datagram to SOURCE itself: what was sent before has none."""
    fence = os.urandom(16)
    peer.sendto(fence, (source, port))
    reply, _ = peer.recvfrom(65536)
    assert reply == fence, f"a reply that should not be: {reply!r}"
    assert client.silent(peer), "more replies than one"


def broadcast(host, source, port):
    """No reply to a datagram to the broadcast address HOST."""
    peer = sender(host, source)
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"net0")
    peer.sendto(TEXT, (host, int(port)))
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"")
    answered_alone(peer, source, int(port))


def foreign_group(group, source, port):
    """No reply to a datagram to GROUP, which this program has joined on another port."""
    peer = sender(group, source)
    join(peer, group, source)
    sends_to_groups(peer, source)
    witness = socket.socket(peer.family, socket.SOCK_DGRAM)
    witness.settimeout(client.DEADLINE)
    witness.bind(("", 0))
    join(witness, group, source)
    peer.sendto(TEXT, (group, witness.getsockname()[1]))
    assert witness.recv(65536) == TEXT, "the group does not work on this host"
    peer.sendto(TEXT, (group, int(port)))
    answered_alone(peer, source, int(port))


def group(group, source, port):
    """Each datagram to GROUP has one reply, from a unicast address and the port asked."""
    peer = sender(group, source)
    sends_to_groups(peer, source)
    for _ in range(10):
        text = os.urandom(32)
        peer.sendto(text, (group, int(port)))
        reply, address = peer.recvfrom(65536)
        assert reply == text
        assert address[1] == int(port), f"a reply from {address}"
        assert not address[0].startswith(("239.", "ff")), f"a reply from {address}"
        assert client.silent(peer, 0.1), "more replies than one"


def member(group, source, port):
    """Another program that has joined GROUP on the same port, until it hears a datagram."""
    peer = socket.socket(client.family_of(group), socket.SOCK_DGRAM)
    peer.settimeout(client.DEADLINE)
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    peer.bind((group, int(port)))
    join(peer, group, source)
    print("joined", flush=True)
    peer.recv(65536)


def forge(source, source_port, host, port):
    """A datagram from SOURCE and SOURCE_PORT, as anybody can write it."""
    text = TEXT
    length = 8 + len(text)
    header = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + length, 1, 0, 64, socket.IPPROTO_UDP, 0,
                         socket.inet_aton(source), socket.inet_aton(host))
    datagram = struct.pack("!HHHH", int(source_port), int(port), length, 0) + text
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
        raw.sendto(header + datagram, (host, 0))


def gone(host, port, count):
    """COUNT clients that ask and are gone before the reply, among one that stays."""
    stays = client.udp(host, port)
    for number in range(int(count)):
        with client.udp(host, port) as leaves:
            leaves.send(b"x" * number)
        text = b"%d" % number
        assert client.ask(stays, text) == text


client.run(broadcast, foreign_group, group, member, forge, gone)
