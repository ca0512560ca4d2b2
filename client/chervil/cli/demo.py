"""`chervil demo`: a broker and a worker of its own, real tasks, and a figure; or kills, and a count."""

import contextlib
import json
import shlex
import shutil
import signal
import sys
import sysconfig
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import click

from chervil.cli import demo_tasks, exits
from chervil.cli.common import Common, common_of
from chervil.cli.daemons import SLOTS, Daemons
from chervil.cli.demo_kill import kill_and_count
from chervil.cli.terminal import table
from chervil.cli.watch import source_files
from chervil.client import Status
from chervil.exceptions import ChervilError
from chervil.protocol import FINAL, Stage
from chervil.serialization import decode

#: The second part's tasks: enough that starting and stopping do not show in the figure.
NOTHINGS = 20_000

#: How many functions are shown.
SHOWN = 10

#: Seconds without a single result after which the demo says that it does not work here.
PATIENCE = 20.0

#: Tasks waited for at once: few enough that the progress line moves, many enough to cost nothing.
_AT_ONCE = 20

_NEXT = """
Next, your own. Put this into tasks.py:

    from chervil import Chervil

    app = Chervil("tasks")

    @app.task
    def add(x, y):
        return x + y

Then, in the same folder, start a broker and a worker, until Ctrl-C:

    {chervil} -A tasks dev

And from another terminal, where this prints 5:

    {chervil} -A tasks call tasks.add 2 3 --wait"""


@click.command(short_help="See it work: real tasks, nothing to set up.")
@click.option("--kill", is_flag=True, help="Kill broker and worker again and again, and count what is lost.")
@click.pass_context
def demo(ctx: click.Context, kill: bool) -> int:
    """See it work. Starts a broker and a worker, parses Python's standard library as tasks and shows its
    longest functions, then measures how many tasks a second go through.

    With --kill, tasks are published while the broker, the worker and its processes are killed and started
    again; then it is counted what was confirmed, completed, lost and run twice. Ends with 1 if anything was
    lost.

    Needs no app, no file and no setting, takes some seconds and leaves nothing behind.

    \b
    Examples:
      chervil demo
      chervil demo --kill
    """
    common = common_of(ctx)
    if kill:
        return _kill(common)
    with _ends_like_ctrl_c(), Daemons() as daemons:
        show = _Show(common, daemons)
        parsed = show.parse_the_standard_library()
        measured = show.measure()
    if common.json:
        click.echo(json.dumps(parsed | measured))
    else:
        click.echo(_NEXT.format(chervil=command_line()))
    return exits.OK


def _kill(common: Common) -> int:
    with _ends_like_ctrl_c(), Daemons(durable=True) as daemons:
        tally = kill_and_count(daemons, lambda text: None if common.json else click.echo(text))
    if common.json:
        click.echo(json.dumps(tally.figures()))
    else:
        click.echo(tally.text())
    return exits.OK if tally.holds else exits.TASK_FAILED


