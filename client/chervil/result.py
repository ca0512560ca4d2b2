"""Results: what came, or will come, of a task."""

from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any, Generic, NoReturn, TypeVar

from chervil import absent, exceptions
from chervil.current import get_current_app
from chervil.exceptions import Reject, TaskRejectedError, TaskRevokedError, UnknownTask, WorkerLostError
from chervil.states import EXCEPTION_STATES, READY_STATES, STATE_OF_STAGE

if TYPE_CHECKING:
    from chervil.app import Chervil
    from chervil.client import Status
    from chervil.protocol import FailureRecord, WireId

R = TypeVar("R")

#: Stages whose status will not change, by name. UNKNOWN is not among them: the id may yet be published.
_FINAL = frozenset({"SUCCESS", "FAILURE", "DEAD", "REVOKED", "EXPIRED", "UPSTREAM_FAILED", "EVICTED"})


class AsyncResult(Generic[R]):
    """A task's result by its id; two of the same id are equal. What was once final is kept."""

    __slots__ = ("__weakref__", "_app", "_final", "_id", "_wire")

    def __init__(self, id: str, app: "Chervil | None" = None) -> None:  # noqa: A002  # Celery's name
        if not isinstance(id, str):
            raise TypeError(f"a task id is text, not {type(id).__name__}")
        self._id: str | None = id
        self._wire: WireId | None = None
        self._app = app
        self._final: Status | None = None

    @classmethod
    def from_wire(cls, wire: "WireId", app: "Chervil") -> "AsyncResult[Any]":
        """The result of an id as it travels; its text is made when it is asked for."""
        self = cls.__new__(cls)
        self._id = None
        self._wire = wire
        self._app = app
        self._final = None
        return self

    @property
    def id(self) -> str:
        if self._id is None:
            from chervil.protocol.ids import to_text

            assert self._wire is not None
            self._id = to_text(self._wire)
        return self._id

    @property
    def task_id(self) -> str:
        return self.id

    @property
    def app(self) -> "Chervil":
        return self._app if self._app is not None else get_current_app()

    def get(self, timeout: float | None = None, propagate: bool = True) -> R:
        """Waits for the result, which the broker pushes, and returns it.

        Raises the task's own exception (with `propagate=False` it is returned), TimeoutError after
        `timeout` seconds, UnknownTask at once for an id that the broker does not know or whose result is
        gone, TaskRevokedError, WorkerLostError, TaskRejectedError, OperationalError when the broker refuses,
        or was never reached by this client. When it is out of reach later on, or answers no more, a warning
        is logged and waiting goes on until it is back, or until the timeout.
        """
        status = self._final
        if status is None:
            from chervil.waiting import logger, warn_of_waiting

            (status,) = self.app.client.wait(
                [self.id],
                timeout,
                on_wait=lambda here: warn_of_waiting(self.app, here),
                on_lost=logger.warning,
            )
            self._keep(status)
        return self._answer(status, timeout, propagate)

    wait = get

    async def aget(
        self,
        timeout: float | None = None,  # noqa: ASYNC109  # as in `get`
        propagate: bool = True,
    ) -> R:
        """`get` for coroutines: the event loop goes on meanwhile. `await result` is the same."""
        status = self._final
        if status is None:
            from chervil.waiting import logger, warn_of_waiting

            (status,) = await self.app.client.aio.wait(
                [self.id],
                timeout,
                on_wait=lambda here: warn_of_waiting(self.app, here),
                on_lost=logger.warning,
            )
            self._keep(status)
        return self._answer(status, timeout, propagate)

    def __await__(self) -> Generator[Any, None, R]:
        return self.aget().__await__()

    def _answer(self, status: "Status", timeout: float | None, propagate: bool) -> R:
        """What a wait that ended with this status returns or raises."""
        stage = status.stage.name
        if stage in ("UNKNOWN", "EVICTED"):
            raise self._gone(stage)
        if stage not in _FINAL:
            from chervil.waiting import describe

            missed = f"did not finish within {timeout:g} s" if timeout else "is not finished"
            raise exceptions.TimeoutError(f"task {self.id} {missed}: {describe(status)}")
        if stage == "SUCCESS":
            return self._value(status)  # type: ignore[no-any-return]
        error = self._error(status)
        if propagate:
            raise error
        return error  # type: ignore[return-value]

    @property
    def stage(self) -> str:
        """Where the task is, in the broker's words (protocol.md, section 1)."""
        return self._look().stage.name

    @property
    def state(self) -> str:
        """Where the task is, in Celery's words.

        UNKNOWN for an id that the broker does not know, EVICTED where the task ended and its result was
        dropped or forgotten.
        """
        return STATE_OF_STAGE[self.stage]

    @property
    def status(self) -> str:
        return self.state

    def ready(self) -> bool:
        """Whether it has finished, however it ended."""
        return self._look().stage.name in _FINAL

    def successful(self) -> bool:
        return self.state == "SUCCESS"

    def failed(self) -> bool:
        return self.state == "FAILURE"

    @property
    def result(self) -> Any:
        """What the task returned, or the exception it ended with; None while it has not ended."""
        status = self._look()
        stage = status.stage.name
        if stage == "SUCCESS":
            return self._value(status)
        if STATE_OF_STAGE[stage] in EXCEPTION_STATES and (stage in _FINAL or status.codec == "failure"):
            return self._error(status)
        return None

    @property
    def info(self) -> Any:
        return self.result

    @property
    def traceback(self) -> str | None:
        """The traceback of its failure, as text from where it ran."""
        record = _record(self._look())
        return None if record is None else record.traceback

    def revoke(self, terminate: bool = False, signal: "str | int | None" = None) -> None:
        """Calls the task off; `terminate` ends it even where it runs. See `app.control.revoke`."""
        self.app.control.revoke(self.id, terminate, signal)

    def forget(self) -> None:
        """Has the broker drop the result of a task that has ended; one that has not ended keeps its own."""
        self.app.client.forget([self.id])
        self._final = None

    def _look(self) -> "Status":
        if self._final is not None:
            return self._final
        (status,) = self.app.client.query([self.id])
        self._keep(status)
        return status

    def _keep(self, status: "Status") -> None:
        if status.stage.name in _FINAL:
            self._final = status

    def _value(self, status: "Status") -> Any:
        if status.codec is None or status.body is None:
            return None
        from chervil.serialization import decode

        return decode(status.codec, status.body, self.app.conf.accept_content)

    def _error(self, status: "Status") -> Exception:
        record = _record(status)
        message = (record.message if record is not None else None) or ""
        match status.stage.name:
            case "DEAD":
                if record is None or record.kind != "rejected":
                    return WorkerLostError(message or f"task {self.id}: its worker died, too often")
            case "REVOKED":
                return TaskRevokedError(message or f"task {self.id} was called off")
            case "EXPIRED":
                return TaskRevokedError(message or f"task {self.id} expired before it started")
        from chervil.exceptions import RemoteError

        if record is None:
            return RemoteError("Exception", f"task {self.id} failed; there is no record of how")
        from chervil.failure import exception_from

        error = exception_from(record)
        # Raised in a task that waits for this one, Reject would reject that task too.
        return TaskRejectedError(message) if isinstance(error, Reject) else error

    def _gone(self, stage: str) -> UnknownTask:
        if stage == "EVICTED":
            return UnknownTask(
                f"task {self.id} finished; the broker no longer has its result "
                "(it expired, was forgotten or was dropped for room)"
            )
        return UnknownTask(
            f"the broker knows no task {self.id}: most likely it was restarted since, as this release keeps "
            "tasks in memory; else the task was never published there, or its result has expired"
        )

    if not TYPE_CHECKING:  # type checkers are to flag what is not there

        def __getattr__(self, name: str) -> NoReturn:
            raise absent.attribute_error(self, name, absent.RESULT_ATTRIBUTES)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.id}>"

    def __str__(self) -> str:
        return self.id

    def __eq__(self, other: object) -> bool:
        return other.id == self.id if isinstance(other, AsyncResult) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.id)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return (type(self), (self.id,))


