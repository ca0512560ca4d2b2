import pytest

from chervil_broker.shortage import QUIET_SECONDS, Shortage


@pytest.fixture(autouse=True)
def _everything(caplog):
    caplog.set_level("INFO")


def note(shortage: Shortage, now: float, *, waiting: bool, warnings: tuple[str, ...] = ()) -> None:
    if shortage.is_news(now, waiting=waiting):
        shortage.tell(now, "48.0 MiB", "give more memory (--max-memory)", list(warnings))


def test_the_line_says_what_to_do(caplog):
    note(Shortage(), 0.0, waiting=True, warnings=("queue 'a' has no worker",))
    (line,) = caplog.messages
    assert line == (
        "publishers wait: tasks take most of their 48.0 MiB; start more workers, throw away what is not wanted "
        "(chervil purge -Q QUEUE), or give more memory (--max-memory); queue 'a' has no worker"
    )


def test_the_line_says_who_waits_and_which_limit_it_is(caplog):
    shortage = Shortage("publishers of vhost shop")
    assert shortage.is_news(0.0, waiting=True)
    shortage.tell(0.0, "6.0 MiB", "raise its quota", [])
    assert shortage.is_news(QUIET_SECONDS, waiting=False)
    shortage.tell(QUIET_SECONDS, "6.0 MiB", "raise its quota", [])
    waiting, going_on = caplog.messages
    assert waiting == (
        "publishers of vhost shop wait: tasks take most of their 6.0 MiB; start more workers, throw away what "
        "is not wanted (chervil purge -Q QUEUE), or raise its quota"
    )
    assert going_on == "publishers of vhost shop go on: there is room for tasks again"


def test_it_is_said_once_and_so_is_the_end(caplog):
    shortage = Shortage()
    for second in range(10):
        note(shortage, second, waiting=True)
    assert len(caplog.messages) == 1
    note(shortage, QUIET_SECONDS, waiting=False)
    note(shortage, QUIET_SECONDS + 1, waiting=False)
    assert caplog.messages[1:] == ["publishers go on: there is room for tasks again"]


def test_memory_that_is_short_again_and_again_is_no_flood(caplog):
    shortage = Shortage()
    for step in range(100):
        note(shortage, step / 10, waiting=step % 2 == 0)
    assert len(caplog.messages) == 1
    note(shortage, QUIET_SECONDS, waiting=False)
    assert caplog.messages[1:] == [
        "publishers go on: there is room for tasks again (it began 49 times since the last line)"
    ]


def test_while_there_is_room_nothing_is_said(caplog):
    note(Shortage(), 100.0, waiting=False)
    assert caplog.messages == []
