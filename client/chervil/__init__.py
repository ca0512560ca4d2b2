"""Background jobs for Python: its own broker, Celery's API.

from chervil import Chervil

app = Chervil("tasks")

@app.task
def add(x, y):
    return x + y

add.delay(2, 3).get()
"""

import sys
from typing import TYPE_CHECKING, NoReturn

from chervil import absent, exceptions, states
from chervil.app import Chervil
from chervil.current import current_app, current_task
from chervil.result import AsyncResult, EagerResult
from chervil.shared import shared_task
from chervil.task import Task
from chervil.version import __version__

__all__ = [
    "AsyncResult",
    "Chervil",
    "EagerResult",
    "Task",
    "__version__",
    "current_app",
    "current_task",
    "exceptions",
    "shared_task",
    "states",
]

if not TYPE_CHECKING:  # type checkers are to flag what is not there

    def __getattr__(name: str) -> NoReturn:
        raise absent.no_such_name(__name__, name, absent.PACKAGE, sys._getframe(1))
