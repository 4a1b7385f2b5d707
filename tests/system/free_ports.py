"""Prints the first of COUNT consecutive free ports below the ephemeral range."""

import random
import socket
import sys

LOWEST, HIGHEST = 10000, 32000


def is_free(port):
    for family, wildcard in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
            try:
                with socket.socket(family, kind) as probe:
                    if family == socket.AF_INET6:
                        probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                    probe.bind((wildcard, port))
            except OSError:
                if family == socket.AF_INET:
                    return False
    return True


def main(count):
    for _ in range(1000):
        first = random.randrange(LOWEST, HIGHEST - count)
        if all(is_free(port) for port in range(first, first + count)):
            print(first)
            return
    sys.exit("no free ports")


main(int(sys.argv[1]))
