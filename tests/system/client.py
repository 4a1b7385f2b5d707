"""Common functions of the Python helpers: sockets with a deadline, exchanges, process figures, commands."""

import os
import socket
import sys
import time

DEADLINE = float(os.environ.get("DEADLINE", 30))


def family_of(host):
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def tcp(host, port, receive_buffer=None):
    """Returns a connection to HOST and PORT on which every operation has a deadline."""
    client = socket.socket(family_of(host), socket.SOCK_STREAM)
    if receive_buffer is not None:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    client.settimeout(DEADLINE)
    client.connect((host, int(port)))
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return client


def udp(host, port, bind=None):
    """Returns a connected UDP socket, which receives only from HOST and PORT."""
    client = socket.socket(family_of(host), socket.SOCK_DGRAM)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
    client.settimeout(DEADLINE)
    if bind is not None:
        client.bind((bind, 0))
    client.connect((host, int(port)))
    return client


def receive(client, count):
    """Returns COUNT bytes, or fewer if the peer closes first."""
    parts = []
    while count > 0:
        part = client.recv(min(count, 1 << 20))
        if not part:
            break
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


def receive_all(client):
    return receive(client, 1 << 40)


def ask(client, request, size=65536):
    """Sends the datagram REQUEST and returns the reply."""
    client.send(request)
    return client.recv(size)


def echoes(client, text):
    """Sends TEXT and returns whether it comes back."""
    client.sendall(text)
    return receive(client, len(text)) == text


def silent(client, seconds=0.3):
    """Returns whether neither data nor a close arrives for SECONDS."""
    client.settimeout(seconds)
    try:
        client.recv(1)
        return False
    except socket.timeout:
        return True
    finally:
        client.settimeout(DEADLINE)


def wait_until(holds, condition):
    ends = time.monotonic() + DEADLINE
    while not holds():
        assert time.monotonic() < ends, f"not within {DEADLINE:.0f} s: {condition}"
        time.sleep(0.02)


def cpu_seconds(pid):
    """Returns the CPU time of process PID so far."""
    with open(f"/proc/{pid}/stat") as stat:
        fields = stat.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def pss_kib(pid):
    """Returns the proportional set size of process PID."""
    with open(f"/proc/{pid}/smaps_rollup") as rollup:
        for line in rollup:
            if line.startswith("Pss:"):
                return int(line.split()[1])
    raise AssertionError("no Pss in smaps_rollup")


def limit_with_free(count, pid):
    """Returns the RLIMIT_NOFILE that leaves each worker of process PID at least COUNT free descriptors."""
    workers = [task for task in os.listdir(f"/proc/{pid}/task") if int(task) != pid]
    return max(free_below(count, f"/proc/{pid}/task/{task}/fd") for task in workers)


def free_below(count, table):
    """Returns the number below which COUNT descriptors are free in TABLE."""
    used = set(map(int, os.listdir(table)))
    limit = 0
    while count > 0:
        count -= limit not in used
        limit += 1
    return limit


def run(*commands):
    """Calls the function of COMMANDS that the first argument names with the other arguments as text."""
    table = {command.__name__: command for command in commands}
    table[sys.argv[1]](*sys.argv[2:])
