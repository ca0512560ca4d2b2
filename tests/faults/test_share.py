import time

import pytest

from chervil.client import Status
from chervil.exceptions import ChervilError, OperationalError, PublishRefused, PublishUnconfirmed
from chervil.protocol import Stage
from tests.faults import share as module
from tests.faults.history import Told
from tests.faults.logbook import read_folder
from tests.faults.share import ATTEMPTS, BATCHES_MOST, Share


def make(folder, count: int = 100, seconds: float = 60.0) -> Share:
    return Share(folder, "p0", 1, count, time.monotonic() + seconds)


def play(share: Share, calls, *errors: ChervilError | None):
    """What was sent in each round while these errors were raised in turn, and what is to be waited for."""
    rounds = share.rounds(calls)
    sent = [next(rounds)]
    try:
        for error in errors:
            sent.append(rounds.send(error))  # noqa: PERF401  # the last one ends it
        while True:
            sent.append(rounds.send(None))
    except StopIteration as done:
        return sent, done.value


@pytest.fixture(autouse=True)
def no_luck(monkeypatch):
    """Nothing is repeated or waited for by lot."""
    monkeypatch.setattr(module, "REPEATED", 0)
    monkeypatch.setattr(module, "WAITED_FOR", 0)


def told(folder) -> list[Told]:
    return [publication.told for publication in read_folder(folder).publications]


def test_batches_have_all_numbers_once_and_end(tmp_path):
    share = make(tmp_path, 1000)
    batches = []
    while calls := share.batch():
        batches.append(calls)
    ids = [call.id for calls in batches for call in calls]
    assert len(set(ids)) == len(ids) == 1000
    assert max(map(len, batches)) <= max(BATCHES_MOST)
    assert {len(id_) == 36 for id_ in ids} == {True, False}


def test_pauses_spread_all_over_the_time_and_catch_up_where_it_is_late(tmp_path, monkeypatch):
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    share = make(tmp_path, 1000, seconds=100)
    assert share.pause() == 0
    while share._following < 500:
        share.batch()
    due = share._following / 10
    pauses = [share.pause() for _ in range(200)]
    assert 0 <= min(pauses) < due < max(pauses) <= 2 * due
    now += due + 1
    assert share.pause() == 0


def test_what_was_confirmed_is_noted_so(tmp_path):
    share = make(tmp_path)
    calls = share.batch() + share.batch()
    assert play(share, calls) == ([calls], [])
    assert told(tmp_path) == [Told.CONFIRMED] * len(calls)


def test_without_a_broker_the_same_is_sent_until_there_is_one_but_not_for_ever(tmp_path):
    share = make(tmp_path)
    calls = share.batch()
    away = OperationalError("no broker")
    assert play(share, calls, away, away) == ([calls] * 3, [])
    assert told(tmp_path) == len(calls) * 2 * [Told.REFUSED] + len(calls) * [Told.CONFIRMED]
    sent, _ = play(share, calls, *[away] * (ATTEMPTS - 1))
    assert len(sent) == ATTEMPTS


def test_each_is_noted_as_the_error_says(tmp_path, monkeypatch):
    share = make(tmp_path)
    calls = [share._draw(number) for number in range(3)]
    monkeypatch.setattr(share._random, "random", lambda: 0.9)
    play(share, calls, PublishUnconfirmed([calls[0].id], "no word", [calls[1].id]))
    play(share, calls, PublishRefused([calls[2].id], "FULL", "no room"))
    assert told(tmp_path) == [
        *(Told.UNCONFIRMED, Told.REFUSED, Told.CONFIRMED),
        *(Told.CONFIRMED, Told.CONFIRMED, Told.REFUSED),
    ]


def test_unconfirmed_ones_are_perhaps_sent_once_more(tmp_path, monkeypatch):
    share = make(tmp_path)
    calls = [share._draw(number) for number in range(3)]
    monkeypatch.setattr(share._random, "random", lambda: 0.4)
    sent, _ = play(share, calls, PublishUnconfirmed([calls[1].id], "no word", []))
    assert sent == [calls, [calls[1]]]


def test_confirmed_ones_are_perhaps_repeated_with_other_arguments_and_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "REPEATED", 1)
    monkeypatch.setattr(module, "WAITED_FOR", 1)
    share = make(tmp_path)
    calls = share.batch()
    sent, ids = play(share, calls)
    assert [(call.id, call.x - module.OTHER) for call in sent[1]] == [(call.id, call.x) for call in calls]
    assert ids == [call.id for call in calls]


def test_any_other_error_ends_the_publisher(tmp_path):
    share = make(tmp_path)
    with pytest.raises(ChervilError, match="odd"):
        play(share, share.batch(), ChervilError("odd"))


def test_a_later_life_goes_on_and_says_some_of_what_it_was_told_nothing_about_again(tmp_path, monkeypatch):
    first = make(tmp_path)
    known = [first._draw(number) for number in range(2)]
    play(first, known)
    next(first.rounds([first._draw(2)]))
    second = make(tmp_path, count=5)
    monkeypatch.setattr(second._random, "random", lambda: 0.4)
    assert [call.id for call in second.unsure()] == ["p0-2"]
    assert second.unsure() == []
    ids = []
    while calls := second.batch():
        ids += [call.id for call in calls]
    assert len(ids) == 2
    assert "p0-4" in ids


def test_settled_answers_of_a_wait_are_noted(tmp_path):
    make(tmp_path).given(
        [
            Status("a", Stage.SUCCESS, "json", b"4", {}),
            Status("b", Stage.FAILURE, None, None, {}),
            Status("c", Stage.QUEUED, None, None, {}),
        ]
    )
    assert [given[:3] for given in read_folder(tmp_path).given] == [
        ("a", "SUCCESS", 4),
        ("b", "FAILURE", None),
    ]


def test_rows_say_what_their_call_does(tmp_path):
    call = make(tmp_path)._draw(0)._replace(id="p0-0", task="short", x=21)
    assert call.row()[:4] == ["p0-0", "tests.faults.tasks.short", "default", 1]
    assert call.row()[4] is not None, "a delay"
    assert call.row()[5] is None
    assert call._replace(x=22).row()[4] is None
    assert len(call._replace(x=24).row()[5]) > 3000
