"""proxy.py: clients that send PROXY headers, valid and invalid, whole and split."""
import os
import socket
import struct
import sys

DEADLINE = int(os.environ.get("DEADLINE", "30"))
SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"


def v2(source, port, command=1, tlvs=b""):
    family = 0x21 if ":" in source else 0x11
    packed = socket.inet_pton(socket.AF_INET6 if ":" in source else socket.AF_INET, source)
    body = packed + packed + struct.pack("!HH", int(port), 7) + tlvs
    return SIGNATURE + bytes([0x20 | command, family]) + struct.pack("!H", len(body)) + body


def v1(source, port):
    return f"PROXY TCP{6 if ':' in source else 4} {source} {source} {port} 7\r\n".encode()


def header_of(kind, source, port):
    return {
        "v1": lambda: v1(source, port),
        "v2": lambda: v2(source, port),
        "v2+tlv": lambda: v2(source, port, tlvs=b"\x04\x03\xe8" + bytes(1000)),
        "local": lambda: v2(source, port, command=0),
        "unknown": lambda: b"PROXY UNKNOWN\r\n",
        "none": lambda: b"",
    }[kind]()


def connect(port, address="127.0.0.1"):
    connection = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    connection.settimeout(DEADLINE)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.bind((address, 0))
    connection.connect(("127.0.0.1", int(port)))
    return connection


def read_all(connection):
    whole = bytearray()
    while True:
        try:
            part = connection.recv(65536)
        except ConnectionResetError:
            part = b""
        if not part:
            return bytes(whole)
        whole += part


def echo(port, kind, source, source_port):
    """Sends the header and hello in one segment; exactly hello must come back."""
    with connect(port) as connection:
        connection.sendall(header_of(kind, source, source_port) + b"hello")
        connection.shutdown(socket.SHUT_WR)
        echoed = read_all(connection)
    if echoed != b"hello":
        sys.exit(f"came back: {echoed!r}")


def split(port, kind, source):
    """Opens a connection for each offset where the header can be split and sends hello right after the rest."""
    header = header_of(kind, source, 4660)
    connections = []
    for at in range(1, len(header) + 1):
        connection = connect(port)
        connection.sendall(header[:at])
        connections.append((at, connection))
    for at, connection in connections:
        connection.sendall(header[at:] + b"hello")
        connection.shutdown(socket.SHUT_WR)
    for at, connection in connections:
        with connection:
            echoed = read_all(connection)
        if echoed != b"hello":
            sys.exit(f"split after {at} bytes, came back: {echoed!r}")
    print(len(connections))


def bytewise(port, kind, source):
    with connect(port) as connection:
        for byte in header_of(kind, source, 4660) + b"hello":
            connection.sendall(bytes([byte]))
        connection.shutdown(socket.SHUT_WR)
        echoed = read_all(connection)
    if echoed != b"hello":
        sys.exit(f"came back: {echoed!r}")


def refused(port, sent, address="127.0.0.1"):
    """Sends the bytes SENT, in hexadecimal, and checks that the connection is closed without data."""
    with connect(port, address) as connection:
        try:
            connection.sendall(bytes.fromhex(sent))
        except (BrokenPipeError, ConnectionResetError):
            pass
        got = read_all(connection)
    if got:
        sys.exit(f"received: {got!r}")


def leaves(port, sent):
    """Sends the bytes SENT, in hexadecimal, and a FIN, and checks that the connection is closed without data."""
    with connect(port) as connection:
        connection.sendall(bytes.fromhex(sent))
        connection.shutdown(socket.SHUT_WR)
        got = read_all(connection)
    if got:
        sys.exit(f"received: {got!r}")


def hold(port, *sources):
    """Opens a connection for each of SOURCES in turn, prints `SOURCE in` or `SOURCE out`, and keeps them until standard input
    ends."""
    connections = []
    for source in sources:
        connection = connect(port)
        connection.sendall(v2(source, 4660) + b"x")
        try:
            came = connection.recv(1)
        except ConnectionResetError:
            came = b""
        print(source, "in" if came == b"x" else "out", flush=True)
        connections.append(connection)
    print("held", flush=True)
    sys.stdin.read()


COMMANDS = {"echo": echo, "split": split, "bytewise": bytewise, "refused": refused, "leaves": leaves, "hold": hold}

if __name__ == "__main__":
    COMMANDS[sys.argv[1]](*sys.argv[2:])
