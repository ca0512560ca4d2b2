"""What records add up to, one after the other."""

import pytest

from chervil.protocol import Stage, TaskOption
from chervil_broker.bodies import Bodies
from chervil_broker.engine.charges import options_bytes
from chervil_broker.engine.task import COMPLETED, NO_HANDLE, NOT_KEPT, TASK_OVERHEAD
from chervil_broker.journal import replay as replaying
from chervil_broker.journal.records import (
    Changed,
    Close,
    Completed,
    Evicted,
    Forgotten,
    Leased,
    Open,
    Published,
    Revoked,
    SessionEnded,
    SessionOpened,
    TaskState,
    Tick,
)
from chervil_broker.journal.replay import Replay
from tests.broker.engine.rig import MS

SINCE, AT_MS = 5000, 1_700_000_000_000
SESSION = SessionOpened(3, bytes(16), bytes(32), "w@h", "me", "token", False, "shop", 4)


def publish(*ids, options=None, name="add", place=1, at=SINCE):
    """A PUBLISH of these ids with a body of 10 bytes each."""
    rows = [[id_, place + n, options, b"0123456789"] for n, id_ in enumerate(ids)]
    return Published("shop", at, "me", AT_MS, [[name, "q", 2, rows]])


def state(id_="a", **fields):
    """A TASK record of a task that is QUEUED, but for these fields."""
    task = TaskState(
        id_, "add", "q", 0, None, 1, Stage.QUEUED.value, SINCE, 0, False, 0, 0, -1, None, None, "me", AT_MS,
        None, None, None, None, None, [None, "json", b"0123456789"], None,
    )  # fmt: skip
    return Changed("shop", task._replace(**fields))


def final(stage=Stage.REVOKED, **fields):
    given = {"ended_ms": 7, "ending": [stage.value, "revoked", "why"], "kept": 9} | fields
    return state(stage=stage.value, **given)


def play(*records):
    bodies = Bodies()
    replay = Replay(bodies)
    for record in records:
        replay.apply(record)
    return replay, bodies


def tasks(replay):
    return replay.vhosts["shop"].tasks


def only(*records):
    """The one task that these make, and the bodies."""
    replay, bodies = play(*records)
    (task,) = tasks(replay).values()
    assert len(bodies) == (task.handle != NO_HANDLE) + (task.result != NO_HANDLE), "nothing is left lying"
    return task, bodies


def test_published_task_is_as_it_came():
    options = {TaskOption.DELIVERY_LIMIT.value: 2}
    replay, bodies = play(publish("a", b"u" * 16, options=options))
    task, other = tasks(replay).values()
    assert (task.id, task.name, task.queue, task.priority, task.options) == ("a", "add", "q", 2, options)
    assert (task.stage, task.since, task.origin, task.sequence) == (Stage.QUEUED, SINCE, ("me", AT_MS), 1)
    assert (task.size, task.overhead) == (10 + options_bytes(options), TASK_OVERHEAD)
    assert bodies.task(task.handle) == (None, "json", b"0123456789")
    assert (other.id, replay.vhosts["shop"].sequence) == (b"u" * 16, 2)
    assert other.name is task.name
    assert other.origin is task.origin


def test_published_body_has_its_codec_and_headers_and_long_ids_their_weight():
    rows = [["x" * 100, 1, None, b"12", "msgpack", b"345"], ["b", 2, None, b"1", "msgpack"]]
    replay, bodies = play(Published("shop", 1, "me", 2, [["add", "q", 0, rows]]))
    first, second = tasks(replay).values()
    assert bodies.task(first.handle) == (b"345", "msgpack", b"12")
    assert bodies.task(second.handle) == (None, "msgpack", b"1")
    assert (first.size, second.size, second.overhead) == (5, 1, TASK_OVERHEAD)
    assert first.overhead > TASK_OVERHEAD


