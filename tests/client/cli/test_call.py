"""`chervil call`: what is checked, and what is sent."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from chervil.client import Status
from chervil.protocol import Stage, TaskOption, to_text
from chervil.serialization import decode, encode
from tests.client.cli.conftest import Broker, Ran

Run = Callable[..., Ran]

TASKS = """
from chervil import Chervil
app = Chervil("{name}")
@app.task
def add(x, y): return x + y
@app.task
def report(*values, **options): pass
"""


@pytest.fixture
def app(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[str]:
    """A module with an app in the working folder; its name is new for each test."""
    import sys

    name = f"tasks_{abs(hash(request.node.nodeid))}"
    Path(f"{name}.py").write_text(TASKS.format(name=name))
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield name
    sys.modules.pop(name, None)


def sent(broker: Broker) -> tuple[Any, ...]:
    """(name, queue, priority, options, args, kwargs) of the one task that was published."""
    ((_, name, queue, priority, options, _, codec, body),) = broker.published
    args, kwargs = decode(codec, body)
    return name, queue, priority, options or {}, args, kwargs


def test_without_an_app_the_task_goes_out_by_its_name(chervil: Run, broker: Broker) -> None:
    ran = chervil("call", "far.away", "2", "-3", "x=-4", "name=Ada", "-5.5")
    assert ran.code == 0
    assert sent(broker) == ("far.away", "default", 0, {}, [2, -3, -5.5], {"x": -4, "name": "Ada"})
    assert ran.out == to_text(broker.published[0][0]) + "\n"


def test_celerys_args_and_kwargs_stand_beside_typed_ones(chervil: Run, broker: Broker) -> None:
    chervil("call", "far.away", "-a", "[1, 2]", "-k", '{"x": 3}', "4", "y=5")
    assert sent(broker)[4:] == ([1, 2, 4], {"x": 3, "y": 5})


def test_options_travel_with_the_task(chervil: Run, broker: Broker) -> None:
    line = "--queue mail --priority 7 --countdown 1.5 --expires 60 --task-id mine"
    ran = chervil("call", "far.away", *line.split(), "-1")
    assert ran.out == "mine\n"
    assert sent(broker) == (
        "far.away", "mail", 7, {TaskOption.DELAY_MS: 1500, TaskOption.EXPIRES_MS: 60_000}, [-1], {},
    )  # fmt: skip


def test_an_id_that_is_known_is_told_on_stderr(chervil: Run, broker: Broker) -> None:
    broker.statuses = [Status("mine", Stage.SUCCESS, "json", encode("json", 5), {})]
    ran = chervil("call", "x", "--task-id", "mine", "--wait")
    assert ran == Ran(0, "5\n", "mine is known already; this is its result\n")
    assert chervil("call", "x", "--task-id", "mine").err == "mine is known already; this is its id\n"
    assert chervil("call", "x", "--task-id", "mine", "-q").err == ""
    broker.statuses = [Status("mine", Stage.UNKNOWN, None, None, {})]
    assert chervil("call", "x", "--task-id", "mine") == Ran(0, "mine\n", "")


def test_help_says_what_is_checked_and_what_a_known_id_does(chervil: Run) -> None:
    words = " ".join(chervil("call", "--help").out.split())
    assert "With -A the name and the number and names of the arguments are checked" in words
    assert "The broker makes no second task of an id that it knows" in words


def test_times_may_be_absolute(chervil: Run, broker: Broker) -> None:
    chervil("call", "x", "--eta", "2030-01-01T00:00:00", "--expires", "2030-01-01T01:00:00+01:00")
    assert sent(broker)[3] == {TaskOption.DUE_AT: 1893456000_000, TaskOption.EXPIRES_AT: 1893456000_000}


def test_json_prints_the_id_as_an_object(chervil: Run, broker: Broker) -> None:
    assert json.loads(chervil("call", "x", "--task-id", "mine", "--json").out) == {"id": "mine"}


def test_wait_prints_the_result(chervil: Run, broker: Broker) -> None:
    broker.statuses = [Status("i", Stage.SUCCESS, "json", encode("json", 5), {})]
    assert chervil("call", "x", "--wait", "--timeout", "2") == Ran(0, "5\n", "")
    assert broker.waited == [pytest.approx(2.0, abs=1.0)]


def test_with_an_app_the_task_is_known(chervil: Run, broker: Broker, app: str) -> None:
    assert chervil("-A", app, "call", f"{app}.add", "-2", "3").code == 0
    assert sent(broker)[4] == [-2, 3]


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("{app}.ad", "no task '{app}.ad' in this app. (Did you mean one of"),
        ("add", "Did you mean '{app}.add'?"),
        ("zzz", "It has: {app}.add, {app}.report."),
    ],
)
def test_a_mistyped_task_is_answered_with_the_near_ones(
    chervil: Run, broker: Broker, app: str, typed: str, message: str
) -> None:
    ran = chervil("-A", app, "call", typed.format(app=app))
    assert ran.code == 2
    assert message.format(app=app) in ran.err
    assert broker.published == []


def test_an_app_without_tasks_says_so(chervil: Run, broker: Broker, app: str) -> None:
    Path(f"{app}.py").write_text("from chervil import Chervil\napp = Chervil('x')\n")
    assert "It has none." in chervil("-A", app, "call", "add").err


def test_wrong_arguments_show_the_signature(chervil: Run, broker: Broker, app: str) -> None:
    ran = chervil("-A", app, "call", f"{app}.add", "2")
    assert ran.code == 2
    assert f"{app}.add(x, y): missing a required argument: 'y'" in ran.err
    assert broker.published == []


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (["x=1", "-k", '{"x": 2}'], "given twice, in --kwargs and as key=VALUE: x"),
        (["x=1", "x=2"], "x= is given twice"),
        (["-a", "{}"], "it wants a list, such as '[2, 3]'"),
        (["-k", "[1"], "is not JSON"),
        (["--countdown", "1", "--eta", "2030-01-01"], "--countdown and --eta both say when"),
        (["--countdown", "-1"], "-1.0 is not in the range"),
        (["--wait", "--timeout", "nan"], "Invalid value for '--timeout': nan is no number of seconds."),
        (["--countdown", "nan"], "Invalid value for '--countdown': nan is no number of seconds."),
        (["--eta", "soon"], "'soon' is no time"),
        (["--task-id", "x" * 200], "a task id is 1 to 128 bytes"),
        (["--quue", "x"], "No such option '--quue'. (Did you mean one of: '--queue', '--quiet'?)"),
        (["-x"], "No such option '-x'."),
    ],
)
def test_mistakes_are_named_and_nothing_is_sent(
    chervil: Run, broker: Broker, line: list[str], message: str
) -> None:
    ran = chervil("call", "far.away", *line)
    assert ran.code == 2
    assert message in ran.err
    assert "Traceback" not in ran.err
    assert broker.published == []


def test_text_that_looks_like_an_option_goes_after_two_dashes(chervil: Run, broker: Broker) -> None:
    chervil("call", "far.away", "--", "--queue", "-1")
    assert sent(broker)[4] == ["--queue", -1]


def test_a_timeout_is_for_publishing_and_waiting_together(chervil: Run, broker: Broker) -> None:
    broker.full_for = 0.2
    broker.statuses = [Status("mine", Stage.UNKNOWN, None, None, {})]
    chervil("call", "x", "--task-id", "mine", "--wait", "--timeout", "9")
    (waited,) = broker.waited
    assert waited is not None
    assert 2.0 < waited <= 8.8
    assert len(broker.deadlines) == 2
    assert all(2.0 < seconds <= 9 for seconds in broker.deadlines)


def test_without_a_timeout_publishing_takes_as_long_as_the_app_says(chervil: Run, broker: Broker) -> None:
    chervil("call", "x", "--wait")
    assert (broker.deadlines, broker.waited) == ([10.0], [None])


def test_a_timeout_of_nothing_still_publishes_and_asks(chervil: Run, broker: Broker) -> None:
    chervil("call", "x", "--wait", "--timeout", "0")
    assert (broker.deadlines, broker.waited) == ([0.1], [0.0])


@pytest.mark.parametrize("line", [["--wait", "--timeout", "3"], []])
def test_waiting_for_a_full_broker_is_told_on_a_terminal(
    chervil: Run, broker: Broker, monkeypatch: pytest.MonkeyPatch, line: list[str]
) -> None:
    broker.full_for = 0.0
    assert "full" not in chervil("call", "x", *line).err
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    seconds = 3 if line else 10
    assert chervil("call", "x", *line).err.startswith(
        f"the broker is full; waiting for room for up to {seconds} s\n"
    )
    assert "full" not in chervil("call", "x", "-q", *line).err
