"""`chervil why`: the whole story on a screen, and what it is for unknown tasks."""

import json
from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest

from chervil.protocol import messages as m
from tests.client.cli.conftest import Broker, Ran
from tests.client.fakes import FakeBroker, Peer

Run = Callable[..., Ran]
ID = "2f6c0c2e-5f5e-4b43-9a53-0f3e6f3c0a11"
#: 2026-01-31 13:03:07.120 UTC.
START = 1_769_864_587_120
W = "worker1@host"


def died_twice() -> dict[str, Any]:
    """The life of a task with a delivery limit of 2 that killed its process each time."""
    happened: list[tuple[int, str, dict[str, Any]]] = [
        (0, "published", {"by": "web@host", "queue": "default"}),
        (5, "delivered", {"worker": W, "lease": 1, "redelivered": False}),
        (10, "started", {"worker": W}),
        (1881, "lost", {"worker": W, "reason": "SIGKILL (pid 4711)", "attempts": 1}),
        (1885, "delivered", {"worker": W, "lease": 2, "redelivered": True}),
        (4180, "lost", {"worker": W, "reason": "SIGKILL (pid 4712)", "attempts": 2}),
        (4180, "ended", {"stage": "DEAD", "worker": W, "reason": "WorkerLostError: SIGKILL (pid 4712)"}),
    ]
    return {
        "id": ID,
        "stage": "DEAD",
        "name": "tasks.add",
        "queue": "default",
        "delivery_limit": 2,
        "events": [{"at_ms": START + at, "event": name, **more} for at, name, more in happened],
        "dropped_events": 0,
    }


@pytest.mark.usefixtures("berlin")
def test_a_task_that_died_twice_and_was_parked_has_its_story_told(chervil: Run, broker: Broker) -> None:
    broker.life = died_twice()
    ran = chervil("why", ID)
    assert (ran.code, ran.err) == (0, "")
    what_to_do = f"chervil retry {ID}, or chervil forget {ID}"
    assert ran.out.splitlines() == [
        f"Task tasks.add[{ID}] in queue default: DEAD",
        "2026-01-31 14:03:07.120          published by web@host (queue default)",
        "2026-01-31 14:03:07.125   +5 ms  delivered to worker1@host",
        "2026-01-31 14:03:07.130   +5 ms  started on worker1@host",
        "2026-01-31 14:03:09.001  +1.9 s  its process died: SIGKILL (pid 4711); attempt 1 of 2 lost",
        "2026-01-31 14:03:09.005   +4 ms  delivered to worker1@host (redelivered)",
        "2026-01-31 14:03:11.300  +2.3 s  its process died: SIGKILL (pid 4712); attempt 2 of 2 lost",
        "2026-01-31 14:03:11.300   +0 ms  parked: WorkerLostError: SIGKILL (pid 4712)",
        f"It stays parked until somebody runs it again or drops it: {what_to_do}",
    ]


def test_a_narrow_screen_wraps_under_the_text(
    chervil: Run, broker: Broker, screen: Callable[[int], None]
) -> None:
    screen(80)
    broker.life = died_twice()
    lines = chervil("why", ID).out.splitlines()
    assert max(map(len, lines)) <= 80
    at = next(number for number, line in enumerate(lines) if "its process died" in line)
    assert lines[at + 1] == " " * 33 + "of 2 lost"


def test_names_and_reasons_do_not_steer_the_terminal(chervil: Run, broker: Broker) -> None:
    broker.life = died_twice() | {"name": "\x1b[2Jtasks\u202e"}
    broker.life["events"][0]["by"] = "\x1b]0;x\x07\n"
    ran = chervil("why", ID)
    assert ran.out.startswith(f"Task \\x1b[2Jtasks\\u202e[{ID}]")
    assert "published by \\x1b]0;x\\x07\\n (queue" in ran.out


def test_a_stage_of_a_newer_broker_has_no_last_line(chervil: Run, broker: Broker) -> None:
    broker.life = died_twice() | {"stage": "HIBERNATING"}
    assert "parked" in chervil("why", ID).out.splitlines()[-1]


def test_json_is_the_brokers_report(chervil: Run, broker: Broker) -> None:
    broker.life = died_twice()
    assert json.loads(chervil("why", ID, "--json").out) == broker.life


CALL = {"codec": "json", "body": b'[[2, "\\u001b[2J"], {"x": 1}]', "body_bytes": 30}


def test_what_it_was_called_with_is_told_and_steers_nothing(
    chervil: Run, broker: Broker, screen: Callable[[int], None]
) -> None:
    broker.life = died_twice() | CALL
    assert chervil("why", ID).out.splitlines()[1] == "Called with: (2, '\\x1b[2J'), x=1"
    screen(20)
    assert "Called with: (2, ..." in chervil("why", ID).out.splitlines()


def test_json_has_the_arguments_in_place_of_the_body(chervil: Run, broker: Broker) -> None:
    broker.life = died_twice() | CALL
    told = json.loads(chervil("why", ID, "--json").out)
    assert (told["args"], told["kwargs"]) == ([2, "\x1b[2J"], {"x": 1})
    assert (told["codec"], told["body_bytes"]) == ("json", 30)
    assert "body" not in told


