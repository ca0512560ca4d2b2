from chervil_broker.engine.consumers import Line, Session


def session(number, credit=1):
    made = Session(number, f"w{number}", 0, 65_536, 8_000_000)
    made.limit = credit
    return made


def test_queues_take_turns_at_being_first():
    one = session(1)
    one.queues = ["a", "b", "c"]
    assert [one.queues_in_turn() for _ in range(4)] == [
        ["a", "b", "c"],
        ["b", "c", "a"],
        ["c", "a", "b"],
        ["a", "b", "c"],
    ]


def test_line_serves_in_turn_and_parks_each_once():
    line = Line(None)
    first, second = session(1, credit=2), session(2)
    line.park(first)
    line.park(second)
    line.park(first)
    assert line.next() is first
    first.delivered = 1
    line.served()
    assert line.next() is second
    second.delivered = 1
    line.served()
    assert list(line.waiting) == [first]
    second.limit = 2
    line.park(second)
    assert list(line.waiting) == [first, second]


def test_line_drops_whoever_has_no_credit_left():
    line = Line(None)
    poor = session(1, credit=0)
    line.park(poor)
    assert line.next() is None
    assert not line.waiting
    line.park(poor)
    assert list(line.waiting) == [poor]


def test_leaving_takes_a_session_out_at_once():
    line = Line(frozenset({"add"}))
    line.members = 2
    here, away = session(1), session(2)
    line.park(here)
    line.leave(away)
    line.leave(here)
    assert line.members == 0
    assert line.next() is None
