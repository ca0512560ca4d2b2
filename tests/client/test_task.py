import asyncio
import inspect
import re
import threading
import uuid
from datetime import datetime

import pytest

from chervil import Chervil, current_task
from chervil.serialization import decode

NAIVE = datetime(1970, 1, 2)  # noqa: DTZ001  # naive is the point


@pytest.fixture
def add(app):
    @app.task
    def add(x: int, y: int = 1) -> int:
        """Adds."""
        return x + y

    return add


def published(broker):
    (row,) = broker.rows.values()
    return row


def test_a_task_is_its_function_and_looks_like_it(add):
    assert add(2, y=3) == 5
    assert (add.__name__, add.__doc__) == ("add", "Adds.")
    assert add.name == f"{__name__}.add"
    assert str(inspect.signature(add)) == "(x: int, y: int = 1) -> int"
    assert repr(add) == f"<Task {add.name}>"


def test_delay_publishes_a_row(add, broker):
    result = add.delay(2, y=3)
    id_, name, queue, priority, opts, headers, codec, body = published(broker)
    assert uuid.UUID(bytes=id_).version == 4
    assert str(uuid.UUID(bytes=id_)) == result.id
    assert (name, queue, priority, opts, headers, codec) == (add.name, "default", 0, None, None, "json")
    assert decode(codec, body) == [[2], {"y": 3}]


@pytest.mark.parametrize("call", [{"args": ()}, {"args": (1, 2, 3)}, {"kwargs": {"z": 1}}])
def test_arguments_that_do_not_fit_are_refused_before_anything_is_sent(add, broker, call):
    with pytest.raises(TypeError, match=re.escape(f"{add.name}(x: int, y: int = 1) -> int: ")):
        add.apply_async(**call)
    assert broker.counts["Publish"] == 0


def test_typing_false_lets_any_arguments_through(app, broker):
    @app.task(typing=False)
    def task(x): ...

    task.delay(1, 2, 3)
    assert decode("json", published(broker)[7])[0] == [1, 2, 3]


def test_a_bound_task_gets_itself(app):
    @app.task(bind=True)
    def task(self, x):
        return self, x

    assert task(1) == (task, 1)
    assert str(inspect.signature(task)) == "(x)"
    with pytest.raises(TypeError, match=r"\(x\): missing"):
        task.delay()


def test_called_directly_a_task_says_so(app):
    @app.task(bind=True)
    def inner(self):
        return self.request.called_directly, self.request.id, self.request.args

    @app.task(bind=True)
    def outer(self):
        return self.request.id, inner(), current_task.name

    assert inner() == (True, None, ())
    assert outer.apply(task_id="a").get() == ("a", (True, None, ()), outer.name)
    assert not current_task


def test_an_async_task_called_directly_is_a_coroutine(app):
    @app.task
    async def twice(x):
        return 2 * x

    assert asyncio.run(twice(2)) == 4
    assert twice.apply([2]).get() == 4


def test_threads_publish_at_once(add, broker):
    errors = []

    def run():
        try:
            for n in range(20):
                add.delay(n)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=run) for _ in range(15)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert errors == []
    assert len(broker.rows) == 300
    assert len(broker.hellos) <= 10


def test_changed_attributes_hold_at_once(add, broker):
    add.queue = "elsewhere"
    add.delay(1)
    assert published(broker)[2] == "elsewhere"


def test_an_attribute_that_cannot_travel_is_named(add, broker):
    add.queue = ""
    with pytest.raises(ValueError, match=f"task {add.name}: queue wants a text of 1 to 255 bytes, not ''"):
        add.delay(1)
    add.queue, add.priority = None, 10
    with pytest.raises(ValueError, match="priority wants an integer from 0 to 9, not 10"):
        add.delay(1)
    assert broker.counts["Publish"] == 0


def test_an_app_without_a_broker_url_takes_the_default(monkeypatch, tmp_path):
    app = Chervil("x")
    assert str(app.client.found.url) == "chervil://127.0.0.1:2437"
    monkeypatch.setenv("CHERVIL_BROKER_URL", "chervil://h:1")
    app.close()
    assert app.client.found.source == "environment CHERVIL_BROKER_URL"
