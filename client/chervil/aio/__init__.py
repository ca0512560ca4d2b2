"""The asyncio client, loaded at the first `a...` call.

Users reach it through `Task.adelay`, `Task.aapply_async`, `Task.adelay_many`, `await result`,
`AsyncResult.aget` and `async with app`.
"""

from chervil.aio.client import AsyncClient
from chervil.aio.loops import Loops

__all__ = ["AsyncClient", "Loops"]
