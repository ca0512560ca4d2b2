"""SUBSCRIBE, CREDIT, the handing out of ready tasks, and STARTED."""

from typing import Any

from chervil.protocol import Code
from chervil.protocol.messages import Error, Ok
from chervil_broker.engine.consumers import Line, Session
from chervil_broker.engine.history import unusual
from chervil_broker.engine.queues import Queue
from chervil_broker.engine.state import State
from chervil_broker.engine.task import LEASED, QUEUED, STARTED, Task

#: Tasks that a consumer is given at a time, so that consumers are served in turn even where one has the
#: credit for all.
SLICE_MAX = 64


def subscribe(  # noqa: PLR0917 -- the fields of SUBSCRIBE, in their order
    state: State,
    session: int,
    request: int,
    queues: list[str],
    tasks: list[str] | None,
    concurrency: int,
    pid: int,
) -> None:
    """Makes a session consume just these queues; what it consumed before stays where it is refused."""
    consumer = state.sessions[session]
    queues = list(dict.fromkeys(queues))
    subscriptions = state.subscriptions
    if not subscriptions.admit(consumer, queues, tasks):
        said = (
            f"the queues and task names of all workers take {subscriptions.bytes} of {subscriptions.limit} "
            f"bytes, and these are too many more; subscribe to fewer, or {state.config.more_memory}"
        )
        state.effects.replies.append((session, Error(request, Code.FULL, said)))
        return
    unsubscribe(state, consumer)
    consumer.concurrency = concurrency
    consumer.pid = pid
    subscriptions.add(consumer, queues, tasks)
    for name in consumer.queues:
        _join(state, state.queue_for(name), consumer)
    wake(state, consumer)
    state.effects.replies.append((session, Ok(request)))


def _join(state: State, queue: Queue, consumer: Session) -> None:
    line = queue.lines.get(consumer.known)
    if line is None:
        line = queue.lines[consumer.known] = Line(consumer.known)
        state.recheck(queue)
    line.members += 1
    queue.consumers += 1
    state.served(queue)
    queue.warned = False


def unsubscribe(state: State, consumer: Session) -> None:
    """Takes a session out of the lines of its queues."""
    for name in consumer.queues:
        queue = state.queues[name]
        line = queue.lines[consumer.known]
        line.leave(consumer)
        queue.consumers -= 1
        if not line.members:
            del queue.lines[consumer.known]
            state.recheck(queue)
        state.retire(queue)
    state.subscriptions.remove(consumer)


def credit(state: State, session: int, limit: int) -> None:
    """Sets how many tasks may have been delivered to a session in all."""
    consumer = state.sessions[session]
    consumer.limit = limit
    wake(state, consumer)


def wake(state: State, consumer: Session) -> None:
    """A consumer may be able to take more than before: the next pump looks."""
    if consumer.queues and consumer.spare() > 0:
        state.woken[consumer.number] = consumer


def lease(state: State) -> None:
    """Hands ready tasks to consumers with credit until one of the two is used up.

    Only sessions that gained credit and queues that gained tasks are looked at. Queues take turns, and
    so do the lines of a queue and the consumers in a line.
    """
    active = state.active
    for session in state.woken.values():
        for name in session.queues_in_turn():
            queue = state.queues[name]
            queue.lines[session.known].park(session)
            if queue.ready:
                active[name] = queue
    state.woken.clear()
    for queue in active.values():
        waiting = sum([len(line.waiting) for line in queue.lines.values()])
        queue.share = min(SLICE_MAX, max(1, queue.ready // max(1, waiting)))
    while active:
        for queue in list(active.values()):
            if not _serve(state, queue):
                del active[queue.name]
    for number, tasks in state.granted.items():
        state.effects.grants.append((number, tasks))
        session = state.sessions[number]
        sated = session.room <= 0
        session.room = state.config.grant_bytes
        if sated:
            wake(state, session)
    state.granted.clear()


def _serve(state: State, queue: Queue) -> bool:
    """Grants one batch to the consumer of a queue whose turn it is; False when there is none."""
    lines = list(queue.lines.values())
    queue.turn += 1
    for index in range(len(lines)):
        line = lines[(queue.turn + index) % len(lines)]
        session = line.next()
        if session is None:
            continue
        tasks = queue.take(min(queue.share, max(1, session.spare() // len(session.queues))), line.known)
        if tasks:
            _give_what_fits(state, queue, session, tasks)
            line.served()
            return queue.ready > 0
    return False


def _give_what_fits(state: State, queue: Queue, session: Session, tasks: list[Task]) -> None:
    """Grants of these tasks as many as the session has room for in this pump; the rest goes back."""
    size = sum([task.size for task in tasks])
    if size <= session.room:
        session.room -= size
        _grant(state, queue, session, tasks)
        return
    # One body that is larger than all the room is given alone.
    untouched = session.room == state.config.grant_bytes
    size = tasks[0].size
    count = 1 if untouched or size <= session.room else 0
    while 0 < count < len(tasks) and size + tasks[count].size <= session.room:
        size += tasks[count].size
        count += 1
    for task in tasks[count:]:
        queue.put_back(task)
    del tasks[count:]
    # Nothing more in this pump: it is served on in the next one.
    session.room = 0
    if tasks:
        _grant(state, queue, session, tasks)


def _grant(state: State, queue: Queue, session: Session, tasks: list[Task]) -> None:
    number, worker, leases = session.number, session.name, session.leases
    now, wall_ms = state.now, state.wall_ms
    for task in tasks:
        task.stage = LEASED
        task.lease += 1
        task.owner = number
        task.worker = worker
        task.since = now
        task.delivered = wall_ms
        leases[task.id] = task
    count = len(tasks)
    session.delivered += count
    queue.leased += count
    state.stages[QUEUED] -= count
    state.stages[LEASED] += count
    state.counters["delivered"] += count
    granted = state.granted.get(number)
    if granted is None:
        state.granted[number] = tasks
    else:
        granted += tasks


def started(state: State, session: int, rows: list[list[Any]], request: int | None) -> None:
    """Notes tasks that a child runs; rows whose lease is not in force are passed over.

    Where it is to be answered these are named by a CANCEL before OK counts the others.
    """
    leases = state.sessions[session].leases
    stale: list[list[Any]] = []
    in_force = moved = 0
    for row in rows:
        id_, lease, *early = row
        task = leases.get(id_)
        if task is None or task.lease != lease:
            stale.append([id_, lease, None])
            continue
        in_force += 1
        claims = bool(early and early[0]) and not (task.unusual is not None and task.unusual.early)
        if claims:
            unusual(task).early = True
            state.touch(task)
        if task.stage == LEASED:
            task.stage = STARTED
            task.since = state.now
            state.note(task, "started", task.worker)
            moved += 1
    state.stages[LEASED] -= moved
    state.stages[STARTED] += moved
    if request is not None:
        if stale:
            state.effects.cancels.append((session, stale))
        state.effects.replies.append((session, Ok(request, in_force)))
