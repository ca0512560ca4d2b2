"""The decisions of waiting, on lines without sockets and a clock of their own."""

import pytest

from chervil.asking import REQUEST_SECONDS
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


def watching(simulation, ids, timeout=None, patience=None):
    return Watching(
        simulation, "the broker", ids, timeout, None, on_lost=simulation.lost.append, patience=patience
    )


def wait(simulation, ids, timeout=None, patience=None):
    statuses = simulation.drive(watching(simulation, ids, timeout, patience).run())
    return [(status.id, status.stage) for status in statuses]


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
    assert simulation.given == ["drop LineBroken", "give"]
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


def test_a_status_of_other_tasks_breaks_the_line(simulation):
    simulation.answer = lambda line, message: [m.Status(message.request, [status("x")])]
    with pytest.raises(OperationalError, match="names other ids"):
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
