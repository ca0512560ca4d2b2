"""`python -m benchmarks`: measures, prints a table in Markdown, and writes JSON when asked."""

import json
import platform
import statistics
import tempfile
from pathlib import Path
from typing import Any

import click

from benchmarks.echo import msgpack_round_trip
from benchmarks.measures import MEASURES, Echo, Measure, echo_limit


@click.command()
@click.argument("names", nargs=-1)
@click.option("--repeat", default=5, show_default=True, help="Runs of each row; the median counts.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write all figures here too.")
def bench(names: tuple[str, ...], repeat: int, json_file: Path | None) -> None:
    """Measure this machine's echo limit and Chervil in memory mode (worker -c 2, results stored, late acks).

    NAMES pick the rows whose name contains one of them; all rows unless given. Rows are run in turn,
    not one after the other, so that a slow minute of the machine meets them all.
    """
    chosen = [m for m in MEASURES if not names or any(name in m.name for name in names)]
    if not chosen:
        raise click.UsageError(f"no row's name contains {' or '.join(names)}")
    echoes: list[Echo] = []
    figures: dict[str, list[float]] = {measure.name: [] for measure in chosen}
    with tempfile.TemporaryDirectory(prefix="chervil-bench-") as scratch:
        for run in range(repeat):
            echoes.append(echo_limit())
            for number, measure in enumerate(chosen):
                figures[measure.name].append(measure.run(Path(scratch) / f"{run}-{number}"))
                click.echo(
                    f"  run {run + 1}: {measure.name}: {_show(figures[measure.name][-1])} {measure.unit}",
                    err=True,
                )
    limit = Echo(*[statistics.median(values) for values in zip(*echoes, strict=True)])
    rows = [_row(measure, figures[measure.name], limit) for measure in chosen]
    _print(rows, limit, repeat)
    if json_file is not None:
        facts = {
            "machine": _machine(),
            "durability": "memory",
            "repeat": repeat,
            "echo": limit._asdict(),
            "rows": rows,
        }
        json_file.write_text(json.dumps(facts, indent=2) + "\n")


def _row(measure: Measure, values: list[float], limit: Echo) -> dict[str, Any]:
    median = statistics.median(values)
    target = measure.target(limit)
    ratio = median / (limit.per_second if measure.unit == "/s" else limit.p50_ms)
    return {
        "name": measure.name,
        "unit": measure.unit,
        "median": median,
        "min": min(values),
        "max": max(values),
        "to_echo": ratio,
        "target": target,
        "target_text": measure.relative or f"{_show(target)} {measure.unit}",
        "met": median >= target if measure.higher else median <= target,
    }


def _print(rows: list[dict[str, Any]], limit: Echo, repeat: int) -> None:
    click.echo(f"\n{_machine()}; medians of {repeat}; --memory, worker -c 2, results stored, late acks")
    click.echo(
        f"echo limit: {_show(limit.per_second)} round trips/s, p50 {limit.p50_ms:.3f} ms "
        f"({limit.paced_p50_ms:.3f} ms at 50/s); "
        f"msgpack there and back: {msgpack_round_trip() * 1e6:.2f} us a row\n"
    )
    click.echo("| what | median | min | max | to echo | target | met |")
    click.echo("|---|---:|---:|---:|---:|---|---|")
    for row in rows:
        low, high = _show(row["min"]), _show(row["max"])
        click.echo(
            f"| {row['name']} | {_show(row['median'])} {row['unit']} | {low} | {high} | {row['to_echo']:.2f} "
            f"| {row['target_text']} | {'yes' if row['met'] else 'no'} |"
        )


def _machine() -> str:
    return f"Python {platform.python_version()}, {platform.system()} {platform.machine()}"


def _show(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3f}"


if __name__ == "__main__":
    bench()
