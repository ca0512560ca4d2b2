"""A vhost: a closed set of queues, tasks and results, with an engine of its own."""

import time
from typing import TYPE_CHECKING

from chervil_broker.engine.engine import Engine
from chervil_broker.engine.state import EngineConfig
from chervil_broker.shares import RESULTS_PART
from chervil_broker.shortage import Shortage
from chervil_broker.sizes import show_size
from chervil_broker.turns import answers
from chervil_broker.users import Quotas
from chervil_broker.windows import Windows

if TYPE_CHECKING:
    from chervil_broker.options import BrokerOptions
    from chervil_broker.peer import Peer

#: What is amiss, a queue each, that the line on a shortage of memory names.
WARNINGS_TOLD_MAX = 3
_UNFINISHED = ("WAITING", "SCHEDULED", "QUEUED", "LEASED", "STARTED", "RETRY")


class VHost:
    """One vhost of a broker. `share`: its bytes of memory, a part of them (shares.py) for results."""

    def __init__(self, name: str, share: int, quotas: Quotas, options: "BrokerOptions") -> None:
        self.name = name
        self.quotas = quotas
        #: No longer in the users file: nobody gets in, and what it holds is there if it comes back.
        self.removed = False
        results = share // RESULTS_PART
        self.engine = Engine(
            EngineConfig(
                memory_limit=share - results,
                results_limit=results,
                tasks_limit=quotas.max_tasks,
                body_limit=options.body_limit,
                dedup_ids=options.dedup_ids,
            )
        )
        self._task_memory = share - results
        self.windows = Windows(self._task_memory)
        self._shortage = Shortage()
        #: Who has said HELLO here, by the connection's number.
        self.peers: dict[int, Peer] = {}
        #: How many ids a turn answers.
        self.answers = answers(self.engine.result_size)
        self.tick()

    def limit(self, share: int, quotas: Quotas) -> None:
        """Puts other limits in force; what is held stays."""
        self.quotas = quotas
        self.removed = False
        results = share // RESULTS_PART
        self._task_memory = share - results
        self.engine.set_limits(self._task_memory, results, quotas.max_tasks)
        self.windows.limit(self._task_memory)

    def tick(self) -> float:
        """Gives the engine the time; returns the monotonic clock's seconds."""
        now = time.monotonic_ns()
        self.engine.tick(now, time.time_ns())
        return now / 1e9

    def tell_of_shortage(self, now: float) -> None:
        """Has the log say that publishers wait, or go on, if that is news."""
        if self._shortage.is_news(now, waiting=self.windows.closed):
            warnings = self.engine.stats()["warnings"][:WARNINGS_TOLD_MAX]
            self._shortage.tell(now, show_size(self._task_memory), warnings)

    def unfinished(self) -> int:
        """Tasks that are held and not final."""
        tasks = self.engine.stats()["tasks"]
        return sum(tasks.get(name, 0) for name in _UNFINISHED)

    def held(self) -> int:
        """Bytes of tasks and results."""
        memory = self.engine.stats()["memory"]
        return int(memory["bytes"] + memory["results"])
