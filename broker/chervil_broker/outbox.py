"""What has passed the gate and waits until its peer reads: as messages, so that it costs no second copy.

A body that waits here is the very object that the task or result table holds. It becomes bytes of a
frame only when the peer has taken most of what was written to it before.
"""

from collections import deque

from chervil.protocol import Message
from chervil.protocol.messages import Result, Status

Part = bytes | Message


class Outbox:
    """Frames and messages for one peer, in order."""

    __slots__ = ("_parts", "kept_bytes")

    def __init__(self) -> None:
        self._parts: deque[Part] = deque()
        #: Bytes that nothing else may hold any more: frames, and results, which may be evicted meanwhile.
        #: Bodies of deliveries are held by their tasks, as long as they are leased.
        self.kept_bytes = 0

    def put(self, part: Part) -> None:
        self._parts.append(part)
        self.kept_bytes += _kept(part)

    def take(self) -> Part:
        """The next one; raises IndexError where there is none."""
        part = self._parts.popleft()
        self.kept_bytes -= _kept(part)
        return part

    def clear(self) -> None:
        self._parts.clear()
        self.kept_bytes = 0

    def __len__(self) -> int:
        return len(self._parts)


def _kept(part: Part) -> int:
    if isinstance(part, bytes):
        return len(part)
    if isinstance(part, Status | Result):
        return sum(len(row[3]) for row in part.tasks if row[3] is not None)
    return 0
