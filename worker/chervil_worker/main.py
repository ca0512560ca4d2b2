"""The start of a worker, in the order in which things must happen."""

import os
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

from chervil.cli import exits
from chervil.cli.common import Common
from chervil.systemd import ServiceManager
from chervil.tls_files import TLSFiles
from chervil_worker import control, log, nursery
from chervil_worker.options import WorkerOptions

if TYPE_CHECKING:
    import asyncio


def run(options: WorkerOptions, common: Common) -> int:
    """Runs a worker until it is told to stop; the exit code.

    0: every task that ran was completed; 1: tasks were cut off, or the worker could not go on; 2: the app
    cannot be loaded, or the broker's URL is none. Raises click.UsageError for the latter.
    """
    log.set_up(options.log_format, options.level)
    # Before the fork: what systemd told this process is not for its children.
    manager = ServiceManager()
    # First, while there is one thread and no loop: children are forks of this process.
    nursery_pid, control_socket = nursery.start(options, common)
    try:
        # Loaded while the nursery imports the app, and not before the fork: children need no event loop.
        import asyncio

        from chervil_worker.link import Link

        manifest = _first_word(control_socket)
        if isinstance(manifest, control.Failed):
            return manifest.code
        if manifest is None:
            log.worker.error("the process that imports the app died of it")
            return exits.TASK_FAILED
        files = None if manifest.broker_files is None else TLSFiles(*manifest.broker_files)
        found = common.found(manifest.broker_urls, files)

        async def live() -> int:
            return await Link(
                options, found, manifest, control_socket, nursery_pid, manager=manager, quiet=common.quiet
            ).run()

        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            return runner.run(live())
    finally:
        control_socket.close()  # whatever happened, this ends the nursery
        os.waitpid(nursery_pid, 0)


def _first_word(sock: socket.socket) -> control.Manifest | control.Failed | None:
    received = control.receive(sock)
    if received is None:
        return None
    message, _ = received
    assert isinstance(message, control.Manifest | control.Failed)
    return message


def _loop_factory() -> "Callable[[], asyncio.AbstractEventLoop] | None":
    """uvloop's where it is installed, else None: asyncio's own."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop
