"""The failure record."""

import msgpack
import pytest

from chervil.protocol import FAILURE_CODEC, FailureRecord, unpack_failure
from chervil.protocol.failure import TRACEBACK_MAX

ID = bytes(range(16))
RECORD = FailureRecord("exception", "builtins.ValueError", "no", "Traceback ...", ID, "t", "json", b"[]")


def test_record_comes_back_as_it_was():
    assert unpack_failure(RECORD.pack()) == RECORD


def test_record_is_one_array_in_the_order_of_the_document():
    assert msgpack.unpackb(RECORD.pack()) == list(RECORD)
    assert FAILURE_CODEC == "failure"


def test_last_two_fields_may_be_missing_and_later_ones_are_ignored():
    assert unpack_failure(msgpack.packb(RECORD[:6])) == RECORD._replace(args_codec=None, args=None)
    assert unpack_failure(msgpack.packb([*RECORD, "later"])) == RECORD


def test_a_message_of_the_broker_may_be_missing():
    record = FailureRecord("expired", "chervil.exceptions.TaskExpired", None, None, "order-17", "t")
    assert unpack_failure(record.pack()) == record


def test_text_that_is_no_unicode_is_replaced_and_not_refused():
    packed = RECORD._replace(message="a\udcffb").pack()
    assert unpack_failure(packed).message == "a?b"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xc1",
        msgpack.packb("text"),
        msgpack.packb(RECORD[:5]),
        msgpack.packb(RECORD._replace(kind="")),
        msgpack.packb(RECORD._replace(task_id=b"short")),
        msgpack.packb(RECORD._replace(traceback="x" * (TRACEBACK_MAX + 1))),
        b"\x81\x90\x00",
        msgpack.packb(RECORD)[:-1],
    ],
)
def test_body_that_is_no_record_is_a_value_error(body):
    with pytest.raises(ValueError):
        unpack_failure(body)
