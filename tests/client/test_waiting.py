import logging

import pytest

from chervil import Chervil, watching
from chervil.client import Status
from chervil.protocol import Info, Stage
from chervil.protocol import messages as m
from chervil.waiting import describe, warn_of_waiting

ID = "3d56f326-34df-4540-ab63-1408aa5b92e4"
WIRE = bytes.fromhex(ID.replace("-", ""))


def at(stage, info):
    return Status(ID, stage, None, None, {int(key): value for key, value in info.items()})


def warned(caplog, app, *statuses):
    with caplog.at_level(logging.WARNING, "chervil"):
        warn_of_waiting(app, list(statuses))
    assert {record.levelname for record in caplog.records} <= {"WARNING"}
    return [record.getMessage() for record in caplog.records]


@pytest.mark.parametrize(
    ("stage", "info", "words"),
    [
        (
            Stage.QUEUED,
            {Info.QUEUE: "q", Info.WAITING_FOR: "no_consumer", Info.IN_STAGE_MS: 3000},
            "queued for 3 s; no worker consumes 'q'",
        ),
        (
            Stage.QUEUED,
            {Info.QUEUE: "q", Info.WAITING_FOR: "unknown_task", Info.NAME: "t"},
            "queued; no worker of 'q' knows the task 't'",
        ),
        (
            Stage.QUEUED,
            {Info.QUEUE: "q", Info.WAITING_FOR: "no_credit"},
            "queued; all workers of 'q' are busy",
        ),
        (
            Stage.QUEUED,
            {Info.WAITING_FOR: "new", Info.IN_STAGE_MS: 2400},
            "queued for 2 s; the broker's reason is 'new'",
        ),
        (Stage.QUEUED, {}, "queued"),
        (Stage.SCHEDULED, {Info.DUE_IN_MS: 1500}, "scheduled; due in 1.5 s"),
        (Stage.SCHEDULED, {Info.DUE_IN_MS: 0, Info.IN_STAGE_MS: 2000}, "scheduled; due now"),
        (Stage.RETRY, {Info.DUE_IN_MS: 900, Info.IN_STAGE_MS: 1400}, "waiting to be retried; due in 0.9 s"),
        (Stage.RETRY, {Info.WORKER: "w@h"}, "waiting to be retried"),
        (Stage.STARTED, {Info.WORKER: "w@h", Info.IN_STAGE_MS: 5000}, "running for 5 s on w@h"),
        (Stage.STARTED, {}, "running"),
        (Stage.LEASED, {Info.WORKER: "w@h", Info.IN_STAGE_MS: 2000}, "handed to w@h, not started for 2 s"),
        (Stage.LEASED, {}, "handed to a worker, not started"),
        (Stage.WAITING, {Info.IN_STAGE_MS: 2000}, "waiting for 2 s"),
    ],
)
def test_where_a_task_is_and_why_in_words(stage, info, words):
    assert describe(at(stage, info)) == words


@pytest.mark.parametrize(
    ("main", "info", "said"),
    [
        (
            "shop",
            {Info.QUEUE: "default", Info.WAITING_FOR: "no_consumer", Info.IN_STAGE_MS: 2000},
            "queued for 2 s; no worker consumes 'default'; start one: chervil -A shop worker",
        ),
        (
            "shop",
            {Info.QUEUE: "mail", Info.WAITING_FOR: "unknown_task", Info.NAME: "t"},
            "queued; no worker of 'mail' knows the task 't'; start one that does, or restart yours with the present code: chervil -A shop worker -Q mail",
        ),
        (
            None,
            {Info.QUEUE: "default", Info.WAITING_FOR: "no_consumer"},
            "queued; no worker consumes 'default'; start one: chervil -A MODULE worker",
        ),
        (
            "shop",
            {Info.QUEUE: "mail", Info.WAITING_FOR: "no_credit", Info.IN_STAGE_MS: 2000},
            "queued for 2 s; all workers of 'mail' are busy; it runs when its turn comes",
        ),
        (
            "shop",
            {Info.QUEUE: "mail", Info.WAITING_FOR: "new"},
            "queued; the broker's reason is 'new'",
        ),
    ],
)
def test_the_warning_names_task_reason_and_what_to_type(caplog, main, info, said):
    assert warned(caplog, Chervil(main), at(Stage.QUEUED, info)) == [f"task {ID}: {said}"]


@pytest.mark.parametrize("stage", [Stage.SCHEDULED, Stage.RETRY, Stage.LEASED, Stage.STARTED])
def test_only_a_ready_task_waits_for_a_worker(caplog, stage):
    status = at(stage, {Info.QUEUE: "default", Info.WAITING_FOR: "no_consumer"})
    assert "consumes" not in describe(status)
    assert warned(caplog, Chervil("shop"), status) == []


@pytest.mark.parametrize(
    ("stage", "info"),
    [
        (Stage.STARTED, {Info.WORKER: "w@h"}),
        (Stage.SCHEDULED, {Info.DUE_IN_MS: 5000}),
        (Stage.QUEUED, {Info.QUEUE: "default"}),
        (Stage.LEASED, {}),
    ],
)
def test_a_task_that_is_on_its_way_is_waited_for_in_silence(caplog, stage, info):
    assert warned(caplog, Chervil("shop"), at(stage, info)) == []


def test_each_task_that_waits_in_vain_has_its_warning(caplog):
    stuck = at(Stage.QUEUED, {Info.QUEUE: "a", Info.WAITING_FOR: "no_consumer"})
    said = warned(caplog, Chervil("shop"), stuck, at(Stage.STARTED, {}), stuck._replace(id="other"))
    assert [line.split(":")[0] for line in said] == [f"task {ID}", "task other"]


def test_a_get_in_vain_warns_once(app, broker, monkeypatch, caplog):
    monkeypatch.setattr(watching, "ASK_WHY_AFTER", 0.02)
    info = {int(Info.QUEUE): "default", int(Info.WAITING_FOR): "no_consumer"}
    broker.statuses[WIRE] = [WIRE, int(Stage.QUEUED), None, None, info]

    def answer_and_finish(peer, message):
        peer.send(m.Status(message.request, [broker.status(WIRE)]))
        broker.finish(WIRE, Stage.SUCCESS)
        return True

    broker.scripts[m.Query] = answer_and_finish
    with caplog.at_level(logging.WARNING, "chervil"):
        assert app.AsyncResult(ID).get(timeout=30) is None
    (record,) = caplog.records
    assert (record.name, record.getMessage()) == (
        "chervil",
        f"task {ID}: queued; no worker consumes 'default'; start one: chervil -A tests worker",
    )
