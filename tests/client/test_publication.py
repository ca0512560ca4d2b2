"""The decisions of publishing, on lines without sockets and a clock of their own."""

import pytest

from chervil import publication as publication_module
from chervil.conversation import PAUSE_MOST, ClientClosed
from chervil.exceptions import AccessRefused, OperationalError, PublishRefused, PublishUnconfirmed
from chervil.protocol import Code, limits
from chervil.protocol import messages as m
from chervil.publication import Publication
from tests.client.simulated import Cut, Simulation, answer, row

START = 100.0
DEADLINE = 10.0


@pytest.fixture
def simulation():
    return Simulation()


def publish(simulation, rows, deadline=DEADLINE, wait=True, on_full=None):
    publication = Publication(rows, wait, on_full)
    simulation.drive(publication.run(simulation, simulation.now() + deadline))
    return publication


def published(simulation):
    return [row[0] for message in simulation.received for row in message.tasks]


def closed_window(simulation, opens_at=None):
    """Every line's window is closed from its first moment on."""
    take = simulation.take

    async def closed(end):
        line = await take(end)
        line.exchange.window = line.exchange.published
        return line

    simulation.take = closed
    if opens_at is not None:
        simulation.at(opens_at, lambda: simulation.tell(m.Window(2**63 - 1)))


def full(*ids, times=1):
    """A broker that refuses some ids for want of room, so many times."""
    left = dict.fromkeys(ids, times)

    def reply(line, message):
        exceptions = []
        for index, task in enumerate(message.tasks):
            if left.get(task[0], 0) > 0:
                left[task[0]] -= 1
                exceptions.append([index, "FULL", "no room"])
        return [m.Confirm(message.request, len(message.tasks) - len(exceptions), exceptions or None)]

    return reply


def test_what_is_confirmed_has_no_error_and_gives_the_line_back(simulation):
    assert publish(simulation, [row("a"), row("b")]).error() is None
    assert published(simulation) == ["a", "b"]
    assert simulation.given == ["give"]


def test_a_closed_window_is_waited_for_and_nothing_is_sent_before(simulation):
    closed_window(simulation, opens_at=START + 3)
    assert publish(simulation, [row()]).error() is None
    assert simulation.clock == START + 3
    assert published(simulation) == ["a"]


def test_a_window_that_stays_closed_refuses_at_the_deadline_and_says_how_long_it_was_waited(simulation):
    closed_window(simulation)
    error = publish(simulation, [row("a"), row("b")]).error()
    assert isinstance(error, PublishRefused)
    assert (error.task_ids, error.code, simulation.clock) == (["a", "b"], "FULL", START + DEADLINE)
    assert error.message == (
        "the broker is full, and 10.0 s of waiting made no room: it takes no more tasks for now; "
        "start more workers, purge what is not needed, or raise its --max-memory; "
        "see which queues fill it, and whether they have a worker: chervil status"
    )
    assert simulation.received == []
    assert simulation.given == ["give"]


def test_one_that_does_not_wait_publishes_into_a_closed_window(simulation):
    closed_window(simulation)
    assert publish(simulation, [row()], wait=False).error() is None
    assert simulation.clock == START


def test_one_that_does_not_wait_is_refused_at_once_by_a_full_broker(simulation):
    simulation.answer = full("b")
    error = publish(simulation, [row("a"), row("b")], wait=False).error()
    assert isinstance(error, PublishRefused)
    assert (error.task_ids, error.code, error.message) == (["b"], "FULL", "no room")
    assert (simulation.clock, published(simulation)) == (START, ["a", "b"])


def test_a_window_takes_one_frame_beyond_its_limit(simulation):
    """Else a row larger than what the broker opens at a time would never leave."""
    take = simulation.take

    async def narrow(end):
        line = await take(end)
        line.exchange.window = 10
        return line

    simulation.take = narrow
    rows = [row(str(n), b"x" * limits.FRAME_BATCH) for n in range(2)]
    error = publish(simulation, rows).error()
    assert published(simulation) == ["0"]
    assert isinstance(error, PublishRefused)
    assert error.task_ids == ["1"]


