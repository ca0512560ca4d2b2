"""Calls to task rows, and task rows to the broker: what `delay` does once the arguments are known."""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from chervil.arguments import check_containers
from chervil.current import parent
from chervil.exceptions import EncodeError, PublishRefused
from chervil.options import CALL_OPTIONS, CallOptions, check_limits, check_options
from chervil.protocol.errors import Code
from chervil.protocol.ids import WireId, to_text, to_wire
from chervil.protocol.limits import BODY_MAX
from chervil.protocol.rows import TaskRow, task_row
from chervil.protocol.vocabulary import DELIVERY_LIMIT_DEFAULT, RESULT_EXPIRES_MS_DEFAULT, TaskOption
from chervil.result import AsyncResult
from chervil.serialization import encode
from chervil.times import DELAY_MAX_MS, absolute_ms, relative_ms

if TYPE_CHECKING:
    from chervil.app import Chervil
    from chervil.conf import Settings
    from chervil.task import Task

R = TypeVar("R")
T = TypeVar("T")

# As plain integers: an IntEnum key costs a Python call for its hash.
_DELAY_MS = int(TaskOption.DELAY_MS)
_DUE_AT = int(TaskOption.DUE_AT)
_EXPIRES_MS = int(TaskOption.EXPIRES_MS)
_EXPIRES_AT = int(TaskOption.EXPIRES_AT)
_IGNORE_RESULT = int(TaskOption.IGNORE_RESULT)
_EARLY_ACK = int(TaskOption.EARLY_ACK)
_FAIL_ON_LOST = int(TaskOption.FAIL_ON_LOST)
_DELIVERY_LIMIT = int(TaskOption.DELIVERY_LIMIT)
_TIME_LIMIT_MS = int(TaskOption.TIME_LIMIT_MS)
_SOFT_TIME_LIMIT_MS = int(TaskOption.SOFT_TIME_LIMIT_MS)
_RESULT_EXPIRES_MS = int(TaskOption.RESULT_EXPIRES_MS)
_ROOT_ID = int(TaskOption.ROOT_ID)
_PARENT_ID = int(TaskOption.PARENT_ID)

#: The bits of a UUID of version 4 that are not random, and what they make of a random byte.
_FIXED_BITS = 0xF << 76 | 0x3 << 62
_FIXED = 0x4 << 76 | 0x2 << 62
_VERSION = bytes(byte & 0x0F | 0x40 for byte in range(256))
_VARIANT = bytes(byte & 0x3F | 0x80 for byte in range(256))

_NO_OPTIONS: CallOptions = {}
_NO_KWARGS: dict[str, Any] = {}


class Envelope(NamedTuple):
    """What a task row says besides its id, name and body."""

    queue: str
    priority: int
    options: dict[int, Any] | None
    headers: bytes | None
    codec: str


class Cached(NamedTuple):
    """The envelope of a task's plain calls, good for these settings until they change."""

    settings: "Settings"
    changes: int
    envelope: Envelope


def new_wire_id() -> bytes:
    """A random UUID of version 4 as its 16 bytes (measured: 0.6 us, `uuid.uuid4` takes 1.7)."""
    number = int.from_bytes(os.urandom(16), "big") & ~_FIXED_BITS | _FIXED
    return number.to_bytes(16, "big")


def new_wire_ids(count: int) -> list[bytes]:
    """Many of them, from one draw."""
    random = bytearray(os.urandom(16 * count))
    # Whole columns at once: a loop over the ids takes three times as long.
    random[6::16] = random[6::16].translate(_VERSION)
    random[8::16] = random[8::16].translate(_VARIANT)
    data = bytes(random)
    return [data[at : at + 16] for at in range(0, len(data), 16)]


def new_id() -> str:
    """A random UUID of version 4 as text."""
    return to_text(new_wire_id())


