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
text: str = add.delay(1, 2).get()  # refused
number: int = twice(1)  # refused
wrong: str = twice.delay(1).get()  # refused
add.apply_async((1, 2), countdwn=5)  # refused
add.apply_async((1, 2), queue=5)  # refused
add.delay_many([(1, 2)], nonsense=True)  # refused
app.send_task("x", link=None)  # refused
app.task(queu="x")  # refused
shared_task(priority="high")  # refused
app.conf.task_default_priority = "high"  # refused
