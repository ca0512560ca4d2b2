"""The link: the event loop between the broker, the nursery and the children. It imports no user code."""

import asyncio
import contextlib
import os
import signal
import socket
import time
from typing import Any

from chervil.address import Found
from chervil.protocol import Code, Outcome, RequestRefused, TaskOption, WelcomeOption
from chervil.protocol.limits import BODY_DEFAULT
from chervil.protocol.messages import Completed, Welcome
from chervil.protocol.rows import DeliveryRow
from chervil_worker import control, log, packets, session
from chervil_worker.children import Children
from chervil_worker.nursery import STOP_SECONDS
from chervil_worker.options import WorkerOptions
from chervil_worker.outbox import Outbox
from chervil_worker.reconnect import Reconnect
from chervil_worker.slots import Slots, Task

#: Seconds that the broker has to answer our GOODBYE.
GOODBYE_SECONDS = 1.0

#: Seconds that the nursery has to end with all children: what it allows them, and some more.
NURSERY_SECONDS = STOP_SECONDS + 2.0

#: Seconds that children have to be dead and the broker to answer what became of their tasks, once the
#: nursery has died: both take milliseconds, unless something is wrong there too.
LAST_WORDS_SECONDS = 2.0

#: Refusals that another attempt does not change, unless someone changes a setting meanwhile.
_SETTINGS = frozenset({Code.AUTH_REQUIRED, Code.AUTH_FAILED, Code.VERSION_UNSUPPORTED, Code.FORBIDDEN})

