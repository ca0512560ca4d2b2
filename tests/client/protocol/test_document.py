"""protocol.md against the code: each table of the document says what the code does."""

import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from chervil.protocol import (
    COMMANDS,
    FINAL,
    VERSION,
    Code,
    HelloOption,
    Info,
    Outcome,
    RejectOption,
    ReleaseOption,
    RetryOption,
    RevokedOption,
    Role,
    Side,
    Stage,
    State,
    SubscribeOption,
    TaskOption,
    Verdict,
    WelcomeOption,
    failure,
    fields,
    limits,
    rows,
)
from chervil.protocol.errors import NOT_FATAL
from chervil.protocol.messages import Command

DOCUMENT = (Path(__file__).parents[3] / "protocol.md").read_text(encoding="utf-8")


class Table(list[dict[str, str]]):
    """A table's rows, each as heading -> cell."""


def tables(text: str, heading: str) -> list[Table]:
    """The tables below a heading (its line begins with `heading`), up to the next of its rank."""
    lines = text.splitlines()
    start = next((n for n, line in enumerate(lines) if line.startswith(heading)), None)
    assert start is not None, f"protocol.md has no heading {heading!r}"
    rank = len(heading.split(maxsplit=1)[0])
    found: list[Table] = []
    columns: list[str] = []
    for line in lines[start + 1 :]:
        if re.match(rf"#{{1,{rank}}} ", line):
            break
        if not line.startswith("|"):
            columns = []
        elif not columns:
            columns = cells(line)
            found.append(Table())
        elif not set(line) <= set("|-"):
            found[-1].append(dict(zip(columns, cells(line), strict=True)))
    return found


def cells(line: str) -> list[str]:
    return [cell.strip().replace("\\<", "<").replace("\\>", ">") for cell in line.strip("|").split("|")]


def table(text: str, heading: str, first_column: str) -> Table:
    """The one table below a heading whose first column has this name."""
    found = [t for t in tables(text, heading) if t and next(iter(t[0])) == first_column]
    assert len(found) == 1, f"{len(found)} tables of {first_column!r} below {heading!r}"
    return found[0]


def differences(what: str, document: dict[Any, Any], code: dict[Any, Any]) -> list[str]:
    """One line for each key on which the two disagree."""
    return [
        f"{what} {key}: protocol.md says {document.get(key)!r}, the code {code.get(key)!r}"
        for key in [*document, *(key for key in code if key not in document)]
        if document.get(key) != code.get(key)
    ]


def command_differences(text: str) -> list[str]:
    document = {
        int(row["number"]): (row["command"], row["from"], row["role"], row["state"])
        for row in table(text, "### Which command", "number")
    }
    code = {
        c.number: (c.name, c.sender.value if c.sender else "both", c.role.value, ", ".join(c.states))
        for c in COMMANDS.values()
    }
    return differences("command", document, code)


def answer_differences(text: str) -> list[str]:
    """Commands are answered by commands that exist, from the other side; requests by an answer."""
    names = {c.name: c for c in COMMANDS.values()}
    wrong = []
    for row in table(text, "### Which command", "number"):
        command = names[row["command"]]
        answers = [names.get(word) for word in row["answered by"].replace(" or ", " ").split()]
        if None in answers or any(a.sender is command.sender is not None for a in answers if a):
            wrong.append(f"{command.name} is answered by {row['answered by']!r}")
        if ("request" in command.message._fields and command.sender is Side.CLIENT) != bool(
            answers and command.name not in ("HELLO", "GOODBYE", "COMPLETE")
        ):
            wrong.append(f"{command.name} has a request id and no answer, or the other way round")
    return wrong


def later_differences(text: str) -> list[str]:
    headings = re.findall(r"^### ([A-Z]+) \((\d+)\)( \(later\))?$", text, re.MULTILINE)
    document = {int(number): (name, bool(later)) for name, number, later in headings}
    return differences("heading", document, {c.number: (c.name, c.later) for c in COMMANDS.values()})


def field_differences(text: str) -> list[str]:
    return [line for command in COMMANDS.values() for line in one_commands_fields(text, command)]


def one_commands_fields(text: str, command: Command) -> list[str]:
    heading = f"### {command.name} ("
    code = dict(zip(command.message._fields, (kind for kind, _ in command.fields), strict=True))
    if not code:
        return [] if not tables(text, heading) else [f"{command.name} has no fields"]
    first = next(t for t in tables(text, heading) if next(iter(t[0])) == "field")
    document = {row["field"]: row["type"] for row in first}
    wrong = differences(f"{command.name} field", document, code)
    if list(document) != list(code):
        wrong.append(f"{command.name}: fields stand in the order {list(document)}, in code {list(code)}")
    optional = {name for name, kind in code.items() if kind.endswith("?")}
    missing = set(command.message._field_defaults)
    if not missing <= optional:
        wrong.append(f"{command.name}: {missing - optional} may be missing and have no '?'")
    return wrong


def stage_differences(text: str) -> list[str]:
    document = {int(r["number"]): (r["stage"], r["final"]) for r in table(text, "### Stages", "number")}
    code = {int(s): (s.name, "yes" if s in FINAL else "no") for s in Stage}
    return differences("stage", document, code)


