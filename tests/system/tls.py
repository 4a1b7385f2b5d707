"""tls.py: TLS clients with control over each record: close_notify, truncation, stalls and resumption."""
import os
import select
import socket
import ssl
import sys
import time

DEADLINE = int(os.environ.get("DEADLINE", "30"))
VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}


def context_for(version):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = context.maximum_version = VERSIONS[version]
    return context


class Client:
    """A session over memory BIOs, so that the caller decides when data is sent and read."""

    def __init__(self, port, version, session=None, receive_buffer=None, certificate=None):
        self.ends = time.monotonic() + DEADLINE
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self.socket.settimeout(DEADLINE)
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.connect(("127.0.0.1", int(port)))
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.context = session.context if session else context_for(version)
        if certificate:
            self.context.load_cert_chain(f"{certificate}.pem", f"{certificate}.key")
        self.tls = self.context.wrap_bio(self.incoming, self.outgoing, session=session.tls.session if session else None)
        self.unsent = b""
        self.until(self.tls.do_handshake)

    def pump(self, reading=True):
        """Waits for the socket and moves data between it and the BIOs."""
        self.socket.setblocking(False)
        self.unsent += self.outgoing.read()
        readable, writable, _ = select.select([self.socket] if reading else [], [self.socket] if self.unsent else [], [],
                                              max(0, self.ends - time.monotonic()))
        if not readable and not writable:
            sys.exit("the socket was not ready in time")
        if writable:
            self.unsent = self.unsent[self.socket.send(self.unsent):]
        if readable:
            got = self.socket.recv(1 << 18)
            if got:
                self.incoming.write(got)
            else:
                self.incoming.write_eof()

    def until(self, operation, *arguments):
        while True:
            try:
                result = operation(*arguments)
                break
            except ssl.SSLWantReadError:
                self.pump()
        self.unsent += self.outgoing.read()
        return result

    def flush(self):
        self.unsent += self.outgoing.read()
        while self.unsent:
            self.pump(reading=False)

    def close_notify(self):
        """Sends close_notify. Only valid while no data has arrived, because unwrap reads too."""
        try:
            self.tls.unwrap()
        except ssl.SSLWantReadError:
            pass
        self.unsent += self.outgoing.read()

    def read(self):
        """Returns data, b"" at the server's close_notify, None at an end without one."""
        try:
            return self.until(self.tls.read, 1 << 18)
        except ssl.SSLZeroReturnError:
            return b""
        except ssl.SSLEOFError:
            return None

    def read_all(self):
        whole = bytearray()
        while True:
            part = self.read()
            if not part:
                return bytes(whole), part == b""
            whole += part


def whole(port, version, size):
    """Sends SIZE bytes and at once close_notify; all data and a close_notify must come back."""
    client = Client(port, version)
    data = os.urandom(1 << 20) * (int(size) >> 20)
    view, sent = memoryview(data), 0
    while sent < len(data):
        sent += client.tls.write(view[sent:sent + (1 << 18)])
    client.close_notify()
    echoed, ended = client.read_all()
    if echoed != data:
        sys.exit(f"{len(echoed)} bytes of {len(data)} came back")
    if not ended:
        sys.exit("no close_notify")


def late(port, version):
    """Runs clients that send all data and close_notify before they read. Their data has different sizes, so that the
    socket of the daemon is full at different points."""
    clients = []
    for size in range(1024, 32 * 1024, 1024):
        client = Client(port, version, receive_buffer=4096)
        data = os.urandom(size)
        client.tls.write(data)
        client.close_notify()
        client.flush()
        clients.append((client, data))
    for client, data in clients:
        echoed, ended = client.read_all()
        if echoed != data or not ended:
            sys.exit(f"{len(echoed)} bytes of {len(data)} came back, close_notify: {ended}")
    print(len(clients))


def truncated(port, version):
    """Ends the stream without close_notify; the data must be echoed nevertheless."""
    client = Client(port, version)
    client.tls.write(b"hello")
    client.flush()
    client.socket.shutdown(socket.SHUT_WR)
    echoed, ended = client.read_all()
    if echoed != b"hello" or not ended:
        sys.exit(f"{echoed!r}, close_notify {ended}")


def garbage(port, version):
    """Sends an invalid record and much data after it, and keeps the connection open."""
    client = Client(port, version)
    client.flush()
    client.socket.setblocking(True)
    client.socket.sendall(b"\x17\x03\x03\x00\x20" + b"x" * 32)
    try:
        for _ in range(64):
            client.socket.sendall(b"y" * 4096)
    except (BrokenPipeError, ConnectionResetError):
        pass
    print("sent", flush=True)
    sys.stdin.read()


def silent(port, sent):
    """Sends the first bytes of a handshake, SENT in hexadecimal, and waits for the close."""
    with socket.create_connection(("127.0.0.1", int(port)), DEADLINE) as connection:
        connection.sendall(bytes.fromhex(sent))
        try:
            while connection.recv(4096):
                pass
        except ConnectionResetError:
            pass


def resume(port, version):
    """Checks that a client that offers its previous session gets a full handshake."""
    client = Client(port, version)
    client.tls.write(b"hello")
    client.flush()
    client.read()
    if client.tls.session is not None and client.tls.session.has_ticket:
        sys.exit("there was a ticket")
    again = Client(port, version, client)
    if again.tls.session_reused:
        sys.exit("the session was resumed")
    again.tls.write(b"again")
    if again.read() != b"again":
        sys.exit("the second session does not echo")


def wait(port):
    """Sends a byte with the end of the handshake and waits for the server's close_notify. On a slow machine the timeout of
    the daemon may expire before the byte arrives."""
    client = Client(port, "1.3")
    client.tls.write(b"x")
    echoed, ended = client.read_all()
    if echoed not in (b"", b"x") or not ended:
        sys.exit(f"{echoed!r}, close_notify: {ended}")


def stall(port):
    """Reads one piece of an endless stream and pauses until standard input ends; then there must be no close_notify."""
    client = Client(port, "1.3", receive_buffer=4096)
    client.read()
    print("stalling", flush=True)
    sys.stdin.read()
    try:
        if client.read_all()[1]:
            sys.exit("a truncated stream has a close_notify")
    except ConnectionResetError:
        pass


def leave(port, certificate):
    """Sends the end of the handshake, with CERTIFICATE, and closes."""
    client = Client(port, "1.3", certificate=certificate)
    client.tls.write(b"x")
    client.flush()
    client.socket.close()


def hold(port, count):
    """Opens COUNT sessions, checks an echo on each, and keeps them open until standard input ends."""
    clients = []
    for _ in range(int(count)):
        client = Client(port, "1.3")
        client.tls.write(b"x")
        if client.read() != b"x":
            sys.exit("no echo")
        clients.append(client)
    print("holding", flush=True)
    sys.stdin.read()


COMMANDS = {"whole": whole, "late": late, "truncated": truncated, "garbage": garbage, "silent": silent, "resume": resume, "wait": wait, "stall": stall, "leave": leave, "hold": hold}

if __name__ == "__main__":
    COMMANDS[sys.argv[1]](*sys.argv[2:])