class EagerResult(AsyncResult[R]):
    """The result of a task that ran at the call."""

    __slots__ = ("_outcome", "_state", "_traceback")

    def __init__(self, id: str, outcome: Any, state: str, traceback: str | None = None) -> None:  # noqa: A002
        """`outcome` is the value, or with the state FAILURE the exception."""
        super().__init__(id)
        self._outcome = outcome
        self._state = state
        self._traceback = traceback

    def get(self, timeout: float | None = None, propagate: bool = True) -> R:
        if propagate and isinstance(self._outcome, BaseException) and self._state == "FAILURE":
            raise self._outcome
        return self._outcome  # type: ignore[no-any-return]

    wait = get

    async def aget(self, timeout: float | None = None, propagate: bool = True) -> R:  # noqa: ASYNC109
        return self.get(timeout, propagate)

    @property
    def stage(self) -> str:
        return self._state

    def ready(self) -> bool:
        return self._state in READY_STATES

    @property
    def result(self) -> Any:
        return self._outcome

    @property
    def traceback(self) -> str | None:
        return self._traceback

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return (type(self), (self.id, self._outcome, self._state, self._traceback))


def _record(status: "Status") -> "FailureRecord | None":
    """The failure record in a status; None where there is none or it cannot be read."""
    if status.codec != "failure" or status.body is None:
        return None
    from chervil.protocol import unpack_failure

    try:
        return unpack_failure(status.body)
    except ValueError:
        return None
