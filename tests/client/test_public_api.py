import chervil
from chervil import exceptions, states
from chervil.conf import Settings
from chervil.options import CALL_OPTIONS, TASK_OPTIONS


def test_the_package():
    assert chervil.__all__ == [
        "AsyncResult", "Chervil", "EagerResult", "Task", "__version__", "current_app", "current_task", "exceptions",
        "shared_task", "states",
    ]  # fmt: skip
    assert all(hasattr(chervil, name) for name in chervil.__all__)


def public(cls):
    return sorted(name for name in dir(cls) if not name.startswith("_"))


def test_the_app():
    assert public(chervil.Chervil) == [
        "AsyncResult", "client", "close", "control", "finalize", "import_includes", "publisher", "register", "send_task",
        "set_current", "set_default", "task", "tasks", "use_broker",
    ]  # fmt: skip


def test_a_task():
    assert public(chervil.Task) == [
        "AsyncResult", "MaxRetriesExceededError", "OperationalError", "aapply_async", "acks_late", "adelay",
        "adelay_many", "app", "apply", "apply_async", "check_arguments", "default_retry_delay", "delay", "delay_many", "delivery_limit", "expires", "for_app",
        "ignore_result", "max_retries", "priority", "queue", "reject_on_worker_lost", "request", "retry", "serializer",
        "soft_time_limit", "time_limit", "typing",
    ]  # fmt: skip


def test_a_result():
    names = [
        "aget", "app", "failed", "forget", "from_wire", "get", "id", "info", "ready", "result", "revoke", "stage", "state",
        "status", "successful", "task_id", "traceback", "wait",
    ]  # fmt: skip
    assert public(chervil.AsyncResult) == names
    assert public(chervil.EagerResult) == names


def test_the_options():
    assert sorted(CALL_OPTIONS) == [
        "countdown", "eta", "expires", "headers", "ignore_result", "priority", "queue", "serializer",
        "soft_time_limit", "task_id", "time_limit",
    ]  # fmt: skip
    assert sorted(TASK_OPTIONS) == [
        "acks_late", "default_retry_delay", "delivery_limit", "expires", "ignore_result", "max_retries", "name",
        "priority", "queue", "reject_on_worker_lost", "serializer", "soft_time_limit", "time_limit", "typing",
    ]  # fmt: skip


def test_the_defaults():
    assert dict(Settings()) == {
        "broker_url": None,
        "broker_use_ssl": None,
        "include": (),
        "imports": (),
        "task_default_queue": "default",
        "task_default_priority": 0,
        "task_serializer": "json",
        "result_serializer": "json",
        "accept_content": ("json", "msgpack"),
        "task_ignore_result": False,
        "task_acks_late": True,
        "task_reject_on_worker_lost": None,
        "task_delivery_limit": 3,
        "task_time_limit": None,
        "task_soft_time_limit": None,
        "result_expires": 86400,
        "timezone": "UTC",
        "task_publish_timeout": 10.0,
        "broker_connection_timeout": 4.0,
        "broker_pool_limit": 10,
        "task_always_eager": False,
        "task_eager_propagates": False,
    }


def test_states_partition():
    parts = (states.READY_STATES, states.UNREADY_STATES, {states.UNKNOWN})
    assert frozenset().union(*parts) == states.ALL_STATES
    assert sum(map(len, parts)) == len(states.ALL_STATES)
    assert set(states.STATE_OF_STAGE.values()) == states.ALL_STATES


def test_exceptions_are_all_named():
    defined = [
        n for n, v in vars(exceptions).items() if isinstance(v, type) and v.__module__ == exceptions.__name__
    ]
    assert sorted(defined) == sorted(exceptions.__all__)
