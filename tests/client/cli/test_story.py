"""A task's life in words: each event, each end, and what comes next."""

from typing import Any

import pytest

from chervil.cli.story import headline, prospect, tell

ID = "2f6c0c2e-5f5e-4b43-9a53-0f3e6f3c0a11"
#: 2026-01-31 12:00:00.000 UTC.
NOON = 1_769_860_800_000

pytestmark = pytest.mark.usefixtures("berlin")


def report(stage: str, *events: dict[str, Any], **more: Any) -> dict[str, Any]:
    timed = [{"at_ms": NOON + 100 * index, **event} for index, event in enumerate(events)]
    known = {"name": "tasks.add", "queue": "mail", "delivery_limit": 3, "dropped_events": 0}
    return {"id": ID, "stage": stage, **known, "events": timed, **more}


def event(name: str, **fields: Any) -> dict[str, Any]:
    return {"event": name, **fields}


@pytest.mark.parametrize(
    ("happened", "text"),
    [
        (event("published", by="web@host", queue="mail"), "published by web@host (queue mail)"),
        (event("scheduled", until_ms=NOON), "held until 2026-01-31 13:00:00.000"),
        (event("due"), "its time came: queued"),
        (event("delivered", worker="w@h", lease=1, redelivered=False), "delivered to w@h"),
        (event("delivered", worker="w@h", lease=2, redelivered=True), "delivered to w@h (redelivered)"),
        (event("started", worker="w@h"), "started on w@h"),
        (
            event("lost", worker="w@h", reason="SIGKILL (pid 4711)", attempts=1),
            "its process died: SIGKILL (pid 4711); attempt 1 of 3 lost",
        ),
        (
            event(
                "lost",
                reason="SIGKILL (pid 7), perhaps by the system for want of memory, on attempt 1",
                attempts=1,
            ),
            "its process died: SIGKILL (pid 7), perhaps out of memory; attempt 1 of 3 lost",
        ),
        (event("session_lost", worker="w@h", attempts=0), "its worker was lost: w@h; it cost no attempt"),
        (event("session_lost", worker="w@h"), "its worker was lost: w@h"),
        (event("released", worker="w@h", reason="it stops"), "given back by w@h: it stops"),
        (event("released", worker=None, reason=None), "given back by a worker"),
        (
            event("retry", worker="w@h", reason="OSError: x", until_ms=NOON),
            "asked to run again: OSError: x; held until 2026-01-31 13:00:00.000",
        ),
        (event("retry", worker="w@h", reason=None, until_ms=None), "asked to run again"),
        (event("revoke_asked", by="op@h"), "called off by op@h while a worker had it"),
        (event("rerun", by="op@h"), "queued anew by op@h"),
        (event("ended", stage="SUCCESS", worker="w@h", reason=None), "succeeded on w@h"),
        (
            event("ended", stage="FAILURE", worker="w@h", reason="ValueError: x"),
            "failed on w@h: ValueError: x",
        ),
        (
            event("ended", stage="DEAD", worker=None, reason="no worker knows it"),
            "parked: no worker knows it",
        ),
        (
            event("ended", stage="DEAD", reason="SIGKILL (pid 7), perhaps by the system for want of memory"),
            "parked: SIGKILL (pid 7), perhaps out of memory",
        ),
        (event("ended", stage="REVOKED", worker=None, reason="op@h"), "revoked: op@h"),
        (event("ended", stage="EXPIRED", worker=None, reason=None), "expired"),
        (event("ended", stage="LAUNCHED", worker=None), "ended: stage=LAUNCHED, worker=None"),
        (event("moved", to="mars", far=True), "moved: to=mars, far=True"),
        (event("moved"), "moved"),
    ],
)
def test_each_event_is_told_in_words_and_an_unknown_one_as_it_came(
    happened: dict[str, Any], text: str
) -> None:
    (told,) = tell(report("QUEUED", happened))
    assert told.text == text
    assert (told.time, told.after) == ("2026-01-31 13:00:00.000", "")


def test_distances_are_to_the_event_before() -> None:
    lines = list(tell(report("QUEUED", event("published"), event("due"), event("due", at_ms=NOON + 2000))))
    assert [line.after for line in lines] == ["", "+100 ms", "+1.9 s"]


def test_an_event_without_a_time_is_told_and_does_not_count() -> None:
    lines = list(tell(report("QUEUED", event("due"), event("due", at_ms=None), event("due"))))
    assert [(line.time, line.after) for line in lines] == [
        ("2026-01-31 13:00:00.000", ""),
        ("None", ""),
        ("2026-01-31 13:00:00.200", "+200 ms"),
    ]


def test_attempts_are_counted_anew_after_a_rerun() -> None:
    lines = tell(
        report(
            "QUEUED",
            event("lost", reason="SIGKILL", attempts=1),
            event("session_lost", worker="w@h", attempts=1),
            event("rerun", by="op@h"),
            event("lost", reason="SIGSEGV", attempts=1),
        )
    )
    assert [line.text.partition("; ")[2] for line in lines] == [
        "attempt 1 of 3 lost",
        "it cost no attempt",
        "",
        "attempt 1 of 3 lost",
    ]


