"""A publisher of a run with faults: `python -m tests.faults.publisher URL FOLDER NAME SEED COUNT END`."""

import sys
import time
from pathlib import Path

from chervil.client import Client
from chervil.exceptions import ChervilError
from tests.faults import tasks
from tests.faults.share import PAUSE_SECONDS, WAIT_SECONDS, Call, Share


class Publisher:
    """Publishes its share of a run's tasks, one batch after the other."""

    def __init__(self, client: Client, share: Share) -> None:
        self._client = client
        self._share = share

    def run(self) -> None:
        """Until all of the share is noted."""
        if unsure := self._share.unsure():
            self._publish(unsure)
        while calls := self._share.batch():
            self._publish(calls)
            time.sleep(self._share.pause())

    def _publish(self, calls: list[Call]) -> None:
        rounds = self._share.rounds(calls)
        try:
            sent = next(rounds)
            while True:
                sent = rounds.send(self._attempt(sent))
        except StopIteration as done:
            if done.value:
                self._wait(done.value)

    def _attempt(self, calls: list[Call]) -> ChervilError | None:
        try:
            self._client.publish([call.row() for call in calls])
        except ChervilError as error:
            time.sleep(PAUSE_SECONDS)
            return error
        return None

    def _wait(self, ids: list[str]) -> None:
        try:
            self._share.given(self._client.wait(ids, WAIT_SECONDS))
        except ChervilError:
            return  # it may give up; it may not be told anything wrong


def main() -> None:
    url, folder, name, seed, count, end = sys.argv[1:]
    tasks.app.conf.broker_url = url
    Publisher(tasks.app.client, Share(Path(folder), name, int(seed), int(count), float(end))).run()


if __name__ == "__main__":
    main()
