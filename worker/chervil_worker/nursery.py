"""The nursery: one thread, no event loop. Imports the app once, and forks a child of it for each slot.

It is forked by the link before that has a loop or a second thread, and ends when the link does.
"""

import contextlib
import errno
import gc
import os
import select
import signal
import socket
import sys
import threading
import time
import warnings
from typing import TYPE_CHECKING, cast

from chervil_worker import child, control, lifeline, log, packets
from chervil_worker.options import WorkerOptions
from chervil_worker.terms import special_terms

if TYPE_CHECKING:
    from chervil.app import Chervil
    from chervil.cli.common import Common
    from chervil.tls_files import TLSFiles

#: How long children may take to end once their sockets are closed and no task runs, in seconds.
STOP_SECONDS = 5.0

#: The status of a child that could not be forked: that of a process that exited with code 1.
_UNBORN = 1 << 8


def start(options: WorkerOptions, common: "Common") -> tuple[int, socket.socket]:
    """Forks the nursery; returns its process id and the link's end of the control socket."""
    # A child of a process with threads may inherit a lock that nobody will ever release.
    assert lifeline.thread_count() == 1, "the nursery must be forked before any thread exists"
    link = os.getpid()
    ours, theirs = packets.pair()
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        theirs.close()
        return pid, ours
    code = 1
    try:
        ours.close()
        code = _run(options, common, theirs, link)
    except BaseException:  # whatever it is, this process must not go on as a second link
        log.worker.exception("nursery: stopped by an error of its own")
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _run(options: WorkerOptions, common: "Common", sock: socket.socket, link: int) -> int:
    # The link decides when to stop; a terminal's Ctrl-C reaches the nursery too.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    # While the app is imported nobody looks at the socket; after that its end says that the link is gone.
    lifeline.set_death_signal(signal.SIGKILL)
    if os.getppid() != link:
        return 1
    lifeline.close_inherited(keep=[sock.fileno()])
    try:
        app = load(options, common)
    except Exception as error:  # the user's import may raise anything
        from chervil.cli.complaints import complain

        code = complain(error, common)
        control.send(sock, control.Failed(code))
        return code
    lifeline.set_death_signal(0)
    Nursery(app, options, sock).serve()
    return 0


def load(options: WorkerOptions, common: "Common") -> "Chervil":
    """The app, complete with the tasks of every module that it or the command line names."""
    from importlib import import_module

    from chervil.cli.connect import found_for
    from chervil.exceptions import AppNotFound
    from chervil.loading import find_app

    assert common.app is not None
    os.chdir(common.workdir)
    app = find_app(common.app, common.workdir)
    try:
        app.import_includes()
        for module in options.include:
            import_module(module)
    except Exception as error:  # the user's modules may raise anything
        raise AppNotFound(f"a module to include cannot be imported: {error}") from error
    app.finalize()
    # What tasks publish goes to the worker's broker.
    app.use_broker(found_for(app, common))
    return app


