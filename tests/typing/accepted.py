"""User code that both type checkers accept."""

import signal
from datetime import UTC, datetime, timedelta
from typing import Any, assert_type

from chervil import AsyncResult, Chervil, EagerResult, Task, current_app, exceptions, shared_task

app = Chervil("typing", broker="chervil://127.0.0.1:2437", include=["other"], task_default_queue="q")


@app.task
def add(x: int, y: int = 1) -> int:
    return x + y


@app.task()
def plain(text: str) -> str:
    return text


@app.task(name="mail", queue="mail", priority=9, max_retries=None, expires=timedelta(hours=1))
def mail(to: str, *, cc: str | None = None) -> None: ...


@app.task(
    acks_late=False, reject_on_worker_lost=False, delivery_limit=5, time_limit=timedelta(1), soft_time_limit=9
)
def careful(x: int) -> int:
    if x < 0:
        raise exceptions.Reject("negative", requeue=False)
    try:
        return x
    except exceptions.SoftTimeLimitExceeded:
        return 0


@app.task(bind=True, default_retry_delay=5)
def fetch(self: Task[..., Any], url: str) -> bytes:
    try:
        return url.encode()
    except OSError as error:
        raise self.retry(exc=error, countdown=2**self.request.retries) from error


@app.task(bind=True)
def untyped_self(self, x: int) -> int:  # type: ignore[no-untyped-def]
    return x


@app.task
async def twice(x: int) -> int:
    return 2 * x


@app.task(bind=True)
async def bound_twice(self: Task[..., Any], x: int) -> int:
    return 2 * x


@app.task(queue="slow")
async def slow_twice(x: int) -> int:
    return 2 * x


@shared_task
def shared(x: int) -> str:
    return str(x)


@shared_task(bind=True, name="s")
def shared_bound(self: Task[..., Any], x: int) -> str:
    return str(x)


@shared_task(queue="q")
async def shared_async(x: int) -> str:
    return str(x)


assert_type(add(1, 2), int)
assert_type(add.delay(1), AsyncResult[int])
assert_type(add.delay(1, y=2).get(timeout=5), int)
assert_type(plain.delay("x").get(), str)
assert_type(mail.delay("a", cc="b"), AsyncResult[None])
assert_type(fetch.delay("http://x").get(), bytes)
assert_type(fetch("http://x"), bytes)
assert_type(untyped_self.delay(1).get(), int)
assert_type(twice.delay(1).get(), int)
assert_type(bound_twice.delay(1).get(), int)
assert_type(slow_twice.delay(1), AsyncResult[int])
assert_type(shared.delay(1).get(), str)
assert_type(shared_bound.delay(1).get(), str)
assert_type(shared_async.delay(1).get(), str)
assert_type(add.apply([1]), EagerResult[int])
assert_type(add.apply([1]).get(), int)
assert_type(add.delay_many([(1, 2), (3,)], queue="q"), list[AsyncResult[int]])
assert_type(
    add.apply_async((1,), {"y": 2}, countdown=1.5, queue="q", priority=3, headers={"a": 1}), AsyncResult[int]
)
add.apply_async(eta=datetime.now(UTC), expires=timedelta(seconds=5), ignore_result=True, task_id="x")
assert_type(add.AsyncResult("id"), AsyncResult[int])
assert_type(app.send_task("other.task", [1], queue="q"), AsyncResult[Any])
assert_type(current_app.conf.task_default_queue, str)


async def in_coroutines() -> None:
    assert_type(await add.adelay(1, y=2), AsyncResult[int])
    assert_type(await twice.adelay(1), AsyncResult[int])
    assert_type(await bound_twice.adelay(1), AsyncResult[int])
    assert_type(await (await mail.adelay("a", cc="b")), None)
    assert_type(await (await plain.adelay("x")), str)
    assert_type(await (await plain.adelay("x")).aget(timeout=5), str)
    assert_type(await add.aapply_async((1,), {"y": 2}, countdown=1.5, queue="q"), AsyncResult[int])
    assert_type(await add.adelay_many([(1, 2), (3,)], queue="q"), list[AsyncResult[int]])
    async with app as entered:
        assert_type(entered, Chervil)


async def direct() -> None:
    assert_type(await twice(1), int)
    assert_type(await bound_twice(1), int)


def takes_any_task(task: Task[[int], int]) -> AsyncResult[int]:
    return task.delay(1)


takes_any_task(twice)


careful.apply_async((1,), time_limit=2.5, soft_time_limit=timedelta(seconds=2))
careful.delay(1).revoke(terminate=True, signal="KILL")
careful.delay(1).forget()
assert_type(app.control.revoke(["a", "b"], signal=signal.SIGTERM), int)
