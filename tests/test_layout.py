"""The house's measures: how long a module and a function may be, and that tests mirror modules."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MODULE_LINES_MAX = 500
FUNCTION_LINES_MAX = 70
MIRRORED = {
    ROOT / "client" / "chervil": ROOT / "tests" / "client",
    ROOT / "broker" / "chervil_broker": ROOT / "tests" / "broker",
    ROOT / "worker" / "chervil_worker": ROOT / "tests" / "worker",
}
#: Modules without a test module of their own, and why. `__init__` and `__main__` never have one: they
#: re-export or call one function, and tests/e2e runs them.
WITHOUT_A_TEST_MODULE: dict[str, str] = {
    "client/chervil/version.py": "one constant; tests/client/cli/test_main.py reads it through --version",
    "broker/chervil_broker/engine/effects.py": "fields only; every test of the engine reads them",
    "broker/chervil_broker/journal/segments.py": "fields only; the tests of reader and writer read them",
    "client/chervil/cli/exits.py": "constants only; the tests of the verbs read them",
    "client/chervil/cli/demo_tasks.py": "tests/client/cli/test_demo.py runs them",
}


def sources(*folders: str) -> list[Path]:
    return [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]


def too_long(source: str, most: int = FUNCTION_LINES_MAX) -> list[str]:
    """The functions of a module that have more lines than allowed, decorators not counted."""
    return [
        f"{node.name} has {length} lines"
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (length := (node.end_lineno or node.lineno) - node.lineno + 1) > most
    ]


def test_no_module_has_more_than_500_lines():
    long = {
        str(path.relative_to(ROOT)): lines
        for path in sources("client", "broker", "worker", "tests", "benchmarks", "examples")
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) > MODULE_LINES_MAX
    }
    assert not long


def test_no_function_has_more_than_70_lines():
    long = [
        f"{path.relative_to(ROOT)}: {line}"
        for path in sources("client", "broker", "worker", "benchmarks", "examples")
        for line in too_long(path.read_text(encoding="utf-8"))
    ]
    assert not long, "\n".join(long)


def unmirrored() -> set[str]:
    """The modules that have no test module in the same place under tests/."""
    return {
        str(path.relative_to(ROOT))
        for room, tests in MIRRORED.items()
        for path in room.rglob("*.py")
        if not path.name.startswith("__")
        and not (tests / path.relative_to(room).with_name(f"test_{path.name}")).exists()
    }


def test_every_module_has_a_test_module_in_the_same_place():
    missing = sorted(unmirrored() - set(WITHOUT_A_TEST_MODULE))
    assert not missing, "\n".join(missing)


def test_list_of_exceptions_holds_no_module_that_is_tested_or_gone():
    assert set(WITHOUT_A_TEST_MODULE) <= unmirrored()


def test_every_test_module_mirrors_something_that_is_there():
    """A test module keeps its module's name, or stands beside others of a folder that is there."""
    for room, tests in MIRRORED.items():
        for path in tests.rglob("test_*.py"):
            assert (room / path.relative_to(tests).parent).is_dir(), path


@pytest.mark.parametrize("lines", [FUNCTION_LINES_MAX, FUNCTION_LINES_MAX + 1])
def test_planted_function_that_is_too_long_is_found(lines):
    source = "class A:\n    @property\n    def f(self):\n" + "        pass\n" * (lines - 1)
    assert too_long(source) == ([f"f has {lines} lines"] if lines > FUNCTION_LINES_MAX else [])
