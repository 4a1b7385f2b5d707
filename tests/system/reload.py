"""Clients of a daemon that reloads its configuration."""

import os
import re
import resource
import signal
import socket
import threading
import time

import client

RESULT = re.compile(rb"(^|[ >=])(reloaded: |reload failed)", re.M)


class Daemon:
    """The running daemon: its process, configuration file and log."""

    def __init__(self, pid, conf, log):
        self.pid, self.conf, self.log = int(pid), conf, log

    def results(self):
        with open(self.log, "rb") as log:
            return len(RESULT.findall(log.read()))

    def last_result(self):
        return RESULT.findall(read(self.log))[-1][1]

    def write(self, text):
        with open(self.conf + ".new", "wb") as conf:
            conf.write(text)
        os.rename(self.conf + ".new", self.conf)

    def hup(self):
        os.kill(self.pid, signal.SIGHUP)

    def reload(self, text):
        before = self.results()
        self.write(text)
        self.hup()
        client.wait_until(lambda: self.results() > before, "a reload")

    def descriptors(self):
        """Returns the number of descriptors of all threads, which may have separate tables."""
        return sum(len(os.listdir(f"/proc/{self.pid}/task/{task}/fd")) for task in os.listdir(f"/proc/{self.pid}/task"))

    def settled_descriptors(self):
        """Returns descriptors() after a reload, which ends when every worker has its sockets."""
        self.reload(read(self.conf))
        return self.descriptors()


def read(path):
    with open(path, "rb") as file:
        return file.read()


def refused(host, port):
    try:
        with socket.socket(client.family_of(host), socket.SOCK_STREAM) as peer:
            peer.settimeout(client.DEADLINE)
            peer.connect((host, int(port)))
            return False
    except ConnectionRefusedError:
        return True


def keeps(pid, conf, log, host, port, text):
    """Checks that an open connection stays echo when a reload to the file TEXT gives its port to daytime."""
    daemon = Daemon(pid, conf, log)
    peer = client.tcp(host, port)
    assert client.echoes(peer, b"before")
    daemon.reload(read(text))
    assert client.echoes(peer, os.urandom(1 << 20)), "the open connection changed"
    other = client.tcp(host, port)
    line = client.receive_all(other)
    assert re.match(rb"\w{3} \w{3} .*\r\n$", line), f"not daytime: {line!r}"
    datagrams = client.udp(host, port)
    assert re.match(rb"\w{3} \w{3} .*\r\n$", client.ask(datagrams, b"?")), "not daytime over UDP"
    peer.sendall(b"rest")
    peer.shutdown(socket.SHUT_WR)
    assert client.receive_all(peer) == b"rest"


class Load(threading.Thread):
    """A thread of clients that connect, exchange data and close, with one datagram in flight. `lost` lists errors."""

    def __init__(self, host, tcp_port, udp_port):
        super().__init__(daemon=True)
        self.host, self.tcp_port, self.udp_port = host, tcp_port, udp_port
        self.over, self.served, self.lost = False, 0, []

    def exchange(self, number):
        text = b"%d" % number * 50
        with client.tcp(self.host, self.tcp_port) as peer:
            peer.sendall(text)
            peer.shutdown(socket.SHUT_WR)
            if client.receive_all(peer) != text:
                self.lost.append(f"connection {number}: a short reply")

    def run(self):
        datagrams = client.udp(self.host, self.udp_port)
        number = 0
        while not self.over:
            number += 1
            try:
                self.exchange(number)
                if client.ask(datagrams, b"%d" % number) != b"%d" % number:
                    self.lost.append(f"datagram {number}: another reply")
            except OSError as error:
                self.lost.append(f"{number}: {error!r}")
                return
            self.served += 1

    def end(self):
        self.over = True
        self.join(client.DEADLINE)
        assert not self.lost, self.lost[:5]
        assert self.served > 0


def own_kib(pid):
    """Returns the private dirty memory of process PID, which includes leaks and excludes pages of files."""
    with open(f"/proc/{pid}/smaps_rollup") as rollup:
        return sum(int(line.split()[1]) for line in rollup if line.startswith("Private_Dirty:"))