def test_what_a_full_broker_refused_is_sent_again_and_nothing_else(simulation):
    simulation.answer = full("b", times=2)
    assert publish(simulation, [row("a"), row("b"), row("c")]).error() is None
    assert published(simulation) == ["a", "b", "c", "b", "b"]
    assert simulation.clock == START + 2 * PAUSE_MOST


def test_what_a_full_broker_refused_waits_for_the_window_where_that_is_closed(simulation):
    refuse = full("a")

    def close(line, message):
        replies = refuse(line, message)
        if simulation.clock == START:
            replies.insert(0, m.Window(0))
        return replies

    simulation.answer = close
    simulation.at(START + 4, lambda: simulation.tell(m.Window(2**63 - 1)))
    assert publish(simulation, [row("a")]).error() is None
    assert (published(simulation), simulation.clock) == (["a", "a"], START + 4)


def test_a_window_that_closes_after_the_refusal_is_heeded(simulation):
    simulation.answer = full("a", times=1)
    simulation.at(START + 0.1, lambda: simulation.tell(m.Window(0)))
    simulation.at(START + 7, lambda: simulation.tell(m.Window(2**63 - 1)))
    assert publish(simulation, [row("a")]).error() is None
    assert (published(simulation), simulation.clock) == (["a", "a"], START + 7)


def test_waiting_for_room_is_told_once_when_it_begins(simulation):
    simulation.answer = full("a", times=3)
    told = []
    publish(simulation, [row("a")], on_full=lambda: told.append(simulation.clock))
    assert told == [START]
    assert simulation.clock > START


def test_a_publish_that_finds_room_tells_nobody(simulation):
    publish(simulation, [row("a")], on_full=lambda: pytest.fail("there was room"))
    assert published(simulation) == ["a"]


def test_a_goodbye_while_room_is_waited_for_is_heeded(simulation):
    simulation.answer = full("a", times=1)
    simulation.at(START + 0.1, lambda: simulation.tell(m.Goodbye("SHUTDOWN")))
    assert publish(simulation, [row("a")]).error() is None
    assert len(simulation.lines) == 2


def test_a_broker_that_stays_full_refuses_before_the_deadline_with_its_own_words(simulation):
    simulation.answer = full("a", times=1000)
    error = publish(simulation, [row("a"), row("b")]).error()
    assert isinstance(error, PublishRefused)
    assert (error.task_ids, error.code) == (["a"], "FULL")
    assert "s of waiting made no room: no room; see which queues fill it" in error.message
    assert START + DEADLINE - 2 * PAUSE_MOST <= simulation.clock <= START + DEADLINE


def test_a_whole_frame_refused_as_full_is_sent_again(simulation):
    def once(line, message):
        simulation.answer = answer
        return [m.Error(message.request, Code.FULL, "no room")]

    simulation.answer = once
    assert publish(simulation, [row("a"), row("b")]).error() is None
    assert published(simulation) == ["a", "b", "a", "b"]


def test_a_blocked_publisher_goes_on_by_itself_after_a_reconnect(simulation):
    closed_window(simulation, opens_at=START + 6)
    simulation.at(START + 1, simulation.down)
    simulation.at(START + 5, lambda: setattr(simulation, "up", True))
    assert publish(simulation, [row()]).error() is None
    assert published(simulation) == ["a"]
    assert len(simulation.lines) == 2


def test_a_blocked_publisher_whose_broker_stays_away_sent_nothing_and_says_so(simulation):
    closed_window(simulation)
    simulation.at(START + 1, simulation.down)
    error = publish(simulation, [row()]).error()
    assert type(error) is OperationalError
    assert START + DEADLINE - PAUSE_MOST <= simulation.clock <= START + DEADLINE


def test_no_broker_at_first_is_an_error_at_once(simulation):
    simulation.up = False
    error = publish(simulation, [row()]).error()
    assert type(error) is OperationalError
    assert simulation.clock == START