def outcome_differences(text: str) -> list[str]:
    document = {int(row["number"]): row["outcome"] for row in table(text, "### COMPLETE (52)", "number")}
    return differences("outcome", document, {int(outcome): outcome.name for outcome in Outcome})


def task_option_differences(text: str) -> list[str]:
    document = {
        int(row["key"]): (row["option"], sample_check(row["type"]))
        for row in table(text, "### PUBLISH (16)", "key")
    }
    code = {int(o): (o.name.lower(), accepted(rows.TASK_OPTIONS[o])) for o in TaskOption}
    return differences("task option", document, code)


SAMPLES = {
    "uint": 1,
    "bool": True,
    "text(255)": "x",
    "id": b"i" * 16,
    "list<edge row>": [[b"i" * 16, 0]],
    "list<id>": [b"i" * 16],
    "map": {"a": 1},
}


def sample_check(kind: str) -> set[str]:
    """Which samples a documented type takes: text passes for an id too."""
    return {kind, "text(255)"} if kind == "id" else {kind}


def accepted(check: fields.Check) -> set[str]:
    """Which samples a check takes."""
    return {kind for kind, sample in SAMPLES.items() if takes(check, sample)}


def takes(check: fields.Check, value: Any) -> bool:
    try:
        check(value)
    except ValueError:
        return False
    return True


def error_differences(text: str) -> list[str]:
    document = {row["code"]: row["fatal"] for row in table(text, "## 6.", "code")}
    return differences("code", document, {str(c): "no" if c in NOT_FATAL else "yes" for c in Code})


def limit_differences(text: str) -> list[str]:
    document = {row["name"]: int(row["value"]) for row in table(text, "## 7.", "name")}
    return differences("limit", document, {name: getattr(limits, name, None) for name in document})


def state_differences(text: str) -> list[str]:
    document = {row["state"]: True for row in table(text, "## 3.", "state")}
    return differences("state", document, {state.value: True for state in State})


def failure_differences(text: str) -> list[str]:
    wrong = []
    document = table(text, "## 5.", "field")
    names = [row["field"] for row in document]
    if names != list(failure.FailureRecord._fields):
        wrong.append(f"failure record: protocol.md has {names}, the code {failure.FailureRecord._fields}")
    sizes = {"message": failure.MESSAGE_MAX, "traceback": failure.TRACEBACK_MAX, "args": failure.ARGS_MAX}
    stated = {r["field"]: int(r["type"].strip("?)").split("(")[1]) for r in document if r["field"] in sizes}
    return wrong + differences("failure record's limit of", stated, sizes)


def listed_option_differences(text: str) -> list[str]:
    """Options that stand in a cell: `1: task name; 3: queue; ...`."""
    cases = {
        ("### HELLO (1)", "field", "options", "meaning"): HelloOption,
        ("### WELCOME (2)", "field", "options", "meaning"): WelcomeOption,
        ("### SUBSCRIBE (48)", "field", "options", "meaning"): SubscribeOption,
        ("### COMPLETE (52)", "number", "3", "options"): RetryOption,
        ("### COMPLETE (52)", "number", "5", "options"): RejectOption,
        ("### COMPLETE (52)", "number", "7", "options"): ReleaseOption,
        ("### COMPLETE (52)", "number", "8", "options"): RevokedOption,
    }
    wrong = []
    for (heading, column, key, cell), enum in cases.items():
        row = next(r for r in table(text, heading, column) if r[column] == key)
        wrong += differences(f"{heading} option", keys_in(row[cell]), dict.fromkeys(map(int, enum), True))
    info = next(r for t in tables(text, "### STATUS (33)") for r in t if r["field"] == "info")
    wrong += differences("info", keys_in(info["meaning"]), dict.fromkeys(map(int, Info), True))
    verdicts = next(r for r in table(text, "### COMPLETED (53)", "field") if r["field"] == "exceptions")
    named = dict(re.findall(r"(\d) (\w+) \(", verdicts["type"] + verdicts["meaning"]))
    return wrong + differences("verdict", named, {str(int(v)): v.name.lower() for v in Verdict})


def keys_in(cell: str) -> dict[int, bool]:
    """The option keys of a cell such as `1: task name; 3: queue` or `2 delay_ms, 4 due_at: ...`."""
    return {int(key): True for key in re.findall(r"(?:^|[;,] )(\d+)(?=:| [a-z])", cell)}


def row_differences(text: str) -> list[str]:
    """The row tables name as many fields as the checks take, and mark those that may be nil."""
    wrong = []
    for heading, check, sample in ROW_SAMPLES:
        document = [t for t in tables(text, heading) if next(iter(t[0])) == "field"][1]
        if len(document) != len(check(list(sample))):
            wrong.append(f"{heading}: a row of {len(document)} fields, in code {len(check(list(sample)))}")
        for position, row in enumerate(document):
            nil = takes(check, [*sample[:position], None, *sample[position + 1 :]])
            if nil != row["type"].endswith("?"):
                wrong.append(f"{heading} row: {row['field']} is {row['type']}, in code nil is {nil}")
    return wrong


