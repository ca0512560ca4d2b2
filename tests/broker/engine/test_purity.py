"""The engine is a plain deterministic object: its source is held to that."""

import ast
from pathlib import Path

import pytest

import chervil_broker.engine

FOLDER = Path(chervil_broker.engine.__file__).parent
ALLOWED = ("bisect", "collections", "dataclasses", "difflib", "enum", "heapq", "typing", "itertools")
ALLOWED_OURS = ("chervil.protocol", "chervil_broker.engine")
FORBIDDEN_CALLS = ("hash", "id", "open", "print", "input", "exec", "eval", "__import__", "globals", "vars")
#: Calls that go through their argument in its own order.
WALKS = ("list", "tuple", "iter", "enumerate", "zip", "map", "filter", "sum", "deque", "next", "reversed")
SET_METHODS = ("union", "intersection", "difference", "symmetric_difference")


def findings(source: str) -> list[str]:
    """What is impure in a module's source, as `line: what`."""
    tree = ast.parse(source)
    sets = _names_of_sets(tree)
    found = []
    for node in ast.walk(tree):
        found += [f"{node.lineno}: {what}" for what in _judge(node, sets)]
    return found


def _judge(node: ast.AST, sets: dict[str, None]) -> list[str]:
    if isinstance(node, ast.Import):
        return [f"imports {alias.name}" for alias in node.names if not _importable(alias.name)]
    if isinstance(node, ast.ImportFrom):
        return [] if node.level == 0 and _importable(node.module or "") else [f"imports from {node.module}"]
    if isinstance(node, ast.For | ast.AsyncFor) and _is_set(node.iter, sets):
        return ["iterates over a set"]
    if isinstance(node, ast.comprehension) and _is_set(node.iter, sets):
        # A comprehension has no line of its own; its iterable has.
        node.lineno = node.iter.lineno  # type: ignore[attr-defined]
        return ["iterates over a set"]
    if isinstance(node, ast.Starred) and _is_set(node.value, sets):
        return ["iterates over a set"]
    if isinstance(node, ast.Call):
        return _judge_call(node, sets)
    if isinstance(node, ast.Constant) and isinstance(node.value, float):
        return [f"the float {node.value}"]
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
        return ["division makes a float"]
    return []


def _judge_call(node: ast.Call, sets: dict[str, None]) -> list[str]:
    found = []
    if isinstance(node.func, ast.Name):
        if node.func.id in FORBIDDEN_CALLS:
            found.append(f"calls {node.func.id}()")
        if node.func.id in WALKS and any(_is_set(argument, sets) for argument in node.args):
            found.append("iterates over a set")
    if (
        isinstance(node.func, ast.Attribute)
        and node.func.attr == "pop"
        and not node.args
        and _is_set(node.func.value, sets)
    ):
        found.append("pops from a set")
    return found


def _importable(module: str) -> bool:
    return module.split(".", maxsplit=1)[0] in ALLOWED or any(
        module == ours or module.startswith(ours + ".") for ours in ALLOWED_OURS
    )


def _is_set_type(annotation: ast.AST) -> bool:
    text = ast.unparse(annotation).removeprefix("typing.")
    return text.split("[", maxsplit=1)[0] in (
        "set",
        "frozenset",
        "Set",
        "FrozenSet",
        "AbstractSet",
    ) or text.startswith("frozenset")


def _names_of_sets(tree: ast.AST) -> dict[str, None]:
    """Names of variables, attributes and arguments that are annotated as sets or assigned one."""
    names: dict[str, None] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.AnnAssign) and _is_set_type(node.annotation):
            names[_last(node.target)] = None
        elif isinstance(node, ast.arg) and node.annotation is not None and _is_set_type(node.annotation):
            names[node.arg] = None
        elif isinstance(node, ast.Assign) and _is_set(node.value, {}):
            names.update(dict.fromkeys(map(_last, node.targets)))
    return names


def _last(node: ast.AST) -> str:
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def _is_set(node: ast.AST, sets: dict[str, None]) -> bool:
    if isinstance(node, ast.Set | ast.SetComp):
        return True
    if isinstance(node, ast.Call):
        name = _last(node.func)
        return name in ("set", "frozenset") or (name in SET_METHODS and isinstance(node.func, ast.Attribute))
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr | ast.BitAnd | ast.Sub | ast.BitXor):
        return _is_set(node.left, sets) or _is_set(node.right, sets)
    return isinstance(node, ast.Name | ast.Attribute) and _last(node) in sets


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.py")), ids=lambda path: path.name)
def test_engine_module_is_pure(path):
    assert findings(path.read_text()) == []


@pytest.mark.parametrize(
    "source",
    [
        "import time",
        "import os.path",
        "from random import choice",
        "from collections import deque\nimport asyncio",
        "import logging",
        "from uuid import uuid4",
        "import socket",
        "import chervil.client",
        "import chervil.protocolx",
        "from . import task",
        "from chervil_broker import cli",
        "x = hash('a')",
        "x = id(object())",
        "open('f')",
        "x = 0.5",
        "x = 1 / 2",
        "for x in {1, 2}: pass",
        "for x in set([1]): pass",
        "for x in frozenset((1,)): pass",
        "for x in {y for y in (1,)}: pass",
        "z = [x for x in {1, 2}]",
        "z = {x: 1 for x in {1, 2}}",
        "names: set[str]\nfor x in names: pass",
        "def f(names: frozenset[str] | None):\n    return [n for n in names]",
        "class A:\n    def __init__(self):\n        self._n: set[int] = set()\n    def f(self):\n        for n in self._n: pass",
        "n = {1}\nlist(n)",
        "n = {1}\nz = [*n]",
        "n = {1}\nn.pop()",
        "n = {1}\nfor x in n | {2}: pass",
        "for x in (1).union(2): pass",
    ],
)
def test_lint_catches(source):
    assert len(findings(source)) == 1


@pytest.mark.parametrize(
    "source",
    [
        "from collections import deque",
        "import heapq",
        "from chervil.protocol.messages import Ok",
        "from chervil_broker.engine.task import Task",
        "n: set[int] = set()\nn.add(1)\nx = 1 in n",
        "d = {1: 2}\nfor x in d: pass\nd.pop(1)",
        "x = 7 // 2",
    ],
)
def test_lint_lets_pass(source):
    assert findings(source) == []
