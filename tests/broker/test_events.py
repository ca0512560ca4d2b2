import pytest

from chervil_broker.events import TOLD_MAX, log_events

ID = b"\x01" * 16
SHOWN = "01010101-0101-0101-0101-010101010101"


def rejected(number: int) -> tuple[str, dict[str, object]]:
    told = {"id": bytes([number]) * 16, "name": "tasks.add", "queue": "q", "worker": "w", "reason": "no"}
    return "task_rejected", told


@pytest.mark.parametrize(
    ("event", "details", "line"),
    [
        (
            "queue_without_consumer",
            {"queue": "q", "ready": 1},
            "no worker consumes queue 'q', which has 1 task;",
        ),
        (
            "queue_without_consumer",
            {"queue": "q", "ready": 2},
            "which has 2 tasks; start one: chervil -A MODULE",
        ),
        (
            "task_dead",
            {"id": ID, "name": "t", "attempts": 1},
            f"t[{SHOWN}] is DEAD after 1 attempt: its process",
        ),
        (
            "task_parked",
            {"id": ID, "queue": "q", "name": "t", "count": 1, "reason": "r"},
            "queue 'q': 1 task 't': DEAD: r",
        ),
        ("dead_dropped", {"count": 2, "limit": 5}, "as they took more than 5 bytes: 2"),
        ("something_new", {"count": 2}, "something_new {'count': 2}"),
    ],
)
def test_an_event_is_a_line(event, details, line, caplog):
    caplog.set_level("INFO")
    log_events([(event, details)])
    (message,) = caplog.messages
    assert line in message


def test_many_of_a_kind_are_summed_up_behind_the_first(caplog):
    caplog.set_level("WARNING")
    log_events(
        [rejected(number) for number in range(200)] + [("stale_completions", {"worker": "w", "count": 1})]
    )
    assert len(caplog.messages) == TOLD_MAX + 2
    for number in range(TOLD_MAX):
        assert f"tasks.add[{number:02d}" in caplog.messages[number]
    assert "w completed tasks that it had lost meanwhile: 1 task" in caplog.messages
    assert caplog.messages[-1] == (
        f"tasks that are DEAD besides these, as they were rejected: {200 - TOLD_MAX} (chervil list dead)"
    )


def test_a_few_of_a_kind_have_a_line_each(caplog):
    caplog.set_level("WARNING")
    log_events([rejected(number) for number in range(TOLD_MAX)])
    assert len(caplog.messages) == TOLD_MAX


def test_many_of_a_kind_without_words_of_its_own_are_counted(caplog):
    caplog.set_level("WARNING")
    log_events([("dead_dropped", {"count": 1, "limit": 5})] * (TOLD_MAX + 1))
    assert caplog.messages[-1] == "dead_dropped besides these: 1"
