"""A simple model of the engine: dictionaries, searched from end to end, and how they compare with it.

It does not say which of several consumers gets a task; it checks that whoever got it may have it, that
no task was passed over, and that nothing is left lying that somebody waits for.
"""

from dataclasses import dataclass, field

from chervil.protocol import FINAL, Stage, TaskOption
from chervil_broker.engine.charges import (
    CLASS_BYTES,
    LEVEL_BYTES,
    QUEUE_BYTES,
    options_bytes,
    text_bytes,
    watch_bytes,
)
from chervil_broker.engine.completing import SENT_BACK_MAX_NS, SENT_BACK_NS
from chervil_broker.engine.remembering import ID_BYTES, REVOKED_ID_BYTES
from chervil_broker.engine.task import NO_HANDLE, TASK_OVERHEAD, Task
from tests.broker.engine.rig import MS, SECOND, Rig

MEMORY_LIMIT = 40 * TASK_OVERHEAD
RESULTS_LIMIT = 36 * TASK_OVERHEAD
DEDUP_IDS = 20
REVOKED_IDS = 3
#: Fields of a task that no journal is told of: whether somebody was given the result, and the journal's own.
PASSING = ("read", "home")
INVENTORY = 5
WAITING = (Stage.SCHEDULED, Stage.QUEUED, Stage.RETRY)
HELD = (Stage.LEASED, Stage.STARTED)
HELD_UNTIL = (Stage.SCHEDULED, Stage.RETRY)


@dataclass
class Known:
    """A task as the model has it; times are (deadline, by the wall clock)."""

    name: str
    queue: str
    priority: int
    limit: int
    options: dict[int, object]
    body: int
    order: int = 0
    stage: Stage = Stage.QUEUED
    due: tuple[int, bool] | None = None
    expires: tuple[int, bool] | None = None
    lease: int = 0
    attempts: int = 0
    retries: int = 0
    flagged: bool = False
    holder: int | None = None
    completed: bool = False
    result: int | None = None
    early: bool = False
    called_off: bool = False
    #: Its place among the dead letters.
    parked: int = 0
    #: How often it was rejected to be queued again.
    sent_back: int = 0

    @property
    def ignore(self):
        return bool(self.options.get(10))


@dataclass
class Consumer:
    queues: list[str] = field(default_factory=list)
    names: list[str] | None = None
    limit: int = 0
    delivered: int = 0
    held: bool = False
    #: The broker time at which it is closed, while it has no connection.
    grace: int | None = None
    #: The newest COMPLETE: sequence and rows.
    last: tuple[int, list[tuple]] | None = None

    def takes(self, task):
        return task.queue in self.queues and (self.names is None or task.name in self.names)


def everything(task):
    """All that is kept of a task and outlives the broker, as values of its own."""
    told = {slot: getattr(task, slot, None) for slot in Task.__slots__ if slot not in PASSING}
    times, past = task.times, task.unusual
    told["times"] = times and (times.due, times.due_wall, times.expires, times.expires_wall)
    told["unusual"] = past and (
        *past.events,
        past.dropped,
        past.bytes,
        past.early,
        past.called_off,
        past.sent_back,
    )
    return told


def revoked_bytes(id_):
    return REVOKED_ID_BYTES + text_bytes("publisher")


