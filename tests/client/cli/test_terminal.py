"""What verbs may write to a terminal, and how it fits."""

import io
from collections.abc import Callable

import pytest

from chervil.cli.terminal import columns, command, cut, printable, say, table, wrapped

ID = "2f6c0c2e-5f5e-4b43-9a53-0f3e6f3c0a11"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("tasks.add", "tasks.add"),
        ("é 日本\u3000語\u00a0x", "é 日本\u3000語\u00a0x"),
        ("\x1b[31mred\x1b[0m", "\\x1b[31mred\\x1b[0m"),
        ("a\nb\rc\td\x07\x9b", "a\\nb\\rc\\td\\x07\\x9b"),
        ("\u202eexe.txt\u2066\u200f", "\\u202eexe.txt\\u2066\\u200f"),
        ("\u2028\u200b\ud800", "\\u2028\\u200b\\ud800"),
    ],
)
def test_what_a_terminal_obeys_or_hides_is_shown_escaped(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_kept_characters_stay() -> None:
    assert printable("a\n\tb\x1b", keep="\n\t") == "a\n\tb\\x1b"


def test_an_id_is_shown_as_a_shell_takes_it() -> None:
    assert command("why", ID) == f"chervil why {ID}"
    assert command("why", "my task; rm -rf") == "chervil why 'my task; rm -rf'"
    assert command("why", "a\x1b") == "chervil why 'a\\x1b'"


def test_text_is_cut_to_columns_and_says_so() -> None:
    assert cut("abcdef", 6) == "abcdef"
    assert cut("abcdefg", 6) == "abc..."
    assert cut("日本語日本語", 8) == "日本..."
    assert cut("e\u0301" * 4, 4) == "e\u0301" * 4


def test_nothing_is_cut_where_there_is_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout", io.StringIO())
    assert columns() is None
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "66")
    assert columns() == 66
    assert columns(err=True) is None


def test_long_lines_are_wrapped_at_words_and_commands_stay_whole(screen: Callable[[int], None]) -> None:
    text = f"parked: its process died; run it again: {command('retry', ID)}"
    assert wrapped(text) == text
    screen(40)
    assert wrapped(text, indent=6).splitlines() == [
        "parked: its process died; run it",
        "      again:",
        f"      chervil retry {ID}",
    ]
    assert wrapped("a\x1b") == "a\\x1b"


def test_lines_for_people_go_to_stderr(
    screen: Callable[[int], None], capsys: pytest.CaptureFixture[str]
) -> None:
    screen(20)
    say("Error: this is too long for it\nand \x1b here")
    assert capsys.readouterr() == ("", "Error: this is too\nlong for it\nand \\x1b here\n")


def test_table_puts_numbers_right_and_names_left() -> None:
    assert table([("NAME", "N"), ("a", "1"), ("long name", "10")]) == (
        "NAME        N\na           1\nlong name  10"
    )


def test_table_counts_wide_characters_twice_and_escapes_cells() -> None:
    assert table([("NAME", "Q"), ("日本", "x"), ("\x1b", "y")]) == "NAME  Q\n日本  x\n\\x1b  y"


def test_columns_give_way_in_their_order_and_not_below_a_minimum(screen: Callable[[int], None]) -> None:
    rows = [("ID", "NAME", "QUEUE"), ("i" * 10, "n" * 20, "q" * 20)]
    screen(54)
    assert table(rows, give_way=(2, 1)).splitlines()[1] == f"{'i' * 10}  {'n' * 20}  {'q' * 20}"
    screen(50)
    assert table(rows, give_way=(2, 1)).splitlines()[1] == f"{'i' * 10}  {'n' * 20}  {'q' * 13}..."
    screen(40)
    assert table(rows, give_way=(2, 1)).splitlines()[1] == f"{'i' * 10}  {'n' * 15}...  qqqqq..."
    screen(10)
    assert table(rows, give_way=(2, 1)).splitlines()[1] == f"{'i' * 10}  nnnnn...  qqqqq..."
