#!/usr/bin/env python3
"""Faulty servers for the probe, and a terminal.

usage: probe.py KIND [ARGUMENT...]

A server prints `port N` first.
"""
import os
import pty
import socket
import ssl
import struct
import sys
import threading


def listen(kind=socket.SOCK_STREAM, address="127.0.0.1"):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    server = socket.socket(family, kind)
    if kind == socket.SOCK_STREAM:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    server.bind((address, 0))
    if kind == socket.SOCK_STREAM:
        server.listen(16)
    print("port", server.getsockname()[1], flush=True)
    return server


def reset(client):
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


def in_thread(function, *arguments):
    threading.Thread(target=function, args=arguments, daemon=True).start()


def echo_until_end(client):
    try:
        while data := client.recv(65536):
            client.sendall(data)
        client.close()
    except OSError:
        pass


def tls(certificate, key, authority=None):
    """Echoes over TLS; with AUTHORITY only for clients with a certificate signed by it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    if authority:
        context.load_verify_locations(authority)
        context.verify_mode = ssl.CERT_REQUIRED

    def serve(client):
        try:
            echo_until_end(context.wrap_socket(client, server_side=True))
        except (OSError, ssl.SSLError):
            client.close()

    server = listen()
    while True:
        in_thread(serve, server.accept()[0])


def proxied(address="127.0.0.1"):
    """Echoes behind a PROXY header. Prints `header true` if it has the addresses of the connection, else `header wrong ...`."""
    server = listen(address=address)
    while True:
        client, peer = server.accept()
        stream = client.makefile("rb", buffering=0)
        first = stream.read(12)
        if first == b"\r\n\r\n\0\r\nQUIT\n":
            command, family, length = struct.unpack("!BBH", stream.read(4))
            assert command == 0x21, command
            body = stream.read(length)
            size = {0x11: 4, 0x21: 16}[family]
            name = {0x11: socket.AF_INET, 0x21: socket.AF_INET6}[family]
            assert length == 2 * size + 4, length
            source = socket.inet_ntop(name, body[:size])
            destination = socket.inet_ntop(name, body[size:2 * size])
            ports = struct.unpack("!HH", body[2 * size:])
        else:
            line = first
            while not line.endswith(b"\r\n"):
                line += stream.read(1)
            word, name, source, destination, *ports = line.decode("ascii").split()
            assert word == "PROXY" and name == ("TCP6" if ":" in address else "TCP4"), line
            ports = [int(port) for port in ports]
        true = (source, ports[0]) == peer[:2] and (destination, ports[1]) == client.getsockname()[:2]
        print("header true" if true else f"header wrong {source} {destination} {ports} {peer}", flush=True)
        in_thread(echo_until_end, client)


def breaks(length):
    """Echoes LENGTH bytes of the first connection and resets it; echoes all of the later connections."""
    server = listen()
    client = server.accept()[0]
    left = int(length)
    while left > 0:
        data = client.recv(min(left, 65536))
        client.sendall(data)
        left -= len(data)
    # unread input makes the kernel send a RST
    client.recv(1, socket.MSG_PEEK)
    reset(client)
    while True:
        in_thread(echo_until_end, server.accept()[0])


def silent():
    """Accepts connections and sends no data."""
    server, clients = listen(), []
    while True:
        clients.append(server.accept()[0])


def says(text, end="close"):
    """Sends TEXT, with Python escapes, on each connection; END is `close`, `reset` or `stay` to keep it open."""
    data = text.encode("latin-1").decode("unicode_escape").encode("latin-1")
    server, clients = listen(), []
    while True:
        client = server.accept()[0]
        client.sendall(data)
        if end == "close":
            client.shutdown(socket.SHUT_WR)
            clients.append(client)
        elif end == "reset":
            reset(client)
        else:
            clients.append(client)


def datagrams(fault):
    """Answers datagrams with FAULT: swallow, elsewhere, flip, twice, chatty or swap."""
    server = listen(socket.SOCK_DGRAM)
    other = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    other.bind(("127.0.0.1", 0))
    held = None
    while True:
        data, peer = server.recvfrom(65536)
        if fault == "swallow":
            continue
        if fault == "elsewhere":
            other.sendto(data, peer)
        elif fault == "flip":
            server.sendto(data[:40] + bytes([data[40] ^ 1]) + data[41:], peer)
        elif fault == "twice":
            server.sendto(data, peer)
            server.sendto(data, peer)
        elif fault == "chatty":
            server.sendto(b"hello", peer)
        elif fault == "swap":
            if held is None:
                held = data
                continue
            server.sendto(data, peer)
            server.sendto(held, peer)
            held = None


def terminal(*command):
    """Runs COMMAND on a terminal and prints its output."""
    sys.exit(os.waitstatus_to_exitcode(pty.spawn(list(command), lambda fd: os.read(fd, 65536), lambda fd: b"")))


KINDS = {f.__name__: f for f in (tls, proxied, breaks, silent, says, datagrams, terminal)}

if __name__ == "__main__":
    KINDS[sys.argv[1]](*sys.argv[2:])
