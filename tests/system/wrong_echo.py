"""Serves echo on TCP but inverts a bit of byte AT of each stream. Prints its port.

usage: wrong_echo.py AT
"""

import socket
import sys
import threading


def echo(client, at):
    seen = 0
    while data := bytearray(client.recv(65536)):
        if seen <= at < seen + len(data):
            data[at - seen] ^= 1
        seen += len(data)
        client.sendall(data)


def main():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        print(listener.getsockname()[1], flush=True)
        while True:
            client, _ = listener.accept()
            threading.Thread(target=echo, args=(client, int(sys.argv[1])), daemon=True).start()


main()
