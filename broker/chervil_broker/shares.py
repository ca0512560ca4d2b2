"""How a broker's memory is divided among its vhosts."""

import logging
from collections.abc import Mapping

from chervil_broker.sizes import show_size
from chervil_broker.users import Quotas

log = logging.getLogger("chervil.broker")

#: What of a share is for results and what is remembered of finished tasks: a quarter.
RESULTS_PART = 4
#: With less an engine has no room for one large task.
SHARE_MIN = 1 << 20
#: Stands for all vhosts in what was said; no vhost is called so.
_TOO_MANY = ""


def shares(total: int, vhosts: Mapping[str, Quotas]) -> dict[str, int]:
    """Bytes of each vhost: its quota, and those without one have an equal part of what is left.

    So no vhost can take what is another's. A quota that does not fit beside those before it in `vhosts`
    counts as none: a mistake in one is not to take from the others what they have. Nobody gets less than
    SHARE_MIN, unless its quota is less, even where the total is too small for that.
    """
    parts: dict[str, int] = {}
    left = total
    for name, quotas in vhosts.items():
        size = quotas.max_memory
        others = len(vhosts) - len(parts) - 1
        if size is not None and size + others * SHARE_MIN <= left:
            parts[name] = size
            left -= size
    equal = max(SHARE_MIN, left // max(1, len(vhosts) - len(parts)))
    return {name: parts.get(name, min(equal, vhosts[name].max_memory or equal)) for name in vhosts}


class Shares:
    """Divides a broker's memory, and has the log say whose quota does not fit: once, until that changes."""

    def __init__(self) -> None:
        self._said: list[str] = []

    def divide(self, total: int, vhosts: Mapping[str, Quotas]) -> dict[str, int]:
        """`shares` of the same."""
        parts = shares(total, vhosts)
        cut = [name for name, quotas in vhosts.items() if parts[name] < (quotas.max_memory or 0)]
        for name in cut:
            if name not in self._said:
                log.error(
                    "vhost %s has %s and not the %s of its quota: all vhosts together have %s; give the "
                    "broker more memory (--max-memory), or: chervil broker vhost set %s --max-memory SIZE",
                    name,
                    show_size(parts[name]),
                    show_size(vhosts[name].max_memory or 0),
                    show_size(max(0, total)),
                    name,
                )
        needed = sum(parts.values())
        if needed > total and _TOO_MANY not in self._said:
            log.error(
                "%d vhosts are too many for %s of memory: each has %s all the same; give the broker more "
                "(--max-memory), or remove some: chervil broker vhost remove NAME",
                len(vhosts),
                show_size(max(0, total)),
                show_size(SHARE_MIN),
            )
        self._said = [*cut, _TOO_MANY] if needed > total else cut
        return parts
