"""relay.py: a relay that injects faults by a plan and counts the faults that a client must see.

  relay.py udp|tcp SERVER_PORT COUNTS FAULT...  prints `port N`, forwards until SIGTERM, then writes COUNTS (JSON)
  relay.py compare COUNTS RESULT                compares the result of `smallprobe --json` with the counts

A FAULT is DIRECTION:ACTION:NUMBER[=VALUE] with DIRECTION request or reply. It applies to the NUMBER-th datagram, from 1,
of that direction:

  lose, double
  swap          it is sent after the next one
  delay=MS      it is sent that much later, after datagrams that arrive in between
  flip=BIT      this bit is inverted
  cut=BYTES     it is truncated to that many bytes
  other_port    it is sent from another port (replies only)

or `random:SEED:COUNT`, which plans faults for the first COUNT requests and replies. Over TCP the NUMBER is the offset of
a byte, from 1, in the requests or replies of the first connection: `flip=BIT` of it, `delay=MS` before it, or `reset`
there.
"""

import heapq
import json
import random
import selectors
import signal
import socket
import sys
import time

LOOPBACK = "127.0.0.1"
COUNTS = ("sent", "received", "lost", "duplicated", "reordered", "corrupted", "wrong_source")


class Plan:
    def __init__(self, faults):
        self.faults = {"request": {}, "reply": {}}
        for fault in faults:
            direction, action, number = fault.split(":")
            if direction == "random":
                self.add_random(int(action), int(number))
                continue
            number, _, value = number.partition("=")
            self.faults[direction][int(number)] = (action, int(value or 0))

    def add_random(self, seed, count):
        """Plans faults at least three datagrams apart for the first COUNT of each direction."""
        chance = random.Random(seed)
        actions = ("lose", "double", "swap", "flip", "cut")
        for direction in ("request", "reply"):
            number = 1
            while (number := number + chance.randint(3, 9)) < count:
                action = chance.choice(actions)
                value = chance.randrange(24 * 8, 56 * 8) if action == "flip" else chance.randint(30, 50)
                self.faults[direction][number] = (action, value)

    def fault(self, direction, number):
        return self.faults[direction].get(number, ("pass", 0))


class Counts:
    """The faults as the client must count them. The bytes of a reply identify its request, because all requests differ."""

    def __init__(self):
        self.counts = dict.fromkeys(COUNTS, 0)
        self.faults = {}  # number of faults by action
        self.numbers = {}  # by the bytes of a request or of its changed copy: (number, whether unchanged)
        self.answered = {}  # by client: numbers of requests
        self.newest = {}

    def request(self, data):
        self.counts["sent"] += 1
        self.numbers[data] = (self.counts["sent"], True)

    def changed(self, before, after):
        number, _ = self.numbers[before]
        self.numbers[after] = (number, False)

    def reply(self, client, data, other_port):
        number, same = self.numbers[data]
        answered = self.answered.setdefault(client, set())
        self.counts["corrupted"] += not same
        self.counts["wrong_source"] += other_port
        if number in answered:
            self.counts["duplicated"] += 1
            return
        answered.add(number)
        self.counts["received"] += 1
        self.counts["reordered"] += number < self.newest.get(client, 0)
        self.newest[client] = max(number, self.newest.get(client, 0))

    def write(self, path):
        self.counts["lost"] = self.counts["sent"] - self.counts["received"]
        with open(path, "w", encoding="ascii") as file:
            json.dump({**self.counts, "faults": self.faults}, file)


class Relay:
    def __init__(self, server, counts_path, faults):
        self.server = (LOOPBACK, server)
        self.counts_path = counts_path
        self.plan = Plan(faults)
        self.counter = Counts()
        self.selector = selectors.DefaultSelector()
        self.timers = []  # (time, serial, function)
        self.order = 0
        self.ended = False
        signal.signal(signal.SIGTERM, self.on_term)
        # a signal alone would not interrupt select
        reader, writer = socket.socketpair()
        writer.setblocking(False)
        signal.set_wakeup_fd(writer.fileno())
        self.wakers = (reader, writer)
        self.selector.register(reader, selectors.EVENT_READ, lambda: reader.recv(64))

    def on_term(self, *_):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # timeout(1) sends it twice; the second must not interrupt the exit
        self.ended = True

    def at(self, delay_ms, function):
        self.order += 1
        heapq.heappush(self.timers, (time.monotonic() + delay_ms / 1000, self.order, function))

    def run(self, port):
        print("port", port, flush=True)
        while not self.ended:
            wait = max(0, self.timers[0][0] - time.monotonic()) if self.timers else None
            for key, _ in self.selector.select(wait):
                key.data()
            while self.timers and self.timers[0][0] <= time.monotonic():
                heapq.heappop(self.timers)[2]()
        self.counter.write(self.counts_path)

    def count(self, action):
        if action != "pass":
            self.counter.faults[action] = self.counter.faults.get(action, 0) + 1


