import pytest

from chervil.conversation import LineBroken, ask, check_open, opening, reply, run
from chervil.protocol import Code, RequestRefused
from chervil.protocol import messages as m
from tests.client.simulated import SimulatedLine, Simulation, Step

START = 100.0


@pytest.fixture
def simulation():
    return Simulation()


@pytest.fixture
def line(simulation):
    made = SimulatedLine(simulation)
    simulation.lines.append(made)
    return made


def test_an_operation_that_never_suspends_runs_through_and_its_errors_come_out():
    async def five():
        return 5

    async def fail():
        raise KeyError("mine")

    assert run(five()) == 5
    with pytest.raises(KeyError, match="mine"):
        run(fail())


def test_an_operation_that_suspends_is_none_for_blocking_lines():
    async def suspends():
        await Step("x")

    with pytest.raises(AssertionError, match="suspended"):
        run(suspends())


def test_a_reply_comes_to_its_request_though_others_come_before(simulation, line):
    simulation.answer = lambda line, message: [m.Heartbeat(), m.Report(message.request, {"a": 1})]
    assert simulation.drive(ask(line, line.exchange.stats(), None)).report == {"a": 1}


def test_a_refusal_leaves_nothing_behind(simulation, line):
    simulation.answer = lambda line, message: [m.Error(message.request, Code.FORBIDDEN, "no")]
    with pytest.raises(RequestRefused):
        simulation.drive(ask(line, line.exchange.stats(), None))
    assert line.exchange._expected == {}
    assert line.exchange._abandoned == set()


def test_a_reply_that_is_late_is_dropped_when_it_comes(simulation, line):
    simulation.answer = lambda line, message: []
    with pytest.raises(TimeoutError):
        simulation.drive(ask(line, line.exchange.stats(), START + 1))
    simulation.tell(m.Report(1, {}))
    with pytest.raises(TimeoutError):
        simulation.drive(reply(line, 2, START + 2))
    assert line.exchange._replies == {}
    assert line.exchange._abandoned == set()


@pytest.mark.parametrize(("code", "again"), [("SHUTDOWN", True), ("SLOW", True), ("BAD_FIELD", False)])
def test_the_brokers_reason_says_whether_another_connection_may_do(simulation, line, code, again):
    simulation.answer = lambda line, message: [m.Error(None, code, "x")]
    with pytest.raises(LineBroken) as caught:
        simulation.drive(ask(line, line.exchange.stats(), None))
    assert (caught.value.code, caught.value.again) == (code, again)
    with pytest.raises(LineBroken, match="x"):
        check_open(line.exchange)


def test_a_connection_that_broke_without_a_reason_may_be_tried_again():
    assert LineBroken("gone").again


def test_an_open_window_is_not_waited_for(simulation, line):
    simulation.drive(opening(line, None))
    assert simulation.steps == []


def test_a_closed_window_is_waited_for_until_it_opens_or_the_deadline(simulation, line):
    simulation.tell(m.Window(0))
    simulation.at(START + 2, lambda: simulation.tell(m.Window(1)))
    line.exchange.window = 0
    simulation.drive(opening(line, START + 5))
    assert simulation.clock == START + 2
    line.exchange.window = 0
    with pytest.raises(TimeoutError):
        simulation.drive(opening(line, START + 5))
    simulation.tell(m.Goodbye("SHUTDOWN"))
    with pytest.raises(LineBroken):
        simulation.drive(opening(line, START + 9))
