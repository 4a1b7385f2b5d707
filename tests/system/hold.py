"""Holds COUNT connections to the echo at HOST and PORT until it is ended; says `served N` as their echoes come."""

import signal
import sys
import threading

import client


def serve(peer, served, turn):
    peer.settimeout(None)
    peer.sendall(b"hello")
    if client.receive(peer, 5) == b"hello":
        with turn:  # or two lines would run into one
            served.append(peer)
            print(f"served {len(served)}", flush=True)


def main(host, port, count):
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    served, turn = [], threading.Lock()
    for _ in range(int(count)):
        peer = client.tcp(host, port)
        threading.Thread(target=serve, args=(peer, served, turn), daemon=True).start()
    signal.pause()


main(*sys.argv[1:])
