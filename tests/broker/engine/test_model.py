"""The engine against a simple model of it: dictionaries, searched from end to end.

The model does not say which of several consumers gets a task; it checks that whoever got it may have it,
that no task was passed over, and that nothing is left lying that somebody waits for.
"""

from dataclasses import dataclass, field

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from chervil.protocol import FINAL, Outcome, RetryOption, Stage, TaskOption
from chervil_broker.engine.task import NO_HANDLE, TASK_OVERHEAD
from tests.broker.engine.rig import HOUR, MS, SECOND, Rig

MEMORY_LIMIT = 30 * TASK_OVERHEAD
RESULTS_LIMIT = 24 * TASK_OVERHEAD
WAITING = (Stage.SCHEDULED, Stage.QUEUED, Stage.RETRY)
HELD = (Stage.LEASED, Stage.STARTED)

# Few of each, and one of them mostly: what goes wrong goes wrong among neighbours.
queues = st.sampled_from(["a", "a", "a", "b"])
names = st.sampled_from(["add", "add", "mail", "x", "y"])
priorities = st.sampled_from([0, 0, 0, 9])
knowledge = st.sampled_from([None, None, ["add"], ["mail"], []])
soon = st.integers(0, 3000)
picks = st.integers(0, 1000)
times = st.one_of(
    st.just({}),
    st.just({}),
    st.fixed_dictionaries({}, optional={"delay_ms": soon, "expires_ms": soon}),
    st.fixed_dictionaries({}, optional={"due_at": soon, "expires_at": soon}),
)
new_tasks = st.tuples(names, queues, priorities, times, st.integers(1, 3), st.booleans(), st.integers(0, 900))

#: (queue, priority, size of the body) of a retry, where it changes them.
retry_changes = st.tuples(st.none() | queues, st.none() | priorities, st.none() | st.integers(0, 500))


@dataclass
class Known:
    """A task as the model has it; times are (deadline, by the wall clock)."""

    name: str
    queue: str
    priority: int
    limit: int
    ignore: bool
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


@dataclass
class Consumer:
    queues: list[str] = field(default_factory=list)
    names: list[str] | None = None
    limit: int = 0
    delivered: int = 0

    def takes(self, task):
        return task.queue in self.queues and (self.names is None or task.name in self.names)


