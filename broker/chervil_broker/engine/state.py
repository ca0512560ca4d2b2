"""What the engine knows, and the few moves of a task that every command is made of."""

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from chervil.protocol import Stage, TaskOption, WireId
from chervil.protocol.limits import BODY_DEFAULT, INVENTORY_MAX, REVOKED_IDS_MAX
from chervil.protocol.vocabulary import RESULT_EXPIRES_MS_DEFAULT
from chervil_broker.engine.charges import Charges, watch_bytes
from chervil_broker.engine.consumers import Session
from chervil_broker.engine.effects import Effects
from chervil_broker.engine.history import note
from chervil_broker.engine.parked import Parked
from chervil_broker.engine.patience import Patience
from chervil_broker.engine.queues import Queue, TaskClass
from chervil_broker.engine.remembering import ID_BYTES, Forgotten, RevokedIds
from chervil_broker.engine.results import Results, empty
from chervil_broker.engine.subscriptions import Subscriptions
from chervil_broker.engine.task import (
    DEAD,
    EVICTED,
    EXPIRED,
    FAILURE,
    LEASED,
    MS,
    NO_HANDLE,
    NOBODY,
    NOT_KEPT,
    QUEUED,
    RETRY,
    REVOKED,
    STARTED,
    SUCCESS,
    TASK_OVERHEAD,
    UNKNOWN,
    Ending,
    Task,
    Unusual,
    View,
)
from chervil_broker.engine.timers import Deadlines

