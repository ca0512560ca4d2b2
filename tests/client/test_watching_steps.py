"""The decisions of waiting, on lines without sockets and a clock of their own."""

import pytest

from chervil import exceptions, exchange
from chervil.asking import REQUEST_SECONDS
from chervil.conversation import PAUSE_FIRST
from chervil.exceptions import OperationalError
from chervil.protocol import Stage
from chervil.protocol import messages as m
from chervil.watching import QUIET_SECONDS, Watching
from tests.client.simulated import Cut, Simulation, answer, status

START = 100.0


@pytest.fixture
def simulation():
    made = Simulation()
    made.lost = []
    return made


def watching(simulation, ids, timeout=None, patience=None, on_wait=None):
    return Watching(
        simulation, "the broker", ids, timeout, on_wait, on_lost=simulation.lost.append, patience=patience
    )


def wait(simulation, ids, timeout=None, patience=None, on_wait=None):
    statuses = simulation.drive(watching(simulation, ids, timeout, patience, on_wait).run())
    return [(status.id, status.stage) for status in statuses]


def outage(simulation, begin, seconds):
    """Nothing gets through meanwhile; all tasks have succeeded when something does again."""

    def plug_in():
        simulation.up = True
        simulation.answer = lambda line, message: [
            m.Status(message.request, [status(id_, Stage.SUCCESS) for id_ in message.ids])
        ]

    simulation.at(begin, simulation.unplug)
    simulation.at(begin + seconds, plug_in)


def finish(simulation, *ids):
    return lambda: simulation.tell(m.Result([status(id_, Stage.SUCCESS) for id_ in ids]))


def until_it_waits(operation):
    """Runs an operation until it waits for results."""
    assert [operation.send(None).what for _ in range(4)] == ["take", "send", "news", "news"]


def names(simulation):
    return [type(message).__name__ for message in simulation.received]


def test_a_result_is_waited_for_without_a_word_in_between(simulation):
    simulation.at(START + QUIET_SECONDS - 1, finish(simulation, "a"))
    assert wait(simulation, ["a"]) == [("a", Stage.SUCCESS)]
    assert names(simulation) == ["Watch"]


def test_a_quiet_broker_is_asked_for_a_word_now_and_then(simulation):
    simulation.at(START + 3 * QUIET_SECONDS - 1, finish(simulation, "b"))
    simulation.at(START + 1, finish(simulation, "a"))
    assert wait(simulation, ["a", "b"]) == [("a", Stage.SUCCESS), ("b", Stage.SUCCESS)]
    asked = [message.ids for message in simulation.received if isinstance(message, m.Query)]
    assert asked == [["b"], ["b"]]
    assert simulation.lost == []


def test_a_broker_that_froze_is_left_and_the_result_found_on_a_new_connection(simulation):
    def frozen_at_first(line, message):
        if line is simulation.lines[0] and simulation.clock > START:
            return []
        if line is not simulation.lines[0]:
            return [m.Status(message.request, [status("a", Stage.SUCCESS)])]
        return answer(line, message)

    simulation.answer = frozen_at_first
    assert wait(simulation, ["a"]) == [("a", Stage.SUCCESS)]
    assert simulation.given == ["drop LineBroken", "renew", "give"]
    assert simulation.lost == ["lost the broker; trying again until it is back"]
    assert simulation.clock < START + QUIET_SECONDS + REQUEST_SECONDS + 1


def test_a_timeout_holds_though_the_broker_froze(simulation):
    simulation.answer = lambda line, message: answer(line, message) if simulation.clock == START else []
    assert wait(simulation, ["a"], timeout=25) == [("a", Stage.QUEUED)]
    assert START + 25 <= simulation.clock <= START + 25.5


def test_a_broker_that_comes_back_empty_ends_the_wait(simulation):
    def restart():
        simulation.down()
        simulation.up = True
        simulation.answer = lambda line, message: [m.Status(message.request, [status("a", Stage.UNKNOWN)])]

    simulation.at(START + 5, restart)
    assert wait(simulation, ["a"]) == [("a", Stage.UNKNOWN)]


def test_a_broker_that_dies_before_its_first_answer_is_waited_for(simulation):
    def die(line, message):
        simulation.down()
        simulation.answer = lambda line, message: [m.Status(message.request, [status("a", Stage.SUCCESS)])]
        simulation.at(START + 5, simulation.back)
        return []

    simulation.answer = die
    assert wait(simulation, ["a"]) == [("a", Stage.SUCCESS)]
    assert simulation.lost == ["lost the broker; trying again until it is back"]


