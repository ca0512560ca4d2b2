"""`chervil demo`: a broker and a worker of its own, real tasks, and a figure."""

import contextlib
import os
import shutil
import signal
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import NoReturn

import click

from chervil.address import BrokerURL, Found
from chervil.cli import exits
from chervil.cli.common import Common, common_of
from chervil.cli.processes import (
    STOP_SECONDS,
    Child,
    Events,
    broker_command,
    wait_until_listening,
    worker_command,
)
from chervil.cli.watch import source_files
from chervil.client import Client
from chervil.protocol import Stage

#: The second part's tasks: enough that starting and stopping do not show in the figure.
NOTHINGS = 20_000

#: How many functions are shown.
SHOWN = 10

#: The least number of child processes: with one, nothing is seen to run side by side.
LEAST_SLOTS = 2

#: Seconds that one part may take before the demo says that it does not work here.
PATIENCE = 60.0

#: Ids asked for at once; small enough that the progress line moves, large enough to cost nothing.
_AT_ONCE = 50


@click.command(short_help="See it work: real tasks, nothing to set up.")
@click.pass_context
def demo(ctx: click.Context) -> int:
    """See it work: start a broker and a worker, parse Python's own standard library as tasks, show its
    longest functions, and measure how many tasks a second go through.

    Needs no app, no setting and no file, and leaves nothing behind.
    """
    folder = Path(tempfile.mkdtemp(prefix="chervil-demo-"))
    try:
        with _terminated_as_by_ctrl_c(), _running(folder, common_of(ctx)):
            _parse_the_standard_library()
            _measure()
        _say_what_is_next()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return exits.OK
