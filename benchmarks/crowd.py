"""A crowd: a process that opens connections to a broker by the hundred, and holds them or comes again.

`python -m benchmarks.crowd KIND COUNT SOURCE URL`, with COUNT connections (of `storm`: a second) from the
address SOURCE. It prints `ready` when they are there, goes on until its standard input ends, and prints what
became of them as JSON. The token comes from CHERVIL_TOKEN, the CA of a `chervils://` URL from CHERVIL_TLS_CA.
"""

import contextlib
import itertools
import json
import os
import resource
import select
import socket
import ssl
import sys
import time
from collections.abc import Callable
from functools import partial

from chervil.address import BrokerURL
from chervil.protocol import Connection, Message, Side
from chervil.protocol.messages import Error, Hello, Welcome
from chervil.statedir import read_token

#: Seconds that a broker may take to answer before something is wrong with it.
ANSWER_SECONDS = 30.0


class Refused(ConnectionError):
    """The broker ended the connection; `code` is what it said, empty where it said nothing."""

    def __init__(self, code: str) -> None:
        super().__init__(f"the broker closed the connection: {code or 'without a word'}")
        self.code = code


def connect(url: BrokerURL, source: str) -> socket.socket:
    """A TCP connection on which nothing has been said."""
    assert url.host is not None
    assert url.port is not None
    sock = socket.create_connection((url.host, url.port), ANSWER_SECONDS, (source, 0))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # as Chervil's own clients do
    return sock


def secure(sock: socket.socket, url: BrokerURL, context: ssl.SSLContext) -> ssl.SSLSocket:
    """TLS on a connection; closes it where that comes to nothing."""
    try:
        return context.wrap_socket(sock, server_hostname=url.host)
    except OSError:
        sock.close()
        raise


def tls_context(url: BrokerURL) -> ssl.SSLContext | None:
    """How TLS is spoken with that broker; None where it is not."""
    if url.scheme != "chervils":
        return None
    return ssl.create_default_context(cafile=os.environ["CHERVIL_TLS_CA"])


def greet(url: BrokerURL, context: ssl.SSLContext | None, source: str) -> socket.socket:
    """A connection that has said HELLO and been told WELCOME. Raises Refused, and other OSErrors."""
    sock = connect(url, source)
    if context is not None:
        sock = secure(sock, url, context)
    connection = Connection(Side.CLIENT)
    try:
        sock.sendall(connection.send(Hello(1, 1, [], "crowd", read_token(url))))
        message = _next(sock, connection)
        if not isinstance(message, Welcome):
            raise Refused(message.code if isinstance(message, Error) else "")
    except OSError:
        sock.close()
        raise
    return sock


def last_words(sock: socket.socket) -> str:
    """The code with which the broker closes a connection, waiting for it; empty where it says nothing."""
    with sock:
        try:
            message = _next(sock, Connection(Side.CLIENT))
        except ConnectionError:
            return ""
        return message.code if isinstance(message, Error) else ""


def _next(sock: socket.socket, connection: Connection) -> Message | None:
    """What the broker says first; None where it closes without a word."""
    while data := sock.recv(4096):
        for message in connection.receive(data):
            return message
    return None


Begin = Callable[[], tuple[socket.socket, bytes]]


def mid_hello(url: BrokerURL, source: str) -> tuple[socket.socket, bytes]:
    """A connection that has said nothing yet, and a HELLO to be sent on it."""
    return connect(url, source), Connection(Side.CLIENT).send(Hello(1, 1, [], "slow" * 20, "x" * 40))


def mid_handshake(url: BrokerURL, context: ssl.SSLContext, source: str) -> tuple[socket.socket, bytes]:
    """A connection in the middle of TLS: the broker has answered and signed, and waits for these bytes."""
    sock = connect(url, source)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing, server_hostname=url.host)
    try:
        with contextlib.suppress(ssl.SSLWantReadError):
            tls.do_handshake()
        sock.sendall(outgoing.read())
        while not outgoing.pending:
            data = sock.recv(65536)
            if not data:
                raise Refused("")
            incoming.write(data)
            with contextlib.suppress(ssl.SSLWantReadError):
                tls.do_handshake()
    except OSError:
        sock.close()
        raise
    return sock, outgoing.read()


def _told_to_stop(wait: float = 0.0) -> bool:
    """Whether standard input has ended, within so many seconds."""
    return bool(select.select([sys.stdin], [], [], max(0.0, wait))[0])


def _ready() -> None:
    print("ready", flush=True)


def stay_idle(open_one: Callable[[], socket.socket], count: int) -> dict[str, int]:
    """Holds connections that say nothing."""
    held = [open_one() for _ in range(count)]
    _ready()
    sys.stdin.read()
    lost = sum(is_closed(sock) for sock in held)
    return {"opened": count, "lost": lost}


def stay_slow(begin: Begin, count: int) -> dict[str, int]:
    """Holds connections that say a byte a second each; where the broker closes one, another comes."""
    held: list[tuple[socket.socket, bytes] | None] = [begin() for _ in range(count)]
    _ready()
    again = refused = 0
    due = time.monotonic()
    for number in itertools.cycle(range(count)):
        due += 1 / count
        if _told_to_stop(due - time.monotonic()):
            break
        current = held[number]
        try:
            if current is not None and current[1] and not is_closed(current[0]):
                sock, rest = current
                sock.send(rest[:1])
                held[number] = sock, rest[1:]
                continue
            if current is not None:
                current[0].close()
            again += 1
            held[number] = begin()
        except OSError:
            refused += 1
            held[number] = None
    return {"opened": count + again, "refused": refused}


def storm(open_one: Callable[[], socket.socket], rate: int) -> dict[str, int]:
    """Connects so often a second, says HELLO, is welcomed and hangs up."""
    _ready()
    opened = refused = 0
    due = began = time.monotonic()
    while not _told_to_stop(due - time.monotonic()):
        due += 1 / rate
        try:
            open_one().close()
            opened += 1
        except OSError:
            refused += 1
    return {"opened": opened, "refused": refused, "ms": int((time.monotonic() - began) * 1000)}


def is_closed(sock: socket.socket) -> bool:
    """Whether the broker has hung up, or is about to: it has said something though it owes nothing."""
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(0))


def main(kind: str, count: int, source: str, address: str) -> None:
    # It stands for other machines: those who are measured have the CPU first.
    os.setpriority(os.PRIO_PROCESS, 0, 10)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    url = BrokerURL.parse(address)
    context = tls_context(url)
    if kind == "idle":
        told = stay_idle(partial(greet, url, context, source), count)
    elif kind == "storm":
        told = storm(partial(greet, url, context, source), count)
    elif context is None:
        told = stay_slow(partial(mid_hello, url, source), count)
    else:
        told = stay_slow(partial(mid_handshake, url, context, source), count)
    print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4])
