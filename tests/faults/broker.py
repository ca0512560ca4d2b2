"""The broker of a run with faults: killed and started again on the same socket and data folder."""

import subprocess
import threading
import time
from collections.abc import Callable

from chervil.address import BrokerURL, Found
from chervil.client import Client
from chervil.exceptions import ChervilError

#: Seconds between two attempts to be greeted.
ATTEMPT_SECONDS = 0.01


class Broker:
    """One broker after the other; each is watched until it answers."""

    def __init__(self, start: Callable[[], subprocess.Popen[bytes]], url: str) -> None:
        self.process = start()
        #: When it was killed, in nanoseconds of the monotonic clock.
        self.kills: list[int] = []
        #: Seconds from the start after each kill until it answered, where it was not killed before that.
        self.recoveries: list[float] = []
        self._start = start
        self._found = Found(BrokerURL.parse(url), "test")
        self._watcher = self._watch(lambda seconds: None)

    def kill(self) -> None:
        """kill -9, and at once another one; returns when that was started."""
        self.kills.append(time.monotonic_ns())
        self.process.kill()
        self.process.wait()
        self.process = self._start()
        self._watcher = self._watch(self.recoveries.append)

    def answers_within(self, seconds: float) -> bool:
        """Waits until it answers; False when it has ended, or that took too long."""
        self._watcher.join(seconds)
        return not self._watcher.is_alive() and self.process.poll() is None

    def _watch(self, note: Callable[[float], None]) -> threading.Thread:
        watcher = threading.Thread(target=self._measure, args=(self.process, note), daemon=True)
        watcher.start()
        return watcher

    def _measure(self, process: subprocess.Popen[bytes], note: Callable[[float], None]) -> None:
        began = time.monotonic()
        client = Client(self._found)
        while process.poll() is None:
            try:
                client.reach()
            except ChervilError:
                time.sleep(ATTEMPT_SECONDS)  # nobody tells when a broker begins to listen
            else:
                note(time.monotonic() - began)
                break
        client.close()
