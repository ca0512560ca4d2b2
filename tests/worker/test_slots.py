from collections import Counter

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from chervil_worker.slot import LONG_RUN_NS
from chervil_worker.slots import DEPTH_MAX, RESPAWN_FIRST_NS, RESPAWN_MAX_NS, Slots
from chervil_worker.tasks import Task

LATER = LONG_RUN_NS + 1


def tasks(count: int) -> list[Task]:
    return [Task(bytes(16), 1, f"t{n}", b"") for n in range(count)]


def ready_slots(count: int) -> Slots:
    slots = Slots(count)
    for index in range(count):
        slots.ready(index)
    return slots


def sent(assigned: list[tuple[int, list[Task]]]) -> dict[int, list[str]]:
    return {index: [task.name for task in some] for index, some in assigned}


def deepen(slots: Slots, index: int = 0) -> None:
    """Short runs until the slot is as deep as it gets."""
    while slots.credit() - slots._delivered < DEPTH_MAX:
        slots.deliver(tasks(1))
        ((_, (task,)),) = slots.assign(0)
        slots.answered(index, task.number, 0)


def test_credit_starts_with_one_task_a_slot_even_before_its_child_is_there():
    assert Slots(3).credit() == 3


def test_nothing_is_sent_to_a_slot_that_is_not_ready():
    slots = Slots(1)
    slots.deliver(tasks(1))
    assert slots.assign(0) == []
    slots.ready(0)
    assert sent(slots.assign(0)) == {0: ["t0"]}


def test_credit_counts_from_the_beginning():
    slots = ready_slots(1)
    slots.deliver(tasks(1))
    ((_, (task,)),) = slots.assign(0)
    assert slots.credit() == 1
    slots.answered(0, task.number, LATER)
    assert slots.credit() == 2


def test_depth_doubles_with_short_runs_up_to_its_limit():
    slots = ready_slots(1)
    depths = []
    for _ in range(7):
        slots.deliver(tasks(1))
        ((_, (task,)),) = slots.assign(0)
        slots.answered(0, task.number, LONG_RUN_NS)
        depths.append(slots.capacity)
    assert depths == [2, 4, 8, 16, 32, 32, 32]


def test_depth_falls_to_one_after_a_long_run():
    slots = ready_slots(1)
    deepen(slots)
    slots.deliver(tasks(1))
    ((_, (task,)),) = slots.assign(0)
    slots.answered(0, task.number, LATER)
    assert slots.capacity == 1


def test_least_loaded_slot_comes_first():
    slots = ready_slots(2)
    deepen(slots)
    slots.deliver(tasks(3))
    assert sent(slots.assign(0)) == {0: ["t0", "t2"], 1: ["t1"]}


def test_refused_tasks_wait_for_the_slots_next_answer():
    slots = ready_slots(1)
    deepen(slots)
    slots.deliver(tasks(3))
    ((_, some),) = slots.assign(0)
    slots.refused(0, some[1:])
    assert slots.assign(0) == []
    slots.answered(0, some[0].number, 1)
    assert sent(slots.assign(1)) == {0: ["t1", "t2"]}


def test_refusal_of_everything_does_not_block_a_slot_that_will_never_answer():
    slots = ready_slots(1)
    slots.deliver(tasks(1))
    ((_, some),) = slots.assign(0)
    slots.refused(0, some)
    assert sent(slots.assign(0)) == {0: ["t0"]}


def test_slot_is_overdue_once():
    slots = ready_slots(1)
    slots.deliver(tasks(1))
    slots.assign(0)
    assert slots.overdue(LONG_RUN_NS) == []
    assert slots.overdue(LATER) == [0]
    head = slots.took_back(0, [], LATER)
    assert head is not None
    assert head.name == "t0"
    assert slots.overdue(2 * LATER) == []


def test_no_check_is_due_while_nothing_runs_or_all_is_known():
    slots = ready_slots(1)
    assert slots.next_check() is None
    slots.deliver(tasks(1))
    slots.assign(7)
    assert slots.next_check() == 7 + LATER
    slots.took_back(0, [], 7 + LATER)
    assert slots.next_check() is None


def test_what_lies_behind_a_long_run_goes_to_others_and_the_rest_is_surplus():
    slots = ready_slots(2)
    deepen(slots)
    slots.deliver(tasks(5))
    assigned = dict(slots.assign(0))
    slots.answered(1, assigned[1][0].number, LATER)  # a long run: depth 1
    unread = [task.number for task in assigned[0][1:]]
    slots.took_back(0, unread, LATER)
    slots.assign(LATER)
    assert [task.name for task in slots.surplus()] == ["t3", "t4"]
    assert slots.surplus() == []
    assert slots.credit() == slots._delivered


def test_child_that_does_not_begin_comes_after_the_others():
    slots = ready_slots(2)
    slots.deliver(tasks(1))
    ((index, (task,)),) = slots.assign(0)
    assert slots.took_back(index, [task.number], LATER) is None
    assert sent(slots.assign(LATER)) == {1 - index: ["t0"]}


