import pytest

from chervil import Chervil
from chervil.protocol import TaskOption
from chervil.request import Request
from tests.client.deliveries import request_for


@pytest.fixture
def app():
    return Chervil("tests")


def test_a_request_has_celerys_names(app):
    task = app.task(name="t")(lambda: None)
    options = {
        TaskOption.PARENT_ID: "p", TaskOption.GROUP_ID: bytes(16), TaskOption.GROUP_INDEX: 2, TaskOption.DUE_AT: 1000,
        TaskOption.EXPIRES_AT: 2000, TaskOption.ORIGIN: "o", TaskOption.SHADOW: "s", TaskOption.STAMPS: {"a": 1},
        TaskOption.IGNORE_RESULT: True,
    }  # fmt: skip
    request = request_for(
        task, 1, options={int(k): v for k, v in options.items()}, retries=4, headers={"a": 1}, x=2
    )
    assert (request.id, request.correlation_id, request.task, request.args, request.kwargs) == (
        "id",
        "id",
        "t",
        (1,),
        {"x": 2},
    )
    assert (request.retries, request.attempts, request.redelivered, request.hostname) == (4, 2, True, "w@h")
    assert (request.root_id, request.parent_id) == ("id", "p")
    assert (request.group, request.group_index) == ("00000000-0000-0000-0000-000000000000", 2)
    assert (request.eta, request.expires) == ("1970-01-01T00:00:01+00:00", "1970-01-01T00:00:02+00:00")
    assert (request.origin, request.shadow, request.stamps, request.ignore_result) == (
        "o",
        "s",
        {"a": 1},
        True,
    )
    assert request.headers == {"a": 1}
    assert request.delivery_info == {
        "exchange": "",
        "routing_key": "q",
        "priority": 3,
        "redelivered": True,
        "is_eager": False,
    }
    assert (request.get("chord"), request.get("nothing", 5)) == (None, 5)
    assert (request.called_directly, request.is_eager, request.utc) == (False, False, True)
    assert repr(request) == "<Request t[id] retries=4>"
    assert (Request().root_id, Request().eta, Request().ignore_result) == (None, None, False)


def test_without_a_delivery_it_is_a_direct_call():
    request = Request()
    assert (request.id, request.called_directly, request.is_eager, request.retries) == (None, True, False, 0)
    assert (request.parent_id, request.group, request.expires, request.correlation_id) == (None,) * 4
    assert request.delivery_info["redelivered"] is False


def test_ids_travel_as_bytes_and_are_read_as_text(app):
    task = app.task(name="t")(lambda: None)
    options = {int(TaskOption.PARENT_ID): bytes(15) + b"\1", int(TaskOption.ROOT_ID): bytes(15) + b"\2"}
    request = request_for(task, options=options)
    assert (request.wire_id, request.id) == ("id", "id")
    assert request.parent_id == "00000000-0000-0000-0000-000000000001"
    assert request.root_id == "00000000-0000-0000-0000-000000000002"


def test_what_is_written_into_one_request_is_in_no_other():
    request = Request()
    request.kwargs["x"] = 1
    request.options[1] = "r"
    assert (Request().kwargs, Request().options) == ({}, {})


def test_a_request_without_options_shares_no_options_with_another(app):
    task = app.task(name="t")(lambda: None)
    assert request_for(task).options == {}
    assert request_for(task, options={int(TaskOption.ORIGIN): "o"}).origin == "o"
    assert request_for(task).origin is None


def test_a_longer_row_of_a_later_version_is_read():
    row = [bytes(16), 7, False, 0, 0, "t", "q", 0, None, None, "msgpack", b"", None, "new", "newer"]
    request = Request.from_delivery(row, (), {}, None, None)
    assert (request.id, request.codec, request.redelivered) == (
        "00000000-0000-0000-0000-000000000000",
        "msgpack",
        False,
    )
