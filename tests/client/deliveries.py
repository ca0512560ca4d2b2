"""Runs as a worker starts them: a delivery's row, made into a request."""

from chervil.execution import Finished, execute
from chervil.request import Request
from chervil.task import Task


def request_for(task: Task, *args, retries=0, options=None, headers=None, **kwargs) -> Request:
    row = ["id", 1, True, 2, retries, task.name, "q", 3, options, None, "json", b"", None]
    return Request.from_delivery(row, args, kwargs, headers, "w@h")


def run(task: Task, *args, **kwargs) -> Finished:
    return execute(task, request_for(task, *args, **kwargs))