def under_load(pid, conf, log, host, tcp_port, udp_port, rounds):
    """Reloads ROUNDS times, adding and removing a service beside one with clients, which must lose no data. Returns the
    memory before and after."""
    daemon = Daemon(pid, conf, log)
    one = read(conf)
    two = one + b"[extra]\ntype = echo\naddress = 127.0.0.1\nport = 0\n"
    loads = [Load(host, tcp_port, udp_port) for _ in range(2)]
    for load in loads:
        load.start()
    for text in (two, one) * 10:  # one-time allocations are done then
        daemon.reload(text)
    before_kib = own_kib(pid)
    for _ in range(int(rounds) // 2):
        daemon.reload(two)
        daemon.reload(one)
    for load in loads:
        load.end()
    after_kib = own_kib(pid)
    print(f"{before_kib} -> {after_kib} KiB, {sum(load.served for load in loads)} exchanges")
    return before_kib, after_kib


def leaks(pid, conf, log, host, tcp_port, udp_port, rounds, allowed_kib):
    """Runs under_load and checks that descriptors and memory have not grown."""
    daemon = Daemon(pid, conf, log)
    before = daemon.settled_descriptors()
    before_kib, after_kib = under_load(pid, conf, log, host, tcp_port, udp_port, rounds)
    client.wait_until(lambda: daemon.descriptors() == before, f"{before} descriptors, as before")
    assert after_kib - before_kib <= int(allowed_kib), f"{after_kib - before_kib} KiB more"


def removed(pid, conf, log, host, port, text, service):
    """Checks that while a listener is removed, connected clients are served and later ones are refused."""
    daemon = Daemon(pid, conf, log)
    lost, served = [], [0]

    def connect_until_refused():
        number = 0
        while True:
            number += 1
            try:
                peer = client.tcp(host, port)
            except ConnectionRefusedError:
                return
            except OSError as error:
                lost.append(f"connecting: {error!r}")
                return
            try:
                if service == "echo":
                    peer.sendall(b"%d" % number)
                    peer.shutdown(socket.SHUT_WR)
                    complete = client.receive_all(peer) == b"%d" % number
                else:
                    complete = client.receive_all(peer).endswith(b"\r\n")
                if not complete:
                    lost.append(f"{number}: a short reply")
                served[0] += 1
            except OSError as error:
                lost.append(f"{number}: {error!r}")
            finally:
                peer.close()

    threads = [threading.Thread(target=connect_until_refused, daemon=True) for _ in range(8)]
    for thread in threads:
        thread.start()
    client.wait_until(lambda: served[0] > 20, "clients are served")
    daemon.reload(read(text))
    for thread in threads:
        thread.join(client.DEADLINE)
        assert not thread.is_alive(), "clients can still connect"
    assert not lost, lost[:5]
    assert refused(host, port)


def queued(pid, conf, log, host, tcp_port, udp_port, text, count):
    """Checks that COUNT connections and datagrams queued in the kernel when their service is removed are served."""
    daemon = Daemon(pid, conf, log)
    datagrams = client.udp(host, udp_port)
    assert client.ask(datagrams, b"before") == b"before"
    daemon.write(read(text))
    os.kill(daemon.pid, signal.SIGSTOP)
    try:
        peers = [client.tcp(host, tcp_port) for _ in range(int(count))]
        for number, peer in enumerate(peers):
            peer.sendall(b"%d" % number)
            datagrams.send(b"%d" % number)
        daemon.hup()
    finally:
        os.kill(daemon.pid, signal.SIGCONT)
    for number, peer in enumerate(peers):
        assert client.receive(peer, len(b"%d" % number)) == b"%d" % number, f"connection {number} is lost"
    for number in range(int(count)):
        assert datagrams.recv(100) == b"%d" % number, f"datagram {number} is lost"
    for peer in peers:
        assert client.echoes(peer, b"still")


def bad_files(pid, conf, log, host, tcp_port, udp_port, *texts):
    """Checks that a reload to each of the files TEXTS fails without an effect on clients."""
    daemon = Daemon(pid, conf, log)
    descriptors = daemon.settled_descriptors()
    peer, datagrams = client.tcp(host, tcp_port), client.udp(host, udp_port)
    for text in texts:
        daemon.reload(read(text))
        sent = os.urandom(100000)
        assert client.echoes(peer, sent), text
        with client.tcp(host, tcp_port) as other:
            assert client.echoes(other, sent), text
        assert client.ask(datagrams, sent[:1000]) == sent[:1000], text
    peer.close()
    client.wait_until(lambda: daemon.descriptors() == descriptors, "the descriptors of failed reloads are closed")


def storm(pid, conf, log, count, *texts):
    """Sends COUNT HUPs while the file changes among TEXTS; the last one is the final file."""
    daemon = Daemon(pid, conf, log)
    bodies = [read(text) for text in texts]
    for number in range(int(count)):
        if number % 50 == 0:
            daemon.write(bodies[number // 50 % len(bodies)])
        daemon.hup()
    daemon.write(bodies[-1])
    daemon.hup()


def raises_limit(pid, conf, log, host, port, same, more):
    """Checks that with max_connections = 2 used up, a third client is served only by a reload that raises the limit."""
    daemon = Daemon(pid, conf, log)
    inside = [client.tcp(host, port) for _ in range(2)]
    for peer in inside:
        assert client.echoes(peer, b"in")
    third = client.tcp(host, port)
    third.sendall(b"third")
    assert client.silent(third)
    daemon.reload(read(same))
    assert client.silent(third), "a reload forgot the open connections"
    daemon.reload(read(more))
    assert client.receive(third, 5) == b"third"
    for peer in inside:
        assert client.echoes(peer, b"on")


def drains(pid, conf, log, host, port, text, seconds):
    """Checks that a connection of a removed service is served until drain_timeout and then closed in order."""
    daemon = Daemon(pid, conf, log)
    peer = client.tcp(host, port)
    assert client.echoes(peer, b"before")
    began = time.monotonic()
    daemon.reload(read(text))
    assert client.echoes(peer, b"after")
    assert peer.recv(1) == b"", "not ended in order"
    lasted = time.monotonic() - began
    assert lasted > float(seconds) * 0.9, f"ended after {lasted:.2f} s"


def drains_queue(pid, conf, log, host, port, text):
    """Checks that a client that waits at max_connections of a removed service is closed in order at drain_timeout too."""
    daemon = Daemon(pid, conf, log)
    first = client.tcp(host, port)
    assert client.echoes(first, b"first")
    second = client.tcp(host, port)
    daemon.reload(read(text))
    assert first.recv(1) == b"", "the first not ended in order"
    assert second.recv(1) == b"", "the second not ended in order"


def comes_back(pid, conf, log, host, port, without, seconds):
    """Checks that a service that is restored before drain_timeout keeps its connections."""
    daemon = Daemon(pid, conf, log)
    before = read(conf)
    peer = client.tcp(host, port)
    assert client.echoes(peer, b"before")
    daemon.reload(read(without))
    daemon.reload(before)
    assert client.silent(peer, float(seconds)), "the connection was ended"
    assert client.echoes(peer, b"after")


def keeps_clients_of_overlap(pid, conf, log, host, port, *texts):
    """Checks that no client is lost while reloads to TEXTS exchange a wildcard and an address under it."""
    daemon = Daemon(pid, conf, log)
    load = Load(host, port, port)
    load.start()
    for _ in range(3):
        for text in texts:
            daemon.reload(read(text))
    load.end()


def hup_during_stop(pid, host, port):
    """Checks that a HUP during a stop is ignored and the open connection is served."""
    peer = client.tcp(host, port)
    assert client.echoes(peer, b"before")
    os.kill(int(pid), signal.SIGTERM)
    client.wait_until(lambda: refused(host, port), "the daemon stops listening")
    os.kill(int(pid), signal.SIGHUP)
    assert client.echoes(peer, b"after")


def refuses_port(pid, log, host, port, source):
    """Checks that a datagram from SOURCE, a port of the daemon, is dropped and counted, and another one is answered."""
    forged = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    forged.bind((host, int(source)))
    forged.connect((host, int(port)))
    forged.send(b"loop")
    honest = client.udp(host, port)
    assert client.ask(honest, b"honest") == b"honest"

    def is_counted():
        os.kill(int(pid), signal.SIGUSR1)
        return b"refused_port}=1" in read(log)

    client.wait_until(is_counted, "a refused port in the counters")
    assert client.silent(forged)


def exhausts_descriptors(pid, conf, log, text, host, port, new_port):
    """Checks that a reload to the file TEXT fails without a leak while clients use the last descriptors of a worker."""
    daemon = Daemon(pid, conf, log)
    count = daemon.settled_descriptors()
    crowd = [client.tcp(host, port) for _ in range(150)]
    assert all(client.echoes(peer, b"hello") for peer in crowd)
    crowded = daemon.descriptors()
    before = resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, (client.limit_with_free(1, pid), before[1]))
    for _ in range(3):
        daemon.reload(read(text))
        assert daemon.last_result() == b"reload failed", "the reload succeeded"
        assert daemon.descriptors() == crowded, f"{daemon.descriptors()} descriptors, not {crowded}"
    assert re.search(rb"reload failed.*(worker \d cannot take its sockets over|cannot listen on .*): Too many open files", read(log)), "no reason"
    assert all(client.echoes(peer, b"still served") for peer in crowd)
    for peer in crowd:
        peer.close()
    client.wait_until(lambda: daemon.descriptors() == count, "the end of the connections")
    daemon.reload(read(text))
    assert daemon.last_result() == b"reloaded: ", "the reload failed"
    resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, before)
    for _ in range(16):  # often enough that each worker gets some
        assert client.echoes(client.tcp(host, new_port), b"hello")
        assert client.ask(client.udp(host, new_port), b"hello") == b"hello"


client.run(keeps, exhausts_descriptors, refuses_port, leaks, removed, queued, bad_files, storm, raises_limit, drains, drains_queue, comes_back, keeps_clients_of_overlap, hup_during_stop)