def test_answer_to_what_was_never_sent_is_none():
    assert ready_slots(1).answered(0, 99, 0) is None


def test_death_loses_the_task_that_was_taken_and_no_other():
    slots = ready_slots(1)
    deepen(slots)
    slots.deliver(tasks(3))
    ((_, some),) = slots.assign(0)
    lost, mark, delay = slots.died(0, [task.number for task in some[1:]], 1)
    assert [task.name for task in lost] == ["t0"]
    assert mark is None
    assert delay == 0
    assert [task.name for task in slots.surplus()] == ["t2"]  # one place: the new child's
    slots.ready(0)
    assert sent(slots.assign(2)) == {0: ["t1"]}


def test_children_that_take_no_task_are_replaced_ever_later():
    slots = Slots(1)
    delays = []
    for _ in range(7):
        delays.append(slots.died(0, [], 0).delay_ns)
        assert slots.capacity == 0
        assert slots.credit() == 0
        slots.starting(0)
    assert delays[:3] == [RESPAWN_FIRST_NS, 2 * RESPAWN_FIRST_NS, 4 * RESPAWN_FIRST_NS]
    assert delays[-1] == RESPAWN_MAX_NS
    slots.ready(0)
    slots.deliver(tasks(1))
    slots.assign(0)
    assert slots.died(0, [], 0).delay_ns == 0
    assert slots.died(0, [], 0).delay_ns == RESPAWN_FIRST_NS


def test_draining_takes_nothing_new_and_keeps_what_runs():
    slots = ready_slots(1)
    slots.deliver(tasks(2))
    ((_, (running,)),) = slots.assign(0)
    slots.drain()
    assert slots.draining
    assert slots.credit() == 2
    assert [task.name for task in slots.surplus()] == ["t1"]
    assert not slots.idle
    slots.answered(0, running.number, 1)
    assert slots.idle


def test_new_session_forgets_the_backlog_and_starts_counting_again():
    slots = ready_slots(1)
    slots.deliver(tasks(3))
    ((_, (running,)),) = slots.assign(0)
    assert slots.new_session() == 2
    assert running.session != slots.session
    assert slots.credit() == 0
    slots.answered(0, running.number, LATER)
    assert slots.credit() == 1


def early_task(name: str = "early") -> Task:
    task = Task(bytes(16), 1, name, b"")
    task.solo = True
    return task


def test_slot_is_kept_for_an_early_task_and_claimed_for_when_it_is_idle():
    slots = ready_slots(1)
    deepen(slots)
    slots.deliver(tasks(1))
    ((_, (running,)),) = slots.assign(0)
    slots.deliver([early_task()])
    assert slots.assign(0) == []
    assert slots.to_claim() == []
    assert slots.credit() == slots.delivered
    slots.answered(0, running.number, 1)
    ((index, task),) = slots.to_claim()
    assert (index, task.name) == (0, "early")
    assert slots.to_claim() == [], "told once"
    assert slots.claiming(0) is task
    assert slots.claimed(0, 2) is task
    assert slots.running == 1


def test_early_tasks_that_no_slot_has_room_for_are_surplus():
    slots = ready_slots(1)
    deepen(slots)
    slots.deliver([early_task("a"), early_task("b")])
    slots.assign(0)
    assert [task.name for task in slots.surplus()] == ["b"]


def test_slot_is_kept_no_more_once_its_task_is_a_long_one():
    slots = ready_slots(1)
    deepen(slots)
    slots.deliver(tasks(1))
    slots.assign(0)
    slots.deliver([early_task()])
    slots.assign(0)
    slots.took_back(0, [], LATER)
    assert [task.name for task in slots.surplus()] == ["early"]


def test_refused_early_task_is_claimed_again():
    slots = ready_slots(1)
    slots.deliver([early_task()])
    slots.assign(0)
    slots.to_claim()
    task = slots.claimed(0, 0)
    slots.refused(0, [task])
    slots.assign(0)
    assert slots.to_claim() == [(0, task)]


def test_withdrawn_tasks_are_no_longer_held():
    slots = Slots(1)
    slots.deliver([*tasks(2), early_task()])
    (gone,) = slots.withdraw({1})
    assert gone.name == "t0"
    assert [task.name for task in slots.unstarted()] == ["t1", "early"]
    slots.ready(0)
    slots.assign(0)
    assert [task.name for task in slots.withdraw({3})] == ["early"]
    assert slots.to_claim() == []


def test_look_that_comes_early_leaves_a_slot_as_deep_as_it_was():
    slots = ready_slots(1)
    deepen(slots)
    slots.deliver(tasks(3))
    ((_, some),) = slots.assign(0)
    slots.took_back(0, [task.number for task in some[1:]], LONG_RUN_NS)
    assert sent(slots.assign(LONG_RUN_NS)) == {0: ["t1", "t2"]}


