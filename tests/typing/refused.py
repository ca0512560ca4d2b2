"""User code that both type checkers refuse, in just the lines that say so."""

from typing import Any

from chervil import Chervil, Task, shared_task

app = Chervil("typing")


@app.task
def add(x: int, y: int) -> int:
    return x + y


@app.task(bind=True)
def bound(self: Task[..., Any], x: int) -> int:
    return x


@app.task
async def twice(x: int) -> int:
    return 2 * x


@shared_task
def shared(x: int) -> str:
    return str(x)


add.delay("x", 1)  # refused
add.delay(1)  # refused
add.delay(1, 2, 3)  # refused
add.delay(1, z=2)  # refused
add("x", 1)  # refused
bound.delay("x")  # refused
bound.delay(None, 1)  # refused
twice.delay("x")  # refused
shared.delay("x")  # refused
words: str = add.delay(1, 2).get()  # refused
amount: int = twice(1)  # refused
wrong: str = twice.delay(1).get()  # refused
add.apply_async((1, 2), countdwn=5)  # refused


async def in_coroutines() -> None:
    await add.adelay("x", 1)  # refused
    await bound.adelay(None, 1)  # refused
    await add.aapply_async((1, 2), countdwn=5)  # refused
    await add.adelay_many([(1, 2)], nonsense=True)  # refused


async def text() -> str:
    return await (await add.adelay(1, 2))  # refused


async def number() -> int:
    return await add.adelay(1, 2)  # refused


add.apply_async((1, 2), queue=5)  # refused
add.delay_many([(1, 2)], nonsense=True)  # refused
app.send_task("x", link=None)  # refused
app.task(queu="x")  # refused
shared_task(priority="high")  # refused
app.conf.task_default_priority = "high"  # refused


add.apply_async((1, 2), time_limit="5")  # refused
add.delay(1).revoke(terminated=True)  # refused
app.control.inspect()  # refused
