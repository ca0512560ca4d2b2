"""`shared_task`: tasks of a library that knows no app."""

from collections.abc import Callable, Coroutine
from typing import Any, Literal, ParamSpec, TypeVar, Unpack, cast, overload

from chervil import absent
from chervil.app import BoundDecorator, Chervil, Decorator, make_task
from chervil.current import share
from chervil.options import TASK_OPTIONS, TaskOptions, check_options
from chervil.task import AsyncTask, Task

P = ParamSpec("P")
R = TypeVar("R")


@overload
def shared_task(fn: Callable[P, Coroutine[Any, Any, R]], /) -> AsyncTask[P, R]: ...
@overload
def shared_task(fn: Callable[P, R], /) -> Task[P, R]: ...
@overload
def shared_task(*, bind: Literal[False] = False, **options: Unpack[TaskOptions]) -> Decorator: ...
@overload
def shared_task(*, bind: Literal[True], **options: Unpack[TaskOptions]) -> BoundDecorator: ...
def shared_task(fn: Callable[..., Any] | None = None, /, *, bind: bool = False, **options: Any) -> Any:
    """Makes a task that every app has, those made later included.

    Called through what this returns it belongs to the app that is current at the call; `app.tasks` has it
    as that app's own.
    """
    check_options("@shared_task", options, TASK_OPTIONS, absent.TASK_OPTIONS)

    def decorate(fn: Callable[..., Any]) -> Task[..., Any]:
        task = make_task(None, fn, bind, cast("TaskOptions", options), None)

        def register(app: Chervil) -> None:
            if task.name not in app.tasks:
                app.register(task.for_app(app))

        share(register)
        return task

    return decorate if fn is None else decorate(fn)
