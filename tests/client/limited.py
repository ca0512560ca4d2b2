"""Runs of tasks under a soft limit, and what is asked of each test that has one."""

import signal
import sys
import time

import pytest

from chervil.execution import execute
from tests.client.deliveries import request_for

SOON = 0.03
#: No test waits for this: it is cut off long before.
LONG = 30


@pytest.fixture(autouse=True)
def no_trace():
    """The process gets its signal back, and no timer is left running."""
    before = signal.getsignal(signal.SIGALRM)
    yield
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture(autouse=True)
def untraced():
    """No coverage here: an alarm may go off in its tracer, and leave a lock of it taken for ever."""
    tracer = sys.gettrace()
    sys.settrace(None)
    yield
    sys.settrace(tracer)


def limited(task, *args, limit=SOON):
    begun = time.monotonic()
    finished = execute(task, request_for(task, *args), limit)
    assert time.monotonic() - begun < LONG / 2
    return finished


def spin(seconds):
    """Python code that never waits."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass
