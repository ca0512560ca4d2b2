"""What the memory limit is charged, in bytes: upper bounds of what things take on a 64-bit CPython 3.11."""

from typing import Any

from chervil.protocol import WireId
from chervil_broker.engine.task import TASK_OVERHEAD

#: What TASK_OVERHEAD covers of a task's name and its queue's, in bytes, and of an id that is text, in ASCII
#: characters: most tasks share their names, and one that is final and without a body leaves room for its own.
NAMES_FREE = 208
ID_FREE = 32

#: A queue, one of its priorities and a class of tasks there, each with its entries in tables; measured 569,
#: 353 and 1,160, nearly all of the last for an empty deque.
QUEUE_BYTES, LEVEL_BYTES, CLASS_BYTES = 640, 400, 1_200
#: A queue that a session consumes: a line of its own, most likely shared; measured 1,230.
LINE_BYTES = 1_300
#: A task name that a session knows, in a set just grown: 128 bytes of table.
KNOWN_BYTES = 128
#: An id that a session waits for, in the engine's tables and the rim's. Measured: 400.
WATCH_BYTES = 400
#: What queues, names, subscriptions and watches may take before it counts: an application has some hundreds
#: of them. It is as little of the usual memory limit as the interpreter itself, which is not counted either.
FREE_BYTES = 4 << 20

#: A map with up to five entries, and what more each entry takes of a table just grown.
_MAP_BYTES, _ENTRY_BYTES = 240, 56
_EMPTY_MAP_BYTES = 64
_LIST_BYTES = 72
#: A number, with its place in a list; what is more than that is added.
_VALUE_BYTES = 56
#: An option that is a number: its key, its value, its entry.
_NUMBER_OPTION_BYTES = 136


class Charges:
    """What is charged besides tasks: queues, their classes, subscriptions and watches."""

    __slots__ = ("bytes",)

    def __init__(self) -> None:
        self.bytes = 0

    @property
    def counted(self) -> int:
        """What of it counts."""
        return self.counted_with(0)

    def counted_with(self, weight: int) -> int:
        """What of it would count with so much more."""
        return max(0, self.bytes + weight - FREE_BYTES)


def text_bytes(text: str) -> int:
    """What a text takes; one that is not ASCII may take 4 bytes a character, and its UTF-8 besides."""
    return len(text) + 64 if text.isascii() else 8 * len(text) + 96


def id_bytes(id_: WireId) -> int:
    """What an id takes beyond the 16 bytes that most have."""
    if isinstance(id_, bytes) or (len(id_) <= ID_FREE and id_.isascii()):
        return 0
    return text_bytes(id_)


def watch_bytes(id_: WireId) -> int:
    """What it takes that a session waits for a task."""
    return WATCH_BYTES + id_bytes(id_)


def overhead_of(name: str, queue: str) -> int:
    """TASK_OVERHEAD, and what long names take beyond it: each may be the only task that has them."""
    return TASK_OVERHEAD + max(0, text_bytes(name) + text_bytes(queue) - NAMES_FREE)


def options_bytes(options: dict[int, Any] | None) -> int:
    """What a task's options take."""
    if options is None:
        return 0
    total = _MAP_BYTES + _NUMBER_OPTION_BYTES * len(options)
    for value in options.values():
        kind = type(value)
        if kind is int or kind is bool:
            continue
        if kind is bytes:
            total += len(value)
        else:
            total += _nested_bytes(value)
    return total


def _nested_bytes(container: Any) -> int:
    """What a list or a map takes with all that is in it, however deep: so it is no recursion."""
    total = 0
    left = [container]
    while left:
        value = left.pop()
        total += _VALUE_BYTES
        if isinstance(value, dict):
            total += _MAP_BYTES + _ENTRY_BYTES * len(value) if value else _EMPTY_MAP_BYTES
            left.extend(value)
            left.extend(value.values())
        elif isinstance(value, list):
            total += _LIST_BYTES
            left.extend(value)
        elif isinstance(value, str):
            total += text_bytes(value)
        elif isinstance(value, bytes):
            total += len(value)
    return total
