"""The broker's process: start, run until told to stop, stop in order."""

import asyncio
import gc
import logging
import resource
import signal
import socket
from collections.abc import Callable
from pathlib import Path

from chervil.address import DEFAULT_URL, BrokerURL
from chervil.statedir import token_path
from chervil_broker.broker import Broker
from chervil_broker.listen import BACKLOG, listen_tcp, listen_unix, parse_bind, remove_socket
from chervil_broker.options import BrokerOptions
from chervil_broker.sizes import show_size
from chervil_broker.store import MemoryStore
from chervil_broker.tokens import provide_token
from chervil_broker.upkeep import Upkeep

log = logging.getLogger("chervil.broker")

#: How long peers may take to read their last words at the end, in seconds.
STOP_GRACE = 5.0


def run(options: BrokerOptions) -> None:
    """Runs a broker until SIGTERM or SIGINT. Raises ListenError and ValueError before it listens."""
    with asyncio.Runner(loop_factory=_loop_factory(options.loop)) as runner:
        runner.run(_serve(options))


def _loop_factory(name: str) -> Callable[[], asyncio.AbstractEventLoop] | None:
    if name == "uvloop":
        try:
            import uvloop
        except ImportError:
            log.warning("uvloop is not installed; the asyncio loop is used instead")
        else:
            return uvloop.new_event_loop
    return None


async def _serve(options: BrokerOptions) -> None:
    stop = _stop_on_signals()
    _raise_descriptor_limit()
    listeners = _listen(options)
    tcp = [url for _, url in listeners if url.path is None]
    token_files = [token_path(url) for url in tcp]
    broker = Broker(options, MemoryStore(), provide_token(token_files) if tcp else None)
    servers = [await _accept(broker, sock, needs_token=url.path is None) for sock, url in listeners]
    gc.collect()
    gc.freeze()
    gc.disable()
    sweeper = asyncio.create_task(Upkeep(broker).run())
    _announce(options, [url for _, url in listeners], token_files)

    await stop.wait()

    for server in servers:
        server.close()
    sweeper.cancel()
    left = broker.unfinished()
    await broker.stop(STOP_GRACE)
    for _, url in listeners:
        remove_socket(url)
    log.info("stopped%s", f"; unfinished tasks that were in memory and are gone: {left}" if left else "")


def _stop_on_signals() -> asyncio.Event:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    return stop


def _raise_descriptor_limit() -> None:
    """As many connections as the system lets us have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _listen(options: BrokerOptions) -> list[tuple[socket.socket, BrokerURL]]:
    binds = options.bind or (() if options.unix else (DEFAULT_URL.removeprefix("chervil://"),))
    addresses = [parse_bind(bind) for bind in binds]
    listeners = [listen_tcp(host, port) for host, port in addresses]
    if options.unix:
        listeners.append(listen_unix(Path(options.unix)))
    return listeners


async def _accept(broker: Broker, sock: socket.socket, *, needs_token: bool) -> asyncio.Server:
    sock.setblocking(False)
    loop = asyncio.get_running_loop()

    def new_peer() -> asyncio.Protocol:
        return broker.new_peer(needs_token=needs_token)

    if needs_token:
        return await loop.create_server(new_peer, sock=sock, backlog=BACKLOG)
    return await loop.create_unix_server(new_peer, sock=sock, backlog=BACKLOG)


def _announce(options: BrokerOptions, urls: list[BrokerURL], token_files: list[Path]) -> None:
    if options.memory:
        log.info("nothing is kept on disk (--memory): a restart loses what is queued")
    else:
        log.warning(
            "this release has no journal yet: nothing is kept on disk (--memory says so without this line)"
        )
    log.info(
        "ready on %s; memory for %s of tasks and %s of results%s",
        ", ".join(map(str, urls)),
        show_size(options.task_memory),
        show_size(options.result_memory),
        "".join(f"; token in {path}" for path in token_files[:1]),
    )
