"""docs/deployment.md and its neighbours: what they have people type is there, and so is what they link to.

And deployment.md's table of variables is the code's.
"""

import ast
import re
from collections import Counter
from collections.abc import Iterator

import pytest

from chervil.cli.common import ENVIRONMENT
from tests.deploy.commandlines import DEPLOY, ROOT, in_shell, mistakes

PAGES = {
    name: (ROOT / "docs" / name).read_text()
    for name in ("deployment.md", "security.md", "when-things-go-wrong.md")
}
TEXT = PAGES["deployment.md"]


def typed(text: str) -> Iterator[list[str]]:
    """Lines that people type, and pieces of a line in the text."""
    for block in re.findall(r"^```sh\n(.*?)^```$", text, re.DOTALL | re.MULTILINE):
        yield from in_shell(block)
    for block in re.findall(r"^```console\n(.*?)^```$", text, re.DOTALL | re.MULTILINE):
        yield from in_shell(re.sub(r"^\$ ", "", block, flags=re.MULTILINE))
    for piece in re.findall(r"`(chervil [^`]+)`", text):
        yield from in_shell(piece)


TYPED = [words for text in PAGES.values() for words in typed(text)]


def anchors(text: str) -> set[str]:
    """What a link to a heading of this page may end with."""
    titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


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


@pytest.mark.parametrize("name", PAGES)
def test_every_page_and_every_heading_that_is_linked_is_there(name):
    linked = re.findall(r"\]\(([\w./-]*)(?:#([\w-]+))?\)", PAGES[name])
    assert linked
    for page, heading in linked:
        text = (ROOT / "docs" / (page or name)).read_text()
        assert not heading or heading in anchors(text), f"{page}#{heading}"
