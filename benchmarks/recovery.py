"""`python -m benchmarks.recovery`: memory of many queued tasks, and time of a start after `kill -9`."""

import json
import os
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import click

from benchmarks import disk, tasks
from benchmarks.measures import BATCH, PAYLOAD
from benchmarks.stage import Durability, Setting, Stage
from benchmarks.table import machine, show

#: For so many queued tasks of 100 bytes: what they may take, and how soon they are back.
TASKS = 1_000_000
RESIDENT_MIB_MOST = 700.0
READY_SECONDS_MOST = 12.0


class Figure(NamedTuple):
    """One row; `most` is its target with `TASKS` tasks, where it has one."""

    name: str
    durability: Durability
    figure: float
    unit: str
    most: float | None = None


@click.command()
@click.option("--tasks", "count", default=TASKS, show_default=True, help="Tasks that are queued.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write all figures here too.")
def recovery(count: int, json_file: Path | None) -> None:
    """Measure what queued tasks of 100 bytes take, and how long they take to be back after `kill -9`.

    The targets are for a million tasks: with another number the figures stand without.
    """
    place = disk.scratch_folder()
    with tempfile.TemporaryDirectory(prefix="chervil-bench-", dir=place) as scratch:
        figures = [resting(Path(scratch) / "memory", count), *recovered(Path(scratch) / "always", count)]
    file_system = "{} on {}".format(*disk.file_system(place))
    click.echo(
        f"\n{machine()}; {count:,} queued tasks of 100 bytes; one run; the journal is on {file_system}\n"
    )
    click.echo("| what | durability | figure | target | met |")
    click.echo("|---|---|---:|---:|---|")
    for name, durability, figure, unit, asked in figures:
        most = asked if count == TASKS else None
        target = "" if most is None else f"{show(most)} {unit}"
        met = "" if most is None else "yes" if figure <= most else "no"
        click.echo(f"| {name} | {durability} | {show(figure)} {unit} | {target} | {met} |")
    if json_file is not None:
        facts = {
            "machine": machine(),
            "file_system": file_system,
            "tasks": count,
            "rows": [figure._asdict() for figure in figures],
        }
        json_file.write_text(json.dumps(facts, indent=2) + "\n")


def resting(folder: Path, count: int) -> Figure:
    """What a broker takes that keeps nothing."""
    with Setting(folder, "memory").stage() as broker:
        _fill(broker, count)
        return _resident("resident with all queued", broker, "memory")


def recovered(folder: Path, count: int) -> list[Figure]:
    """What a broker with a journal takes, is killed, and another one after it."""
    setting = Setting(folder, "always")
    with setting.stage() as broker:
        _fill(broker, count)
        before = _resident("resident with all queued", broker, "always")
        journal = broker.report()["journal"]["disk_bytes"]
        broker.kill()
    began = time.monotonic()
    with setting.stage() as broker:
        seconds = time.monotonic() - began
        _check(broker, count)
        after = _resident("resident after the restart", broker, "always")
    return [
        before,
        Figure("journal on the disk, spare segments too", "always", journal / 2**20, "MiB"),
        Figure(
            "from the start to ready after kill -9",
            "always",
            seconds,
            "s",
            READY_SECONDS_MOST,
        ),
        after,
    ]


def _fill(broker: Stage, count: int) -> None:
    batch = [(PAYLOAD,)] * BATCH
    for _ in range(count // BATCH):
        tasks.noop.delay_many(batch)
    _check(broker, count)


def _check(broker: Stage, count: int) -> None:
    queued = broker.report()["tasks"]["QUEUED"]
    if queued != count // BATCH * BATCH:
        raise AssertionError(f"{count} tasks were confirmed and {queued} are queued")


def _resident(name: str, broker: Stage, durability: Durability) -> Figure:
    """The broker's RSS."""
    pages = int(Path(f"/proc/{broker.pid}/statm").read_text().split()[1])
    mib = pages * os.sysconf("SC_PAGE_SIZE") / 2**20
    return Figure(name, durability, mib, "MiB", RESIDENT_MIB_MOST)


if __name__ == "__main__":
    recovery()