def test_leased_task_says_who_has_it_and_a_strange_one_is_passed_over():
    task, _ = only(publish("a"), Leased("shop", 3, "w@h", 9, AT_MS + 1, [["a", 2], ["strange", 1]]))
    assert (task.stage, task.lease, task.owner, task.worker) == (Stage.LEASED, 2, 3, "w@h")
    assert (task.since, task.delivered) == (9, AT_MS + 1)


@pytest.mark.parametrize("body", [None, b"42"])
def test_completed_task_has_its_result_and_nothing_more(body):
    options = {TaskOption.DELIVERY_LIMIT.value: 2, TaskOption.ORIGIN.value: "me"}
    past = [[[5, "revoke_asked", "me"]], 0, True, ["me", 9], 0]
    task, bodies = only(
        publish("a", options=options),
        state(past=past, times=[None, False, 99, True], body=0, options=options, result=["failure", b"why"]),
        Completed(
            "shop",
            3,
            1,
            9,
            8,
            [["a", 77, None if body is None else "json", body], ["strange", 7, None, None]],
        ),
    )
    assert (task.stage, task.owner, task.since, task.ended, task.kept) == (Stage.SUCCESS, COMPLETED, 9, 8, 77)
    assert (task.handle, task.size, task.times, task.ending) == (NO_HANDLE, 0, None, None)
    assert task.options == {TaskOption.DELIVERY_LIMIT.value: 2}
    assert (task.unusual.early, task.unusual.called_off, task.unusual.bytes > 0) == (False, None, True)
    assert task.result_size == len(body or b"")
    if body is not None:
        assert bodies.result(task.result) == ("json", body)


def test_success_of_a_task_with_nothing_unusual():
    task, _ = only(publish("a"), Completed("shop", 3, 1, 9, 8, [["a", 77, None, None]]))
    assert (task.stage, task.unusual) == (Stage.SUCCESS, None)


def test_task_record_says_everything():
    fields = {
        "priority": 4, "options": {10: True}, "place": 8, "stage": Stage.RETRY.value, "since": 6, "lease": 3,
        "redelivered": True, "attempts": 2, "retries": 1, "session": -1, "worker": "w@h", "delivered_ms": 5,
        "times": [11, True, 12, False], "result": ["failure", b"why"],
        "past": [[[5, "lost", "w@h", 1, "signal 9"]], 2, True, ["me", None], 3],
    }  # fmt: skip
    task, bodies = only(state(**fields))
    assert (task.priority, task.options, task.sequence, task.stage, task.since) == (
        4,
        {10: True},
        8,
        Stage.RETRY,
        6,
    )
    assert (task.lease, task.redelivered, task.attempts, task.retries) == (3, True, 2, 1)
    assert (task.owner, task.worker, task.delivered, task.origin) == (-1, "w@h", 5, ("me", AT_MS))
    times, past = task.times, task.unusual
    assert (times.due, times.due_wall, times.expires, times.expires_wall) == (11, True, 12, False)
    assert (times.due_timer, times.expires_timer) == (0, 0)
    assert (past.events, past.dropped, past.early) == ([(5, "lost", "w@h", 1, "signal 9")], 2, True)
    assert (past.called_off, past.sent_back, past.bytes) == (("me", None), 3, 450)
    assert bodies.result(task.result) == ("failure", b"why")
    assert (task.size, task.result_size) == (10 + options_bytes({10: True}), 3)


def test_final_task_has_its_end():
    task, bodies = only(final(body=[b"hh", "msgpack", b"1"]))
    assert (task.stage, task.ended, task.ending, task.kept) == (
        Stage.REVOKED, 7, (Stage.REVOKED, "revoked", "why"), 9
    )  # fmt: skip
    assert (task.size, bodies.task(task.handle)) == (3, (b"hh", "msgpack", b"1"))
    dead, _ = only(final(Stage.DEAD, result=[None, b"text"])._replace())
    assert dead.ending == (Stage.DEAD, "revoked", "why")
    lost, _ = only(state(stage=Stage.DEAD.value, ended_ms=7, ending=[Stage.DEAD.value, None, None]))
    assert lost.kept == NOT_KEPT
    done, _ = only(state(stage=Stage.SUCCESS.value, ended_ms=7, kept=9, body=None, options={16: 2, 9: "me"}))
    assert (done.ending, done.options, done.size) == (None, {16: 2}, 0)


