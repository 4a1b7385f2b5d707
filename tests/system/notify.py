"""A service manager's side of sd_notify: prints each line that is sent to the socket PATH, after `listening`."""

import socket
import sys

with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
    manager.bind(sys.argv[1])
    print("listening", flush=True)
    while True:
        print(manager.recv(65536).decode(), flush=True)
