"""`chervil dev`: a broker and a worker for one project folder, until Ctrl-C."""

import os
import signal
from pathlib import Path

import click

from chervil.address import BrokerURL
from chervil.cli import exits
from chervil.cli.common import Common, common_of
from chervil.cli.processes import (
    SLOW_SECONDS,
    SOCKET_PATH_MAX,
    STOP_SECONDS,
    Changed,
    Child,
    Ended,
    Event,
    Events,
    Signalled,
    broker_command,
    listens,
    next_event,
    recorded_signals,
    wait_until_listening,
    worker_command,
)
from chervil.cli.terminal import wrapped
from chervil.cli.watch import watch

#: How many changed files a reload names; the rest are counted.
_NAMED = 3

#: Columns for who says a line.
_NAME_WIDTH = 6


@click.command(short_help="Run broker and worker here, reloading on changes.")
@click.option("-c", "--concurrency", type=click.IntRange(1), metavar="N", help="Tasks at a time.")
@click.option("-Q", "--queues", metavar="A,B", help="Queues to consume.")
@click.option("--no-reload", is_flag=True, help="Leave the worker alone when files change.")
@click.pass_context
def dev(ctx: click.Context, concurrency: int | None, queues: str | None, no_reload: bool) -> int:
    """Run a broker and a worker for this folder, until Ctrl-C.

    They meet on a socket in ./.chervil, so projects never meet each other. Other commands typed in this
    folder find it without being told. Tasks are kept in memory: they are gone when this ends.

    The worker restarts when a .py file changes. What runs then has 5 s to finish; then it is cut off, which
    counts as no attempt, and runs again with the new code (with acks_late=False it fails).

    \b
    Example:
      chervil -A tasks dev
    """
    common = common_of(ctx)
    if common.app is None:
        raise click.UsageError("Which app? Say it with -A: chervil -A tasks dev", ctx)
    options: list[str] = []
    if concurrency:
        options += ["-c", str(concurrency)]
    if queues:
        options += ["-Q", queues]
    # A developer wants to see each task run; a worker alone says that only when asked.
    options += ["-q"] if common.quiet else ["-v"] * max(1, common.verbose)
    session = Session(common, socket_path(common.workdir), options)
    with recorded_signals(session.events):
        return session.run(reload=not no_reload)


def socket_path(folder: Path) -> Path:
    """Where this folder's broker listens; makes `.chervil/`, which git is told to ignore."""
    path = folder / ".chervil" / "broker.sock"
    if (size := len(bytes(path))) > SOCKET_PATH_MAX:
        raise click.UsageError(
            f"{path} is {size} bytes long, and a Unix socket's path may have {SOCKET_PATH_MAX}. Move the "
            "project to a shorter path, or use TCP: run `chervil broker`, and `chervil worker` beside it."
        )
    path.parent.mkdir(exist_ok=True)
    ignore = path.parent / ".gitignore"
    if not ignore.exists():
        ignore.write_text("*\n")
    return path


class Session:
    """One `dev`: the processes that it started, and what has happened to them."""

    def __init__(self, common: Common, path: Path, worker_options: list[str]) -> None:
        self.events = Events()
        self._common = common
        self._path = path
        self._url = str(BrokerURL("chervil+unix", path=str(path)))
        self._worker_options = worker_options
        self._broker: Child | None = None
        self._worker: Child | None = None

    def run(self, *, reload: bool) -> int:
        """Starts everything, reacts to events until it is over, stops everything; the exit code."""
        try:
            if not self._start_broker():
                return exits.TASK_FAILED
            if reload:
                how = watch(self._common.workdir, self.events)
                self._say(f"reloads when a .py file changes ({how}); Ctrl-C stops")
            self._start_worker()
            while True:
                event = next_event(self.events)
                assert event is not None
                code = self._react(event, reload=reload)
                if code is not None:
                    return code
        finally:
            self._stop()

    def _react(self, event: Event, *, reload: bool) -> int | None:
        match event:
            case Signalled(number):
                return exits.INTERRUPTED if number == signal.SIGINT else exits.OK
            case Changed(paths):
                self._reload(paths)
            case Ended(child, code) if child is self._worker:
                self._worker = None
                if reload and code == exits.USAGE:
                    self._say(f"{event}; waiting for a .py file to change")
                    return None
                self._say(f"{event}; stopping")
                return exits.TASK_FAILED
            case Ended(child) if child is self._broker:
                self._say(f"{event}; stopping")
                return exits.TASK_FAILED
        return None  # the end of a worker that a reload has replaced

    def _start_broker(self) -> bool:
        if listens(self._path):
            # Two workers of one name could not be told apart in `status` and in logs.
            self._worker_options += ["-n", f"worker-{os.getpid()}@%h"]
            self._say(f"a dev runs in this folder already: adding a worker to its broker, {self._url}")
            return True
        self._broker = self._start("broker", broker_command(self._path))
        if wait_until_listening(self._broker, self._path):
            return True
        self._say(f"the broker does not answer on {self._path}; its lines above say why")
        return False

    def _start_worker(self) -> None:
        assert self._common.app is not None
        command = worker_command(self._common.app, self._url, *self._worker_options)
        self._worker = self._start("worker", command)

    def _start(self, name: str, command: list[str]) -> Child:
        return Child(name, command, self._common.workdir, self.events, self._line)

    def _reload(self, paths: tuple[str, ...]) -> None:
        names = [os.path.relpath(path, self._common.workdir) for path in paths[:_NAMED]]
        more = f" and {len(paths) - _NAMED} more" if len(paths) > _NAMED else ""
        self._say(f"{', '.join(names)}{more} changed: restarting the worker")
        self._stop_worker(then=" and runs again, unless it is acks_late=False")
        self._start_worker()

    def _stop_worker(self, then: str) -> None:
        """Stops the worker; `then`: what becomes of a task that is cut off."""
        worker, self._worker = self._worker, None
        if worker is not None:
            left = max(0.0, STOP_SECONDS - SLOW_SECONDS)
            self._stop_child(worker, f"a task still runs: in {left:g} s it is cut off{then}")

    def _stop_child(self, child: Child, if_slow: str) -> None:
        if not child.stop(STOP_SECONDS, lambda: self._say(if_slow)):
            self._say(f"the {child.name} did not stop when asked twice, and was killed")

    def _stop(self) -> None:
        """The worker first: it hands its tasks back, and the broker is still there to take them."""
        # A broker of another `dev` keeps them; ours goes next, and they with it.
        self._stop_worker(then="" if self._broker else " and handed back")
        if self._broker is not None:
            self._stop_child(self._broker, "the broker still has answers to send")

    def _line(self, name: str, line: str) -> None:
        color = {"broker": "magenta", "worker": "cyan"}.get(name, "green")
        prefix = f"{name:{_NAME_WIDTH}} |"
        click.echo(f"{click.style(prefix, fg=color) if self._common.color else prefix} {line}")

    def _say(self, text: str) -> None:
        self._line("dev", wrapped(text, indent=_NAME_WIDTH + 3))