def test_tasks_that_ended_alike_share_their_end_and_their_publisher():
    replay, _ = play(final(), final(id_="b"))
    first, second = tasks(replay).values()
    assert first.ending is second.ending
    assert first.origin is second.origin
    assert first.queue is second.queue


def test_body_and_result_that_were_told_before_are_kept():
    before = state(body=[b"h", "json", b"123"], result=["failure", b"why"], options={10: True})
    task, bodies = only(before, state(body=0, result=0, options={10: True, 12: True}))
    assert bodies.task(task.handle) == (b"h", "json", b"123")
    assert bodies.result(task.result) == ("failure", b"why")
    assert (task.size, task.result_size) == (4 + options_bytes({10: True, 12: True}), 3)
    task, bodies = only(before, state(body=[None, "json", b"1"], result=None))
    assert (bodies.task(task.handle), task.result, task.size) == ((None, "json", b"1"), NO_HANDLE, 1)


@pytest.mark.parametrize("field", ["body", "result"])
def test_task_whose_body_or_result_is_not_here_is_passed_over(field):
    replay, bodies = play(state(**{field: 0}))
    assert (tasks(replay), len(bodies)) == ({}, 0)


def test_whole_record_counts_whatever_was_before():
    task, _ = only(state(), state(place=9), publish("a", place=5), state(place=7))
    assert task.sequence == 7


def test_home_is_the_segment_of_the_newest_whole_record():
    replay, _ = play()
    for segment, record, home in (
        (1, publish("a"), 1),
        (2, state(body=0), 1),
        (3, state(body=0, result=["failure", b"1"]), 1),
        (4, state(body=0, result=0), 1),
        (5, state(result=0), 1),
        (6, state(result=["failure", b"2"]), 6),
        (7, Leased("shop", 3, "w@h", 1, 2, [["a", 1]]), 6),
        (8, publish("a"), 8),
    ):
        replay.segment = segment
        replay.apply(record)
        assert tasks(replay)["a"].home == home


def test_evicted_task_keeps_what_happened_to_it_alone():
    task, _ = only(
        final(result=["failure", b"why"], options={9: "me"}),
        Evicted("shop", ["a", "strange"]),
        Evicted("shop", ["a"]),
    )
    assert (task.stage, task.ending.stage, task.kept, task.size) == (Stage.EVICTED, Stage.REVOKED, 9, 0)
    assert task.handle == task.result == NO_HANDLE


def test_forgotten_task_is_gone_and_its_id_remembered_even_if_it_is_strange():
    replay, bodies = play(
        publish("a"), final(id_="b", result=["x", b"1"]), Forgotten("shop", 70, ["a", "b", "c"])
    )
    assert (tasks(replay), len(bodies)) == ({}, 0)
    assert replay.vhosts["shop"].forgotten == {"a": 70, "b": 70, "c": 70}
    assert replay.vhosts["shop"].sequence == 1, "no number is used again"


@pytest.mark.parametrize("again", [publish("a"), state()])
def test_id_that_is_used_again_is_no_longer_remembered(again):
    replay, _ = play(Forgotten("shop", 70, ["a", "b"]), Revoked("shop", "me", ["a", "c"]), again)
    known = replay.vhosts["shop"]
    assert ([*known.tasks], [*known.forgotten], [*known.revoked]) == (["a"], ["b"], ["c"])


def test_revoked_id_that_was_published_and_forgotten_at_once_is_not_to_be_revoked_again():
    replay, _ = play(Revoked("shop", "me", ["a", "b"]), Forgotten("shop", 70, ["a"]))
    assert [*replay.vhosts["shop"].revoked] == ["b"]


def test_id_that_is_revoked_again_is_the_newest():
    replay, _ = play(Revoked("shop", "me", ["a", "b"]), Revoked("shop", "you", ["a"]))
    assert list(replay.vhosts["shop"].revoked.items()) == [("b", "me"), ("a", "you")]


