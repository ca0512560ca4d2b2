"""`chervil broker check`, `repair`, `dump`, `backup` and `restore`: what people do with a journal on disk.

Exit codes: 0 fine; 1 damage was found, or something was refused; 2 usage.
"""

import os
from collections.abc import Callable
from functools import wraps
from pathlib import Path

import click

from chervil.statedir import NotPrivate
from chervil_broker.journal import backup as copying
from chervil_broker.journal import check as checking
from chervil_broker.journal import dump as dumping
from chervil_broker.journal import repair as repairing
from chervil_broker.journal.check import Checked
from chervil_broker.journal.files import OSFiles
from chervil_broker.journal.lock import LOCK_NAME, FolderInUse, FolderLock
from chervil_broker.journal.opening import ASIDE
from chervil_broker.journal.reader import Damage
from chervil_broker.sizes import show_size

_SALT_SIZE = 8
_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)


def _command(name: str, metavar: str = "DIR") -> Callable[[Callable[..., None]], click.Command]:
    """A command whose first argument is a folder, and whose errors are messages."""

    def decorate(function: Callable[..., None]) -> click.Command:
        @wraps(function)
        def run(*, folder: Path, **given: object) -> None:
            try:
                function(folder, **given)
            except Damage as damage:
                raise click.ClickException(damage.advice(folder)) from None
            except (FolderInUse, NotPrivate, copying.BackupError) as error:
                raise click.ClickException(str(error)) from None
            except BrokenPipeError:
                raise
            except OSError as error:
                raise click.ClickException(f"{error.filename or folder}: {error.strerror}") from error

        return click.command(name)(click.argument("folder", metavar=metavar, type=_FOLDER)(run))

    return decorate


@_command("check")
def check(folder: Path) -> None:
    """Read the whole journal in DIR and say whether it is as it should be. Changes nothing.

    While a broker runs there, `chervil broker backup` makes a copy and checks that.
    """
    # Nobody writes to a folder that has no lock, as a backup has none; it may be on a disk that is read only.
    lock = FolderLock(folder) if (folder / LOCK_NAME).exists() else None
    try:
        checked = checking.check(OSFiles(folder, read_only=True))
    finally:
        if lock:
            lock.release()
    click.echo(f"the journal in {folder} is as it should be: {_told(checked)}")
    if checked.tail and checked.tail.torn:
        click.echo(
            f"{checked.tail.torn:,} bytes at its end were being written when the broker was ended; nobody "
            f"was told that they are durable. The next start puts them into {folder / ASIDE}"
        )


@_command("repair")
@click.option("--yes", is_flag=True, help="Do not ask.")
def repair(folder: Path, *, yes: bool) -> None:
    """Make the damaged journal in DIR one that opens, with every record that can still be read.

    Says first what is lost, and asks. The files that it changes are kept in DIR/aside.
    """
    lock = FolderLock(folder)
    try:
        files = OSFiles(folder)
        planned = repairing.plan(files)
        if not planned.steps:
            checked = checking.check(files)
            click.echo(f"there is nothing to repair in {folder}: {_told(checked)}")
            return
        _explain(folder, planned)
        if not yes:
            click.confirm("Repair it?", abort=True)
        aside = folder / ASIDE
        aside.mkdir(mode=0o700, exist_ok=True)
        repairing.repair(files, OSFiles(aside), planned, lambda: os.urandom(_SALT_SIZE))
        checked = checking.check(files)
    finally:
        lock.release()
    click.echo(f"repaired; a broker opens it now: {_told(checked)}. What was there before is in {aside}")


@_command("dump")
@click.option("--bodies", is_flag=True, help="Write out headers, bodies and results, not only their lengths.")
def dump(folder: Path, *, bodies: bool) -> None:
    """Write the records of the journal in DIR as JSON lines, oldest first. Changes nothing.

    Of a running broker's journal the last lines may be missing.
    """
    for line in dumping.dump(OSFiles(folder, read_only=True), bodies=bodies):
        click.echo(line)


@_command("backup")
@click.argument("destination", metavar="DEST", type=click.Path(path_type=Path))
def backup(folder: Path, *, destination: Path) -> None:
    """Copy the data folder DIR to the new folder DEST, and check the copy. The broker may be running.

    What is confirmed before this begins is in the copy. `chervil broker restore` makes a data folder from it.
    """
    checked = copying.backup(folder, destination)
    click.echo(f"{destination} is a backup of {folder}: {_told(checked)}")


@_command("restore", metavar="BACKUP")
@click.argument("destination", metavar="DIR", type=click.Path(path_type=Path))
def restore(folder: Path, *, destination: Path) -> None:
    """Make the new data folder DIR from a backup, which stays as it is.

    What a broker finds in it may have been done since the backup was made: all of it is flagged as delivered
    before, and tasks that were finished since run again.
    """
    checked = copying.restore(folder, destination)
    click.echo(
        f"{destination} is made from {folder}: {_told(checked)}. "
        f"Tasks in it that were finished since then run again: chervil broker --data {destination}"
    )


def _told(checked: Checked) -> str:
    """What there is, in a few words."""
    if checked.tail is None:
        return "there are no segments"
    segments = len(checked.tail.position.segments)
    ended = "ended in order" if checked.tail.position.clean else "not ended in order"
    files = "1 segment" if segments == 1 else f"{segments} segments"
    return f"{checked.records:,} records in {files}, {show_size(checked.size)}, {ended}"


def _explain(folder: Path, planned: repairing.Plan) -> None:
    """What a repair would do and cost."""
    click.echo(f"the journal in {folder} is damaged:")
    for step in planned.steps:
        lost = "not known how many" if step.lost is None else f"{step.lost:,}"
        fate = f"records lost: {lost}; records saved: {step.saved:,}"
        click.echo(f"  {step.name or 'missing'}: {step.what}. {fate}")
    click.echo(f"in all, records lost: {planned.lost:,}; records that stay: {planned.saved:,}")
    click.echo(
        f"The files that are changed or taken out are kept in {folder / ASIDE}. Every task that is not "
        "finished is flagged as delivered before, and one whose completion is lost runs again; a task is "
        "gone where its publish is among the lost records."
    )
