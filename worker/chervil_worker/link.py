"""The link: the event loop between the broker, the nursery and the children. It imports no user code.

It tells the machine what happens and does what the machine decides, once a loop turn.
"""

import asyncio
import contextlib
import os
import signal
import socket
import time
from typing import Any

from chervil.address import Addresses, BrokerURL, Found
from chervil.protocol import Code, RequestRefused, WelcomeOption
from chervil.protocol.messages import Completed, Ok, Welcome
from chervil.protocol.rows import DeliveryRow
from chervil.statedir import unreadable_token
from chervil.systemd import ServiceManager
from chervil_worker import control, log, packets, session
from chervil_worker.children import Children
from chervil_worker.machine import CUT_OFF, Machine
from chervil_worker.nursery import STOP_SECONDS
from chervil_worker.options import WorkerOptions
from chervil_worker.reconnect import Reconnect
from chervil_worker.slot import LONG_RUN_NS
from chervil_worker.terms import Terms

#: Seconds that the broker has to answer our GOODBYE.
GOODBYE_SECONDS = 1.0

#: Seconds that the nursery has to end with all children: what it allows them, and some more.
NURSERY_SECONDS = STOP_SECONDS + 2.0

#: Refusals that another attempt does not change, unless someone changes a setting meanwhile.
_SETTINGS = frozenset({Code.AUTH_REQUIRED, Code.AUTH_FAILED, Code.VERSION_UNSUPPORTED, Code.FORBIDDEN})

#: What the broker says of a session that cannot go on as we would have it: it is not taken up again.
_HOPELESS = frozenset({Code.BAD_STATE, Code.BAD_FIELD, Code.BAD_FRAME, Code.UNKNOWN_COMMAND})