_ID = b"i" * 16
ROW_SAMPLES: list[tuple[str, fields.Check, list[Any]]] = [
    ("### PUBLISH (16)", rows.task_row, [_ID, "t", "q", 0, {}, b"", "json", b""]),
    ("### STATUS (33)", rows.status_row, [_ID, 7, "json", b"", {}]),
    (
        "### DELIVER (50)",
        rows.delivery_row,
        [_ID, 1, False, 0, 0, "t", "q", 0, {}, b"", "json", b"", []],
    ),
    ("### COMPLETE (52)", rows.completion_row, [_ID, 1, 1, "json", b"", {}, []]),
]

COMPARISONS: list[Callable[[str], list[str]]] = [
    command_differences,
    answer_differences,
    later_differences,
    field_differences,
    stage_differences,
    outcome_differences,
    task_option_differences,
    listed_option_differences,
    row_differences,
    failure_differences,
    error_differences,
    limit_differences,
    state_differences,
]


@cache
def compared(comparison: Callable[[str], list[str]]) -> list[str]:
    return comparison(DOCUMENT)


@pytest.mark.parametrize("comparison", COMPARISONS, ids=lambda comparison: comparison.__name__)
def test_document_and_code_agree(comparison):
    assert not compared(comparison), "\n".join(compared(comparison))


#: A comparison, words of the document, what to put in their place, and what must then be said.
PLANTED = [
    (command_differences, "| 49 | CREDIT | c |", "| 49 | CREDIT | b |", "command 49"),
    (command_differences, "| 49 | CREDIT | c | consume |", "| 49 | CREDIT | c | control |", "command 49"),
    (command_differences, "| consume | READY, CLOSING | COMPLETED |", "| consume | READY | COMPLETED |", "52"),
    (command_differences, "| 70 | GROW | c | consume | READY | OK |\n", "", "command 70"),
    (answer_differences, "READY | CONFIRM |", "READY | WELCOMED |", "PUBLISH"),
    (answer_differences, "| 64 | STATS | c | control | READY | REPORT |", "| 64 | STATS | c | control | READY | |", "STATS"),
    (later_differences, "### PUBLISH (16)", "### PUBLISH (16) (later)", "heading 16"),
    (later_differences, "### GROW (70) (later)", "### GROW (70)", "heading 70"),
    (field_differences, "| min_version | uint |", "| min_version | bool |", "HELLO field min_version"),
    (field_differences, "| accepted | uint |", "| taken | uint |", "CONFIRM field taken"),
    (field_differences, "| ids | list\\<id\\>(8192) | no longer", "| ids | list\\<id\\>(81) | no longer", "UNWATCH"),
    (field_differences, "| terminate | bool | end running ones too |\n", "", "REVOKE field terminate"),
    (stage_differences, "| 9 | DEAD | yes |", "| 9 | DEAD | no |", "stage 9"),
    (outcome_differences, "| 9 | LOST |", "| 10 | LOST |", "outcome 9"),
    (task_option_differences, "| 10 | ignore_result | bool |", "| 10 | ignore_result | uint |", "option 10"),
    (task_option_differences, "| 16 | delivery_limit |", "| 16 | limit |", "task option 16"),
    (listed_option_differences, "3: the broker's release", "7: the broker's release", "option 7"),
    (listed_option_differences, "38: new priority", "42: new priority", "option 42"),
    (listed_option_differences, "2: requeue, bool", "4: requeue, bool", "option 4"),
    (listed_option_differences, "2 stale (", "3 stale (", "verdict 2"),
    (row_differences, "| codec | text(32)? | of the result |", "| codec | text(32) | of the result |", "codec"),
    (failure_differences, "| traceback | text(262144)? |", "| traceback | text(999)? |", "traceback"),
    (error_differences, "| FULL | no |", "| FULL | yes |", "code FULL"),
    (error_differences, "| SLOW | yes |", "| LAZY | yes |", "code LAZY"),
    (limit_differences, "| ROWS_MAX | 8192 |", "| ROWS_MAX | 8191 |", "limit ROWS_MAX"),
    (state_differences, "| CLOSING | one side", "| ENDING | one side", "state ENDING"),
]  # fmt: skip


@pytest.mark.parametrize(("comparison", "words", "planted", "said"), PLANTED)
def test_a_planted_difference_is_named(comparison, words, planted, said):
    assert DOCUMENT.count(words) == 1, "the words to be changed are gone, or stand there twice"
    before = compared(comparison)
    new = [line for line in comparison(DOCUMENT.replace(words, planted)) if line not in before]
    assert new
    assert any(said in line for line in new), new


def test_document_is_of_the_version_that_the_code_speaks():
    assert DOCUMENT.startswith(f"# The Chervil protocol, version {VERSION}\n")


def test_document_names_every_role():
    named = {row["role"] for row in table(DOCUMENT, "### Which command", "number")}
    assert named == {role.value for role in Role} - {"admin"}  # which holds the others
