"""An echo on TCP that changes one byte of the stream: byte AT. Prints its port.

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