def test_attempts_come_further_and_further_apart(simulation):
    simulation.answer = lambda line, message: simulation.down() or []
    error = publish(simulation, [row()], deadline=5).error()
    assert isinstance(error, PublishUnconfirmed)
    assert error.task_ids == ["a"]
    assert "cannot reach the broker" in str(error)
    # 0.05, 0.1, 0.2, 0.4, and then 0.5 each.
    assert simulation.steps.count("pause") == 12


@pytest.mark.parametrize("error", [AccessRefused("no"), ClientClosed("closed")])
def test_who_is_shut_out_is_not_tried_again(simulation, error):
    def once(line, message):
        async def refuse(end):
            raise error

        simulation.take = refuse
        line.broken = True
        return []

    simulation.answer = once
    assert isinstance(publish(simulation, [row()]).error(), PublishUnconfirmed)
    assert simulation.steps.count("pause") == 1


def test_what_failed_before_a_whole_frame_was_sent_says_that_nothing_was_published(simulation):
    take = simulation.take

    async def broken(end):
        line = await take(end)
        line.broken = True
        simulation.up = False
        return line

    simulation.take = broken
    error = publish(simulation, [row()]).error()
    assert type(error) is OperationalError


def test_one_that_is_not_answered_is_unconfirmed_at_the_deadline(simulation):
    simulation.answer = lambda line, message: []
    error = publish(simulation, [row()]).error()
    assert isinstance(error, PublishUnconfirmed)
    assert (simulation.clock, simulation.given) == (START + DEADLINE, ["drop TimeoutError", "renew"])


def test_a_row_that_cannot_be_sent_takes_no_other_with_it(simulation):
    poison = row("b")
    poison[2] = "\ud800"
    publication = publish(simulation, [row("a"), poison, row("c")])
    assert published(simulation) == ["a", "c"]
    error = publication.error()
    assert isinstance(error, PublishRefused)
    assert (error.task_ids, error.code) == (["b"], "BAD_FIELD")


def test_each_caller_is_told_of_its_own_rows(simulation, monkeypatch):
    monkeypatch.setattr(publication_module, "PIPELINE", 1)
    sent = []

    def refuse_and_die(line, message):
        sent.append(message)
        if len(sent) == 2:
            simulation.down()
            return []
        return [m.Confirm(message.request, 1, [[0, "BAD_TASK", "no"]])]

    simulation.answer = refuse_and_die
    rows = [row(id_, b"x" * 100_000) for id_ in "abcd"]
    publication = publish(simulation, rows)
    assert [row[0] for row in sent[0].tasks] == ["a", "b"]
    refused, confirmed, unknown = (publication.error(part) for part in (rows[:1], rows[1:2], rows[2:]))
    assert isinstance(refused, PublishRefused)
    assert (refused.task_ids, refused.code) == (["a"], "BAD_TASK")
    assert confirmed is None
    assert isinstance(unknown, PublishUnconfirmed)
    assert (unknown.task_ids, unknown.refused_ids) == (["c", "d"], [])
    everything = publication.error()
    assert isinstance(everything, PublishUnconfirmed)
    assert everything.refused_ids == ["a"]


def test_an_exception_for_a_row_that_was_not_sent_breaks_the_line(simulation):
    simulation.answer = lambda line, message: [m.Confirm(message.request, 1, [[1, "FULL", "x"]])]
    error = publish(simulation, [row()]).error()
    assert isinstance(error, PublishUnconfirmed)
    assert "has exceptions for others" in str(error)


@pytest.mark.parametrize("step", range(6))
def test_cut_short_at_any_step_it_leaves_nothing_expected(simulation, step):
    rows = [row(str(n), b"x" * limits.FRAME_BATCH) for n in range(3)]
    publication = Publication(rows)
    with pytest.raises(Cut):
        simulation.drive(publication.run(simulation, START + DEADLINE), cut_at=step)
    if simulation.lines:
        line = simulation.lines[0]
        assert simulation.given == ["drop Cut"]
        while line.inbox:
            line.exchange.receive(line.inbox.pop(0))
        # The answers that came all the same were dropped.
        assert line.exchange._replies == {}
        assert line.exchange.usable