class Publisher:
    """Publishes calls for one app."""

    def __init__(self, app: "Chervil") -> None:
        self._app = app

    def call(
        self,
        task: "Task[..., R]",
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        options: CallOptions = _NO_OPTIONS,
    ) -> AsyncResult[R]:
        """Publishes one call of a task, or runs it here where the app is eager."""
        row, result = self._one(task, args, kwargs, options)
        if row is not None:
            self._app.client.publish([row], *self._terms())
        return result

    async def acall(
        self,
        task: "Task[..., R]",
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        options: CallOptions = _NO_OPTIONS,
    ) -> AsyncResult[R]:
        """`call` for coroutines."""
        row, result = self._one(task, args, kwargs, options)
        if row is not None:
            await self._app.client.aio.publish([row], *self._terms())
        return result

    def call_many(
        self, task: "Task[..., R]", calls: Iterable[Sequence[Any]], options: CallOptions
    ) -> list[AsyncResult[R]]:
        """Publishes many calls of a task."""
        rows, results = self._many(task, calls, options)
        if rows:
            self._app.client.publish(rows, *self._terms())
        return results

    async def acall_many(
        self, task: "Task[..., R]", calls: Iterable[Sequence[Any]], options: CallOptions
    ) -> list[AsyncResult[R]]:
        """`call_many` for coroutines."""
        rows, results = self._many(task, calls, options)
        if rows:
            await self._app.client.aio.publish(rows, *self._terms())
        return results

    def _one(
        self, task: "Task[..., R]", args: Sequence[Any], kwargs: Mapping[str, Any], options: CallOptions
    ) -> tuple[TaskRow | None, AsyncResult[R]]:
        """The row to publish and its result; no row where the app is eager and the task has run here."""
        if task.typing:
            task.check_arguments(args, kwargs)
        app = self._app
        given = options.get("task_id") if options else None
        if app.conf.task_always_eager:
            return None, task.apply(args, kwargs, task_id=given, headers=options.get("headers"))
        wire: WireId = new_wire_id() if given is None else to_wire(given)
        row = self._row(wire, task.name, args, kwargs, self._envelope(task, options))
        return row, AsyncResult.from_wire(row[0], app)

    def _many(
        self, task: "Task[..., R]", calls: Iterable[Sequence[Any]], options: CallOptions
    ) -> tuple[list[TaskRow], list[AsyncResult[R]]]:
        """The rows to publish and their results; no rows where the app is eager and all have run here."""
        app = self._app
        calls = _checked(task, calls)
        if app.conf.task_always_eager:
            return [], [task.apply(args, headers=options.get("headers")) for args in calls]
        envelope = self._envelope(task, options)
        name = task.name
        rows = [
            self._row(wire, name, args, _NO_KWARGS, envelope)
            for wire, args in zip(new_wire_ids(len(calls)), calls, strict=True)
        ]
        return rows, [AsyncResult.from_wire(row[0], app) for row in rows]

    def _terms(self) -> tuple[float, bool]:
        """Within how many seconds to publish, and whether to wait for a broker that is full.

        Inside a task nothing is waited for: its own end may be what makes the room.
        """
        return self._app.conf.task_publish_timeout, parent.get() is None

    def send(
        self,
        name: str,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        options: CallOptions,
        *,
        deadline: float | None = None,
        on_full: Callable[[], None] | None = None,
    ) -> AsyncResult[Any]:
        """Publishes one call by name; the task need not be known here.

        `deadline`: within as many seconds, where that is less than `task_publish_timeout`. `on_full` is
        called when waiting for a full broker begins.
        """
        check_containers(args, kwargs)
        given = options.get("task_id")
        wire: WireId = new_wire_id() if given is None else to_wire(given)
        app = self._app
        row = self._row(wire, name, args, kwargs, self._envelope(app.tasks.get(name), options))
        seconds, wait = self._terms()
        if deadline is not None:
            seconds = min(seconds, deadline)
        app.client.publish([row], seconds, wait, on_full)
        return AsyncResult.from_wire(wire, app)

    def _row(
        self,
        wire: WireId,
        name: str,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        envelope: Envelope,
    ) -> TaskRow:
        queue, priority, options, headers, codec = envelope
        try:
            body = encode(codec, (args, kwargs))
        except EncodeError as error:
            raise EncodeError(f"the arguments of {name}: {error}") from error
        if len(body) > BODY_MAX:
            raise PublishRefused(
                [to_text(wire)],
                Code.BODY_TOO_LARGE,
                f"the arguments of {name} take {len(body)} bytes; {BODY_MAX} is the protocol's limit",
            )
        try:
            return task_row([wire, name, queue, priority, options, headers, codec, body])
        except ValueError as error:
            # An attribute of the task may have been set to anything.
            check_options(f"task {name}", {"queue": queue, "priority": priority}, CALL_OPTIONS)
            raise ValueError(f"task {name}: {error}") from None

    def _envelope(self, task: "Task[..., Any] | None", call: CallOptions) -> Envelope:
        """The envelope of a call: its own word, else the task's, else the setting, and what publishes it."""
        envelope = self._made(task, call) if call or task is None else self._plain(task)
        request = parent.get()
        if request is None:
            return envelope
        options = dict(envelope.options or ())
        options[_PARENT_ID] = request.wire_id
        options[_ROOT_ID] = request.options.get(_ROOT_ID, request.wire_id)
        return envelope._replace(options=options)

    def _plain(self, task: "Task[..., Any]") -> Envelope:
        """The envelope of a call without options, made once (measured: 0.3 us instead of 1.6)."""
        settings = self._app.conf
        cached = task._envelope
        if cached is None or cached.settings is not settings or cached.changes != settings._changes:
            cached = Cached(settings, settings._changes, self._made(task, _NO_OPTIONS))
            # Not by assignment, which is what drops it.
            vars(task)["_envelope"] = cached
        return cached.envelope

    def _made(self, task: "Task[..., Any] | None", call: CallOptions) -> Envelope:
        conf = self._app.conf
        queue = priority = ignore = codec = expires = None
        options: dict[int, Any] = {}
        if task is not None:
            queue, priority, ignore = task.queue, task.priority, task.ignore_result
            codec, expires = task.serializer, task.expires
        _add_losses(options, task, conf)
        headers = None
        if call:
            queue = _either(call.get("queue"), queue)
            priority = _either(call.get("priority"), priority)
            ignore = _either(call.get("ignore_result"), ignore)
            codec = _either(call.get("serializer"), codec)
            given = call.get("expires")
            expires = expires if given is None else given
            headers = call.get("headers")
            self._add_times(options, call)
            _add_limits(options, task, call)
        codec = conf.task_serializer if codec is None else codec
        if expires is not None:
            if isinstance(expires, datetime):
                options[_EXPIRES_AT] = absolute_ms(expires, "expires", conf.timezone)
            else:
                options[_EXPIRES_MS] = relative_ms(expires, "expires")
        if conf.task_ignore_result if ignore is None else ignore:
            options[_IGNORE_RESULT] = True
        if conf.result_expires != 86400:  # what the broker takes without being told
            options[_RESULT_EXPIRES_MS] = _result_expires_ms(conf.result_expires)
        return Envelope(
            conf.task_default_queue if queue is None else queue,
            conf.task_default_priority if priority is None else priority,
            options or None,
            encode(codec, dict(headers)) if headers else None,
            codec,
        )

    def _add_times(self, options: dict[int, Any], call: CallOptions) -> None:
        countdown, eta = call.get("countdown"), call.get("eta")
        if countdown is not None and eta is not None:
            raise ValueError("countdown and eta exclude each other")
        if countdown is not None:
            options[_DELAY_MS] = relative_ms(countdown, "countdown")
        elif eta is not None:
            options[_DUE_AT] = absolute_ms(eta, "eta", self._app.conf.timezone)


