"""A child: runs the tasks of one slot, one at a time, in its main thread.

What a task finds was made by the fork, or by the tasks before it in this process.

- Anew for each task: its request and context variables; with a soft time limit the handler of SIGALRM and
  the real timer, which is disarmed afterwards.
- Anew for each child: the seed of `random`, the process group, every signal's handler. Nothing is open but
  stdio, its own socket and the files that the app's import opened; connections that it made are cut.
- Not reset between tasks: working directory, umask, environment, handlers and timers that a task has set,
  `random.seed`, modules and globals, the threads, processes and files that it left behind, and what it left
  on the event loop, which goes on whenever a later coroutine runs. Processes of a child's group die with it.
"""

import contextlib
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any, NoReturn

from chervil.exceptions import DecodeError, EncodeError, NotRegistered, Reject
from chervil.execution import Finished, execute, own_frames
from chervil.protocol import Outcome, TaskOption, to_text
from chervil.protocol.rows import DeliveryRow
from chervil.request import Request
from chervil.serialization import decode
from chervil_worker import completion, lifeline, log, packets
from chervil_worker.terms import PLAIN, Terms

if TYPE_CHECKING:
    from chervil.app import Chervil
    from chervil.task import Task

#: The number of the packet with which a child says that it is ready for tasks.
READY = 0

#: Told and logged when a large packet comes in and this process has as many files open as it may.
_NO_ROOM = "the process had no descriptor left for its arguments"
_NO_DESCRIPTOR = (
    "child %d: ends, and is replaced: no descriptor is left for a task's arguments, so that one goes back "
    "unstarted; close what tasks open, or raise the limit (ulimit -n)"
)

#: Signals that Python itself ignores, for sockets and files whose other side is gone.
_LEFT_IGNORED = {"SIGPIPE", "SIGXFSZ", "SIGXFZ"}


def run(child: "Child", sock: socket.socket, parent: int, inherited: Collection[int]) -> NoReturn:
    """Becomes the child of a slot, right after the fork; ends the process when the link closes the socket.

    `parent` is the nursery's process id, `inherited` the descriptors that are not the app's own.
    """
    code = 1
    try:
        _settle(sock, parent, inherited)
        code = child.serve(sock)
    except BaseException:  # whatever it is, this process must not go on as a second nursery
        log.worker.exception("child %d: stopped by an error of its own; its task runs again", os.getpid())
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        # Exit handlers that the app's import registered belong to the nursery.
        os._exit(code)