def test_sessions_are_known_with_their_newest_completion_until_their_end():
    other = SESSION._replace(number=5, vhost="mail")
    replay, _ = play(
        SESSION,
        other,
        Completed("shop", 3, 6, 1, 1, []),
        Completed("shop", 3, 5, 1, 1, []),
        Completed("shop", 9, 1, 1, 1, []),
        SessionEnded(5),
        SessionEnded(8),
    )
    assert replay.sessions == {3: SESSION._replace(sequence=6)}
    assert {*replay.vhosts} == {"shop", "mail"}, "of one with sessions alone, too"


def test_vhosts_are_kept_apart():
    replay, _ = play(publish("a"), publish("a", place=7)._replace(vhost="mail"), Evicted("mail", ["a"]))
    assert tasks(replay)["a"].stage == Stage.QUEUED
    assert replay.vhosts["mail"].tasks["a"].stage == Stage.EVICTED


def opened(boot="first", fsync="interval", now=1):
    return Open(bytes(16), boot, fsync, now, 2, "1")


@pytest.mark.parametrize(
    ("fsync", "boot", "flagged"),
    [
        ("interval", "other", True),
        ("off", "other", True),
        ("interval", "first", False),
        ("always", "other", False),
    ],
)
def test_tasks_are_flagged_where_a_lease_may_not_have_been_written(fsync, boot, flagged):
    records = (opened(fsync=fsync), publish("a"), final(id_="b"))
    for begin in (True, False):
        replay, _ = play(*records)
        if begin:
            replay.begin(boot)
        else:
            replay.apply(opened(boot, fsync))
            replay.apply(publish("c"))
            assert not tasks(replay)["c"].redelivered
        assert (tasks(replay)["a"].redelivered, tasks(replay)["b"].redelivered) == (flagged, False)


def test_nothing_is_flagged_in_an_empty_journal():
    replay, _ = play()
    replay.begin("first")
    assert (replay.opened, replay.vhosts) == (None, {})


def test_clocks_are_those_of_the_newest_record():
    replay, _ = play(Tick(5, 50))
    assert (replay.now, replay.wall, replay.clean) == (5, 50, False)
    replay.apply(Tick(4, 99))
    assert (replay.now, replay.wall) == (5, 50), "broker time does not go back"
    replay.apply(publish("a", at=SINCE))
    assert (replay.now, replay.wall) == (SINCE, AT_MS * MS)
    replay.apply(state(since=SINCE + 7))
    assert (replay.now, replay.wall) == (SINCE + 7, AT_MS * MS + 7)
    replay.apply(state(since=SINCE))
    replay.apply(Forgotten("shop", SINCE + 9, ["b"]))
    assert (replay.now, replay.wall) == (SINCE + 9, AT_MS * MS + 9)
    replay.apply(Close(SINCE + 10, 7))
    assert (replay.now, replay.wall, replay.clean) == (SINCE + 10, 7, True)
    replay.apply(opened(now=SINCE + 11))
    assert (replay.now, replay.clean, replay.opened) == (SINCE + 11, False, opened(now=SINCE + 11))


def test_what_is_shared_is_not_looked_up_for_ever(monkeypatch):
    monkeypatch.setattr(replaying, "_SHARED_MAX", 3)
    records = [
        final(id_=f"t{n}", name=f"n{n}", by=f"me{n}", ending=[Stage.REVOKED.value, None, f"{n}"])
        for n in range(30)
    ]
    replay, _ = play(*records)
    assert [task.ending.reason for task in tasks(replay).values()] == [str(n) for n in range(30)]
    assert max(map(len, (replay._texts, replay._overheads, replay._origins, replay._endings))) <= 4


def test_where_the_system_does_not_say_which_boot_it_is_it_may_be_another_one():
    replay, _ = play(opened(boot=""), publish("a"))
    replay.begin("")
    assert tasks(replay)["a"].redelivered
