import pytest

from chervil import asking, exchange
from chervil.asking import REQUEST_SECONDS, Status, status_of
from chervil.exceptions import AccessRefused, OperationalError
from chervil.protocol import Code, Info, Stage
from chervil.protocol import messages as m
from tests.client.simulated import Cut, Simulation, answer

WHERE = "the broker at x"


@pytest.fixture
def simulation():
    return Simulation()


def query(simulation, *wires):
    return simulation.drive(asking.query(simulation, WHERE, list(wires)))


def stats(simulation):
    return simulation.drive(asking.report(simulation, WHERE, lambda exchange: exchange.stats()))


@pytest.mark.parametrize(
    ("stage", "settled"),
    [(Stage.QUEUED, False), (Stage.UNKNOWN, True), (Stage.DEAD, True), (Stage.RETRY, False)],
)
def test_waiting_on_is_for_what_is_neither_final_nor_unknown(stage, settled):
    assert Status("a", stage, None, None, {}).settled == settled


def test_a_row_of_the_wire_is_a_status():
    made = status_of([bytes(16), int(Stage.LEASED), "json", b"1", {int(Info.WORKER): "w"}])
    assert made == Status(
        "00000000-0000-0000-0000-000000000000", Stage.LEASED, "json", b"1", {int(Info.WORKER): "w"}
    )


def test_each_id_is_asked_for_once_and_answered_as_often_as_it_was_named(simulation):
    assert [found.id for found in query(simulation, "a", "b", "a")] == ["a", "b", "a"]
    assert [message.ids for message in simulation.received] == [["a", "b"]]


def test_more_ids_than_a_frame_holds_go_in_several(simulation, monkeypatch):
    monkeypatch.setattr(exchange, "ROWS_MAX", 2)
    assert len(query(simulation, *"abcde")) == 5
    assert [len(message.ids) for message in simulation.received] == [2, 2, 1]


def test_counts_are_added_up_over_all_requests(simulation):
    def requests(exchange):
        return (exchange.forget([id_]) for id_ in "abc")

    assert simulation.drive(asking.count(simulation, WHERE, requests)) == 3


def test_an_answer_without_a_number_counts_nothing(simulation):
    simulation.answer = lambda line, message: [m.Ok(message.request)]
    counted = asking.count(simulation, WHERE, lambda exchange: iter([exchange.purge([])]))
    assert simulation.drive(counted) == 0


def test_a_broken_line_is_tried_once_more(simulation):
    def once(line, message):
        simulation.answer = answer
        line.broken = True
        return []

    simulation.answer = once
    assert stats(simulation) == {}
    assert simulation.given == ["drop LineBroken", "renew", "give"]


def test_two_broken_lines_are_enough(simulation):
    def always(line, message):
        line.broken = True
        return []

    simulation.answer = always
    with pytest.raises(OperationalError, match="no answer from the broker at x: broken"):
        stats(simulation)
    assert len(simulation.lines) == 2


def test_an_answer_that_stays_away_is_waited_for_once(simulation):
    simulation.answer = lambda line, message: []
    with pytest.raises(OperationalError, match="the deadline has passed"):
        stats(simulation)
    assert (simulation.clock, len(simulation.lines)) == (100.0 + REQUEST_SECONDS, 1)
    assert simulation.given == ["drop TimeoutError", "renew"], (
        "and the next call is not to find another dead one"
    )


def test_a_refusal_is_an_operational_error_and_the_line_is_kept(simulation):
    simulation.answer = lambda line, message: [m.Error(message.request, Code.BAD_STATE, "not now")]
    with pytest.raises(OperationalError, match="the broker refused: BAD_STATE: not now"):
        stats(simulation)
    assert simulation.given == ["give"]


def test_a_missing_role_is_told_apart_from_other_refusals(simulation):
    simulation.answer = lambda line, message: [m.Error(message.request, Code.FORBIDDEN, "wants control")]
    with pytest.raises(AccessRefused, match=r"does not allow this: wants control$"):
        stats(simulation)
    assert simulation.given == ["give"]


def test_a_goodbye_between_two_requests_is_asked_again_elsewhere(simulation):
    def requests(exchange):
        yield exchange.purge([])
        yield exchange.purge([])

    def ok_and_goodbye(line, message):
        simulation.answer = answer
        line.inbox.append(line.peer.send(m.Ok(message.request, 5)) + line.peer.send(m.Goodbye("SHUTDOWN")))
        return []

    simulation.answer = ok_and_goodbye
    assert simulation.drive(asking.count(simulation, WHERE, requests)) == 2
    assert len(simulation.lines) == 2


@pytest.mark.parametrize("step", range(3))
def test_cut_short_at_any_step_it_leaves_nothing_expected(simulation, step):
    with pytest.raises(Cut):
        simulation.drive(asking.report(simulation, WHERE, lambda exchange: exchange.stats()), cut_at=step)
    for line in simulation.lines:
        assert simulation.given == ["drop Cut"]
        while line.inbox:
            line.exchange.receive(line.inbox.pop(0))
        assert line.exchange._replies == {}
