"""A hint for calls that blocked an event loop: there is one that does not."""

import logging
import sys
from types import FrameType

#: Seconds for which a call may hold up a running event loop without a word.
HINT_AFTER = 0.1
#: Call sites that are told apart; more than a program has, and a bound.
SITES_MAX = 1000

_told: set[tuple[str, int]] = set()


def hint(called: str, better: str, seconds: float) -> None:
    """Logs a warning, once for each line of code that called, where an event loop runs in this thread."""
    # Not loaded for that: where it is not, no loop runs.
    asyncio = sys.modules.get("asyncio")
    if asyncio is None or asyncio._get_running_loop() is None:
        return
    frame = _caller(sys._getframe())
    if frame is None:
        return
    site = (frame.f_code.co_filename, frame.f_lineno)
    if site in _told or len(_told) >= SITES_MAX:
        return
    _told.add(site)
    logging.getLogger("chervil").warning(
        "%s() blocked the running event loop for %.1f s (%s, line %d); in a coroutine use: await %s(...)",
        called,
        seconds,
        *site,
        better,
    )


def _caller(frame: FrameType | None) -> FrameType | None:
    """The innermost frame outside of this library."""
    while frame is not None:
        name = frame.f_globals.get("__name__", "")
        if name != "chervil" and not name.startswith("chervil."):
            return frame
        frame = frame.f_back
    return None
