import pytest

from chervil.protocol import TaskOption
from chervil_worker import packets
from chervil_worker.tasks import Task, from_rows
from chervil_worker.terms import PLAIN, Terms
from tests.worker.broker import row, task_id

LIMIT = 1000


def test_task_is_plain_unless_something_is_said():
    (task,) = from_rows([row(7, "add", lease=3)], {}, LIMIT, 0)
    assert (task.id, task.lease, task.name, task.attempt) == (task_id(7), 3, "add", 1)
    assert task.terms is PLAIN
    assert not task.solo
    assert task.delivery_limit == 3


def test_payload_is_the_row_with_its_deadline_and_the_brokers_limit_for_bodies():
    plain, dated = row(1, "add", 1), row(2, "add", 2, options={int(TaskOption.EXPIRES_MS): 5})
    first, second = from_rows([plain, dated], {}, LIMIT, 7)
    assert packets.unpack(first.payload) == [plain, None, LIMIT]
    assert packets.unpack(second.payload) == [dated, 5_000_007, LIMIT]


@pytest.mark.parametrize("said_by_app", [True, False])
def test_call_comes_before_the_app_and_that_before_nothing(said_by_app: bool):
    of_app = {"add": Terms(hard_ms=1500, early=True)} if said_by_app else {}
    given = row(1, "add", options={int(TaskOption.TIME_LIMIT_MS): 20, int(TaskOption.DELIVERY_LIMIT): 5})
    (task,) = from_rows([given], of_app, LIMIT, 0)
    assert task.terms == Terms(hard_ms=20, early=said_by_app)
    assert task.solo is said_by_app
    assert task.delivery_limit == 5


def test_task_that_may_have_been_begun_before_is_claimed_before_it_is_begun_again():
    given = row(1, "add")
    given[2] = True
    given[3] = 1
    (task,) = from_rows([given], {}, LIMIT, 0)
    assert task.solo
    assert task.attempt == 2
    assert task.terms is PLAIN


def test_task_has_no_number_and_no_session_before_it_is_held():
    task = Task(bytes(16), 1, "t", b"")
    assert (task.number, task.session) == (0, 0)