def test_a_broker_that_died_just_before_the_wait_began_is_waited_for(simulation):
    wait(simulation, ["a"], timeout=0)
    simulation.down()
    simulation.answer = lambda line, message: [m.Status(message.request, [status("a", Stage.SUCCESS)])]
    simulation.at(START + 5, simulation.back)
    assert wait(simulation, ["a"]) == [("a", Stage.SUCCESS)]
    assert simulation.lost == ["lost the broker; trying again until it is back"]


def test_a_broker_that_was_never_there_is_an_error_at_once(simulation):
    simulation.down()
    with pytest.raises(OperationalError, match="cannot reach"):
        wait(simulation, ["a"])
    assert simulation.clock == START
    assert simulation.lost == []


def test_a_lost_broker_is_tried_in_growing_pauses_until_patience_ends(simulation):
    simulation.at(START + 1, simulation.down)
    with pytest.raises(OperationalError, match="did not come back within 3 s"):
        wait(simulation, ["a"], patience=3)
    assert simulation.steps.count("pause") == 8


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("seconds", [15, 60])
@pytest.mark.parametrize("begin", [1, 5])
def test_an_outage_is_waited_out_with_one_warning(simulation, begin, seconds, shared):
    """Its begin is before and after the reason was asked for, whose answer then stays away."""
    simulation.shared = shared
    outage(simulation, START + begin, seconds)
    assert wait(simulation, ["a", "b"], timeout=100, on_wait=lambda _: None) == [
        ("a", Stage.SUCCESS),
        ("b", Stage.SUCCESS),
    ]
    if (begin, seconds) != (5, 15):  # which is over before it can be noticed
        assert simulation.lost == ["lost the broker; trying again until it is back"]
    assert simulation.clock < START + begin + seconds + QUIET_SECONDS + REQUEST_SECONDS


@pytest.mark.parametrize("seconds", [15, 60])
def test_a_wait_that_begins_in_an_outage_on_an_idle_connection_waits_it_out(simulation, seconds):
    simulation.shared = True
    wait(simulation, ["a"], timeout=0)
    outage(simulation, START, seconds)
    simulation.advance(START)
    assert wait(simulation, ["a"], timeout=100) == [("a", Stage.SUCCESS)]
    assert simulation.lost == ["lost the broker; trying again until it is back"]
    assert simulation.given[-3:] == ["drop TimeoutError", "renew", "give"]
    assert simulation.clock < START + seconds + 1


def test_silence_after_silence_is_waited_out(simulation):
    """Each connection dies before its first answer, and so do those after it."""

    def connected(line, message):
        if len(simulation.lines) < 4:
            return []
        return [m.Status(message.request, [status("a", Stage.SUCCESS)])]

    simulation.answer = connected
    assert wait(simulation, ["a"]) == [("a", Stage.SUCCESS)]
    assert simulation.lost == ["lost the broker; trying again until it is back"]


def test_an_answer_that_comes_slowly_is_waited_for(simulation):
    """In parts, which all together take longer than the broker may be silent for."""

    def slowly(line, message):
        for number, id_ in enumerate(message.ids, 1):
            part = m.Status(message.request, [status(id_, Stage.SUCCESS)], number < len(message.ids))
            simulation.at(
                simulation.clock + number * (REQUEST_SECONDS - 1), lambda part=part: line.tell(part)
            )
        return []

    simulation.answer = slowly
    assert wait(simulation, ["a", "b", "c"]) == [(id_, Stage.SUCCESS) for id_ in "abc"]
    assert simulation.clock == START + 3 * (REQUEST_SECONDS - 1)
    assert simulation.lost == []


def test_an_answer_of_which_others_hear_on_a_shared_line_is_waited_for(simulation):
    def late(line, message):
        def hear():
            line.heard_at = simulation.clock

        simulation.at(START + REQUEST_SECONDS - 1, hear)
        answer = m.Status(message.request, [status("a", Stage.SUCCESS)])
        simulation.at(START + REQUEST_SECONDS + 1, lambda: line.tell(answer))
        return []

    simulation.answer = late
    assert wait(simulation, ["a"]) == [("a", Stage.SUCCESS)]
    assert simulation.lost == []


