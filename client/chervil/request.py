"""What `self.request` is: one run of a task, under Celery's names."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from chervil.protocol.ids import WireId, to_text
from chervil.protocol.vocabulary import TaskOption


class Request:
    """One run of a task.

    Made without arguments it is what a task sees that was called directly. Names and meanings are those
    of Celery's `Context`; what this version does not have (callbacks, chains) is there and None.
    """

    id: str | None = None
    #: The name of the task.
    task: str | None = None
    args: Sequence[Any] = ()
    kwargs: Mapping[str, Any]
    #: The application's headers.
    headers: Mapping[str, Any] | None = None
    #: How often the task has asked to run again.
    retries: int = 0
    #: How many attempts were lost with their process or connection.
    attempts: int = 0
    #: Whether a process had begun to run it before.
    redelivered: bool = False
    queue: str | None = None
    priority: int = 0
    hostname: str | None = None
    called_directly: bool = True
    is_eager: bool = False
    #: The serializer of the arguments.
    codec: str = "json"
    #: The options as they travelled (protocol.md, task options).
    options: Mapping[int, Any]
    #: `id` as it travels.
    wire_id: WireId | None = None
    #: The Retry of a `self.retry(throw=False)`, acted upon when the task returns.
    pending_retry: Any = None

    utc = True
    reply_to: str | None = None
    #: (hard, soft) in seconds, as they hold for this run.
    timelimit: tuple[float | None, float | None] = (None, None)
    callbacks = errbacks = chain = chord = replaced_task_nesting = None
    logfile = loglevel = None
    stamped_headers: Sequence[str] | None = None

    def __init__(self) -> None:
        # Its own, not the class's: user code may write into them.
        self.kwargs = {}
        self.options = {}

    @classmethod
    def from_delivery(
        cls,
        row: Sequence[Any],
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        headers: Mapping[str, Any] | None,
        hostname: str | None,
    ) -> "Request":
        """The request of a delivery row (protocol.md, DELIVER) whose body and headers are decoded already.

        `row` has at least its first 12 fields; `hostname` is the worker's node name.
        """
        (wire_id, _, redelivered, attempts, retries, name, queue, priority, options, _, codec, _) = row[:12]
        request = cls.__new__(cls)  # all that __init__ sets is set here
        request.wire_id = wire_id
        request.id = to_text(wire_id)
        request.task = name
        request.args = args
        request.kwargs = kwargs
        request.headers = headers
        request.retries = retries
        request.attempts = attempts
        request.redelivered = redelivered
        request.queue = queue
        request.priority = priority
        request.hostname = hostname
        request.called_directly = False
        request.codec = codec
        request.options = options or {}
        return request

    @property
    def delivery_info(self) -> dict[str, Any]:
        return {
            "exchange": "",
            "routing_key": self.queue,
            "priority": self.priority,
            "redelivered": self.redelivered,
            "is_eager": self.is_eager,
        }

    @property
    def correlation_id(self) -> str | None:
        return self.id

    @property
    def root_id(self) -> str | None:
        """The first task of the workflow; the task itself where nothing published it."""
        return self._id_option(TaskOption.ROOT_ID) or self.id

    @property
    def parent_id(self) -> str | None:
        """The task that published this one."""
        return self._id_option(TaskOption.PARENT_ID)

    @property
    def group(self) -> str | None:
        return self._id_option(TaskOption.GROUP_ID)

    @property
    def group_index(self) -> int | None:
        return self.options.get(TaskOption.GROUP_INDEX)

    @property
    def origin(self) -> str | None:
        return self.options.get(TaskOption.ORIGIN)

    @property
    def shadow(self) -> str | None:
        return self.options.get(TaskOption.SHADOW)

    @property
    def stamps(self) -> Mapping[str, Any] | None:
        return self.options.get(TaskOption.STAMPS)

    @property
    def ignore_result(self) -> bool:
        return bool(self.options.get(TaskOption.IGNORE_RESULT, False))

    @property
    def eta(self) -> str | None:
        """The absolute time before which it was not to run, in ISO 8601, UTC."""
        return _iso(self.options.get(TaskOption.DUE_AT))

    @property
    def expires(self) -> str | None:
        """The absolute time by which it had to start, in ISO 8601, UTC; None for a relative one."""
        return _iso(self.options.get(TaskOption.EXPIRES_AT))

    def get(self, name: str, default: Any = None) -> Any:
        """An attribute, or `default` where there is none."""
        return getattr(self, name, default)

    def _id_option(self, key: int) -> str | None:
        wire = self.options.get(key)
        return None if wire is None else to_text(wire)

    def __repr__(self) -> str:
        return f"<Request {self.task}[{self.id}] retries={self.retries}>"


def _iso(milliseconds: int | None) -> str | None:
    if milliseconds is None:
        return None
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat()
