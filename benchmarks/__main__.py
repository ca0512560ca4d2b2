"""`python -m benchmarks`: measures, prints a table in Markdown, and writes JSON when asked."""

import json
import shutil
import statistics
import tempfile
from pathlib import Path
from typing import Any

import click

from benchmarks import disk
from benchmarks.echo import msgpack_round_trip
from benchmarks.measures import MEASURES, Echo, Measure, echo_limit
from benchmarks.stage import Durability, Setting
from benchmarks.table import machine, show

MODES: tuple[Durability, ...] = ("memory", "always")


class Row:
    """One measure with one durability: what its runs gave."""

    def __init__(self, measure: Measure, durability: Durability) -> None:
        self.measure = measure
        self.durability: Durability = durability
        self.figures: list[float] = []
        #: What the broker said after each run (STATS).
        self.reports: list[dict[str, Any]] = []

    def run(self, folder: Path) -> None:
        setting = Setting(folder, self.durability)
        self.figures.append(self.measure.run(setting))
        self.reports.append(setting.report)
        shutil.rmtree(folder)
        click.echo(
            f"  run {len(self.figures)}: {self.measure.name}, {self.durability}: "
            f"{show(self.figures[-1])} {self.measure.unit}",
            err=True,
        )

    def facts(self, echo: Echo, commits: disk.Commits, memory: "Row | None") -> dict[str, Any]:
        """The row in JSON. `memory`: the same measure without a journal, run by run beside this one."""
        measure, target = self.measure, self.measure.target(self.durability)
        median = statistics.median(self.figures)
        asked = measure.asked(self.durability, echo)
        to_memory = None
        if memory is not None:
            to_memory = statistics.median(a / b for a, b in zip(self.figures, memory.figures, strict=True))
        met = median >= asked if measure.higher else median <= asked
        return {
            "name": measure.name,
            "durability": self.durability,
            "unit": measure.unit,
            "median": median,
            "min": min(self.figures),
            "max": max(self.figures),
            "to_memory": to_memory,
            "to_limit": median / measure.limit(self.durability, echo, commits),
            "target": asked,
            "target_text": _target_text(measure, self.durability),
            "target_of_memory": target.of_memory or None,
            "met": met and (to_memory is None or to_memory >= target.of_memory),
            "commit_p50_ms": self._said("journal", "commit_p50_ms"),
            "commit_p99_ms": self._said("journal", "commit_p99_ms"),
            "loop_lag_p99_ms": self._said("loop_lag", "p99_ms"),
        }

    def _said(self, section: str, name: str) -> float | None:
        """The median of what the brokers said; None where they had nothing to say."""
        said = [report[section][name] for report in self.reports if name in report[section]]
        return statistics.median(said) if said else None


@click.command()
@click.argument("names", nargs=-1)
@click.option("--repeat", default=5, show_default=True, help="Runs of each row; the median counts.")
@click.option(
    "--durability",
    type=click.Choice([*MODES, "both"]),
    default="both",
    show_default=True,
    help="What the broker keeps: nothing, or everything before it is confirmed.",
)
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write all figures here too.")
def bench(names: tuple[str, ...], repeat: int, durability: str, json_file: Path | None) -> None:
    """Measure Chervil beside the limits of this machine (worker -c 2, results stored, late acks).

    The limits are a bare echo loop, and one append and fdatasync after the other, in the same run. NAMES
    pick the rows whose name contains one of them; all rows unless given. Rows are run in turn, not one
    after the other, so that a slow minute of the machine meets them all.
    """
    chosen = [m for m in MEASURES if not names or any(name in m.name for name in names)]
    if not chosen:
        raise click.UsageError(f"no row's name contains {' or '.join(names)}")
    modes: list[Durability] = [mode for mode in MODES if durability in (mode, "both")]
    pairs = [{mode: Row(measure, mode) for mode in modes} for measure in chosen]
    echoes: list[Echo] = []
    commits: list[disk.Commits] = []
    place = disk.scratch_folder()
    with tempfile.TemporaryDirectory(prefix="chervil-bench-", dir=place) as scratch:
        for run in range(repeat):
            echoes.append(echo_limit())
            commits.append(disk.commit_limit(Path(scratch)))
            for pair in pairs:
                # Who goes first finds the caches of another row: they take turns.
                for row in list(pair.values())[:: -1 if run % 2 else 1]:
                    row.run(Path(scratch) / "run")
    echo = Echo(*map(statistics.median, zip(*echoes, strict=True)))
    commit = disk.Commits(*map(statistics.median, zip(*commits, strict=True)))
    rows = [
        row.facts(echo, commit, pair.get("memory") if mode == "always" else None)
        for pair in pairs
        for mode, row in pair.items()
    ]
    file_system = "{} on {}".format(*disk.file_system(place))
    _print(rows, echo, commit, repeat, file_system)
    if json_file is not None:
        facts = {
            "machine": machine(),
            "file_system": file_system,
            "repeat": repeat,
            "echo": echo._asdict(),
            "commits": commit._asdict(),
            "rows": rows,
        }
        json_file.write_text(json.dumps(facts, indent=2) + "\n")


def _target_text(measure: Measure, durability: Durability) -> str:
    target = measure.target(durability)
    if target.echoes:
        return f"{target.echoes} x echo"
    text = f"{show(target.figure)} {measure.unit}"
    return f"{text}, {target.of_memory} x memory" if target.of_memory else text


def _print(
    rows: list[dict[str, Any]], echo: Echo, commits: disk.Commits, repeat: int, file_system: str
) -> None:
    click.echo(f"\n{machine()}; medians of {repeat}; worker -c 2, results stored, late acks")
    click.echo(
        "durability: memory is --memory, which keeps nothing; always is --data with --fsync always, "
        f"on {file_system}"
    )
    click.echo(
        f"echo limit: {show(echo.per_second)} round trips/s, p50 {echo.p50_ms:.3f} ms "
        f"({echo.paced_p50_ms:.3f} ms at 50/s); "
        f"msgpack there and back: {msgpack_round_trip() * 1e6:.2f} us a row"
    )
    click.echo(
        f"commit limit: {show(commits.per_second)} times append and fdatasync/s, one after the other, "
        f"p50 {commits.p50_ms:.3f} ms, p99 {commits.p99_ms:.3f} ms"
    )
    click.echo(
        "to limit: one echo round trip; with durability always also the commits that one call waits for, "
        "which are one for a publish and its first line, two for a round trip\n"
    )
    click.echo(
        "| what | durability | median | min | max | to memory | to limit | target | met "
        "| commit p50 / p99 ms | loop lag p99 ms |"
    )
    click.echo("|---|---|---:|---:|---:|---:|---:|---|---|---:|---:|")
    for row in rows:
        click.echo(f"| {' | '.join(_cells(row))} |")


def _cells(row: dict[str, Any]) -> list[str]:
    commit = row["commit_p99_ms"]
    return [
        row["name"],
        row["durability"],
        f"{show(row['median'])} {row['unit']}",
        show(row["min"]),
        show(row["max"]),
        "" if row["to_memory"] is None else f"{row['to_memory']:.2f}",
        f"{row['to_limit']:.2f}",
        row["target_text"],
        "yes" if row["met"] else "no",
        "" if commit is None else f"{row['commit_p50_ms']:.2f} / {commit:.2f}",
        f"{row['loop_lag_p99_ms']:.2f}",
    ]


if __name__ == "__main__":
    bench()
