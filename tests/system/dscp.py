"""Clients that check the traffic class in the headers of replies."""

import os
import socket

import client

IPV6_RECVTCLASS = 66
ETH_P_ALL = 3


def set_class(peer, traffic_class):
    if peer.family == socket.AF_INET6:
        peer.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, traffic_class)
    else:
        peer.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, traffic_class)


def datagram(host, port, sent, expected):
    """Checks that the reply to a datagram of class SENT has class EXPECTED."""
    peer = client.udp(host, port)
    set_class(peer, int(sent, 0))
    if peer.family == socket.AF_INET6:
        peer.setsockopt(socket.IPPROTO_IPV6, IPV6_RECVTCLASS, 1)
    else:
        peer.setsockopt(socket.IPPROTO_IP, socket.IP_RECVTOS, 1)
    peer.send(b"hello")
    text, control, _, _ = peer.recvmsg(100, 100)
    assert text == b"hello"
    received = int.from_bytes(control[0][2], "little")
    assert received == int(expected, 0), f"class {received:#x}"


def stream(host, port, sent, expected, header=""):
    """Checks that echo sends to a connection of class SENT with class EXPECTED. HEADER is a line sent first."""
    port, text = int(port), os.urandom(100)
    sniffer = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_ALL))
    sniffer.settimeout(client.DEADLINE)
    sniffer.bind(("lo", ETH_P_ALL))
    peer = socket.socket(client.family_of(host), socket.SOCK_STREAM)
    peer.settimeout(client.DEADLINE)
    set_class(peer, int(sent, 0))
    peer.connect((host, port))
    if header:
        peer.sendall(header.encode() + b"\r\n")
    assert client.echoes(peer, text)
    while True:
        packet = sniffer.recv(65536)
        size = 40 if packet[0] >> 4 == 6 else 20
        if not packet.endswith(text) or int.from_bytes(packet[size:size + 2], "big") != port:
            continue
        received = packet[1] if size == 20 else (packet[0] & 15) << 4 | packet[1] >> 4
        assert received == int(expected, 0), f"class {received:#x}"
        return


client.run(datagram, stream)
