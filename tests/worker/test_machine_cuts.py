"""The machine against a broker, a connection and children of a model: anything may happen in any order.

The connection may break between any two messages, either way. Whatever happens, each lease is ended once,
nothing is lost, nobody is charged for what did not begin, and what runs at most once begins at most once.
"""

from collections import Counter, deque

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from chervil.protocol import Message, Outcome, TaskOption
from chervil.protocol.messages import (
    Cancel,
    Complete,
    Completed,
    Credit,
    Deliver,
    Ok,
    Resume,
    Started,
    Subscribe,
)
from tests.worker.broker import row
from tests.worker.drive import LATER, SECOND, Drive, welcome

Lease = tuple[bytes, int]
QUEUED, LEASED, DONE = "queued", "leased", "done"


class Task:
    def __init__(self, number: int, *, early: bool) -> None:
        self.number = number
        self.id = number.to_bytes(16, "big")
        self.early = early
        self.stage = QUEUED
        self.lease = 0
        self.attempts = 0
        self.revoked = False
        #: The lease under which it was claimed at most once; the last one that was told as started.
        self.claimed = 0
        self.told = 0


class Broker:
    """As much of a broker as a worker's session sees."""

    def __init__(self) -> None:
        self.tasks: dict[bytes, Task] = {}
        self.session = 1
        self.highest = 0
        self.credit = self.delivered = 0
        self.subscribed = False
        self.ended: Counter[Lease] = Counter()
        self.inventory: list[list] = []
        #: Set by the model: leases that a child has begun.
        self.begun: set[Lease] = set()

    def in_force(self, id_: bytes, lease: int) -> Task | None:
        task = self.tasks[id_]
        return task if task.stage == LEASED and task.lease == lease else None

    def connect(self) -> None:
        self.credit = self.delivered = 0
        self.subscribed = False
        self.inventory = []

    def forget_session(self) -> None:
        """The grace is over: leases go back."""
        self.session += 1
        self.highest = 0
        for task in self.tasks.values():
            if task.stage == LEASED:
                task.stage = DONE if task.claimed == task.lease or task.revoked else QUEUED

    def deliver(self, most: int) -> list[Message]:
        ready = [task for task in self.tasks.values() if task.stage == QUEUED]
        ready = ready[: max(0, min(most, self.credit - self.delivered))] if self.subscribed else []
        rows = []
        for task in ready:
            task.stage = LEASED
            task.lease += 1
            options = {int(TaskOption.EARLY_ACK): True} if task.early else None
            delivery = row(task.number, "add", lease=task.lease, options=options)
            delivery[2] = any((task.id, lease) in self.begun for lease in range(1, task.lease))
            rows.append([*delivery, None])
        self.delivered += len(rows)
        return [Deliver(rows)] if rows else []

    def hear(self, message: Message) -> list[Message]:
        if isinstance(message, Complete):
            return [self._complete(message)]
        if isinstance(message, Started):
            return self._started(message)
        if isinstance(message, Credit):
            self.credit = message.limit
        elif isinstance(message, Subscribe):
            self.subscribed = True
            return [Ok(message.request)]
        elif isinstance(message, Resume):
            self.inventory += message.inventory
            if not message.more:
                self._reconcile()
            return [Ok(message.request)]
        return []

    def _reconcile(self) -> None:
        named = {(id_, lease): state for id_, lease, state in self.inventory}
        for task in self.tasks.values():
            key = (task.id, task.lease)
            if task.stage != LEASED:
                continue
            if key not in named:
                assert key not in self.begun, "a task that was begun is missing from the inventory"
                task.stage = QUEUED
            elif named[key] == 0:
                task.claimed = 0

    def _started(self, message: Started) -> list[Message]:
        count = 0
        gone = []
        for id_, lease, *early in message.tasks:
            task = self.in_force(id_, lease)
            if task is None:
                gone.append([id_, lease, None])
            else:
                count += 1
                task.told = lease
                if early and early[0]:
                    task.claimed = lease
        answer: list[Message] = [Cancel(gone)] if gone else []
        if message.request is not None:
            answer.append(Ok(message.request, count))
        return answer

    def _complete(self, message: Complete) -> Completed:
        if message.sequence <= self.highest:
            return Completed(message.sequence, [[at, 1] for at in range(len(message.tasks))])
        assert message.sequence == self.highest + 1, "a COMPLETE is missing"
        self.highest = message.sequence
        exceptions = []
        for at, completion in enumerate(message.tasks):
            id_, lease, outcome, _, _, options = [*completion, None, None, None][:6]
            task = self.in_force(id_, lease)
            if task is None:
                exceptions.append([at, 2])
            else:
                self._apply(task, outcome, options)
        return Completed(message.sequence, exceptions or None)

    def _apply(self, task: Task, outcome: int, options: dict | None) -> None:
        key = (task.id, task.lease)
        self.ended[key] += 1
        again = QUEUED if not task.revoked else DONE
        if outcome == Outcome.RELEASE:
            claimed = bool(options and options[2])
            assert claimed == (key in self.begun), "released as if begun, or as if not"
            task.stage = DONE if claimed and task.claimed == task.lease else again
        elif outcome == Outcome.LOST:
            assert key in self.begun, "charged, and was not begun"
            task.attempts += 1
            task.stage = DONE if task.claimed == task.lease else again
        else:
            assert outcome == Outcome.REVOKED or key in self.begun
            assert outcome != Outcome.REVOKED or task.revoked
            task.stage = DONE


