"""How verbs write for people: nothing that steers the terminal, and no line that wraps uglily.

Task names, reasons and results come from outside. What a verb prints of them goes through `printable`
(`table` and `wrapped` do that themselves); JSON is safe as it is, because json.dumps writes ASCII.
"""

import re
import shutil
import sys
import textwrap
import unicodedata
from collections.abc import Sequence
from itertools import accumulate
from shlex import quote

import click

#: Columns that a cell keeps when its table is too wide: fewer say nothing.
NARROWEST = 8

#: A command to type, in a message; `wrapped` leaves it in one line.
_COMMAND = re.compile(r"\bchervil (?:[\w-]+ )+[^\s,;]+")

#: Cells that stand to the right: numbers, times, durations, and nothing.
_NUMBER = re.compile(r"-|\d[\d.:-]*( [a-zA-Z]+)?")


def printable(text: str, keep: str = "") -> str:
    r"""The text with everything escaped that a terminal would obey or not show: `\x1b`, `\u202e`.

    That is what Python's repr escapes (control characters, bidi marks and the like, code points without
    a character), except for spaces of other scripts. Characters in `keep` stay, such as line ends.
    """
    if text.isprintable():
        return text
    return "".join(
        char
        if char.isprintable() or char in keep or unicodedata.category(char) == "Zs"
        else char.encode("unicode_escape").decode("ascii")
        for char in text
    )


def command(words: str, task_id: str) -> str:
    """What to type next: `chervil`, these words, and an id as a shell takes it."""
    return f"chervil {words} {printable(quote(task_id))}"


def columns(*, err: bool = False) -> int | None:
    """How wide the terminal on stdout (or stderr) is; None where it is none: nothing is cut or wrapped."""
    return shutil.get_terminal_size().columns if (sys.stderr if err else sys.stdout).isatty() else None


def cut(text: str, width: int) -> str:
    """The text in at most `width` columns, with `...` where something is missing; `width` is at least 3."""
    if _width(text) <= width:
        return text
    end = sum(taken <= width - 3 for taken in accumulate(map(_width, text)))
    return f"{text[:end]}..."


def wrapped(text: str, indent: int = 0, *, err: bool = False) -> str:
    """The text in lines that fit the terminal, those after the first indented; in one line elsewhere.

    Commands to type and words longer than a line stay whole, so that they can be copied.
    """
    text = printable(text)
    limit = columns(err=err)
    if limit is None or indent + _width(text) <= limit:
        return text
    # A NUL cannot be in printable text: it stands for a space at which no line ends.
    glued = _COMMAND.sub(lambda found: found[0].replace(" ", "\0"), text)
    lines = textwrap.wrap(
        glued, max(limit - indent, NARROWEST), break_long_words=False, break_on_hyphens=False
    )
    return f"\n{' ' * indent}".join(lines).replace("\0", " ")


def one_line(text: str) -> str:
    """The text in one line that is cut where it does not fit the terminal; whole elsewhere."""
    text, limit = printable(text), columns()
    return text if limit is None else cut(text, limit)


def say(text: str) -> None:
    """Writes lines for people to stderr."""
    click.echo("\n".join(wrapped(line, err=True) for line in text.split("\n")), err=True)


def table(rows: Sequence[Sequence[str]], give_way: Sequence[int] = ()) -> str:
    """Rows as aligned columns two spaces apart: numbers and times to the right, the rest to the left.

    The first row is the head. `give_way` are columns that are cut, in this order, where the table is wider
    than the terminal.
    """
    rows = [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(_width, column)) for column in zip(*rows, strict=True)]
    limit = columns()
    if limit is not None:
        over = sum(widths) + 2 * (len(widths) - 1) - limit
        for column in give_way:
            least = max(NARROWEST, len(rows[0][column]))
            given = max(0, min(over, widths[column] - least))
            widths[column] -= given
            over -= given
        rows = [[cut(cell, width) for cell, width in zip(row, widths, strict=True)] for row in rows]
    left = [not all(_NUMBER.fullmatch(cell) for cell in column[1:]) for column in zip(*rows, strict=True)]
    lines = (
        "  ".join(
            _padded(cell, width, to_left=to_left)
            for cell, width, to_left in zip(row, widths, left, strict=True)
        )
        for row in rows
    )
    return "\n".join(line.rstrip() for line in lines)


def _padded(cell: str, width: int, *, to_left: bool) -> str:
    blanks = " " * (width - _width(cell))
    return cell + blanks if to_left else blanks + cell


def _width(text: str) -> int:
    """Columns on a terminal: two for the wide characters of East Asia, none for marks on a letter."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1
        for char in text
    )
