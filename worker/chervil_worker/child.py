"""A child: runs the tasks of one slot, one at a time, in its main thread."""

import contextlib
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Collection
from typing import TYPE_CHECKING, Any, NoReturn

from chervil.exceptions import DecodeError, EncodeError, NotRegistered, TaskRevokedError
from chervil.execution import Finished, execute
from chervil.protocol import Outcome, TaskOption, to_text
from chervil.protocol.rows import DeliveryRow
from chervil.request import Request
from chervil.serialization import decode
from chervil_worker import completion, lifeline, log, packets

if TYPE_CHECKING:
    from chervil.app import Chervil
    from chervil.task import Task

#: The number of the packet with which a child says that it is ready for tasks.
READY = 0

#: Signals that Python itself ignores, for sockets and files whose other side is gone.
_LEFT_IGNORED = {"SIGPIPE", "SIGXFSZ", "SIGXFZ"}


def run(
    app: "Chervil", sock: socket.socket, node_name: str, parent: int, inherited: Collection[int]
) -> NoReturn:
    """Becomes the child of a slot, right after the fork; ends the process when the link closes the socket.

    `parent` is the nursery's process id, `inherited` the descriptors that are not the app's own.
    """
    code = 1
    try:
        _settle(sock, parent, inherited)
        Child(app, node_name).serve(sock)
        code = 0
    except BaseException:  # whatever it is, this process must not go on as a second nursery
        log.worker.exception("child %d: stopped by an error of its own; its task runs again", os.getpid())
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        # Exit handlers that the app's import registered belong to the nursery.
        os._exit(code)


def _settle(sock: socket.socket, parent: int, inherited: Collection[int]) -> None:
    """Cuts this process loose from its parent's: group, signals, descriptors."""
    os.setpgid(0, 0)
    lifeline.set_death_signal(signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(0)  # the parent died before the kernel was asked to tell
    signal.set_wakeup_fd(-1)
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        with contextlib.suppress(OSError, ValueError):  # the C library keeps some for itself
            if signal.Signals(number).name not in _LEFT_IGNORED:
                signal.signal(number, signal.SIG_DFL)
    # A terminal's Ctrl-C is for the link, which lets tasks finish.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    for descriptor in set(inherited) - {sock.fileno(), 0, 1, 2}:
        with contextlib.suppress(OSError):
            os.close(descriptor)
    lifeline.cut_connections(keep=[sock.fileno()])


class Child:
    """Runs delivery rows of one app."""

    def __init__(self, app: "Chervil", node_name: str) -> None:
        self._tasks = app.tasks
        self._accept = frozenset(app.conf.accept_content)
        self._result_codec = app.conf.result_serializer
        self._ignore_result = app.conf.task_ignore_result
        self._node_name = node_name

    def serve(self, sock: socket.socket) -> None:
        """Answers each packet [row, deadline?, body_limit] with one [outcome, codec?, body?, options?].

        A packet is read when its task begins and not before: what is unread may be taken back. Returns
        when the link is gone. A copy of this process that a task has forked, and that comes back from the
        task, ends here: the packets and the answer belong to the original.
        """
        original = os.getpid()
        try:
            packets.send(sock, READY, b"")
            while (packet := packets.receive(sock)) is not None:
                parts = self.complete(*packets.unpack(packet.payload))
                if os.getpid() != original:
                    os._exit(0)
                packets.send(sock, packet.number, packets.pack(parts))
        except BrokenPipeError:
            return

    def complete(self, row: DeliveryRow, deadline: int | None, body_limit: int) -> completion.Parts:
        """Runs one delivery row: what came of it, always in a form that can be sent."""
        _, _, _, _, _, name, _, _, options, headers_body, codec, body = row[:12]
        task = self._tasks.get(name)
        if task is None:
            return self._refuse(row, NotRegistered(f"this worker has no task {name!r}"))
        if (deadline is not None or options) and completion.expired(options, deadline):
            return self._refuse(row, TaskRevokedError("expired before a process began it"), "expired")
        try:
            args, kwargs = decode(codec, body, self._accept)
            headers = None if headers_body is None else decode(codec, headers_body, self._accept)
            request = Request.from_delivery(row, args, kwargs, headers, self._node_name)
        except (DecodeError, TypeError, ValueError) as error:
            why = error if isinstance(error, DecodeError) else DecodeError(f"not [args, kwargs]: {error}")
            return self._refuse(row, why)
        begun = time.perf_counter()
        finished = execute(task, request)
        seconds = time.perf_counter() - begun
        try:
            if finished.outcome is Outcome.SUCCESS:
                if self._ignores_result(task, options):
                    parts = completion.success_without_result()
                else:
                    parts = completion.success(row, finished.value, self._result_codec, body_limit)
            elif finished.outcome is Outcome.RETRY:
                parts = completion.retry(task, request, row, finished, body_limit)
            else:
                parts = completion.failure(request, row, finished)
        except (EncodeError, TypeError, ValueError) as error:
            return self._refuse(row, error)
        _log_finished(request, finished, seconds)
        return parts

    def _ignores_result(self, task: "Task[..., Any]", options: dict[int, Any] | None) -> bool:
        """What the call said, else the task, else the app's setting."""
        said = options.get(TaskOption.IGNORE_RESULT) if options else None
        if said is None:
            said = task.ignore_result
        return bool(self._ignore_result if said is None else said)

    def _refuse(self, row: DeliveryRow, error: Exception, kind: str = "exception") -> completion.Parts:
        task_id = to_text(row[0])
        log.task.error(
            "%s[%s] failed: %s: %s",
            row[5],
            task_id,
            type(error).__name__,
            error,
            extra=_about(row[5], task_id),
        )
        return completion.refusal(row, error, kind)


def _log_finished(request: Request, finished: Finished, seconds: float) -> None:
    """One line, and none where its level is off: two calls are what an unlogged task pays."""
    level = logging.ERROR if finished.outcome is Outcome.FAILURE else logging.INFO
    if not log.task.isEnabledFor(level):
        return
    extra: dict[str, Any] = _about(request.task, request.id)
    extra["seconds"] = round(seconds, 6)
    if finished.outcome is Outcome.SUCCESS:
        log.task.info("%s[%s] succeeded in %.3fs", request.task, request.id, seconds, extra=extra)
    elif finished.outcome is Outcome.RETRY:
        log.task.info("%s[%s] retry: %s", request.task, request.id, finished.retry, extra=extra)
    else:
        error = finished.exception
        assert error is not None
        frames = error.__traceback__
        # Without the frame of `execute`, which tells the user nothing.
        shown = (type(error), error, frames.tb_next if frames else None)
        log.task.error(
            "%s[%s] failed: %s: %s", request.task, request.id, type(error).__name__, error,
            extra=extra, exc_info=shown,
        )  # fmt: skip


def _about(name: str | None, task_id: str | None) -> dict[str, Any]:
    return {"task_name": name, "task_id": task_id}
