import pytest

from chervil.protocol import RemoteProtocolError
from chervil.protocol.messages import Completed, Error, Ok, Query, Revoke, Status
from chervil_broker.turns import CHANGE_COST, TURN_ROWS, Part, answers, changes, first_part, join


class Asker:
    """A peer that takes nothing by itself: its next parts are what a test takes."""

    def __init__(self):
        self.parts = {}
        self.rest = iter(())

    def take_next(self, parts):
        self.rest = parts


def ids(count: int) -> list[bytes]:
    return [bytes([number]) * 16 for number in range(count)]


def by(size):
    """A measure of so many ids a turn."""
    return lambda given, at: Part(given[at : at + size], 1)


def begun(message, size=1):
    asker = Asker()
    first_part(message, asker, by(size))
    return asker


@pytest.mark.parametrize(("count", "sizes"), [(4, [2, 2]), (5, [2, 2, 1]), (2, [2])])
def test_a_request_becomes_requests_of_a_part_each(count, sizes):
    asker = Asker()
    first = first_part(Revoke(7, ids(count), True, 9), asker, by(2))
    others = list(asker.rest)
    assert [len(first), *(len(part.ids) for part in others)] == sizes
    assert [*first, *(id_ for part in others for id_ in part.ids)] == ids(count)
    assert all(part._replace(ids=None) == Revoke(7, None, True, 9) for part in others)
    assert (7 in asker.parts) == (count > 2)


def test_an_id_that_is_named_twice_is_taken_once():
    assert first_part(Query(7, ids(3) + ids(3)), Asker(), by(10)) == ids(3)


def test_a_part_is_not_taken_apart_again():
    asker = begun(Query(7, ids(4)), 2)
    (part,) = asker.rest
    assert first_part(part, asker, by(1)) is part.ids


def test_a_request_whose_number_is_not_answered_yet_is_refused():
    asker = begun(Query(7, ids(4)), 2)
    with pytest.raises(RemoteProtocolError, match="request 7 is not answered yet"):
        first_part(Revoke(7, ids(1), False), asker, by(1))


def test_changes_are_a_turns_worth():
    part = changes([b"i"] * 10_000, 5)
    assert part.cost == TURN_ROWS == CHANGE_COST * len(part)
    assert changes([b"i"] * 3, 1).cost == 2 * CHANGE_COST


def test_small_answers_are_taken_by_their_number_and_large_ones_by_their_bytes():
    sizes = {b"small": 100, b"large": 300 * 1024, b"huge": 16 << 20}
    measure = answers(sizes.__getitem__)
    assert len(measure([b"small"] * 10_000, 0)) == TURN_ROWS
    assert len(measure([b"large"] * 10_000, 0)) == 4
    assert measure([b"small", b"huge", b"small"], 1) == [b"huge"]
    assert measure([b"small", b"large"], 0).cost == 1 + 301


def test_all_but_the_last_status_say_that_more_is_to_come():
    asker = begun(Query(7, ids(2)))
    row = [b"i", 0, None, None, None]
    # A part's answer may itself be too long for a frame.
    assert join(asker.parts, Status(7, [row], True)) == Status(7, [row], True)
    assert join(asker.parts, Status(7, [row])) == Status(7, [row], True)
    next(asker.rest)
    assert join(asker.parts, Status(7, [row])) == Status(7, [row])
    assert asker.parts == {}


def test_parts_that_are_answered_together_are_told_apart():
    asker = begun(Query(7, ids(3)))
    list(asker.rest)
    assert [join(asker.parts, Status(7, [])).more for _ in range(3)] == [True, True, None]


def test_the_oks_of_all_parts_become_one_with_their_sum():
    asker = begun(Revoke(7, ids(3), False))
    list(asker.rest)
    assert join(asker.parts, Ok(7, 1)) is None
    assert join(asker.parts, Ok(7, None)) is None
    assert join(asker.parts, Ok(7, 1)) == Ok(7, 2)
    assert asker.parts == {}


@pytest.mark.parametrize("answer", [Ok(8, 1), Status(8, []), Completed(7)])
def test_answers_to_other_requests_are_left_alone(answer):
    asker = begun(Revoke(7, ids(3), False))
    list(asker.rest)
    assert join(asker.parts, answer) is answer


def test_a_part_that_is_refused_ends_its_request_with_one_answer():
    asker = begun(Query(7, ids(4)))
    next(asker.rest), next(asker.rest)
    assert join(asker.parts, Status(7, [])) == Status(7, [], True)
    refusal = Error(7, "FULL", "no room")
    assert join(asker.parts, refusal) is refusal
    assert list(asker.rest) == []  # no more is taken
    assert join(asker.parts, Status(7, [])) is None  # of the part that was under way
    assert asker.parts == {}


def test_the_last_part_may_be_the_one_that_is_refused():
    asker = begun(Revoke(7, ids(2), False))
    list(asker.rest)
    assert join(asker.parts, Ok(7, 1)) is None
    refusal = Error(7, "FULL", "no room")
    assert join(asker.parts, refusal) is refusal
    assert asker.parts == {}


def test_an_error_that_ends_a_connection_is_no_parts_answer():
    asker = begun(Query(7, ids(2)))
    list(asker.rest)
    ending = Error(None, "SHUTDOWN", "bye")
    assert join(asker.parts, ending) is ending
    assert len(asker.parts) == 1
