"""The broker's process: start, run until told to stop, stop in order."""

import asyncio
import gc
import logging
import resource
import signal
import socket
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from chervil.address import DEFAULT_URL, BrokerURL
from chervil.statedir import token_path
from chervil.systemd import ServiceManager
from chervil_broker.access import Access
from chervil_broker.broker import Broker
from chervil_broker.clock import Clock
from chervil_broker.door import Door
from chervil_broker.durability import Durability
from chervil_broker.listen import adopt, check_open, listen_tcp, listen_unix, parse_bind, remove_socket
from chervil_broker.options import BrokerOptions
from chervil_broker.sizes import show_size
from chervil_broker.store import MemoryStore
from chervil_broker.tls import TLS, TLSError
from chervil_broker.tokens import provide_token
from chervil_broker.upkeep import Upkeep
from chervil_broker.users import UsersFile, users_path

log = logging.getLogger("chervil.broker")

#: How long peers may take to read their last words at the end, in seconds.
STOP_GRACE = 5.0
#: Descriptors that are no connections: listening sockets, the loop's, the log's.
SPARE_DESCRIPTORS = 64
#: After so many seconds the loop lets the journal's thread have the interpreter, which that one needs several
#: times a commit. Measured with turns of 5 ms: a commit takes 5 ms by Python's own 0.005, 1 ms by this; what
#: no long turn delays takes as long as before.
SWITCH_SECONDS = 0.0002


class BrokerFailed(Exception):
    """The broker has ended in order, and nobody had asked for it."""


def run(options: BrokerOptions) -> None:
    """Runs a broker until SIGTERM or SIGINT. Raises ListenError and ValueError before it listens."""
    manager = ServiceManager()
    sys.setswitchinterval(SWITCH_SECONDS)
    with asyncio.Runner(loop_factory=_loop_factory(options.loop)) as runner:
        runner.run(_serve(options, manager))


def _loop_factory(name: str) -> Callable[[], asyncio.AbstractEventLoop] | None:
    if name == "uvloop":
        try:
            import uvloop
        except ImportError:
            log.warning("uvloop is not installed; the asyncio loop is used instead")
        else:
            return uvloop.new_event_loop
    return None


async def _serve(options: BrokerOptions, manager: ServiceManager) -> None:
    stop = _stop_on_signals()
    most = _raise_descriptor_limit()
    options = replace(options, max_connections=min(options.max_connections, most))
    tls = None if options.tls_files is None else TLS(options.tls_files)
    users = UsersFile(users_path(options.users, options.data))
    clock = Clock()
    durability = None if options.memory else Durability(options, clock)
    adopted = [adopt(sock, options) for sock in manager.sockets]
    listeners = adopted + _listen(options, needed=not adopted)
    token_files = [path for _, url in listeners if url.path is None for path in _token_files(url)]
    local = provide_token(token_files) if token_files and not options.no_auth else None
    access = Access(users, local_token_hash=local, ask=not options.no_auth)
    if durability is None:
        broker = Broker(options, MemoryStore(), access, clock)
    else:
        broker = Broker(options, durability.store, access, clock, durability.recovered)
    doors = [_open(broker, sock, url, tls) for sock, url in listeners]
    gc.collect()
    gc.freeze()
    gc.disable()
    lasting = [
        asyncio.create_task(each) for each in (Upkeep(broker).run(), manager.stay_alive(), broker.lag.run())
    ]
    if durability is not None:
        durability.start(stop)
        lasting.append(asyncio.create_task(durability.care_for(broker)))
    for task in lasting:
        task.add_done_callback(partial(_stop_if_it_failed, stop))
    _reload_on_hangup(broker, tls, manager)
    _announce(options, [url for _, url in listeners], [] if local is None else token_files)
    manager.ready(f"ready on {', '.join(str(url) for _, url in listeners)}")

    await stop.wait()

    if durability is not None:
        durability.raise_if_failed()
    manager.stopping()
    for door in doors:
        door.close()
    failed = any(task.done() and task.exception() for task in lasting)
    for task in lasting:
        task.cancel()
    await broker.stop(STOP_GRACE)
    left = broker.unfinished()
    if durability is not None:
        await durability.close()
    for _, url in listeners[len(adopted) :]:
        remove_socket(url)
    kept = "were in memory and are gone" if durability is None else "are kept for the next start"
    log.info("stopped%s", f"; unfinished tasks that {kept}: {left}" if left else "")
    if failed:
        raise BrokerFailed("a part of the broker ended with an error; the lines above say which, and why")


