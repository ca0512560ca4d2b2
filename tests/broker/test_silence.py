"""A cable that was pulled is not a connection that was closed."""

import errno

import pytest

from chervil_broker.silence import is_silence


@pytest.mark.parametrize(
    "number", [errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ENETDOWN, errno.EHOSTDOWN]
)
def test_packets_that_stay_away_are_silence(number):
    assert is_silence(OSError(number, "what the system calls it"))


@pytest.mark.parametrize(
    "error", [None, ConnectionResetError(errno.ECONNRESET, "reset"), BrokenPipeError(errno.EPIPE, "pipe"), ValueError()]
)  # fmt: skip
def test_an_end_that_the_other_side_made_is_none(error):
    assert not is_silence(error)
