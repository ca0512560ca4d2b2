"""The app: settings, tasks, and the way to the broker."""

import sys
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from typing import (
    TYPE_CHECKING,
    Any,
    Concatenate,
    Literal,
    NoReturn,
    ParamSpec,
    Protocol,
    Self,
    TypeVar,
    Unpack,
    cast,
    overload,
)

from chervil import absent, current
from chervil.conf import Settings
from chervil.options import CALL_OPTIONS, TASK_OPTIONS, CallOptions, TaskOptions, check_options
from chervil.result import AsyncResult
from chervil.task import AsyncTask, Task

if TYPE_CHECKING:
    from chervil.address import Found
    from chervil.client import Client
    from chervil.control import Control
    from chervil.publishing import Publisher

P = ParamSpec("P")
R = TypeVar("R")

#: CO_COROUTINE: the function is an `async def`.
_COROUTINE = 0x80


class Decorator(Protocol):
    """Makes a task of a function."""

    @overload
    def __call__(self, fn: Callable[P, Coroutine[Any, Any, R]]) -> AsyncTask[P, R]: ...
    @overload
    def __call__(self, fn: Callable[P, R]) -> Task[P, R]: ...


class BoundDecorator(Protocol):
    """Makes a task of a function whose first parameter is the task."""

    @overload
    def __call__(self, fn: Callable[Concatenate[Any, P], Coroutine[Any, Any, R]]) -> AsyncTask[P, R]: ...
    @overload
    def __call__(self, fn: Callable[Concatenate[Any, P], R]) -> Task[P, R]: ...


