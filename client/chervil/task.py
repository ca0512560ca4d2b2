"""A task: a function and what is known of it, callable here and in the background."""

from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from functools import update_wrapper
from types import MethodType
from typing import TYPE_CHECKING, Any, Generic, NoReturn, ParamSpec, TypeVar, Unpack

from chervil import absent
from chervil.arguments import Arguments, check_containers
from chervil.current import Running, get_current_app, running
from chervil.exceptions import MaxRetriesExceededError, OperationalError
from chervil.options import CALL_OPTIONS, CallOptions, TaskOptions, check_options
from chervil.result import AsyncResult, EagerResult

if TYPE_CHECKING:
    from datetime import datetime, timedelta

    from chervil.app import Chervil
    from chervil.exceptions import Retry
    from chervil.publishing import Cached
    from chervil.request import Request

P = ParamSpec("P")
R = TypeVar("R")

#: Celery's defaults.
MAX_RETRIES = 3
DEFAULT_RETRY_DELAY = 180


class Task(Generic[P, R]):
    """A function that can run in the background; `@app.task` makes it.

    `P` are its parameters (without `self` where it is bound), `R` what it returns. Options may be read and
    changed as attributes of the task (not of its class); None means that the app's setting holds.
    """

    MaxRetriesExceededError = MaxRetriesExceededError
    OperationalError = OperationalError

    name: str
    #: The function; bound to the task where `bind` is true.
    run: Callable[..., Any]
    bind: bool
    max_retries: int | None = MAX_RETRIES
    default_retry_delay: float = DEFAULT_RETRY_DELAY
    queue: str | None = None
    priority: int | None = None
    ignore_result: bool | None = None
    serializer: str | None = None
    expires: "float | timedelta | datetime | None" = None
    acks_late: bool | None = None
    reject_on_worker_lost: bool | None = None
    delivery_limit: int | None = None
    time_limit: "float | timedelta | None" = None
    soft_time_limit: "float | timedelta | None" = None
    typing: bool = True

    #: What the publisher has made of these options and an app's settings; dropped when an option changes.
    _envelope: "Cached | None" = None

    def __init__(
        self, app: "Chervil | None", fn: Callable[..., Any], name: str, bind: bool, options: TaskOptions
    ) -> None:
        """`app` None is the app that is current at each use (a shared task)."""
        self._app = app
        self._fn = fn
        self.name = name
        self.bind = bind
        for option, value in options.items():
            if option != "name":
                setattr(self, option, value)
        self._arguments = Arguments(fn, skip=1 if bind else 0)
        self.run = MethodType(fn, self) if bind else fn
        update_wrapper(self, fn, updated=())
        # What `inspect.signature` follows: the function without its `self`.
        self.__wrapped__ = self.run

    def __setattr__(self, name: str, value: Any) -> None:
        self.__dict__[name] = value
        self.__dict__["_envelope"] = None

    def for_app(self, app: "Chervil") -> "Task[P, R]":
        """The same task, belonging to an app."""
        options: dict[str, Any] = {name: getattr(self, name) for name in TaskOptions.__annotations__}
        return type(self)(app, self._fn, self.name, self.bind, TaskOptions(**options))  # type: ignore[typeddict-item]

    @property
    def app(self) -> "Chervil":
        return self._app if self._app is not None else get_current_app()

    @property
    def request(self) -> "Request":
        """The run that is under way here; one with `called_directly` where there is none."""
        here = running.get()
        if here is not None and here.task.name == self.name:
            return here.request
        from chervil.request import Request

        return Request()

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Calls the function here and now."""
        if running.get() is None:
            return self.run(*args, **kwargs)  # type: ignore[no-any-return]
        from chervil.request import Request

        request = Request()
        request.task, request.args, request.kwargs = self.name, args, kwargs
        token = running.set(Running(self, request))
        try:
            return self.run(*args, **kwargs)  # type: ignore[no-any-return]
        finally:
            running.reset(token)

    def delay(self, *args: P.args, **kwargs: P.kwargs) -> AsyncResult[R]:
        """Publishes a call and returns once the broker has confirmed it.

        Raises TypeError when the arguments do not fit, EncodeError when they cannot be written,
        PublishRefused, PublishUnconfirmed or OperationalError.
        """
        return self.app.publisher.call(self, args, kwargs)

    def apply_async(
        self,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        **options: Unpack[CallOptions],
    ) -> AsyncResult[R]:
        """`delay` with options; raises TypeError for one that is not known, ValueError for a wrong value."""
        check_options(f"apply_async() of {self.name}", options, CALL_OPTIONS, absent.CALL_OPTIONS)
        args, kwargs = () if args is None else args, {} if kwargs is None else kwargs
        check_containers(args, kwargs)
        return self.app.publisher.call(self, args, kwargs, options)

    def delay_many(
        self, calls: Iterable[Sequence[Any]], **options: Unpack[CallOptions]
    ) -> list[AsyncResult[R]]:
        """Publishes a call for each tuple of positional arguments, in as few frames as they fit in.

        Nothing is sent unless all arguments fit. PublishRefused and PublishUnconfirmed name the ids that
        they are about; the others are confirmed.
        """
        known = CALL_OPTIONS - {"task_id"}
        check_options(f"delay_many() of {self.name}", options, known, absent.CALL_OPTIONS)
        return self.app.publisher.call_many(self, calls, options)

    async def adelay(self, *args: P.args, **kwargs: P.kwargs) -> AsyncResult[R]:
        """`delay` for coroutines: does not hold up the event loop, and shares its frames with others.

        A coroutine that is cancelled while it waits may have published its call nevertheless.
        """
        return await self.app.publisher.acall(self, args, kwargs)

    async def aapply_async(
        self,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        **options: Unpack[CallOptions],
    ) -> AsyncResult[R]:
        """`apply_async` for coroutines."""
        check_options(f"aapply_async() of {self.name}", options, CALL_OPTIONS, absent.CALL_OPTIONS)
        args, kwargs = () if args is None else args, {} if kwargs is None else kwargs
        check_containers(args, kwargs)
        return await self.app.publisher.acall(self, args, kwargs, options)

    async def adelay_many(
        self, calls: Iterable[Sequence[Any]], **options: Unpack[CallOptions]
    ) -> list[AsyncResult[R]]:
        """`delay_many` for coroutines."""
        known = CALL_OPTIONS - {"task_id"}
        check_options(f"adelay_many() of {self.name}", options, known, absent.CALL_OPTIONS)
        return await self.app.publisher.acall_many(self, calls, options)

    def apply(
        self,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        *,
        throw: bool | None = None,
        task_id: str | None = None,
        headers: Mapping[str, Any] | None = None,
    ) -> EagerResult[R]:
        """Runs the task here and now, retries included (at once), and returns its result.

        `throw` lets its exception out; the default is the setting `task_eager_propagates`.
        """
        from chervil.eager import apply

        args, kwargs = () if args is None else args, {} if kwargs is None else kwargs
        check_containers(args, kwargs)
        return apply(self, args, kwargs, throw=throw, task_id=task_id, headers=headers)

    def retry(  # noqa: PLR0917  # the order is Celery's
        self,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        exc: BaseException | None = None,
        throw: bool = True,
        eta: "datetime | None" = None,
        countdown: float | None = None,
        max_retries: int | None = None,
        **options: Any,
    ) -> "Retry":
        """Has this run's task run again, under the same id: `raise self.retry(...)`.

        countdown, eta: when; `default_retry_delay` unless given. args, kwargs: new arguments. Options are
        `queue`, `priority`, `expires`, `headers` and `serializer`. Raises Retry, or returns it with
        `throw=False`; then the task runs again once it has returned. When `max_retries` is exhausted
        it raises `exc`, or MaxRetriesExceededError without one. Called outside of a worker it raises `exc`.
        """
        from chervil.retry import ask_again

        return ask_again(
            self,
            args,
            kwargs,
            exc=exc,
            throw=throw,
            eta=eta,
            countdown=countdown,
            max_retries=max_retries,
            options=options,
        )

    def AsyncResult(self, task_id: str) -> AsyncResult[R]:  # noqa: N802  # Celery's name
        return AsyncResult(task_id, self.app)

    def check_arguments(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """Raises TypeError, naming the task and its signature, unless it takes these arguments."""
        self._arguments.check(self.name, args, kwargs)

    if not TYPE_CHECKING:  # type checkers are to flag what is not there

        def __getattr__(self, name: str) -> NoReturn:
            raise absent.attribute_error(self, name, absent.TASK_ATTRIBUTES)

    def __repr__(self) -> str:
        return f"<Task {self.name}>"


class AsyncTask(Task[P, R]):
    """A task made of an `async def` function: called directly, it returns the coroutine."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R]:  # type: ignore[override]
        coroutine: Coroutine[Any, Any, R] = super().__call__(*args, **kwargs)  # type: ignore[assignment]
        return coroutine
