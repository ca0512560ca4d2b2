"""The worker's options, stated once: flags, help and documents derive from this dataclass."""

import logging
import socket
from dataclasses import dataclass, field
from typing import Any

from chervil.protocol.limits import NAME_MAX, QUEUES_MAX
from chervil_worker.cpus import cpu_count

LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")

#: Seconds that a time limit may be at most: ten years, more than which is none.
TIME_LIMIT_MAX = 10 * 366 * 86_400

#: Slots of one worker: each is a process, and each costs the link three descriptors.
CONCURRENCY_MAX = 256


def option(flags: tuple[str, ...], default: Any, doc: str, **more: Any) -> Any:
    """A field of WorkerOptions: its flags, its help, and what else click is to know."""
    metadata = {"flags": flags, "help": doc, **more}
    if callable(default):
        return field(default_factory=default, metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """How one worker runs."""

    concurrency: int = option(
        ("-c", "--concurrency"),
        cpu_count,
        "Child processes, each running one task at a time. Default: the CPUs that this process may use.",
        metavar="N",
    )
    queues: tuple[str, ...] = option(
        ("-Q", "--queues"), (), "Queues to consume. Default: the app's task_default_queue.", metavar="A,B"
    )
    hostname: str = option(
        ("-n", "--hostname"),
        "worker@%h",
        "Node name; %h is the full host name, %n its first part, %d the rest.",
        metavar="NAME",
        show_default=True,
    )
    loglevel: str = option(
        ("-l", "--loglevel"), "WARNING", "Least level that is logged.", choices=LOG_LEVELS, show_default=True
    )
    include: tuple[str, ...] = option(
        ("-I", "--include"), (), "More modules to import, for the tasks in them.", metavar="A,B"
    )
    log_format: str = option(
        ("--log-format",), "text", "How log lines are written.", choices=("text", "json"), show_default=True
    )
    time_limit: float | None = option(
        ("--time-limit",),
        None,
        "Seconds after which a task's process is killed; the task fails. A task's own limit comes first.",
        metavar="SECONDS",
    )
    soft_time_limit: float | None = option(
        ("--soft-time-limit",),
        None,
        "Seconds after which SoftTimeLimitExceeded is raised in a task. A task's own limit comes first.",
        metavar="SECONDS",
    )

    def __post_init__(self) -> None:
        if not 1 <= self.concurrency <= CONCURRENCY_MAX:
            raise ValueError(f"--concurrency is 1 to {CONCURRENCY_MAX}, not {self.concurrency}")
        if len(self.queues) > QUEUES_MAX:
            raise ValueError(f"--queues takes at most {QUEUES_MAX} queues, not {len(self.queues)}")
        for queue in self.queues:
            if len(queue.encode()) > NAME_MAX:
                raise ValueError(f"a queue's name has at most {NAME_MAX} bytes: {queue[:40]!r}...")
        for flag, limit in (
            ("--time-limit", self.time_limit),
            ("--soft-time-limit", self.soft_time_limit),
        ):
            if limit is not None and not 0 < limit <= TIME_LIMIT_MAX:
                raise ValueError(f"{flag} is more than 0 and at most {TIME_LIMIT_MAX} seconds, not {limit}")
        if not 1 <= len(self.node_name.encode()) <= NAME_MAX:
            raise ValueError(f"--hostname makes a name of 1 to {NAME_MAX} bytes, not {self.node_name[:80]!r}")

    @property
    def node_name(self) -> str:
        """The name under which the broker and the logs know this worker: always with an @."""
        host = socket.gethostname()
        first, _, rest = host.partition(".")
        name = self.hostname
        for sign, text in (("%h", host), ("%n", first), ("%d", rest)):
            name = name.replace(sign, text)
        return name if "@" in name else f"{name}@{host}"

    @property
    def level(self) -> int:
        """`loglevel` as `logging` counts."""
        return logging.getLevelNamesMapping()[self.loglevel]