class Chervil:
    """An application: `app = Chervil("tasks")`.

    main: what `__main__` is called in the names of its tasks. broker: a URL, or several; see
    `chervil.address.find_broker` for what holds without one. include: modules with tasks, imported by
    workers. Everything else is a setting (`chervil.conf.Settings`).
    """

    def __init__(
        self,
        main: str | None = None,
        broker: str | Sequence[str] | None = None,
        include: Iterable[str] = (),
        *,
        set_as_current: bool = True,
        **conf: Any,
    ) -> None:
        self.main = main
        self.conf = Settings()
        if broker is not None:
            self.conf.broker_url = broker
        if include:
            self.conf.include = include  # type: ignore[assignment]  # any iterable; kept as a tuple
        self.conf.update(conf)
        self.finalized = False
        self._tasks: dict[str, Task[..., Any]] = {}
        self._found: Found | None = None
        #: The client of the broker that `broker_url` and `broker_use_ssl` name; at most one, but while they
        #: change.
        self._clients: dict[tuple[Any, Any], Client] = {}
        self._publisher: Publisher | None = None
        if set_as_current:
            self.set_current()

    @overload
    def task(self, fn: Callable[P, Coroutine[Any, Any, R]], /) -> AsyncTask[P, R]: ...
    @overload
    def task(self, fn: Callable[P, R], /) -> Task[P, R]: ...
    @overload
    def task(self, /, *, bind: Literal[False] = False, **options: Unpack[TaskOptions]) -> Decorator: ...
    @overload
    def task(self, /, *, bind: Literal[True], **options: Unpack[TaskOptions]) -> BoundDecorator: ...
    def task(self, fn: Callable[..., Any] | None = None, /, *, bind: bool = False, **options: Any) -> Any:
        """Makes a task of a function: `@app.task`, or `@app.task(queue="mail", ...)`."""
        check_options("@app.task", options, TASK_OPTIONS, absent.TASK_OPTIONS)

        def decorate(fn: Callable[..., Any]) -> Task[..., Any]:
            return self.register(make_task(self, fn, bind, cast("TaskOptions", options), self.main))

        return decorate if fn is None else decorate(fn)

    @property
    def tasks(self) -> dict[str, Task[..., Any]]:
        """The tasks by name, shared ones included."""
        self.finalize()
        return self._tasks

    def register(self, task: Task[P, R]) -> Task[P, R]:
        """Adds a task; one of the same function takes the earlier one's place.

        Raises ValueError when another function has the name.
        """
        known = self._tasks.get(task.name)
        if known is not None and _origin(known) != _origin(task):
            raise ValueError(
                f"two tasks are named {task.name!r}: {'.'.join(_origin(known))} and "
                f"{'.'.join(_origin(task))}; give one of them another: @app.task(name=...)"
            )
        self._tasks[task.name] = task
        return task

    def finalize(self) -> None:
        """Adds the shared tasks, those made so far and those to come; imports nothing."""
        if not self.finalized:
            self.finalized = True
            current.finalized.add(self)
            for register in list(current.shared):
                register(self)

    def import_includes(self) -> None:
        """Imports the modules that `include` and `imports` name."""
        from importlib import import_module

        for name in (*self.conf.include, *self.conf.imports):
            import_module(name)

    def send_task(
        self,
        name: str,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        **options: Unpack[CallOptions],
    ) -> AsyncResult[Any]:
        """Publishes a call of a task by its name, without its code; options are those of `apply_async`."""
        check_options("send_task()", options, CALL_OPTIONS, absent.CALL_OPTIONS)
        return self.publisher.send(
            name, () if args is None else args, {} if kwargs is None else kwargs, options
        )

    def AsyncResult(self, task_id: str) -> AsyncResult[Any]:  # noqa: N802  # Celery's name
        return AsyncResult(task_id, self)

    def use_broker(self, found: "Found") -> None:
        """Has this app talk to a broker that was found already, whatever its settings say."""
        self.close()
        self._found = found

    @property
    def client(self) -> "Client":
        """The client of this app's broker; made at its first use, and anew when a setting names another.

        Raises OperationalError when the broker's URL, wherever it comes from, is none.
        """
        named = (self.conf.broker_url, self.conf.broker_use_ssl)
        made = self._clients.get(named)
        return self._settle_on(named) if made is None else made

    def _settle_on(self, named: tuple[Any, Any]) -> "Client":
        """Makes the client of a broker, and closes those of others.

        Two threads may both make one, which has no connection yet; `setdefault` has them agree on the same.
        There is no lock: a fork while it was held would leave it held for ever in the new process.
        """
        made = self._clients.setdefault(named, self._make_client(*named))
        for other in [other for other in list(self._clients) if other != named]:
            client = self._clients.pop(other, None)
            if client is not None:
                client.close()
        return made

    def _make_client(self, urls: Any, files: Any) -> "Client":
        from pathlib import Path

        from chervil.address import find_broker
        from chervil.client import Client
        from chervil.exceptions import OperationalError

        try:
            found = self._found or find_broker(None, urls, Path.cwd(), files)
        except ValueError as error:
            raise OperationalError(str(error)) from None
        return Client(
            found,
            pool_limit=self.conf.broker_pool_limit,
            connect_timeout=self.conf.broker_connection_timeout,
        )

    @property
    def publisher(self) -> "Publisher":
        """What turns calls into published tasks."""
        if self._publisher is None:
            from chervil.publishing import Publisher

            self._publisher = Publisher(self)
        return self._publisher

    @property
    def control(self) -> "Control":
        """Commands about tasks that have been published, such as `app.control.revoke(id)`."""
        from chervil.control import Control

        return Control(self)

    def close(self) -> None:
        """Closes the connections; the app may be used again."""
        while self._clients:
            self._clients.popitem()[1].close()

    async def __aenter__(self) -> Self:
        """Nothing is connected before it must; the end of the last such block on this event loop closes its
        connection.
        """
        self.client.aio.entered += 1
        return self

    async def __aexit__(self, *raised: object) -> None:
        for client in list(self._clients.values()):
            await client.aleave()

    def set_current(self) -> None:
        """Makes this the app that `current_app` and shared tasks use."""
        current.set_current_app(self)

    def set_default(self) -> None:
        """Makes this the app that is current where no other is."""
        current.set_default_app(self)

    if not TYPE_CHECKING:  # type checkers are to flag what is not there

        def __getattr__(self, name: str) -> NoReturn:
            raise absent.attribute_error(self, name, absent.APP_ATTRIBUTES)

    def __repr__(self) -> str:
        return f"<Chervil {self.main or '(no name)'}>"


def make_task(
    app: Chervil | None, fn: Callable[..., Any], bind: bool, options: TaskOptions, main: str | None
) -> Task[..., Any]:
    """A task of a function; `main` stands for `__main__` in its name. Raises TypeError for what is none."""
    if not callable(fn):
        raise TypeError(f"a task is made of a function, not of {fn!r}")
    if isinstance(fn, type):
        raise TypeError(f"a task is made of a function, not of the class {fn.__name__}")
    name = options.get("name") or f"{_module_of(fn, main)}.{fn.__name__}"
    code = getattr(fn, "__code__", None)
    cls = AsyncTask if code is not None and code.co_flags & _COROUTINE else Task
    return cls(app, fn, name, bind, options)


def _module_of(fn: Callable[..., Any], main: str | None) -> str:
    module = fn.__module__
    if module != "__main__":
        return module
    if main:
        return main
    file: str | None = getattr(sys.modules["__main__"], "__file__", None)
    if not file:
        return module
    # Paths are not worth importing pathlib for.
    return file.replace("\\", "/").rpartition("/")[2].removesuffix(".py")


def _origin(task: Task[..., Any]) -> tuple[str, str]:
    fn = task._fn
    return (fn.__module__, fn.__qualname__)
