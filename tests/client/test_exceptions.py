import builtins
import pickle
from datetime import UTC, datetime

import pytest

from chervil import exceptions
from chervil.exceptions import (
    MaxRetriesExceededError,
    NotRegistered,
    PublishRefused,
    PublishUnconfirmed,
    Reject,
    RemoteError,
    Retry,
)


@pytest.mark.parametrize("name", [n for n in exceptions.__all__ if n not in ("Retry", "Reject")])
def test_every_error_is_a_chervil_error(name):
    assert issubclass(getattr(exceptions, name), exceptions.ChervilError)


def test_timeout_is_the_builtin_one_too():
    assert issubclass(exceptions.TimeoutError, builtins.TimeoutError)


@pytest.mark.parametrize(
    "error",
    [
        PublishRefused(["a"], "FULL", "no room"),
        PublishUnconfirmed(["a", "b"], "cut"),
        RemoteError("m.C", "text", ["x"]),
        Retry("later", ValueError("x"), 5.0),
        NotRegistered("tasks.add"),
        MaxRetriesExceededError("enough"),
        Reject("bad order", requeue=True),
    ],
)
def test_errors_can_be_pickled(error):
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert str(copy) == str(error)


def test_messages_name_the_tasks():
    assert str(PublishRefused(["a"], "FULL", "no room")) == "task a not stored: FULL: no room"
    assert str(PublishRefused(["a", "b"], "FULL", "no room")).startswith("2 tasks (a ...) not stored")
    assert "no task" in str(PublishUnconfirmed([]))
    assert "(cut)" in str(PublishUnconfirmed(["a"], "cut"))
    assert str(RemoteError("m.C")) == "m.C"
    assert str(NotRegistered("tasks.add")) == "tasks.add"


def test_retry_says_when():
    at = datetime(2026, 1, 2, tzinfo=UTC)
    assert str(Retry()) == "later"
    assert str(Retry(when=3)) == "in 3 s"
    assert str(Retry(when=at)) == f"at {at}"
    assert str(Retry(exc=ValueError("not yet"), when=1.0)) == "in 1 s: ValueError: not yet"
    assert str(Retry(exc=KeyError(), when=1)) == "in 1 s: KeyError"
    assert Retry(when=3).humanize() == "in 3s"
    assert str(Retry("as told")) == "as told"


def test_reject_says_why():
    assert str(Reject()) == "rejected by the task"
    assert str(Reject("bad order")) == "bad order"
    assert str(Reject(KeyError("id"))) == "KeyError: 'id'"
    rejection = Reject("bad", requeue=True)
    assert (rejection.reason, rejection.requeue) == ("bad", True)
