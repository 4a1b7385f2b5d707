"""Binds HOST and PORT for PROTOCOL, prints `port N` and keeps the socket open.

usage: occupy_port.py PROTOCOL HOST PORT [reuse_address] [reuse_port]

Exits 1 with the message of the kernel if the port cannot be bound.
"""

import signal
import socket
import sys

import client


def main(protocol, host, port, *options):
    occupied = socket.socket(client.family_of(host), socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM)
    if "reuse_address" in options:
        occupied.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if "reuse_port" in options:
        occupied.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        occupied.bind((host, int(port)))
        if protocol == "tcp":
            occupied.listen()
    except OSError as error:
        sys.exit(error.strerror)
    print("port", occupied.getsockname()[1], flush=True)
    signal.pause()


main(*sys.argv[1:])
