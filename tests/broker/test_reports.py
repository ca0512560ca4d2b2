"""STATS, HISTORY and LIST, as a client sees them answered."""

import pytest

from chervil.protocol import Code, FailureRecord, Outcome
from chervil.protocol.limits import FRAME_BATCH
from chervil.protocol.messages import (
    Complete,
    Completed,
    Confirm,
    Error,
    History,
    List,
    Publish,
    Report,
    Started,
    Stats,
)
from chervil_broker.reports import BODY_MAX
from tests.broker.talk import play, task


def failure(row, kind="exception", message="no such user"):
    return FailureRecord(kind, "shop.errors.NotFound", message, "Traceback ...", row[0], "tasks.add").pack()


async def ask(peer, message):
    peer.send(message)
    return (await peer.expect(Report)).report


def test_history_tells_the_error_of_a_failure_without_its_traceback():
    async def scenario(house):
        row = task()
        worker = await house.worker(row)
        worker.talker.send(Complete(1, [[row[0], 1, Outcome.FAILURE, "failure", failure(row)]]))
        story = await ask(worker.talker, History(7, row[0]))
        assert (story["stage"], story["name"], story["worker"]) == ("FAILURE", "tasks.add", "worker@1")
        assert story["error"] == {
            "kind": "exception",
            "type": "shop.errors.NotFound",
            "message": "no such user",
        }
        assert story["events"][-1]["reason"] == "NotFound: no such user"

    play(scenario)


def test_history_tells_how_a_process_died():
    async def scenario(house):
        row = task(options={16: 1})
        worker = await house.worker(row)
        worker.talker.send(Started([[row[0], 1]]))
        worker.talker.send(Complete(1, [[row[0], 1, Outcome.LOST, None, b"SIGSEGV (pid 7)"]]))
        story = await ask(worker.talker, History(7, row[0]))
        assert (story["stage"], story["attempts"]) == ("DEAD", 1)
        assert (story["error"]["kind"], story["error"]["message"]) == ("lost", "SIGSEGV (pid 7)")
        assert story["error"]["type"] == "chervil.exceptions.WorkerLostError"

    play(scenario)


@pytest.mark.parametrize("body", [b"\xc1", b"no record", b"\x91" * 600_000])
def test_history_of_a_record_that_cannot_be_read_has_no_error(body):
    async def scenario(house):
        row = task()
        worker = await house.worker(row)
        worker.talker.send(Complete(1, [[row[0], 1, Outcome.FAILURE, "failure", body]]))
        story = await ask(worker.talker, History(7, row[0]))
        assert (story["stage"], story["error"]) == ("FAILURE", None)

    play(scenario)


def test_history_of_a_task_without_error_and_of_an_unknown_one():
    async def scenario(house):
        peer = await house.guest()
        row = task()
        peer.send(Publish(1, [row]))
        await peer.expect(Confirm)
        story = await ask(peer, History(2, row[0]))
        assert (story["stage"], story["error"]) == ("QUEUED", None)
        assert [event["event"] for event in story["events"]] == ["published"]
        unknown = await ask(peer, History(3, "nobody knows"))
        assert unknown == {"id": "nobody knows", "stage": "UNKNOWN"}

    play(scenario)


async def told(peer, message):
    report = await ask(peer, message)
    return report["codec"], report["body"], report["body_bytes"]


def test_history_tells_what_a_dead_letter_was_called_with():
    async def scenario(house):
        row = task()
        worker = await house.worker(row)
        worker.talker.send(Complete(1, [[row[0], 1, Outcome.REJECT]]))
        assert await told(worker.talker, History(7, row[0])) == (row[6], row[7], len(row[7]))

    play(scenario)


@pytest.mark.parametrize("more", [0, 1])
def test_history_tells_how_long_arguments_are_that_are_too_long_to_show(more):
    async def scenario(house):
        peer = await house.guest()
        body = b"x" * (BODY_MAX + more)
        row = task(body=body)
        peer.send(Publish(1, [row]))
        await peer.expect(Confirm)
        assert await told(peer, History(2, row[0])) == ("json", None if more else body, len(body))

    play(scenario)


