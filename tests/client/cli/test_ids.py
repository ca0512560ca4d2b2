"""Task ids as they are typed."""

from collections.abc import Callable

import pytest

from chervil.cli.ids import some
from tests.client.cli.conftest import Broker, Ran

Run = Callable[..., Ran]


@pytest.mark.parametrize("verb", ["result", "why", "retry", "revoke", "forget"])
@pytest.mark.parametrize("task_id", ["", "x" * 200])
def test_what_can_be_no_id_is_refused(chervil: Run, broker: Broker, verb: str, task_id: str) -> None:
    ran = chervil(verb, task_id)
    assert ran.code == 2
    assert "a task id is 1 to 128 bytes" in ran.err
    assert broker.asked == []


def test_one_task_is_no_plural() -> None:
    assert (some(1), some(2), some(0)) == ("1 task", "2 tasks", "0 tasks")
