"""The engine against a simple model of it, in all orders in which things may happen: see model.py."""

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from chervil.protocol import FINAL, Outcome, RetryOption, Stage
from chervil.protocol.messages import Ok
from chervil_broker.engine.charges import options_bytes
from chervil_broker.engine.task import EVENT_BYTES, TASK_OVERHEAD
from tests.broker.engine.model import (
    HELD,
    INVENTORY,
    REVOKED_IDS,
    WAITING,
    Consumer,
    Known,
    Model,
    revoked_bytes,
)
from tests.broker.engine.rig import HOUR, MS, SECOND

#: Outcomes that are for later, and the one that has a rule of its own.
NOT_HERE = (Outcome.REPLACE, Outcome.IGNORE, Outcome.RETRY)

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
POLICIES: list[dict[int, object]] = [{}, {}, {10: True}, {12: True}, {14: True}]
policies = st.sampled_from(POLICIES)
new_tasks = st.tuples(names, queues, priorities, times, st.integers(1, 3), policies, st.integers(0, 900))

#: (queue, priority, size of the body) of a retry, where it changes them.
retry_changes = st.tuples(st.none() | queues, st.none() | priorities, st.none() | st.integers(0, 500))


class EngineMachine(Model, RuleBasedStateMachine):
    @initialize(credit=st.integers(1, 6))
    def first_worker(self, credit):
        self.new_worker(["a", "b"], None, credit)

    @rule(batch=st.lists(new_tasks, min_size=1, max_size=5), again=st.none() | picks)
    def publish(self, batch, again):
        # Handles that are freed in passing are still wanted for their sizes.
        self.settle()
        rows, expected, made = [], [], []
        memory = self.rig.engine.stats()["memory"]["bytes"]
        for index, (name, queue, priority, given, limit, policy, size) in enumerate(batch):
            options = self.wire_times(given) | {16: limit} | policy
            id_ = f"t{self.published}"
            known = [*self.tasks, *self.forgotten, *self.revoked, *self.revoked]
            if again is not None and index == 0 and known:
                id_ = known[again % len(known)]
            self.published += 1
            row = self.rig.row(id_, name, queue, priority, options, size)
            rows.append(row)
            if id_ in self.tasks or id_ in self.forgotten:
                expected.append([index, "DUPLICATE"])
            elif (
                self.crowded()
                or memory + TASK_OVERHEAD + size + options_bytes(options) > self.memory_limit * 95 // 100
            ):
                expected.append([index, "FULL"])
            else:
                task = self.tasks[id_] = Known(name, queue, priority, limit, options, row[5])
                memory += TASK_OVERHEAD + size + options_bytes(options)
                made.append(id_)
                due = self.set_times(task, options)
                self.enqueue(task)
                if due is not None:
                    task.stage, task.due = Stage.SCHEDULED, due
                    memory += EVENT_BYTES
        for id_ in made:
            if id_ in self.revoked:
                self.revoked.remove(id_)
                self.finish(id_, Stage.REVOKED)
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
        """Some consumer with a connection."""
        connected = [session for session, consumer in self.consumers.items() if consumer.grace is None]
        if not connected:
            self.new_worker(["a"], None, 2)
            connected = [max(self.consumers)]
        session = connected[pick % len(connected)]
        return session, self.consumers[session]

    def pick_held(self, pick, *stages):
        """Some task that a session with a connection has; it is made where there is none."""
        found = self.held(stages)
        if not found:
            self.publish([("add", "a", 0, {}, 1 + pick % 3, POLICIES[pick % len(POLICIES)], 10)], None)
            self.new_worker(["a", "b"], None, 2)
            self.settle()
            found = self.held(stages)
        return found[pick % len(found)] if found else None

    @precondition(lambda self: self.consumers)
    @rule(pick=picks, held=st.booleans())
    def hold(self, pick, held):
        session, consumer = self.consumer(pick)
        self.rig.engine.hold(session, held)
        consumer.held = held

    @rule(pick=picks, early=st.booleans(), asked=st.booleans(), lease_off=st.sampled_from([0, 0, 0, 1]))
    def start(self, pick, early, asked, lease_off):
        id_ = self.pick_held(pick, *HELD)
        if id_ is None:
            return
        task = self.tasks[id_]
        row = [id_, task.lease + lease_off, *([True] if early else [])]
        self.rig.engine.started(task.holder, [row], 5 if asked else None)
        if not lease_off:
            task.stage = Stage.STARTED
            task.early = task.early or early
        elif asked:
            self.cancels.append((task.holder, id_, task.lease + 1))
        if asked:
            assert self.reply() == Ok(5, 0 if lease_off else 1)

    def reply(self):
        return self.rig.engine._state.effects.replies[-1][1]

    @precondition(lambda self: self.consumers)
    @rule(pick=picks, grace=st.sampled_from([4 * SECOND, 40 * SECOND]))
    def suspend(self, pick, grace):
        session, consumer = self.consumer(pick)
        self.rig.engine.suspend(session, grace)
        consumer.grace = self.rig.now + grace
        consumer.queues, consumer.names, consumer.limit, consumer.delivered = [], None, 0, 0
        consumer.held = False

    @rule(pick=picks, states=st.lists(st.sampled_from([None, 0, 1]), min_size=INVENTORY, max_size=INVENTORY))
    def resume(self, pick, states):
        gone = [session for session, consumer in self.consumers.items() if consumer.grace is not None]
        if not gone:
            return
        session = gone[pick % len(gone)]
        self.rig.engine.resume(session)
        self.consumers[session].grace = None
        leases = [(id_, task) for id_, task in self.tasks.items() if task.holder == session]
        inventory, kept = [["nobody", 1, 1]], 0
        for (id_, task), state in zip(leases, states, strict=False):
            if state is None:
                inventory.append([id_, task.lease + 1, 1])
                self.put_back(id_)
                continue
            kept += 1
            inventory.append([id_, task.lease, state])
            task.stage = Stage.STARTED if state else Stage.LEASED
            task.early = task.early and bool(state)
            if task.called_off:
                self.cancels.append((session, id_, task.lease))
        self.rig.engine.reconcile(session, 6, inventory)
        assert self.reply() == Ok(6, kept)

    @precondition(lambda self: self.consumers)
    @rule(pick=picks)
    def repeat(self, pick):
        session, consumer = self.consumer(pick)
        if consumer.last is not None:
            sequence, rows = consumer.last
            again = [(*row[:3], self.rig.body(5), 5, None, None) for row in rows]
            completed = self.rig.complete(session, *again, sequence=sequence)
            assert completed.exceptions == [[index, 1] for index in range(len(rows))]

    def complete_one(self, session, row):
        completed = self.rig.complete(session, row)
        self.consumers[session].last = completed.sequence, [row]
        return completed.exceptions

    @rule(pick=picks, terminate=st.booleans(), unknown=st.integers(0, 9))
    def revoke(self, pick, terminate, unknown):
        ids = [*self.tasks, *self.forgotten]
        chosen = [ids[pick % len(ids)]] if ids else []
        chosen += [f"strange{unknown}", f"strange{unknown}"]
        self.rig.engine.revoke(self.rig.publisher, 1, chosen, terminate, 9)
        count = 0
        for id_ in dict.fromkeys(chosen):
            task = self.tasks.get(id_)
            if task is None and id_ not in self.forgotten:
                self.revoked = [*[one for one in self.revoked if one != id_], id_][-REVOKED_IDS:]
                count += 1
            elif task is not None and task.stage in WAITING:
                self.finish(id_, Stage.REVOKED)
                count += 1
            elif task is not None and task.stage in HELD:
                task.called_off = True
                count += 1
                if self.consumers[task.holder].grace is None:
                    self.cancels.append((task.holder, id_, task.lease))
        assert self.reply() == Ok(1, count)

    @rule(pick=picks)
    def rerun(self, pick):
        id_ = self.pick(pick, *FINAL)
        if id_ is None:
            return
        self.settle()
        task = self.tasks.get(id_)
        if task is None:
            return
        memory = self.rig.engine.stats()["memory"]["bytes"]
        weight = self.rig.engine._state.tasks[id_].weight()
        again = (
            task.stage in (Stage.FAILURE, Stage.DEAD, Stage.REVOKED, Stage.EXPIRED)
            and not self.crowded()
            and (task.stage is Stage.DEAD or memory + weight <= self.memory_limit * 95 // 100)
        )
        self.rig.engine.rerun(self.rig.publisher, 1, ["nobody", id_])
        assert self.reply() == Ok(1, int(again))
        if again:
            self.enqueue(task)
            task.attempts = task.retries = task.sent_back = 0
            task.flagged = task.completed = False
            task.result = task.expires = None

    @rule(pick=picks)
    def forget_some(self, pick):
        ids = list(self.tasks)
        if not ids:
            return
        id_ = ids[pick % len(ids)]
        final = self.tasks[id_].stage in FINAL
        self.rig.engine.forget(self.rig.publisher, 1, [id_, "nobody", id_])
        assert self.reply() == Ok(1, int(final))
        if final:
            self.forget(id_)
            self.told_forgotten.append(id_)

    @rule(
        pick=picks,
        outcome=st.sampled_from([*Outcome]).filter(lambda outcome: outcome not in NOT_HERE),
        size=st.none() | st.integers(0, 3 * TASK_OVERHEAD),
        twist=st.booleans(),
    )
    def complete(self, pick, outcome, size, twist):
        id_ = self.pick_held(pick, *HELD)
        if id_ is None:
            return
        task = self.tasks[id_]
        handle = None if size is None else self.rig.body(size)
        options = {2: twist} if outcome in (Outcome.RELEASE, Outcome.REJECT, Outcome.REVOKED) else None
        row = (id_, task.lease, outcome.value, handle, size or 0, options, None)
        assert self.complete_one(task.holder, row) is None
        if outcome in (Outcome.SUCCESS, Outcome.FAILURE):
            self.finish(id_, Stage[outcome.name], handle, completed=True)
        elif outcome is Outcome.REVOKED:
            self.finish(id_, Stage.EXPIRED if twist else Stage.REVOKED, handle, completed=True)
        elif outcome is Outcome.REJECT and not twist:
            self.finish(id_, Stage.DEAD, handle, completed=True)
        elif outcome is Outcome.RELEASE and twist and task.early:
            self.finish(id_, Stage.FAILURE, handle, completed=True)
        elif outcome is Outcome.LOST and (task.early or task.options.get(14)):
            task.attempts += 1
            self.finish(id_, Stage.FAILURE, handle, completed=True)
        elif outcome is Outcome.LOST:
            self.lose(id_, handle, completed=True)
        else:
            task.flagged = task.flagged or twist
            called_off = task.called_off
            self.put_back(id_)
            if called_off:
                task.completed = True
            elif outcome is Outcome.REJECT:
                self.send_back(task)

    @rule(pick=picks, given=times, changes=retry_changes, cause=st.booleans())
    def retry(self, pick, given, changes, cause):
        queue, priority, body = changes
        id_ = self.pick_held(pick, *HELD)
        if id_ is None:
            return
        task = self.tasks[id_]
        options = self.wire_times(given)
        result = self.rig.body(20) if cause else None
        holder, lease = task.holder, task.lease
        if task.called_off:
            row = (id_, lease, Outcome.RETRY.value, result, 20 if cause else 0, options or None, "why")
            assert self.complete_one(holder, row) is None
            self.finish(id_, Stage.REVOKED, completed=True)
            return
        due = self.set_times(task, options)
        if queue is not None:
            options[RetryOption.QUEUE.value] = task.queue = queue
        if priority is not None:
            options[RetryOption.PRIORITY.value] = task.priority = priority
        if body is not None:
            task.body = self.rig.body(body)
            options[RetryOption.BODY.value] = (task.body, body)
        row = (id_, lease, Outcome.RETRY.value, result, 20 if cause else 0, options or None, None)
        assert self.complete_one(holder, row) is None
        task.retries += 1
        task.flagged = task.early = False
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
        row = (id_, lease, Outcome.SUCCESS.value, self.rig.body(10), 10, None, None)
        assert self.complete_one(session, row) == [[0, verdict]]

    @precondition(lambda self: self.consumers)
    @rule(pick=picks)
    def close(self, pick):
        session, _ = self.consumer(pick)
        self.rig.engine.close(session)
        self.end_session(session)

    @rule(
        ns=st.sampled_from([0, MS, SECOND, 3 * SECOND, 30 * SECOND, 25 * HOUR]),
        wall=st.sampled_from([None, 0, -HOUR, HOUR]),
    )
    def time_passes(self, ns, wall):
        self.rig.advance(ns, wall)

    # In tasks without a body. Mostly there is room, or little would happen afterwards.
    @rule(
        memory=st.sampled_from([40, 40, 40, 8]),
        results=st.sampled_from([36, 36, 36, 5, 0]),
        tasks=st.sampled_from([None, None, 12, 3, 0]),
    )
    def set_limits(self, memory, results, tasks):
        self.memory_limit, self.results_limit = memory * TASK_OVERHEAD, results * TASK_OVERHEAD
        self.tasks_limit = tasks
        self.rig.engine.set_limits(self.memory_limit, self.results_limit, tasks)
        self.remember_within_the_limit()

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
        over = [s for s, c in self.consumers.items() if c.grace is not None and c.grace <= self.rig.now]
        assert sorted(effects.ended) == sorted(over)
        for session in effects.ended:
            self.end_session(session)
        self.follow(effects)
        told = [(session, *row[:2]) for session, rows in effects.cancels for row in rows]
        assert sorted(told) == sorted(self.cancels)
        self.cancels = []
        for task in self.tasks.values():
            assert not (task.stage in WAITING and self.passed(task.expires)), "should have expired"
            assert not (task.stage in (Stage.SCHEDULED, Stage.RETRY) and self.passed(task.due)), "is due"
        self.check_grants(effects.grants)
        self.check_that_changes_are_told(effects)
        told = [view.id for _, request, views in effects.statuses if request is None for view in views]
        assert sorted(told) == sorted(self.pushed)
        self.pushed = []
        self.check_books()

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
        self.rig.engine.forget(self.rig.publisher, 1, list(self.tasks))
        self.rig.advance(50 * HOUR)
        self.rig.pump()
        state = self.rig.engine._state
        assert (state.memory, state.results.bytes, len(state.deadlines), state.queues) == (0, 0, 0, {})
        assert (self.rig.live, state.tasks, state.watchers) == ({}, {}, {})
        assert (len(state.patience), state.unserved, state.subscriptions.bytes) == (0, {}, 0)
        assert state.charges.bytes == sum(map(revoked_bytes, self.revoked))


TestEngineAgainstModel = EngineMachine.TestCase
TestEngineAgainstModel.settings = settings(
    max_examples=400,
    stateful_step_count=50,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
