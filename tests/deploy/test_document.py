"""docs/deployment.md: what it has people type is there, and its table of variables is the code's."""

import ast
import re
from collections import Counter

import pytest

from chervil.cli.common import ENVIRONMENT
from tests.deploy.commandlines import DEPLOY, ROOT, in_shell, mistakes

TEXT = (ROOT / "docs" / "deployment.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)
#: Lines that people type, and pieces of a line in the text.
TYPED = [
    *(words for kind, block in BLOCKS if kind == "sh" for words in in_shell(block)),
    *(words for piece in re.findall(r"`(chervil [^`]+)`", TEXT) for words in in_shell(piece)),
]


def documented() -> list[str]:
    """The variables in the document's table."""
    return re.findall(r"^\| `(CHERVIL_\w+)` \|", TEXT, re.MULTILINE)


def named_in_code() -> Counter[str]:
    """How often each name of a variable stands in the code, alone in its text."""
    return Counter(
        node.value
        for room in ("client", "broker", "worker")
        for path in (ROOT / room).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and re.fullmatch(r"CHERVIL_[A-Z_]+", node.value)
    )


def test_the_table_is_of_all_variables_that_are_read():
    names = documented()
    assert len(names) == len(set(names))
    assert set(names) == set(named_in_code())
    assert set(names) == {name for name in ENVIRONMENT if name.startswith("CHERVIL_")}


@pytest.mark.parametrize("name", [name for name in ENVIRONMENT if name.startswith("CHERVIL_")])
def test_every_variable_is_read_beside_being_listed(name):
    assert named_in_code()[name] >= 2


@pytest.mark.parametrize("words", TYPED, ids=" ".join)
def test_what_is_typed_is_there(words):
    assert mistakes(words) == []


def test_lines_to_type_are_found():
    assert len(TYPED) >= 20


def test_every_option_that_is_named_in_passing_is_one_of_ours():
    named = set(re.findall(r"`(--[a-z-]+)[^`]*`", TEXT))
    assert named
    assert not [
        name for name in named if all(mistakes([*verb, f"{name}=x"]) for verb in (["broker"], ["worker"]))
    ]


def test_every_file_of_ours_that_is_named_is_there():
    named = set(re.findall(r"\bdeploy/([\w@.-]+\w)", TEXT))
    assert {
        "chervil-broker.service",
        "chervil-broker.socket",
        "chervil-worker@.service",
        "compose.yaml",
    } <= named
    assert all((DEPLOY / name).exists() for name in named)


def test_every_page_that_is_linked_is_there():
    linked = re.findall(r"\]\(([\w./-]+?)(?:#[\w-]*)?\)", TEXT)
    assert linked
    assert all((ROOT / "docs" / name).exists() for name in linked)


def test_every_heading_that_is_linked_is_there():
    headings = {
        re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")
        for title in re.findall(r"^#+ (.*)$", TEXT, re.MULTILINE)
    }
    assert set(re.findall(r"\]\(#([\w-]+)\)", TEXT)) <= headings
