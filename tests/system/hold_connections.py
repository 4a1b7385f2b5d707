"""Opens COUNT connections to echo at HOST and PORT and keeps them open; prints `served N` for the Nth echo received.

usage: hold_connections.py HOST PORT COUNT
"""

import signal
import sys
import threading

import client


def serve(peer, served, lock):
    peer.settimeout(None)
    peer.sendall(b"hello")
    if client.receive(peer, 5) == b"hello":
        with lock:  # keeps lines whole
            served.append(peer)
            print(f"served {len(served)}", flush=True)


def main(host, port, count):
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    served, lock = [], threading.Lock()
    for _ in range(int(count)):
        peer = client.tcp(host, port)
        threading.Thread(target=serve, args=(peer, served, lock), daemon=True).start()
    signal.pause()


main(*sys.argv[1:])
