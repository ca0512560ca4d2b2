"""Recovery in all orders in which things may happen: the machine of the engine's model, with a journal."""

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import invariant, rule

from chervil.protocol import FINAL
from chervil_broker.engine.task import NO_HANDLE
from chervil_broker.journal.records import SessionEnded, pack
from tests.broker.engine.model import everything
from tests.broker.engine.rig import SECOND
from tests.broker.engine.test_model import EngineMachine, picks
from tests.broker.journal.recorded import VHOST, RecordedRig


class JournalMachine(EngineMachine):
    RIG = RecordedRig

    @invariant()
    def time_goes_on(self):
        self.rig.advance(1)

    @rule(pick=picks)
    def copy(self, pick):
        self.settle()
        ids = list(self.tasks)
        if ids:
            self.rig.copy(ids[pick % len(ids) :][:3])

    @rule()
    def rotate(self):
        self.settle()
        self.rig.rotate()

    @rule()
    def drop_oldest(self):
        self.settle()
        self.rig.check()
        self.rig.drop_oldest()

    @rule(grace=st.sampled_from([4 * SECOND, 40 * SECOND]), loses=st.booleans(), reboots=st.booleans())
    def crash(self, grace, loses, reboots):
        """The model goes on with an engine that knows what the journal says."""
        self.settle()
        rig = self.rig
        rig.check()
        _, replay = rig.replayed()
        if reboots:
            rig.boot = f"after {rig.boot}"
            replay.begin(rig.boot)
            for task in self.tasks.values():
                task.flagged = task.flagged or task.stage not in FINAL
        sessions = [s for s in replay.sessions.values() if not loses or s.number == rig.publisher]
        self.take_over(replay, grace, sessions)
        self.forget_connections(grace)
        lost = list(self.consumers) if loses else []
        for number in lost:
            self.end_session(number)
            del rig.known[number]
        # Which of them was parked first is the engine's choice.
        for number, row in enumerate(rig.engine.dead(None, 1000)[0]):
            self.tasks[row["id"]].parked = number - 1000
        rig.write([rig.opening(), *[pack(SessionEnded(number)) for number in lost]])
        rig.frames[-1].picture = None  # what was lost is told with the next pump

    def take_over(self, replay, grace, sessions):
        """An engine of what was recovered, whose handles are those of the one before."""
        rig = self.rig
        for id_, task in replay.vhosts[VHOST].tasks.items():
            before = rig.engine.tasks[id_]
            assert (task.handle == NO_HANDLE, task.result == NO_HANDLE) == (
                before.handle == NO_HANDLE,
                before.result == NO_HANDLE,
            )
            task.handle, task.result = before.handle, before.result
        engine = rig.engine = rig.restored(replay, grace, sessions)
        self.shadow = {id_: everything(task) for id_, task in engine.tasks.items()}
        rig.engine.resume(rig.publisher)
        self.forgotten = list(engine.forgotten)
        self.revoked = list(engine.revoked_ids)
        rig.engine.tick(rig.now, rig.wall)

    def forget_connections(self, grace):
        self.watched = {}
        for consumer in self.consumers.values():
            consumer.grace = self.rig.now + grace
            consumer.queues, consumer.names, consumer.limit, consumer.delivered = [], None, 0, 0
            consumer.held = False

    def teardown(self):
        self.rig.check()
        super().teardown()


TestRecoveryAgainstModel = JournalMachine.TestCase
TestRecoveryAgainstModel.settings = settings(
    max_examples=400,
    phases=[Phase.generate],
    stateful_step_count=40,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
