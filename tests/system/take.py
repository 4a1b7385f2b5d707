"""Another program: takes HOST and PORT for PROTOCOL, says `port N`, and keeps it until it is ended. Exits 1 with the
kernel's message where it cannot. Options: reuse_address, reuse_port."""

import signal
import socket
import sys

import client


def main(protocol, host, port, *options):
    taken = socket.socket(client.family_of(host), socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM)
    if "reuse_address" in options:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if "reuse_port" in options:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        taken.bind((host, int(port)))
        if protocol == "tcp":
            taken.listen()
    except OSError as error:
        sys.exit(error.strerror)
    print("port", taken.getsockname()[1], flush=True)
    signal.pause()


main(*sys.argv[1:])
