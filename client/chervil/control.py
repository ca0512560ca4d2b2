"""`app.control`: what can be asked of the broker about tasks that have been published."""

from collections.abc import Iterable
from signal import Signals
from typing import TYPE_CHECKING, NoReturn

from chervil import absent

if TYPE_CHECKING:
    from chervil.app import Chervil

#: The signals of Linux by number, from 1: what travels are these, wherever the name was typed.
_SIGNALS = (  # noqa: SIM905  # a table is easier to read so
    "HUP INT QUIT ILL TRAP ABRT BUS FPE KILL USR1 SEGV USR2 PIPE ALRM TERM STKFLT CHLD CONT STOP TSTP TTIN "
    "TTOU URG XCPU XFSZ VTALRM PROF WINCH IO PWR SYS"
).split()
_HIGHEST = 64


class Control:
    """Commands for one app's broker; all raise OperationalError when it cannot be reached."""

    def __init__(self, app: "Chervil") -> None:
        self._app = app

    def revoke(
        self, task_id: str | Iterable[str], terminate: bool = False, signal: "str | int | None" = None
    ) -> int:
        """Calls tasks off; returns how many of them had not ended.

        A task that waits never runs. One that runs goes on, and is only not run again; with `terminate` its
        process is sent a signal, such as "SIGTERM", "KILL" or a number (SIGTERM unless given). A task that
        is published after it was revoked is revoked at once.
        """
        ids = [task_id] if isinstance(task_id, str) else list(task_id)
        if not ids:
            return 0
        return self._app.client.revoke(ids, terminate, None if signal is None else signal_number(signal))

    def terminate(self, task_id: str | Iterable[str], signal: "str | int | None" = None) -> int:
        """Calls tasks off, and ends those that run."""
        return self.revoke(task_id, terminate=True, signal=signal)

    def purge(self) -> int:
        """Calls off all tasks that wait, in every queue; returns how many."""
        return self._app.client.purge([])

    discard_all = purge

    if not TYPE_CHECKING:  # type checkers are to flag what is not there

        def __getattr__(self, name: str) -> NoReturn:
            raise absent.attribute_error(self, name, absent.CONTROL_ATTRIBUTES)

    def __repr__(self) -> str:
        return f"<Control of {self._app!r}>"


def signal_number(signal: str | int) -> int:
    """The number on Linux of a signal: "SIGTERM", "TERM", `signal.SIGTERM` or 15. Raises ValueError."""
    if isinstance(signal, Signals):
        signal = signal.name
    if isinstance(signal, str):
        name = signal.upper().removeprefix("SIG")
        if name in _SIGNALS:
            return _SIGNALS.index(name) + 1
    elif type(signal) is int and 1 <= signal <= _HIGHEST:
        return signal
    raise ValueError(
        f"there is no signal {signal!r}; name one, such as SIGTERM, or give a number from 1 to {_HIGHEST}"
    )
