"""Which app is current, and which task runs here: the two pieces of state that are not an app's own."""

from collections.abc import Callable
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, NamedTuple, cast
from weakref import WeakSet

if TYPE_CHECKING:
    from chervil.app import Chervil
    from chervil.request import Request
    from chervil.task import Task


class Running(NamedTuple):
    """A task and the request that it runs for."""

    task: "Task[..., Any]"
    request: "Request"


#: The innermost task that runs in this thread or asyncio task, called directly or not; None outside of tasks.
running: ContextVar[Running | None] = ContextVar("chervil_running", default=None)
#: The innermost request with an id, that is, of a run that is no direct call: what is published here has it
#: as its parent.
parent: "ContextVar[Request | None]" = ContextVar("chervil_parent", default=None)

_current: "Chervil | None" = None
_default: "Chervil | None" = None

#: What `shared_task` has to do to an app; done when the app is finalised.
shared: "list[Callable[[Chervil], Any]]" = []
#: Apps that are finalised already: a shared task that comes later goes to them at once.
finalized: "WeakSet[Chervil]" = WeakSet()


def get_current_app() -> "Chervil":
    """The app set last by `set_current` (a new app does that itself), else the default app.

    Where there is none at all, an app without a name is made and becomes the default.
    """
    global _default
    if _current is not None:
        return _current
    if _default is None:
        from chervil.app import Chervil

        _default = Chervil(set_as_current=False)
    return _default


def set_current_app(app: "Chervil | None") -> None:
    """Makes an app the current one for the whole process; None takes the last one back."""
    global _current
    _current = app


def set_default_app(app: "Chervil | None") -> None:
    """Makes an app the one that is current when no other is."""
    global _default
    _default = app


def share(register: "Callable[[Chervil], Any]") -> None:
    """Has `register` called with every app: finalised ones now, the others when they are."""
    shared.append(register)
    for app in list(finalized):
        register(app)


class _Proxy:
    """Stands for an object that is looked up anew at every use."""

    __slots__ = ("_find", "_name")

    def __init__(self, name: str, find: Callable[[], object]) -> None:
        object.__setattr__(self, "_name", name)
        object.__setattr__(self, "_find", find)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._find(), name)

    def __setattr__(self, name: str, value: object) -> None:
        setattr(self._find(), name, value)

    def __repr__(self) -> str:
        return f"<{self._name}: {self._find()!r}>"

    def __eq__(self, other: object) -> bool:
        return bool(self._find() == other)

    def __hash__(self) -> int:
        return hash(self._find())

    def __bool__(self) -> bool:
        return self._find() is not None


def get_current_task() -> "Task[..., Any] | None":
    """The task that runs here, or None."""
    here = running.get()
    return None if here is None else here.task


current_app = cast("Chervil", _Proxy("current_app", get_current_app))
current_task = cast("Task[..., Any]", _Proxy("current_task", get_current_task))
