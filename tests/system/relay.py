"""relay.py: a relay that mistreats what it forwards by a plan, and keeps books of what a client has to see of it.

  relay.py udp|tcp SERVER_PORT BOOKS FATE...    says `port N`, forwards until SIGTERM, then writes BOOKS (JSON)
  relay.py compare BOOKS RESULT                 holds the result of `smallprobe --json` against the books

A FATE is DIRECTION:ACTION:NUMBER[=VALUE]: what happens to the NUMBER-th datagram, from 1, of all requests or of all replies:

  lose, double
  swap          it goes behind the next one
  delay=MS      it goes so much later, and whatever comes in between first
  flip=BIT      this bit of it is turned over
  cut=BYTES     only so many bytes of it go on
  stranger      it comes from another port (replies only)

or `chance:SEED:COUNT`, which deals fates to the first COUNT requests and replies. Over TCP the NUMBER is the place of a byte
in the first connection's requests or replies: `flip=BIT` of it, `delay=MS` before it, or `reset` there.
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
    def __init__(self, fates):
        self.fates = {"request": {}, "reply": {}}
        for fate in fates:
            direction, action, number = fate.split(":")
            if direction == "chance":
                self.deal(int(action), int(number))
                continue
            number, _, value = number.partition("=")
            self.fates[direction][int(number)] = (action, int(value or 0))

    def deal(self, seed, count):
        """Each datagram has at most one fate, and between two of them are some that are well."""
        chance = random.Random(seed)
        actions = ("lose", "double", "swap", "flip", "cut")
        for direction in ("request", "reply"):
            number = 1
            while (number := number + chance.randint(3, 9)) < count:
                action = chance.choice(actions)
                value = chance.randrange(24 * 8, 56 * 8) if action == "flip" else chance.randint(30, 50)
                self.fates[direction][number] = (action, value)

    def fate(self, direction, number):
        return self.fates[direction].get(number, ("pass", 0))


class Books:
    """Which request each reply belongs to is known by its bytes, all of which differ."""

    def __init__(self):
        self.counts = dict.fromkeys(COUNTS, 0)
        self.done = {}  # fates by name
        self.numbers = {}  # of requests, by their bytes and by what was made of them: (number, whether it is the same)
        self.answered = {}  # clients: numbers
        self.newest = {}

    def request(self, data):
        self.counts["sent"] += 1
        self.numbers[data] = (self.counts["sent"], True)

    def changed(self, before, after):
        number, _ = self.numbers[before]
        self.numbers[after] = (number, False)

    def reply(self, client, data, stranger):
        number, same = self.numbers[data]
        answered = self.answered.setdefault(client, set())
        self.counts["corrupted"] += not same
        self.counts["wrong_source"] += stranger
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
            json.dump({**self.counts, "fates": self.done}, file)


class Relay:
    def __init__(self, server, books_path, fates):
        self.server = (LOOPBACK, server)
        self.books_path = books_path
        self.plan = Plan(fates)
        self.books = Books()
        self.selector = selectors.DefaultSelector()
        self.later = []  # (when, number, function)
        self.order = 0
        self.ended = False
        signal.signal(signal.SIGTERM, self.on_term)
        # a signal alone would not end a wait
        reader, writer = socket.socketpair()
        writer.setblocking(False)
        signal.set_wakeup_fd(writer.fileno())
        self.wakers = (reader, writer)
        self.selector.register(reader, selectors.EVENT_READ, lambda: reader.recv(64))

    def on_term(self, *_):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # timeout(1) sends it twice: the second must not end the interpreter's end
        self.ended = True

    def at(self, delay_ms, function):
        self.order += 1
        heapq.heappush(self.later, (time.monotonic() + delay_ms / 1000, self.order, function))

    def run(self, port):
        print("port", port, flush=True)
        while not self.ended:
            wait = max(0, self.later[0][0] - time.monotonic()) if self.later else None
            for key, _ in self.selector.select(wait):
                key.data()
            while self.later and self.later[0][0] <= time.monotonic():
                heapq.heappop(self.later)[2]()
        self.books.write(self.books_path)

    def count(self, action):
        if action != "pass":
            self.books.done[action] = self.books.done.get(action, 0) + 1


def flipped(data, bit):
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


class Datagrams(Relay):
    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.near = self.bound()
        self.stranger = self.bound()
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
        self.books.request(data)
        self.treat("request", data, lambda what, _: self.far[client].send(what))

    def on_reply(self, client):
        data = self.far[client].recv(65536)
        self.treat("reply", data, lambda what, stranger: self.answer(client, what, stranger))

    def answer(self, client, data, stranger):
        self.books.reply(client, data, stranger)
        (self.stranger if stranger else self.near).sendto(data, client)

    def treat(self, direction, data, send):
        self.numbers[direction] += 1
        action, value = self.plan.fate(direction, self.numbers[direction])
        self.count(action)
        if action in ("flip", "cut"):
            changed = flipped(data, value) if action == "flip" else data[:value]
            self.books.changed(data, changed)
            data = changed
        if action == "swap":
            self.held[direction].append((data, send))
            return
        if action == "delay":
            self.at(value, lambda: send(data, False))
        elif action != "lose":
            send(data, action == "stranger")
        if action == "double":
            send(data, False)
        held, self.held[direction] = self.held[direction], []
        for what, how in held:
            how(what, False)


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
            fates = self.plan.fates[direction] if self.first else {}
            self.join(source, sink, sorted(fates.items()))
        self.first = False

    def join(self, source, sink, fates):
        """Forwards SOURCE to SINK. FATES are ahead, by the place of their bytes, from 1."""
        state = {"place": 0}

        def on_readable():
            try:
                data = source.recv(65536)
            except OSError:
                data = b""
            if not data:
                self.selector.unregister(source)
                hang_up()
                return
            forward(data)

        def hang_up():
            try:
                sink.shutdown(socket.SHUT_WR)
            except OSError:
                pass  # it is gone already

        def forward(data):
            while fates and fates[0][0] <= state["place"] + len(data):
                (place, (action, value)), at = fates[0], fates[0][0] - state["place"] - 1
                fates.pop(0)
                self.count(action)
                if action == "flip":
                    self.books.counts["corrupted"] += 1
                    data = flipped(data, at * 8 + value)
                elif action == "delay":
                    self.send(sink, data[:at])
                    state["place"] = place - 1
                    self.selector.unregister(source)
                    self.at(value, lambda rest=data[at:]: go_on(rest))
                    return
                else:
                    self.send(sink, data[:at])
                    self.reset(source, sink)
                    return
            state["place"] += len(data)
            self.send(sink, data)

        def go_on(rest):
            self.selector.register(source, selectors.EVENT_READ, on_readable)
            forward(rest)

        self.selector.register(source, selectors.EVENT_READ, on_readable)

    @staticmethod
    def send(sink, data):
        try:
            sink.sendall(data)
        except OSError:
            pass  # whoever does not read any more shall not have it

    def reset(self, *ends):
        """Closes at once, without the rest."""
        for end in ends:
            if end in (key.fileobj for key in self.selector.get_map().values()):
                self.selector.unregister(end)
            end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            end.close()


def compare(books_path, result_path):
    with open(books_path, encoding="ascii") as file:
        books = json.load(file)
    with open(result_path, encoding="ascii") as file:
        result = json.load(file)
    wrong = [f"{name}: the relay {books[name]}, the probe {result[name]}" for name in COUNTS if books[name] != result[name]]
    if wrong:
        sys.exit("\n".join([*wrong, f"books: {books}", f"result: {result}"]))
    print(json.dumps(books))


def main():
    verb, *arguments = sys.argv[1:]
    if verb == "compare":
        compare(*arguments)
        return
    server, books, *fates = arguments
    {"udp": Datagrams, "tcp": Streams}[verb](int(server), books, fates).start()


main()