@pytest.mark.parametrize("loss", ["lost", "session_lost"])
def test_no_attempts_are_counted_where_none_follows(loss: str) -> None:
    """With `acks_late=False` and `reject_on_worker_lost=False` the first loss is the end."""
    lost = event(loss, worker="w@h", reason="SIGKILL", attempts=1)
    first, _ = tell(report("FAILURE", lost, event("ended", stage="FAILURE", reason="SIGKILL")))
    assert first.text.endswith(("SIGKILL; it is not run again", "w@h; it is not run again"))
    first, _ = tell(report("DEAD", lost, event("ended", stage="DEAD", reason="SIGKILL")))
    assert first.text.endswith("; attempt 1 of 3 lost")


@pytest.mark.parametrize("stage", ["LEASED", "STARTED"])
def test_a_worker_that_is_away_is_told_with_how_long_it_may_be(stage: str) -> None:
    text = prospect(report(stage, worker="w@h"), "proj", away=True)
    assert text.endswith(
        "; that worker has lost the connection, and the task is kept for it for up to 5 s after a connection "
        "that closed, 30 s after silence"
    )


def test_a_gap_is_told_and_nothing_is_concluded_across_it() -> None:
    events = [event("due")] * 8 + [event("lost", reason="SIGKILL", attempts=2)]
    lines = list(tell(report("QUEUED", *events, dropped_events=40)))
    assert lines[8].text == "(40 events in between were not kept)"
    assert lines[8].time == ""
    assert lines[9].text == "its process died: SIGKILL; attempts lost so far: 2 of 3"


def test_headline_says_which_task_and_where_it_is() -> None:
    assert headline(report("DEAD")) == f"Task tasks.add[{ID}] in queue mail: DEAD"
    assert headline({"id": ID, "stage": "EVICTED"}) == f"Task {ID}: EVICTED"


@pytest.mark.parametrize(
    ("now", "text"),
    [
        (
            report("QUEUED", waiting_for="no_consumer"),
            "Now: queued; no worker consumes 'mail'; start one: chervil -A proj worker -Q mail",
        ),
        (
            report("QUEUED", waiting_for="unknown_task"),
            "Now: queued; no worker of 'mail' knows the task 'tasks.add'; start one that does, or restart yours with the present code: chervil -A proj worker -Q mail",
        ),
        (
            report("QUEUED", waiting_for="no_credit"),
            "Now: queued; all workers of 'mail' are busy; it runs when its turn comes",
        ),
        (report("QUEUED"), "Now: queued"),
        (report("RETRY", due_in_ms=30_000), f"Now: waiting to be retried; due in 30.0 s; call it off: chervil revoke {ID}"),
        (report("SCHEDULED", due_in_ms=5000), f"Now: scheduled; due in 5.0 s; call it off: chervil revoke {ID}"),
        (report("LEASED", worker="w@h"), "Now: handed to w@h, not started"),
        (report("STARTED", worker="w@h"), f"Now: running on w@h; end it: chervil revoke --terminate {ID}"),
        (report("SUCCESS"), f"It is done. Its result: chervil result {ID}"),
        (
            report("FAILURE", error={"kind": "exception", "type": "ValueError", "message": "x"}),
            f"What it raised: chervil result {ID}; run it again: chervil retry {ID}",
        ),
        (report("FAILURE", error={"kind": "lost"}), f"Run it again: chervil retry {ID}"),
        (report("FAILURE", error={"kind": "time_limit"}), f"Run it again: chervil retry {ID}"),
        (report("FAILURE", error=None), f"Run it again: chervil retry {ID}"),
        (
            report("DEAD"),
            f"It stays parked until somebody runs it again or drops it: chervil retry {ID}, or chervil forget {ID}",
        ),
        (report("REVOKED"), f"It will not run, unless somebody has it run after all: chervil retry {ID}"),
        (report("EXPIRED"), f"It will not run, unless somebody has it run after all: chervil retry {ID}"),
        (report("HIBERNATING"), ""),
    ],
)  # fmt: skip
def test_the_last_line_says_what_it_waits_for_and_what_to_do(now: dict[str, Any], text: str) -> None:
    assert prospect(now, "proj") == text


@pytest.mark.parametrize(
    ("pids", "worker"), [([], "w@h"), ([4711], "w@h (pid 4711)"), ([4711, 4712], "w@h (pid 4711 or 4712)")]
)
def test_workers_of_one_name_are_told_apart_by_their_pids(pids: list[int], worker: str) -> None:
    text = prospect(report("STARTED", worker="w@h"), "proj", pids=pids)
    assert text == f"Now: running on {worker}; end it: chervil revoke --terminate {ID}"


def test_an_evicted_task_whose_story_is_kept_has_its_result_explained() -> None:
    assert prospect(report("EVICTED"), None) == (
        "Its result and its arguments were dropped, for room or because their time was over. "
        "To run it again, publish it anew under another id."
    )


def test_a_forgotten_task_is_told_to_have_nothing_left_and_no_other_command_is_named() -> None:
    text = prospect({"id": ID, "stage": "EVICTED"}, None)
    assert text.startswith("It ended, and nothing else is kept of it: somebody forgot it, or it was dropped")
    assert "chervil" not in text
