"""Errors of the wire and their codes."""

import pytest

from chervil.protocol import Code, LocalProtocolError, ProtocolError, RemoteProtocolError, RequestRefused
from chervil.protocol.errors import NOT_FATAL


@pytest.mark.parametrize("kind", [ProtocolError, LocalProtocolError, RemoteProtocolError])
def test_protocol_error_has_its_code_and_says_it(kind):
    error = kind(Code.BAD_FIELD, "HELLO wants 4 fields")
    assert (error.code, error.message) == (Code.BAD_FIELD, "HELLO wants 4 fields")
    assert str(error) == "BAD_FIELD: HELLO wants 4 fields"
    assert isinstance(error, ProtocolError)


def test_refused_request_is_no_breach_of_the_protocol():
    error = RequestRefused("FULL", "the broker holds 1 GiB, its limit")
    assert (error.code, str(error)) == ("FULL", "FULL: the broker holds 1 GiB, its limit")
    assert not isinstance(error, ProtocolError)


def test_code_is_the_text_that_travels():
    assert all(str(code) == code.name for code in Code)


def test_codes_for_one_row_leave_the_connection_alone():
    assert {Code.DUPLICATE, Code.FULL, Code.BODY_TOO_LARGE, Code.BAD_TASK} < NOT_FATAL
    assert Code.AUTH_FAILED not in NOT_FATAL
