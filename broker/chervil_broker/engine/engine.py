"""The engine as the rim sees it: commands in, `pump`, effects out."""

from typing import Any

from chervil.protocol import WireId
from chervil_broker.engine import completing, leasing, publishing, purging, stats, watching
from chervil_broker.engine.consumers import Session
from chervil_broker.engine.effects import Effects
from chervil_broker.engine.state import EngineConfig, State
from chervil_broker.engine.task import Task


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
            state.ticked = False

    def open(self, session: int, name: str) -> None:
        """A new session; numbers are never used again."""
        self._state.sessions[session] = Session(session, name, self._state.now)

    def close(self, session: int) -> int:
        """A session is gone: its leases go back to their old places, flagged, STARTED ones charged.

        Returns how many leases it had.
        """
        state = self._state
        gone = state.sessions[session]
        watching.unwatch(state, session, list(gone.watching))
        state.pushes.pop(session, None)
        state.woken.pop(session, None)
        leasing.unsubscribe(state, gone)
        leases = len(gone.leases)
        if leases:
            state.record("close", session)
            completing.give_back(state, gone)
        del state.sessions[session]
        return leases

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

    def started(self, session: int, rows: list[list[Any]]) -> None:
        """STARTED: [id, lease] rows."""
        leasing.started(self._state, session, rows)

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

    def pump(self) -> Effects:
        """Fires timers, leases ready tasks, keeps results within their limits; returns what piled up."""
        state = self._state
        # Most pumps have no timer that fires, and many nothing to lease: they do not go there.
        due, wall_due = self.next_timer()
        if (due is not None and due <= state.now) or (wall_due is not None and wall_due <= state.wall):
            purging.fire(state)
            state.forget(state.results.sweep(state.now, state.effects.freed))
            state.warn_of_unserved()
        if state.woken or state.active:
            leasing.lease(state)
        state.trim_results()
        effects = state.effects
        if state.pushes:
            effects.statuses += [(session, None, rows) for session, rows in state.pushes.items()]
            state.pushes = {}
        state.effects = Effects()
        return effects

    def next_timer(self) -> tuple[int | None, int | None]:
        """The earliest deadlines of broker time and of the wall clock; one gone by: pump again at once."""
        state = self._state
        broker, wall = state.deadlines.next()
        others = [broker, state.results.next(), state.unserved[0][0] if state.unserved else None]
        return min((time for time in others if time is not None), default=None), wall

    def remaining_ms(self, task: Task) -> int | None:
        """Milliseconds until a task expires, for DELIVER; None when it does not."""
        return task.remaining_ms(self._state.now, self._state.wall)

    def stats(self) -> dict[str, Any]:
        """The engine's part of the REPORT for STATS: all but what only the rim knows."""
        return stats.report(self._state)
