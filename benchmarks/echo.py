"""The limit of the material: one msgpack frame there and back, through a bare loop that does nothing else."""

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import cast

import msgpack

from chervil.protocol.frames import pack

FRAME_BYTES = 109


class _Echo(asyncio.Protocol):
    """Sends back what comes in."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are no subclasses of asyncio's.
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


async def _serve() -> None:
    server = await asyncio.get_running_loop().create_server(_Echo, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def serve() -> None:
    """Runs the echo server on the loop that the broker uses, and prints its port."""
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve())


@contextlib.contextmanager
def echo_server() -> Iterator[int]:
    """An echo server in a process of its own, on loopback TCP as the broker is by default; its port.

    While it runs, server and client keep to a core each. Left to the scheduler, the two share one core
    or not as it happens, and the limit is three times higher in one run than in the next.
    """
    command = [sys.executable, "-c", "from benchmarks.echo import serve; serve()"]
    cores = sorted(os.sched_getaffinity(0))
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            port = int(process.stdout.readline())
            os.sched_setaffinity(process.pid, {cores[-1]})
            os.sched_setaffinity(0, {cores[0]})
            yield port
        finally:
            os.sched_setaffinity(0, cores)
            process.terminate()


def round_trips(port: int, count: int, pause: float = 0.0) -> list[float]:
    """Seconds of each of `count` sequential round trips of one frame of about 100 bytes.

    With a `pause` in seconds before each they are what they are on a machine that has gone idle.
    """
    payload = pack((16, 1, b"x" * (FRAME_BYTES - 9)))
    frame = len(payload).to_bytes(4, "big") + payload
    taken = []
    with socket.create_connection(("127.0.0.1", port)) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(count):
            if pause:
                time.sleep(pause)
            start = time.perf_counter()
            sock.sendall(frame)
            got = 0
            while got < len(frame):
                got += len(sock.recv(65536))
            taken.append(time.perf_counter() - start)
    return taken


def msgpack_round_trip(count: int = 100_000) -> float:
    """Seconds to pack and unpack one task row: what a task costs before anything is done with it."""
    row = [b"x" * 16, "benchmarks.tasks.noop", "default", 0, None, None, "json", b"x" * 100]
    start = time.perf_counter()
    for _ in range(count):
        msgpack.unpackb(pack(row))
    return (time.perf_counter() - start) / count
