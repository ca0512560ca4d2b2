"""Who may import whom: the three packages keep to their directions, and the wire does no I/O."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = {"chervil": ROOT / "client", "chervil_broker": ROOT / "broker", "chervil_worker": ROOT / "worker"}

#: What the broker takes from `chervil`: the wire, and modules that import nothing of `chervil`.
LEAVES = (
    "chervil.address",
    "chervil.listeners",
    "chervil.logformat",
    "chervil.statedir",
    "chervil.suggest",
    "chervil.systemd",
    "chervil.tcp",
    "chervil.tls_files",
    "chervil.version",
)
BROKER_MAY = ("chervil_broker", "chervil.protocol", *LEAVES)
#: Where `chervil` names the other two packages in text: the table of verbs, and the command lines of
#: the processes that `dev` and `demo` start.
MAY_NAME_OTHERS = ("cli/verbs.py", "cli/processes.py")

#: What would bring a socket, a clock, chance, the environment or a thread into the wire.
NO_IO = frozenset(
    [
        "asyncio",
        "concurrent",
        "datetime",
        "io",
        "logging",
        "multiprocessing",
        "os",
        "pathlib",
        "platform",
        "queue",
        "random",
        "secrets",
        "select",
        "selectors",
        "signal",
        "socket",
        "ssl",
        "subprocess",
        "sys",
        "tempfile",
        "threading",
        "time",
        "uuid",
        "uvloop",
    ]
)


def imported(source: str, package: str) -> Iterator[tuple[int, str]]:
    """(line, module) of every import in a module of `package`, those inside functions included.

    `from a import b` yields `a.b`, because b may be a module. A name given to `import_module` or
    `__import__` as text is an import too.
    """
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*parents, base]).rstrip(".")
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in ("import_module", "__import__"):
                yield node.lineno, str(node.args[0].value)


def within(module: str, allowed: tuple[str, ...]) -> bool:
    return any(module == name or module.startswith(f"{name}.") for name in allowed)


def room_of(module: str) -> str:
    return module.partition(".")[0]


def wrong_directions(source: str, package: str) -> list[str]:
    """The imports of a module of `package` that its room forbids."""
    room = room_of(package)
    wrong = []
    for line, module in imported(source, package):
        if room_of(module) not in ROOMS:
            continue
        if (
            (room == "chervil" and room_of(module) != "chervil")
            or (room == "chervil_worker" and room_of(module) == "chervil_broker")
            or (room == "chervil_broker" and not within(module, BROKER_MAY))
            or (within(package, ("chervil.protocol",)) and not within(module, ("chervil.protocol",)))
        ):
            wrong.append(f"line {line}: {package} may not import {module}")
    return wrong


def impurities(source: str, package: str) -> list[str]:
    """What a module does that belongs to the shells around the wire."""
    wrong = [
        f"line {line}: import of {module}"
        for line, module in imported(source, package)
        if room_of(module) in NO_IO
    ]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            if node.func.id in ("open", "print", "input"):
                wrong.append(f"line {node.lineno}: call of {node.func.id}")
        elif isinstance(node, ast.AsyncFunctionDef | ast.Await):
            wrong.append(f"line {node.lineno}: async code")
    return wrong


def named_in_text(source: str) -> list[str]:
    """Text in a module that is the name of another room, or of something in it."""
    return [
        f"line {node.lineno}: {node.value!r}"
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and room_of(node.value.partition(":")[0]) in ("chervil_broker", "chervil_worker")
    ]


def modules() -> list[tuple[Path, str]]:
    """(path, package it stands in) of every module of the three rooms."""
    return [
        (path, ".".join(path.parent.relative_to(folder).parts))
        for folder in ROOMS.values()
        for path in sorted(folder.rglob("*.py"))
    ]


def findings(check, chosen) -> list[str]:
    found = []
    for path, package in chosen:
        source = path.read_text(encoding="utf-8")
        found += [f"{path.relative_to(ROOT)}: {line}" for line in check(source, package)]
    return found


def test_rooms_are_found():
    packages = {package for _, package in modules()}
    assert {"chervil", "chervil.protocol", "chervil.cli", "chervil_broker", "chervil_worker"} <= packages


def test_every_import_keeps_its_direction():
    assert not (found := findings(wrong_directions, modules())), "\n".join(found)


def test_leaves_that_the_broker_takes_import_nothing_of_chervil_but_leaves():
    for leaf in LEAVES:
        source = (ROOMS["chervil"] / (leaf.replace(".", "/") + ".py")).read_text(encoding="utf-8")
        inside = [module for _, module in imported(source, "chervil") if room_of(module) == "chervil"]
        assert all(within(module, LEAVES) for module in inside), f"{leaf} imports {inside}"


def test_wire_does_no_io():
    wire = [(path, package) for path, package in modules() if within(package, ("chervil.protocol",))]
    assert len(wire) >= 10
    assert not (found := findings(impurities, wire)), "\n".join(found)


def test_chervil_names_the_other_packages_in_two_places_only():
    folder = ROOMS["chervil"] / "chervil"
    naming = {
        str(path.relative_to(folder))
        for path in folder.rglob("*.py")
        if named_in_text(path.read_text(encoding="utf-8"))
    }
    assert naming == set(MAY_NAME_OTHERS)


def test_import_chervil_loads_neither_event_loop_nor_command_line():
    code = (
        "import sys, chervil; "
        "print(*sorted({'asyncio', 'ssl', 'click', 'uvloop'} & set(sys.modules)), sep=',', end='')"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
    assert run.stdout == ""


@pytest.mark.parametrize(
    ("package", "source"),
    [
        ("chervil", "import chervil_broker"),
        ("chervil", "from chervil_worker import child"),
        ("chervil.cli", "def run():\n    from chervil_broker.cli import broker"),
        ("chervil.cli", "import importlib\nimportlib.import_module('chervil_worker.cli')"),
        ("chervil.cli", "__import__('chervil_broker')"),
        ("chervil_broker", "import chervil"),
        ("chervil_broker", "from chervil import app"),
        ("chervil_broker.engine", "from chervil.client import Client"),
        ("chervil_broker", "import chervil.cli.common"),
        ("chervil_broker", "import chervil_worker"),
        ("chervil_worker", "from chervil_broker.engine import engine"),
        ("chervil.protocol", "from chervil import address"),
        ("chervil.protocol", "from ..app import Chervil"),
        ("chervil.protocol", "from .. import app"),
    ],
)
def test_planted_import_is_found(package, source):
    assert len(wrong_directions(source, package)) == 1


@pytest.mark.parametrize(
    ("package", "source"),
    [
        ("chervil", "import os, msgpack\nfrom chervil.protocol import Code\nfrom . import app"),
        (
            "chervil.protocol",
            "from chervil.protocol import fields\nfrom . import rows\nfrom .ids import to_text",
        ),
        ("chervil_broker", "from chervil.protocol.frames import FrameReader\nimport chervil.version"),
        ("chervil_broker", "from chervil import protocol, statedir\nfrom chervil_broker import engine"),
        ("chervil_worker", "from chervil.app import Chervil\nimport chervil_worker.link"),
    ],
)
def test_allowed_import_is_let_pass(package, source):
    assert wrong_directions(source, package) == []


@pytest.mark.parametrize(
    "source",
    [
        "import time",
        "from os import environ",
        "def id():\n    import uuid",
        "import socket as s",
        "open('x')",
        "async def feed(): ...",
        "import concurrent.futures",
    ],
)
def test_planted_io_is_found(source):
    assert len(impurities(source, "chervil.protocol")) == 1


@pytest.mark.parametrize("text", ["chervil_broker", "chervil_worker.cli:worker"])
def test_planted_name_of_another_room_is_found(text):
    assert named_in_text(f"command = ['-m', {text!r}]") == [f"line 1: {text!r}"]
    assert named_in_text(f"'''Said of {text}.'''") == []
