"""The tasks of `chervil demo`; also an example of what a task module looks like."""

import ast
import os
import time
from pathlib import Path

from chervil import Chervil, Task

app = Chervil("demo")

#: How many functions a file may name: ten are shown in the end, and all ten may be in one file.
LONGEST = 10

#: How long a note takes: a kill is to come upon tasks that run.
NOTE_SECONDS = 0.001


@app.task
def longest_functions(path: str) -> tuple[int, list[tuple[int, str, int]]]:
    """How many functions a Python file has, and its longest: (lines, name, line number), longest first."""
    tree = ast.parse(Path(path).read_bytes(), filename=path)
    found = [
        ((node.end_lineno or node.lineno) - node.lineno + 1, node.name, node.lineno)
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    return len(found), sorted(found, reverse=True)[:LONGEST]


@app.task
def nothing() -> None:
    """Does nothing: what it costs is Chervil's share of a task."""


@app.task(bind=True)
def note(self: Task[..., None], path: str, number: int) -> None:
    """Adds a line to a file: its number, the process that runs it, and 1 if it may have been run before."""
    line = f"{number} {os.getpid()} {self.request.redelivered:d}\n"
    with Path(path).open("a") as notes:
        notes.write(line)
    time.sleep(NOTE_SECONDS)
