"""How late the event loop is: what everybody who talks to this broker waits at least."""

import asyncio
import time
from collections import deque

#: How often it is looked, in seconds: often enough to meet, now and then, what blocks for a tenth of that.
LOOK_SECONDS = 0.1
#: Looks that are kept: the last minute.
LOOKS = 600


class LoopLag:
    """Measures how much later than due the loop calls."""

    def __init__(self) -> None:
        self._lags: deque[float] = deque(maxlen=LOOKS)

    async def run(self) -> None:
        """Runs for ever."""
        while True:
            # uvloop's own time counts whole milliseconds.
            due = time.monotonic() + LOOK_SECONDS
            await asyncio.sleep(LOOK_SECONDS)
            self._lags.append(max(0.0, time.monotonic() - due))

    def stats(self) -> dict[str, float]:
        """Of the last minute, in milliseconds."""
        lags = sorted(self._lags) or [0.0]
        return {
            "p99_ms": round(lags[len(lags) * 99 // 100] * 1000, 3),
            "max_ms": round(lags[-1] * 1000, 3),
        }