def _add_losses(options: dict[int, Any], task: "Task[..., Any] | None", conf: "Settings") -> None:
    """What is to happen when the task's process dies, where that is not what the broker does anyway.

    Of a task that is not known here its worker knows more than our settings; only the broker's part is said.
    """
    limit = conf.task_delivery_limit
    if task is not None:
        if not _otherwise(task.acks_late, conf.task_acks_late):
            options[_EARLY_ACK] = True
        if _otherwise(task.reject_on_worker_lost, conf.task_reject_on_worker_lost) is False:
            options[_FAIL_ON_LOST] = True
        limit = _otherwise(task.delivery_limit, limit)
    if limit != DELIVERY_LIMIT_DEFAULT:
        options[_DELIVERY_LIMIT] = limit


def _add_limits(options: dict[int, Any], task: "Task[..., Any] | None", call: CallOptions) -> None:
    """The call's own time limits; those of the task, its worker knows. 0 says nothing, as in Celery."""
    hard, soft = call.get("time_limit"), call.get("soft_time_limit")
    if hard:
        options[_TIME_LIMIT_MS] = max(1, relative_ms(hard, "time_limit"))
    if soft:
        options[_SOFT_TIME_LIMIT_MS] = max(1, relative_ms(soft, "soft_time_limit"))
    if task is not None and (hard or soft):
        check_limits(f"a call of {task.name}", hard or task.time_limit, soft or task.soft_time_limit)


def _otherwise(given: T | None, setting: T) -> T:
    return setting if given is None else given


def _checked(task: "Task[..., Any]", calls: Iterable[Sequence[Any]]) -> list[Sequence[Any]]:
    """The calls as a list; raises TypeError, naming the one, where the arguments of one do not fit."""
    calls = list(calls)
    for number, args in enumerate(calls, 1):
        try:
            check_containers(args, _NO_KWARGS)
            if task.typing:
                task.check_arguments(args, _NO_KWARGS)
        except TypeError as error:
            raise TypeError(f"call {number} of {len(calls)}: {error}") from None
    return calls


def _either(given: T | None, otherwise: T | None) -> T | None:
    return otherwise if given is None else given


def _result_expires_ms(value: Any) -> int:
    return DELAY_MAX_MS if value is None else relative_ms(value, "result_expires")


assert RESULT_EXPIRES_MS_DEFAULT == 86400 * 1000