def test_a_running_task_is_told_with_the_pids_that_may_have_it(chervil: Run, broker: Broker) -> None:
    broker.life = died_twice() | {"stage": "STARTED", "worker": W}
    names = [(W, 4711, 1), (W, 4712, 0), ("other@host", 4713, 1), (W, None, 1)]
    broker.report["workers"] = [dict(zip(("name", "pid", "leased"), each, strict=True)) for each in names]
    assert f"running on {W} (pid 4711);" in chervil("why", ID).out


def test_who_may_not_ask_for_statistics_is_told_the_life_all_the_same(chervil: Run, broker: Broker) -> None:
    broker.life = died_twice() | {"stage": "STARTED", "worker": W}
    broker.forbids_stats = True
    ran = chervil("why", ID)
    assert (ran.code, ran.err) == (0, "")
    assert f"running on {W};" in ran.out


def test_an_unknown_task_is_69(chervil: Run, broker: Broker) -> None:
    ran = chervil("why", ID)
    assert (ran.code, ran.out) == (69, "")
    assert ran.err.startswith(f"Error: chervil://127.0.0.1:2437 (from default) knows no task {ID}.")
    ran = chervil("why", ID, "--json")
    assert (ran.code, json.loads(ran.out)) == (69, {"id": ID, "stage": "UNKNOWN"})


def test_an_evicted_task_is_explained(chervil: Run, broker: Broker) -> None:
    broker.life = {"id": ID, "stage": "EVICTED"}
    ran = chervil("why", ID)
    assert ran.code == 0
    assert ran.out.startswith(f"Task {ID}: EVICTED\nIt ended, and nothing else is kept of it")


def test_an_unregistered_task_waits_and_then_is_parked_with_the_near_names(
    chervil: Run, broker: Broker
) -> None:
    broker.life = died_twice() | {"stage": "QUEUED", "waiting_for": "unknown_task", "name": "tasks.ad"}
    assert "no worker of 'default' knows the task 'tasks.ad'; start one that does" in chervil("why", ID).out
    broker.life["events"][-1]["reason"] = "no worker of 'default' knows 'tasks.ad' (near: tasks.add)"
    assert "parked: no worker of 'default' knows 'tasks.ad' (near: tasks.add)" in chervil("why", ID).out


def test_the_verbs_of_a_tasks_life_ask_the_broker_over_the_wire(chervil: Run) -> None:
    fake = FakeBroker()
    letters = [{"id": str(number), "name": "tasks.add", "since_ms": START} for number in range(3)]
    asked: list[Any] = []

    def answer(peer: Peer, message: Any) -> bool:
        asked.append(message._replace(request=0))
        match message:
            case m.History():
                peer.send(m.Report(message.request, died_twice()))
            case m.List(cursor=None):
                peer.send(m.Report(message.request, {"tasks": letters[:2], "cursor": "2"}))
            case m.List():
                peer.send(m.Report(message.request, {"tasks": letters[2:], "cursor": None}))
            case _:
                peer.send(m.Ok(message.request, len(message.ids)))
        return True

    fake.scripts = dict.fromkeys([m.History, m.List, m.Rerun, m.Revoke, m.Forget], answer)
    try:
        at = ("-b", str(fake.url))
        assert "parked" in chervil("why", ID, *at).out
        listed = chervil("list", "dead", "--json", *at).out.splitlines()
        assert [json.loads(line) for line in listed] == letters
        assert chervil("retry", "--dead", "--yes", *at).out == "3 tasks run again.\n"
        assert chervil("revoke", "a", "--terminate", "--signal", "KILL", *at).code == 0
        assert chervil("forget", "a", "b", *at).out == "Dropped 2 tasks.\n"
    finally:
        fake.close()
    assert asked[0] == m.History(0, UUID(ID).bytes)
    assert [type(message) for message in asked[1:5]] == [m.List] * 4
    assert asked[5:] == [
        m.Rerun(0, ["0", "1", "2"]),
        m.Revoke(0, ["a"], terminate=True, signal=9),
        m.Forget(0, ["a"]),
        m.Forget(0, ["b"]),
    ]


@pytest.mark.parametrize(
    ("stage", "stats", "away"),
    [
        ("STARTED", {"suspended": 1, "workers": [{"name": "other@host"}]}, True),
        ("LEASED", {"suspended": 1, "workers": []}, True),
        ("STARTED", {"suspended": 1, "workers": [{"name": W}]}, False),
        ("STARTED", {"suspended": 0, "workers": []}, False),
        ("QUEUED", {"suspended": 1, "workers": []}, False),
    ],
)
def test_a_worker_that_has_it_and_lost_its_connection_is_told(
    chervil: Run, broker: Broker, stage: str, stats: dict[str, Any], away: bool
) -> None:
    broker.life = {**died_twice(), "stage": stage, "worker": W}
    broker.report |= stats
    assert ("that worker has lost the connection" in chervil("why", ID).out) is away