def test_each_of_many_answers_has_its_time(simulation, monkeypatch):
    monkeypatch.setattr(exchange, "ROWS_MAX", 1)

    def slowly(line, message):
        reply = m.Status(message.request, [status(id_, Stage.SUCCESS) for id_ in message.ids])
        simulation.at(simulation.clock + REQUEST_SECONDS - 1, lambda: line.tell(reply))
        return []

    simulation.answer = slowly
    assert wait(simulation, ["a", "b", "c"]) == [(id_, Stage.SUCCESS) for id_ in "abc"]
    assert simulation.clock == START + 3 * (REQUEST_SECONDS - 1)
    assert simulation.lost == []


def test_patience_ends_in_an_outage_that_began_with_silence(simulation):
    outage(simulation, START + 1, 60)
    with pytest.raises(OperationalError, match="did not come back within 30 s: cannot reach"):
        wait(simulation, ["a"], patience=30, on_wait=lambda _: None)
    assert simulation.clock < START + 2 + REQUEST_SECONDS + 30 + 1


def test_patience_outlasts_an_outage_that_began_with_silence(simulation):
    outage(simulation, START + 1, 15)
    assert wait(simulation, ["a"], patience=30, on_wait=lambda _: None) == [("a", Stage.SUCCESS)]


def test_an_outage_that_outlasts_the_timeout_is_a_timeout(simulation):
    outage(simulation, START + 1, 60)
    with pytest.raises(
        exceptions.TimeoutError, match=r"^the broker has been out of reach for 18 s; last known: task a"
    ):
        wait(simulation, ["a"], timeout=30, on_wait=lambda _: None)
    assert START + 30 - PAUSE_FIRST <= simulation.clock <= START + 30


def test_an_outage_from_the_first_question_to_the_timeout_is_a_timeout(simulation):
    simulation.shared = True
    wait(simulation, ["a"], timeout=0)
    simulation.unplug()
    with pytest.raises(
        exceptions.TimeoutError, match=r"^the broker has been out of reach for 20 s: cannot reach"
    ):
        wait(simulation, ["a"], timeout=30)
    assert START + 30 - PAUSE_FIRST <= simulation.clock <= START + 30


def test_a_timeout_of_nothing_asks_once_though_the_connection_breaks(simulation):
    def broken(line, message):
        line.broken = True
        return []

    simulation.answer = broken
    with pytest.raises(OperationalError, match="lost the broker while waiting: broken"):
        wait(simulation, ["a"], timeout=0)
    assert (simulation.clock, simulation.lost) == (START, [])


def test_a_status_of_other_tasks_breaks_the_line(simulation):
    simulation.answer = lambda line, message: [m.Status(message.request, [status("x")])]
    with pytest.raises(exceptions.TimeoutError, match="names other ids"):
        wait(simulation, ["a"], timeout=1)


@pytest.mark.parametrize("step", range(4))
def test_cut_short_at_any_step_nobody_watches_any_more(simulation, step):
    operation = watching(simulation, ["a", "b"]).run()
    with pytest.raises(Cut):
        simulation.drive(operation, cut_at=step)
    for line in simulation.lines:
        assert simulation.given == ["drop Cut"]
        assert line.exchange._watched == {}
        while line.inbox:
            line.exchange.receive(line.inbox.pop(0))
        assert line.exchange._replies == {}
    assert names(simulation).count("Unwatch") == len(simulation.lines)


def test_who_leaves_a_shared_line_takes_nothing_from_others(simulation):
    """Two wait for the same task on one connection; one of them is cancelled."""
    simulation.shared = True
    stays, leaves = watching(simulation, ["a"]).run(), watching(simulation, ["a"]).run()
    until_it_waits(stays)
    until_it_waits(leaves)
    with pytest.raises(Cut):
        leaves.throw(Cut())
    assert "Unwatch" not in names(simulation)
    finish(simulation, "a")()
    (found,) = simulation.drive(stays)
    assert found.stage is Stage.SUCCESS


def test_what_one_learns_from_an_answer_the_other_hears_as_a_result(simulation):
    """The broker pushes a result once a connection; it may have gone to whoever asked later."""
    simulation.shared = True
    first = watching(simulation, ["a"]).run()
    until_it_waits(first)
    simulation.answer = lambda line, message: [m.Status(message.request, [status("a", Stage.SUCCESS)])]
    assert wait(simulation, ["a"]) == [("a", Stage.SUCCESS)]
    with pytest.raises(StopIteration) as done:
        first.send(None)
    assert done.value.value[0].stage is Stage.SUCCESS
