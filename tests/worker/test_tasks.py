import pytest

from chervil.protocol import TaskOption
from chervil_worker.tasks import PLAIN, Task, TaskTerms, terms


def test_task_is_plain_unless_something_is_said():
    assert Task(bytes(16), 1, "t", b"").terms is PLAIN
    assert terms(None, None) == terms({}, None) == PLAIN


@pytest.mark.parametrize(
    ("options", "of_app", "expected"),
    [
        (None, [1500, True, True], TaskTerms(1_500_000_000, True, True)),
        ({TaskOption.TIME_LIMIT_MS: 20}, [1500, False, False], TaskTerms(20_000_000)),
        ({TaskOption.TIME_LIMIT_MS: 0}, [1500, False, False], PLAIN),
        ({TaskOption.TIME_LIMIT_MS: 20}, None, TaskTerms(20_000_000)),
        ({TaskOption.EARLY_ACK: True}, None, TaskTerms(early=True)),
        ({TaskOption.EARLY_ACK: False}, [None, True, False], PLAIN),
        ({TaskOption.RETRIES: 1}, [None, False, True], TaskTerms(fail_on_lost=True)),
        ({TaskOption.FAIL_ON_LOST: True}, [None, False, True], PLAIN),
        ({TaskOption.FAIL_ON_LOST: False}, [None, False, True], PLAIN),
    ],
)
def test_call_comes_before_the_app(options: dict, of_app: list | None, expected: TaskTerms):
    assert terms(options, of_app) == expected
