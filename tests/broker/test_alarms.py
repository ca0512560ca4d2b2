"""Who is to run next: by either clock, whatever was set before, without piling up."""

from chervil_broker import alarms as alarms_module
from chervil_broker.alarms import Alarms


def test_without_alarms_there_is_nothing_to_wait_for():
    alarms = Alarms()
    alarms.arm("a", None, None)
    assert alarms.wait(5, 5) is None
    assert alarms.take(5, 5) == set()


def test_the_next_alarm_is_the_nearest_of_both_clocks():
    alarms = Alarms()
    alarms.arm("a", 100, None)
    alarms.arm("b", 70, 1_040)
    assert alarms.wait(now=50, wall=1_000) == 20
    assert alarms.wait(now=50, wall=1_030) == 10
    assert alarms.wait(now=90, wall=1_000) == -20


def test_who_is_due_by_either_clock_is_taken_once():
    alarms = Alarms()
    alarms.arm("a", 100, None)
    alarms.arm("b", None, 1_000)
    alarms.arm("c", 101, 1_001)
    assert alarms.take(100, 1_000) == {"a", "b"}
    assert alarms.take(100, 1_000) == set()
    assert alarms.take(101, 1_000) == {"c"}
    assert alarms.take(101, 1_001) == {"c"}


def test_what_is_set_replaces_what_was():
    alarms = Alarms()
    alarms.arm("a", 10, 10)
    alarms.arm("a", 30, None)
    assert alarms.take(20, 20) == set()
    alarms.arm("a", 25, None)
    assert alarms.wait(20, 20) == 5
    alarms.arm("a", 30, None)
    assert alarms.take(29, 29) == set()
    assert alarms.take(30, 30) == {"a"}
    assert alarms.wait(30, 30) is None


def test_a_wall_clock_that_steps_back_is_waited_for_again():
    alarms = Alarms()
    alarms.arm("a", None, 1_000)
    assert alarms.take(0, 400) == set()
    assert alarms.wait(0, 400) == 600


def test_alarms_that_come_nearer_again_and_again_do_not_pile_up(monkeypatch):
    monkeypatch.setattr(alarms_module, "_FEW", 4)
    alarms = Alarms()
    for time in range(1_000, 0, -1):
        alarms.arm("a", time, None)
        alarms.arm("b", 5_000, None)
        assert len(alarms._broker._heap) <= 8
    assert alarms.take(1, 0) == {"a"}
    assert alarms.take(5_000, 0) == {"b"}
