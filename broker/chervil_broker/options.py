"""The broker's options, stated once: flags, help and documents derive from this table."""

from dataclasses import dataclass, field
from typing import Any

from chervil.protocol.limits import BODY_DEFAULT, BODY_MAX
from chervil_broker.sizes import available_memory, parse_size


def option(default: Any, doc: str, **more: Any) -> Any:
    """A field of BrokerOptions with its help text."""
    if callable(default):
        return field(default_factory=default, metadata={"help": doc, **more})
    return field(default=default, metadata={"help": doc, **more})


@dataclass(frozen=True, slots=True)
class BrokerOptions:
    """How one broker runs."""

    bind: tuple[str, ...] = option((), "Listen on this TCP address, HOST:PORT. May be repeated.")
    unix: str | None = option(None, "Listen on a Unix socket at this path; same-user clients need no token.")
    memory: bool = option(False, "Keep nothing on disk: a restart loses what is queued. So far the only way.")
    max_memory: int = option(
        lambda: available_memory() // 2,
        "Memory for tasks and results, like 512MB; a quarter of it is for results. Half of what there is.",
    )
    body_limit: int = option(BODY_DEFAULT, f"Largest body of one task or result, up to {BODY_MAX >> 20}MB.")
    dedup_ids: int = option(
        1_000_000, "Ids of forgotten tasks that are remembered, so that a late publish makes no second task."
    )
    log_format: str = option("text", "How log lines are written.", choices=("text", "json"))
    loop: str = option(
        "uvloop", "Event loop; asyncio where uvloop is missing.", choices=("uvloop", "asyncio")
    )

    @property
    def result_memory(self) -> int:
        """Bytes for results and what is remembered of finished tasks."""
        return self.max_memory // 4

    @property
    def task_memory(self) -> int:
        """Bytes for tasks that are not finished."""
        return self.max_memory - self.result_memory

    def __post_init__(self) -> None:
        if not 1 <= self.body_limit <= BODY_MAX:
            raise ValueError(f"--body-limit is 1 to {BODY_MAX} bytes, not {self.body_limit}")
        if self.dedup_ids < 0:
            raise ValueError(f"--dedup-ids is a number from 0, not {self.dedup_ids}")
        if self.max_memory < 1 << 20:
            raise ValueError(f"--max-memory is at least 1MB, not {self.max_memory} bytes")


__all__ = ["BrokerOptions", "option", "parse_size"]