#: Exit codes: stopped with all tasks done; stopped otherwise.
DONE, CUT_OFF = 0, 1


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
        quiet: bool = False,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._options = options
        self._found = found
        self._manifest = manifest
        self._nursery = nursery
        self._nursery_pid = nursery_pid
        self._quiet = quiet
        self._queues = list(options.queues) or [manifest.default_queue]
        self._slots = Slots(options.concurrency)
        self._children = Children(self._slots, options.concurrency, nursery, self)
        self._outbox = Outbox()
        self._session: session.Session | None = None
        self._body_limit = BODY_DEFAULT
        self._flush_due = False
        self._greeted_once = False
        self._orphans = 0
        self._signals = 0
        self._signalled = asyncio.Event()
        #: The exit code when everything is told.
        self._code = DONE
        #: The exit code, once it is known that this is over.
        self._over: asyncio.Future[int] = self._loop.create_future()

    async def run(self) -> int:
        """Works until told to stop; the exit code. The nursery's end of its socket is closed then."""
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self._record_signal)
        self._loop.add_reader(self._nursery.fileno(), self._hear_nursery)
        for index in range(self._options.concurrency):
            self._children.spawn(index)
        tasks = [asyncio.create_task(self._stay_connected()), asyncio.create_task(self._obey_signals())]
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
        now = time.monotonic_ns()
        pack = packets.pack
        limit = self._body_limit
        tasks = []
        for row in rows:
            options = row[8]
            deadline = None
            if options and (expires_ms := options.get(TaskOption.EXPIRES_MS)) is not None:
                deadline = now + expires_ms * 1_000_000
            tasks.append(Task(row[0], row[1], row[5], pack((row, deadline, limit)), row[3] + 1))
        self._slots.deliver(tasks)
        self.changed()

    def completed(self, message: Completed) -> None:
        for row, verdict in self._outbox.completed(message):
            log.worker.warning(
                "a completion (outcome %s) was not applied: verdict %d, the task's lease is gone",
                Outcome(row[2]).name,
                verdict,
            )
        if self._slots.draining:
            self.changed()

    def lost(self) -> None:
        """The leases are gone: what was not begun is forgotten, what runs goes on for nothing."""
        if self._session is None:  # it ended before it was taken up, or after we are done with it
            return
        self._session = None
        unanswered = self._outbox.unanswered
        self._outbox = Outbox()
        self._children.take_back_all()
        forgotten = self._slots.new_session()
        if unanswered or forgotten or self._slots.running:
            log.worker.warning(
                "the leases are lost with the connection (tasks not begun: %d, completions not answered: %d, "
                "tasks that still run: %d); a broker that still has these tasks hands them out again",
                forgotten,
                unanswered,
                self._slots.running,
            )
        self.changed()

    # What the children say

    def complete(
        self, task: Task, outcome: int, codec: str | None, body: bytes | None, options: dict[int, Any] | None
    ) -> None:
        if task.session == self._slots.session:
            self._outbox.complete(task, outcome, codec, body, options)
        else:
            self._orphans += 1

    def started(self, task: Task) -> None:
        if task.session == self._slots.session:
            self._outbox.started(task)

    # What follows

    def changed(self) -> None:
        """Something happened: at the end of this loop turn the consequences are drawn, once."""
        if not self._flush_due:
            self._flush_due = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flush_due = False
        self._children.assign()
        for task in self._slots.surplus():
            if task.session == self._slots.session:
                self._outbox.release(task)
        if self._session is not None and self._session.open:
            messages = self._outbox.flush(self._slots.credit(), self._slots.capacity)
            if messages:
                self._session.send(messages)
        if self._slots.draining and self._slots.idle and not self._outbox.unanswered:
            self._finish(self._code)

    def _finish(self, code: int) -> None:
        if not self._over.done():
            self._over.set_result(code)

    # The connection

    async def _stay_connected(self) -> None:
        attempts = Reconnect()
        while True:
            try:
                current, welcome = await session.connect(self, self._found.url, self._options.node_name)
                attempts.succeeded()
                self._greet(current, welcome)
                # Shielded: when this is cancelled the session still has its goodbye before it.
                why = await asyncio.shield(current.ended)
                log.worker.warning("lost the broker: %s", why)
            except RequestRefused as error:
                if error.code in _SETTINGS and not self._greeted_once:
                    log.worker.error("the broker at %s refused this worker: %s", self._found.url, error)
                    self._finish(CUT_OFF)
                    return
                await self._wait(attempts, str(error))
            except OSError as error:
                await self._wait(attempts, str(error) or "no answer in time")

    async def _wait(self, attempts: Reconnect, why: str) -> None:
        delay, tell = attempts.failed(self._loop.time())
        if tell:
            log.worker.warning(
                "cannot reach the broker at %s (from %s): %s; trying again until it is there",
                self._found.url,
                self._found.source,
                why,
            )
        await asyncio.sleep(delay)

    def _greet(self, current: session.Session, welcome: Welcome) -> None:
        """A new session: everything is counted from its beginning. Raises OSError when it is over already."""
        if not current.open:
            raise ConnectionError("the broker hung up after its greeting")
        options = welcome.options or {}
        self._body_limit = options.get(WelcomeOption.BODY_LIMIT, BODY_DEFAULT)
        self._outbox = Outbox()
        self._session = current
        current.subscribe(self._queues, self._manifest.tasks, self._options.concurrency, os.getpid())
        if not self._greeted_once and not self._quiet:
            self._announce(str(options.get(WelcomeOption.DURABILITY, "unknown")))
        elif self._greeted_once:
            log.worker.warning("connected to the broker again")
        self._greeted_once = True
        self.changed()

    def _announce(self, durability: str) -> None:
        name = self._manifest.app or "an app without a name"
        queues = ", ".join(self._queues)
        count = len(self._manifest.tasks)
        tasks = "1 task" if count == 1 else f"{count} tasks"
        print(f"{self._options.node_name} runs {name} ({tasks}), {self._options.concurrency} at a time")
        print(f"broker {self._found.url} (from {self._found.source}), durability: {durability}")
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
        """The nursery is dead and its children with it: ends when the broker knows what they had begun.

        Whoever has killed it is charged for that: otherwise a task could do so to every worker, for ever.
        """
        log.worker.error("the nursery died: no process can be made any more; stopping")
        self._code = CUT_OFF
        self._slots.drain()
        self._children.bury()
        self._loop.call_later(LAST_WORDS_SECONDS, self._finish, CUT_OFF)

    # The end

    def _record_signal(self) -> None:
        self._signals += 1
        self._signalled.set()

    async def _obey_signals(self) -> None:
        await self._signalled.wait()
        self._slots.drain()
        self._children.take_back_all()
        if self._slots.running:
            log.worker.warning(
                "stopping when what runs is done (tasks: %d); once more cuts it off", self._slots.running
            )
        while self._signals < 2:
            self._signalled.clear()
            await self._signalled.wait()
        self._finish(CUT_OFF)

    def _fail(self, task: asyncio.Task[None]) -> None:
        """An error of our own in a background task ends the worker, and does not leave it half alive."""
        if not task.cancelled() and (error := task.exception()) is not None and not self._over.done():
            self._over.set_exception(error)

    async def _end(self) -> None:
        """Children first, then the session: a task cut off must not run while another gets its lease."""
        running = self._slots.running
        if running:
            log.worker.warning("running tasks that were cut off, and run again: %d", running)
        self._children.close()
        self._loop.remove_reader(self._nursery.fileno())
        if not running:
            with contextlib.suppress(OSError):
                control.send(self._nursery, control.Stop())
        if self._orphans:
            log.worker.warning(
                "tasks that finished after their connection was lost, and did not count: %d",
                self._orphans,
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