class AnyCutAnywhere(RuleBasedStateMachine):
    @initialize(count=st.integers(1, 3))
    def start(self, count: int) -> None:
        self.count = count
        self.drive = Drive(count)
        self.broker = Broker()
        self.up = False
        self.to_broker: deque[Message] = deque()
        self.to_link: deque[Message] = deque()
        self.published = 0
        self.deaths: Counter[bytes] = Counter()
        self.early_runs: Counter[bytes] = Counter()
        for early in (True, False, True, False):
            self.publish(3, early=early)
        self.connect()

    def after(self) -> None:
        """What the machine wants to say is on its way, if there is one."""
        for message in self.drive.sent:
            if isinstance(message, Resume):
                revoked = {
                    (row[0], row[1])
                    for row in self.drive.machine.outbox.untold()
                    if row[2] == Outcome.REVOKED
                }
                for id_, lease, state in message.inventory:
                    begun = (id_, lease) in self.broker.begun
                    assert state or not begun, "stated as unstarted, and is begun"
                    assert begun or not state or (id_, lease) in revoked, "stated as begun, and is not"
        if self.up:
            self.to_broker.extend(self.drive.sent)
        self.drive.sent.clear()

    # The broker and the connection

    @rule(count=st.integers(1, 20), early=st.booleans())
    def publish(self, count: int, early: bool) -> None:
        for _ in range(count):
            self.published += 1
            task = Task(self.published, early=early)
            self.broker.tasks[task.id] = task

    @precondition(lambda self: not self.up)
    @rule()
    def connect(self) -> None:
        self.broker.connect()
        session = bytes([self.broker.session])
        before = self.drive.machine.credentials
        resumed = before is not None and before[0] == session * 16
        if not resumed:
            # HELLO named no session that is kept: the one that it began last is over with it.
            self.broker.forget_session()
            session = bytes([self.broker.session])
        self.up = True
        self.drive.machine.welcomed(welcome(resumed=resumed, session=session))
        self.drive.turn()
        self.after()

    @precondition(lambda self: self.up)
    @rule()
    def cut(self) -> None:
        self.up = False
        self.to_broker.clear()
        self.to_link.clear()
        self.drive.lose()
        self.after()

    @precondition(lambda self: not self.up)
    @rule()
    def the_grace_is_over(self) -> None:
        self.broker.forget_session()

    @precondition(lambda self: self.up)
    @rule(most=st.integers(1, 40))
    def broker_delivers(self, most: int) -> None:
        self.to_link.extend(self.broker.deliver(most))

    @precondition(lambda self: self.to_broker)
    @rule(count=st.integers(1, 5))
    def broker_hears(self, count: int) -> None:
        for _ in range(min(count, len(self.to_broker))):
            self.to_link.extend(self.broker.hear(self.to_broker.popleft()))

    @precondition(lambda self: self.up)
    @rule(data=st.data(), signal=st.sampled_from([None, 15]))
    def somebody_revokes(self, data: st.DataObject, signal: int | None) -> None:
        leased = [task for task in self.broker.tasks.values() if task.stage == LEASED]
        if leased:
            self._revoke(data.draw(st.sampled_from(leased)), signal)

    def _revoke(self, task: Task, signal: int | None) -> None:
        task.revoked = True
        self.to_link.append(Cancel([[task.id, task.lease, signal]]))

    @precondition(lambda self: self.to_link)
    @rule(count=st.integers(1, 5))
    def link_hears(self, count: int) -> None:
        for _ in range(min(count, len(self.to_link))):
            self._hear(self.to_link.popleft())
        self.drive.turn()
        self.after()

    def _hear(self, message: Message) -> None:
        machine = self.drive.machine
        if isinstance(message, Deliver):
            machine.delivered(message.tasks, self.drive.now)
        elif isinstance(message, Completed):
            machine.completed(message)
        elif isinstance(message, Cancel):
            machine.cancelled(message.tasks)
        elif isinstance(message, Ok):
            machine.ok(message.request, message.value)

    # The children

    @rule(index=st.integers(0, 2))
    def child_begins(self, index: int) -> None:
        child = self.drive.children.get(index)
        if child is None or child.runs is not None or not child.unread:
            return
        task = self.drive.begin(index)
        assert isinstance(task.id, bytes)
        self.broker.begun.add((task.id, task.lease))
        if task.solo:
            assert self.broker.tasks[task.id].told == task.lease, "begun and the broker not told"
        if task.terms.early:
            assert self.broker.tasks[task.id].claimed == task.lease, "begun without a claim"
            self.early_runs[task.id] += 1

    @rule(index=st.integers(0, 2), read=st.booleans())
    def child_answers(self, index: int, read: bool) -> None:
        child = self.drive.children.get(index)
        if child is None or child.runs is None:
            return
        self.drive.answer(index)
        if read:
            self.drive.read(index)
            self.drive.turn()
        self.after()

    @rule(index=st.integers(0, 2))
    def child_dies(self, index: int) -> None:
        child = self.drive.children.get(index)
        if child is None:
            return
        if child.runs is not None and not child.signals:
            assert isinstance(child.runs.id, bytes)
            self.deaths[child.runs.id] += 1
        self.drive.die(index, child.signals[-1] if child.signals else 9)
        self.after()

    @rule(index=st.integers(0, 2))
    def child_is_replaced(self, index: int) -> None:
        if index < self.count and index not in self.drive.children:
            self.drive.child_is_ready(index)
            self.drive.turn()
            self.after()

    @rule(nanoseconds=st.sampled_from([1, LATER // 2, LATER, 6 * SECOND]))
    def time_passes(self, nanoseconds: int) -> None:
        self.drive.tick(nanoseconds)
        self.after()

    @rule(steps=st.lists(st.integers(0, 11), min_size=5, max_size=40))
    def things_take_their_course(self, steps: list[int]) -> None:
        """Many small steps at once: single ones seldom lead far."""
        for step in steps:
            if step == 0 and self.up:
                self.broker_delivers(7)
            elif step in (1, 2) and self.to_broker:
                self.broker_hears(1 if step == 1 else 5)
            elif step in (3, 4) and self.to_link:
                self.link_hears(1 if step == 3 else 5)
            elif step in (5, 6):
                for index in range(self.count):
                    self.child_begins(index)
                    if step == 6:
                        self.child_answers(index, read=index % 2 == 0)
            elif step == 7:
                for index in range(self.count):
                    self.child_answers(index, read=True)
            elif step == 8 and self.up:
                self.cut()
                self.connect()
            elif step in (9, 10) and self.up:
                leased = [task for task in self.broker.tasks.values() if task.stage == LEASED]
                if leased:
                    self._revoke(leased[len(steps) % len(leased)], 15 if step == 9 else None)
            elif step == 11 and len(steps) % 4 == 0:
                self.child_dies(0)
                self.child_is_replaced(0)

    # What holds

    @invariant()
    def no_lease_ends_twice(self) -> None:
        if hasattr(self, "broker"):
            assert all(count == 1 for count in self.broker.ended.values())

    @invariant()
    def only_deaths_are_charged(self) -> None:
        if hasattr(self, "broker"):
            for task in self.broker.tasks.values():
                assert task.attempts <= self.deaths[task.id]

    @invariant()
    def what_runs_at_most_once_does(self) -> None:
        if hasattr(self, "broker"):
            assert all(count == 1 for count in self.early_runs.values())

    @invariant()
    def broker_is_trusted(self) -> None:
        if hasattr(self, "broker"):
            assert self.drive.machine.hang_up is None

    def teardown(self) -> None:
        """When the connection holds and children work, every task comes to an end."""
        if not hasattr(self, "broker"):
            return
        if not self.up:
            self.connect()
        for index in range(self.count):
            self.child_is_replaced(index)
        for _ in range(10 * self.published + 50):
            if all(task.stage == DONE for task in self.broker.tasks.values()):
                break
            self.broker_delivers(40)
            self.broker_hears(len(self.to_broker))
            self.link_hears(len(self.to_link))
            for index in range(self.count):
                self.child_begins(index)
                self.child_answers(index, read=True)
            self.time_passes(LATER)
        assert {task.stage for task in self.broker.tasks.values()} <= {DONE}
        for _ in range(3):
            self.broker_hears(len(self.to_broker))
            self.link_hears(len(self.to_link))
        ours = [
            t for _, t in self.drive.machine.slots.sent() if t.session == self.drive.machine.slots.session
        ]
        assert ours == []
        assert self.drive.machine.outbox.unanswered == 0


TestAnyCutAnywhere = AnyCutAnywhere.TestCase
TestAnyCutAnywhere.settings = settings(max_examples=400, stateful_step_count=30, deadline=None)
