"""An engine with somebody around it: makes handles, keeps book of them, and moves the clocks."""

from chervil.protocol import Outcome, WireId
from chervil_broker.engine import Effects, Engine, EngineConfig

MS = 1_000_000
SECOND = 1_000 * MS
HOUR = 3_600 * SECOND
#: Wall clock at the start; far from broker time so that no test can mix them up.
EPOCH = 1_700_000_000 * SECOND


def changed(effects: Effects):
    """Ids of the tasks that changed in a way that no other list of the effects tells."""
    return [task.id for task in effects.changed]


class Rig:
    """Commands with what a test does not care about filled in. `pump` checks what may never happen."""

    def __init__(self, memory_limit=10**9, results_limit=10**9, **config):
        self.engine = Engine(EngineConfig(memory_limit, results_limit, **config))
        self.now = SECOND
        self.wall = EPOCH
        self.engine.tick(self.now, self.wall)
        self.sessions = 0
        self.requests = 0
        self.handle = 0
        self.completes: dict[int, int] = {}
        self.live: dict[int, int] = {}
        self.publisher = self.open("publisher")

    def open(self, name="session"):
        self.sessions += 1
        self.engine.open(self.sessions, name)
        return self.sessions

    def worker(self, *queues, tasks=None, credit=0, name="worker"):
        session = self.open(name)
        self.subscribe(session, *queues, tasks=tasks)
        if credit:
            self.engine.credit(session, credit)
        return session

    def subscribe(self, session, *queues, tasks=None):
        self.requests += 1
        self.engine.subscribe(session, self.requests, list(queues), tasks, 2, 77)

    def body(self, size=100):
        self.handle += 1
        self.live[self.handle] = size
        return self.handle

    def row(  # noqa: PLR0917 -- the row's fields, in their order
        self, id_: WireId, name="add", queue="q", priority=0, options=None, size=100
    ):
        return id_, name, queue, priority, options, self.body(size), size

    def publish(self, *rows):
        """Publishes rows, or ids; returns the CONFIRM."""
        self.requests += 1
        made = [self.row(row) if isinstance(row, str | bytes) else row for row in rows]
        self.engine.publish(self.publisher, self.requests, made)
        return self.engine._state.effects.replies[-1][1]

    def outcome(  # noqa: PLR0917 -- in the order of the row
        self, task, outcome, options=None, size=10, body=True, reason=None
    ):
        """A completion row for a granted task."""
        return (
            task.id,
            task.lease,
            outcome.value,
            self.body(size) if body else None,
            size if body else 0,
            options,
            reason,
        )

    def complete(self, session, *rows, sequence=None):
        """Sends a COMPLETE with the session's next sequence, or another; returns the COMPLETED."""
        if sequence is None:
            sequence = self.completes.get(session, 0) + 1
        self.completes[session] = max(sequence, self.completes.get(session, 0))
        self.engine.complete(session, sequence, list(rows))
        return self.engine._state.effects.replies[-1][1]

    def succeed(self, session, *tasks):
        return self.complete(session, *[self.outcome(task, Outcome.SUCCESS) for task in tasks])

    def advance(self, ns=0, wall=None):
        self.now += ns
        self.wall += ns if wall is None else wall
        self.engine.tick(self.now, self.wall)

    def pump(self) -> Effects:
        effects = self.engine.pump()
        shown = [view.handle for _, _, rows in effects.statuses for view in rows if view.handle is not None]
        for handle in shown + [task.handle for _, tasks in effects.grants for task in tasks]:
            assert handle in self.live, f"handle {handle} is shown after it was freed"
        for handle in effects.freed:
            assert self.live.pop(handle, None) is not None, f"handle {handle} freed twice"
        return effects

    def lease(self, *sessions):
        """Pumps; returns the tasks granted, to these sessions if any are named."""
        return [
            task
            for session, tasks in self.pump().grants
            if not sessions or session in sessions
            for task in tasks
        ]

    def ids(self, *sessions):
        return [task.id for task in self.lease(*sessions)]

    def view(self, id_):
        """What QUERY shows of one task now."""
        self.requests += 1
        self.engine.query(self.publisher, self.requests, [id_])
        return self.engine._state.effects.statuses.pop()[2][0]

    def stage(self, id_):
        return self.view(id_).stage