class _Show:
    """The two parts of the demo; each prints as it goes and returns its figures."""

    def __init__(self, common: Common, daemons: Daemons) -> None:
        self._silent = common.json
        self._live = sys.stderr.isatty() and not (common.quiet or common.json)
        self._daemons = daemons

    def parse_the_standard_library(self) -> dict[str, Any]:
        library = Path(sysconfig.get_path("stdlib"))
        files = library_files(library)
        python = f"Python {sys.version_info.major}.{sys.version_info.minor}"
        self._say(f"Parsing {python}'s standard library: {len(files)} files, a task each, {SLOTS} processes.")
        start = time.perf_counter()
        results = demo_tasks.longest_functions.delay_many([(str(path),) for path in files])
        found: list[tuple[int, str, str]] = []
        functions = failed = 0
        for at, status in enumerate(self._statuses([result.id for result in results], "files parsed")):
            if status.stage is Stage.FAILURE:  # a file of another Python's syntax
                failed += 1
                continue
            place = files[at].relative_to(library)
            count, longest_here = self._value(status)
            functions += count
            found += [(lines, name, f"{place}:{line}") for lines, name, line in longest_here]
        seconds = time.perf_counter() - start
        longest = sorted(found, reverse=True)[:SHOWN]
        beside = f" ({failed} files are no {python})" if failed else ""
        self._say(f"Done in {seconds:.1f} s{beside}. The longest of its {functions:,} functions:\n")
        rows = [(f"{lines}", name, place) for lines, name, place in longest]
        self._say(table([("LINES", "FUNCTION", "WHERE"), *rows], give_way=(2, 1)) + "\n")
        return {
            "files": len(files),
            "failed": failed,
            "functions": functions,
            "parse_seconds": round(seconds, 3),
            "longest": longest,
        }

    def measure(self) -> dict[str, Any]:
        self._say(f"{NOTHINGS:,} tasks that do nothing.")
        start = time.perf_counter()
        results = demo_tasks.nothing.delay_many([()] * NOTHINGS)
        published = time.perf_counter() - start
        for status in self._statuses([result.id for result in results], "tasks done", NOTHINGS // 4):
            self._value(status)
        seconds = time.perf_counter() - start
        rate = round(NOTHINGS / seconds)
        self._say(
            f"Confirmed after {published:.2f} s, all results here after {seconds:.2f} s: {rate:,} tasks/s."
        )
        return {"tasks": NOTHINGS, "seconds": round(seconds, 3), "tasks_per_second": rate}

    def _statuses(self, ids: list[str], what: str, at_once: int = _AT_ONCE) -> Iterator[Status]:
        """The final status of each id, in order, with a progress line on a terminal."""
        client = demo_tasks.app.client
        for start in range(0, len(ids), at_once):
            part = ids[start : start + at_once]
            deadline = time.monotonic() + PATIENCE
            while True:
                try:
                    statuses = client.wait(part, 1.0)
                except ChervilError:
                    self._daemons.check()  # a broker that died says why
                    raise
                if all(status.stage in FINAL for status in statuses):
                    break
                self._daemons.check()
                if time.monotonic() > deadline:
                    self._daemons.give_up(f"no result came for {PATIENCE:g} s")
            yield from statuses
            self._progress(f"{start + len(part):,} of {len(ids):,} {what}")
        self._progress("")

    def _value(self, status: Status) -> Any:
        if status.stage is not Stage.SUCCESS:
            self._daemons.give_up(f"task {status.id} ended as {status.stage.name}")
        return decode(status.codec, status.body) if status.codec and status.body else None

    def _progress(self, text: str) -> None:
        if self._live:
            click.echo(f"\r\x1b[K{text}", nl=False, err=True)

    def _say(self, text: str) -> None:
        if not self._silent:
            click.echo(text)


def command_line() -> str:
    """What to type for this program here: `chervil` where PATH has it, else where it is."""
    typed = Path(sys.argv[0])
    script = typed if typed.name == "chervil" else Path(sys.executable).with_name("chervil")
    on_path = shutil.which("chervil")
    if on_path is not None and Path(on_path).resolve() == script.resolve():
        return "chervil"
    if not script.is_file():
        return f"{shlex.quote(sys.executable)} -m chervil.cli"
    here, place = Path.cwd(), script.absolute()
    # A name without a folder would be looked for on the PATH.
    below = here in place.parent.parents
    return shlex.quote(str(place.relative_to(here) if below else place))


def library_files(library: Path) -> list[Path]:
    """The standard library's modules, without its tests and without what was installed beside it."""
    tests = {"test", "tests", "idle_test"}
    return [path for path in source_files(library) if not tests & set(path.relative_to(library).parts[:-1])]


@contextlib.contextmanager
def _ends_like_ctrl_c() -> Iterator[None]:
    """SIGTERM and SIGHUP unwind the stack as Ctrl-C does: processes and folder go away all the same."""

    def interrupt(number: int, frame: FrameType | None) -> NoReturn:
        raise KeyboardInterrupt

    numbers = (signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, interrupt) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
