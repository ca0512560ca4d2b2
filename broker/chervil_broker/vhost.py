"""A vhost: a closed set of queues, tasks and results, with an engine of its own."""

from collections import Counter
from typing import TYPE_CHECKING

from chervil.address import DEFAULT_VHOST
from chervil.protocol.limits import GRACE_SILENT_MS
from chervil_broker.clock import Clock
from chervil_broker.engine.engine import Engine
from chervil_broker.engine.restoring import Known, RestoredSession
from chervil_broker.engine.state import EngineConfig
from chervil_broker.engine.task import MS, TASK_OVERHEAD
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
#: What a task takes in the journal besides its body and its result, in bytes; a forgotten id.
JOURNAL_TASK_BYTES = 150
JOURNAL_ID_BYTES = 24
_UNFINISHED = ("WAITING", "SCHEDULED", "QUEUED", "LEASED", "STARTED", "RETRY")


class VHost:
    """One vhost of a broker. `share`: its bytes of memory, a part of them (shares.py) for results."""

    def __init__(self, name: str, share: int, quotas: Quotas, options: "BrokerOptions", clock: Clock) -> None:
        self.name = name
        self._clock = clock
        self.quotas = quotas
        #: No longer in the users file: nobody gets in, and what it holds is there if it comes back.
        self.removed = False
        #: Publishers wait for something else than memory, of which the log tells elsewhere.
        self._refusing = False
        self._share = share
        results = share // RESULTS_PART
        self.engine = Engine(
            EngineConfig(
                memory_limit=share - results,
                results_limit=results,
                tasks_limit=quotas.max_tasks,
                more_memory=self._more_memory,
                body_limit=options.body_limit,
                dedup_ids=options.dedup_ids,
            )
        )
        self._task_memory = share - results
        self.windows = Windows(self._task_memory)
        self._shortage = Shortage("publishers" if name == DEFAULT_VHOST else f"publishers of vhost {name}")
        #: Who has said HELLO here, by the connection's number.
        self.peers: dict[int, Peer] = {}
        #: What was refused here, by the names that STATS has for it.
        self.counters: Counter[str] = Counter()
        #: How many ids a turn answers.
        self.answers = answers(self.engine.result_size)
        #: The first handle of a body that no record has yet.
        self.unrecorded = 0
        self.tick()

    def restore(self, known: Known, sessions: list[RestoredSession]) -> None:
        """Goes on with what another broker left; its sessions have the grace of those that went silent."""
        self.engine.restore(known, sessions, GRACE_SILENT_MS * MS)

    def limit(self, share: int, quotas: Quotas) -> None:
        """Puts other limits in force; what is held stays."""
        self.removed = False
        if (share, quotas) == (self._share, self.quotas):
            return  # else publishers that wait would be let go on
        self._share, self.quotas = share, quotas
        results = share // RESULTS_PART
        self._task_memory = share - results
        self.engine.set_limits(self._task_memory, results, quotas.max_tasks, self._more_memory)
        self.windows.limit(self._task_memory)

    def tick(self) -> float:
        """Gives the engine the time; returns the monotonic clock's seconds."""
        now = self._clock.now()
        self.engine.tick(now, self._clock.wall())
        return self._clock.seconds(now)

    def tell_of_shortage(self, now: float) -> None:
        """Has the log say that publishers wait, or go on, if that is news."""
        if self._shortage.is_news(now, waiting=self.windows.closed and not self._refusing):
            warnings = self.engine.stats()["warnings"][:WARNINGS_TOLD_MAX]
            self._shortage.tell(now, show_size(self._task_memory), self._more_memory, warnings)

    def refuse_publishes(self, reason: str | None) -> None:
        """Refuses what is published as FULL, for this reason; None: takes it again."""
        self._refusing = reason is not None
        self.engine.refuse_publishes(reason)

    @property
    def _more_memory(self) -> str:
        """What to do for more memory: which limit it is that holds here."""
        if self.quotas.max_memory is None or self._share < self.quotas.max_memory:
            return "give the broker more memory (--max-memory)"
        return f"raise the vhost's quota (chervil broker vhost set {self.name} --max-memory SIZE)"

    def unfinished(self) -> int:
        """Tasks that are held and not final."""
        tasks = self.engine.stats()["tasks"]
        return sum(tasks.get(name, 0) for name in _UNFINISHED)

    def live_bytes(self) -> int:
        """What a journal would take of just that which is held, about."""
        tasks = len(self.engine.tasks)
        ids = len(self.engine.forgotten) * JOURNAL_ID_BYTES
        return max(0, self.held() - tasks * TASK_OVERHEAD) + tasks * JOURNAL_TASK_BYTES + ids

    def held(self) -> int:
        """Bytes of tasks and results."""
        memory = self.engine.stats()["memory"]
        return int(memory["bytes"] + memory["results"])