def flipped(data, bit):
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


class Datagrams(Relay):
    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.near = self.bound()
        self.other_socket = self.bound()
        self.far = {}  # by client
        self.numbers = {"request": 0, "reply": 0}
        self.held = {"request": [], "reply": []}
        self.selector.register(self.near, selectors.EVENT_READ, self.on_request)

    @staticmethod
    def bound():
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        made.bind((LOOPBACK, 0))
        return made

    def start(self):
        self.run(self.near.getsockname()[1])

    def on_request(self):
        data, client = self.near.recvfrom(65536)
        if client not in self.far:
            far = self.far[client] = self.bound()
            far.connect(self.server)
            self.selector.register(far, selectors.EVENT_READ, lambda: self.on_reply(client))
        self.counter.request(data)
        self.inject("request", data, lambda data, _: self.far[client].send(data))

    def on_reply(self, client):
        data = self.far[client].recv(65536)
        self.inject("reply", data, lambda data, other_port: self.answer(client, data, other_port))

    def answer(self, client, data, other_port):
        self.counter.reply(client, data, other_port)
        (self.other_socket if other_port else self.near).sendto(data, client)

    def inject(self, direction, data, send):
        self.numbers[direction] += 1
        action, value = self.plan.fault(direction, self.numbers[direction])
        self.count(action)
        if action in ("flip", "cut"):
            changed = flipped(data, value) if action == "flip" else data[:value]
            self.counter.changed(data, changed)
            data = changed
        if action == "swap":
            self.held[direction].append((data, send))
            return
        if action == "delay":
            self.at(value, lambda: send(data, False))
        elif action != "lose":
            send(data, action == "other_port")
        if action == "double":
            send(data, False)
        held, self.held[direction] = self.held[direction], []
        for held_data, held_send in held:
            held_send(held_data, False)


class Streams(Relay):
    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.listener = socket.create_server((LOOPBACK, 0))
        self.selector.register(self.listener, selectors.EVENT_READ, self.on_connection)
        self.first = True

    def start(self):
        self.run(self.listener.getsockname()[1])

    def on_connection(self):
        near, _ = self.listener.accept()
        far = socket.create_connection(self.server)
        ends = {"request": (near, far), "reply": (far, near)}
        for direction, (source, sink) in ends.items():
            source.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            faults = self.plan.faults[direction] if self.first else {}
            self.join(source, sink, sorted(faults.items()))
        self.first = False

    def join(self, source, sink, faults):
        """Forwards SOURCE to SINK. FAULTS are sorted by their byte offsets, from 1."""
        state = {"offset": 0}

        def on_readable():
            try:
                data = source.recv(65536)
            except OSError:
                data = b""
            if not data:
                self.selector.unregister(source)
                half_close()
                return
            forward(data)

        def half_close():
            try:
                sink.shutdown(socket.SHUT_WR)
            except OSError:
                pass  # closed already

        def forward(data):
            while faults and faults[0][0] <= state["offset"] + len(data):
                (number, (action, value)), at = faults[0], faults[0][0] - state["offset"] - 1
                faults.pop(0)
                self.count(action)
                if action == "flip":
                    self.counter.counts["corrupted"] += 1
                    data = flipped(data, at * 8 + value)
                elif action == "delay":
                    self.send(sink, data[:at])
                    state["offset"] = number - 1
                    self.selector.unregister(source)
                    self.at(value, lambda rest=data[at:]: resume(rest))
                    return
                else:
                    self.send(sink, data[:at])
                    self.reset(source, sink)
                    return
            state["offset"] += len(data)
            self.send(sink, data)

        def resume(rest):
            self.selector.register(source, selectors.EVENT_READ, on_readable)
            forward(rest)

        self.selector.register(source, selectors.EVENT_READ, on_readable)

    @staticmethod
    def send(sink, data):
        try:
            sink.sendall(data)
        except OSError:
            pass  # the receiver has closed

    def reset(self, *ends):
        """Closes ENDS with a RST."""
        for end in ends:
            if end in (key.fileobj for key in self.selector.get_map().values()):
                self.selector.unregister(end)
            end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            end.close()


def compare(counts_path, result_path):
    with open(counts_path, encoding="ascii") as file:
        counts = json.load(file)
    with open(result_path, encoding="ascii") as file:
        result = json.load(file)
    wrong = [f"{name}: the relay {counts[name]}, the probe {result[name]}" for name in COUNTS if counts[name] != result[name]]
    if wrong:
        sys.exit("\n".join([*wrong, f"counts: {counts}", f"result: {result}"]))
    print(json.dumps(counts))


def main():
    verb, *arguments = sys.argv[1:]
    if verb == "compare":
        compare(*arguments)
        return
    server, counts, *faults = arguments
    {"udp": Datagrams, "tcp": Streams}[verb](int(server), counts, faults).start()


main()
