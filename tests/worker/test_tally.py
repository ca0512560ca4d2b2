from chervil_worker.tally import NAMED_MAX, Tally


def test_nothing_is_told_as_a_number():
    assert not Tally()
    assert str(Tally()) == "0"


def test_a_few_are_all_named():
    tally = Tally([b"\0" * 16, "order-7"])
    assert tally
    assert (tally.count, str(tally)) == (2, "2 (00000000-0000-0000-0000-000000000000, order-7)")


def test_of_many_the_first_are_named():
    tally = Tally(f"t{number}" for number in range(NAMED_MAX))
    tally.add("one-more")
    assert str(tally) == "4 (t0, t1, t2, ...)"
