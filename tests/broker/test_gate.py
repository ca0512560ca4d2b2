from chervil_broker.gate import Gate


def test_what_rests_on_durable_records_leaves_at_once():
    gate = Gate()
    out = []
    gate.open_to(3)
    gate.hold(3, lambda: out.append("a"))
    assert out == ["a"]


def test_what_is_not_durable_yet_waits_and_leaves_in_order():
    gate = Gate()
    out = []
    for sequence, name in ((1, "a"), (2, "b"), (2, "c"), (3, "d")):
        gate.hold(sequence, lambda name=name: out.append(name))
    assert out == []
    assert len(gate) == 4
    gate.open_to(2)
    assert out == ["a", "b", "c"]
    gate.open_to(3)
    assert out == ["a", "b", "c", "d"]


def test_nothing_overtakes_what_is_held():
    gate = Gate()
    out = []
    gate.hold(1, lambda: out.append("first"))
    gate.hold(0, lambda: out.append("second"))
    assert out == []
    gate.open_to(1)
    assert out == ["first", "second"]


def test_once_shut_nothing_is_released_however_durable():
    gate, out = Gate(), []
    gate.open_to(1)
    gate.hold(2, lambda: out.append(2))
    gate.shut()
    gate.hold(1, lambda: out.append(1))
    gate.open_to(5)
    assert (out, len(gate)) == ([], 2)