class Nursery:
    """Forks children on request and reports their ends."""

    def __init__(self, app: "Chervil", options: WorkerOptions, sock: socket.socket) -> None:
        self._app = app
        self._options = options
        self._terms = special_terms(app.tasks, app.conf, options)
        self._link = sock
        self._slots: dict[int, int] = {}  # process id -> slot
        self._wakeup_read, self._wakeup_write = os.pipe()

    def serve(self) -> None:
        """Sends the manifest, then does what the link asks, until it says stop or is gone."""
        self._watch_children()
        self._name_threads()
        conf = self._app.conf
        manifest = control.Manifest(
            self._app.main or "",
            cast("str | list[str] | None", conf.broker_url),
            None if conf.broker_use_ssl is None else list(cast("TLSFiles", conf.broker_use_ssl)),
            conf.task_default_queue,
            sorted(self._app.tasks),
            {name: list(terms) for name, terms in self._terms.items()},
        )
        # What the app's import made is shared with every child; a collection would copy it page by page.
        gc.collect()
        gc.freeze()
        graceful = False
        try:
            control.send(self._link, manifest)
            graceful = self._obey()
        except OSError:  # the link is gone
            return
        finally:
            self._end_children(STOP_SECONDS if graceful else 0.0)

    def _obey(self) -> bool:
        """Does what the link asks; whether it said Stop, and did not just vanish."""
        poll = select.poll()
        poll.register(self._link, select.POLLIN)
        poll.register(self._wakeup_read, select.POLLIN)
        while True:
            ready = {descriptor for descriptor, _ in poll.poll()}
            if self._wakeup_read in ready:
                os.read(self._wakeup_read, 4096)
                self._reap()
            if self._link.fileno() in ready:
                received = control.receive(self._link)
                if received is None:
                    return False
                message, descriptors = received
                if not isinstance(message, control.Spawn):
                    return True
                if descriptors:
                    self._fork(message.slot, descriptors[0])
                else:
                    self._unborn(message.slot, errno.EMFILE)

    def _watch_children(self) -> None:
        os.set_blocking(self._wakeup_read, False)
        os.set_blocking(self._wakeup_write, False)
        # The app's import may have left a handler of its own.
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        signal.set_wakeup_fd(self._wakeup_write, warn_on_full_buffer=False)

    def _name_threads(self) -> None:
        """Warns of threads: a fork copies what they hold, and not them."""
        names = [thread.name for thread in threading.enumerate() if thread is not threading.main_thread()]
        native = lifeline.thread_count() - 1 - len(names)
        if native > 0:
            names.append(f"{native} of a library's own")
        if names:
            log.worker.warning(
                "importing the app started threads (%s); they do not exist in the processes that run tasks, "
                "and a lock that they hold stays locked there: start them inside a task",
                ", ".join(names),
            )

    def _fork(self, slot: int, descriptor: int) -> None:
        parent = os.getpid()
        try:
            with warnings.catch_warnings():
                # Said once already, with the threads' names.
                warnings.simplefilter("ignore", DeprecationWarning)
                pid = os.fork()
        except OSError as error:
            os.close(descriptor)
            self._unborn(slot, error.errno or errno.EAGAIN)
            return
        if pid == 0:
            ours = (self._link.fileno(), self._wakeup_read, self._wakeup_write)
            child.run(
                child.Child(self._app, self._options.node_name, self._terms),
                socket.socket(fileno=descriptor),
                parent,
                ours,
            )
        os.close(descriptor)
        with contextlib.suppress(OSError):  # the child may have done so itself, or be gone
            os.setpgid(pid, pid)
        self._slots[pid] = slot
        control.send(self._link, control.Born(slot, pid))

    def _unborn(self, slot: int, error: int) -> None:
        log.worker.error("no child for slot %d: %s", slot, os.strerror(error))
        control.send(self._link, control.Exited(slot, 0, _UNBORN))

    def _reap(self) -> None:
        """Reports children that have ended. Only our own: the app's import may have started processes."""
        for pid, slot in list(self._slots.items()):
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                del self._slots[pid]
                # Its task will run again, and should not meet what this run has started.
                lifeline.kill_leftovers(pid)
                control.send(self._link, control.Exited(slot, pid, status))

    def _end_children(self, seconds: float) -> None:
        """Waits for the children to end, and kills those that are left after `seconds` with their groups."""
        deadline = time.monotonic() + seconds
        while self._slots and (left := deadline - time.monotonic()) > 0:
            if select.select([self._wakeup_read], [], [], left)[0]:
                os.read(self._wakeup_read, 4096)
            for pid in list(self._slots):
                if os.waitpid(pid, os.WNOHANG)[0]:
                    del self._slots[pid]
        for pid in self._slots:
            lifeline.kill_group(pid)
        for pid in self._slots:
            os.waitpid(pid, 0)
        self._slots.clear()