def _stop_if_it_failed(stop: asyncio.Event, task: "asyncio.Task[None]") -> None:
    """What has to last has ended: a broker without it would be half a one."""
    if not task.cancelled() and (error := task.exception()) is not None:
        log.critical("the broker stops: %s ended with an error", task.get_name(), exc_info=error)
        stop.set()


def _token_files(url: BrokerURL) -> list[Path]:
    """Where clients of the same user look for the token of a broker that listens there."""
    if url.host in ("0.0.0.0", "::"):  # every address, so loopback's too
        return [token_path(url), token_path(BrokerURL("chervil", host="127.0.0.1", port=url.port))]
    return [token_path(url)]


def _reload_on_hangup(broker: Broker, tls: TLS | None, manager: ServiceManager) -> None:
    """SIGHUP: certificates and users are read again; what is wrong then leaves what was."""

    def reload() -> None:
        manager.reloading()
        if tls is not None:
            try:
                tls.reload()
                log.info("the certificate was read again: %s", tls.files.cert)
            except TLSError as error:
                log.error("%s; the certificate of before is used on", error)  # noqa: TRY400 -- the message says it all
        broker.refresh_users()
        manager.ready()

    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, reload)


def _stop_on_signals() -> asyncio.Event:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    # One that comes before there is anything to read again must not end us.
    loop.add_signal_handler(signal.SIGHUP, lambda: None)
    return stop


def _raise_descriptor_limit() -> int:
    """As many descriptors as the system lets us have; how many connections that is."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return max(1, hard - SPARE_DESCRIPTORS)


def _listen(options: BrokerOptions, *, needed: bool) -> list[tuple[socket.socket, BrokerURL]]:
    """What the options name; where they name nothing and an address is needed, the default one."""
    binds = options.bind or (() if options.unix or not needed else (DEFAULT_URL.removeprefix("chervil://"),))
    addresses = [parse_bind(bind) for bind in binds]
    for host, _ in addresses:
        check_open(host, options)
    scheme = "chervils" if options.tls_cert else "chervil"
    listeners = [listen_tcp(scheme, host, port) for host, port in addresses]
    if options.unix:
        listeners.append(listen_unix(Path(options.unix)))
    return listeners


def _open(broker: Broker, sock: socket.socket, url: BrokerURL, tls: TLS | None) -> Door:
    if url.path is not None:
        return Door(sock, lambda: broker.new_peer(needs_token=False), lambda: None)
    return Door(sock, lambda: broker.new_peer(needs_token=True), lambda: None if tls is None else tls.context)


def _announce(options: BrokerOptions, urls: list[BrokerURL], token_files: list[Path]) -> None:
    if options.memory:
        log.info("nothing is kept on disk (--memory): a restart loses what is queued")
    elif options.fsync != "always":
        log.warning(
            "--fsync %s: what was confirmed last is lost if the machine stops, not if the broker does",
            options.fsync,
        )
    if options.no_tls:
        log.warning("--no-tls: what goes over the network can be read, and changed, by others there")
    if options.no_auth:
        log.warning("--no-auth: whoever can connect may do everything, on every vhost")
    log.info(
        "ready on %s; memory for %s of tasks and %s of results%s",
        ", ".join(map(str, urls)),
        show_size(options.task_memory),
        show_size(options.result_memory),
        "".join(f"; token in {path}" for path in token_files[:1]),
    )
