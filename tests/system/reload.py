"""Clients of a daemon that reads its configuration again while they are connected."""

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
    """One that runs: its process, its file, its log."""

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
        """Of all threads, each of which can have a table of its own."""
        return sum(len(os.listdir(f"/proc/{self.pid}/task/{task}/fd")) for task in os.listdir(f"/proc/{self.pid}/task"))

    def settled_descriptors(self):
        """The same, once every worker has what it needs: a reload ends when they have."""
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
    """An echo connection goes on as echo when TEXT, a file, gives its port to daytime, which a new connection gets."""
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
    """Clients that connect, ask, hear and end; and one that has a datagram in flight. What is lost is in `lost`."""

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
    """The memory that process PID has written to: what is leaked is in it, and pages of files that come and go are not."""
    with open(f"/proc/{pid}/smaps_rollup") as rollup:
        return sum(int(line.split()[1]) for line in rollup if line.startswith("Private_Dirty:"))


def under_load(pid, conf, log, host, tcp_port, udp_port, rounds):
    """ROUNDS reloads that add and remove a service beside one that clients use: they lose nothing, and the daemon keeps
    neither descriptors nor memory."""
    daemon = Daemon(pid, conf, log)
    one = read(conf)
    two = one + b"[extra]\ntype = echo\naddress = 127.0.0.1\nport = 0\n"
    loads = [Load(host, tcp_port, udp_port) for _ in range(2)]
    for load in loads:
        load.start()
    for text in (two, one) * 10:  # what is allocated once is there then
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
    """The same, with the descriptors and the memory before and after."""
    daemon = Daemon(pid, conf, log)
    before = daemon.settled_descriptors()
    before_kib, after_kib = under_load(pid, conf, log, host, tcp_port, udp_port, rounds)
    client.wait_until(lambda: daemon.descriptors() == before, f"{before} descriptors, as before")
    assert after_kib - before_kib <= int(allowed_kib), f"{after_kib - before_kib} KiB more"


def removed(pid, conf, log, host, port, text, service):
    """Clients that connect all the time while their listener is removed: who got in is served, and then nobody gets in."""
    daemon = Daemon(pid, conf, log)
    lost, served = [], [0]

    def knock():
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

    knockers = [threading.Thread(target=knock, daemon=True) for _ in range(8)]
    for knocker in knockers:
        knocker.start()
    client.wait_until(lambda: served[0] > 20, "clients are served")
    daemon.reload(read(text))
    for knocker in knockers:
        knocker.join(client.DEADLINE)
        assert not knocker.is_alive(), "a client still gets in"
    assert not lost, lost[:5]
    assert refused(host, port)


def queued(pid, conf, log, host, tcp_port, udp_port, text, count):
    """COUNT connections and datagrams that reach the kernel alone before their service is removed are served."""
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
    """Each of TEXTS, files, fails to be put in force, and clients do not notice."""
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
    client.wait_until(lambda: daemon.descriptors() == descriptors, "nothing is left open")


def storm(pid, conf, log, count, *texts):
    """COUNT HUPs while the file changes; the last of TEXTS, files, is the one that runs in the end."""
    daemon = Daemon(pid, conf, log)
    bodies = [read(text) for text in texts]
    for number in range(int(count)):
        if number % 50 == 0:
            daemon.write(bodies[number // 50 % len(bodies)])
        daemon.hup()
    daemon.write(bodies[-1])
    daemon.hup()


def waits(pid, conf, log, host, port, same, more):
    """With max_connections = 2 both places taken: a reload gives no third one, until one with a higher limit does."""
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
    """A connection of a removed service is served until drain_timeout, and then ended in order."""
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
    """So is one that had to wait for a place: it gets one when the other is ended."""
    daemon = Daemon(pid, conf, log)
    first = client.tcp(host, port)
    assert client.echoes(first, b"first")
    second = client.tcp(host, port)
    daemon.reload(read(text))
    assert first.recv(1) == b"", "the first not ended in order"
    assert second.recv(1) == b"", "the second not ended in order"


def comes_back(pid, conf, log, host, port, without, seconds):
    """A service that is back before drain_timeout keeps its connections."""
    daemon = Daemon(pid, conf, log)
    before = read(conf)
    peer = client.tcp(host, port)
    assert client.echoes(peer, b"before")
    daemon.reload(read(without))
    daemon.reload(before)
    assert client.silent(peer, float(seconds)), "the connection was ended"
    assert client.echoes(peer, b"after")


def resets_nobody_beside(pid, conf, log, host, port, *texts):
    """Clients of a wildcard, or of an address of its, while the other one comes and goes, and each takes its place."""
    daemon = Daemon(pid, conf, log)
    load = Load(host, port, port)
    load.start()
    for _ in range(3):
        for text in texts:
            daemon.reload(read(text))
    load.end()


def times_in_a_stop(pid, host, port):
    """A HUP while the daemon drains is ignored, and the open connection served on."""
    peer = client.tcp(host, port)
    assert client.echoes(peer, b"before")
    os.kill(int(pid), signal.SIGTERM)
    client.wait_until(lambda: refused(host, port), "the daemon stops listening")
    os.kill(int(pid), signal.SIGHUP)
    assert client.echoes(peer, b"after")


def refuses_port(pid, log, host, port, source):
    """A datagram to PORT from SOURCE, a port that is served elsewhere, is dropped and counted; another one is answered."""
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


def has_no_room(pid, conf, log, text, host, port, new_port):
    """A reload to TEXT, a file, fails while clients have a worker's last descriptors, and leaves nothing behind."""
    daemon = Daemon(pid, conf, log)
    count = daemon.settled_descriptors()
    crowd = [client.tcp(host, port) for _ in range(150)]
    assert all(client.echoes(peer, b"hello") for peer in crowd)
    crowded = daemon.descriptors()
    before = resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, (client.limit_that_leaves(1, pid), before[1]))
    for _ in range(3):
        daemon.reload(read(text))
        assert daemon.last_result() == b"reload failed", "there was room"
        assert daemon.descriptors() == crowded, f"{daemon.descriptors()} descriptors, not {crowded}"
    assert re.search(rb"reload failed.*(worker \d cannot take its sockets over|cannot listen on .*): Too many open files", read(log)), "no reason"
    assert all(client.echoes(peer, b"still served") for peer in crowd)
    for peer in crowd:
        peer.close()
    client.wait_until(lambda: daemon.descriptors() == count, "the end of the connections")
    daemon.reload(read(text))
    assert daemon.last_result() == b"reloaded: ", "there was no room"
    resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, before)
    for _ in range(16):  # whichever worker the kernel deals them to
        assert client.echoes(client.tcp(host, new_port), b"hello")
        assert client.ask(client.udp(host, new_port), b"hello") == b"hello"


client.run(keeps, has_no_room, refuses_port, leaks, removed, queued, bad_files, storm, waits, drains, drains_queue, comes_back, resets_nobody_beside, times_in_a_stop)