class EngineMachine(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.rig = Rig(MEMORY_LIMIT, RESULTS_LIMIT)
        self.tasks: dict[str, Known] = {}
        self.consumers: dict[int, Consumer] = {}
        self.watched: dict[str, None] = {}
        self.pushed: list[str] = []
        self.order = 0
        self.published = 0

    def pick(self, number, *stages):
        """Some task that is in one of these stages, or None."""
        found = [id_ for id_, task in self.tasks.items() if task.stage in stages]
        return found[number % len(found)] if found else None

    def enqueue(self, task):
        self.order += 1
        task.stage, task.order, task.holder, task.due = Stage.QUEUED, self.order, None, None

    def put_back(self, task):
        task.stage, task.holder = Stage.QUEUED, None

    def finish(self, id_, stage, result=None, completed=False):
        task = self.tasks[id_]
        task.stage, task.holder, task.due, task.body = stage, None, None, NO_HANDLE
        task.result = None if task.ignore else result
        task.completed = completed
        if id_ in self.watched:
            del self.watched[id_]
            self.pushed.append(id_)

    def memory(self):
        size = self.sizes
        return sum(
            TASK_OVERHEAD + size[task.body] + size.get(task.result, 0)
            for task in self.tasks.values()
            if task.stage not in FINAL
        )

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

    @initialize(credit=st.integers(1, 6))
    def first_worker(self, credit):
        self.new_worker(["a", "b"], None, credit)

    @rule(batch=st.lists(new_tasks, min_size=1, max_size=5), again=st.none() | picks)
    def publish(self, batch, again):
        # Handles that are freed in passing are still wanted for their sizes.
        self.settle()
        rows, expected = [], []
        for index, (name, queue, priority, given, limit, ignore, size) in enumerate(batch):
            options = self.wire_times(given) | {16: limit} | ({10: True} if ignore else {})
            id_ = f"t{self.published}"
            if again is not None and index == 0 and self.tasks:
                id_ = list(self.tasks)[again % len(self.tasks)]
            self.published += 1
            row = self.rig.row(id_, name, queue, priority, options, size)
            rows.append(row)
            if id_ in self.tasks:
                expected.append([index, "DUPLICATE"])
            elif self.memory() + TASK_OVERHEAD + size > MEMORY_LIMIT:
                expected.append([index, "FULL"])
            else:
                task = self.tasks[id_] = Known(name, queue, priority, limit, ignore, row[5])
                due = self.set_times(task, options)
                self.enqueue(task)
                if due is not None:
                    task.stage, task.due = Stage.SCHEDULED, due
        confirm = self.rig.publish(*rows)
        assert [row[:2] for row in confirm.exceptions or []] == expected
        assert confirm.accepted == len(rows) - sum(code == "FULL" for _, code in expected)

    @rule(chosen=st.lists(queues, min_size=1, max_size=3), known=knowledge, credit=st.integers(0, 9))
    def another_worker(self, chosen, known, credit):
        self.new_worker(chosen, known, credit)

    def new_worker(self, chosen, known, credit):
        session = self.rig.worker(*chosen, tasks=known, credit=credit)
        self.consumers[session] = Consumer(list(chosen), known, credit)

    @precondition(lambda self: self.consumers)
    @rule(pick=picks, chosen=st.lists(queues, max_size=3), known=knowledge)
    def resubscribe(self, pick, chosen, known):
        session, consumer = self.consumer(pick)
        self.rig.subscribe(session, *chosen, tasks=known)
        consumer.queues, consumer.names = chosen, known

    @precondition(lambda self: self.consumers)
    @rule(pick=picks, change=st.integers(-3, 9))
    def credit(self, pick, change):
        session, consumer = self.consumer(pick)
        consumer.limit = max(0, consumer.limit + change)
        self.rig.engine.credit(session, consumer.limit)

    def consumer(self, pick):
        session = list(self.consumers)[pick % len(self.consumers)]
        return session, self.consumers[session]

    @rule(pick=picks)
    def start(self, pick):
        id_ = self.pick(pick, Stage.LEASED)
        if id_ is not None:
            task = self.tasks[id_]
            self.rig.engine.started(task.holder, [[id_, task.lease]])
            task.stage = Stage.STARTED

    @rule(
        pick=picks,
        outcome=st.sampled_from([Outcome.SUCCESS, Outcome.FAILURE, Outcome.RELEASE, Outcome.LOST]),
        size=st.none() | st.integers(0, 3 * TASK_OVERHEAD),
    )
    def complete(self, pick, outcome, size):
        id_ = self.pick(pick, *HELD)
        if id_ is None:
            return
        task = self.tasks[id_]
        handle = None if size is None else self.rig.body(size)
        completed = self.rig.complete(task.holder, (id_, task.lease, outcome.value, handle, size or 0, None))
        assert completed.exceptions is None
        if outcome in (Outcome.SUCCESS, Outcome.FAILURE):
            self.finish(id_, Stage[outcome.name], handle, completed=True)
        elif outcome is Outcome.RELEASE:
            self.put_back(task)
        else:
            self.lose(id_, handle, completed=True)

    def lose(self, id_, result=None, completed=False):
        task = self.tasks[id_]
        task.attempts += 1
        if task.attempts >= task.limit:
            self.finish(id_, Stage.DEAD, result, completed)
        else:
            task.flagged = True
            self.put_back(task)

    @rule(pick=picks, given=times, changes=retry_changes, cause=st.booleans())
    def retry(self, pick, given, changes, cause):
        queue, priority, body = changes
        id_ = self.pick(pick, *HELD)
        if id_ is None:
            return
        task = self.tasks[id_]
        options = self.wire_times(given)
        result = self.rig.body(20) if cause else None
        holder, lease = task.holder, task.lease
        due = self.set_times(task, options)
        if queue is not None:
            options[RetryOption.QUEUE.value] = task.queue = queue
        if priority is not None:
            options[RetryOption.PRIORITY.value] = task.priority = priority
        if body is not None:
            task.body = self.rig.body(body)
            options[RetryOption.BODY.value] = (task.body, body)
        row = (id_, lease, Outcome.RETRY.value, result, 20 if cause else 0, options or None)
        assert self.rig.complete(holder, row).exceptions is None
        task.retries += 1
        task.result = result
        self.enqueue(task)
        if due is not None:
            task.stage, task.due = Stage.RETRY, due

    @precondition(lambda self: self.consumers)
    @rule(pick=picks, task_pick=picks, lease_off=st.integers(-1, 1))
    def complete_out_of_turn(self, pick, task_pick, lease_off):
        session, _ = self.consumer(pick)
        ids = [*self.tasks, "nobody"]
        id_ = ids[task_pick % len(ids)]
        task = self.tasks.get(id_)
        lease = max(0, (task.lease if task else 0) + lease_off)
        if task is not None and task.holder == session and task.lease == lease:
            return
        verdict = 1 if task is not None and task.completed and task.lease == lease else 2
        row = (id_, lease, Outcome.SUCCESS.value, self.rig.body(10), 10, None)
        assert self.rig.complete(session, row).exceptions == [[0, verdict]]

    @precondition(lambda self: self.consumers)
    @rule(pick=picks)
    def close(self, pick):
        session, _ = self.consumer(pick)
        self.rig.engine.close(session)
        del self.consumers[session]
        for id_, task in self.tasks.items():
            if task.holder != session:
                continue
            if task.stage is Stage.STARTED:
                self.lose(id_)
            else:
                task.flagged = True
                self.put_back(task)

    @rule(
        ns=st.sampled_from([0, MS, SECOND, 3 * SECOND, 25 * HOUR]),
        wall=st.sampled_from([None, 0, -HOUR, HOUR]),
    )
    def time_passes(self, ns, wall):
        self.rig.advance(ns, wall)

    @rule(chosen=st.lists(queues, max_size=2))
    def purge(self, chosen):
        self.rig.engine.purge(self.rig.publisher, 1, chosen)
        gone = [
            id_
            for id_, task in self.tasks.items()
            if task.stage in WAITING and (not chosen or task.queue in chosen)
        ]
        assert self.rig.engine._state.effects.replies[-1][1].value == len(gone)
        for id_ in gone:
            self.finish(id_, Stage.REVOKED)

    @rule(pick=picks)
    def watch(self, pick):
        if not self.tasks:
            return
        id_ = list(self.tasks)[pick % len(self.tasks)]
        self.rig.engine.watch(self.rig.publisher, 1, [id_])
        _, _, (view,) = self.rig.engine._state.effects.statuses.pop()
        assert view.stage == self.tasks[id_].stage
        if view.stage not in FINAL:
            self.watched[id_] = None

    @rule(pick=picks)
    def unwatch(self, pick):
        if self.watched:
            id_ = list(self.watched)[pick % len(self.watched)]
            self.rig.engine.unwatch(self.rig.publisher, [id_])
            del self.watched[id_]

    @rule()
    def settle(self):
        """Pumps, and compares what was done with what had to be."""
        effects = self.rig.pump()
        for record in effects.records:
            if record[0] in ("due", "expire", "evict", "forget"):
                getattr(self, f"record_{record[0]}")(record[1])
        for task in self.tasks.values():
            assert not (task.stage in WAITING and self.passed(task.expires)), "should have expired"
            assert not (task.stage in (Stage.SCHEDULED, Stage.RETRY) and self.passed(task.due)), "is due"
        self.check_grants(effects.grants)
        told = [view.id for _, request, views in effects.statuses if request is None for view in views]
        assert sorted(told) == sorted(self.pushed)
        self.pushed = []
        self.check_books()

    def record_expire(self, ids):
        for id_ in ids:
            assert self.tasks[id_].stage in WAITING
            assert self.passed(self.tasks[id_].expires)
            self.finish(id_, Stage.EXPIRED)

    def record_due(self, ids):
        for wall in (False, True):
            dues = [self.tasks[id_].due[0] for id_ in ids if self.tasks[id_].due[1] == wall]
            assert dues == sorted(dues)
        for id_ in ids:
            assert self.passed(self.tasks[id_].due)
            self.enqueue(self.tasks[id_])

    def record_evict(self, ids):
        for id_ in ids:
            task = self.tasks[id_]
            assert task.stage in FINAL
            assert task.result is not None
            task.stage, task.result = Stage.EVICTED, None

    def record_forget(self, ids):
        for id_ in ids:
            assert self.tasks.pop(id_).stage in FINAL

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
        for consumer in self.consumers.values():
            if consumer.delivered < consumer.limit:
                waiting = [t for t in self.tasks.values() if t.stage is Stage.QUEUED and consumer.takes(t)]
                assert not waiting, "a task lies there and somebody waits for it"

    def check_books(self):
        stats = self.rig.engine.stats()
        stages = [task.stage.name for task in self.tasks.values()]
        assert stats["tasks"] == {
            stage.name: stages.count(stage.name) for stage in Stage if stage.name in stages
        }
        assert stats["memory"]["bytes"] == self.memory() <= MEMORY_LIMIT + 2000
        kept = [task for task in self.tasks.values() if task.stage in FINAL]
        results = sum(TASK_OVERHEAD + self.sizes.get(task.result, 0) for task in kept)
        assert stats["memory"]["results"] == results <= RESULTS_LIMIT
        handles = [task.body for task in self.tasks.values() if task.stage not in FINAL]
        handles += [task.result for task in self.tasks.values() if task.result is not None]
        assert sorted(self.rig.live) == sorted(handles)
        for queue in stats["queues"]:
            own = [task.stage for task in self.tasks.values() if task.queue == queue["name"]]
            assert queue["ready"] == own.count(Stage.QUEUED)
            assert queue["leased"] == own.count(Stage.LEASED) + own.count(Stage.STARTED)
            assert queue["scheduled"] == own.count(Stage.SCHEDULED) + own.count(Stage.RETRY)
            assert queue["consumers"] == sum(queue["name"] in c.queues for c in self.consumers.values())

    @invariant()
    def every_task_is_in_its_stage(self):
        for id_, task in self.rig.engine._state.tasks.items():
            assert task.stage == self.tasks[id_].stage
        assert len(self.rig.engine._state.tasks) == len(self.tasks)

    def teardown(self):
        """Everything comes to an end, and nothing is left."""
        for session in list(self.consumers):
            self.rig.engine.close(session)
        self.rig.engine.purge(self.rig.publisher, 1, [])
        self.rig.advance(50 * HOUR)
        self.rig.pump()
        state = self.rig.engine._state
        assert (state.memory, state.results.bytes, len(state.deadlines), state.queues) == (0, 0, 0, {})
        assert (self.rig.live, state.tasks, state.watchers) == ({}, {}, {})


TestEngineAgainstModel = EngineMachine.TestCase
TestEngineAgainstModel.settings = settings(
    max_examples=300,
    stateful_step_count=50,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
