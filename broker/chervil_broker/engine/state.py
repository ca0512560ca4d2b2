"""What the engine knows, and the few moves of a task that every command is made of."""

from collections.abc import Iterable
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Any

from chervil.protocol import Stage, TaskOption, WireId
from chervil.protocol.limits import BODY_DEFAULT
from chervil.protocol.vocabulary import RESULT_EXPIRES_MS_DEFAULT
from chervil_broker.engine.consumers import Session
from chervil_broker.engine.effects import Effects
from chervil_broker.engine.queues import Queue
from chervil_broker.engine.results import Results
from chervil_broker.engine.task import (
    DEAD,
    EVICTED,
    EXPIRED,
    FAILURE,
    LEASED,
    MS,
    NO_HANDLE,
    NOBODY,
    QUEUED,
    RETRY,
    REVOKED,
    STARTED,
    SUCCESS,
    TASK_OVERHEAD,
    UNKNOWN,
    Task,
    View,
)
from chervil_broker.engine.timers import Deadlines

_STAGES = max(Stage) + 1
_IGNORE_RESULT = TaskOption.IGNORE_RESULT.value
_RESULT_EXPIRES_MS = TaskOption.RESULT_EXPIRES_MS.value
_WITH_RESULT = (RETRY, SUCCESS, FAILURE, DEAD)
#: Failures that the broker itself writes, by stage; DEAD says more than one sentence.
_BROKERS_VERDICTS: dict[int, tuple[str, str | None]] = {
    EXPIRED: ("expired", "it expired before a worker started it"),
    REVOKED: ("revoked", "its queue was purged"),
}
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
    "evicted",
    "forgotten",
    "stale_completions",
    "duplicate_completions",
)


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """Limits of one engine."""

    #: Bytes of tasks that are not final, each with its overhead; over it publishes are refused.
    memory_limit: int
    #: Bytes of final tasks and their results; over it the oldest are dropped.
    results_limit: int
    #: Largest body that is taken, with its headers, in bytes.
    body_limit: int = BODY_DEFAULT
    #: How long a queue has ready tasks and no consumer before that is an event.
    unserved_warning_ns: int = 10_000_000_000
    #: Timers that fire in one pump: a million tasks due at once must not stop the broker for a second.
    timers_per_pump: int = 5_000
    #: Unknown task names that are reported for one queue: names come from outside.
    unknown_names_reported: int = 100
    #: Queues and workers that stats list.
    stats_rows: int = 1_000


