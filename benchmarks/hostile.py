"""`python -m benchmarks.hostile`: what connections that mean no good, or do nothing, cost the others.

One run takes about a minute and a half. The broker has a core of its own, all others share the rest: what
is measured is the broker and not who gets the CPU.
"""

import contextlib
import json
import os
import resource
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

import click
import trustme

from benchmarks.crowd import connect, greet, is_closed, last_words, secure, tls_context
from benchmarks.measures import PAYLOAD, echo_limit
from benchmarks.stage import START_SECONDS
from benchmarks.table import machine, show
from chervil.address import BrokerURL, Found
from chervil.client import Client
from chervil.protocol import Code
from chervil.protocol.limits import PREAUTH_SECONDS
from chervil.tls_files import files_from
from chervil_broker.strangers import PREAUTH_PEERS_MAX, PREAUTH_PER_ADDRESS_MAX

ROOT = Path(__file__).parent.parent
#: What this release promises.
IDLE_KIB_MOST = 20.0
SLOWER_MOST = 2.0
#: How much later than its deadline a stranger may be closed: the loop's turn and a busy machine.
LATE_SECONDS = 0.5
#: The bystander publishes for so long before anything counts.
WARM_SECONDS = 0.5
#: Connections beyond a cap that are tried, and the cap on all that is tried.
BEYOND = 20
CONNECTIONS_CAP = 40


class Scale(NamedTuple):
    """How much of everything; the defaults are what is promised."""

    idle: int = 5000
    slow: int = 1000
    storm: int = 500
    #: A crowd comes from so many addresses, with a process each: none of them is at its cap of strangers.
    addresses: int = 4
    #: Seconds for which the bystander publishes, and how often a second.
    seconds: float = 5.0
    rate: int = 200


class Row(NamedTuple):
    """One line of the table. `ratio` is to the quiet run just before; `met` None: nothing is promised."""

    name: str
    figure: float
    unit: str
    ratio: float | None = None
    target: str = ""
    met: bool | None = None
    said: str = ""


class Site:
    """Certificates and a user, in a folder; clients of this process find both through the environment."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        authority = trustme.CA()
        authority.cert_pem.write_to_path(folder / "ca.pem")
        authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(folder / "broker.pem")
        os.environ["XDG_STATE_HOME"] = str(folder)
        os.environ["CHERVIL_TLS_CA"] = str(folder / "ca.pem")
        command = ["user", "add", "crowd", "--role", "admin", "--users", str(folder / "users.json")]
        added = subprocess.run(
            [sys.executable, "-m", "chervil_broker", *command], capture_output=True, text=True, check=True
        )
        os.environ["CHERVIL_TOKEN"] = added.stdout.strip()


class Measured:
    """A running broker, and a bystander that is connected to it."""

    def __init__(self, pid: int, url: BrokerURL) -> None:
        self.pid = pid
        self.url = url
        self.context = tls_context(url)
        self._client = Client(Found(url, "benchmark", files=files_from(None)), name="bystander")

    def publish(self, scale: Scale) -> list[float]:
        """How long each publish took until it was confirmed, in ms, sorted.

        One that is due while an earlier one is not confirmed yet has its waiting counted.
        """
        taken = []
        begin = time.monotonic()
        for number in range(int(scale.rate * scale.seconds)):
            due = begin + number / scale.rate
            wait = due - time.monotonic()
            if wait > 0:
                time.sleep(wait)
                due = time.monotonic()
            row = [os.urandom(16), "noop", "default", 0, None, None, "json", PAYLOAD.encode()]
            self._client.publish([row])
            taken.append((time.monotonic() - due) * 1000)
        return sorted(taken)

    def resident(self) -> int:
        """The broker's RSS in bytes."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def refused(self, code: Code) -> int:
        """How many connections and requests the broker has refused with that code."""
        count: int = self._client.stats()["counters"].get(f"refused_{code.lower()}", 0)
        return count

    def wait_until_alone(self) -> None:
        """Until everybody else is gone who has said HELLO."""
        deadline = time.monotonic() + START_SECONDS
        while self._client.stats()["connections"] > 1:
            if time.monotonic() > deadline:
                raise TimeoutError("connections that were closed are still there for the broker")
            time.sleep(0.02)

    def close(self) -> None:
        self._client.close()


