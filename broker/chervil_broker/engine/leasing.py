"""SUBSCRIBE, CREDIT, and the handing out of ready tasks."""

from chervil.protocol.messages import Ok
from chervil_broker.engine.consumers import Line, Session
from chervil_broker.engine.queues import Queue
from chervil_broker.engine.state import State
from chervil_broker.engine.task import LEASED, QUEUED, STARTED, Task


def subscribe(  # noqa: PLR0917 -- the fields of SUBSCRIBE, in their order
    state: State,
    session: int,
    request: int,
    queues: list[str],
    tasks: list[str] | None,
    concurrency: int,
    pid: int,
) -> None:
    """Makes a session consume just these queues."""
    consumer = state.sessions[session]
    unsubscribe(state, consumer)
    consumer.concurrency = concurrency
    consumer.pid = pid
    consumer.known = None if tasks is None else frozenset(tasks)
    consumer.queues = list(dict.fromkeys(queues))
    for name in consumer.queues:
        _join(state, state.queue_for(name), consumer)
    if consumer.limit > consumer.delivered:
        state.woken[session] = consumer
    state.effects.replies.append((session, Ok(request)))


def _join(state: State, queue: Queue, consumer: Session) -> None:
    line = queue.lines.get(consumer.known)
    if line is None:
        line = queue.lines[consumer.known] = Line(consumer.known)
        state.recheck(queue)
    # A thousand workers of one application share one set of names.
    consumer.known = line.known
    line.members += 1
    queue.consumers += 1
    queue.unserved_since = None
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
    consumer.queues = []
    consumer.known = None


def credit(state: State, session: int, limit: int) -> None:
    """Sets how many tasks may have been delivered to a session in all."""
    consumer = state.sessions[session]
    consumer.limit = limit
    if limit > consumer.delivered and consumer.queues:
        state.woken[session] = consumer


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
        queue.share = max(1, queue.ready // max(1, waiting))
    while active:
        for queue in list(active.values()):
            if not _serve(state, queue):
                del active[queue.name]
    for number, tasks in state.granted.items():
        state.effects.grants.append((number, tasks))
        state.record("lease", number, tasks)
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
        spare = session.limit - session.delivered
        tasks = queue.take(min(queue.share, max(1, spare // len(session.queues))), line.known)
        if tasks:
            _grant(state, queue, session, tasks)
            line.served()
            return queue.ready > 0
    return False


def _grant(state: State, queue: Queue, session: Session, tasks: list[Task]) -> None:
    number, worker, now, leases = session.number, session.name, state.now, session.leases
    for task in tasks:
        task.stage = LEASED
        task.lease += 1
        task.owner = number
        task.worker = worker
        task.since = now
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


def started(state: State, session: int, rows: list[list[object]]) -> None:
    """Notes tasks that a child runs; rows whose lease is not in force are passed over."""
    leases = state.sessions[session].leases
    noted = []
    for row in rows:
        task = leases.get(row[0])  # type: ignore[call-overload]
        if task is not None and task.lease == row[1] and task.stage == LEASED:
            task.stage = STARTED
            task.since = state.now
            noted.append(row)
    if noted:
        state.stages[LEASED] -= len(noted)
        state.stages[STARTED] += len(noted)
        state.record("started", session, noted)