class Link:
    """One worker. `run` is its life."""

    def __init__(
        self,
        options: WorkerOptions,
        found: Found,
        manifest: control.Manifest,
        nursery: socket.socket,
        nursery_pid: int,
        *,
        manager: ServiceManager,
        quiet: bool = False,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._options = options
        self._found = found
        self._addresses = Addresses(found)
        #: Why the last attempt at each address came to nothing, since the broker was last there.
        self._whys: dict[BrokerURL, str] = {}
        self._manifest = manifest
        self._nursery = nursery
        self._nursery_pid = nursery_pid
        self._manager = manager
        self._quiet = quiet
        self._queues = list(options.queues) or [manifest.default_queue]
        self._machine = Machine(
            options.concurrency, self._queues, manifest.tasks,
            {name: Terms(*each) for name, each in manifest.terms.items()}, os.getpid(),
        )  # fmt: skip
        self._children = Children(self._machine, options.concurrency, nursery, self.changed)
        self._session: session.Session | None = None
        self._turn_due = False
        self._timer: asyncio.TimerHandle | None = None
        #: When it goes off, as the machine counts.
        self._timer_at = 0
        self._attempts = Reconnect()
        #: Whether the broker has taken us on, and has not only greeted us: on this connection, and ever.
        self._taken_on = False
        self._worked = False
        #: Where that connection leads, and what the broker there said of its durability.
        self._url = found.url
        self._durability = "unknown"
        self._signals = 0
        self._signalled = asyncio.Event()
        #: There is no time to wait between two attempts to connect.
        self._hurry = asyncio.Event()
        #: The exit code, once it is known that this is over.
        self._over: asyncio.Future[int] = self._loop.create_future()

    async def run(self) -> int:
        """Works until told to stop; the exit code. The nursery's end of its socket is closed then."""
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self._record_signal)
        self._loop.add_reader(self._nursery.fileno(), self._hear_nursery)
        for index in range(self._options.concurrency):
            self._children.spawn(index)
        lasting = (self._stay_connected(), self._obey_signals(), self._manager.stay_alive())
        tasks = [asyncio.create_task(one) for one in lasting]
        for task in tasks:
            task.add_done_callback(self._fail)
        try:
            return await self._over
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._end()

    # What the broker says

    def delivered(self, rows: list[DeliveryRow]) -> None:
        self._machine.delivered(rows, time.monotonic_ns())
        self.changed()

    def completed(self, message: Completed) -> None:
        self._machine.completed(message)
        if message.exceptions or self._machine.slots.draining or self._machine.choked:
            self.changed()

    def cancelled(self, rows: list[list[Any]]) -> None:
        self._machine.cancelled(rows)
        self.changed()

    def ok(self, message: Ok) -> None:
        if not self._taken_on:
            self._begin()
        self._machine.ok(message.request, message.value)
        self.changed()

    def lost(self) -> None:
        if self._session is None:  # it ended before it was taken up, or after we are done with it
            return
        if self._session.refused in _HOPELESS:
            self._machine.forsake()
        if self._session.goodbye == Code.SHUTDOWN:
            self._machine.broker_stops()
        self._session = None
        self._machine.lost(time.monotonic_ns())
        self.changed()

    # What follows

    def changed(self) -> None:
        """Something happened: at the end of this loop turn the consequences are drawn, once."""
        if not self._turn_due:
            self._turn_due = True
            self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        self._turn_due = False
        machine = self._machine
        self._children.act()
        now = time.monotonic_ns()
        messages = machine.flush(now)
        current = self._session
        if current is not None and current.open:
            if machine.hang_up is not None:
                current.abort(machine.hang_up)
            elif messages:
                current.send(messages)
        if machine.lines:
            log.write(machine.lines)
            machine.lines.clear()
        if machine.looks or machine.spawns:  # of children that could not be forked, say
            self.changed()
        if machine.slots.draining and (code := machine.exit_code) is not None:
            self._finish(code)
        self._arm(now)

    def _arm(self, now: int) -> None:
        """Sets the timer for the machine's next look; the one that is set may do."""
        if self._timer is not None and self._timer_at <= now + LONG_RUN_NS:
            return
        due = self._machine.next_look
        if self._timer is not None:
            if due == self._timer_at:
                return
            self._timer.cancel()
            self._timer = None
        if due is not None:
            self._timer = self._loop.call_later(max(0, due - now) / 1e9, self._tick)
            self._timer_at = due

    def _tick(self) -> None:
        self._timer = None
        self._children.read()
        self._machine.tick(time.monotonic_ns())
        self.changed()

    def _finish(self, code: int) -> None:
        if not self._over.done():
            self._over.set_result(code)

    # The connection

    async def _stay_connected(self) -> None:
        while True:
            url = self._addresses.first
            try:
                current, welcome = await session.connect(
                    self, url, self._found.files, self._options.node_name, self._machine.credentials
                )
                self._addresses.opened(url)
                self._taken_on = False
                greeted = current.open
                if greeted:
                    self._greet(url, current, welcome)
                # Shielded: when this is cancelled the session still has its goodbye before it.
                why = await asyncio.shield(current.ended)
                if self._taken_on or (greeted and current.refused is None):
                    log.worker.warning("lost the broker: %s", why)
                    # Our session is known there, and what runs with it.
                    self._addresses.broke(url)
                elif current.refused is not None and self._refused(url, current.refused, why):
                    return
                else:
                    await self._wait(url, f"it hung up after its greeting: {why}")
            except RequestRefused as error:
                if self._refused(url, error.code, str(error)):
                    return
                await self._wait(url, str(error))
            except session.NoToken as error:
                if not self._worked:
                    log.worker.error("cannot go to the broker at %s: %s", url, error)
                    self._finish(CUT_OFF)
                    return
                await self._wait(url, str(error))
            except OSError as error:
                await self._wait(url, str(error) or "no answer in time")

    def _refused(self, url: BrokerURL, code: str, why: str) -> bool:
        """The broker does not want us; whether that ends a worker which it has never taken on."""
        if code not in _SETTINGS or self._worked:
            return False
        if code == Code.AUTH_REQUIRED and (local := unreadable_token(url)):
            log.worker.error("the broker at %s asks for a token, and %s", url, local)
        else:
            log.worker.error("the broker at %s refused this worker: %s", url, why)
        self._finish(CUT_OFF)
        return True

    async def _wait(self, url: BrokerURL, why: str) -> None:
        """Waits before the next attempt, which is at the next address."""
        self._addresses.failed(url)
        self._whys[url] = why
        delay, tell = self._attempts.failed(self._loop.time())
        if tell:
            if self._found.others:
                why = "; ".join(f"{each}: {reason}" for each, reason in self._whys.items())
            self._manager.status(f"trying to reach the broker at {self._found.redacted}: {why}")
            log.worker.warning(
                "cannot reach the broker at %s (from %s): %s; trying again until it is there",
                self._found.redacted,
                self._found.source,
                why,
            )
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(delay):
                await self._hurry.wait()
        self._hurry.clear()

    def _greet(self, url: BrokerURL, current: session.Session, welcome: Welcome) -> None:
        """Takes up a session on a new connection."""
        self._session = current
        self._url = url
        self._durability = str((welcome.options or {}).get(WelcomeOption.DURABILITY, "unknown"))
        self._machine.welcomed(welcome)
        self.changed()

    def _begin(self) -> None:
        """The broker has taken us on; one that has only greeted may refuse us yet, for want of a role."""
        if not self._worked and not self._quiet:
            self._announce()
        self._taken_on = self._worked = True
        self._attempts.succeeded()
        self._whys.clear()
        self._manager.ready(f"connected to {self._url}")

    def _announce(self) -> None:
        name = self._manifest.app or "an app without a name"
        queues = ", ".join(self._queues)
        count = len(self._manifest.tasks)
        tasks = "1 task" if count == 1 else f"{count} tasks"
        print(f"{self._options.node_name} runs {name} ({tasks}), {self._options.concurrency} at a time")
        print(f"broker {self._url} (from {self._found.source}), durability: {self._durability}")
        print(f"queues {queues}")
        print("acks after the run; a task whose process dies runs again, at most 3 starts", flush=True)

    # The nursery

    def _hear_nursery(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while not self._over.done():
                received = control.receive(self._nursery, packets.DONT_WAIT)
                if received is None:
                    self._loop.remove_reader(self._nursery.fileno())
                    self._mourn()
                    return
                message, _ = received
                if isinstance(message, control.Born):
                    self._children.born(*message)
                elif isinstance(message, control.Exited):
                    self._children.exited(*message)

    def _mourn(self) -> None:
        """The nursery is dead and its children with it: ends when the broker knows what they had begun."""
        self._machine.nursery_died(time.monotonic_ns())
        self._children.bury()
        self.changed()

    # The end

    def _record_signal(self) -> None:
        self._signals += 1
        self._signalled.set()

    async def _obey_signals(self) -> None:
        await self._signalled.wait()
        self._machine.drain()
        self._children.act()
        running = self._machine.slots.running
        self._manager.stopping(f"finishing what runs (tasks: {running})")
        if running:
            log.worker.warning("stopping when what runs is done (tasks: %d); once more cuts it off", running)
        self.changed()
        while self._signals < 2:
            self._signalled.clear()
            await self._signalled.wait()
        self._machine.cut_off(time.monotonic_ns())
        # Whoever has what we ran must hear of it: a broker that is away is tried again now.
        self._hurry.set()
        self.changed()

    def _fail(self, task: asyncio.Task[None]) -> None:
        """An error of our own in a background task ends the worker, and does not leave it half alive."""
        if not task.cancelled() and (error := task.exception()) is not None and not self._over.done():
            self._over.set_exception(error)

    async def _end(self) -> None:
        """Children first, then the session: a task cut off must not run while another gets its lease."""
        running = self._machine.slots.running
        if running:
            log.worker.warning(
                "tasks that are cut off now, and of which the broker cannot be told: %d; it finds out when "
                "it has not heard of this worker for a while",
                running,
            )
        if self._timer is not None:
            self._timer.cancel()
        self._children.close()
        self._loop.remove_reader(self._nursery.fileno())
        if not running:
            with contextlib.suppress(OSError):
                control.send(self._nursery, control.Stop())
        if self._machine.orphans:
            log.worker.warning(
                "tasks that finished after their session was over, and did not count: %s",
                self._machine.orphans,
            )
        await self._end_nursery()
        current, self._session = self._session, None
        if current is not None:
            await current.say_goodbye(GOODBYE_SECONDS)

    async def _end_nursery(self) -> None:
        """Waits until the nursery, and with it every child, is gone; kills it when that takes too long.

        The end of its socket is its word to kill what is left, and it reads Stop before that.
        """
        gone = asyncio.Event()
        with contextlib.suppress(OSError):
            self._nursery.shutdown(socket.SHUT_WR)
        self._loop.add_reader(self._nursery.fileno(), self._await_silence, gone)
        try:
            async with asyncio.timeout(NURSERY_SECONDS):
                await gone.wait()
        except TimeoutError:
            log.worker.error("the nursery did not end in time and is killed")
            self._children.kill()
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._nursery_pid, signal.SIGKILL)
        finally:
            self._loop.remove_reader(self._nursery.fileno())

    def _await_silence(self, gone: asyncio.Event) -> None:
        with contextlib.suppress(BlockingIOError):
            while control.receive(self._nursery, packets.DONT_WAIT) is not None:
                pass  # reports of children that end as they were told
            gone.set()
            self._loop.remove_reader(self._nursery.fileno())