@contextlib.contextmanager
def measured(site: Site, *flags: str, tls: bool) -> Iterator[Measured]:
    """A fresh broker on the last core, while this process keeps to the others."""
    pem, log = str(site.folder / "broker.pem"), site.folder / "broker.log"
    command = [sys.executable, "-m", "chervil_broker", "--bind", "127.0.0.1:0", "--memory"]
    command += ["--users", str(site.folder / "users.json"), *flags]
    command += ["--tls-cert", pem, "--tls-key", pem] if tls else []
    cores = sorted(os.sched_getaffinity(0))
    priority = os.getpriority(os.PRIO_PROCESS, 0)
    with log.open("w+", encoding="utf-8") as output, subprocess.Popen(command, stderr=output) as process:
        try:
            os.sched_setaffinity(process.pid, {cores[-1]})
            os.sched_setaffinity(0, set(cores[:-1]) or set(cores))
            _come_first(process.pid)
            broker = Measured(process.pid, _url_said_in(log))
            yield broker
            broker.close()
        finally:
            os.sched_setaffinity(0, cores)
            os.setpriority(os.PRIO_PROCESS, 0, priority)
            process.terminate()


def _come_first(pid: int) -> None:
    """Where that is allowed, this process and the broker go before what else this machine does."""
    with contextlib.suppress(PermissionError):
        for each in (0, pid):
            os.setpriority(os.PRIO_PROCESS, each, -15)


def _url_said_in(log: Path) -> BrokerURL:
    deadline = time.monotonic() + START_SECONDS
    while " ready on " not in (text := log.read_text(encoding="utf-8")):
        if time.monotonic() > deadline:
            raise TimeoutError(text)
        time.sleep(0.01)
    return BrokerURL.parse(text.split(" ready on ")[1].split(";")[0])


