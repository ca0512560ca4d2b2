"""A task that tries again, and one that is `async def`. In this folder, run

    chervil -A retrying dev

and in another terminal, in the same folder

    chervil -A retrying call retrying.fetch https://example.org --wait
    chervil -A retrying call retrying.race 0.3 0.1 0.2 --wait          prints 0.1
"""

import asyncio
import random
from typing import Any

from chervil import Chervil

app = Chervil("retrying")


@app.task(bind=True, max_retries=5)
def fetch(self: Any, url: str) -> str:
    """Stands for a call to a server that is often busy: two times out of three."""
    if random.random() < 2 / 3:
        # Waits 1, 2, 4 ... seconds. After five retries the ConnectionError is the task's result.
        raise self.retry(exc=ConnectionError(f"{url} is busy"), countdown=2**self.request.retries)
    return f"{url} answered after {self.request.retries} retries"


@app.task
async def race(*seconds: float) -> float:
    """Sleeps side by side, and returns the shortest of the sleeps."""
    sleeps = [asyncio.create_task(asyncio.sleep(s, result=s)) for s in seconds]
    return await next(asyncio.as_completed(sleeps))