class State:
    """The whole memory of the engine. Commands are functions over it."""

    def __init__(self, config: EngineConfig) -> None:
        self.config = config
        self.now = 0
        self.wall = 0
        #: Whether the records tell the present time yet.
        self.ticked = False
        self.sequence = 0
        self.memory = 0
        self.tasks: dict[WireId, Task] = {}
        self.queues: dict[str, Queue] = {}
        self.sessions: dict[int, Session] = {}
        self.deadlines = Deadlines()
        self.results = Results(config.results_limit)
        #: Sessions that watch a task, by its id.
        self.watchers: dict[WireId, list[int]] = {}
        #: Queues that may have a task for a waiting consumer, by name.
        self.active: dict[str, Queue] = {}
        #: Sessions that gained credit or queues since the last pump.
        self.woken: dict[int, Session] = {}
        #: (deadline, number, queue): when to warn that nobody consumes it.
        self.unserved: list[tuple[int, int, Queue]] = []
        self.unserved_number = 0
        #: Results to push, by session.
        self.pushes: dict[int, list[View]] = {}
        #: Tasks by stage.
        self.stages = [0] * _STAGES
        self.counters: dict[str, int] = dict.fromkeys(_COUNTERS, 0)
        #: Tasks granted in this pump, by session: one DELIVER batch each.
        self.granted: dict[int, list[Task]] = {}
        self.effects = Effects()

    def record(self, *record: object) -> None:
        """Adds a journal record, after the time if that has moved."""
        if not self.ticked:
            self.effects.records.append(("tick", self.now, self.wall))
            self.ticked = True
        self.effects.records.append(record)

    def queue_for(self, name: str) -> Queue:
        """The queue of that name, made on first use."""
        queue = self.queues.get(name)
        if queue is None:
            queue = self.queues[name] = Queue(name)
        return queue

    def retire(self, queue: Queue) -> None:
        """Forgets a queue with nothing in it and nobody at it: names come from outside."""
        if queue.unused:
            queue.unserved_since = None
            self.queues.pop(queue.name, None)

    def arrived(self, queue: Queue) -> None:
        """Ready tasks came into a queue: somebody may be waiting, or nobody is there."""
        if queue.lines:
            self.active[queue.name] = queue
        elif queue.unserved_since is None:
            self.watch_for_consumer(queue)

    def watch_for_consumer(self, queue: Queue) -> None:
        """Starts the time after which it is an event that nobody consumes a queue."""
        queue.unserved_since = self.now
        if not queue.unserved_timer:
            queue.unserved_timer = True
            self.unserved_number += 1
            deadline = self.now + self.config.unserved_warning_ns
            heappush(self.unserved, (deadline, self.unserved_number, queue))

    def warn_of_unserved(self) -> None:
        """Tells, once a queue, of those that have waited for a consumer long enough."""
        unserved = self.unserved
        while unserved and unserved[0][0] <= self.now:
            queue = heappop(unserved)[2]
            queue.unserved_timer = False
            since = queue.unserved_since
            if since is None or queue.warned:
                continue
            if since + self.config.unserved_warning_ns > self.now:
                queue.unserved_timer = True
                self.unserved_number += 1
                deadline = since + self.config.unserved_warning_ns
                heappush(unserved, (deadline, self.unserved_number, queue))
                continue
            queue.warned = True
            self.effects.events.append(
                ("queue_without_consumer", {"queue": queue.name, "ready": queue.ready})
            )

    def report_unknown(self, queue: Queue, name: str) -> None:
        """Tells once of a task name that no consumer of its queue knows."""
        if not queue.lines or name in queue.reported:
            return
        if len(queue.reported) < self.config.unknown_names_reported:
            queue.reported[name] = None
            self.effects.events.append(("unknown_task", {"queue": queue.name, "name": name}))

    def recheck(self, queue: Queue) -> None:
        """Lists and takes off the classes of a queue whose consumers changed, and tells of unknown names."""
        queue.recheck()
        if queue.lines:
            for name in queue.unknown_names(self.config.unknown_names_reported):
                self.report_unknown(queue, name)
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
            self.report_unknown(queue, class_.name)

    def put_back(self, task: Task) -> None:
        """Makes a task that was leased ready again, at its old place."""
        self._into(task)
        queue = self.queue_for(task.queue)
        class_ = queue.put_back(task)
        self.deadlines.rearm(task)
        self.arrived(queue)
        if not class_.known:
            self.report_unknown(queue, class_.name)

    def _into(self, task: Task) -> None:
        task.stage = QUEUED
        task.since = self.now
        task.owner = NOBODY
        self.stages[QUEUED] += 1

    def hold(self, task: Task, stage: int, due: int, wall: bool) -> None:
        """Keeps a task in SCHEDULED or RETRY until it is due."""
        task.stage = stage
        task.since = self.now
        task.owner = NOBODY
        self.stages[stage] += 1
        self.queue_for(task.queue).scheduled += 1
        self.deadlines.hold(task, due, wall)

    def leave(self, task: Task) -> None:
        """Takes a task out of the stage that it is in; what follows puts it into another."""
        stage = task.stage
        self.stages[stage] -= 1
        queue = self.queues[task.queue]
        if stage == QUEUED:
            task.stage = UNKNOWN
            queue.discard(task)
        elif stage in (LEASED, STARTED):
            queue.leased -= 1
        else:
            queue.scheduled -= 1

    def finish(self, task: Task, stage: int, result: int = NO_HANDLE, size: int = 0) -> None:
        """Makes a task that has left its stage final.

        Its body is freed, whoever watches it is told, and its result is kept for as long as it asked.
        """
        freed = self.effects.freed
        freed.append(task.handle)
        self.memory -= task.size + TASK_OVERHEAD + task.result_size
        if task.result != NO_HANDLE:
            freed.append(task.result)
        task.handle = NO_HANDLE
        task.size = 0
        task.stage = stage
        task.since = self.now
        task.owner = NOBODY
        self.stages[stage] += 1
        keep_ms = RESULT_EXPIRES_MS_DEFAULT
        options = task.options
        if options is not None:
            keep_ms = options.get(_RESULT_EXPIRES_MS, keep_ms)
            if result != NO_HANDLE and options.get(_IGNORE_RESULT):
                freed.append(result)
                result, size = NO_HANDLE, 0
        task.result = result
        task.result_size = size
        # Nothing asks for them any more, and a result may be kept for days.
        task.options = None
        if task.times is not None:
            self.deadlines.forget(task)
        self.results.keep(task, self.now + keep_ms * MS)
        if task.id in self.watchers:
            self._push(task)

    def _push(self, task: Task) -> None:
        view = self.view(task)
        for number in self.watchers.pop(task.id):
            del self.sessions[number].watching[task.id]
            self.pushes.setdefault(number, []).append(view)
        self.results.mark_read(task)

    def view(self, task: Task, info: dict[int, Any] | None = None) -> View:
        """A task's state as it is now."""
        stage = task.stage
        result = task.result if stage in _WITH_RESULT else NO_HANDLE
        failure: tuple[str, str | None] | None
        if stage == DEAD:
            text = f"worker {task.worker} was lost while it ran this task, attempt {task.attempts}"
            failure = "lost", text if result == NO_HANDLE else None
        else:
            failure = _BROKERS_VERDICTS.get(stage)
        return View(task.id, stage, None if result == NO_HANDLE else result, failure, task.name, info)

    def forget(self, tasks: Iterable[Task]) -> None:
        """Drops final tasks from the tables: their ids are UNKNOWN from here on."""
        ids = []
        for task in tasks:
            del self.tasks[task.id]
            self.stages[task.stage] -= 1
            task.stage = UNKNOWN
            ids.append(task.id)
        if ids:
            self.counters["forgotten"] += len(ids)
            self.record("forget", ids)

    def trim_results(self) -> None:
        """Drops results, and records, that their budget has no room for."""
        if self.results.bytes <= self.results.limit:
            return
        evicted, dropped = self.results.trim(self.effects.freed)
        for task in evicted:
            self.stages[task.stage] -= 1
            self.stages[EVICTED] += 1
            task.stage = EVICTED
        if evicted:
            self.counters["evicted"] += len(evicted)
            self.record("evict", [task.id for task in evicted])
        self.forget(dropped)
