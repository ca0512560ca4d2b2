"""Connections that mean no good: the broker stays small, and others are served."""

import contextlib
import os
import random
import resource
import socket
import struct
import time
from collections.abc import Iterator

import pytest

from chervil.protocol.limits import PREAUTH_OUT
from tests.e2e import tasks
from tests.e2e.stage import Stage, until
from tests.e2e.test_full import rss

pytestmark = pytest.mark.e2e

CONNECTIONS = 2500
#: Open at the same time, slow ones among them.
AT_ONCE = 500
GROWTH_MOST = 20 << 20


def hello(**fields) -> bytes:
    import msgpack

    row = [1, 1, 1, [], fields.get("name", "stranger"), fields.get("token"), None, None, None]
    payload = msgpack.packb(row)
    return struct.pack(">I", len(payload)) + payload


def attacks(rng: random.Random) -> Iterator[bytes]:
    """What strangers send, without an end; an empty one says nothing at all."""
    while True:
        yield from (
            b"",
            rng.randbytes(rng.randrange(1, 5000)),
            b"\xff" * 100_000,
            struct.pack(">I", 0) * 10,
            struct.pack(">I", 16_000_000) + b"x" * 100_000,
            hello()[: rng.randrange(1, 30)],
            hello(token="wrong" * 40),
            hello(token="x") * 500,
            b"GET / HTTP/1.1\r\nHost: broker\r\n\r\n",
            b"*1\r\n$4\r\nPING\r\n",
            struct.pack(">I", 4000) + b"\xdd\xff\xff\xff\xff" + b"\x80" * 3995,
            struct.pack(">I", 6) + b"\x92\x01\xc1\xc1\xc1\xc1",
        )


def attack(address: tuple[str, int], data: bytes) -> socket.socket:
    """A connection on which that was sent, as far as the broker took it."""
    sock = socket.create_connection(address, timeout=10)
    sock.setblocking(False)
    if data:
        with contextlib.suppress(BlockingIOError, ConnectionError):
            sock.send(data)
    return sock


def is_answered(sock: socket.socket) -> bool:
    """Whether the broker has said something, or hung up; at most what a stranger is answered."""
    try:
        data = sock.recv(65536)
    except BlockingIOError:
        return False
    except ConnectionError:
        return True
    assert len(data) <= PREAUTH_OUT
    return True


def test_2500_hostile_connections_leave_the_broker_small_and_a_bystander_served(stage: Stage):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4096), hard))
    port = free_port()
    broker = stage.broker("--bind", f"127.0.0.1:{port}")
    stage.worker("-c", "1")
    stage.app()
    assert tasks.add.delay(1, 1).get(timeout=10) == 2
    began = rss(broker.popen.pid)
    seed = int.from_bytes(os.urandom(4), "big")
    made = attacks(random.Random(seed))
    held: list[socket.socket] = []
    slowest = 0.0
    answered = 0
    try:
        for number in range(CONNECTIONS):
            held.append(attack(("127.0.0.1", port), next(made)))
            if len(held) > AT_ONCE:
                last = held.pop(0)
                answered += is_answered(last)
                last.close()
            if number % 50 == 0:
                asked = time.monotonic()
                assert tasks.add.delay(number, 1).get(timeout=10) == number + 1
                slowest = max(slowest, time.monotonic() - asked)
        grown = rss(broker.popen.pid) - began
        assert grown <= GROWTH_MOST, f"seed {seed}: grew by {grown >> 20} MB"
        assert slowest < 5, f"seed {seed}: the bystander waited for {slowest:.1f} s"
        assert broker.popen.poll() is None
        # How many is a matter of timing: the others still hold their half a frame when their turn comes.
        assert answered >= 100, "who breaks the rules is told a code, or is hung up on"
    finally:
        for sock in held:
            sock.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    until(lambda: tasks.app.client.stats()["connections"] < 10, "the strangers' connections are gone")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]
