"""Holds COUNT connections to the echo at HOST and PORT until it is ended; says `served N` as their echoes come."""

import signal
import sys
import threading

import client


def serve(peer, served):
    peer.settimeout(None)
    peer.sendall(b"hello")
    if client.receive(peer, 5) == b"hello":
        served.append(peer)
        print(f"served {len(served)}", flush=True)


def main(host, port, count):
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    served = []
    for _ in range(int(count)):
        peer = client.tcp(host, port)
        threading.Thread(target=serve, args=(peer, served), daemon=True).start()
    signal.pause()


main(*sys.argv[1:])
