"""Clients of echo on TCP, one after the other, until a file exists. Prints the number of each result.

usage: clients.py PORT FILE
"""

import os
import socket
import sys

TIMEOUT_S = 60


def ask(port, number):
    line = b"client %d\n" % number
    with socket.create_connection(("127.0.0.1", port), TIMEOUT_S) as client:
        client.sendall(line)
        client.shutdown(socket.SHUT_WR)
        answer = b""
        while part := client.recv(4096):
            answer += part
    return "served" if answer == line else f"got {answer!r}"


def main():
    port, until = int(sys.argv[1]), sys.argv[2]
    results = {}
    number = 0
    while not os.path.exists(until):
        try:
            result = ask(port, number)
        except OSError as error:
            result = os.strerror(error.errno) if error.errno else str(error)
        results[result] = results.get(result, 0) + 1
        number += 1
        if number == 1:
            print("first", flush=True)
    print(*(f"{result}: {count}" for result, count in sorted(results.items())), sep="\n")


main()
