"""A program that waits for tasks while its network fails: `python -m tests.machines.caller QUEUE COUNTDOWN`.

It publishes tasks, the first to run COUNTDOWN seconds later, begins to wait for them from threads and on an
event loop, and says `waits`. At SIGUSR1 it begins the `late` calls, on connections that were idle since, and
when all is over those that come `after`. Each call says in a line of output how it ended: its name, the
seconds it took, and `done` or its error.
"""

import asyncio
import contextlib
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

from chervil.cli.common import Common
from chervil.cli.outcome import wait_for
from chervil.exceptions import ChervilError
from tests.machines.tasks import app, mark

#: Seconds in which a result has to be there: more than any network here is away.
WAIT_SECONDS = 120.0
#: Tasks besides the first that are waited for in one call.
MANY = 10
#: Connections that are idle when the network fails.
IDLE = 5


def main() -> None:
    _, queue, countdown = sys.argv
    logging.basicConfig(format="warning: %(message)s")
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
    result = mark.apply_async(queue=queue, countdown=float(countdown))
    ids = [result.id, *(mark.apply_async(queue=queue).id for _ in range(MANY))]
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True).start()

    def wait_for_all() -> None:
        assert all(status.settled for status in app.client.wait(ids, WAIT_SECONDS))

    def again() -> Any:
        return app.AsyncResult(result.id)

    calls = Calls(loop)
    calls.asynchronous("aget", result.aget(WAIT_SECONDS))
    calls.blocking("get", lambda: again().get(WAIT_SECONDS))
    calls.blocking("wait", wait_for_all)
    calls.blocking("call--wait", lambda: wait_for(app.client, result.id, None, Common()))
    _leave_idle(result.id)
    _say("waits")
    signal.sigwait([signal.SIGUSR1])
    calls.asynchronous("late-aget", again().aget(WAIT_SECONDS))
    calls.asynchronous("late-adelay", mark.aapply_async(queue=queue))
    calls.blocking("late-get", lambda: again().get(WAIT_SECONDS))
    calls.blocking("late-delay", lambda: mark.apply_async(queue=queue))
    calls.blocking("late-state", lambda: again().state)
    calls.finish()
    calls.asynchronous("after-aget", again().aget(WAIT_SECONDS))
    calls.blocking("after-get", lambda: again().get(WAIT_SECONDS))
    calls.blocking("after-delay", lambda: mark.apply_async(queue=queue))
    calls.blocking("after-state", lambda: again().state)
    calls.finish()
    _say("over")


class Calls:
    """Calls under way, each in a thread or on the loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._threads: list[threading.Thread] = []

    def blocking(self, name: str, call: Callable[[], Any]) -> None:
        def run() -> None:
            with _told(name):
                call()

        self._threads.append(threading.Thread(target=run))
        self._threads[-1].start()

    def asynchronous(self, name: str, call: Coroutine[Any, Any, Any]) -> None:
        self.blocking(name, asyncio.run_coroutine_threadsafe(call, self._loop).result)

    def finish(self) -> None:
        while self._threads:
            self._threads.pop().join()


@contextlib.contextmanager
def _told(name: str) -> Iterator[None]:
    """Says how a call ended, and how long it took."""
    began = time.monotonic()
    how = "done"
    try:
        yield
    except ChervilError as error:
        how = f"{type(error).__name__}: {error}"
    _say(f"{name} {time.monotonic() - began:.1f} {how}")


def _say(line: str) -> None:
    """A line of output, in one write."""
    os.write(1, f"{line}\n".encode())


def _leave_idle(id_: str) -> None:
    """Makes connections that nobody uses any more, by as many waits at once for a task that has not ended."""
    threads = [threading.Thread(target=app.client.wait, args=([id_], 0.5)) for _ in range(IDLE)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main()
