import io
import json
import logging

import pytest

from chervil.logformat import line_handler


def logged(log_format, *arguments, **more):
    stream = io.StringIO()
    logger = logging.getLogger("chervil.test")
    logger.propagate = False
    logger.handlers[:] = [line_handler(log_format, stream)]
    logger.warning(*arguments, **more)
    return stream.getvalue()


def test_text_lines_hold_time_level_logger_and_message():
    line = logged("text", "%s is late", "tea")
    assert line.endswith("WARNING chervil.test  tea is late\n")


def test_a_line_break_in_a_name_makes_no_line_of_its_own():
    line = logged("text", "%s is late", "tea\n2026-01-01 ERROR forged\x1b[31m")
    assert line.count("\n") == 1
    assert "tea\\n2026-01-01 ERROR forged\\x1b[31m is late" in line


@pytest.mark.parametrize(
    ("character", "shown"),
    [
        ("\u202e", "\\u202e"),
        ("\u2066", "\\u2066"),
        ("\u200f", "\\u200f"),
        ("\u200b", "\\u200b"),
        ("\ufeff", "\\ufeff"),
        ("\u2028", "\\u2028"),
        ("\u2029", "\\u2029"),
        ("\x85", "\\x85"),
        ("\x9b", "\\x9b"),
        ("\U000e0041", "\\U000e0041"),
        ("\ud800", "\\ud800"),
    ],
)
def test_characters_that_are_not_seen_or_turn_the_writing_are_shown_as_escapes(character, shown):
    line = logged("text", "%s refused", f"shop{character}nimda")
    assert f"shop{shown}nimda refused" in line


def test_letters_of_any_writing_stay():
    name = "\N{HEBREW LETTER ALEF}\u00fc\u4e2d\U0001f33f \\n 'a'"
    assert f"  {name} refused\n" in logged("text", "%s refused", name)


def test_json_lines_are_one_object_with_what_extra_gave():
    line = json.loads(logged("json", "%s is late", "tea", extra={"minutes": 5}))
    assert line["message"] == "tea is late"
    assert line["level"] == "WARNING"
    assert line["logger"] == "chervil.test"
    assert line["minutes"] == 5
    assert line["time"].endswith("Z")
    assert "args" not in line


def test_json_lines_carry_a_traceback():
    try:
        raise KeyError("cup")
    except KeyError:
        line = json.loads(logged("json", "broken", exc_info=True))
    assert "KeyError: 'cup'" in line["traceback"]


def logged_to_a_file(path, monkeypatch, told=None, log_format="text"):
    """What three lines become, where systemd has told that this file, or what is `told`, is its journal's."""
    with path.open("w+") as stream:
        found = path.stat()
        monkeypatch.setenv("JOURNAL_STREAM", told or f"{found.st_dev}:{found.st_ino}")
        logger = logging.getLogger("chervil.test")
        logger.propagate = False
        logger.setLevel(logging.DEBUG)
        logger.handlers[:] = [line_handler(log_format, stream)]
        for level in (logging.DEBUG, logging.INFO, logging.WARNING, logging.CRITICAL):
            logger.log(level, "tea")
        try:
            raise KeyError("milk")
        except KeyError:
            logger.exception("no tea")
        logger.setLevel(logging.NOTSET)
        stream.seek(0)
        return stream.read().splitlines()


def test_lines_for_systemds_journal_begin_with_their_priority(tmp_path, monkeypatch):
    lines = logged_to_a_file(tmp_path / "log", monkeypatch)
    assert [line[:3] for line in lines[:4]] == ["<7>", "<6>", "<4>", "<2>"]
    assert lines[2].endswith("WARNING chervil.test  tea")
    assert len(lines) > 6, "the traceback's lines among them"
    assert all(line.startswith("<3>") for line in lines[4:])


@pytest.mark.parametrize("more", [{"told": "1:1"}, {"log_format": "json"}])
def test_lines_for_others_and_json_have_no_priority(tmp_path, monkeypatch, more):
    assert not any(line.startswith("<") for line in logged_to_a_file(tmp_path / "log", monkeypatch, **more))


def test_a_stream_that_is_no_file_is_not_the_journals(monkeypatch):
    monkeypatch.setenv("JOURNAL_STREAM", "1:1")
    assert logged("text", "tea").endswith("WARNING chervil.test  tea\n")