_STAGES = max(Stage) + 1
_IGNORE_RESULT = TaskOption.IGNORE_RESULT.value
_RESULT_EXPIRES_MS = TaskOption.RESULT_EXPIRES_MS.value
_WITH_RESULT = (RETRY, SUCCESS, FAILURE, DEAD, REVOKED, EXPIRED)
#: What of the memory limit is taken when windows close and open again, and when publishes are refused.
CLOSED_PERCENT, OPEN_PERCENT, FULL_PERCENT = 80, 70, 95
#: Names of `State.counters`: how often each happened, in tasks.
_COUNTERS = (
    "published",
    "duplicates",
    "refused",
    "delivered",
    "succeeded",
    "failed",
    "retried",
    "released",
    "lost",
    "dead",
    "expired",
    "revoked",
    "rejected",
    "parked",
    "dead_dropped",
    "rerun",
    "sessions_lost",
    "evicted",
    "forgotten",
    "stale_completions",
    "duplicate_completions",
)


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """Limits of one engine."""

    #: Bytes of tasks that are not final, each with its overhead, of dead letters, and of what else is charged
    #: (charges.py); publishes are refused over FULL_PERCENT of it. Dead letters take a quarter at most: the
    #: oldest are given up.
    memory_limit: int
    #: Bytes of final tasks, their results and bodies; over it the oldest are dropped.
    results_limit: int
    #: Tasks that are neither final nor dead letters; a publish over it is refused. None: as many as fit.
    tasks_limit: int | None = None
    #: What to do where `memory_limit` is too little: which limit it is that holds is for others to know.
    more_memory: str = "give the broker more memory (--max-memory)"
    #: Largest body that is taken, with its headers, in bytes.
    body_limit: int = BODY_DEFAULT
    #: Ids of forgotten tasks that are remembered, within a quarter of `results_limit`: 110 MB.
    dedup_ids: int = 1_000_000
    #: Ids that are remembered because they were revoked before they were published.
    revoked_ids: int = REVOKED_IDS_MAX
    #: How long a task of an unknown name waits for a worker that knows it, so that a rolling deploy parks
    #: nothing.
    park_unknown_ns: int = 600_000_000_000
    #: Leases that one session may hold.
    inventory: int = INVENTORY_MAX
    #: Bytes of bodies that one session is given in a pump, one larger body aside: what is written to it
    #: at once is held twice. It is served on in the next pump.
    grant_bytes: int = 8 * 1024 * 1024
    #: How long a queue has ready tasks and no consumer before that is an event.
    unserved_warning_ns: int = 10_000_000_000
    #: Timers that fire in one pump: a million tasks due at once must not stop the broker for a second.
    timers_per_pump: int = 5_000
    #: Unknown task names that are reported for one queue: names come from outside.
    unknown_names_reported: int = 100
    #: Queues and workers that stats list.
    stats_rows: int = 1_000

    @property
    def dead_limit(self) -> int:
        """Bytes of dead letters."""
        return self.memory_limit // 4

    @property
    def ids_limit(self) -> int:
        """Ids of forgotten tasks, if none is long."""
        return min(self.dedup_ids, self.results_limit // 4 // ID_BYTES)


class State:
    """The whole memory of the engine. Commands are functions over it."""

    def __init__(self, config: EngineConfig) -> None:
        self.config = config
        self.now = 0
        self.wall = 0
        self.wall_ms = 0
        self.sequence = 0
        #: What tasks are charged that are not final, and dead letters.
        self.memory = 0
        #: Whether publishers that can wait are to.
        self.closed = False
        #: Bytes of the task that was refused for want of room, while there is none for it.
        self.refused = 0
        #: Why nothing is taken whatever room there is; None: it is taken.
        self.refusal: str | None = None
        self.tasks: dict[WireId, Task] = {}
        self.queues: dict[str, Queue] = {}
        self.sessions: dict[int, Session] = {}
        self.charges = Charges()
        self.subscriptions = Subscriptions(config.memory_limit, self.charges)
        self.deadlines = Deadlines()
        self.results = Results(config.results_limit)
        self.parked = Parked(config.dead_limit)
        self.forgotten = Forgotten(config.ids_limit)
        self.revoked_ids = RevokedIds(config.revoked_ids, config.memory_limit, self.charges)
        self.patience = Patience(config.park_unknown_ns)
        #: (deadline, session): when a suspended session is closed.
        self.graces: list[tuple[int, int]] = []
        #: Sessions that watch a task, by its id.
        self.watchers: dict[WireId, list[int]] = {}
        #: Queues that may have a task for a waiting consumer, by name.
        self.active: dict[str, Queue] = {}
        #: Sessions that gained credit or queues since the last pump, or could not be given all then.
        self.woken: dict[int, Session] = {}
        #: Queues that are to be warned of because nobody consumes them, by name, those that have waited
        #: longest first. An OrderedDict, as its first entry is found at once.
        self.unserved: OrderedDict[str, Queue] = OrderedDict()
        #: Results to push, by session.
        self.pushes: dict[int, list[View]] = {}
        #: Tasks by stage.
        self.stages = [0] * _STAGES
        self.counters: dict[str, int] = dict.fromkeys(_COUNTERS, 0)
        #: Tasks granted in this pump, by session: one DELIVER batch each.
        self.granted: dict[int, list[Task]] = {}
        self.effects = Effects()

    def touch(self, task: Task) -> None:
        """A task changed, and not in a way that `Effects` has a list of its own for."""
        self.effects.changed[task] = None

    def queue_for(self, name: str) -> Queue:
        """The queue of that name, made on first use."""
        queue = self.queues.get(name)
        if queue is None:
            queue = self.queues[name] = Queue(name, self.charges)
        return queue

    def retire(self, queue: Queue) -> None:
        """Forgets a queue with nothing in it and nobody at it: names come from outside."""
        if queue.unused:
            self.served(queue)
            queue.dissolve()
            del self.queues[queue.name]

    def arrived(self, queue: Queue) -> None:
        """Ready tasks came into a queue: somebody may be waiting, or nobody is there."""
        if queue.lines:
            self.active[queue.name] = queue
        elif queue.unserved_since is None:
            self.watch_for_consumer(queue)

    def watch_for_consumer(self, queue: Queue) -> None:
        """Starts the time after which it is an event that nobody consumes a queue."""
        queue.unserved_since = self.now
        if not queue.warned:
            self.unserved[queue.name] = queue

    def served(self, queue: Queue) -> None:
        """A queue has a consumer, or no ready tasks: nobody is missing there."""
        queue.unserved_since = None
        self.unserved.pop(queue.name, None)

    def next_warning(self) -> int | None:
        """When to look at the first of the queues that miss a consumer."""
        for queue in self.unserved.values():
            assert queue.unserved_since is not None, "it is unserved"
            return queue.unserved_since + self.config.unserved_warning_ns
        return None

    def warn_of_unserved(self) -> None:
        """Tells, once a queue, of those that have waited for a consumer long enough."""
        while (time := self.next_warning()) is not None and time <= self.now:
            _, queue = self.unserved.popitem(last=False)
            queue.warned = True
            self.effects.events.append(
                ("queue_without_consumer", {"queue": queue.name, "ready": queue.ready})
            )

    def report_unknown(self, queue: Queue, class_: TaskClass) -> None:
        """Tasks wait whose name no consumer of their queue knows: tells of it once, and waits for one."""
        if not queue.lines:
            return
        self.patience.watch(queue, class_)
        if class_.name in queue.reported:
            return
        if len(queue.reported) < self.config.unknown_names_reported:
            queue.reported[class_.name] = None
            self.effects.events.append(("unknown_task", {"queue": queue.name, "name": class_.name}))

    def recheck(self, queue: Queue) -> None:
        """Lists and takes off the classes of a queue whose consumers changed, and tells of unknown names."""
        queue.recheck(self.now)
        for class_ in queue.classes():
            if class_.unknown_since is None:
                self.patience.forget(class_)
        if queue.lines:
            for class_ in queue.unknown():
                self.report_unknown(queue, class_)
        elif queue.ready:
            self.watch_for_consumer(queue)

    def enqueue(self, task: Task) -> None:
        """Makes a task ready, at the end of its queue."""
        self.sequence += 1
        task.sequence = self.sequence
        self._into(task)
        queue = self.queue_for(task.queue)
        class_ = queue.class_for(task.name, task.priority)
        task.name = class_.name
        class_.ready.append(task)
        queue.added(class_, task.priority, 1)
        self.arrived(queue)
        if not class_.known:
            self.report_unknown(queue, class_)

    def put_back(self, task: Task) -> None:
        """Makes a task that was leased ready again, at its old place."""
        self._into(task)
        queue = self.queue_for(task.queue)
        class_ = queue.put_back(task)
        self.deadlines.rearm(task)
        self.arrived(queue)
        if not class_.known:
            self.report_unknown(queue, class_)

    def _into(self, task: Task) -> None:
        task.stage = QUEUED
        task.since = self.now
        task.owner = NOBODY
        self.stages[QUEUED] += 1
        self.touch(task)

    def hold(self, task: Task, stage: int, due: int, wall: bool) -> None:
        """Keeps a task in SCHEDULED or RETRY until it is due."""
        task.stage = stage
        task.since = self.now
        task.owner = NOBODY
        self.stages[stage] += 1
        self.touch(task)
        self.queue_for(task.queue).scheduled += 1
        self.deadlines.hold(task, due, wall)

    def leave(self, task: Task) -> None:
        """Takes a task out of the stage that it is in; what follows puts it into another."""
        stage = task.stage
        self.stages[stage] -= 1
        queue = self.queues[task.queue]
        if stage == QUEUED:
            task.stage = UNKNOWN
            empty_class = queue.discard(task)
            if empty_class is not None:
                self.patience.forget(empty_class)
        elif stage in (LEASED, STARTED):
            queue.leased -= 1
        else:
            queue.scheduled -= 1

    def vacate(self, task: Task) -> None:
        """Takes a task that no worker has out of its queue, which may be its last one."""
        self.leave(task)
        queue = self.queues[task.queue]
        if not queue.ready:
            self.served(queue)
        self.retire(queue)

    def wall_time(self, time: int, *, wall: bool) -> int:
        """The wall clock's milliseconds at a time in nanoseconds, of broker time unless `wall`."""
        return (time if wall else time - self.now + self.wall) // MS

    def note(self, task: Task, event: str, *belongs: object) -> None:
        """Notes an event of a task that is not final, before what it changes is changed."""
        self.memory += note(task, self.wall_ms, event, *belongs)
        self.touch(task)

    def finish(
        self,
        task: Task,
        stage: int,
        result: int = NO_HANDLE,
        size: int = 0,
        ending: Ending | None = None,
    ) -> None:
        """Makes a task that has left its stage final; one that did not succeed has an ending.

        Whoever watches it is told, and its result is kept for as long as it asked. What may run again
        keeps its body; dead letters keep everything until they are asked for. A SUCCESS is for the caller
        to tell of, in `Effects.completed`.
        """
        freed = self.effects.freed
        self.memory -= task.overhead + task.size + task.result_size
        if task.unusual is not None:
            self._settle(task.unusual)
        if task.result != NO_HANDLE:
            freed.append(task.result)
        keep_ms = RESULT_EXPIRES_MS_DEFAULT
        options = task.options
        if options is not None:
            keep_ms = options.get(_RESULT_EXPIRES_MS, keep_ms)
            if result != NO_HANDLE and stage <= FAILURE and options.get(_IGNORE_RESULT):
                freed.append(result)
                result, size = NO_HANDLE, 0
        if stage == SUCCESS:
            freed.append(task.handle)
            task.handle = NO_HANDLE
            task.size = 0
            if options is not None:
                task.shed_options()
        else:
            self.touch(task)
        task.stage = stage
        task.since = self.now
        task.ended = self.wall_ms
        task.ending = ending
        task.owner = NOBODY
        self.stages[stage] += 1
        task.result = result
        task.result_size = size
        if task.times is not None:
            self.deadlines.forget(task)
        if stage == DEAD:
            task.kept = NOT_KEPT
            self.sequence += 1
            self.parked.add(task, self.sequence)
            self.memory += task.weight()
        else:
            self.results.keep(task, self.now + keep_ms * MS)
        if task.id in self.watchers:
            self._push(task)

    def _settle(self, unusual: Unusual) -> None:
        """Keeps of what is unusual about a task that has become final only its past."""
        self.memory -= unusual.bytes
        unusual.early = False
        unusual.called_off = None

    def _push(self, task: Task) -> None:
        view = self.view(task)
        numbers = self.watchers.pop(task.id)
        self.charges.bytes -= len(numbers) * watch_bytes(task.id)
        for number in numbers:
            del self.sessions[number].watching[task.id]
            self.pushes.setdefault(number, []).append(view)
        self.results.mark_read(task)

    def view(self, task: Task, info: dict[int, Any] | None = None) -> View:
        """A task's state as it is now."""
        result = task.result if task.stage in _WITH_RESULT else NO_HANDLE
        failure: tuple[str, str | None] | None = None
        ending = task.ending if SUCCESS <= task.stage < EVICTED else None
        if ending is not None and ending.kind is not None:
            failure = ending.kind, ending.reason if result == NO_HANDLE else None
        return View(task.id, task.stage, None if result == NO_HANDLE else result, failure, task.name, info)

    def forget(self, tasks: Iterable[Task]) -> None:
        """Drops final tasks from the tables; their ids are remembered for a while."""
        ids = []
        for task in tasks:
            del self.tasks[task.id]
            self.stages[task.stage] -= 1
            task.stage = UNKNOWN
            ids.append(task.id)
        if ids:
            self.forgotten.add(ids, self.now)
            self.counters["forgotten"] += len(ids)
            self.effects.forgotten.append((self.now, ids))

    def trim(self) -> None:
        """Drops results, records and dead letters that their budgets have no room for."""
        over = self.parked.over()
        if over:
            self._give_up(over)
        evicted, dropped = self.results.trim(self.effects.freed)
        for task in evicted:
            self._evict(task)
        self.counters["evicted"] += len(evicted)
        self.effects.evicted += [task.id for task in evicted]
        self.forget(dropped)

    def _give_up(self, tasks: list[Task]) -> None:
        """Makes the records of finished tasks of the oldest dead letters: nobody came for them."""
        for task in tasks:
            self.parked.remove(task)
            self.memory -= task.weight()
            keep_ms = (task.options or {}).get(_RESULT_EXPIRES_MS, RESULT_EXPIRES_MS_DEFAULT)
            empty(task, self.effects.freed)
            self._evict(task)
            self.results.keep(task, self.now + keep_ms * MS)
            self.touch(task)
        self.counters["dead_dropped"] += len(tasks)
        told = {"count": len(tasks), "limit": self.parked.limit}
        self.effects.events.append(("dead_dropped", told))

    def _evict(self, task: Task) -> None:
        self.stages[task.stage] -= 1
        self.stages[EVICTED] += 1
        task.stage = EVICTED

    @property
    def taken(self) -> int:
        """Bytes of the memory limit that are taken: by tasks, and by what else is charged."""
        return self.memory + self.charges.counted

    def affords(self, weight: int) -> bool:
        """Whether what is charged besides tasks may grow by so much."""
        counted = self.charges.counted_with(weight)
        return counted == 0 or self.memory + counted <= self.config.memory_limit

    @property
    def task_room(self) -> int:
        """What tasks may take before one more task without a body is refused."""
        return self.full_mark - self.charges.counted - TASK_OVERHEAD

    @property
    def full_mark(self) -> int:
        """Bytes of tasks above which nothing more is taken."""
        return self.config.memory_limit * FULL_PERCENT // 100

    def crowded_by(self, more: int) -> bool:
        """Whether so many more tasks would be over the limit of tasks."""
        limit = self.config.tasks_limit
        return limit is not None and self.unfinished + more > limit

    @property
    def unfinished(self) -> int:
        """Tasks that are not final; right at any time, while `stages` lags behind within a PUBLISH."""
        return len(self.tasks) - sum(self.stages[SUCCESS:])

    def mark(self) -> None:
        """Closes or opens the publishers' windows by what tasks take."""
        taken, limit = self.taken * 100, self.config.memory_limit
        self.closed = taken > limit * OPEN_PERCENT if self.closed else taken >= limit * CLOSED_PERCENT
        if not self.closed or self.taken + self.refused <= self.full_mark:
            # What does not fit into an empty broker either says nothing about its memory.
            self.refused = 0