def _settle(sock: socket.socket, parent: int, inherited: Collection[int]) -> None:
    """Cuts this process loose from its parent's: group, signals, descriptors.

    A terminal's Ctrl-C goes to the link's group and not to this one, so SIGINT has its default action too.
    """
    os.setpgid(0, 0)
    lifeline.set_death_signal(signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(0)  # the parent died before the kernel was asked to tell
    signal.set_wakeup_fd(-1)
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        with contextlib.suppress(OSError, ValueError):  # the C library keeps some for itself
            if signal.Signals(number).name not in _LEFT_IGNORED:
                signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    # The app's import may have set a default timeout for sockets; here is waited for as long as it takes.
    sock.setblocking(True)
    for descriptor in set(inherited) - {sock.fileno(), 0, 1, 2}:
        with contextlib.suppress(OSError):
            os.close(descriptor)
    lifeline.cut_connections(keep=[sock.fileno()])


class Child:
    """Runs delivery rows of one app."""

    def __init__(self, app: "Chervil", node_name: str, terms: Mapping[str, Terms]) -> None:
        """`terms` are those of the tasks whose terms are not plain."""
        self._tasks = app.tasks
        self._accept = frozenset(app.conf.accept_content)
        self._result_codec = app.conf.result_serializer
        self._ignore_result = app.conf.task_ignore_result
        self._node_name = node_name
        self._terms = terms

    def serve(self, sock: socket.socket) -> int:
        """Answers each packet [row, deadline?, body_limit] with one [outcome, codec?, body?, options?].

        A packet is read when its task begins and not before: what is unread may be taken back. Returns the
        exit code: 0 when the link is gone, 1 when a task has closed or replaced the socket: then there is no
        way to answer, and the end of the process says it. 1 too when tasks have left no descriptor open for
        the arguments of the next one: that one goes back unstarted, for the next process. A copy of this
        process that a task has forked, and that comes back from the task, ends here: the packets and the
        answer belong to the original.
        """
        original = os.getpid()
        number = sock.fileno()
        identity = _identity(number)
        try:
            packets.send(sock, READY, b"")
            while (packet := packets.receive(sock)) is not None:
                if packet.payload is None:
                    log.worker.error(_NO_DESCRIPTOR, original)
                    packets.send(sock, packet.number, packets.pack(completion.unstarted(_NO_ROOM)))
                    return 1
                row, deadline, body_limit = packets.unpack(packet.payload)
                parts = self.complete(row, deadline, body_limit)
                if os.getpid() != original:
                    os._exit(0)
                # Another file may have the number by now: an answer there would be lost, or do harm.
                if _identity(number) != identity:
                    _say_cut_off(row)
                    return 1
                packets.send_in_parts(sock, packet.number, packets.pack(parts))
        except BrokenPipeError:
            pass
        return 0

    def complete(self, row: DeliveryRow, deadline: int | None, body_limit: int) -> completion.Parts:
        """Runs one delivery row: what came of it, always in a form that can be sent."""
        _, _, _, _, _, name, _, _, options, headers_body, codec, body = row[:12]
        task = self._tasks.get(name)
        if task is None:
            return _refuse(row, NotRegistered(f"this worker has no task {name!r}"))
        if (deadline is not None or options) and completion.expired(options, deadline):
            _log_unrun(logging.INFO, row, "expired before it began")
            return completion.expiry(row)
        try:
            args, kwargs = decode(codec, body, self._accept)
            headers = None if headers_body is None else decode(codec, headers_body, self._accept)
            request = Request.from_delivery(row, args, kwargs, headers, self._node_name)
        except (DecodeError, TypeError, ValueError) as error:
            why = error if isinstance(error, DecodeError) else DecodeError(f"not [args, kwargs]: {error}")
            return _refuse(row, why)
        soft_limit = None
        terms = self._terms.get(name, PLAIN)
        if options:
            terms = terms.called(options)
        if terms is not PLAIN:
            request.timelimit = (_seconds(terms.hard_ms), _seconds(terms.soft_ms))
            soft_limit = request.timelimit[1]
        begun = time.perf_counter()
        finished = execute(task, request, soft_limit)
        seconds = time.perf_counter() - begun
        try:
            parts = self._parts(task, request, row, finished, body_limit)
        # Values are user code too: a dict of a class of its own may raise anything when it is written.
        except BaseException as error:
            if not isinstance(error, EncodeError | TypeError | ValueError):
                error = EncodeError(f"what {name} made cannot be written: {_said(error)}")
            _log_unrun(logging.ERROR, row, f"failed: {_said(error)}")
            return completion.not_sent(row, error)
        _log_finished(request, finished, seconds)
        return parts

    def _parts(
        self, task: "Task[..., Any]", request: Request, row: DeliveryRow, finished: Finished, body_limit: int
    ) -> completion.Parts:
        """What the link is told of a run; raises whatever stands in the way of writing it."""
        if finished.outcome is Outcome.SUCCESS:
            if self._ignores_result(task, row[8]):
                return completion.success_without_result()
            return completion.success(row, finished.value, self._result_codec, body_limit)
        if finished.outcome is Outcome.RETRY:
            return completion.retry(task, request, row, finished, body_limit)
        if finished.outcome is Outcome.REJECT:
            return completion.rejection(request, row, finished)
        return completion.failure(request, row, finished)

    def _ignores_result(self, task: "Task[..., Any]", options: dict[int, Any] | None) -> bool:
        """What the call said, else the task, else the app's setting."""
        said = options.get(TaskOption.IGNORE_RESULT) if options else None
        if said is None:
            said = task.ignore_result
        return bool(self._ignore_result if said is None else said)


def _seconds(milliseconds: int | None) -> float | None:
    return None if milliseconds is None else milliseconds / 1000


def _identity(descriptor: int) -> tuple[int, int] | None:
    """What a descriptor stands for (measured: 0.7 us); None where it is closed."""
    try:
        found = os.fstat(descriptor)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _refuse(row: DeliveryRow, error: Exception) -> completion.Parts:
    _log_unrun(logging.ERROR, row, f"rejected: {_said(error)}; it is parked as a dead letter")
    return completion.refusal(row, error)


def _say_cut_off(row: DeliveryRow) -> None:
    _log_unrun(
        logging.ERROR,
        row,
        f"closed or replaced the socket of its process {os.getpid()} (os.closerange, os.dup2?): "
        "what came of it cannot be told, and the process ends",
    )


def _log_unrun(level: int, row: DeliveryRow, what: str) -> None:
    """A line about a task of whose run there is no outcome to tell."""
    task_id = to_text(row[0])
    log.task.log(level, "%s[%s] %s", row[5], task_id, what, extra=_about(row[5], task_id))


def _log_finished(request: Request, finished: Finished, seconds: float) -> None:
    """One line, and none where its level is off: two calls are what an unlogged task pays."""
    level = logging.INFO if finished.outcome in (Outcome.SUCCESS, Outcome.RETRY) else logging.ERROR
    if not log.task.isEnabledFor(level):
        return
    extra: dict[str, Any] = _about(request.task, request.id)
    extra["seconds"] = round(seconds, 6)
    if finished.outcome is Outcome.SUCCESS:
        log.task.info("%s[%s] succeeded in %.3fs", request.task, request.id, seconds, extra=extra)
        return
    if finished.outcome is Outcome.RETRY:
        log.task.info("%s[%s] retry: %s", request.task, request.id, _text(finished.retry), extra=extra)
        return
    error = finished.exception
    assert error is not None
    what = f"failed: {_said(error)}"
    if isinstance(error, Reject):
        what = f"rejected: {_text(error)}; " + (
            "back to its queue" if error.requeue else "it is parked as a dead letter"
        )
    shown = (type(error), error, own_frames(error))
    try:
        log.task.error("%s[%s] %s", request.task, request.id, what, extra=extra, exc_info=shown)
    except BaseException as why:  # its traceback is user code, or longer than the stack
        what += f" (its traceback could not be written: {type(why).__name__})"
        log.task.error("%s[%s] %s", request.task, request.id, what, extra=extra)


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {_text(error)}"


def _text(error: BaseException | None) -> str:
    """What an exception says; its `__str__` is user code."""
    try:
        return str(error)
    except BaseException as why:
        return f"<str() of the exception raised {type(why).__name__}>"


def _about(name: str | None, task_id: str | None) -> dict[str, Any]:
    return {"task_name": name, "task_id": task_id}
