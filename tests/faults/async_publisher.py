"""The same as publisher.py from an event loop, several batches at a time:
`python -m tests.faults.async_publisher URL FOLDER NAME SEED COUNT END`."""

import asyncio
import sys
from pathlib import Path

from chervil.aio import AsyncClient
from chervil.exceptions import ChervilError
from tests.faults import tasks
from tests.faults.share import PAUSE_SECONDS, WAIT_SECONDS, Call, Share

#: Batches that are published at the same time.
LANES = 4


class AsyncPublisher:
    """Publishes its share of a run's tasks over the one connection of its loop."""

    def __init__(self, client: AsyncClient, share: Share) -> None:
        self._client = client
        self._share = share

    async def run(self) -> None:
        """Until all of the share is noted."""
        if unsure := self._share.unsure():
            await self._publish(unsure)
        async with asyncio.TaskGroup() as lanes:
            for _ in range(LANES):
                lanes.create_task(self._lane())

    async def _lane(self) -> None:
        while calls := self._share.batch():
            await self._publish(calls)
            await asyncio.sleep(self._share.pause())

    async def _publish(self, calls: list[Call]) -> None:
        rounds = self._share.rounds(calls)
        try:
            sent = next(rounds)
            while True:
                sent = rounds.send(await self._attempt(sent))
        except StopIteration as done:
            if done.value:
                await self._wait(done.value)

    async def _attempt(self, calls: list[Call]) -> ChervilError | None:
        try:
            await self._client.publish([call.row() for call in calls])
        except ChervilError as error:
            await asyncio.sleep(PAUSE_SECONDS)
            return error
        return None

    async def _wait(self, ids: list[str]) -> None:
        try:
            self._share.given(await self._client.wait(ids, WAIT_SECONDS))
        except ChervilError:
            return  # it may give up; it may not be told anything wrong


async def publish(share: Share) -> None:
    async with tasks.app:
        await AsyncPublisher(tasks.app.client.aio, share).run()


def main() -> None:
    url, folder, name, seed, count, end = sys.argv[1:]
    tasks.app.conf.broker_url = url
    asyncio.run(publish(Share(Path(folder), name, int(seed), int(count), float(end))))


if __name__ == "__main__":
    main()
