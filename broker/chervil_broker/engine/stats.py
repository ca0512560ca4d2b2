"""The engine's part of the REPORT that answers STATS (protocol.md, STATS)."""

from heapq import nsmallest
from typing import Any

from chervil.protocol import Stage
from chervil_broker.engine.publishing import publishing_state
from chervil_broker.engine.queues import Queue
from chervil_broker.engine.state import State
from chervil_broker.engine.task import MS
from chervil_broker.engine.watching import queue_waits_for

#: Task names that a queue's row lists, and queue names that a worker's row does: with 255 bytes each
#: and as many rows as there may be, a report stays below half of the longest frame.
NAMES_MAX = 10
#: Warnings that a report spells out; the rest is in the queues' rows.
WARNINGS_MAX = 100


def report(state: State) -> dict[str, Any]:
    """tasks, counters, memory, queues, workers and warnings; the rim adds what it knows itself."""
    rows = state.config.stats_rows
    queues = nsmallest(rows, state.queues.values(), key=_importance)
    listed = [_queue(state, queue) for queue in queues]
    workers = [session for session in state.sessions.values() if session.queues][:rows]
    return {
        "tasks": {stage.name: state.stages[stage] for stage in Stage if state.stages[stage]},
        "counters": dict(state.counters),
        "memory": {
            "bytes": state.memory,
            "limit": state.config.memory_limit,
            "other": state.charges.counted,
            "results": state.results.bytes,
            "results_limit": state.config.results_limit,
            "dead": state.parked.bytes,
            "dead_limit": state.parked.limit,
        },
        "publishing": publishing_state(state),
        "dedup": {
            "ids": len(state.forgotten),
            "limit": state.forgotten.limit,
            "horizon_ms": state.forgotten.horizon(state.now) // MS,
        },
        "suspended": sum(session.suspended for session in state.sessions.values()),
        "queues": listed,
        "workers": [
            {
                "name": session.name,
                "pid": session.pid,
                "concurrency": session.concurrency,
                "queues": session.queues[:NAMES_MAX],
                "leased": len(session.leases),
                "credit": max(0, session.limit - session.delivered),
                "delivered": session.delivered,
                "connected_ms": (state.now - session.opened) // MS,
            }
            for session in workers
        ],
        "tasks_limit": state.config.tasks_limit,
        "warnings": [*_limits(state), *_warnings(listed)],
    }


def _importance(queue: Queue) -> tuple[bool, int, str]:
    """Queues with a warning first, then the fullest."""
    warned = queue_waits_for(queue) in ("no_consumer", "unknown_task")
    return not warned, -(queue.ready + queue.scheduled + queue.leased), queue.name


def _queue(state: State, queue: Queue) -> dict[str, Any]:
    oldest = queue.oldest()
    return {
        "name": queue.name,
        "ready": queue.ready,
        "scheduled": queue.scheduled,
        "leased": queue.leased,
        "consumers": queue.consumers,
        "oldest_ms": 0 if oldest is None else (state.now - oldest) // MS,
        "waiting_for": queue_waits_for(queue),
        "unknown_tasks": queue.unknown_names(NAMES_MAX) if queue.lines else [],
    }


def _limits(state: State) -> list[str]:
    if state.crowded_by(1):
        return [f"this vhost holds its {state.config.tasks_limit} tasks (max_tasks): nothing more is stored"]
    return []


def _warnings(queues: list[dict[str, Any]]) -> list[str]:
    warnings = []
    for queue in queues:
        if queue["waiting_for"] == "no_consumer":
            warnings.append(
                f"queue {queue['name']!r} has no worker that consumes it; ready tasks: {queue['ready']}"
            )
        elif queue["waiting_for"] == "unknown_task":
            names = ", ".join(queue["unknown_tasks"][:3])
            warnings.append(f"queue {queue['name']!r} has tasks that none of its workers knows: {names}")
    return warnings[:WARNINGS_MAX]
