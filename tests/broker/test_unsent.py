from chervil_broker.unsent import LOOKS_PER_LIMIT, Unsent

LIMIT = LOOKS_PER_LIMIT * 100


class Reader:
    """What an account sees of a peer: bytes that wait for it, and since when it has taken none."""

    def __init__(self, unsent: int, stalled: float = 0.0) -> None:
        self.unsent = unsent
        self._stalled = stalled
        self.told = ""

    def look(self, now: float) -> int:
        return self.unsent

    def stalled(self, now: float) -> float:
        return now - self._stalled

    def cut_off(self, why: str) -> None:
        self.told = why
        self.unsent = 0


def account(*readers: Reader) -> Unsent:
    return Unsent(dict(enumerate(readers)), LIMIT)


def test_what_is_handed_over_is_counted_once_it_is_a_part_of_the_limit():
    reader = Reader(LIMIT + 1)
    unsent = account(reader)
    unsent.add(100)
    assert (unsent.total, unsent.added) == (0, 100)
    unsent.add(1)
    assert (unsent.total, unsent.added) == (LIMIT + 1, 0)


def test_up_to_the_limit_nobody_is_cut_off():
    reader = Reader(LIMIT)
    unsent = account(reader)
    unsent.count()
    assert not unsent.too_much
    unsent.enforce(1.0)
    assert reader.told == ""


def test_over_it_those_go_for_whom_most_has_waited_for_longest():
    quick, slow, slower = Reader(LIMIT // 2 + 1), Reader(LIMIT // 2, 3.0), Reader(LIMIT // 2)
    quick.stalled = lambda now: 0.0
    unsent = account(quick, slow, slower)
    unsent.count()
    unsent.enforce(5.0)
    assert slower.told == (
        f"it does not read fast enough: {LIMIT // 2} bytes wait for it, and {LIMIT * 3 // 2 + 1} for all clients"
    )
    assert slow.told.endswith(f"and {LIMIT + 1} for all clients")
    assert quick.told == ""
    assert not unsent.too_much


def test_who_takes_a_byte_at_a_time_is_not_spared_for_it():
    trickle, quick = Reader(LIMIT, 9.99), Reader(LIMIT // 2, 10.0)
    unsent = account(trickle, quick)
    unsent.count()
    unsent.enforce(10.0)
    assert trickle.told
    assert quick.told == ""


def test_who_was_just_given_much_is_spared_before_those_who_have_not_read_for_a_second():
    burst, *sleepers = Reader(LIMIT // 2, 9.99), *(Reader(LIMIT // 20, 9.0) for _ in range(12))
    unsent = account(burst, *sleepers)
    unsent.count()
    unsent.enforce(10.0)
    assert burst.told == ""
    assert sum(bool(sleeper.told) for sleeper in sleepers) == 2
    assert not unsent.too_much


def test_what_was_taken_meanwhile_counts_no_more():
    reader = Reader(LIMIT + 1)
    unsent = account(reader)
    unsent.count()
    reader.unsent = 5
    unsent.enforce(1.0)
    assert (reader.told, unsent.total) == ("", 5)
