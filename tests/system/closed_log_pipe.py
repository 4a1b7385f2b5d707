"""Starts the daemon PROGRAM with a pipe as standard error, closes the reading end, and checks that the daemon serves."""

import os
import re
import signal
import subprocess
import sys
import threading

import client

CONFIGURATION = """\
[daemon]
{user}
[echo]
protocol = tcp
address = 127.0.0.1
port = 0
log_connections = yes
"""


def main(program):
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))
    daemon = subprocess.Popen([program, "-c", "-"], stdin=subprocess.PIPE, stderr=subprocess.PIPE)
    watchdog = threading.Timer(client.DEADLINE * 3, daemon.kill)
    watchdog.start()
    try:
        user = "user = root" if os.getuid() == 0 else ""
        daemon.stdin.write(CONFIGURATION.format(user=user).encode())
        daemon.stdin.close()
        port = None
        for line in daemon.stderr:
            if match := re.search(rb"listening on tcp 127\.0\.0\.1:(\d+)", line):
                port = int(match.group(1))
            if b"ready:" in line:
                break
        assert port, "it did not start"
        daemon.stderr.close()
        for _ in range(20):
            with client.tcp("127.0.0.1", port) as peer:
                assert client.echoes(peer, b"hello")
            daemon.send_signal(signal.SIGUSR1)
        daemon.terminate()
        assert daemon.wait(client.DEADLINE) == 0, f"exit status {daemon.returncode}"
    finally:
        daemon.kill()
        daemon.wait()
        watchdog.cancel()


main(*sys.argv[1:])
