from types import SimpleNamespace

import pytest

from chervil.protocol.messages import Completed, Error, Ok, Query, Revoke, Status
from chervil_broker.turns import join, split


def peer(part_ids: int) -> SimpleNamespace:
    return SimpleNamespace(part_ids=part_ids, parts={})


def ids(count: int) -> list[bytes]:
    return [bytes([number]) * 16 for number in range(count)]


@pytest.mark.parametrize(("count", "sizes"), [(4, [2, 2]), (5, [2, 2, 1])])
def test_a_request_becomes_requests_of_a_part_each(count, sizes):
    parts = list(split(Revoke(7, ids(count), True, 9), ids(count), peer(2)))
    assert [len(part.ids) for part in parts] == sizes
    assert [id_ for part in parts for id_ in part.ids] == ids(count)
    assert all(part._replace(ids=None) == Revoke(7, None, True, 9) for part in parts)


def test_a_part_is_as_long_as_its_peer_bears_just_then():
    asker = peer(1)
    parts = split(Query(7, ids(8)), ids(8), asker)
    sizes = []
    for part in parts:
        sizes.append(len(part.ids))
        asker.part_ids *= 2
    assert sizes == [1, 2, 4, 1]


def test_all_but_the_last_status_say_that_more_is_to_come():
    asker = peer(1)
    parts = split(Query(7, ids(2)), ids(2), asker)
    next(parts)
    row = [b"i", 0, None, None, None]
    # A part's answer may itself be too long for a frame.
    assert join(asker.parts, Status(7, [row], True)) == Status(7, [row], True)
    assert join(asker.parts, Status(7, [row])) == Status(7, [row], True)
    next(parts)
    assert join(asker.parts, Status(7, [row])) == Status(7, [row])
    assert asker.parts == {}


def test_parts_that_are_answered_together_are_told_apart():
    asker = peer(1)
    list(split(Query(7, ids(3)), ids(3), asker))
    assert [join(asker.parts, Status(7, [])).more for _ in range(3)] == [True, True, None]


def test_the_oks_of_all_parts_become_one_with_their_sum():
    asker = peer(1)
    list(split(Revoke(7, ids(3), False), ids(3), asker))
    assert join(asker.parts, Ok(7, 1)) is None
    assert join(asker.parts, Ok(7, None)) is None
    assert join(asker.parts, Ok(7, 1)) == Ok(7, 2)
    assert asker.parts == {}


@pytest.mark.parametrize("answer", [Ok(8, 1), Status(8, []), Completed(7)])
def test_answers_to_other_requests_are_left_alone(answer):
    asker = peer(1)
    list(split(Revoke(7, ids(3), False), ids(3), asker))
    assert join(asker.parts, answer) is answer


def test_a_part_that_is_refused_ends_its_request_with_one_answer():
    asker = peer(1)
    parts = split(Query(7, ids(4)), ids(4), asker)
    next(parts), next(parts), next(parts)
    assert join(asker.parts, Status(7, [])) == Status(7, [], True)
    refusal = Error(7, "FULL", "no room")
    assert join(asker.parts, refusal) is refusal
    assert list(parts) == []  # no more is taken
    assert join(asker.parts, Status(7, [])) is None  # of the part that was under way
    assert asker.parts == {}


def test_the_last_part_may_be_the_one_that_is_refused():
    asker = peer(1)
    parts = split(Revoke(7, ids(2), False), ids(2), asker)
    list(parts)
    assert join(asker.parts, Ok(7, 1)) is None
    refusal = Error(7, "FULL", "no room")
    assert join(asker.parts, refusal) is refusal
    assert asker.parts == {}


def test_an_error_that_ends_a_connection_is_no_parts_answer():
    asker = peer(1)
    list(split(Query(7, ids(2)), ids(2), asker))
    ending = Error(None, "SHUTDOWN", "bye")
    assert join(asker.parts, ending) is ending
    assert len(asker.parts) == 1
