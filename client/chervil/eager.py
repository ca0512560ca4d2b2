"""Tasks that run at the call, without broker and worker."""

import socket
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from chervil.exceptions import Retry
from chervil.execution import Finished, execute
from chervil.protocol.ids import to_wire
from chervil.protocol.vocabulary import Outcome
from chervil.publishing import new_id
from chervil.request import Request
from chervil.result import EagerResult

if TYPE_CHECKING:
    from chervil.task import Task

R = TypeVar("R")


def apply(
    task: "Task[..., R]",
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    *,
    throw: bool | None,
    task_id: str | None,
    headers: Mapping[str, Any] | None,
) -> EagerResult[R]:
    """Runs a task here until it asks no more to run again; see `Task.apply`."""
    if throw is None:
        throw = task.app.conf.task_eager_propagates
    result_id = task_id or new_id()
    retries = 0
    while True:
        finished = execute(
            task, _request(task, args, kwargs, task_id=result_id, headers=headers, retries=retries)
        )
        if finished.retry is None:
            break
        retry: Retry = finished.retry
        args = args if retry.task_args is None else retry.task_args
        kwargs = kwargs if retry.task_kwargs is None else retry.task_kwargs
        headers = retry.options.get("headers", headers)
        retries += 1
    if throw and finished.exception is not None:
        raise finished.exception
    return _result(result_id, finished)


def _result(result_id: str, finished: Finished) -> EagerResult[Any]:
    if finished.outcome is Outcome.SUCCESS:
        return EagerResult(result_id, finished.value, "SUCCESS")
    return EagerResult(result_id, finished.exception, "FAILURE", finished.traceback)


def _request(
    task: "Task[..., Any]",
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    *,
    task_id: str,
    headers: Mapping[str, Any] | None,
    retries: int,
) -> Request:
    request = Request()
    request.id, request.wire_id, request.task = task_id, to_wire(task_id), task.name
    request.args, request.kwargs, request.headers = args, kwargs, headers
    request.retries = retries
    request.called_directly = False
    request.is_eager = True
    request.hostname = socket.gethostname()
    request.codec = task.serializer or task.app.conf.task_serializer
    return request