@contextlib.contextmanager
def crowd(kind: str, count: int, scale: Scale, url: BrokerURL) -> Iterator[dict[str, int]]:
    """A crowd (crowd.py) that is there while the block runs; then the dict tells what became of it."""
    told: dict[str, int] = {}
    members = [
        subprocess.Popen(
            [
                *(sys.executable, "-m", "benchmarks.crowd", kind),
                *(str(count // scale.addresses), f"127.0.0.{2 + number}", str(url)),
            ],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(scale.addresses)
    ]
    try:
        for member in members:
            assert member.stdout is not None
            if member.stdout.readline() != "ready\n":
                raise ChildProcessError(f"the crowd of {kind} connections did not come to be")
        yield told
    finally:
        for member in members:
            answer, _ = member.communicate()
            for name, value in json.loads(answer or "{}").items():
                told[name] = told.get(name, 0) + value


class Quiet(NamedTuple):
    """The bystander's p50 and p99 in ms while nobody else is there."""

    p50: float
    p99: float


def quantiles(taken: list[float]) -> Quiet:
    return Quiet(taken[len(taken) // 2], taken[int(len(taken) * 0.99)])


def bystander_rows(name: str, taken: list[float], quiet: Quiet, said: str) -> list[Row]:
    p50, p99 = quantiles(taken)
    slower = p99 / quiet.p99
    target = f"<= {SLOWER_MOST:g} x quiet"
    return [
        Row(f"{name}: p50", p50, "ms", p50 / quiet.p50, said=f"quiet: {quiet.p50:.3f}"),
        Row(
            f"{name}: p99",
            p99,
            "ms",
            slower,
            target,
            slower <= SLOWER_MOST,
            f"quiet: {quiet.p99:.3f}; {said}",
        ),
    ]


def idle(broker: Measured, scale: Scale, quiet: Quiet) -> list[Row]:
    """What connections that do nothing cost the broker's memory, and the bystander."""
    before = broker.resident()
    with crowd("idle", scale.idle, scale, broker.url) as told:
        each = (broker.resident() - before) / scale.idle / 1024
        taken = broker.publish(scale)
    broker.wait_until_alone()
    name, lost = f"{scale.idle:,} idle, authenticated", f"lost: {told['lost']}"
    return [
        Row(f"{name}: RSS of each", each, "KiB", None, f"<= {IDLE_KIB_MOST:g}", each <= IDLE_KIB_MOST, lost),
        *bystander_rows(name, taken, quiet, lost),
    ]


def slow(broker: Measured, scale: Scale, quiet: Quiet) -> list[Row]:
    """Slowloris: before HELLO, or in the middle of TLS where that is spoken."""
    with crowd("slow", scale.slow, scale, broker.url) as told:
        taken = broker.publish(scale)
    where = "before HELLO" if broker.context is None else "in the middle of TLS"
    said = f"opened: {told['opened']}, refused: {told['refused']}"
    return bystander_rows(f"{scale.slow:,} slow ones {where}", taken, quiet, said)


def storm(broker: Measured, scale: Scale, quiet: Quiet) -> list[Row]:
    """Connections that come, say HELLO and go."""
    with crowd("storm", scale.storm, scale, broker.url) as told:
        taken = broker.publish(scale)
    rate = told["opened"] / (told["ms"] / scale.addresses / 1000)
    said = f"{rate:.0f} a second were welcomed, refused: {told['refused']}"
    return bystander_rows(f"{scale.storm:,} connects a second", taken, quiet, said)


def strangers_capped(broker: Measured) -> list[Row]:
    """Who has not said HELLO is let in up to the caps; from another address it gets the place of one."""
    held = [connect(broker.url, "127.0.0.8") for _ in range(PREAUTH_PER_ADDRESS_MAX)]
    name = f"beyond {PREAUTH_PER_ADDRESS_MAX} strangers from an address"
    rows = [_refusals(name, broker, partial(connect, broker.url, "127.0.0.8"), held)]
    while len(held) < PREAUTH_PEERS_MAX:
        address = 8 + len(held) // PREAUTH_PER_ADDRESS_MAX
        held.append(connect(broker.url, f"127.0.0.{address}"))
    rows.append(_room_made(f"{PREAUTH_PEERS_MAX:,} strangers, and others from another address", broker, held))
    for sock in held:
        sock.close()
    return rows


def _room_made(name: str, broker: Measured, held: list[socket.socket]) -> Row:
    """Says HELLO from an address that is not there yet, where all places are held by strangers."""
    began = time.monotonic()
    greeted = [greet(broker.url, broker.context, "127.0.0.12") for _ in range(BEYOND)]
    took = time.monotonic() - began
    away = sum(map(is_closed, held))
    for sock in greeted:
        sock.close()
    # Who has said HELLO is no stranger any more: one place is enough for all of them.
    said = f"{away} of those without HELLO closed; {took * 1000:.0f} ms"
    return Row(
        f"{name}: let in", len(greeted), f"of {BEYOND}", None, f"{BEYOND} of {BEYOND}", away == 1, said
    )


def all_capped(broker: Measured) -> list[Row]:
    """`--max-connections CONNECTIONS_CAP`; the bystander is one of them."""
    broker.refused(Code.TOO_MANY)  # connects the bystander
    held = [greet(broker.url, broker.context, "127.0.0.8") for _ in range(CONNECTIONS_CAP - 1)]
    name = f"beyond --max-connections {CONNECTIONS_CAP}"
    rows = [_refusals(name, broker, partial(connect, broker.url, "127.0.0.9"), held)]
    for sock in held:
        sock.close()
    return rows


def _refusals(
    name: str, broker: Measured, another: Callable[[], socket.socket], held: list[socket.socket]
) -> Row:
    """Tries what is beyond a cap. Before TLS no code can be told: the broker counts and logs it."""
    counted = broker.refused(Code.TOO_MANY)
    began = time.monotonic()
    words = [last_words(another()) for _ in range(BEYOND)]
    took = time.monotonic() - began
    counted = broker.refused(Code.TOO_MANY) - counted
    expected = Code.TOO_MANY.value if broker.context is None else ""
    turned_away = words.count(expected)
    away = sum(map(is_closed, held))
    met = turned_away == counted == BEYOND and not away
    told = f"told {expected}" if expected else "hung up on before TLS"
    said = f"{turned_away} {told}, {counted} counted; {away} of those inside closed; {took * 1000:.0f} ms"
    return Row(f"{name}: closed", turned_away, f"of {BEYOND}", None, f"{BEYOND} of {BEYOND}", met, said)


def silence(broker: Measured) -> list[Callable[[], Row]]:
    """Strangers who say nothing, or not enough: each call waits until the broker has closed one."""
    url, context = broker.url, broker.context
    silent = partial(connect, url, "127.0.0.7")
    if context is None:
        return [
            partial(_closed_after, "a stranger that says nothing", silent, Code.SLOW),
            partial(_closed_after, "half a HELLO", partial(_half_a_hello, silent), Code.SLOW),
        ]
    return [
        partial(_closed_after, "a stranger that says nothing", silent, None),
        partial(_closed_after, "TLS and no HELLO", lambda: secure(silent(), url, context), Code.SLOW),
    ]


def _half_a_hello(silent: Callable[[], socket.socket]) -> socket.socket:
    sock = silent()
    sock.sendall(b"\0\0\0\x40\x99\x01")
    return sock


def _closed_after(name: str, begin: Callable[[], socket.socket], code: Code | None) -> Row:
    began = time.monotonic()
    sock = begin()
    sock.settimeout(2 * PREAUTH_SECONDS)
    words = last_words(sock)
    seconds = time.monotonic() - began
    met = abs(seconds - PREAUTH_SECONDS) <= LATE_SECONDS and words == (code or "")
    target = f"{PREAUTH_SECONDS} s, {code.value if code else 'no word before TLS'}"
    return Row(f"{name}: closed after", seconds, "s", None, target, met, words or "closed without a word")


def against(site: Site, scale: Scale, *, tls: bool) -> list[Row]:
    """Everything, against one broker that speaks TLS or does not."""
    rows: list[Row] = []
    with measured(site, tls=tls) as broker, ThreadPoolExecutor() as waiting:
        broker.publish(scale._replace(seconds=WARM_SECONDS))
        closed: list[Future[Row]] = [waiting.submit(wait) for wait in silence(broker)]
        for measure in (idle, slow, storm):
            quiet = quantiles(broker.publish(scale))
            rows += measure(broker, scale, quiet)
            click.echo(
                f"  {'TLS' if tls else 'plain'}: {rows[-1].name}: {show(rows[-1].figure)} ms", err=True
            )
        rows += strangers_capped(broker)
        rows += [row.result() for row in closed]
    with measured(site, "--max-connections", str(CONNECTIONS_CAP), tls=tls) as broker:
        rows += all_capped(broker)
    return rows


@click.command()
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write all figures here too.")
def hostile(json_file: Path | None) -> None:
    """Measure what slow, idle and stormy connections cost a bystander and the broker, plain and over TLS."""
    scale = Scale()
    raise_descriptor_limit(scale)
    load = os.getloadavg()[0]
    began = time.monotonic()
    limit = echo_limit()
    with tempfile.TemporaryDirectory(prefix="chervil-bench-") as folder:
        site = Site(Path(folder))
        tables = {"plain TCP": against(site, scale, tls=False), "TLS": against(site, scale, tls=True)}
    click.echo(
        f"\n{machine()}, {os.cpu_count()} cores; --memory; one run of {time.monotonic() - began:.0f} s; "
        f"load before: {load:.2f}\n"
        f"the bystander publishes {scale.rate} times a second for {scale.seconds:g} s awaiting each confirm; "
        f"echo limit at 50/s: p50 {limit.paced_p50_ms:.3f} ms"
    )
    for name, rows in tables.items():
        _print(name, rows)
    if json_file is not None:
        facts = {
            "machine": machine(),
            "load_before": load,
            "durability": "memory",
            "scale": scale._asdict(),
            "echo": limit._asdict(),
            "rows": [{"transport": name} | row._asdict() for name, rows in tables.items() for row in rows],
        }
        json_file.write_text(json.dumps(facts, indent=2) + "\n")


def raise_descriptor_limit(scale: Scale) -> None:
    """Raises UsageError where the broker could not hold all that come."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard < 1.1 * scale.idle:
        raise click.UsageError(f"{scale.idle} connections need more open files than {hard}: ulimit -Hn")


def _print(name: str, rows: list[Row]) -> None:
    click.echo(f"\n| {name} | figure | to quiet | target | met | |\n|---|---:|---:|---|---|---|")
    met = {None: "", True: "yes", False: "no"}
    for row in rows:
        ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
        figure = f"{show(row.figure)} {row.unit}"
        click.echo(f"| {row.name} | {figure} | {ratio} | {row.target} | {met[row.met]} | {row.said} |")


if __name__ == "__main__":
    hostile()