def test_history_of_a_task_that_succeeded_has_no_arguments_any_more():
    async def scenario(house):
        row = task()
        worker = await house.worker(row)
        worker.talker.send(Complete(1, [[row[0], 1, Outcome.SUCCESS, "json", b"5"]]))
        assert await told(worker.talker, History(7, row[0])) == (None, None, None)

    play(scenario)


def test_history_tells_the_error_that_the_broker_wrote_itself():
    async def scenario(house):
        row = task()
        worker = await house.worker(row)
        worker.talker.send(Complete(1, [[row[0], 1, Outcome.REJECT]]))
        story = await ask(worker.talker, History(7, row[0]))
        assert story["error"] == {
            "kind": "rejected",
            "type": "chervil.exceptions.Reject",
            "message": "worker worker@1 rejected it",
        }

    play(scenario)


def test_dead_letters_are_listed_page_by_page():
    async def scenario(house):
        rows = [task() for _ in range(5)]
        worker = await house.worker(*rows)
        rejected = [[row[0], 1, Outcome.REJECT, "failure", failure(row, "rejected")] for row in rows]
        worker.talker.send(Complete(1, rejected))
        await worker.talker.expect(Completed)
        listed, cursor = [], None
        for _ in range(3):
            page = await ask(worker.talker, List(2, "dead", cursor, 2))
            listed += page["tasks"]
            cursor = page["cursor"]
        assert cursor is None
        assert len({letter["id"] for letter in listed}) == 5
        assert listed[0]["reason"] == "NotFound: no such user"

    play(scenario)


def test_a_page_is_cut_where_it_would_be_a_long_frame(monkeypatch):
    letters = [
        {"id": "i" * 128, "name": "n" * 255, "reason": "\N{SNOWMAN}" * 200, "number": number}
        for number in range(1000)
    ]

    def dead(cursor, limit):
        start = int(cursor or 0)
        after = start + limit
        return letters[start:after], str(after) if after < len(letters) else None

    async def scenario(house):
        monkeypatch.setattr(house.broker.default.engine, "dead", dead, raising=True)
        peer = await house.guest()
        listed, cursor, pages = [], None, 0
        while pages == 0 or cursor is not None:
            page = await ask(peer, List(2, "dead", cursor, 1000))
            assert sum(len(str(letter).encode()) for letter in page["tasks"]) < 2 * FRAME_BATCH
            listed += page["tasks"]
            cursor = page["cursor"]
            pages += 1
        assert [letter["number"] for letter in listed] == list(range(1000))
        assert 4 < pages < 20

    play(scenario)


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (List(1, "queues", None, 10), Code.NOT_IMPLEMENTED),
        (List(1, "workers", None, 10), Code.NOT_IMPLEMENTED),
        (List(1, "nonsense", None, 10), Code.BAD_TASK),
        (List(1, "dead", "no cursor of ours", 10), Code.BAD_TASK),
    ],
)
def test_lists_that_are_not_there_are_refused_alone(message, code):
    async def scenario(house):
        peer = await house.guest()
        peer.send(message, Stats(2))
        error = await peer.expect(Error)
        assert (error.request, error.code) == (1, code)
        counters = (await peer.expect(Report)).report["counters"]
        assert counters[f"refused_{code.lower()}"] == 1

    play(scenario)


def test_a_result_that_is_no_failure_is_no_error(monkeypatch):
    async def scenario(house):
        peer = await house.guest()
        handle = house.broker.bodies.put_result("json", b"5")
        monkeypatch.setattr(
            house.broker.default.engine, "history", lambda id_: ({"name": "t", "stage": "FAILURE"}, handle)
        )
        assert (await ask(peer, History(1, "i")))["error"] is None

    play(scenario)
