"""Sends forged IPv4 and IPv6 datagrams by a raw socket or directly on a link."""

import socket
import struct

import client

TEXT = b"forged request"
TTL = 64
ETH_P_IP, ETH_P_IPV6 = 0x0800, 0x86DD


def packed(address):
    return socket.inet_pton(client.family_of(address), address)


def checksum(data):
    """Returns the Internet checksum (RFC 1071)."""
    words = struct.unpack(f"!{(len(data) + 1) // 2}H", data + bytes(len(data) % 2))
    total = sum(words)
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def datagram(source, source_port, target, target_port, text=TEXT):
    """Returns the packet with its IP header."""
    v6 = client.family_of(target) == socket.AF_INET6
    length = 8 + len(text)
    ends = packed(source) + packed(target)
    header = struct.pack("!HHHH", int(source_port), int(target_port), length, 0)
    pseudo = ends + struct.pack("!II" if v6 else "!HH", *((length, socket.IPPROTO_UDP) if v6 else (17, length)))
    total = checksum(pseudo + header + text) or 0xFFFF
    udp = header[:6] + struct.pack("!H", total) + text
    if v6:
        return struct.pack("!IHBB", 6 << 28, length, socket.IPPROTO_UDP, TTL) + ends + udp
    ip = struct.pack("!BBHHHBBH", 0x45, 0, 20 + length, 1, 0, TTL, socket.IPPROTO_UDP, 0) + ends
    return ip[:10] + struct.pack("!H", checksum(ip)) + ip[12:] + udp


def ports(source_ports, target_ports):
    """Returns pairs of source and target port for each of TARGET_PORTS.

    SOURCE_PORTS is a list with commas, `same` for the target port, or `each` for all of TARGET_PORTS.
    """
    if source_ports == "same":
        return [(port, port) for port in target_ports]
    listed = target_ports if source_ports == "each" else source_ports.split(",")
    return [(source_port, port) for port in target_ports for source_port in listed]


def send(source, source_ports, target, *target_ports):
    """Sends datagrams from SOURCE to TARGET by the routes of this host."""
    with socket.socket(client.family_of(target), socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
        for source_port, port in ports(source_ports, target_ports):
            raw.sendto(datagram(source, source_port, target, port), (target, 0))


def hardware(interface):
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as link:
        link.bind((interface, 0))
        return link.getsockname()[4]


def wire(interface, to, source, source_ports, target, *target_ports):
    """Sends datagrams on the link of INTERFACE, as another host can, to the MAC address of the interface TO or to `all`."""
    protocol = ETH_P_IPV6 if client.family_of(target) == socket.AF_INET6 else ETH_P_IP
    to_hardware = b"\xff" * 6 if to == "all" else hardware(to)
    header = to_hardware + hardware(interface) + struct.pack("!H", protocol)
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as link:
        link.bind((interface, protocol))
        for source_port, port in ports(source_ports, target_ports):
            link.send(header + datagram(source, source_port, target, port))


client.run(send, wire)