class Model:
    """What the engine should hold, and the moves of a task."""

    RIG = Rig

    def __init__(self):
        super().__init__()
        self.rig = self.RIG(
            MEMORY_LIMIT,
            RESULTS_LIMIT,
            dedup_ids=DEDUP_IDS,
            revoked_ids=REVOKED_IDS,
            inventory=INVENTORY,
            park_unknown_ns=20 * SECOND,
        )
        self.memory_limit, self.results_limit = MEMORY_LIMIT, RESULTS_LIMIT
        self.tasks_limit: int | None = None
        self.forgotten: list[str] = []
        self.revoked: list[str] = []
        self.told_forgotten: list[str] = []
        self.cancels: list[tuple[int, str, int]] = []
        self.tasks: dict[str, Known] = {}
        self.consumers: dict[int, Consumer] = {}
        self.watched: dict[str, None] = {}
        self.pushed: list[str] = []
        self.order = 0
        self.published = 0
        #: All tasks of the engine as they were at the last pump, by id.
        self.shadow: dict[str, dict[str, object]] = {}

    def pick(self, number, *stages):
        """Some task that is in one of these stages, or None."""
        found = [id_ for id_, task in self.tasks.items() if task.stage in stages]
        return found[number % len(found)] if found else None

    def enqueue(self, task):
        self.order += 1
        task.stage, task.order, task.holder, task.due = Stage.QUEUED, self.order, None, None

    def put_back(self, id_):
        task = self.tasks[id_]
        task.early = False
        if task.called_off:
            self.finish(id_, Stage.REVOKED)
        else:
            task.stage, task.holder = Stage.QUEUED, None

    def send_back(self, task):
        """It was rejected to be queued again: it is held first, and for longer each time."""
        task.stage, task.flagged = Stage.RETRY, True
        task.due = self.rig.now + min(SENT_BACK_NS * 2**task.sent_back, SENT_BACK_MAX_NS), False
        task.sent_back += 1

    def finish(self, id_, stage, result=None, completed=False):
        task = self.tasks[id_]
        task.stage, task.holder, task.due = stage, None, None
        task.early = task.called_off = False
        if stage is Stage.SUCCESS:
            task.body = NO_HANDLE
        task.result = None if task.ignore and stage in (Stage.SUCCESS, Stage.FAILURE) else result
        task.completed = completed
        if stage is Stage.DEAD:
            self.order += 1
            task.parked = self.order
        if id_ in self.watched:
            del self.watched[id_]
            self.pushed.append(id_)

    def weight(self, *stages):
        """What tasks in these stages weigh; of their past the engine's own word is taken."""
        size = self.sizes
        weight = 0
        for id_, task in self.tasks.items():
            if task.stage not in stages:
                continue
            real = self.rig.engine._state.tasks[id_]
            past = real.weight() - TASK_OVERHEAD - real.size - real.result_size
            assert (past > 0) >= (real.unusual is not None and bool(real.unusual.events))
            assert real.overhead == TASK_OVERHEAD, "short names are covered"
            weight += TASK_OVERHEAD + past + size.get(task.result, 0)
            if task.body != NO_HANDLE:
                weight += size[task.body] + options_bytes(real.options)
        return weight

    def memory(self):
        return self.weight(*set(Stage) - FINAL, Stage.DEAD)

    def forget(self, id_):
        task = self.tasks.pop(id_)
        self.forgotten.append(id_)
        self.remember_within_the_limit()
        return task

    def remember_within_the_limit(self):
        limit = min(DEDUP_IDS, self.results_limit // 4 // ID_BYTES)
        self.forgotten = self.forgotten[max(0, len(self.forgotten) - limit) :]

    def crowded(self):
        """No task more is taken."""
        unfinished = sum(task.stage not in FINAL for task in self.tasks.values())
        return self.tasks_limit is not None and unfinished >= self.tasks_limit

    @property
    def sizes(self):
        return self.rig.live

    def deadline(self, options, relative, absolute):
        if relative in options:
            return self.rig.now + options[relative] * MS, False
        return (options[absolute] * MS, True) if absolute in options else None

    def passed(self, moment):
        return moment is not None and moment[0] <= (self.rig.wall if moment[1] else self.rig.now)

    def wire_times(self, given):
        options = {}
        for name, value in given.items():
            absolute = name in ("due_at", "expires_at")
            options[TaskOption[name.upper()].value] = value + (self.rig.wall // MS if absolute else 0)
        return options

    def set_times(self, task, options):
        due = self.deadline(options, TaskOption.DELAY_MS, TaskOption.DUE_AT)
        task.expires = self.deadline(options, TaskOption.EXPIRES_MS, TaskOption.EXPIRES_AT) or task.expires
        return None if due is None or self.passed(due) else due

    def held(self, stages):
        return [
            id_
            for id_, task in self.tasks.items()
            if task.stage in stages and self.consumers[task.holder].grace is None
        ]

    def lose(self, id_, result=None, completed=False):
        task = self.tasks[id_]
        task.attempts += 1
        if task.attempts >= task.limit:
            self.finish(id_, Stage.DEAD, result, completed)
            return
        task.flagged = True
        self.put_back(id_)
        task.completed = completed and task.stage is Stage.REVOKED

    def end_session(self, session):
        """What becomes of the leases of a session that is gone."""
        del self.consumers[session]
        for id_, task in self.tasks.items():
            if task.holder != session:
                continue
            if task.early:
                task.attempts += task.stage is Stage.STARTED
                self.finish(id_, Stage.FAILURE)
            elif task.stage is Stage.STARTED:
                self.lose(id_)
            else:
                task.flagged = task.flagged or not task.options.get(12)
                self.put_back(id_)

    def follow(self, effects):
        """Does what the engine did by itself: timers fired, and what there was no room for went."""
        real = {task.id: task for task in effects.changed}
        for id_ in [id_ for id_, task in self.tasks.items() if task.stage in WAITING]:
            if self.passed(self.tasks[id_].expires):
                assert real[id_].ending.stage == Stage.EXPIRED
                self.finish(id_, Stage.EXPIRED)
        due = [id_ for id_, task in self.tasks.items() if task.stage in HELD_UNTIL and self.passed(task.due)]
        for wall in (False, True):
            places = [(real[id_].sequence, self.tasks[id_]) for id_ in due if self.tasks[id_].due[1] == wall]
            times = [task.due[0] for _, task in sorted(places, key=lambda place: place[0])]
            assert times == sorted(times)
        for id_ in sorted(due, key=lambda id_: real[id_].sequence):
            self.enqueue(self.tasks[id_])
        parked = [
            id_
            for id_, task in self.tasks.items()
            if task.stage is Stage.QUEUED and id_ in real and self.ended(real[id_]) == Stage.DEAD
        ]
        for id_ in sorted(parked, key=lambda id_: real[id_].sequence):
            task = self.tasks[id_]
            assert not any(consumer.takes(task) for consumer in self.consumers.values())
            self.finish(id_, Stage.DEAD)
        self.follow_evictions(effects)

    def ended(self, task):
        return None if task.stage in (*WAITING, *HELD) or task.ending is None else task.ending.stage

    def follow_evictions(self, effects):
        parked = sorted((task.parked, id_) for id_, task in self.tasks.items() if task.stage is Stage.DEAD)
        given_up = [id_ for _, id_ in parked if self.gave_up(effects, id_)]
        assert given_up == [id_ for _, id_ in parked[: len(given_up)]], "the oldest go"
        for id_ in effects.evicted:
            task = self.tasks[id_]
            assert task.stage in FINAL
            assert (task.result, task.body) != (None, NO_HANDLE)
        for id_ in (*given_up, *effects.evicted):
            task = self.tasks[id_]
            task.stage, task.result, task.body = Stage.EVICTED, None, NO_HANDLE
        for id_ in [id_ for _, ids in effects.forgotten for id_ in ids]:
            if id_ in self.told_forgotten:
                self.told_forgotten.remove(id_)
            else:
                assert self.forget(id_).stage in FINAL

    def gave_up(self, effects, id_):
        return any(task.id == id_ and task.handle == NO_HANDLE for task in effects.changed)

    def check_that_changes_are_told(self, effects):
        """No task is another than at the last pump without a word of it."""
        tasks = self.rig.engine._state.tasks
        told = {*effects.changed}
        for _, _, some in (*effects.published, *effects.completed):
            told.update(some)
        for _, some in effects.grants:
            told.update(some)
        ids = {*effects.evicted, *(id_ for _, some in effects.forgotten for id_ in some)}
        before, self.shadow = self.shadow, {id_: everything(task) for id_, task in tasks.items()}
        for id_ in (*before, *(id_ for id_ in tasks if id_ not in before)):
            if before.get(id_) != self.shadow.get(id_):
                assert id_ in ids or tasks[id_] in told, f"a change of {id_} is told nowhere"

    def check_grants(self, grants):
        granted_ids = {wire.id for _, tasks in grants for wire in tasks}
        for session, granted in grants:
            consumer = self.consumers[session]
            places: dict[str, list[tuple[int, int]]] = {}
            for wire in granted:
                task = self.tasks[wire.id]
                assert task.stage is Stage.QUEUED
                assert consumer.takes(task)
                task.stage, task.holder, task.lease = Stage.LEASED, session, task.lease + 1
                consumer.delivered += 1
                assert (wire.lease, wire.redelivered) == (task.lease, task.flagged)
                assert (wire.attempts, wire.retries) == (task.attempts, task.retries)
                assert (wire.name, wire.queue, wire.priority) == (task.name, task.queue, task.priority)
                assert wire.handle == task.body
                places.setdefault(task.queue, []).append((-task.priority, task.order))
            assert consumer.delivered <= consumer.limit
            assert not consumer.held
            assert sum(task.holder == session for task in self.tasks.values()) <= INVENTORY
            for queue, taken in places.items():
                assert taken == sorted(taken)
                left = [
                    (-task.priority, task.order)
                    for id_, task in self.tasks.items()
                    if id_ not in granted_ids
                    and task.stage is Stage.QUEUED
                    and task.queue == queue
                    and consumer.takes(task)
                ]
                assert not left or min(left) > max(taken), "a task was passed over"
        for session, consumer in self.consumers.items():
            leases = sum(task.holder == session for task in self.tasks.values())
            if consumer.delivered < consumer.limit and not consumer.held and leases < INVENTORY:
                waiting = [t for t in self.tasks.values() if t.stage is Stage.QUEUED and consumer.takes(t)]
                assert not waiting, "a task lies there and somebody waits for it"

    def check_charges(self):
        """What is charged besides tasks is what is there, recounted."""
        state = self.rig.engine._state
        charged = state.subscriptions.bytes + sum(map(revoked_bytes, self.revoked))
        charged += sum(watch_bytes(id_) * len(sessions) for id_, sessions in state.watchers.items())
        for queue in state.queues.values():
            charged += QUEUE_BYTES + text_bytes(queue.name) + LEVEL_BYTES * len(queue.levels)
            charged += sum(CLASS_BYTES + text_bytes(class_.name) for class_ in queue.classes())
        assert state.charges.bytes == charged
        watched = [
            class_ for queue in state.queues.values() for class_ in queue.classes() if class_.parking_timer
        ]
        assert {class_.parking_timer for class_ in watched} == set(state.patience._classes)
        assert all(state.patience.ends(class_) is not None for class_ in watched)
        alone = [name for name, queue in state.queues.items() if queue.ready and not queue.lines]
        assert sorted(state.unserved) == sorted(name for name in alone if not state.queues[name].warned)

    def check_books(self):
        stats = self.rig.engine.stats()
        stages = [task.stage.name for task in self.tasks.values()]
        assert stats["tasks"] == {
            stage.name: stages.count(stage.name) for stage in Stage if stage.name in stages
        }
        assert stats["memory"]["bytes"] == self.memory()
        assert stats["memory"]["other"] == 0
        self.check_charges()
        assert stats["memory"]["dead"] == self.weight(Stage.DEAD) <= self.memory_limit // 4
        assert stats["memory"]["results"] == self.weight(*FINAL - {Stage.DEAD}) <= self.results_limit
        assert stats["dedup"]["ids"] == len(self.forgotten)
        assert list(self.rig.engine._state.revoked_ids.by) == self.revoked
        full = self.crowded() or self.memory() + TASK_OVERHEAD > self.memory_limit * 95 // 100
        assert (stats["publishing"] == "full") >= full
        assert self.rig.engine.memory_short >= (self.memory() * 100 >= self.memory_limit * 80)
        assert stats["suspended"] == sum(c.grace is not None for c in self.consumers.values())
        handles = [task.body for task in self.tasks.values() if task.body != NO_HANDLE]
        handles += [task.result for task in self.tasks.values() if task.result is not None]
        assert sorted(self.rig.live) == sorted(handles)
        rows, _ = self.rig.engine.dead(None, 1000)
        parked = sorted((task.parked, id_) for id_, task in self.tasks.items() if task.stage is Stage.DEAD)
        assert [row["id"] for row in rows] == [id_ for _, id_ in parked]
        for id_, task in self.tasks.items():
            story, _ = self.rig.engine.history(id_)
            assert (story["stage"], story["attempts"]) == (task.stage.name, task.attempts)
            assert (story["events"][-1]["event"] == "ended") == (task.stage in FINAL)
            times = [event["at_ms"] for event in story["events"] if "at_ms" in event]
            assert len(times) == len(story["events"]) <= 64
        for queue in stats["queues"]:
            own = [task.stage for task in self.tasks.values() if task.queue == queue["name"]]
            assert queue["ready"] == own.count(Stage.QUEUED)
            assert queue["leased"] == own.count(Stage.LEASED) + own.count(Stage.STARTED)
            assert queue["scheduled"] == own.count(Stage.SCHEDULED) + own.count(Stage.RETRY)
            assert queue["consumers"] == sum(queue["name"] in c.queues for c in self.consumers.values())