class EveryTaskEndsOnce(RuleBasedStateMachine):
    """Children of a simple model: each has a queue of unread packets and at most one task it runs."""

    @initialize(count=st.integers(1, 4))
    def start(self, count: int) -> None:
        self.slots = Slots(count)
        self.now = 0
        self.delivered = 0
        self.ends: Counter[int] = Counter()
        self.session_delivered = 0
        self.unread: list[list[int]] = [[] for _ in range(count)]
        self.running: list[int | None] = [None] * count
        self.alive = [False] * count

    def slot(self, data: st.DataObject) -> int:
        return data.draw(st.integers(0, len(self.alive) - 1))

    def settle(self) -> None:
        for index, some in self.slots.assign(self.now):
            assert self.alive[index]
            self.unread[index] += [task.number for task in some]
        for task in self.slots.surplus():
            self.ends[task.number] += 1

    @rule(data=st.data())
    def child_is_ready(self, data: st.DataObject) -> None:
        index = self.slot(data)
        if not self.alive[index]:
            self.slots.starting(index)
            self.slots.ready(index)
            self.alive[index] = True
        self.settle()

    @rule(more=st.integers(1, 40))
    def broker_delivers(self, more: int) -> None:
        more = min(more, self.slots.credit() - self.session_delivered)
        self.slots.deliver(tasks(more))
        self.delivered += more
        self.session_delivered += more
        self.settle()

    @rule(nanoseconds=st.sampled_from([1, LONG_RUN_NS // 2, LATER]))
    def time_passes(self, nanoseconds: int) -> None:
        self.now += nanoseconds
        for index in self.slots.overdue(self.now):
            taken, self.unread[index] = self.unread[index], []
            self.slots.took_back(index, taken, self.now)
        self.settle()

    @rule(data=st.data())
    def child_begins(self, data: st.DataObject) -> None:
        index = self.slot(data)
        if self.running[index] is None and self.unread[index]:
            self.running[index] = self.unread[index].pop(0)

    @rule(data=st.data())
    def child_answers(self, data: st.DataObject) -> None:
        index = self.slot(data)
        number = self.running[index]
        if number is not None:
            self.running[index] = None
            task = self.slots.answered(index, number, self.now)
            assert task is not None
            self.ends[number] += 1
        self.settle()

    @rule(data=st.data())
    def child_dies(self, data: st.DataObject) -> None:
        index = self.slot(data)
        if not self.alive[index]:
            return
        self.alive[index] = False
        unread, self.unread[index] = self.unread[index], []
        lost = self.slots.died(index, unread, self.now).lost
        expected = [] if self.running[index] is None else [self.running[index]]
        assert [task.number for task in lost] == expected
        self.running[index] = None
        for task in lost:
            self.ends[task.number] += 1
        self.settle()

    @rule(data=st.data())
    def socket_is_full(self, data: st.DataObject) -> None:
        index = self.slot(data)
        held = list(self.slots._slots[index].sent.values())
        refused = [task for task in held if task.number in self.unread[index]][1:]
        self.unread[index] = self.unread[index][:1]
        if refused:
            self.slots.refused(index, refused)

    @precondition(lambda self: not self.slots.draining)
    @rule()
    def connection_is_lost(self) -> None:
        for index in range(len(self.alive)):
            taken, self.unread[index] = self.unread[index], []
            self.slots.took_back(index, taken, self.now)
        before = {number for number in range(1, self.delivered + 1) if not self.ends[number]}
        forgotten = self.slots.new_session()
        gone = before - {number for number in self.running if number is not None}
        assert forgotten == len(gone)
        for number in gone:
            self.ends[number] += 1
        self.session_delivered = 0

    @rule()
    def drain(self) -> None:
        self.slots.drain()
        self.settle()

    @invariant()
    def no_task_ends_twice(self) -> None:
        if hasattr(self, "ends"):
            assert all(count == 1 for count in self.ends.values())

    @invariant()
    def no_task_is_forgotten(self) -> None:
        if hasattr(self, "ends"):
            held = self.slots.running + len(self.slots._backlog)
            assert held == self.delivered - len(self.ends)

    @invariant()
    def the_broker_is_never_asked_for_more_than_fits(self) -> None:
        if hasattr(self, "ends"):
            assert self.slots.credit() - self.session_delivered <= self.slots.capacity
            assert self.slots.running <= DEPTH_MAX * len(self.alive)

    def teardown(self) -> None:
        """Whatever happened before, everything ends when the children go on working."""
        if not hasattr(self, "ends"):
            return
        for index, alive in enumerate(self.alive):
            if not alive:
                self.slots.starting(index)
                self.slots.ready(index)
                self.alive[index] = True
        for _ in range(self.delivered + 1):
            self.settle()
            for index in range(len(self.alive)):
                if self.running[index] is None and self.unread[index]:
                    self.running[index] = self.unread[index].pop(0)
                if (number := self.running[index]) is not None:
                    self.running[index] = None
                    assert self.slots.answered(index, number, self.now) is not None
                    self.ends[number] += 1
        assert self.slots.idle
        assert sorted(self.ends) == list(range(1, self.delivered + 1))


TestEveryTaskEndsOnce = EveryTaskEndsOnce.TestCase
TestEveryTaskEndsOnce.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
