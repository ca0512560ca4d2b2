"""The engine as the rim sees it: commands in, `pump`, effects out."""

from collections.abc import Iterable, Mapping
from typing import Any

from chervil.protocol import WireId
from chervil_broker.engine import (
    completing,
    leasing,
    limiting,
    parking,
    publishing,
    purging,
    rerunning,
    restoring,
    revoking,
    sessions,
    stats,
    watching,
)
from chervil_broker.engine.consumers import Session
from chervil_broker.engine.effects import Effects
from chervil_broker.engine.restoring import Known, RestoredSession
from chervil_broker.engine.state import EngineConfig, State
from chervil_broker.engine.task import MS, Task


class Engine:
    """Queues, leases, delays, results and their waiters, for one vhost.

    Deterministic: the same commands at the same times have the same effects. Commands take a session
    that is open; `pump` hands over what they caused. `tick` comes before them, and sets the time for all
    that follow.
    """

    def __init__(self, config: EngineConfig) -> None:
        self._state = State(config)

    def tick(self, now: int, wall: int) -> None:
        """Sets broker time, which never goes back, and the wall clock, which may; in nanoseconds."""
        state = self._state
        if now != state.now or wall != state.wall:
            state.now = now
            state.wall = wall
            state.wall_ms = wall // MS

    def open(self, session: int, name: str) -> None:
        """A new session; numbers are never used again."""
        state = self._state
        state.sessions[session] = Session(
            session, name, state.now, state.config.inventory, state.config.grant_bytes
        )

    def restore(self, known: Known, sessions: Iterable[RestoredSession], grace_ns: int) -> None:
        """Begins with what another engine of this vhost knew; to be called once, after the first `tick`.

        Its sessions are suspended, for `grace_ns`; tasks of sessions that are not named have lost theirs.
        """
        restoring.restore(self._state, known, sessions, grace_ns)

    def suspend(self, session: int, grace_ns: int) -> None:
        """The connection of a session is gone: subscription, credit and watches end, its leases stay.

        Unless it is resumed within `grace_ns`, it is closed by `pump`, and told in `Effects.ended`.
        """
        sessions.suspend(self._state, session, grace_ns)

    def resume(self, session: int) -> None:
        """A connection has taken a session up again; `reconcile` says what it holds."""
        sessions.resume(self._state, session)

    def reconcile(self, session: int, request: int, inventory: list[list[Any]]) -> None:
        """RESUME, the whole inventory, [id, lease, state] rows; answered by OK."""
        sessions.reconcile(self._state, session, request, inventory)

    def close(self, session: int, *, thrown_out: bool = False) -> int:
        """A session is over: its leases go back to their old places, flagged, STARTED ones charged.

        Those of one that was thrown out, which is no fault of its tasks, are not charged.

        Returns how many leases it had.
        """
        return sessions.close(self._state, session, thrown_out=thrown_out)

    def hold(self, session: int, held: bool) -> None:
        """The peer of a session does not read, and is given nothing; or it reads again."""
        sessions.hold(self._state, session, held=held)

    def publish(self, session: int, request: int, tasks: list[publishing.PublishRow]) -> None:
        """PUBLISH, answered by CONFIRM."""
        publishing.publish(self._state, session, request, tasks)

    def subscribe(  # noqa: PLR0917 -- the fields of SUBSCRIBE, in their order
        self,
        session: int,
        request: int,
        queues: list[str],
        tasks: list[str] | None,
        concurrency: int,
        pid: int,
    ) -> None:
        """SUBSCRIBE, in place of an earlier one; answered by OK."""
        leasing.subscribe(self._state, session, request, queues, tasks, concurrency, pid)

    def credit(self, session: int, limit: int) -> None:
        """CREDIT: absolute and cumulative; the newest counts."""
        leasing.credit(self._state, session, limit)

    def started(self, session: int, rows: list[list[Any]], request: int | None) -> None:
        """STARTED: [id, lease, early?] rows; with a request answered by OK."""
        leasing.started(self._state, session, rows, request)

    def complete(self, session: int, sequence: int, rows: list[completing.CompletionRow]) -> None:
        """COMPLETE, answered by COMPLETED. In a RETRY row the body option is (handle, size)."""
        completing.complete(self._state, session, sequence, rows)

    def watch(self, session: int, request: int, ids: list[WireId]) -> None:
        """WATCH, answered by STATUS at once and by one RESULT for each id that is not final yet."""
        watching.watch(self._state, session, request, ids)

    def unwatch(self, session: int, ids: list[WireId]) -> None:
        """UNWATCH."""
        watching.unwatch(self._state, session, ids)

    def query(self, session: int, request: int, ids: list[WireId]) -> None:
        """QUERY, answered by STATUS."""
        watching.query(self._state, session, request, ids)

    def purge(self, session: int, request: int, queues: list[str]) -> None:
        """PURGE: revokes ready and held tasks of these queues, of all when empty; answered by OK."""
        purging.purge(self._state, session, request, queues)

    def revoke(self, session: int, request: int, ids: list[WireId], terminate: bool, signal: int) -> None:
        """REVOKE, answered by OK; tasks that a worker has are named in `Effects.cancels`."""
        revoking.revoke(self._state, session, request, ids, signal if terminate else None)

    def rerun(self, session: int, request: int, ids: list[WireId]) -> None:
        """RERUN, answered by OK."""
        rerunning.rerun(self._state, session, request, ids)

    def forget(self, session: int, request: int, ids: list[WireId]) -> None:
        """FORGET, answered by OK."""
        rerunning.forget(self._state, session, request, ids)

    @property
    def tasks(self) -> Mapping[WireId, Task]:
        """Every task that is known."""
        return self._state.tasks

    @property
    def forgotten(self) -> Mapping[WireId, int]:
        """Ids of tasks that were forgotten and are remembered, with the broker time of it."""
        return self._state.forgotten.times

    @property
    def revoked_ids(self) -> Mapping[WireId, str]:
        """Ids that are to be REVOKED when they are published, with who revoked them."""
        return self._state.revoked_ids.by

    def completed_up_to(self, session: int) -> int:
        """The highest sequence of a session's COMPLETEs."""
        return self._state.sessions[session].sequence

    def refuse_publishes(self, reason: str | None) -> None:
        """Refuses what is published as FULL, for this reason; None: takes it again."""
        self._state.refusal = reason

    def result_size(self, id_: WireId) -> int:
        """Bytes of a task's result or failure record; 0 where there is none."""
        task = self._state.tasks.get(id_)
        return 0 if task is None else task.result_size

    def history(self, id_: WireId) -> tuple[dict[str, Any], int | None]:
        """The map of a REPORT for HISTORY, and the handle of the failure record (or text).

        Without `error`; where the broker writes the failure and there is no handle: its kind and message.
        """
        return watching.history(self._state, id_)

    def body_handle(self, id_: WireId) -> int | None:
        """The handle of a task's arguments; None where they are dropped, or the id is not known."""
        return watching.body_handle(self._state, id_)

    def dead(self, cursor: str | None, limit: int) -> tuple[list[dict[str, Any]], str | None]:
        """A page of LIST dead, oldest first, and the next cursor; ValueError for a cursor that is none."""
        return parking.dead(self._state, cursor, limit)

    @property
    def publishing_state(self) -> str:
        """`open`, `closed` or `full`; as of the last publish or pump."""
        return publishing.publishing_state(self._state)

    @property
    def memory_short(self) -> bool:
        """Whether windows are closed: by memory alone; as of the last publish or pump.

        `publishing_state` is `full` at the limit of tasks too.
        """
        return publishing.memory_short(self._state)

    def set_limits(
        self, memory: int, results: int, tasks: int | None, more_memory: str | None = None
    ) -> None:
        """Sets `memory_limit`, `results_limit` and `tasks_limit` of EngineConfig while it runs.

        `more_memory` is another one where it is given.
        Tasks that are over a smaller limit stay, and publishes are refused until there is room; what the
        limits of results and of dead letters have no room for goes with the next pump.
        """
        limiting.set_limits(self._state, memory, results, tasks, more_memory)

    def room(self) -> int:
        """Bytes that may still be published before the windows close."""
        return publishing.room(self._state)

    def pump(self) -> Effects:
        """Fires timers, leases ready tasks, keeps results within their limits; returns what piled up."""
        state = self._state
        # Most pumps have no timer that fires, and many nothing to lease: they do not go there.
        due, wall_due = self._timers()
        if (due is not None and due <= state.now) or (wall_due is not None and wall_due <= state.wall):
            sessions.end_graces(state)
            purging.fire(state)
            parking.park_unknown(state)
            state.forget(state.results.sweep(state.now, state.effects.freed))
            state.warn_of_unserved()
        if state.woken or state.active:
            leasing.lease(state)
        if state.results.bytes > state.results.limit or state.parked.bytes > state.parked.limit:
            state.trim()
        state.mark()
        effects = state.effects
        if state.pushes:
            effects.statuses += [(session, None, rows) for session, rows in state.pushes.items()]
            state.pushes = {}
        state.effects = Effects()
        return effects

    def next_timer(self) -> tuple[int | None, int | None]:
        """The earliest deadlines of broker time and of the wall clock; one gone by: pump again at once."""
        if self._state.woken:
            return self._state.now, self._timers()[1]
        return self._timers()

    def _timers(self) -> tuple[int | None, int | None]:
        state = self._state
        earliest, wall = state.deadlines.next()
        for time in (
            state.results.next(),
            state.patience.next(),
            sessions.next_grace(state) if state.graces else None,
            state.next_warning(),
        ):
            if time is not None and (earliest is None or time < earliest):
                earliest = time
        return earliest, wall

    def remaining_ms(self, task: Task) -> int | None:
        """Milliseconds until a task expires, for DELIVER; None when it does not."""
        return task.remaining_ms(self._state.now, self._state.wall)

    def stats(self) -> dict[str, Any]:
        """The engine's part of the REPORT for STATS: all but what only the rim knows."""
        return stats.report(self._state)
